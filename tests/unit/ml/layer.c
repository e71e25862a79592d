/*
 * Every operation of the table alone: its values and gradients against a plain twin in double precision (with PyTorch's
 * order of the elements and its definitions, one sum per output), its gradients against finite differences, with
 * strides over and under the kernel, padding, lengths that do not divide, one channel, one sample.
 */
#include "ml/gradcheck.h"

/* One layer with all that its io points to. */
struct bench {
	struct model *m;
	const struct layer *l;
	struct layer_io io;
	size_t in, out, n_in, n_out;  /* elements: of a sample, of the batch */
	size_t n_weights;             /* of the layer; they stand first */
	float *x, *y, *dx, *r, *grad; /* r: the loss is the sum of r*y; grad laid out as theta */
	bool train_statistics;
	uint64_t dropout_seed;
};

static struct bench bench_new(const char *layer, size_t c, size_t len, size_t outputs, size_t batch)
{
	char *input = len > 0 ? mem_printf("[%zu, %zu]", c, len) : mem_printf("[%zu]", c);
	char *text = mem_printf("input: %s\noutputs: 6\nlayers:\n  - %s\n  - {op: flatten}\n"
				"  - {op: linear, name: end, out: outputs}\n",
				input, layer);
	struct bench b = {.m = model_of(text), .train_statistics = true};
	free(text);
	free(input);
	b.l = &b.m->layers[0];
	b.in = layer_count(&b.l->in_shape);
	b.out = layer_count(&b.l->out_shape);
	assert_int_equal(b.out, outputs);
	b.n_in = batch * b.in;
	b.n_out = batch * b.out;
	b.x = gradcheck_spread(b.n_in, 4.0f / (float)(b.n_in + 1) > 0.05f ? 4.0f / (float)(b.n_in + 1) : 0.05f, 1);
	b.y = floats(b.n_out);
	b.dx = floats(b.n_in);
	b.r = normals(b.n_out, 2);
	b.grad = floats(b.m->n_theta);
	float *theta = normals(b.m->n_theta, 3);
	for (size_t i = 0; i < b.m->n_theta; i++) /* a running variance must be positive */
		b.m->theta[i] = i < b.m->n_weights ? theta[i] : 0.5f + fabsf(theta[i]);
	free(theta);
	b.io = (struct layer_io){.batch = batch, .x = b.x, .y = b.y, .dy = b.r, .dx = b.dx, .train = true};
	b.io.keep = floats(b.l->op->keep_count != NULL ? b.l->op->keep_count(b.l, batch) : 0);
	b.io.scratch = mem_aligned(b.l->op->scratch_count != NULL ? 4 * b.l->op->scratch_count(b.l, batch) : 0);
	for (unsigned i = 0; i < b.l->n_params; i++) {
		const struct param *p = &b.m->params[b.l->param[i]];
		b.io.w[i] = b.m->theta + p->offset;
		b.io.dw[i] = p->kind == PARAM_WEIGHT ? b.grad + p->offset : NULL;
		b.n_weights += p->kind == PARAM_WEIGHT ? p->n : 0;
	}
	return b;
}

static void bench_free(struct bench *b)
{
	free(b->x);
	free(b->y);
	free(b->dx);
	free(b->r);
	free(b->grad);
	free(b->io.keep);
	free(b->io.scratch);
	model_free(b->m);
}

static double forward(void *arg)
{
	struct bench *b = arg;
	struct rng rng;
	rng_seed(&rng, b->dropout_seed);
	b->io.rng = &rng;
	for (unsigned i = 0; i < b->l->n_params; i++) {
		const struct param *p = &b->m->params[b->l->param[i]];
		bool update = p->kind == PARAM_STATISTIC && b->train_statistics;
		b->io.stat[i] = update ? b->m->theta + p->offset : NULL;
	}
	b->l->op->forward(b->l, &b->io);
	double loss = 0;
	for (size_t i = 0; i < b->n_out; i++)
		loss += (double)b->r[i] * (double)b->y[i];
	return loss;
}

