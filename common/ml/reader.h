/*
 * Readers: a plant's or lab's data as its configuration describes it, split by time into train, held-out and test.
 *
 * Layouts (rows in a table): `records` a folder with one recording per class, CLASS.npy or CLASS.csv (1-D, or channels
 * as columns); `table` one CSV/TSV file with a column of classes or targets, one sample a row, rows in the order of
 * time. Recordings are cut into windows of `window` samples every `step`; the test part is cut from its own beginning.
 * Files and rows of classes that the model does not know are passed over. Split by time: of each recording, windows
 * that lie whole in [0, train) are for training and held-out, windows that lie whole in [test_from, 1) for test; no
 * window crosses a border, so nothing of the test part is ever seen in training. The labelled windows
 * (`labels` a class, evenly spread over the training part with a seeded offset; 0: all) are shared out: `heldout` of
 * them (share, at least one a class when there are two or more; 0: none) are the held-out set, the others the training
 * set. Held-out windows are thus labels like any other and count; they are the last ones in time (ml/split.h says why).
 * With train 0 nothing is labelled and the split has only a test set: for evaluation.
 */
#ifndef HANSA_ML_READER_H
#define HANSA_ML_READER_H

#include "ml/dataset.h"
#include "ml/model.h"

enum reader_normalize {
	NORMALIZE_NONE,
	NORMALIZE_WINDOW, /* each window and channel to mean 0, deviation 1; not for tables */
	NORMALIZE_TRAIN,  /* each channel (column of a table) by mean and deviation of the training windows */
	NORMALIZE_AUTO,   /* window for records, train for tables */
};

struct reader_config {
	char *path; /* folder or file */
	int layout;
	int64_t window, step;    /* samples; 0: the model's input length, and the window (no overlap) */
	double train, test_from; /* shares of each recording: 0.7, 0.7 */
	double heldout;          /* share of the labelled windows: 0.2 */
	int64_t labels;          /* labelled windows a class; 0: all */
	int64_t part, parts; /* take every parts-th labelled window from the part-th on, so that plants which share a
				recording own different windows; 0 of 1: all */
	struct config_list classes; /* labelled classes here; empty: all that the model knows and the folder has */
	struct config_list columns; /* table: input columns; empty: all but the target */
	char *target;               /* table: column of the class or value */
	int normalize;
	int64_t seed;
};
extern const struct config_row reader_rows[]; /* key `data` of plant and pretrain configurations */

struct reader_split {
	struct dataset *train, *heldout, *test; /* owned; never NULL; heldout and test may have n == 0 */
	/* The test set has every class that the model knows and the folder has, also those not in `classes`. */
	size_t n_channels;       /* channels of a recording, columns of a table */
	float *mean, *deviation; /* owned: per channel, NORMALIZE_TRAIN; NULL otherwise. A constant channel has
				    deviation 1 here. */
};

/* `m` gives input shape and classes (their order is the label). ERR_CONFIG, ERR_NOT_FOUND, ERR_MALFORMED, ERR_SHAPE
 * (channels or columns are not the model's), ERR_NUMERIC (not a finite float) name file and what is wrong. */
MUST_CHECK enum err reader_load(const struct reader_config *config, const struct model *m,
				struct reader_split *ret_split);
void reader_split_free(struct reader_split *s);

#endif
