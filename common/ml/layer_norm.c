/*
 * Batch normalisation (Ioffe & Szegedy 2015) of (C,L) and (F) activations, with PyTorch's conventions: the step's
 * variance is biased where it normalises and unbiased where it enters the running variance; running = (1 -
 * momentum)*running + momentum*batch; epsilon 1e-5.
 *
 * A batch is R = B*L rows of C channels. Mean and variance are found in one walk through memory: each chunk of rows,
 * which fits in the nearest cache, is summed twice (mean, then squares of the differences from it), and chunks are
 * joined by the rule of Chan, Golub and LeVeque (1979) in double precision. So the variance loses no digits to a large
 * mean, whatever R is.
 *
 * A step that has no statistics to update (io->stat NULL) uses the running ones: in inference, and where the layer is
 * frozen.
 */
#include "ml/layer.h"

#include "ml/simd.h"

#include <math.h>
#include <string.h>

enum { WEIGHT, BIAS, MEAN, VAR };
enum { CHUNK_FLOATS = 4096, CHUNK_ROWS_MIN = 16, SUM_ROWS = 4 };
static const float epsilon = 1e-5f;

static const struct config_row rows[] = {
	{"op", CONFIG_STRING, offsetof(struct layer_config, op), .required = true, .help = "batchnorm1d"},
	{"name", CONFIG_STRING, offsetof(struct layer_config, name), .required = true, .help = "name of its tensors"},
	{"momentum", CONFIG_REAL, offsetof(struct layer_config, p), .def = "0.1", .min = 0, .max = 1,
	 .help = "weight of a step's statistics in the running ones"},
	{0},
};

static enum err norm_shape(struct model *m, struct layer *l)
{
	const struct shape per_channel = {1, {layer_channels(&l->in_shape)}};
	l->out_shape = l->in_shape;
	TRY(layer_param(m, l, "weight", PARAM_WEIGHT, &per_channel));
	TRY(layer_param(m, l, "bias", PARAM_WEIGHT, &per_channel));
	TRY(layer_param(m, l, "running_mean", PARAM_STATISTIC, &per_channel));
	return layer_param(m, l, "running_var", PARAM_STATISTIC, &per_channel);
}

/* Kept: mean (C), 1/deviation (C). */
static size_t norm_keep_count(const struct layer *l, size_t batch)
{
	(void)batch;
	return 2 * layer_channels(&l->in_shape);
}

/* Scratch: two chunk sums (C) in float, two totals (C) in double, three factors (C) in float. */
struct norm_scratch {
	float *chunk[2];
	double *total[2];
	float *factor[3];
};

static size_t norm_scratch_count(const struct layer *l, size_t batch)
{
	(void)batch;
	return 9 * layer_aligned(layer_channels(&l->in_shape));
}

static struct norm_scratch scratch_of(const struct layer *l, float *base)
{
	size_t c = layer_aligned(layer_channels(&l->in_shape));
	void *doubles = base;
	double *total = doubles;
	base += 4 * c;
	return (struct norm_scratch){.total = {total, total + c},
				     .chunk = {base, base + c},
				     .factor = {base + 2 * c, base + 3 * c, base + 4 * c}};
}

static size_t chunk_rows(size_t c)
{
	size_t n = CHUNK_FLOATS / c;
	return n < CHUNK_ROWS_MIN ? CHUNK_ROWS_MIN : n;
}

/* m2 (C) = sums of the squared differences of x (R,C) from mean. */
SIMD_CLONES
static void squares_from(size_t r, size_t c, const float *x, const float *mean, float *m2)
{
	size_t i = 0;
	memset(m2, 0, c * sizeof *m2);
	for (; i + SUM_ROWS <= r; i += SUM_ROWS) {
		const float *p = x + i * c;
		for (size_t j = 0; j < c; j++) {
			float d0 = p[j] - mean[j], d1 = p[c + j] - mean[j];
			float d2 = p[2 * c + j] - mean[j], d3 = p[3 * c + j] - mean[j];
			m2[j] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3);
		}
	}
	for (; i < r; i++) {
		for (size_t j = 0; j < c; j++)
			m2[j] += (x[i * c + j] - mean[j]) * (x[i * c + j] - mean[j]);
	}
}