/* Scratch and outputs start as NaN: what a layer does not write must not be read. */
static void poison(struct bench *b)
{
	size_t n = b->l->op->scratch_count != NULL ? b->l->op->scratch_count(b->l, b->io.batch) : 0;
	for (size_t i = 0; i < n; i++)
		b->io.scratch[i] = NAN;
	for (size_t i = 0; i < b->n_out; i++)
		b->y[i] = NAN;
	for (size_t i = 0; i < b->n_in; i++)
		b->dx[i] = NAN;
}

static void check_differences(struct bench *b)
{
	poison(b);
	memset(b->grad, 0, b->m->n_theta * sizeof *b->grad);
	forward(b);
	if (b->io.scratch != NULL)
		poison(&(struct bench){.l = b->l, .io = b->io}); /* nothing in it outlives the forward pass */
	b->l->op->backward(b->l, &b->io);
	float *dx = memcpy(floats(b->n_in), b->dx, b->n_in * sizeof *dx);
	gradcheck("dx", GRADCHECK_STEP, forward, b, b->x, dx, b->n_in);
	gradcheck("dw", GRADCHECK_STEP, forward, b, b->m->theta, b->grad, b->n_weights);
	free(dx);
	/* Gradients are added, and dx is not wanted by the lowest layer. */
	float *once = memcpy(floats(b->m->n_theta), b->grad, b->m->n_theta * sizeof *once);
	forward(b);
	b->io.dx = NULL;
	b->l->op->backward(b->l, &b->io);
	b->io.dx = b->dx;
	for (size_t i = 0; i < b->n_weights; i++)
		assert_true(fabsf(b->grad[i] - 2 * once[i]) <= 1e-4f * (1 + fabsf(once[i])));
	free(once);
}

static const struct {
	const char *layer;
	size_t c, len, outputs; /* len 0: features */
} cases[] = {
	{"{op: linear, name: l, out: 3}", 5, 0, 3},
	{"{op: linear, name: l, out: 1, bias: false}", 1, 0, 1},
	{"{op: linear, name: l, out: outputs}", 17, 0, 6},
	{"{op: conv1d, name: l, out: 3, kernel: 3}", 2, 9, 3 * 7},
	{"{op: conv1d, name: l, out: 3, kernel: 3, bias: false}", 2, 9, 3 * 7},
	{"{op: conv1d, name: l, out: 2, kernel: 5, padding: 2}", 3, 6, 2 * 6},
	{"{op: conv1d, name: l, out: 2, kernel: 4, stride: 3, padding: 1}", 2, 12, 2 * 4},
	{"{op: conv1d, name: l, out: 2, kernel: 2, stride: 5}", 2, 13, 2 * 3},
	{"{op: conv1d, name: l, out: 2, kernel: 1, stride: 4, padding: 3}", 1, 6, 2 * 3},
	{"{op: conv1d, name: l, out: 2, kernel: 3, padding: 4}", 1, 2, 2 * 8},
	{"{op: conv1d, name: l, out: 4, kernel: 7, stride: 2, padding: 5}", 2, 4, 4 * 4},
	{"{op: conv1d, name: l, out: 1, kernel: 6, stride: 4, padding: 6}", 2, 7, 4},
	{"{op: conv1d, name: l, out: 3, kernel: 1}", 4, 5, 3 * 5},
	{"{op: conv1d, name: l, out: 2, kernel: 8}", 1, 8, 2},
	{"{op: batchnorm1d, name: l}", 3, 5, 15},
	{"{op: batchnorm1d, name: l}", 4, 0, 4},
	{"{op: batchnorm1d, name: l, momentum: 0.3}", 1, 11, 11},
	{"{op: relu}", 3, 5, 15},
	{"{op: relu}", 7, 0, 7},
	{"{op: maxpool1d, kernel: 2}", 3, 9, 3 * 4},
	{"{op: maxpool1d, kernel: 3, stride: 2, padding: 1}", 2, 8, 2 * 4},
	{"{op: maxpool1d, kernel: 2, stride: 4}", 2, 11, 2 * 3},
	{"{op: maxpool1d, kernel: 4, stride: 1}", 1, 6, 3},
	{"{op: avgpool1d, kernel: 2}", 3, 9, 3 * 4},
	{"{op: avgpool1d, kernel: 5, stride: 3, padding: 2}", 2, 8, 2 * 3},
	{"{op: avgpool1d, kernel: 2, stride: 4}", 2, 11, 2 * 3},
	{"{op: adaptiveavgpool1d, out: 4}", 2, 10, 8},
	{"{op: adaptiveavgpool1d, out: 7}", 2, 3, 14},
	{"{op: adaptiveavgpool1d, out: 1}", 3, 6, 3},
	{"{op: adaptivemaxpool1d, out: 4}", 2, 10, 8},
	{"{op: adaptivemaxpool1d, out: 5}", 2, 3, 10},
	{"{op: flatten}", 3, 4, 12},
	{"{op: dropout, p: 0.4}", 3, 5, 15},
	{"{op: dropout, p: 1}", 3, 0, 3},
	{"{op: dropout, p: 0}", 3, 0, 3},
};
enum { CASES = sizeof cases / sizeof cases[0] };

