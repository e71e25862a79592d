/*
 * Whole runs against double precision and against the closed form of what a pull ends in.
 */
#include "ml/train_fixture.h"

/* Order of the samples, last smaller batch, schedule, pulls: the whole run against double precision. */
static void test_run_follows_the_reference(void **state)
{
	(void)state;
	static const char net[] =
		"input: [1, 32]\nclasses: [a, b, c]\nlayers:\n- {op: conv1d, name: c, out: 3, kernel: 4, stride: 3, "
		"bias: false}\n"
		"- {op: batchnorm1d, name: n}\n- {op: relu}\n- {op: avgpool1d, kernel: 2}\n- {op: flatten}\n"
		"- {op: linear, name: head, out: outputs}\n";
	struct dataset *d = sines(22, 3, 5);
	struct model *m = model_of(net), *source = model_of(net);
	model_init(m, 1);
	model_init(source, 2);
	struct model *base = model_dup(m);
	struct train_config c = config_of(
		"{epochs: 4, batch: 8, lr: 0.05, weight_decay: 0.001, head_lr: 2, l2sp_alpha: 0.1, l2sp_beta: 0.02, "
		"prox_mu: 0.1, schedule: cosine, label_smoothing: 0.1}");
	struct train_result result;
	struct reference *r = reference_new(m, 8);
	const struct train_job job = {.model = m,
				      .train = d,
				      .config = &c,
				      .source = source,
				      .head_is_new = true,
				      .base = base->theta,
				      .seed = 9};
	assert_int_equal(train_run(&job, &result), ERR_OK);
	assert_int_equal(result.steps, 4 * 3);
	double loss = 0;
	for (size_t epoch = 1; epoch <= 4; epoch++) {
		uint32_t order[22], label[8];
		float x[8 * 32];
		struct rng rng;
		for (size_t i = 0; i < 22; i++)
			order[i] = (uint32_t)i;
		rng_stream(&rng, 9, "shuffle", epoch);
		rng_shuffle(&rng, order, 22);
		loss = 0;
		for (size_t first = 0; first < 22; first += 8) {
			size_t n = 22 - first < 8 ? 22 - first : 8;
			for (size_t i = 0; i < n; i++) {
				memcpy(x + 32 * i, d->x + 32 * order[first + i], 32 * sizeof *x);
				label[i] = d->label[order[first + i]];
			}
			loss += reference_gradient(r, x, n, label, NULL, NULL, 0.1) * (double)n / 22;
			reference_step(r, &c.optim, source->theta, true, base->theta,
				       (1 + cos(M_PI * (double)(epoch - 1) / 4)) / 2);
		}
	}
	assert_close("theta", m->theta, r->theta, m->n_theta, 1e-4);
	assert_true(fabs(result.loss - loss) < 1e-4);
	reference_free(r);
	config_free(train_rows, &c);
	model_free(m);
	model_free(source);
	model_free(base);
	dataset_free(d);
}

/* Solves a (n,n) x = b in place, with pivots; x replaces b. */
static void solve(size_t n, double *a, double *b)
{
	for (size_t k = 0; k < n; k++) {
		size_t best = k;
		for (size_t i = k; i < n; i++)
			best = fabs(a[i * n + k]) > fabs(a[best * n + k]) ? i : best;
		for (size_t j = 0; j < n; j++) {
			double t = a[k * n + j];
			a[k * n + j] = a[best * n + j];
			a[best * n + j] = t;
		}
		double t = b[k];
		b[k] = b[best];
		b[best] = t;
		for (size_t i = k + 1; i < n; i++) {
			double f = a[i * n + k] / a[k * n + k];
			for (size_t j = k; j < n; j++)
				a[i * n + j] -= f * a[k * n + j];
			b[i] -= f * b[k];
		}
	}
	for (size_t k = n; k-- > 0;) {
		for (size_t j = k + 1; j < n; j++)
			b[k] -= a[k * n + j] * b[j];
		b[k] /= a[k * n + k];
	}
}

enum { DIM = 5, ROWS = 40 };

