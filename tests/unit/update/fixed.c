#include "update/fixture.h"

#include "update/fixed.h"

#include <math.h>

__extension__ typedef __int128 wide;

enum { N = 4099 }; /* odd: every vector loop has a tail */

static uint32_t bits_of(float v)
{
	uint32_t b;
	memcpy(&b, &v, sizeof b);
	return b;
}

static float float_of(uint32_t bits)
{
	float v;
	memcpy(&v, &bits, sizeof v);
	return v;
}

static void encode_rounds_half_to_even(void **state)
{
	(void)state;
	static const struct {
		float delta;
		int32_t q;
	} cases[] = {
		{0, 0},
		{0.5f, 0},
		{1.5f, 2},
		{2.5f, 2},
		{3.5f, 4},
		{-0.5f, 0},
		{-1.5f, -2},
		{-2.5f, -2},
		{0.75f, 1},
		{-0.75f, -1},
		{0.25f, 0},
		{1e-30f, 0},
		{16777216, 1 << 24},
		{FIXED_MAX, FIXED_MAX},
		{-FIXED_MAX, -FIXED_MAX},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		for (int scale = -20; scale <= 20; scale += 10) {
			float local = ldexpf(cases[i].delta, -scale), zero = 0;
			int32_t q;
			assert_ok(fixed_encode(&local, &zero, 1, 1, scale, &q, NULL));
			assert_int_equal(q, cases[i].q);
		}
	}
}

static void encode_is_within_half_a_unit(void **state)
{
	(void)state;
	float local[N], base[N];
	int32_t q[N];
	struct rng r;
	rng_seed(&r, 1);
	for (int scale = FIXED_SCALE_MIN; scale <= FIXED_SCALE_MAX; scale++) {
		double range = fmin(ldexp(1, FIXED_BITS - scale), 1e38); /* floats end before the smallest scales do */
		for (size_t i = 0; i < N; i++) {
			base[i] = (float)(rng_normal(&r) * range / 1e6);
			local[i] = base[i] + (float)((2 * rng_uniform(&r) - 1) * range * 0.99);
		}
		assert_ok(fixed_encode(local, base, N, 1, scale, q, NULL));
		for (size_t i = 0; i < N; i++) {
			double delta = (double)(local[i] - base[i]);
			assert_true(fabs(fixed_decode(q[i], scale) - delta) <= ldexp(0.5, -scale));
			assert_true(q[i] == (int32_t)nearbyintl((long double)delta * powl(2, scale)));
		}
	}
}

static void encode_applies_the_factor(void **state)
{
	(void)state;
	float local[2] = {3, -5}, base[2] = {1, -1};
	int32_t q[2];
	assert_ok(fixed_encode(local, base, 2, 0.25, 10, q, NULL));
	assert_int_equal(q[0], 512);
	assert_int_equal(q[1], -1024);
}

static void encode_refuses_what_does_not_fit(void **state)
{
	(void)state;
	static const uint32_t bad[] = {
		0x7fc00000, 0xffc00000, 0x7f800001, 0xff800001, 0x7fffffff, /* NaN */
		0x7f800000, 0xff800000,                                     /* infinity */
		0x7f7fffff, 0xff7fffff,                                     /* the largest floats */
		0x4e800001, 0xce800001,                                     /* the next after +-2^30 */
	};
	float local[N], base[N] = {0};
	int32_t q[N];
	for (size_t i = 0; i < N; i++)
		local[i] = 1;
	for (size_t b = 0; b < sizeof bad / sizeof bad[0]; b++) {
		for (size_t place = 0; place < N; place += 1 + place / 3) {
			size_t found = SIZE_MAX;
			local[place] = float_of(bad[b]);
			bool finite = isfinite(local[place]);
			assert_fails(fixed_encode(local, base, N, 1, 0, q, &found), ERR_NUMERIC,
				     finite ? "out of range" : "not finite");
			assert_int_equal(found, place);
			local[place] = 1;
		}
	}
	/* infinity - infinity, and a difference that overflows float32 */
	local[7] = base[7] = INFINITY;
	assert_fails(fixed_encode(local, base, N, 1, 0, q, NULL), ERR_NUMERIC, "not finite");
	local[7] = 3e38f;
	base[7] = -3e38f;
	assert_fails(fixed_encode(local, base, N, 1, 0, q, NULL), ERR_NUMERIC, "not finite");
	/* clipping makes room */
	local[7] = ldexpf(1, 31);
	base[7] = 0;
	assert_fails(fixed_encode(local, base, N, 1, 0, q, NULL), ERR_NUMERIC, "out of range");
	assert_ok(fixed_encode(local, base, N, 0.5, 0, q, NULL));
	assert_int_equal(q[7], FIXED_MAX);
}

