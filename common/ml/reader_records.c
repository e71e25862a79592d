/*
 * Layout `records`: a folder with one recording per class. Files are found by listing the folder and matching names
 * with the model's classes, never by making a path out of a class name: those may come from somewhere else.
 */
#include "ml/csv.h"
#include "ml/npy.h"
#include "ml/reader_layout.h"

#include "base/file.h"
#include "base/log.h"

#include <stdlib.h>
#include <string.h>

/* One recording: value (t, c) at v[t * channels + c]. */
struct record {
	float *v; /* owned */
	size_t n, channels;
};

static enum err record_npy(const char *path, const struct config_list *columns, struct record *ret_record)
{
	struct shape shape;
	float *v;
	if (columns->n > 0)
		return err_set(ERR_CONFIG, "columns: %s has no names for its columns", path);
	TRY(npy_load(path, &shape, &v));
	*ret_record = (struct record){.v = v, .n = shape.d[0], .channels = shape.n == 2 ? shape.d[1] : 1};
	return ERR_OK;
}

static enum err record_csv(const char *path, const struct config_list *columns, struct record *ret_record)
{
	struct csv *c;
	size_t *column = NULL, n = 0;
	struct record r = {0};
	TRY(csv_load(path, &c));
	enum err e = reader_columns(c, columns, -1, &column, &n);
	if (e == ERR_OK) {
		r = (struct record){.v = mem_array(c->n_rows * n, sizeof *r.v), .n = c->n_rows, .channels = n};
		for (size_t t = 0; e == ERR_OK && t < r.n; t++)
			for (size_t k = 0; e == ERR_OK && k < n; k++)
				e = reader_value(c, t, column[k], &r.v[t * n + k]);
	}
	free(column);
	csv_free(c);
	if (e != ERR_OK) {
		free(r.v);
		return e;
	}
	*ret_record = r;
	return ERR_OK;
}

static const struct record_type {
	const char *extension;
	enum err (*load)(const char *path, const struct config_list *columns, struct record *ret_record);
} record_types[] = {{".npy", record_npy}, {".csv", record_csv}, {".tsv", record_csv}};

struct found {
	char *path; /* owned; NULL: no recording of this class */
	const struct record_type *type;
};

struct folder {
	const char *path;
	const struct model *m;
	struct found *found; /* owned: per class */
	size_t n;            /* found */
	size_t n_unknown;    /* recordings of classes that the model does not know */
	char *unknown;       /* owned: one of them, for the message */
};

static bool is_table_name(const char *path)
{
	size_t n = strlen(path);
	return n > 4 && (strcmp(path + n - 4, ".csv") == 0 || strcmp(path + n - 4, ".tsv") == 0);
}

static enum err find(void *arg, const char *name)
{
	struct folder *f = arg;
	for (size_t i = 0; i < sizeof record_types / sizeof *record_types; i++) {
		size_t n = strlen(name), end = strlen(record_types[i].extension);
		if (n <= end || strcmp(name + n - end, record_types[i].extension) != 0)
			continue;
		int k = reader_class_find(f->m, name, n - end);
		if (k < 0) {
			if (f->n_unknown++ == 0)
				f->unknown = mem_str(name);
			return ERR_OK;
		}
		struct found *found = &f->found[k];
		if (found->path != NULL)
			return err_set(ERR_CONFIG, "%s: both %s and %s%s; one recording a class", f->path, name,
				       f->m->classes.v[k], found->type->extension);
		*found = (struct found){.path = mem_printf("%s/%s", f->path, name), .type = &record_types[i]};
		f->n++;
		return ERR_OK;
	}
	return ERR_OK;
}

struct window {
	size_t channels, length, step;
};

static enum err window_of(const struct reader_config *config, const struct model *m, struct window *ret_window)
{
	if (m->classes.n == 0)
		return err_set(ERR_CONFIG,
			       "data: layout: records needs a model with classes; this one predicts values");
	if (m->input.n != 1 && m->input.n != 2)
		return err_set(ERR_CONFIG, "data: layout: records needs a model whose input is [channels, length]");
	struct window w = {.channels = m->input.n == 2 ? m->input.d[0] : 1, .length = m->input.d[m->input.n - 1]};
	if (config->window != 0 && (size_t)config->window != w.length)
		return err_set(ERR_CONFIG, "data: window: %lld, but the model takes %zu samples",
			       (long long)config->window, w.length);
	w.step = config->step > 0 ? (size_t)config->step : w.length;
	*ret_window = w;
	return ERR_OK;
}

