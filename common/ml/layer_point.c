/*
 * Layers that work on single elements: relu, dropout, flatten.
 */
#include "ml/layer.h"

#include "ml/simd.h"

#include <string.h>

static const struct config_row relu_rows[] = {
	{"op", CONFIG_STRING, offsetof(struct layer_config, op), .required = true, .help = "relu"},
	{"name", CONFIG_STRING, offsetof(struct layer_config, name), .help = "not needed"},
	{0},
};

static const struct config_row flatten_rows[] = {
	{"op", CONFIG_STRING, offsetof(struct layer_config, op), .required = true, .help = "flatten"},
	{"name", CONFIG_STRING, offsetof(struct layer_config, name), .help = "not needed"},
	{0},
};

static const struct config_row dropout_rows[] = {
	{"op", CONFIG_STRING, offsetof(struct layer_config, op), .required = true, .help = "dropout"},
	{"name", CONFIG_STRING, offsetof(struct layer_config, name), .help = "not needed"},
	{"p", CONFIG_REAL, offsetof(struct layer_config, p), .def = "0.5", .min = 0, .max = 1,
	 .help = "share of the values that become zero in training"},
	{0},
};

static enum err same_shape(struct model *m, struct layer *l)
{
	(void)m;
	l->out_shape = l->in_shape;
	return ERR_OK;
}

/* relu: y = max(x, 0). What survives is seen in y, so y may lie over x. NaN stays NaN, as in PyTorch. */

static enum layer_memory in_place(const struct layer *l)
{
	(void)l;
	return LAYER_IN_PLACE;
}

SIMD_CLONES
static void relu_forward(const struct layer *l, struct layer_io *io)
{
	size_t n = io->batch * layer_count(&l->out_shape);
	const float *x = io->x;
	float *y = io->y;
	for (size_t i = 0; i < n; i++)
		y[i] = x[i] <= 0 ? 0 : x[i];
}

SIMD_CLONES
static void relu_backward(const struct layer *l, struct layer_io *io)
{
	size_t n = io->batch * layer_count(&l->out_shape);
	const float *y = io->y, *dy = io->dy;
	float *dx = io->dx;
	if (dx == NULL)
		return;
	for (size_t i = 0; i < n; i++) {
		float g = dy[i]; /* read in any case: no branch */
		dx[i] = y[i] <= 0 ? 0 : g;
	}
}

/* dropout: a value is dropped with probability p, the others are divided by 1 - p. The factors are kept. */

static size_t dropout_keep_count(const struct layer *l, size_t batch)
{
	return batch * layer_count(&l->out_shape);
}

static void dropout_forward(const struct layer *l, struct layer_io *io)
{
	size_t n = io->batch * layer_count(&l->out_shape);
	if (!io->train) {
		memcpy(io->y, io->x, n * sizeof *io->y);
		return;
	}
	ENSURE(io->rng != NULL);
	float factor = l->p < 1 ? (float)(1 / (1 - l->p)) : 0;
	for (size_t i = 0; i < n; i++) {
		io->keep[i] = rng_uniform(io->rng) < l->p ? 0 : factor;
		io->y[i] = io->x[i] * io->keep[i];
	}
}

static void dropout_backward(const struct layer *l, struct layer_io *io)
{
	size_t n = io->batch * layer_count(&l->out_shape);
	for (size_t i = 0; io->dx != NULL && i < n; i++)
		io->dx[i] = io->dy[i] * io->keep[i];
}

/* flatten: (C,L) -> (C*L) in PyTorch's order, which is not that of the memory unless C or L is 1. */

static enum err flatten_shape(struct model *m, struct layer *l)
{
	(void)m;
	l->out_shape = (struct shape){1, {layer_count(&l->in_shape)}};
	return ERR_OK;
}

static enum layer_memory flatten_memory(const struct layer *l)
{
	return layer_channels(&l->in_shape) == 1 || layer_length(&l->in_shape) == 1 ? LAYER_ALIAS : LAYER_OWN;
}

static void flatten_forward(const struct layer *l, struct layer_io *io)
{
	size_t c = layer_channels(&l->in_shape), len = layer_length(&l->in_shape);
	for (size_t b = 0; b < io->batch; b++)
		transpose(len, c, io->x + b * c * len, io->y + b * c * len);
}

static void flatten_backward(const struct layer *l, struct layer_io *io)
{
	size_t c = layer_channels(&l->in_shape), len = layer_length(&l->in_shape);
	for (size_t b = 0; io->dx != NULL && b < io->batch; b++)
		transpose(c, len, io->dy + b * c * len, io->dx + b * c * len);
}

const struct layer_op layer_relu = {
	.op = "relu",
	.rows = relu_rows,
	.shape = same_shape,
	.memory = in_place,
	.forward = relu_forward,
	.backward = relu_backward,
};

const struct layer_op layer_dropout = {
	.op = "dropout",
	.rows = dropout_rows,
	.shape = same_shape,
	.keep_count = dropout_keep_count,
	.forward = dropout_forward,
	.backward = dropout_backward,
};

const struct layer_op layer_flatten = {
	.op = "flatten",
	.rows = flatten_rows,
	.shape = flatten_shape,
	.memory = flatten_memory,
	.forward = flatten_forward,
	.backward = flatten_backward,
};