/* MSE of a linear map is a quadratic: w* = (A + pull I)^-1 (A a + pull w0), with A = 2/n X^T X and A a = 2/n X^T t. */
static void check_closed_form(bool head_is_new, double alpha, double beta)
{
	struct dataset *d;
	assert_int_equal(dataset_new(ROWS, &(struct shape){1, {DIM}}, 0, 1, &d), ERR_OK);
	float *x = normals(ROWS * DIM, 1), *t = normals(ROWS, 2);
	memcpy(d->x, x, ROWS * DIM * sizeof *x);
	memcpy(d->target, t, ROWS * sizeof *t);
	struct model *m = model_of("input: [5]\noutputs: 1\nlayers: [{op: linear, name: w, out: 1, bias: false}]\n"),
		     *source = model_dup(m);
	model_init(m, 3);
	model_init(source, 4);
	for (size_t i = 0; i < DIM; i++)
		source->theta[i] += 2; /* far enough to be felt */
	double a[DIM * DIM] = {0}, w[DIM] = {0}, pull = head_is_new ? beta : alpha;
	for (size_t i = 0; i < DIM; i++) {
		for (size_t r = 0; r < ROWS; r++) {
			for (size_t j = 0; j < DIM; j++)
				a[i * DIM + j] += 2.0 / ROWS * (double)x[r * DIM + i] * (double)x[r * DIM + j];
			w[i] += 2.0 / ROWS * (double)x[r * DIM + i] * (double)t[r];
		}
		a[i * DIM + i] += pull;
		w[i] += head_is_new ? 0 : pull * (double)source->theta[i];
	}
	solve(DIM, a, w);
	struct train_config c = config_of("{epochs: 400, batch: 40, lr: 0.1, momentum: 0.5}");
	c.optim.l2sp_alpha = alpha;
	c.optim.l2sp_beta = beta;
	const struct train_job job = {
		.model = m, .train = d, .config = &c, .source = source, .head_is_new = head_is_new, .seed = 1};
	struct train_result r;
	assert_int_equal(train_run(&job, &r), ERR_OK);
	assert_close("w", m->theta, w, DIM, 1e-5);
	config_free(train_rows, &c);
	model_free(m);
	model_free(source);
	dataset_free(d);
	free(x);
	free(t);
}

static void test_l2sp_closed_form(void **state)
{
	(void)state;
	check_closed_form(false, 0, 0);
	check_closed_form(false, 0.1, 0.7);
	check_closed_form(false, 3, 0);
	check_closed_form(true, 0.1, 0.7);
}

/* The source may have other classes: rows that it has are pulled to its rows, the others to where they start. */
static void test_source_with_other_classes(void **state)
{
	(void)state;
	static const char ours[] = "input: [2]\nclasses: [x, b]\nlayers: [{op: linear, name: h, out: outputs}]\n";
	static const char theirs[] = "input: [2]\nclasses: [a, b, c]\nlayers: [{op: linear, name: h, out: outputs}]\n";
	struct model *m = model_of(ours), *source = model_of(theirs);
	model_init(m, 1);
	model_init(source, 2);
	struct model *start = model_dup(m);
	struct dataset *d;
	assert_int_equal(dataset_new(4, &(struct shape){1, {2}}, 2, 0, &d),
			 ERR_OK); /* zeros: no gradient for the weights */
	struct train_config c = config_of("{epochs: 200, lr: 0.1, momentum: 0, l2sp_alpha: 1, freeze: '*.bias'}");
	const struct train_job job = {.model = m, .train = d, .config = &c, .source = source, .seed = 1};
	struct train_result r;
	assert_int_equal(train_run(&job, &r), ERR_OK);
	for (size_t i = 0; i < 2; i++) {
		assert_true(m->theta[i] == start->theta[i]);                        /* x */
		assert_true(fabsf(m->theta[2 + i] - source->theta[2 + i]) < 1e-6f); /* b */
	}
	struct model *other = model_of("input: [2]\nclasses: [a, b]\nlayers: [{op: linear, name: g, out: 2}, {op: "
				       "linear, name: h, out: outputs}]\n");
	assert_int_equal(
		train_run(&(struct train_job){.model = m, .train = d, .config = &c, .source = other, .seed = 1}, &r),
		ERR_SHAPE);
	/* A new head has nothing to do with the source's, however that looks. */
	struct model *named = model_of("input: [2]\noutputs: 5\nlayers: [{op: linear, name: top, out: outputs}]\n");
	const struct train_job fresh = {
		.model = m, .train = d, .config = &c, .source = named, .head_is_new = true, .seed = 1};
	assert_int_equal(train_run(&fresh, &r), ERR_OK);
	model_free(named);
	config_free(train_rows, &c);
	model_free(m);
	model_free(source);
	model_free(start);
	model_free(other);
	dataset_free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_run_follows_the_reference),
		cmocka_unit_test(test_l2sp_closed_form),
		cmocka_unit_test(test_source_with_other_classes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