/* Total mean and squares (C) of x (R,C). */
static void moments(size_t r, size_t c, const float *x, const struct norm_scratch *s)
{
	size_t step = chunk_rows(c);
	float *mean = s->chunk[0], *m2 = s->chunk[1];
	memset(s->total[0], 0, c * sizeof(double));
	memset(s->total[1], 0, c * sizeof(double));
	for (size_t first = 0; first < r; first += step) {
		size_t n = r - first < step ? r - first : step;
		memset(mean, 0, c * sizeof *mean);
		add_column_sums(n, c, x + first * c, mean);
		for (size_t j = 0; j < c; j++)
			mean[j] /= (float)n;
		squares_from(n, c, x + first * c, mean, m2);
		double part = (double)n / (double)(first + n), weight = part * (double)first;
		for (size_t j = 0; j < c; j++) {
			double delta = mean[j] - s->total[0][j];
			s->total[0][j] += delta * part;
			s->total[1][j] += m2[j] + delta * delta * weight;
		}
	}
}

/* y = (x - mean) * scale + bias, row by row. */
SIMD_CLONES
static void normalize(size_t r, size_t c, const float *x, const float *mean, const float *scale, const float *bias,
		      float *y)
{
	for (size_t i = 0; i < r; i++) {
		for (size_t j = 0; j < c; j++)
			y[i * c + j] = (x[i * c + j] - mean[j]) * scale[j] + bias[j];
	}
}

/* The step's own statistics: into `mean` and `inverse`, and into the running ones. */
static void use_batch(const struct layer *l, struct layer_io *io, size_t r, const struct norm_scratch *s, float *mean,
		      float *inverse)
{
	size_t c = layer_channels(&l->in_shape);
	double keep = 1 - l->p, take = l->p;
	moments(r, c, io->x, s);
	for (size_t j = 0; j < c; j++) {
		double var = s->total[1][j] / (double)r;
		/* One value has no unbiased variance; its biased one (0) is taken instead. */
		double unbiased = r > 1 ? s->total[1][j] / (double)(r - 1) : var;
		mean[j] = (float)s->total[0][j];
		inverse[j] = (float)(1 / sqrt(var + (double)epsilon));
		io->stat[MEAN][j] = (float)(keep * io->stat[MEAN][j] + take * s->total[0][j]);
		io->stat[VAR][j] = (float)(keep * io->stat[VAR][j] + take * unbiased);
	}
}

static void norm_forward(const struct layer *l, struct layer_io *io)
{
	size_t c = layer_channels(&l->in_shape), r = io->batch * layer_length(&l->in_shape);
	struct norm_scratch s = scratch_of(l, io->scratch);
	float *mean = io->keep != NULL ? io->keep : s.factor[1],
	      *inverse = io->keep != NULL ? io->keep + c : s.factor[2];
	if (io->stat[MEAN] != NULL) {
		use_batch(l, io, r, &s, mean, inverse);
	} else {
		memcpy(mean, io->w[MEAN], c * sizeof *mean);
		for (size_t j = 0; j < c; j++)
			inverse[j] = 1 / sqrtf(io->w[VAR][j] + epsilon);
	}
	for (size_t j = 0; j < c; j++)
		s.factor[0][j] = inverse[j] * io->w[WEIGHT][j];
	normalize(r, c, io->x, mean, s.factor[0], io->w[BIAS], io->y);
}

/* sum (C) += dy, and product (C) += dy * (x - mean), over the rows. */
SIMD_CLONES
static void gradient_sums(size_t r, size_t c, const float *x, const float *dy, const float *mean, float *sum,
			  float *product)
{
	size_t i = 0;
	for (; i + SUM_ROWS <= r; i += SUM_ROWS) {
		const float *g = dy + i * c, *p = x + i * c;
		for (size_t j = 0; j < c; j++) {
			float m = mean[j], g0 = g[j], g1 = g[c + j], g2 = g[2 * c + j], g3 = g[3 * c + j];
			sum[j] += (g0 + g1) + (g2 + g3);
			product[j] += (g0 * (p[j] - m) + g1 * (p[c + j] - m)) +
				      (g2 * (p[2 * c + j] - m) + g3 * (p[3 * c + j] - m));
		}
	}
	for (; i < r; i++) {
		for (size_t j = 0; j < c; j++) {
			sum[j] += dy[i * c + j];
			product[j] += dy[i * c + j] * (x[i * c + j] - mean[j]);
		}
	}
}