/* Append the windows that begin at starts[0..n), (t, c) turned into (c, t). */
static enum err add(struct dataset *d, const struct record *r, const struct window *w, const size_t *starts, size_t n,
		    size_t label)
{
	size_t first = d->n;
	TRY(dataset_grow(d, n));
	for (size_t i = 0; i < n; i++) {
		float *x = d->x + (first + i) * d->width;
		const float *v = r->v + starts[i] * r->channels;
		for (size_t c = 0; c < w->channels; c++)
			for (size_t t = 0; t < w->length; t++)
				x[c * w->length + t] = v[t * r->channels + c];
		d->label[first + i] = (uint32_t)label;
	}
	return ERR_OK;
}

static enum err too_short(const char *path, const char *part, size_t n, size_t window)
{
	return err_set(ERR_CONFIG, "%s: the %s part has %zu samples, a window needs %zu", path, part, n, window);
}

static enum err share_out(const struct split_rule *rule, const char *path, const struct record *r,
			  const struct window *w, bool labelled, size_t label, struct reader_split *s)
{
	size_t train_end, test_begin, *starts;
	split_borders(rule, r->n, &train_end, &test_begin);
	if (rule->test_from < 1) {
		size_t n = split_cut(test_begin, r->n, w->length, w->step, &starts);
		enum err e = n > 0 ? add(s->test, r, w, starts, n, label)
				   : too_short(path, "test", r->n - test_begin, w->length);
		free(starts);
		TRY(e);
	}
	if (!labelled || rule->train <= 0)
		return ERR_OK;
	struct split split = {0};
	size_t n = split_cut(0, train_end, w->length, w->step, &starts);
	enum err e = n > 0 ? split_choose(rule, starts, n, &split) : too_short(path, "training", train_end, w->length);
	if (e == ERR_OK) {
		e = add(s->train, r, w, split.train, split.n_train, label);
		if (e == ERR_OK)
			e = add(s->heldout, r, w, split.heldout, split.n_heldout, label);
	} else if (n > 0) {
		e = err_add(e, "%s", path);
	}
	split_deinit(&split);
	free(starts);
	return e;
}

static enum err read_class(const struct reader_config *config, const struct model *m, const struct found *found,
			   size_t label, bool labelled, const struct window *w, struct reader_split *s)
{
	struct record r;
	TRY(found->type->load(found->path, &config->columns, &r));
	enum err e;
	if (r.channels != w->channels) {
		e = err_set(ERR_SHAPE, "%s: %zu samples of %zu channels, the model takes %zu channels", found->path,
			    r.n, r.channels, w->channels);
	} else {
		struct split_rule rule = reader_rule(config, m->classes.v[label], w->length, w->step);
		e = share_out(&rule, found->path, &r, w, labelled, label, s);
	}
	free(r.v);
	return e;
}

enum err reader_records(const struct reader_config *config, const struct model *m, struct reader_split *s)
{
	struct window w;
	bool *chosen;
	uint64_t size;
	if (is_table_name(config->path) && file_size(config->path, &size) == ERR_OK)
		return err_set(ERR_CONFIG, "data: path: %s is a file; for a table say layout: table and target: COLUMN",
			       config->path);
	TRY(window_of(config, m, &w));
	TRY(reader_classes(config, m, &chosen));
	struct folder f = {.path = config->path, .m = m, .found = mem_array(m->classes.n, sizeof *f.found)};
	enum err e = dir_each(config->path, find, &f);
	/* Whoever names the classes knows what is left out. */
	if (e == ERR_OK && f.n > 0 && f.n_unknown > 0 && config->classes.n == 0)
		log_warn("data", "%s: left out %zu recording%s of classes that the model does not know (%s%s)",
			 config->path, f.n_unknown, f.n_unknown > 1 ? "s" : "", f.unknown,
			 f.n_unknown > 1 ? ", ..." : "");
	if (e == ERR_OK && f.n == 0)
		e = err_set(ERR_NOT_FOUND, "%s: no recording of a class that the model knows (%s.npy, ...)",
			    config->path, m->classes.v[0]);
	for (size_t k = 0; e == ERR_OK && k < m->classes.n; k++) {
		if (f.found[k].path != NULL)
			e = read_class(config, m, &f.found[k], k, chosen[k], &w, s);
		else if (chosen[k] && config->classes.n > 0)
			e = err_set(ERR_NOT_FOUND, "%s: no recording of class '%s' (%s.npy or %s.csv)", config->path,
				    m->classes.v[k], m->classes.v[k], m->classes.v[k]);
	}
	s->n_channels = w.channels;
	for (size_t k = 0; k < m->classes.n; k++)
		free(f.found[k].path);
	free(f.found);
	free(f.unknown);
	free(chosen);
	return e;
}
