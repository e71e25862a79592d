/*
 * What all layouts have in common: configuration, classes, columns, normalisation. The layouts are in reader_records.c
 * and reader_table.c; a further one is a function and a row in the tables here.
 */
#include "ml/reader_layout.h"

#include "base/rng.h"
#include "ml/csv.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const layout_names[] = {"records", "table", NULL};
static enum err (*const layouts[])(const struct reader_config *, const struct model *,
				   struct reader_split *) = {reader_records, reader_table};
static const char *const normalize_names[] = {"none", "window", "train", "auto", NULL};

#define AT(field) offsetof(struct reader_config, field)
const struct config_row reader_rows[] = {
	{"path", CONFIG_STRING, AT(path), .required = true, .help = "folder of recordings, or table"},
	{"layout", CONFIG_ENUM, AT(layout), .def = "records", .names = layout_names,
	 .help = "records: CLASS.npy or CLASS.csv each; table: one CSV/TSV file"},
	{"window", CONFIG_INT, AT(window), .def = "0", .min = 0, .max = 1 << 24,
	 .help = "samples of a window; 0: as the model takes"},
	{"step", CONFIG_INT, AT(step), .def = "0", .min = 0, .max = 1 << 24,
	 .help = "samples from one window to the next; 0: no overlap"},
	{"train", CONFIG_REAL, AT(train), .def = "0.7", .min = 0, .max = 1,
	 .help = "share of each recording, from its start, for training"},
	{"test_from", CONFIG_REAL, AT(test_from), .def = "0.7", .min = 0, .max = 1,
	 .help = "where in each recording the test part begins; 1: no test"},
	{"heldout", CONFIG_REAL, AT(heldout), .def = "0.2", .min = 0, .max = 0.9,
	 .help = "share of the labelled windows that choose the best model"},
	{"labels", CONFIG_INT, AT(labels), .def = "0", .min = 0, .max = 1 << 24,
	 .help = "labelled windows a class, held-out ones included; 0: all"},
	{"part", CONFIG_INT, AT(part), .def = "0", .min = 0, .max = 1023,
	 .help = "which share of the windows is this plant's, from 0"},
	{"parts", CONFIG_INT, AT(parts), .def = "1", .min = 1, .max = 1024,
	 .help = "how many plants share these recordings"},
	{"classes", CONFIG_LIST, AT(classes), .max = MODEL_CLASSES_MAX,
	 .help = "classes with labels here; none: all that are found"},
	{"columns", CONFIG_LIST, AT(columns), .max = CSV_COLUMNS_MAX,
	 .help = "input columns; none: all but the target"},
	{"target", CONFIG_STRING, AT(target), .help = "table: column of the class or value"},
	{"normalize", CONFIG_ENUM, AT(normalize), .def = "auto", .names = normalize_names,
	 .help = "window: each on its own; train: by the training windows; auto: window, train for a table"},
	{"seed", CONFIG_INT, AT(seed), .def = "0", .min = 0, .max = 9007199254740992.0,
	 .help = "which windows are labelled"},
	{0},
};
#undef AT

struct split_rule reader_rule(const struct reader_config *config, const char *class, size_t window, size_t step)
{
	struct rng r;
	rng_stream(&r, (uint64_t)config->seed, class, 0);
	return (struct split_rule){
		.window = window,
		.step = step,
		.train = config->train,
		.test_from = config->test_from,
		.heldout = config->heldout,
		.labels = (size_t)config->labels,
		.part = (size_t)config->part,
		.parts = (size_t)config->parts,
		.offset = rng_uniform(&r),
	};
}

int reader_class_find(const struct model *m, const char *name, size_t n)
{
	for (size_t i = 0; i < m->classes.n; i++) {
		if (strlen(m->classes.v[i]) == n && memcmp(m->classes.v[i], name, n) == 0)
			return (int)i;
	}
	return -1;
}

enum err reader_classes(const struct reader_config *config, const struct model *m, bool **ret_chosen)
{
	bool *chosen = mem_array(m->classes.n, sizeof *chosen);
	for (size_t i = 0; i < config->classes.n; i++) {
		const char *name = config->classes.v[i];
		int k = reader_class_find(m, name, strlen(name));
		if (k < 0) {
			free(chosen);
			return err_set(ERR_CONFIG, "classes: '%s' is not a class of the model", name);
		}
		chosen[k] = true;
	}
	for (size_t k = 0; config->classes.n == 0 && k < m->classes.n; k++)
		chosen[k] = true;
	*ret_chosen = chosen;
	return ERR_OK;
}

enum err reader_value(const struct csv *c, size_t row, size_t column, float *ret_value)
{
	double v;
	TRY(csv_number(c, row, column, &v));
	if (fabs(v) > (double)FLT_MAX)
		return err_set(ERR_NUMERIC, "%s:%u: %s: %g is too large for a float", c->file, c->lines[row],
			       c->names[column], v);
	*ret_value = (float)v;
	return ERR_OK;
}

