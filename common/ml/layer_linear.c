/*
 * y = x W^T + b, with W (O,I) as PyTorch stores it.
 */
#include "ml/layer.h"

#include <string.h>

enum { WEIGHT, BIAS };

static const struct config_row rows[] = {
	{"op", CONFIG_STRING, offsetof(struct layer_config, op), .required = true, .help = "linear"},
	{"name", CONFIG_STRING, offsetof(struct layer_config, name), .required = true, .help = "name of its tensors"},
	{"out", CONFIG_STRING, offsetof(struct layer_config, out), .required = true,
	 .help = "features out; outputs: as many as classes"},
	{"bias", CONFIG_BOOL, offsetof(struct layer_config, bias), .def = "true", .help = "with a bias"},
	{0},
};

static enum err linear_shape(struct model *m, struct layer *l)
{
	if (l->in_shape.n != 1)
		return err_set(ERR_SHAPE, "linear takes features, not windows: put 'flatten' before it");
	size_t out = (size_t)l->out;
	l->out_shape = (struct shape){1, {out}};
	TRY(layer_param(m, l, "weight", PARAM_WEIGHT, &(struct shape){2, {out, l->in_shape.d[0]}}));
	return l->bias ? layer_param(m, l, "bias", PARAM_WEIGHT, &(struct shape){1, {out}}) : ERR_OK;
}

static void linear_forward(const struct layer *l, struct layer_io *io)
{
	size_t in = l->in_shape.d[0], out = l->out_shape.d[0];
	const float *bias = l->bias ? io->w[BIAS] : NULL;
	if (!io->train) {
		rowwise_linear(io->batch, in, out, io->x, io->w[WEIGHT], bias, io->y);
		return;
	}
	for (size_t b = 0; bias != NULL && b < io->batch; b++)
		memcpy(io->y + b * out, bias, out * sizeof *bias);
	gemm(false, true, io->batch, out, in, 1, io->x, in, io->w[WEIGHT], in, bias != NULL ? 1 : 0, io->y, out);
}

static void linear_backward(const struct layer *l, struct layer_io *io)
{
	size_t in = l->in_shape.d[0], out = l->out_shape.d[0];
	if (io->dw[WEIGHT] != NULL) /* (O,I) += dY^T X */
		gemm(true, false, out, in, io->batch, 1, io->dy, out, io->x, in, 1, io->dw[WEIGHT], in);
	if (l->bias && io->dw[BIAS] != NULL)
		add_column_sums(io->batch, out, io->dy, io->dw[BIAS]);
	if (io->dx != NULL) /* (B,I) = dY W */
		gemm(false, false, io->batch, in, out, 1, io->dy, out, io->w[WEIGHT], in, 0, io->dx, in);
}

static void linear_init(const struct layer *l, struct model *m, uint64_t seed)
{
	layer_init_uniform(l, m, seed, l->in_shape.d[0]);
}

const struct layer_op layer_linear = {
	.op = "linear",
	.rows = rows,
	.shape = linear_shape,
	.forward = linear_forward,
	.backward = linear_backward,
	.init = linear_init,
};
