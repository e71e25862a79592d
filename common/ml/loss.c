/*
 * Computed in double precision: outputs are few, and the losses of an epoch are added up.
 */
#include "ml/loss.h"

#include <math.h>

/* Logit o of a sample as it enters the softmax; false when it does not. */
static bool logit(const struct loss_io *io, const float *y, size_t o, double *ret_z)
{
	double scale = io->class_scale != NULL ? (double)io->class_scale[o] : 1;
	*ret_z = scale * (double)y[o];
	return scale != 0;
}

struct softmax {
	double max;     /* the largest logit; all others are seen from it, so nothing overflows and nothing is lost */
	double log_sum; /* log of the sum of exp(z - max) */
	double mean;    /* of z - max */
	double n;       /* classes in it */
};

static struct softmax softmax_of(const struct loss_io *io, const float *y)
{
	struct softmax s = {.max = -INFINITY};
	double sum = 0, z;
	for (size_t o = 0; o < io->outputs; o++) {
		/* A NaN must not be lost: the loss is to show it. */
		if (logit(io, y, o, &z))
			s.max = z > s.max || isnan(z) ? z : s.max;
	}
	for (size_t o = 0; o < io->outputs; o++) {
		if (!logit(io, y, o, &z))
			continue;
		sum += exp(z - s.max);
		s.mean += z - s.max;
		s.n++;
	}
	s.log_sum = log(sum);
	s.mean /= s.n;
	return s;
}

/* dy (outputs) of one sample: scale * (probability - target) / B. */
static void cross_entropy_gradient(const struct loss_io *io, const float *y, size_t label, const struct softmax *s,
				   float *dy)
{
	for (size_t o = 0; o < io->outputs; o++) {
		double z, target = (o == label ? 1 - io->label_smoothing : 0) + io->label_smoothing / s->n;
		double scale = io->class_scale != NULL ? (double)io->class_scale[o] : 1;
		bool in = logit(io, y, o, &z);
		dy[o] = in ? (float)(scale * (exp(z - s->max - s->log_sum) - target) / (double)io->batch) : 0;
	}
}

double loss_cross_entropy(const struct loss_io *io)
{
	double total = 0, smooth = io->label_smoothing;
	for (size_t b = 0; b < io->batch; b++) {
		const float *y = io->y + b * io->outputs;
		size_t label = io->label[b];
		double z;
		ENSURE(label < io->outputs && logit(io, y, label, &z));
		struct softmax s = softmax_of(io, y);
		total += (1 - smooth) * (s.log_sum - (z - s.max)) + (smooth > 0 ? smooth * (s.log_sum - s.mean) : 0);
		if (io->dy != NULL)
			cross_entropy_gradient(io, y, label, &s, io->dy + b * io->outputs);
	}
	return total / (double)io->batch;
}

double loss_mse(const struct loss_io *io)
{
	size_t n = io->batch * io->outputs;
	double total = 0;
	for (size_t i = 0; i < n; i++) {
		double d = (double)io->y[i] - (double)io->target[i];
		total += d * d;
		if (io->dy != NULL)
			io->dy[i] = (float)(2 * d / (double)n);
	}
	return total / (double)n;
}
