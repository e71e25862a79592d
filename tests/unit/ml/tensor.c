#include "ml/gradcheck.h"

#include "ml/tensor.h"

static void test_shape_count(void **state)
{
	(void)state;
	size_t n;
	assert_int_equal(shape_count(&(struct shape){0}, &n), ERR_OK);
	assert_int_equal(n, 1);
	assert_int_equal(shape_count(&(struct shape){3, {2, 3, 4}}, &n), ERR_OK);
	assert_int_equal(n, 24);
	assert_int_equal(shape_count(&(struct shape){2, {5, 0}}, &n), ERR_OK);
	assert_int_equal(n, 0);
	assert_int_equal(shape_count(&(struct shape){2, {1u << 16, 1u << 15}}, &n), ERR_OK);
	assert_true(n == TENSOR_COUNT_MAX);
	n = 7;
	assert_int_equal(shape_count(&(struct shape){2, {1u << 16, (1u << 15) + 1}}, &n), ERR_LIMIT);
	assert_int_equal(shape_count(&(struct shape){4, {SIZE_MAX, SIZE_MAX, SIZE_MAX, SIZE_MAX}}, &n), ERR_LIMIT);
	assert_int_equal(n, 7);
}

static void test_shape_text(void **state)
{
	(void)state;
	char text[SHAPE_TEXT_SIZE];
	assert_string_equal(shape_format(&(struct shape){3, {16, 1, 64}}, text), "16x1x64");
	assert_string_equal(shape_format(&(struct shape){0}, text), "scalar");
	const struct shape longest = {4, {SIZE_MAX, SIZE_MAX, SIZE_MAX, SIZE_MAX}};
	assert_int_equal(strlen(shape_format(&longest, text)), 4 * 20 + 3);
	assert_true(shape_equal(&(struct shape){2, {3, 4}}, &(struct shape){2, {3, 4, 9}}));
	assert_false(shape_equal(&(struct shape){2, {3, 4}}, &(struct shape){2, {4, 3}}));
	assert_false(shape_equal(&(struct shape){2, {3, 4}}, &(struct shape){1, {3, 4}}));
}

/* The plain sum, in double. */
static double product_at(bool ta, bool tb, size_t i, size_t j, size_t k, const float *a, size_t lda, const float *b,
			 size_t ldb)
{
	double s = 0;
	for (size_t l = 0; l < k; l++)
		s += (double)(ta ? a[l * lda + i] : a[i * lda + l]) * (double)(tb ? b[j * ldb + l] : b[l * ldb + j]);
	return s;
}

static void check_gemm(bool ta, bool tb, size_t m, size_t n, size_t k, float alpha, float beta)
{
	size_t lda = (ta ? m : k) + 3, ldb = (tb ? k : n) + 1, ldc = n + 2;
	float *a = normals((ta ? k : m) * lda, 1), *b = normals((tb ? n : k) * ldb, 2), *c = normals(m * ldc, 3);
	float *before = normals(m * ldc, 3);
	gemm(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
	for (size_t i = 0; i < m; i++) {
		for (size_t j = 0; j < ldc; j++) {
			double old = (double)before[i * ldc + j];
			double want =
				j < n ? (double)alpha * product_at(ta, tb, i, j, k, a, lda, b, ldb) + (double)beta * old
				      : old;
			assert_true(fabs((double)c[i * ldc + j] - want) <=
				    1e-5 * (1 + fabs(want)) * sqrt((double)k + 1));
		}
	}
	free(a);
	free(b);
	free(c);
	free(before);
}

static void test_gemm(void **state)
{
	(void)state;
	static const size_t sizes[][3] = {{1, 1, 1}, {2, 3, 4}, {1, 17, 33}, {16, 16, 1}, {7, 1, 300}, {65, 33, 129}};
	for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
		for (int t = 0; t < 4; t++) {
			check_gemm(t & 1, t & 2, sizes[s][0], sizes[s][1], sizes[s][2], 1, 0);
			check_gemm(t & 1, t & 2, sizes[s][0], sizes[s][1], sizes[s][2], -0.5f, 1);
		}
	}
	float c[2] = {1, 2}, none = 0;
	gemm(false, false, 0, 2, 2, 1, &none, 2, &none, 2, 0, c, 2);
	assert_true(c[0] == 1 && c[1] == 2);
}

static void test_gemm_beta_zero_forgets(void **state)
{
	(void)state;
	const float a[4] = {1, 2, 3, 4}, b[4] = {1, 0, 0, 1};
	float c[4] = {NAN, INFINITY, NAN, -INFINITY};
	gemm(false, false, 2, 2, 2, 1, a, 2, b, 2, 0, c, 2);
	assert_memory_equal(c, a, sizeof c);
}