enum err reader_columns(const struct csv *c, const struct config_list *names, int except, size_t **ret_columns,
			size_t *ret_n)
{
	size_t n = 0;
	size_t *columns = mem_array(names->n > 0 ? names->n : c->n_columns, sizeof *columns);
	for (size_t i = 0; i < names->n; i++) {
		int k = csv_column(c, names->v[i]);
		if (k < 0 || k == except) {
			free(columns);
			return err_set(ERR_CONFIG,
				       k < 0 ? "columns: %s has no column '%s'" : "columns: in %s, '%s' is the target",
				       c->file, names->v[i]);
		}
		columns[n++] = (size_t)k;
	}
	for (size_t k = 0; names->n == 0 && k < c->n_columns; k++) {
		if ((int)k != except)
			columns[n++] = k;
	}
	*ret_columns = columns;
	*ret_n = n;
	return ERR_OK;
}

/* Mean and deviation of one channel over `n` runs of `length` values, `stride` apart; two passes in double. */
static void moments(const float *x, size_t n, size_t stride, size_t length, double *ret_mean, double *ret_deviation)
{
	double sum = 0, squares = 0, count = (double)n * (double)length;
	for (size_t i = 0; i < n; i++)
		for (size_t t = 0; t < length; t++)
			sum += (double)x[i * stride + t];
	double mean = sum / count;
	for (size_t i = 0; i < n; i++)
		for (size_t t = 0; t < length; t++)
			squares += ((double)x[i * stride + t] - mean) * ((double)x[i * stride + t] - mean);
	*ret_mean = mean;
	*ret_deviation = sqrt(squares / count);
}

static void scale(float *x, size_t length, double mean, double deviation)
{
	for (size_t t = 0; t < length; t++)
		x[t] = (float)(((double)x[t] - mean) / deviation);
}

/* A constant channel becomes zero. */
static void normalize_windows(struct dataset *d, size_t channels)
{
	size_t length = d->width / channels;
	for (size_t i = 0; i < d->n * channels; i++) {
		double mean, deviation;
		moments(d->x + i * length, 1, 0, length, &mean, &deviation);
		scale(d->x + i * length, length, mean, deviation > 0 ? deviation : 1);
	}
}

static void normalize_by_train(struct reader_split *s)
{
	size_t channels = s->n_channels, width = s->train->width, length = width / channels;
	struct dataset *sets[] = {s->train, s->heldout, s->test};
	s->mean = mem_array(channels, sizeof *s->mean);
	s->deviation = mem_array(channels, sizeof *s->deviation);
	for (size_t c = 0; c < channels; c++) {
		double mean, deviation;
		moments(s->train->x + c * length, s->train->n, width, length, &mean, &deviation);
		s->mean[c] = (float)mean;
		s->deviation[c] = (float)deviation > 0 ? (float)deviation : 1;
		for (size_t k = 0; k < sizeof sets / sizeof *sets; k++)
			for (size_t i = 0; i < sets[k]->n; i++)
				scale(sets[k]->x + i * width + c * length, length, (double)s->mean[c],
				      (double)s->deviation[c]);
	}
}

static enum reader_normalize normalize_of(const struct reader_config *c)
{
	if (c->normalize != NORMALIZE_AUTO)
		return (enum reader_normalize)c->normalize;
	return layouts[c->layout] == reader_table ? NORMALIZE_TRAIN : NORMALIZE_WINDOW;
}

static enum err check_config(const struct reader_config *c)
{
	if (c->train > c->test_from)
		return err_set(ERR_CONFIG,
			       "data: the test part begins (test_from: %g) before the training part ends (train: %g)",
			       c->test_from, c->train);
	if (c->part >= c->parts)
		return err_set(ERR_CONFIG, "data: part: %lld of parts: %lld; parts are counted from 0",
			       (long long)c->part, (long long)c->parts);
	if (normalize_of(c) == NORMALIZE_TRAIN && c->train <= 0)
		return err_set(ERR_CONFIG, "data: normalize: train needs a training part (train: 0)");
	return ERR_OK;
}

enum err reader_load(const struct reader_config *config, const struct model *m, struct reader_split *ret_split)
{
	TRY(check_config(config));
	struct reader_split s = {0};
	struct dataset **sets[] = {&s.train, &s.heldout, &s.test};
	size_t n_targets = m->classes.n > 0 ? 0 : m->n_outputs;
	enum err e = ERR_OK;
	for (size_t i = 0; e == ERR_OK && i < sizeof sets / sizeof *sets; i++)
		e = dataset_new(0, &m->input, m->classes.n, n_targets, sets[i]);
	if (e == ERR_OK)
		e = layouts[config->layout](config, m, &s);
	if (e == ERR_OK && config->train > 0 && s.train->n == 0)
		e = err_set(ERR_CONFIG, "%s: nothing to train on", config->path);
	if (e != ERR_OK) {
		reader_split_free(&s);
		return e;
	}
	if (normalize_of(config) == NORMALIZE_WINDOW)
		for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
			normalize_windows(*sets[i], s.n_channels);
	else if (normalize_of(config) == NORMALIZE_TRAIN)
		normalize_by_train(&s);
	*ret_split = s;
	return ERR_OK;
}

void reader_split_free(struct reader_split *s)
{
	dataset_free(s->train);
	dataset_free(s->heldout);
	dataset_free(s->test);
	free(s->mean);
	free(s->deviation);
	*s = (struct reader_split){0};
}