static void test_differences(void **state)
{
	(void)state;
	for (size_t i = 0; i < CASES; i++) {
		for (size_t batch = 1; batch <= 3; batch += 2) {
			bool features = cases[i].len == 0, norm = strstr(cases[i].layer, "norm") != NULL;
			if (features && norm && batch == 1)
				continue; /* one value a channel: the output does not depend on it; see
					     test_norm_single() */
			struct bench b = bench_new(cases[i].layer, cases[i].c, cases[i].len, cases[i].outputs, batch);
			b.dropout_seed = i;
			check_differences(&b);
			b.train_statistics = false;
			check_differences(&b);
			bench_free(&b);
		}
	}
}

static void test_every_operation_is_checked(void **state)
{
	(void)state;
	for (const struct layer_op *const *op = layer_ops; *op != NULL; op++) {
		char *key = mem_printf("{op: %s", (*op)->op);
		size_t found = 0;
		for (size_t i = 0; i < CASES; i++)
			found += strncmp(cases[i].layer, key, strlen(key)) == 0;
		assert_true(found > 0);
		assert_ptr_equal(layer_op_find((*op)->op), *op);
		free(key);
	}
	assert_null(layer_op_find("conv"));
}

/* Twins. Index of PyTorch's (B,C,L) in the net's (B,L,C). */
static size_t at(const struct shape *s, size_t b, size_t c, size_t i)
{
	return (b * layer_length(s) + i) * layer_channels(s) + c;
}

static void check_conv(struct bench *b)
{
	const struct layer *l = b->l;
	size_t o_n = l->out_shape.d[0], p_n = l->out_shape.d[1], c_n = l->in_shape.d[0], k_n = (size_t)l->kernel;
	double *y = mem_array(b->n_out, sizeof *y), *dx = mem_array(b->n_in, sizeof *dx);
	double *dw = mem_array(o_n * c_n * k_n, sizeof *dw), *db = mem_array(o_n, sizeof *db);
	for (size_t i = 0; i < b->io.batch * o_n * p_n; i++) {
		size_t n = i / (o_n * p_n), o = i / p_n % o_n, p = i % p_n, to = at(&l->out_shape, n, o, p);
		double g = (double)b->r[to];
		y[to] = l->bias ? (double)b->io.w[1][o] : 0;
		db[o] += g;
		for (size_t c = 0; c < c_n; c++) {
			for (size_t k = 0; k < k_n; k++) {
				int64_t pos = (int64_t)p * l->stride - l->padding + (int64_t)k;
				if (pos < 0 || pos >= (int64_t)l->in_shape.d[1])
					continue;
				size_t from = at(&l->in_shape, n, c, (size_t)pos), w = (o * c_n + c) * k_n + k;
				y[to] += (double)b->x[from] * (double)b->io.w[0][w];
				dx[from] += g * (double)b->io.w[0][w];
				dw[w] += g * (double)b->x[from];
			}
		}
	}
	forward(b);
	b->l->op->backward(l, &b->io);
	assert_close("y", b->y, y, b->n_out, 1e-5);
	assert_close("dx", b->dx, dx, b->n_in, 1e-5);
	assert_close("dw", b->io.dw[0], dw, o_n * c_n * k_n, 1e-4);
	if (l->bias)
		assert_close("db", b->io.dw[1], db, o_n, 1e-5);
	b->io.train = false;
	forward(b);
	assert_close("y in inference", b->y, y, b->n_out, 1e-5);
	free(y);
	free(dx);
	free(dw);
	free(db);
}