static void sums_are_exact(void **state)
{
	(void)state;
	static int64_t sum[N];
	static wide reference[N];
	static int32_t q[N];
	struct rng r;
	rng_seed(&r, 2);
	memset(sum, 0, sizeof sum);
	for (size_t plant = 0; plant < 200; plant++) {
		int64_t weight = 1 + (int64_t)rng_below(&r, FIXED_WEIGHT_MAX);
		for (size_t i = 0; i < N; i++) {
			q[i] = (int32_t)((int64_t)rng_below(&r, 2 * (uint64_t)FIXED_MAX + 1) - FIXED_MAX);
			reference[i] += (wide)weight * q[i];
		}
		assert_true(fixed_add(sum, q, N, weight));
	}
	for (size_t i = 0; i < N; i++)
		assert_true(sum[i] == reference[i]);
}

static void the_largest_cohort_cannot_wrap(void **state)
{
	(void)state;
	int64_t sum[2] = {0};
	const int32_t q[2] = {FIXED_MAX, -FIXED_MAX};
	for (int plant = 0; plant < FIXED_PLANTS_MAX; plant++)
		assert_true(fixed_add(sum, q, 2, FIXED_WEIGHT_MAX));
	assert_true(sum[0] == INT64_C(1) << 62);
	assert_true(sum[1] == -(INT64_C(1) << 62));
	const float base[2] = {0, 0};
	float out[2];
	fixed_apply(base, sum, 2, (int64_t)FIXED_PLANTS_MAX * FIXED_WEIGHT_MAX, 24, 1, out);
	assert_true(out[0] == 64 && out[1] == -64);
}

static void cohorts_that_could_wrap_are_refused(void **state)
{
	(void)state;
	assert_ok(fixed_check_cohort(1, 1));
	assert_ok(fixed_check_cohort(FIXED_PLANTS_MAX, FIXED_WEIGHT_MAX));
	assert_fails(fixed_check_cohort(FIXED_PLANTS_MAX + 1, 1), ERR_LIMIT, "plants");
	assert_fails(fixed_check_cohort(1, FIXED_WEIGHT_MAX + 1), ERR_LIMIT, "weight");
	assert_fails(fixed_check_cohort(0, 1), ERR_LIMIT, "plants");
	assert_fails(fixed_check_cohort(1, 0), ERR_LIMIT, "weight");
	assert_fails(fixed_check_cohort(UINT64_MAX, UINT64_MAX), ERR_LIMIT, "plants");
}

static void apply_is_the_formula(void **state)
{
	(void)state;
	static float base[N], out[N];
	static int64_t sum[N];
	struct rng r;
	rng_seed(&r, 3);
	int64_t total = 12345;
	double rate = 0.7;
	static double change[N];
	for (size_t i = 0; i < N; i++) {
		sum[i] = (int64_t)(rng_u64(&r) >> (1 + rng_below(&r, 60))) * (i % 2 ? 1 : -1);
		change[i] = rate * (double)sum[i];
		change[i] = change[i] / (double)total;
		change[i] = change[i] * 0x1p-20;
		/* Every other base takes the leading digits away, so that the last ones of the double show. */
		base[i] = i % 4 < 2 ? (float)rng_normal(&r) : -(float)change[i];
	}
	fixed_apply(base, sum, N, total, 20, rate, out);
	for (size_t i = 0; i < N; i++)
		assert_true(bits_of(out[i]) == bits_of((float)((double)base[i] + change[i])));
	/* In place it is the same. */
	fixed_apply(base, sum, N, total, 20, rate, base);
	assert_memory_equal(base, out, sizeof out);
}

static void the_mean_of_equals_is_equal(void **state)
{
	(void)state;
	static float local[N], base[N], out[N];
	static int32_t q[N];
	static int64_t sum[N];
	struct rng r;
	rng_seed(&r, 4);
	for (size_t i = 0; i < N; i++) {
		base[i] = (float)rng_normal(&r);
		local[i] = base[i] + 0.01f * (float)rng_normal(&r);
	}
	assert_ok(fixed_encode(local, base, N, 1, 24, q, NULL));
	memset(sum, 0, sizeof sum);
	int64_t total = 0;
	for (int64_t weight = 1; weight < 2000; weight += 37) {
		assert_true(fixed_add(sum, q, N, weight));
		total += weight;
	}
	fixed_apply(base, sum, N, total, 24, 1, out);
	for (size_t i = 0; i < N; i++)
		assert_true(bits_of(out[i]) == bits_of((float)((double)base[i] + fixed_decode(q[i], 24))));
}

