/*
 * One-dimensional convolution (cross-correlation, as PyTorch's), zero padding: y[p,o] = b[o] + sum over k, c of
 * x[p*S - padding + k, c] * w[o,c,k].
 *
 * With the channels last, what one output sees is one contiguous run of K*C floats. So a tile of some hundred outputs
 * is gathered by plain copies of such runs (about one copied float per 2*O operations), and one product does the rest:
 *	forward      Y (rows,O)      = G (rows,K*C) W' (K*C,O)
 *	weights      dW' (K*C,O)    += G^T dY
 *	input        dX (rows',S*C)  = H (rows',J*O) W" (J*O,S*C)
 * The gradient of the input is a convolution too, and for a stride S it is S of them, one for each remainder of the
 * position: S neighbouring positions are one row of the last product. A row of H is the run of the J = ceil(K/S)
 * outputs that reach them. So nothing is ever scattered. W' and W" are the weights in another order, made anew in every
 * call.
 */
#include "ml/layer.h"

#include <string.h>

enum { WEIGHT, BIAS };
enum { TILE_FLOATS = 1 << 15, TILE_ROWS_MIN = 32, TILE_ROWS_MAX = 512 };

static const struct config_row rows[] = {
	{"op", CONFIG_STRING, offsetof(struct layer_config, op), .required = true, .help = "conv1d"},
	{"name", CONFIG_STRING, offsetof(struct layer_config, name), .required = true, .help = "name of its tensors"},
	{"out", CONFIG_STRING, offsetof(struct layer_config, out), .required = true, .help = "channels out"},
	{"kernel", CONFIG_INT, offsetof(struct layer_config, kernel), .min = 1, .max = LAYER_SIZE_MAX, .required = true,
	 .help = "samples that one output sees"},
	{"stride", CONFIG_INT, offsetof(struct layer_config, stride), .def = "1", .min = 1, .max = LAYER_SIZE_MAX,
	 .help = "samples from one output to the next"},
	{"padding", CONFIG_INT, offsetof(struct layer_config, padding), .def = "0", .min = 0, .max = LAYER_SIZE_MAX,
	 .help = "zeros added at both ends"},
	{"bias", CONFIG_BOOL, offsetof(struct layer_config, bias), .def = "true", .help = "with a bias"},
	{0},
};

/* The sizes in one place. */
struct conv {
	size_t c, len, o, p; /* channels and length in and out */
	size_t k, s, padding;
	size_t taps;                /* J: outputs that reach one position */
	size_t group_first, groups; /* of S neighbouring positions, counted from the start of the padding */
	size_t rows, back_rows;     /* of a tile, forward and for dX */
};

static size_t tile_rows(size_t width)
{
	size_t n = TILE_FLOATS / width;
	return n < TILE_ROWS_MIN ? TILE_ROWS_MIN : n > TILE_ROWS_MAX ? TILE_ROWS_MAX : n;
}

static struct conv conv_of(const struct layer *l)
{
	struct conv v = {
		.c = l->in_shape.d[0],
		.len = l->in_shape.d[1],
		.o = l->out_shape.d[0],
		.p = l->out_shape.d[1],
		.k = (size_t)l->kernel,
		.s = (size_t)l->stride,
		.padding = (size_t)l->padding,
	};
	v.taps = (v.k + v.s - 1) / v.s;
	v.group_first = v.padding / v.s;
	v.groups = (v.padding + v.len - 1) / v.s - v.group_first + 1;
	v.rows = tile_rows(v.k * v.c);
	v.back_rows = tile_rows(v.taps * v.o);
	return v;
}

static enum err conv_shape(struct model *m, struct layer *l)
{
	if (l->in_shape.n != 2)
		return err_set(ERR_SHAPE, "conv1d takes windows (channels, length), not features");
	size_t in = l->in_shape.d[0], out = (size_t)l->out, kernel = (size_t)l->kernel;
	size_t padded = l->in_shape.d[1] + 2 * (size_t)l->padding;
	if (padded < kernel)
		return err_set(ERR_SHAPE, "kernel %zu is longer than the padded input of %zu", kernel, padded);
	l->out_shape = (struct shape){2, {out, (padded - kernel) / (size_t)l->stride + 1}};
	TRY(layer_param(m, l, "weight", PARAM_WEIGHT, &(struct shape){3, {out, in, kernel}}));
	return l->bias ? layer_param(m, l, "bias", PARAM_WEIGHT, &(struct shape){1, {out}}) : ERR_OK;
}