static void gradient_totals(size_t r, size_t c, const struct layer_io *io, const float *mean,
			    const struct norm_scratch *s)
{
	size_t step = chunk_rows(c);
	memset(s->total[0], 0, c * sizeof(double));
	memset(s->total[1], 0, c * sizeof(double));
	for (size_t first = 0; first < r; first += step) {
		size_t n = r - first < step ? r - first : step;
		memset(s->chunk[0], 0, c * sizeof(float));
		memset(s->chunk[1], 0, c * sizeof(float));
		gradient_sums(n, c, io->x + first * c, io->dy + first * c, mean, s->chunk[0], s->chunk[1]);
		for (size_t j = 0; j < c; j++) {
			s->total[0][j] += s->chunk[0][j];
			s->total[1][j] += s->chunk[1][j];
		}
	}
}

/* dx = dy * scale + (x - mean) * slope + shift, row by row. */
SIMD_CLONES
static void gradient_rows(size_t r, size_t c, const struct layer_io *io, const float *mean, const float *scale,
			  const float *slope, const float *shift)
{
	const float *x = io->x, *dy = io->dy;
	float *dx = io->dx;
	for (size_t i = 0; i < r; i++) {
		for (size_t j = 0; j < c; j++)
			dx[i * c + j] = dy[i * c + j] * scale[j] + ((x[i * c + j] - mean[j]) * slope[j] + shift[j]);
	}
}

/*
 * With xhat = (x - mean) * inverse: dw = sum dy*xhat, db = sum dy, and
 *	dx = w*inverse * (dy - db/R - xhat*dw/R)        with the step's own statistics,
 *	dx = w*inverse * dy                             with the running ones, which do not depend on x.
 */
static void norm_backward(const struct layer *l, struct layer_io *io)
{
	size_t c = layer_channels(&l->in_shape), r = io->batch * layer_length(&l->in_shape);
	struct norm_scratch s = scratch_of(l, io->scratch);
	const float *mean = io->keep, *inverse = io->keep + c;
	bool own = io->stat[MEAN] != NULL;
	if (own || io->dw[WEIGHT] != NULL || io->dw[BIAS] != NULL)
		gradient_totals(r, c, io, mean, &s);
	for (size_t j = 0; j < c; j++) {
		double inv = inverse[j], scale = inv * io->w[WEIGHT][j];
		if (io->dw[WEIGHT] != NULL)
			io->dw[WEIGHT][j] += (float)(s.total[1][j] * inv);
		if (io->dw[BIAS] != NULL)
			io->dw[BIAS][j] += (float)s.total[0][j];
		s.factor[0][j] = (float)scale;
		s.factor[1][j] = own ? (float)(-scale * inv * inv * s.total[1][j] / (double)r) : 0;
		s.factor[2][j] = own ? (float)(-scale * s.total[0][j] / (double)r) : 0;
	}
	if (io->dx != NULL)
		gradient_rows(r, c, io, mean, s.factor[0], s.factor[1], s.factor[2]);
}

static void fill(struct model *m, const struct layer *l, unsigned which, float value)
{
	const struct param *p = &m->params[l->param[which]];
	for (size_t j = 0; j < p->n; j++)
		m->theta[p->offset + j] = value;
}

static void norm_init(const struct layer *l, struct model *m, uint64_t seed)
{
	(void)seed;
	fill(m, l, WEIGHT, 1);
	fill(m, l, BIAS, 0);
	fill(m, l, MEAN, 0);
	fill(m, l, VAR, 1);
}

const struct layer_op layer_batchnorm1d = {
	.op = "batchnorm1d",
	.rows = rows,
	.shape = norm_shape,
	.keep_count = norm_keep_count,
	.scratch_count = norm_scratch_count,
	.forward = norm_forward,
	.backward = norm_backward,
	.init = norm_init,
};
