/*
 * Between reader.c and its layouts: each reads its files, cuts and splits, and appends raw windows to the three sets of
 * a split.
 */
#ifndef HANSA_ML_READER_LAYOUT_H
#define HANSA_ML_READER_LAYOUT_H

#include "ml/reader.h"
#include "ml/split.h"

/* Sets n_channels and appends to train, heldout and test, which are there and empty. */
MUST_CHECK enum err reader_records(const struct reader_config *config, const struct model *m, struct reader_split *s);
MUST_CHECK enum err reader_table(const struct reader_config *config, const struct model *m, struct reader_split *s);

/* The rule for one class; its offset is a function of seed and class alone, whatever other classes there are. */
struct split_rule reader_rule(const struct reader_config *config, const char *class, size_t window, size_t step);

/* Which of the model's classes are labelled here: *ret_chosen has a flag per class, owned by the caller. ERR_CONFIG for
 * a class that the model does not know. */
MUST_CHECK enum err reader_classes(const struct reader_config *config, const struct model *m, bool **ret_chosen);
int reader_class_find(const struct model *m, const char *name, size_t n); /* -1: unknown */

/* ERR_NUMERIC when it does not fit; `c`, `row`, `column` for the text. */
struct csv;
MUST_CHECK enum err reader_value(const struct csv *c, size_t row, size_t column, float *ret_value);
/* The places of the named columns; all but `except` (-1: none) when the list is empty. ERR_CONFIG names a column that
 * is missing. */
MUST_CHECK enum err reader_columns(const struct csv *c, const struct config_list *names, int except,
				   size_t **ret_columns, size_t *ret_n);

#endif
