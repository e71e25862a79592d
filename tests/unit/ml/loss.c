#include "ml/gradcheck.h"

#include "ml/loss.h"

enum { B = 5, K = 4 };

struct point {
	struct loss_io io;
	loss_fn fn;
};

static double loss_at(void *arg)
{
	const struct point *p = arg;
	struct loss_io io = p->io;
	io.dy = NULL;
	return p->fn(&io);
}

/* The definition, with a softmax over the classes whose scale is not 0. */
static double by_definition(const struct loss_io *io)
{
	double total = 0;
	for (size_t b = 0; b < B; b++) {
		double sum = 0, classes = 0, uniform = 0, z[K];
		for (size_t k = 0; k < K; k++) {
			double scale = io->class_scale != NULL ? (double)io->class_scale[k] : 1;
			z[k] = scale * (double)io->y[b * K + k];
			sum += scale != 0 ? exp(z[k]) : 0;
			classes += scale != 0;
		}
		for (size_t k = 0; k < K; k++) {
			if (io->class_scale == NULL || io->class_scale[k] != 0)
				uniform -= (z[k] - log(sum)) / classes;
		}
		total += (1 - io->label_smoothing) * (log(sum) - z[io->label[b]]) + io->label_smoothing * uniform;
	}
	return total / B;
}

static void test_cross_entropy(void **state)
{
	(void)state;
	static const float scales[][K] = {{1, 1, 1, 1}, {1, 0.5f, 1, 1}, {1, 0, 1, 0}, {1, 0.25f, 1, 0}};
	static const double smoothing[] = {0, 0.1, 0.9};
	const uint32_t label[B] = {0, 2, 2, 0, 2};
	for (size_t s = 0; s < 4 * 3; s++) {
		float *y = normals(B * K, s), dy[B * K];
		struct point p = {{B, K, y, label, NULL, s < 3 ? NULL : scales[s / 3], smoothing[s % 3], dy},
				  loss_cross_entropy};
		double loss = loss_cross_entropy(&p.io);
		assert_true(fabs(loss - by_definition(&p.io)) < 1e-12);
		assert_true(loss == loss_at(&p));
		gradcheck("dy", GRADCHECK_STEP, loss_at, &p, y, dy, B * K);
		free(y);
	}
}

/* Worked out by hand. */
static void test_known_values(void **state)
{
	(void)state;
	const float y[6] = {1, 2, 3, 0.5f, -1, 0}, target[6] = {0};
	const uint32_t label[2] = {2, 0};
	struct loss_io io = {.batch = 2, .outputs = 3, .y = y, .label = label, .target = target};
	double first = log(exp(-2) + exp(-1) + 1), second = log(1 + exp(-1.5) + exp(-0.5));
	assert_true(fabs(loss_cross_entropy(&io) - (first + second) / 2) < 1e-12);
	io.label_smoothing = 0.2;
	/* The mean logit lies 1 below the label's in the first row, 2/3 in the second. */
	assert_true(fabs(loss_cross_entropy(&io) - ((first + second) / 2 + 0.2 * (1 + 2.0 / 3) / 2)) < 1e-7);
	assert_true(fabs(loss_mse(&io) - (1 + 4 + 9 + 0.25 + 1) / 6) < 1e-12);
}

static void test_absent_classes_get_nothing(void **state)
{
	(void)state;
	const float scale[K] = {1, 0, 1, 0};
	const uint32_t label[B] = {0, 2, 2, 0, 2};
	float *y = normals(B * K, 1), dy[B * K], other[B * K];
	struct loss_io io = {B, K, y, label, NULL, scale, 0.1, dy};
	double loss = loss_cross_entropy(&io);
	for (size_t i = 0; i < B * K; i++)
		assert_true((dy[i] == 0) == (i % 2 == 1));
	for (size_t i = 1; i < B * K; i += 2)
		y[i] = 1000; /* whatever an absent class says */
	io.dy = other;
	assert_true(loss_cross_entropy(&io) == loss);
	assert_memory_equal(dy, other, sizeof dy);
	free(y);
}

static void test_large_logits(void **state)
{
	(void)state;
	const float y[6] = {1e30f, -1e30f, 0, -3e38f, -3e38f, -3e38f};
	const uint32_t label[2] = {0, 1};
	float dy[6];
	struct loss_io io = {.batch = 2, .outputs = 3, .y = y, .label = label, .dy = dy};
	assert_true(fabs(loss_cross_entropy(&io) - log(3) / 2) < 1e-12);
	for (size_t i = 0; i < 6; i++)
		assert_true(isfinite(dy[i]));
	assert_true(dy[0] == 0 && fabsf(dy[4] + 1.0f / 3) < 1e-6f);
}

static void test_not_a_number_shows(void **state)
{
	(void)state;
	for (size_t i = 0; i < 3; i++) {
		float y[3] = {1, 2, 3}, target[3] = {1, 2, 3};
		const uint32_t label = 1;
		y[i] = NAN;
		const struct loss_io io = {.batch = 1, .outputs = 3, .y = y, .label = &label, .target = target};
		assert_true(isnan(loss_cross_entropy(&io)));
		assert_true(isnan(loss_mse(&io)));
		y[i] = INFINITY;
		assert_false(isfinite(loss_cross_entropy(&io)));
	}
}

static void test_mse(void **state)
{
	(void)state;
	float *y = normals(B * K, 1), *target = normals(B * K, 2), dy[B * K];
	struct point p = {{.batch = B, .outputs = K, .y = y, .target = target, .dy = dy}, loss_mse};
	double want = 0;
	for (size_t i = 0; i < B * K; i++)
		want += pow((double)y[i] - (double)target[i], 2) / (B * K);
	assert_true(fabs(loss_mse(&p.io) - want) < 1e-12);
	gradcheck("dy", GRADCHECK_STEP, loss_at, &p, y, dy, B * K);
	free(y);
	free(target);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cross_entropy),
		cmocka_unit_test(test_known_values),
		cmocka_unit_test(test_absent_classes_get_nothing),
		cmocka_unit_test(test_large_logits),
		cmocka_unit_test(test_not_a_number_shows),
		cmocka_unit_test(test_mse),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