/* Scratch: W' and dW' | a tile of G | W" | a tile of H | a tile of dX. */
struct conv_scratch {
	float *w, *dw, *tile, *back_w, *back_tile, *dx_tile;
	size_t n;
};

static struct conv_scratch scratch_of(const struct conv *v, float *base)
{
	size_t weights = layer_aligned(v->k * v->c * v->o), at[7] = {0};
	at[1] = at[0] + weights;
	at[2] = at[1] + weights;
	at[3] = at[2] + layer_aligned(v->rows * v->k * v->c);
	at[4] = at[3] + layer_aligned(v->taps * v->o * v->s * v->c);
	at[5] = at[4] + layer_aligned(v->back_rows * v->taps * v->o);
	at[6] = at[5] + layer_aligned(v->back_rows * v->s * v->c);
	if (base == NULL)
		return (struct conv_scratch){.n = at[6]};
	return (struct conv_scratch){base + at[0], base + at[1], base + at[2], base + at[3],
				     base + at[4], base + at[5], at[6]};
}

static size_t conv_scratch_count(const struct layer *l, size_t batch)
{
	(void)batch;
	struct conv v = conv_of(l);
	return scratch_of(&v, NULL).n;
}

/* The positions [first, first + n) of a sample (len, width), zeros outside of it. */
static void gather_run(const float *sample, size_t len, size_t width, ptrdiff_t first, size_t n, float *out)
{
	ptrdiff_t last = first + (ptrdiff_t)n, from = first < 0 ? 0 : first,
		  to = last > (ptrdiff_t)len ? (ptrdiff_t)len : last;
	if (from >= to) {
		memset(out, 0, n * width * sizeof *out);
		return;
	}
	size_t before = (size_t)(from - first) * width, inside = (size_t)(to - from) * width;
	if (before > 0)
		memset(out, 0, before * sizeof *out);
	memcpy(out + before, sample + (size_t)from * width, inside * sizeof *out);
	if (last > to)
		memset(out + before + inside, 0, (size_t)(last - to) * width * sizeof *out);
}

/* Rows [first, first + n) of G, counted through the whole batch. */
static void gather_inputs(const struct conv *v, const float *x, size_t first, size_t n, float *out)
{
	for (size_t r = first; r < first + n; r++, out += v->k * v->c)
		gather_run(x + r / v->p * v->len * v->c, v->len, v->c,
			   (ptrdiff_t)(r % v->p * v->s) - (ptrdiff_t)v->padding, v->k, out);
}

/* Rows [first, first + n) of H. */
static void gather_gradients(const struct conv *v, const float *dy, size_t first, size_t n, float *out)
{
	for (size_t r = first; r < first + n; r++, out += v->taps * v->o)
		gather_run(dy + r / v->groups * v->p * v->o, v->p, v->o,
			   (ptrdiff_t)(v->group_first + r % v->groups) - (ptrdiff_t)v->taps + 1, v->taps, out);
}

/* W' (K,C,O) from W (O,C,K). */
static void pack_weights(const struct conv *v, const float *w, float *out)
{
	for (size_t k = 0; k < v->k; k++) {
		for (size_t c = 0; c < v->c; c++) {
			for (size_t o = 0; o < v->o; o++)
				*out++ = w[(o * v->c + c) * v->k + k];
		}
	}
}

static void add_packed(const struct conv *v, const float *packed, float *dw)
{
	for (size_t o = 0; o < v->o; o++) {
		for (size_t c = 0; c < v->c; c++) {
			for (size_t k = 0; k < v->k; k++)
				*dw++ += packed[(k * v->c + c) * v->o + o];
		}
	}
}

/* W" (J,O,S,C): run i of H is output q-J+1+i, which reaches position q*S + r by its weight k = r + S*(J-1-i), if there
 * is one. */
static void pack_back_weights(const struct conv *v, const float *w, float *out)
{
	for (size_t i = 0; i < v->taps; i++) {
		for (size_t o = 0; o < v->o; o++) {
			for (size_t r = 0; r < v->s; r++) {
				size_t k = r + v->s * (v->taps - 1 - i);
				for (size_t c = 0; c < v->c; c++)
					*out++ = k < v->k ? w[(o * v->c + c) * v->k + k] : 0;
			}
		}
	}
}

