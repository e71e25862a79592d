/*
 * How slow a peer may be.
 */
#include "rpc/pace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

/* Messages of `n` bytes at `rate` bytes a second: for how long is that accepted, at most `limit_ms`? */
static int64_t endures(int64_t patience_ms, int64_t rate, size_t n, int64_t limit_ms)
{
	struct pace p = pace_begin(patience_ms);
	int64_t now = 0, came = 0;
	while (now < limit_ms) {
		int64_t next = (came + (int64_t)n) * 1000 / rate;
		if (next - now > pace_left_ms(&p))
			return now + pace_left_ms(&p);
		pace_count(&p, next - now, n);
		now = next;
		came += (int64_t)n;
	}
	return limit_ms;
}

enum { HOUR_MS = 3600 * 1000 };

static void test_patience(void **state)
{
	(void)state;
	struct pace p = pace_begin(PACE_PATIENCE_MS);
	/* Nothing is judged before. */
	assert_int_equal(pace_left_ms(&p), PACE_PATIENCE_MS);
	pace_count(&p, PACE_PATIENCE_MS - 1, 0);
	assert_int_equal(pace_left_ms(&p), 1);
	pace_count(&p, 1, 0);
	assert_int_equal(pace_left_ms(&p), 0);
	/* The last message may come in the very last moment. */
	pace_count(&p, 0, PACE_RATE);
	assert_int_equal(pace_left_ms(&p), 1000);
	pace_count(&p, 5000, 0);
	assert_int_equal(pace_left_ms(&p), 0);
	pace_count(&p, 0, PACE_RATE / 2);
	assert_int_equal(pace_left_ms(&p), 500);
}

static void test_rates(void **state)
{
	(void)state;
	static const size_t sizes[] = {1, 100, 4096, 65536, PACE_MESSAGE_SIZE};
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		size_t n = sizes[i];
		int64_t limit = n == 1 ? HOUR_MS / 10 : HOUR_MS;
		assert_int_equal(endures(PACE_PATIENCE_MS, PACE_RATE, n, limit), limit);
		assert_int_equal(endures(PACE_PATIENCE_MS, 10 * PACE_RATE, n, limit), limit);
		/* A tenth too slow: the patience is used up in ten times its length, less what a message is. */
		int64_t end = endures(PACE_PATIENCE_MS, PACE_RATE - PACE_RATE / 10, n, limit);
		int64_t message_ms = pace_time_ms(n) * 10 / 9;
		assert_in_range(end, 9 * (PACE_PATIENCE_MS - message_ms), 11 * PACE_PATIENCE_MS);
		/* A byte now and then is the same as nothing. */
		assert_in_range(endures(PACE_PATIENCE_MS, 1, 1, limit), PACE_PATIENCE_MS, PACE_PATIENCE_MS + 1000);
	}
}

/* A quick beginning cannot be saved up. */
static void test_no_saving(void **state)
{
	(void)state;
	struct pace p = pace_begin(PACE_PATIENCE_MS);
	for (int i = 0; i < 100000; i++)
		pace_count(&p, 0, 1 << 20);
	assert_int_equal(pace_left_ms(&p), PACE_PATIENCE_MS);
	pace_count(&p, PACE_PATIENCE_MS, 0);
	assert_int_equal(pace_left_ms(&p), 0);
}

/* In any stretch: waiting is at most the patience and what the bytes ask for. */
static void test_bound(void **state)
{
	(void)state;
	uint64_t x = 88172645463325252u;
	for (int run = 0; run < 200; run++) {
		int64_t patience = 1 + (int64_t)(x >> 20) % 60000;
		struct pace p = pace_begin(patience);
		int64_t waited = 0, bytes = 0;
		for (int i = 0; i < 500 && pace_left_ms(&p) > 0; i++) {
			x ^= x << 13, x ^= x >> 7, x ^= x << 17;
			int64_t wait = (int64_t)(x % 997) * pace_left_ms(&p) / 996;
			size_t n = (x >> 32) % 300000;
			pace_count(&p, wait, n);
			waited += wait;
			bytes += (int64_t)n;
			assert_true(pace_left_ms(&p) >= 0 && pace_left_ms(&p) <= patience);
			assert_true(waited <= patience + bytes * 1000 / PACE_RATE);
		}
	}
}

static void test_extremes(void **state)
{
	(void)state;
	struct pace p = pace_begin(1);
	assert_int_equal(pace_left_ms(&p), 1);
	pace_count(&p, INT64_MAX, 0);
	assert_int_equal(pace_left_ms(&p), 0);
	pace_count(&p, -5, SIZE_MAX);
	assert_int_equal(pace_left_ms(&p), 1);
	p = pace_begin(24 * HOUR_MS);
	pace_count(&p, INT64_MIN, SIZE_MAX);
	assert_int_equal(pace_left_ms(&p), 24 * HOUR_MS);
	pace_count(&p, INT64_MAX, SIZE_MAX);
	assert_in_range(pace_left_ms(&p), 0, 24 * HOUR_MS);
	assert_int_equal(pace_time_ms(0), 0);
	assert_int_equal(pace_time_ms(PACE_MESSAGE_SIZE), 16000);
	assert_true(pace_time_ms(SIZE_MAX) > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_patience), cmocka_unit_test(test_rates),    cmocka_unit_test(test_no_saving),
		cmocka_unit_test(test_bound),    cmocka_unit_test(test_extremes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
