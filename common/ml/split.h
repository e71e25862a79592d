/*
 * Which windows of a recording serve for what. Pure arithmetic over the samples' numbers, in the order of time:
 *
 *	0 ........ training part ........ train*n      test_from*n ........ test part ........ n
 *	[labelled windows: training ... | held-out ...]               [test windows ............]
 *
 * No window crosses a border and the three sets have no sample in common, whatever window and step are.
 *
 * The held-out windows are the last labelled ones in time, not every k-th: a held-out window between two training
 *windows is nearly a copy of its neighbours (the same seconds, the same speed, overlapping samples when step < window)
 *and would praise a model that has only learned them by heart. Late windows have one border with the training set and
 *are, like the test part, its future.
 */
#ifndef HANSA_ML_SPLIT_H
#define HANSA_ML_SPLIT_H

#include "base/err.h"

struct split_rule {
	size_t window, step;
	double train, test_from; /* shares of the recording; train <= test_from */
	double heldout;          /* share of the labelled windows; 0: none */
	size_t labels;           /* labelled windows; 0: all */
	size_t part, parts;      /* own the windows whose number is `part` modulo `parts` */
	double offset;           /* [0, 1): where in its stretch of the training part each labelled window is taken */
};

struct split {
	size_t *train, *heldout; /* owned: first samples of the windows, ascending */
	size_t n_train, n_heldout;
};

/* First samples of the windows that lie whole in [begin, end): begin, begin + step, ...; *ret_starts is owned by the
 * caller. */
size_t split_cut(size_t begin, size_t end, size_t window, size_t step, size_t **ret_starts);

/* The borders of a recording of n samples: training is [0, *ret_train_end), test [*ret_test_begin, n). */
void split_borders(const struct split_rule *rule, size_t n, size_t *ret_train_end, size_t *ret_test_begin);

/* How many of `labelled` windows are held out: the share, rounded, but at least one of two or more, and never all. 0
 * for share 0. */
size_t split_heldout_count(size_t labelled, double share);

/*
 * Choose among the windows of one class in the training part, `starts[0..n)` ascending. Of two plants that share a
 * recording and have other `part`s of the same `parts`, none owns a window of the other, whatever else differs between
 * them (with step < window their windows overlap, though). Owned windows are taken evenly over the whole part. With
 * labels > 0 the sets together have exactly `labels` windows, or ERR_CONFIG says how many there are; with labels == 0
 * training windows that overlap the first held-out one are left out.
 */
MUST_CHECK enum err split_choose(const struct split_rule *rule, const size_t *starts, size_t n,
				 struct split *ret_split);
void split_deinit(struct split *s);

#endif