static void ranges_have_sharp_edges(void **state)
{
	(void)state;
	static int32_t q[N];
	static int64_t sum[N];
	double lanes[FIXED_LANES];
	size_t bad;
	static const int32_t outside[] = {FIXED_MAX + 1, -FIXED_MAX - 1, INT32_MAX, INT32_MIN, 0x7fc00000, 0x7f800000};
	for (size_t i = 0; i < N; i++)
		q[i] = i % 2 ? FIXED_MAX : -FIXED_MAX;
	memset(lanes, 0, sizeof lanes);
	assert_true(fixed_add(sum, q, N, 1));
	assert_true(fixed_add(sum, q, 0, 1));
	assert_true(fixed_scan((const uint8_t *)q, N, 0, lanes, &bad));
	for (size_t b = 0; b < sizeof outside / sizeof outside[0]; b++) {
		for (size_t place = 0; place < N; place += 1 + place / 5) {
			int32_t was = q[place];
			q[place] = outside[b];
			assert_false(fixed_add(sum, q, N, 1));
			assert_false(fixed_scan((const uint8_t *)q, N, place, lanes, &bad));
			assert_int_equal(bad, place);
			q[place] = was;
		}
	}
}

/* The order that fixed.h defines, written down once more. */
static double square_reference(const double *v, size_t n)
{
	double lane[8] = {0};
	for (size_t i = 0; i < n; i++) {
		double square = v[i] * v[i];
		lane[i % 8] = lane[i % 8] + square;
	}
	double a = lane[0] + lane[1], b = lane[2] + lane[3], c = lane[4] + lane[5], d = lane[6] + lane[7];
	double ab = a + b, cd = c + d;
	return ab + cd;
}

static void squares_have_one_order(void **state)
{
	(void)state;
	static int32_t q[N];
	static double v[N];
	static uint8_t bytes[4 * N + 3];
	struct rng r;
	rng_seed(&r, 5);
	for (size_t i = 0; i < N; i++) {
		q[i] = (int32_t)rng_below(&r, FIXED_MAX) - FIXED_MAX / 2;
		v[i] = q[i];
	}
	double want = square_reference(v, N);
	for (unsigned run = 0; run < 200; run++) {
		double lanes[FIXED_LANES] = {0};
		size_t shift = run % 4, bad; /* any alignment */
		memcpy(bytes + shift, q, sizeof q);
		for (size_t at = 0; at < N;) {
			size_t n = run == 0 ? N : rng_below(&r, 40);
			if (n > N - at)
				n = N - at;
			assert_true(fixed_scan(bytes + shift + 4 * at, n, at, lanes, &bad));
			at += n;
		}
		double got = fixed_lanes_sum(lanes);
		assert_memory_equal(&got, &want, sizeof got);
	}
}

static void squares_of_differences_have_the_same_order(void **state)
{
	(void)state;
	static float local[N], base[N];
	static double v[N];
	struct rng r;
	rng_seed(&r, 6);
	for (size_t i = 0; i < N; i++) {
		local[i] = (float)rng_normal(&r);
		base[i] = (float)rng_normal(&r);
		v[i] = local[i] - base[i];
	}
	for (size_t n = 0; n <= N; n += n < 40 ? 1 : 97) {
		double got = fixed_square(local, base, n), want = square_reference(v, n);
		assert_memory_equal(&got, &want, sizeof got);
	}
}

static void words_are_little_endian(void **state)
{
	(void)state;
	uint8_t bytes[9] = {0, 1, 2, 3, 4, 0xfe, 0xff, 0xff, 0xff};
	int32_t q[2];
	fixed_order(bytes + 1, 2);
	memcpy(q, bytes + 1, sizeof q);
	assert_int_equal(q[0], 0x04030201);
	assert_int_equal(q[1], -2);
	fixed_order(bytes + 1, 2);
	assert_memory_equal(bytes, "\x00\x01\x02\x03\x04\xfe\xff\xff\xff", 9);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(encode_rounds_half_to_even),
		cmocka_unit_test(encode_is_within_half_a_unit),
		cmocka_unit_test(encode_applies_the_factor),
		cmocka_unit_test(encode_refuses_what_does_not_fit),
		cmocka_unit_test(sums_are_exact),
		cmocka_unit_test(the_largest_cohort_cannot_wrap),
		cmocka_unit_test(cohorts_that_could_wrap_are_refused),
		cmocka_unit_test(apply_is_the_formula),
		cmocka_unit_test(the_mean_of_equals_is_equal),
		cmocka_unit_test(ranges_have_sharp_edges),
		cmocka_unit_test(words_are_little_endian),
		cmocka_unit_test(squares_have_one_order),
		cmocka_unit_test(squares_of_differences_have_the_same_order),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