/* Sizes around a tile of rows (it has 32 to 512): several tiles, borders inside samples and between them. */
static void test_conv_twin(void **state)
{
	(void)state;
	static const struct {
		size_t c, len, out, kernel, stride, padding, batch;
	} sizes[] = {
		{1, 1024, 16, 64, 8, 28, 3}, {16, 64, 32, 3, 1, 1, 5}, {3, 700, 5, 3, 1, 0, 2},
		{64, 33, 8, 9, 2, 4, 7},     {2, 1500, 3, 2, 3, 0, 2}, {1, 5, 2, 5, 1, 5, 40},
		{40, 40, 2, 30, 1, 29, 2},   {5, 17, 3, 4, 7, 2, 3},
	};
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		size_t p = (sizes[i].len + 2 * sizes[i].padding - sizes[i].kernel) / sizes[i].stride + 1;
		char *layer = mem_printf("{op: conv1d, name: l, out: %zu, kernel: %zu, stride: %zu, padding: %zu}",
					 sizes[i].out, sizes[i].kernel, sizes[i].stride, sizes[i].padding);
		struct bench b = bench_new(layer, sizes[i].c, sizes[i].len, sizes[i].out * p, sizes[i].batch);
		free(b.x);
		b.x = normals(b.n_in, i);
		b.io.x = b.x;
		poison(&b);
		check_conv(&b);
		bench_free(&b);
		free(layer);
	}
}

/* PyTorch's rules for windows, for fixed kernels and for bins. */
static void window(const struct layer *l, size_t p, size_t *ret_start, size_t *ret_end, double *ret_size)
{
	int64_t len = (int64_t)l->in_shape.d[1], bins = l->out, i = (int64_t)p;
	if (l->kernel == 0) {
		*ret_start = (size_t)floor((double)(i * len) / (double)bins);
		*ret_end = (size_t)ceil((double)((i + 1) * len) / (double)bins);
		*ret_size = (double)(*ret_end - *ret_start);
		return;
	}
	int64_t start = i * l->stride - l->padding, end = start + l->kernel;
	*ret_start = (size_t)(start < 0 ? 0 : start);
	*ret_end = (size_t)(end > len ? len : end);
	*ret_size = (double)l->kernel;
}

static void test_pool_twin(void **state)
{
	(void)state;
	for (size_t n = 0; n < CASES; n++) {
		if (strstr(cases[n].layer, "pool") == NULL)
			continue;
		struct bench b = bench_new(cases[n].layer, cases[n].c, cases[n].len, cases[n].outputs, 2);
		const struct layer *l = b.l;
		double *y = mem_array(b.n_out, sizeof *y);
		size_t start, end, c_n = l->out_shape.d[0], p_n = l->out_shape.d[1];
		double size;
		for (size_t i = 0; i < 2 * c_n * p_n; i++) {
			size_t s = i / (c_n * p_n), c = i / p_n % c_n;
			window(l, i % p_n, &start, &end, &size);
			double sum = 0, most = -INFINITY;
			for (size_t j = start; j < end; j++) {
				double v = (double)b.x[at(&l->in_shape, s, c, j)];
				sum += v;
				most = v > most ? v : most;
			}
			y[at(&l->out_shape, s, c, i % p_n)] = strstr(l->op->op, "max") != NULL ? most : sum / size;
		}
		forward(&b);
		assert_close(cases[n].layer, b.y, y, b.n_out, 1e-6);
		float *keep = b.io.keep;
		b.io.keep = NULL; /* as in inference */
		poison(&b);
		forward(&b);
		assert_close(cases[n].layer, b.y, y, b.n_out, 1e-6);
		b.io.keep = keep;
		free(y);
		bench_free(&b);
	}
}

