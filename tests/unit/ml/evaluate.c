#include "ml/gradcheck.h"

#include "ml/evaluate.h"

/* A model whose outputs are its inputs, so that a test writes the logits down. */
static struct model *identity(const char *outputs, size_t n)
{
	char *text = mem_printf("input: [1, %zu]\n%s\nlayers: [{op: flatten}]\n", n, outputs);
	struct model *m = model_of(text);
	free(text);
	return m;
}

static struct dataset *samples(const struct model *m, size_t n, const float *x, const uint32_t *label,
			       const float *target)
{
	struct dataset *d;
	bool classes = label != NULL;
	assert_int_equal(dataset_new(n, &m->input, classes ? m->n_outputs : 0, classes ? 0 : m->n_outputs, &d), ERR_OK);
	memcpy(d->x, x, n * d->width * sizeof *x);
	if (classes)
		memcpy(d->label, label, n * sizeof *label);
	else
		memcpy(d->target, target, n * m->n_outputs * sizeof *target);
	return d;
}

static void test_classes(void **state)
{
	(void)state;
	struct model *m = identity("classes: [a, b, c, d]", 4);
	/* Predictions a a b c c d; labels a b b c a c: d is predicted, but never right. */
	const float x[24] = {5, 0, 0, 0, 5, 0, 0, 0, 0, 5, 0, 0, 0, 0, 5, 0, 0, 0, 5, 0, 0, 0, 0, 5};
	const uint32_t label[6] = {0, 1, 1, 2, 0, 2};
	struct dataset *d = samples(m, 6, x, label, NULL);
	struct metrics r;
	assert_int_equal(evaluate(m, d, &r), ERR_OK);
	/* F1: a 2/(2+2), b 2/(2+1), c 2/(2+2): TP of each 1, FP 1 0 1, FN 1 1 1. */
	double right = log(1 + 3 * exp(-5)), wrong = right + 5;
	assert_int_equal(r.n, 6);
	assert_true(fabs(r.accuracy - 0.5) < 1e-12 && isnan(r.rmse));
	assert_true(fabs(r.macro_f1 - (0.5 + 2.0 / 3 + 0.5) / 3) < 1e-12);
	assert_true(fabs(r.loss - (right + wrong) / 2) < 1e-12);
	bool chosen[4] = {false, true, false, false};
	assert_int_equal(evaluate_classes(m, d, chosen, &r), ERR_OK);
	assert_int_equal(r.n, 2);
	assert_true(r.accuracy == 0.5 && fabs(r.macro_f1 - 2.0 / 3) < 1e-12);
	chosen[1] = false;
	chosen[3] = true;
	assert_int_equal(evaluate_classes(m, d, chosen, &r), ERR_OK);
	assert_true(r.n == 0 && isnan(r.loss) && isnan(r.accuracy) && isnan(r.macro_f1));
	dataset_free(d);
	model_free(m);
}

static void test_values(void **state)
{
	(void)state;
	struct model *m = identity("outputs: 2", 2);
	const float x[6] = {1, 2, 3, 4, 5, 6}, target[6] = {1, 2, 3, 4, 5, 9};
	struct dataset *d = samples(m, 3, x, NULL, target);
	struct metrics r;
	assert_int_equal(evaluate(m, d, &r), ERR_OK);
	assert_true(r.n == 3 && fabs(r.loss - 1.5) < 1e-12 && fabs(r.rmse - sqrt(1.5)) < 1e-12);
	assert_true(isnan(r.accuracy) && isnan(r.macro_f1));
	dataset_free(d);
	model_free(m);
}

/* More samples than a batch has, and a last batch that is smaller: counted once each. */
static void test_batches(void **state)
{
	(void)state;
	enum { N = 2 * EVALUATE_BATCH + 7 };
	struct model *m = identity("classes: [a, b, c]", 3);
	float *x = normals(N * 3, 1);
	uint32_t label[N];
	size_t correct = 0;
	for (size_t i = 0; i < N; i++) {
		const float *v = x + 3 * i;
		size_t best = v[0] >= v[1] && v[0] >= v[2] ? 0 : v[1] >= v[2] ? 1 : 2;
		label[i] = (uint32_t)(i % 3);
		correct += best == i % 3;
	}
	struct dataset *d = samples(m, N, x, label, NULL);
	struct metrics r, small;
	struct net *net;
	assert_int_equal(evaluate(m, d, &r), ERR_OK);
	assert_true(r.n == N && fabs(r.accuracy - (double)correct / N) < 1e-12);
	assert_int_equal(net_new(m, 5, true, &net), ERR_OK);
	assert_int_equal(evaluate_net(net, m, d, NULL, &small), ERR_OK);
	assert_true(small.n == N && small.accuracy == r.accuracy && small.macro_f1 == r.macro_f1 &&
		    small.loss == r.loss);
	net_free(net);
	dataset_free(d);
	model_free(m);
	free(x);
}

static void test_misfits(void **state)
{
	(void)state;
	struct model *m = identity("classes: [a, b, c]", 3), *values = identity("outputs: 3", 3),
		     *four = identity("classes: [a, b, c, d]", 4);
	const float x[6] = {0};
	const uint32_t label[2] = {0, 1};
	struct dataset *d = samples(m, 2, x, label, NULL), *v = samples(values, 2, x, NULL, x);
	struct metrics r = {.n = 77};
	assert_int_equal(evaluate(four, d, &r), ERR_SHAPE);
	assert_int_equal(evaluate(values, d, &r), ERR_SHAPE);
	assert_int_equal(evaluate(m, v, &r), ERR_SHAPE);
	d->n_classes = 4;
	assert_int_equal(evaluate(m, d, &r), ERR_SHAPE);
	d->n_classes = 3;
	d->label[1] = 3;
	assert_int_equal(evaluate(m, d, &r), ERR_SHAPE);
	assert_non_null(strstr(err_text(), "class number 3"));
	assert_int_equal(r.n, 77);
	dataset_free(d);
	dataset_free(v);
	assert_int_equal(dataset_new(0, &m->input, 3, 0, &d), ERR_OK);
	assert_int_equal(evaluate(m, d, &r), ERR_OK);
	assert_int_equal(r.n, 0);
	dataset_free(d);
	model_free(m);
	model_free(values);
	model_free(four);
}

static void test_order(void **state)
{
	(void)state;
	const double none = (double)NAN;
	/* Each is better than all after it. */
	const struct metrics classes[] = {
		{9, 0.5, 0.9, 0, none}, {9, 0.6, 0.9, 0, none},  {9, none, 0.9, 0, none},
		{9, 0.1, 0.8, 0, none}, {9, none, 0.0, 0, none}, {0, none, none, none, none},
	};
	const struct metrics values[] = {
		{9, 0.25, none, none, 0.5},
		{9, 1, none, none, 1},
		{9, none, none, none, none},
		{0, 0, 0, 0, 0},
	};
	for (size_t i = 0; i < 6; i++) {
		for (size_t j = 0; j < 6; j++) {
			assert_int_equal(metrics_better(&classes[i], &classes[j]), i < j);
			assert_int_equal(metrics_not_worse(&classes[i], &classes[j]), i <= j);
		}
	}
	for (size_t i = 0; i < 4; i++) {
		for (size_t j = 0; j < 4; j++) {
			assert_int_equal(metrics_better(&values[i], &values[j]), i < j);
			assert_int_equal(metrics_not_worse(&values[i], &values[j]), i <= j);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_classes), cmocka_unit_test(test_values), cmocka_unit_test(test_batches),
		cmocka_unit_test(test_misfits), cmocka_unit_test(test_order),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