/* Outputs of whole samples, y (n,O), as tiles. */
static void forward_rows(const struct conv *v, const struct conv_scratch *s, const float *x, const float *bias,
			 size_t n, float *y)
{
	for (size_t first = 0; first < n; first += v->rows) {
		size_t count = n - first < v->rows ? n - first : v->rows;
		float *out = y + first * v->o;
		gather_inputs(v, x, first, count, s->tile);
		for (size_t r = 0; bias != NULL && r < count; r++)
			memcpy(out + r * v->o, bias, v->o * sizeof *bias);
		gemm(false, false, count, v->o, v->k * v->c, 1, s->tile, v->k * v->c, s->w, v->o, bias != NULL ? 1 : 0,
		     out, v->o);
	}
}

static void conv_forward(const struct layer *l, struct layer_io *io)
{
	struct conv v = conv_of(l);
	struct conv_scratch s = scratch_of(&v, io->scratch);
	const float *bias = l->bias ? io->w[BIAS] : NULL;
	pack_weights(&v, io->w[WEIGHT], s.w);
	if (io->train) {
		forward_rows(&v, &s, io->x, bias, io->batch * v.p, io->y);
		return;
	}
	/* One product has one sample only, of always the same shape: its bits cannot depend on the others. */
	for (size_t b = 0; b < io->batch; b++)
		forward_rows(&v, &s, io->x + b * v.len * v.c, bias, v.p, io->y + b * v.p * v.o);
}

static void backward_weights(const struct conv *v, const struct conv_scratch *s, const struct layer_io *io)
{
	size_t n = io->batch * v->p, width = v->k * v->c;
	for (size_t first = 0; first < n; first += v->rows) {
		size_t count = n - first < v->rows ? n - first : v->rows;
		gather_inputs(v, io->x, first, count, s->tile);
		gemm(true, false, width, v->o, count, 1, s->tile, width, io->dy + first * v->o, v->o, first > 0 ? 1 : 0,
		     s->dw, v->o);
	}
	add_packed(v, s->dw, io->dw[WEIGHT]);
}

/* A tile of groups (n,S*C) to the samples they belong to, without what lies in the padding. */
static void place_groups(const struct conv *v, const float *tile, size_t first, size_t n, float *dx)
{
	for (size_t r = first; r < first + n; r++, tile += v->s * v->c) {
		size_t start = (v->group_first + r % v->groups) * v->s, end = start + v->s; /* padding included */
		size_t from = start < v->padding ? v->padding : start,
		       to = end > v->padding + v->len ? v->padding + v->len : end;
		if (from < to)
			memcpy(dx + (r / v->groups * v->len + from - v->padding) * v->c, tile + (from - start) * v->c,
			       (to - from) * v->c * sizeof *dx);
	}
}

static void backward_input(const struct conv *v, const struct conv_scratch *s, const struct layer_io *io)
{
	size_t n = io->batch * v->groups, in = v->taps * v->o, out = v->s * v->c;
	pack_back_weights(v, io->w[WEIGHT], s->back_w);
	for (size_t first = 0; first < n; first += v->back_rows) {
		size_t count = n - first < v->back_rows ? n - first : v->back_rows;
		/* Without a stride the groups are the positions themselves. */
		float *target = v->s == 1 ? io->dx + first * out : s->dx_tile;
		gather_gradients(v, io->dy, first, count, s->back_tile);
		gemm(false, false, count, out, in, 1, s->back_tile, in, s->back_w, out, 0, target, out);
		if (v->s > 1)
			place_groups(v, s->dx_tile, first, count, io->dx);
	}
}

static void conv_backward(const struct layer *l, struct layer_io *io)
{
	struct conv v = conv_of(l);
	struct conv_scratch s = scratch_of(&v, io->scratch);
	if (io->dw[WEIGHT] != NULL)
		backward_weights(&v, &s, io);
	if (l->bias && io->dw[BIAS] != NULL)
		add_column_sums(io->batch * v.p, v.o, io->dy, io->dw[BIAS]);
	if (io->dx != NULL)
		backward_input(&v, &s, io);
}

static void conv_init(const struct layer *l, struct model *m, uint64_t seed)
{
	layer_init_uniform(l, m, seed, l->in_shape.d[0] * (size_t)l->kernel);
}

const struct layer_op layer_conv1d = {
	.op = "conv1d",
	.rows = rows,
	.shape = conv_shape,
	.scratch_count = conv_scratch_count,
	.forward = conv_forward,
	.backward = conv_backward,
	.init = conv_init,
};