static void test_maxpool_ties_and_nan(void **state)
{
	(void)state;
	struct bench b = bench_new("{op: maxpool1d, kernel: 3}", 1, 9, 3, 1);
	const float x[9] = {1, 1, 1, 2, NAN, 3, -INFINITY, -INFINITY, -INFINITY};
	const float dx[9] = {1, 0, 0, 0, 2, 0, 3, 0, 0}, r[3] = {1, 2, 3};
	memcpy(b.x, x, sizeof x);
	memcpy(b.r, r, sizeof r);
	forward(&b);
	assert_true(b.y[0] == 1 && isnan(b.y[1]) && b.y[2] == -INFINITY);
	b.l->op->backward(b.l, &b.io);
	assert_memory_equal(b.dx, dx, sizeof dx);
	bench_free(&b);
}

static void test_relu_in_place(void **state)
{
	(void)state;
	struct bench b = bench_new("{op: relu}", 3, 5, 15, 2);
	b.x[3] = 0;
	b.x[4] = -0.0f;
	forward(&b);
	b.l->op->backward(b.l, &b.io);
	float *y = b.y, *dx = b.dx, *r = b.r;
	assert_true(y[3] == 0 && y[4] == 0 && dx[3] == 0 && dx[4] == 0);
	b.io.y = b.x;
	b.io.dx = b.r;
	b.l->op->forward(b.l, &b.io);
	b.l->op->backward(b.l, &(struct layer_io){.batch = 2, .y = b.x, .dy = b.r, .dx = b.r});
	assert_memory_equal(b.x, y, b.n_out * sizeof *y);
	assert_memory_equal(r, dx, b.n_in * sizeof *dx);
	b.x[0] = NAN;
	b.l->op->forward(b.l, &b.io);
	assert_true(isnan(b.x[0]));
	bench_free(&b);
}

static void test_flatten_order(void **state)
{
	(void)state;
	struct bench b = bench_new("{op: flatten}", 3, 4, 12, 2);
	assert_int_equal(b.l->op->memory(b.l), LAYER_OWN);
	forward(&b);
	for (size_t i = 0; i < 24; i++) /* PyTorch's (B,C,L) order */
		assert_true(b.y[i] == b.x[at(&b.l->in_shape, i / 12, i % 12 / 4, i % 4)]);
	bench_free(&b);
	b = bench_new("{op: flatten}", 1, 4, 4, 2);
	assert_int_equal(b.l->op->memory(b.l), LAYER_ALIAS);
	bench_free(&b);
	b = bench_new("{op: flatten}", 4, 1, 4, 2);
	assert_int_equal(b.l->op->memory(b.l), LAYER_ALIAS);
	bench_free(&b);
}

static void test_dropout(void **state)
{
	(void)state;
	struct bench b = bench_new("{op: dropout, p: 0.25}", 1, 20000, 20000, 2);
	for (size_t i = 0; i < b.n_in; i++)
		b.x[i] = 3;
	forward(&b);
	size_t dropped = 0;
	for (size_t i = 0; i < b.n_out; i++) {
		assert_true(b.y[i] == 0 || b.y[i] == 4); /* 3 / (1 - p) */
		dropped += b.y[i] == 0;
	}
	assert_true(dropped > 9600 && dropped < 10400); /* 10 000 +- 4.6 deviations */
	b.io.train = false;
	forward(&b);
	assert_memory_equal(b.y, b.x, b.n_out * sizeof *b.y);
	bench_free(&b);
}

