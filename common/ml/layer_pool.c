/*
 * Pooling: each output is the largest value, or the mean, of a window of the input. The four operations differ in where
 * the windows lie (a fixed kernel and stride, or PyTorch's bins: floor(i*L/P) to ceil((i+1)*L/P)) and in what is taken
 * of them. Padding holds no value for the maximum; for the mean it counts as zeros (PyTorch's count_include_pad).
 */
#include "ml/layer.h"

#include "ml/simd.h"

#include <string.h>

#define POOL_NAME(text)                                                                                                \
	{"op", CONFIG_STRING, offsetof(struct layer_config, op), .required = true, .help = text},                      \
	{                                                                                                              \
		"name", CONFIG_STRING, offsetof(struct layer_config, name), .help = "not needed"                       \
	}

static const struct config_row fixed_rows[] = {
	POOL_NAME("maxpool1d or avgpool1d"),
	{"kernel", CONFIG_INT, offsetof(struct layer_config, kernel), .min = 1, .max = LAYER_SIZE_MAX, .required = true,
	 .help = "samples of a window"},
	{"stride", CONFIG_INT, offsetof(struct layer_config, stride), .min = 0, .max = LAYER_SIZE_MAX,
	 .help = "samples from one window to the next; 0: the kernel"},
	{"padding", CONFIG_INT, offsetof(struct layer_config, padding), .def = "0", .min = 0, .max = LAYER_SIZE_MAX,
	 .help = "added at both ends; at most half the kernel"},
	{0},
};

static const struct config_row adaptive_rows[] = {
	POOL_NAME("adaptivemaxpool1d or adaptiveavgpool1d"),
	{"out", CONFIG_STRING, offsetof(struct layer_config, out), .required = true, .help = "number of windows"},
	{0},
};

struct window {
	size_t start, end; /* inside the input */
	float share;       /* of one value in the mean */
};

/* Window i of P over L; kernel 0 stands for bins. */
static inline struct window window_at(size_t kernel, size_t stride, size_t padding, size_t len, size_t p, size_t i)
{
	if (kernel == 0) {
		size_t start = i * len / p, end = ((i + 1) * len + p - 1) / p;
		return (struct window){start, end, 1.0f / (float)(end - start)};
	}
	size_t first = i * stride, last = first + kernel; /* padding included */
	size_t start = first < padding ? 0 : first - padding, end = last < padding ? 0 : last - padding;
	return (struct window){start, end < len ? end : len, 1.0f / (float)kernel};
}

static enum err need_window(const struct layer *l)
{
	return l->in_shape.n == 2 ? ERR_OK
				  : err_set(ERR_SHAPE, "pooling takes windows (channels, length), not features");
}

static enum err fixed_shape(struct model *m, struct layer *l)
{
	(void)m;
	TRY(need_window(l));
	if (l->stride == 0)
		l->stride = l->kernel;
	if (2 * l->padding > l->kernel)
		return err_set(ERR_CONFIG, "padding %lld is more than half the kernel", (long long)l->padding);
	size_t padded = l->in_shape.d[1] + 2 * (size_t)l->padding, kernel = (size_t)l->kernel;
	if (padded < kernel)
		return err_set(ERR_SHAPE, "kernel %zu is longer than the padded input of %zu", kernel, padded);
	l->out_shape = (struct shape){2, {l->in_shape.d[0], (padded - kernel) / (size_t)l->stride + 1}};
	return ERR_OK;
}

static enum err adaptive_shape(struct model *m, struct layer *l)
{
	(void)m;
	TRY(need_window(l));
	l->out_shape = (struct shape){2, {l->in_shape.d[0], (size_t)l->out}};
	return ERR_OK;
}

/* Position of the largest value of each output, as u32. */
static size_t max_keep_count(const struct layer *l, size_t batch)
{
	return batch * layer_count(&l->out_shape);
}

/* y and at (C) over the window; like PyTorch the first of equals, and NaN beats everything. */
static inline void max_window(struct window w, size_t c, const float *x, float *y, uint32_t *at)
{
	memcpy(y, x + w.start * c, c * sizeof *y);
	for (size_t j = 0; at != NULL && j < c; j++)
		at[j] = (uint32_t)w.start;
	for (size_t i = w.start + 1; i < w.end; i++) {
		const float *v = x + i * c;
		for (size_t j = 0; at != NULL && j < c; j++) {
			uint32_t before = at[j];
			at[j] = ((v[j] > y[j]) | (v[j] != v[j])) ? (uint32_t)i : before;
		}
		for (size_t j = 0; j < c; j++) {
			float value = v[j], before = y[j];
			y[j] = ((value > before) | (value != value)) ? value : before;
		}
	}
}

