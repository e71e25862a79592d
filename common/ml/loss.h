/*
 * Losses: one function each, of the same form, so that what trains is a pointer. The loss is the mean over the batch.
 */
#ifndef HANSA_ML_LOSS_H
#define HANSA_ML_LOSS_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct loss_io {
	size_t batch, outputs;
	const float *y;           /* (B, outputs): logits or values */
	const uint32_t *label;    /* (B): classes, or NULL */
	const float *target;      /* (B, outputs): values, or NULL */
	const float *class_scale; /* (outputs) or NULL: logits are multiplied by it before the softmax */
	double label_smoothing; /* share of the target that is spread evenly over the classes in the softmax; 0: none */
	float *dy;              /* (B, outputs): gradient; NULL: not wanted */
};

/*
 * Cross-entropy with softmax. class_scale is FedRS's restricted softmax (Li & Zhan, KDD 2021): alpha in [0,1] for
 * classes that the plant has no samples of, 1 for the others; 0 takes a class out of the softmax altogether: no
 * probability, no gradient, no share of the smoothed target. label_smoothing is PyTorch's: with e, the target is (1-e)
 * for the label plus e/K for each of the K classes in the softmax (an absent class with 0 < alpha < 1 is in it, and has
 * its share). A label must be in the softmax.
 */
double loss_cross_entropy(const struct loss_io *io);
double loss_mse(const struct loss_io *io); /* mean over batch and outputs, as PyTorch's MSELoss */

typedef double (*loss_fn)(const struct loss_io *io);

#endif
