#include "base/fixture.h"

#include "base/rng.h"

#include <math.h>

/* The published first outputs of xoshiro256** from the state 1, 2, 3, 4 and of splitmix64 from 1234567. */
static void test_known_answers(void **state)
{
	(void)state;
	static const uint64_t xoshiro[] = {
		11520u,
		0u,
		1509978240u,
		UINT64_C(1215971899390074240),
		UINT64_C(1216172134540287360),
		UINT64_C(607988272756665600),
		UINT64_C(16172922978634559625),
		UINT64_C(8476171486693032832),
		UINT64_C(10595114339597558777),
		UINT64_C(2904607092377533576),
	};
	static const uint64_t splitmix[] = {
		UINT64_C(6457827717110365317),
		UINT64_C(3203168211198807973),
		UINT64_C(9817491932198370423),
		UINT64_C(4593380528125082431),
	};
	struct rng r = {.s = {1, 2, 3, 4}};
	for (size_t i = 0; i < sizeof xoshiro / sizeof xoshiro[0]; i++)
		assert_int_equal(rng_u64(&r), xoshiro[i]);
	rng_seed(&r, 1234567);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(r.s[i], splitmix[i]);
}

static void test_streams(void **state)
{
	(void)state;
	struct rng a, b;
	rng_stream(&a, 1, "dropout", 3);
	rng_stream(&b, 1, "dropout", 3);
	for (int i = 0; i < 100; i++)
		assert_int_equal(rng_u64(&a), rng_u64(&b));
	static const struct {
		uint64_t seed;
		const char *label;
		uint64_t index;
	} others[] = {{2, "dropout", 3}, {1, "dropou", 3}, {1, "dropout", 4}, {3, "dropout", 1}, {1, "", 3}};
	uint64_t first[5];
	for (size_t i = 0; i < 5; i++) {
		rng_stream(&b, others[i].seed, others[i].label, others[i].index);
		rng_stream(&a, 1, "dropout", 3);
		first[i] = rng_u64(&b);
		assert_int_not_equal(rng_u64(&a), first[i]);
		for (size_t j = 0; j < i; j++)
			assert_int_not_equal(first[i], first[j]);
	}
}

static void test_below(void **state)
{
	(void)state;
	struct rng r;
	rng_seed(&r, 5);
	size_t counts[10] = {0};
	for (int i = 0; i < 100000; i++)
		counts[rng_below(&r, 10)]++;
	/* 10000 expected, standard deviation 95: six of them on each side. */
	for (int i = 0; i < 10; i++)
		assert_in_range(counts[i], 9430, 10570);
	for (int i = 0; i < 100; i++)
		assert_int_equal(rng_below(&r, 1), 0);
	/* Almost half of all values are drawn again here. */
	uint64_t n = (UINT64_C(1) << 63) + 1;
	for (int i = 0; i < 1000; i++)
		assert_true(rng_below(&r, n) < n);
}

static void test_uniform_and_normal(void **state)
{
	(void)state;
	enum { N = 200000 };
	struct rng r;
	rng_seed(&r, 6);
	double sum = 0, normal_sum = 0, normal_squares = 0, fourth = 0;
	for (int i = 0; i < N; i++) {
		double u = rng_uniform(&r);
		assert_true(u >= 0 && u < 1);
		sum += u;
	}
	for (int i = 0; i < N; i++) {
		double x = rng_normal(&r);
		assert_true(isfinite(x));
		normal_sum += x;
		normal_squares += x * x;
		fourth += x * x * x * x;
	}
	assert_true(fabs(sum / N - 0.5) < 0.004);
	assert_true(fabs(normal_sum / N) < 0.014);
	assert_true(fabs(normal_squares / N - 1) < 0.02);
	assert_true(fabs(fourth / N - 3) < 0.2);
}

static void test_shuffle(void **state)
{
	(void)state;
	struct rng r;
	rng_seed(&r, 7);
	/* Every order of three, about equally often: 10000 expected, six standard deviations are 550. */
	size_t counts[27] = {0};
	for (int i = 0; i < 60000; i++) {
		uint32_t v[3] = {0, 1, 2};
		rng_shuffle(&r, v, 3);
		assert_true(v[0] != v[1] && v[1] != v[2] && v[0] != v[2]);
		counts[v[0] * 9 + v[1] * 3 + v[2]]++;
	}
	size_t orders = 0;
	for (int i = 0; i < 27; i++) {
		if (counts[i] == 0)
			continue;
		orders++;
		assert_in_range(counts[i], 9450, 10550);
	}
	assert_int_equal(orders, 6);
	rng_shuffle(&r, NULL, 0);
}

static void below_zero(void)
{
	struct rng r;
	rng_seed(&r, 1);
	rng_below(&r, 0);
}

static void test_below_zero_is_a_programmer_error(void **state)
{
	(void)state;
	assert_dies(below_zero);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_known_answers), cmocka_unit_test(test_streams),
		cmocka_unit_test(test_below),         cmocka_unit_test(test_uniform_and_normal),
		cmocka_unit_test(test_shuffle),       cmocka_unit_test(test_below_zero_is_a_programmer_error),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