SIMD_CLONES
static void max_forward(const struct layer *l, struct layer_io *io)
{
	size_t c = l->in_shape.d[0], len = l->in_shape.d[1], p = l->out_shape.d[1];
	size_t kernel = (size_t)l->kernel, stride = (size_t)l->stride, padding = (size_t)l->padding;
	uint32_t *at = (uint32_t *)io->keep;
	for (size_t r = 0; r < io->batch * p; r++) {
		struct window w = window_at(kernel, stride, padding, len, p, r % p);
		max_window(w, c, io->x + r / p * len * c, io->y + r * c, at != NULL ? at + r * c : NULL);
	}
}

SIMD_CLONES
static void max_backward(const struct layer *l, struct layer_io *io)
{
	size_t c = l->in_shape.d[0], len = l->in_shape.d[1], p = l->out_shape.d[1];
	size_t kernel = (size_t)l->kernel, stride = (size_t)l->stride, padding = (size_t)l->padding;
	if (io->dx == NULL)
		return;
	memset(io->dx, 0, io->batch * len * c * sizeof *io->dx);
	for (size_t r = 0; r < io->batch * p; r++) {
		struct window w = window_at(kernel, stride, padding, len, p, r % p);
		const uint32_t *at = (const uint32_t *)io->keep + r * c;
		const float *dy = io->dy + r * c;
		for (size_t i = w.start; i < w.end; i++) {
			float *dx = io->dx + (r / p * len + i) * c;
			for (size_t j = 0; j < c; j++) {
				float g = dy[j]; /* read in any case: no branch */
				dx[j] += at[j] == (uint32_t)i ? g : 0;
			}
		}
	}
}

SIMD_CLONES
static void avg_forward(const struct layer *l, struct layer_io *io)
{
	size_t c = l->in_shape.d[0], len = l->in_shape.d[1], p = l->out_shape.d[1];
	size_t kernel = (size_t)l->kernel, stride = (size_t)l->stride, padding = (size_t)l->padding;
	for (size_t r = 0; r < io->batch * p; r++) {
		struct window w = window_at(kernel, stride, padding, len, p, r % p);
		float *y = io->y + r * c;
		memset(y, 0, c * sizeof *y);
		for (size_t i = w.start; i < w.end; i++) {
			const float *v = io->x + (r / p * len + i) * c;
			for (size_t j = 0; j < c; j++)
				y[j] += v[j];
		}
		for (size_t j = 0; j < c; j++)
			y[j] *= w.share;
	}
}

SIMD_CLONES
static void avg_backward(const struct layer *l, struct layer_io *io)
{
	size_t c = l->in_shape.d[0], len = l->in_shape.d[1], p = l->out_shape.d[1];
	size_t kernel = (size_t)l->kernel, stride = (size_t)l->stride, padding = (size_t)l->padding;
	if (io->dx == NULL)
		return;
	memset(io->dx, 0, io->batch * len * c * sizeof *io->dx);
	for (size_t r = 0; r < io->batch * p; r++) {
		struct window w = window_at(kernel, stride, padding, len, p, r % p);
		const float *dy = io->dy + r * c;
		for (size_t i = w.start; i < w.end; i++) {
			float *dx = io->dx + (r / p * len + i) * c;
			for (size_t j = 0; j < c; j++)
				dx[j] += dy[j] * w.share;
		}
	}
}

const struct layer_op layer_maxpool1d = {
	.op = "maxpool1d",
	.rows = fixed_rows,
	.shape = fixed_shape,
	.keep_count = max_keep_count,
	.forward = max_forward,
	.backward = max_backward,
};

const struct layer_op layer_avgpool1d = {
	.op = "avgpool1d",
	.rows = fixed_rows,
	.shape = fixed_shape,
	.forward = avg_forward,
	.backward = avg_backward,
};

const struct layer_op layer_adaptivemaxpool1d = {
	.op = "adaptivemaxpool1d",
	.rows = adaptive_rows,
	.shape = adaptive_shape,
	.keep_count = max_keep_count,
	.forward = max_forward,
	.backward = max_backward,
};

const struct layer_op layer_adaptiveavgpool1d = {
	.op = "adaptiveavgpool1d",
	.rows = adaptive_rows,
	.shape = adaptive_shape,
	.forward = avg_forward,
	.backward = avg_backward,
};