static void test_axpy(void **state)
{
	(void)state;
	for (size_t n = 0; n < 40; n++) {
		float *x = normals(n + 1, 4), *y = normals(n + 1, 5), *before = normals(n + 1, 5);
		axpy(n, 0.25f, x, y);
		for (size_t i = 0; i < n; i++)
			assert_true(y[i] == before[i] + 0.25f * x[i]);
		assert_true(y[n] == before[n]);
		free(x);
		free(y);
		free(before);
	}
}

static void test_column_sums(void **state)
{
	(void)state;
	for (size_t r = 0; r < 30; r++) {
		size_t n = 1 + r % 5;
		float *x = normals(r * n + 1, 6), sums[5] = {1, 2, 3, 4, 5};
		add_column_sums(r, n, x, sums);
		for (size_t j = 0; j < n; j++) {
			double want = (double)(j + 1);
			for (size_t i = 0; i < r; i++)
				want += (double)x[i * n + j];
			assert_true(fabs((double)sums[j] - want) < 1e-5);
		}
		free(x);
	}
}

static void test_rowwise_linear(void **state)
{
	(void)state;
	static const size_t sizes[][3] = {{1, 1, 1}, {3, 7, 5}, {5, 8, 4}, {4, 100, 9}, {9, 33, 6}};
	for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
		size_t b = sizes[s][0], in = sizes[s][1], out = sizes[s][2];
		float *x = normals(b * in, 7), *w = normals(out * in, 8), *bias = normals(out, 9);
		float *y = floats(b * out), *one = floats(out);
		rowwise_linear(b, in, out, x, w, bias, y);
		for (size_t i = 0; i < b; i++) {
			for (size_t j = 0; j < out; j++) {
				double want = (double)bias[j] + product_at(false, true, i, j, in, x, in, w, in);
				assert_true(fabs((double)y[i * out + j] - want) < 1e-5 * (1 + fabs(want)));
			}
			rowwise_linear(1, in, out, x + i * in, w, bias, one);
			assert_memory_equal(one, y + i * out, out * sizeof *one);
		}
		rowwise_linear(1, in, out, x, w, NULL, one);
		assert_true(fabs((double)one[0] - product_at(false, true, 0, 0, in, x, in, w, in)) < 1e-4);
		free(x);
		free(w);
		free(bias);
		free(y);
		free(one);
	}
}

static void test_transpose(void **state)
{
	(void)state;
	const float x[6] = {1, 2, 3, 4, 5, 6}, want[6] = {1, 4, 2, 5, 3, 6};
	float y[6];
	transpose(2, 3, x, y);
	assert_memory_equal(y, want, sizeof y);
}

static void test_patterns(void **state)
{
	(void)state;
	static const struct {
		const char *pattern, *name;
		bool match;
	} cases[] = {
		{"conv*", "conv1.weight", true},
		{"conv*", "bn1.weight", false},
		{"*", "", true},
		{"*", "anything", true},
		{"", "", true},
		{"", "x", false},
		{"conv1.weight", "conv1.weight", true},
		{"conv1.weight", "conv1.weigh", false},
		{"conv1.weight", "conv1.weights", false},
		{"conv?.weight", "conv12.weight", false},
		{"conv?.weight", "conv1.weight", true},
		{"?", "", false},
		{"*.bias", "conv1.bias", true},
		{"*.bias", "conv1.bias2", false},
		{"*a*b*c", "xaybzc", true},
		{"*a*b*c", "xaybz", false},
		{"*ab", "aab", true},
		{"a*a", "a", false},
		{"**?**", "x", true},
		{"Conv*", "conv1", false},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		assert_int_equal(pattern_match(cases[i].pattern, cases[i].name), cases[i].match);
}

static void test_pattern_is_not_exponential(void **state)
{
	(void)state;
	char pattern[201], name[5001];
	for (size_t i = 0; i < 200; i += 2)
		memcpy(pattern + i, "*a", 2);
	pattern[200] = '\0';
	memset(name, 'a', 5000);
	name[4999] = 'b';
	name[5000] = '\0';
	assert_false(pattern_match(pattern, name));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shape_count),    cmocka_unit_test(test_shape_text),
		cmocka_unit_test(test_gemm),           cmocka_unit_test(test_gemm_beta_zero_forgets),
		cmocka_unit_test(test_axpy),           cmocka_unit_test(test_column_sums),
		cmocka_unit_test(test_rowwise_linear), cmocka_unit_test(test_transpose),
		cmocka_unit_test(test_patterns),       cmocka_unit_test(test_pattern_is_not_exponential),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
