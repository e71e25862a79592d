/*
 * How good a model is on a set of samples, and which of two results is the better one.
 */
#ifndef HANSA_ML_EVALUATE_H
#define HANSA_ML_EVALUATE_H

#include "ml/dataset.h"
#include "ml/net.h"

enum { EVALUATE_BATCH = 64 };

struct metrics {
	size_t n;        /* samples; 0: the rest is not a number */
	double loss;     /* cross-entropy, or mean squared error */
	double accuracy; /* classification; otherwise NaN */
	double macro_f1; /* mean F1 over the classes that occur in the labels */
	double rmse;     /* regression; otherwise NaN */
};

/* The result is a function of the model and the samples in their order; batches do not show. ERR_SHAPE when they do not
 * fit. */
MUST_CHECK enum err evaluate(struct model *m, const struct dataset *d, struct metrics *ret_metrics);
/* The same over the samples of some classes only (`chosen[class]`); n == 0 when there are none. Classification only. */
MUST_CHECK enum err evaluate_classes(struct model *m, const struct dataset *d, const bool *chosen,
				     struct metrics *ret_metrics);
/* The same with a net at hand, whose model it is; `chosen` may be NULL. */
MUST_CHECK enum err evaluate_net(struct net *net, const struct model *m, const struct dataset *d, const bool *chosen,
				 struct metrics *ret_metrics);

/* Do input, classes or targets of the samples fit the model? ERR_SHAPE. */
MUST_CHECK enum err evaluate_check(const struct model *m, const struct dataset *d);

/* Is `a` at least as good as `b`? Accuracy first (or RMSE), then loss; a result without samples is never better. */
bool metrics_not_worse(const struct metrics *a, const struct metrics *b);
bool metrics_better(const struct metrics *a, const struct metrics *b);

#endif