/* Values and running statistics; the variance must not lose digits to a mean a thousand times the deviation. */
static void check_norm(size_t c_n, size_t len, size_t batch, double offset)
{
	struct bench b =
		bench_new("{op: batchnorm1d, name: l, momentum: 0.2}", c_n, len, c_n * (len > 0 ? len : 1), batch);
	const struct shape *s = &b.l->in_shape;
	double *y = mem_array(b.n_out, sizeof *y), *mean = mem_array(c_n, sizeof *mean),
	       *var = mem_array(c_n, sizeof *var);
	size_t n = b.n_in / c_n;
	float *x = normals(b.n_in, 5);
	for (size_t i = 0; i < b.n_in; i++)
		b.x[i] = x[i] + (float)offset;
	free(x);
	for (size_t c = 0; c < c_n; c++) {
		double m = 0, v = 0;
		for (size_t i = 0; i < n; i++)
			m += (double)b.x[at(s, 0, c, i)] / (double)n;
		for (size_t i = 0; i < n; i++)
			v += pow((double)b.x[at(s, 0, c, i)] - m, 2) / (double)n;
		for (size_t i = 0; i < n; i++)
			y[at(s, 0, c, i)] = ((double)b.x[at(s, 0, c, i)] - m) / sqrt(v + 1e-5) * (double)b.io.w[0][c] +
					    (double)b.io.w[1][c];
		double unbiased = n > 1 ? v * (double)n / (double)(n - 1) : v;
		mean[c] = 0.8 * (double)b.io.w[2][c] + 0.2 * m;
		var[c] = 0.8 * (double)b.io.w[3][c] + 0.2 * unbiased;
	}
	forward(&b);
	assert_close("y", b.y, y, b.n_out, 2e-5 + 1e-6 * fabs(offset)); /* the mean itself is a float */
	assert_close("running_mean", b.io.w[2], mean, c_n, 1e-6);
	assert_close("running_var", b.io.w[3], var, c_n, 2e-5);
	free(y);
	free(mean);
	free(var);
	bench_free(&b);
}

static void test_norm_twin(void **state)
{
	(void)state;
	static const double offsets[] = {0, 1000};
	for (size_t i = 0; i < 2; i++) {
		check_norm(3, 7, 2, offsets[i]);
		check_norm(16, 300, 4, offsets[i]);
		check_norm(1, 5000, 3, offsets[i]);
		check_norm(700, 3, 5, offsets[i]);
		check_norm(5, 0, 9, offsets[i]);
	}
}

/* A batch of one with a length of one: PyTorch refuses, a plant's last small batch must not. */
static void test_norm_single(void **state)
{
	(void)state;
	struct bench b = bench_new("{op: batchnorm1d, name: l}", 3, 0, 3, 1);
	float mean[3], var[3];
	for (size_t i = 0; i < 3; i++) {
		mean[i] = 0.9f * b.io.w[2][i] + 0.1f * b.x[i];
		var[i] = 0.9f * b.io.w[3][i];
	}
	forward(&b);
	b.l->op->backward(b.l, &b.io);
	for (size_t i = 0; i < 3; i++) {
		assert_true(fabsf(b.y[i] - b.io.w[1][i]) < 1e-6f && fabsf(b.dx[i]) < 1e-3f);
		assert_true(fabsf(b.io.w[2][i] - mean[i]) < 1e-6f && fabsf(b.io.w[3][i] - var[i]) < 1e-6f);
	}
	bench_free(&b);
}

static void test_norm_without_statistics(void **state)
{
	(void)state;
	struct bench b = bench_new("{op: batchnorm1d, name: l}", 2, 6, 12, 2);
	b.train_statistics = false;
	float *before = memcpy(floats(b.m->n_theta), b.m->theta, b.m->n_theta * sizeof *before);
	forward(&b);
	for (size_t i = 0; i < b.n_out; i++) {
		size_t c = i % 2;
		double want = ((double)b.x[i] - (double)b.io.w[2][c]) / sqrt((double)b.io.w[3][c] + 1e-5) *
				      (double)b.io.w[0][c] +
			      (double)b.io.w[1][c];
		assert_true(fabs((double)b.y[i] - want) < 1e-5 * (1 + fabs(want)));
	}
	assert_memory_equal(before, b.m->theta, b.m->n_theta * sizeof *before);
	free(before);
	bench_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_differences),
		cmocka_unit_test(test_every_operation_is_checked),
		cmocka_unit_test(test_conv_twin),
		cmocka_unit_test(test_pool_twin),
		cmocka_unit_test(test_maxpool_ties_and_nan),
		cmocka_unit_test(test_relu_in_place),
		cmocka_unit_test(test_flatten_order),
		cmocka_unit_test(test_dropout),
		cmocka_unit_test(test_norm_twin),
		cmocka_unit_test(test_norm_single),
		cmocka_unit_test(test_norm_without_statistics),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
