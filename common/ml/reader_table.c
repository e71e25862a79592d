/*
 * Layout `table`: one CSV or TSV file, a sample a row, rows in the order of time. The borders lie at shares of the
 * whole table, so they are the same moment for every class.
 */
#include "ml/csv.h"
#include "ml/reader_layout.h"

#include <stdlib.h>
#include <string.h>

struct table_data {
	const struct csv *csv;
	size_t *columns; /* owned: the inputs */
	size_t n_columns;
	int target;
	int *class; /* owned: of each row, -1: not known to the model; NULL for regression */
};

static enum err check_model(const struct reader_config *config, const struct model *m)
{
	if (config->target == NULL)
		return err_set(ERR_CONFIG, "data: layout: table needs target: the column of the class or value");
	if (config->window > 1 || config->step > 1)
		return err_set(ERR_CONFIG, "data: layout: table has one sample a row; window and step are for records");
	if (config->normalize == NORMALIZE_WINDOW)
		return err_set(ERR_CONFIG, "data: normalize: window is for records; a table takes train or none");
	if (m->classes.n == 0 && m->n_outputs != 1)
		return err_set(ERR_CONFIG, "data: layout: table has one target, the model has %zu outputs",
			       m->n_outputs);
	return ERR_OK;
}

static enum err open_table(const struct reader_config *config, const struct model *m, size_t width,
			   struct table_data *d)
{
	d->target = csv_column(d->csv, config->target);
	if (d->target < 0)
		return err_set(ERR_CONFIG, "target: %s has no column '%s'", config->path, config->target);
	TRY(reader_columns(d->csv, &config->columns, d->target, &d->columns, &d->n_columns));
	if (d->n_columns != width)
		return err_set(ERR_SHAPE,
			       "%s: %zu input columns, the model takes %zu values; choose them with columns: [...]",
			       config->path, d->n_columns, width);
	if (d->csv->n_rows == 0)
		return err_set(ERR_CONFIG, "%s: no rows", config->path);
	if (m->classes.n == 0)
		return ERR_OK;
	d->class = mem_array(d->csv->n_rows, sizeof *d->class);
	for (size_t i = 0; i < d->csv->n_rows; i++) {
		const char *text = d->csv->cells[i * d->csv->n_columns + (size_t)d->target];
		d->class[i] = reader_class_find(m, text, strlen(text));
	}
	return ERR_OK;
}

static enum err add(struct dataset *set, const struct table_data *d, const size_t *rows, size_t n)
{
	size_t first = set->n;
	TRY(dataset_grow(set, n));
	for (size_t i = 0; i < n; i++) {
		for (size_t k = 0; k < d->n_columns; k++)
			TRY(reader_value(d->csv, rows[i], d->columns[k], &set->x[(first + i) * set->width + k]));
		if (d->class != NULL)
			set->label[first + i] = (uint32_t)d->class[rows[i]];
		else
			TRY(reader_value(d->csv, rows[i], (size_t)d->target, &set->target[first + i]));
	}
	return ERR_OK;
}

/* Rows of one class (any row for regression) in [begin, end). */
static size_t rows_of(const struct table_data *d, int class, size_t begin, size_t end, size_t *out)
{
	size_t n = 0;
	for (size_t i = begin; i < end; i++) {
		if (d->class == NULL || d->class[i] == class)
			out[n++] = i;
	}
	return n;
}

static enum err share_out(const struct reader_config *config, const struct model *m, const struct table_data *d,
			  const bool *chosen, struct reader_split *s)
{
	size_t n_rows = d->csv->n_rows, n_groups = m->classes.n > 0 ? m->classes.n : 1, train_end, test_begin,
	       known = 0;
	size_t *rows = mem_array(n_rows, sizeof *rows);
	enum err e = ERR_OK;
	for (size_t k = 0; e == ERR_OK && k < n_groups; k++) {
		const char *name = m->classes.n > 0 ? m->classes.v[k] : config->target;
		struct split_rule rule = reader_rule(config, name, 1, 1);
		split_borders(&rule, n_rows, &train_end, &test_begin);
		known += rows_of(d, (int)k, 0, n_rows, rows);
		size_t n = rows_of(d, (int)k, test_begin, n_rows, rows);
		e = add(s->test, d, rows, n);
		if (e != ERR_OK || config->train <= 0 || !chosen[k])
			continue;
		struct split split = {0};
		n = rows_of(d, (int)k, 0, train_end, rows);
		if (n == 0 && config->classes.n > 0)
			e = err_set(ERR_CONFIG, "%s: no row of class '%s' in the training part", config->path, name);
		if (n == 0)
			continue;
		e = split_choose(&rule, rows, n, &split);
		if (e != ERR_OK)
			e = err_add(e, "%s: %s", config->path, name);
		if (e == ERR_OK)
			e = add(s->train, d, split.train, split.n_train);
		if (e == ERR_OK)
			e = add(s->heldout, d, split.heldout, split.n_heldout);
		split_deinit(&split);
	}
	free(rows);
	if (e == ERR_OK && known == 0)
		e = err_set(ERR_NOT_FOUND, "%s: no row with a class that the model knows (%s, ...)", config->path,
			    m->classes.v[0]);
	return e;
}

enum err reader_table(const struct reader_config *config, const struct model *m, struct reader_split *s)
{
	struct csv *csv = NULL;
	bool *chosen = NULL;
	struct table_data d = {0};
	TRY(check_model(config, m));
	enum err e = csv_load(config->path, &csv);
	if (e != ERR_OK)
		return e;
	d.csv = csv;
	e = open_table(config, m, s->train->width, &d);
	if (e == ERR_OK && m->classes.n > 0)
		e = reader_classes(config, m, &chosen);
	if (e == ERR_OK && chosen == NULL) {
		chosen = mem_array(1, sizeof *chosen);
		chosen[0] = true;
	}
	if (e == ERR_OK)
		e = share_out(config, m, &d, chosen, s);
	s->n_channels = d.n_columns;
	free(chosen);
	free(d.columns);
	free(d.class);
	csv_free(csv);
	return e;
}
