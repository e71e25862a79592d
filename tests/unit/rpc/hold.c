/*
 * Who makes room when others wait.
 */
#include "rpc/hold.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

/* Messages of `n` bytes, each after `wait_ms`, with `busy_ms` of our own between them, until `end_ms`. */
static struct hold stream(size_t n, int64_t wait_ms, int64_t busy_ms, int64_t end_ms)
{
	struct hold h = {0};
	for (int64_t now = 0; now < end_ms; now += busy_ms) {
		hold_wait(&h, now);
		now += wait_ms;
		hold_pass(&h, now, n);
	}
	return h;
}

static void test_rates(void **state)
{
	(void)state;
	enum { MESSAGE = 256 << 10, END = 20 * 1000 };
	/* A quarter of a mebibyte takes 250 ms at the least rate. */
	static const struct {
		int64_t wait_ms;
		bool slow;
	} cases[] = {{1, false}, {249, false}, {250, false}, {251, true}, {300, true}, {5000, true}};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct hold h = stream(MESSAGE, cases[i].wait_ms, 0, END);
		assert_int_equal(hold_is_slow(&h, END, HOLD_MS), cases[i].slow);
		/* Not before its time. */
		h = stream(MESSAGE, cases[i].wait_ms, 0, HOLD_MS / 2);
		assert_false(hold_is_slow(&h, HOLD_MS / 2, HOLD_MS));
	}
}

/* A slow disk at this end is nobody's fault. */
static void test_only_waiting_counts(void **state)
{
	(void)state;
	struct hold h = stream(1 << 20, 900, 10000, 600 * 1000);
	assert_false(hold_is_slow(&h, 600 * 1000, HOLD_MS));
	h = stream(0, 1, 10000, 600 * 1000);
	assert_false(hold_is_slow(&h, 600 * 1000, HOLD_MS));
}

/* A message that is never complete: the wait counts while it lasts, to the millisecond. */
static void test_stalled(void **state)
{
	(void)state;
	struct hold h = {0};
	assert_int_equal(hold_silent_ms(&h, 1000), 0);
	hold_wait(&h, 5000);
	assert_int_equal(hold_silent_ms(&h, 4000), 0);
	assert_false(hold_is_slow(&h, 5000 + HOLD_MS - 1, HOLD_MS));
	assert_true(hold_is_slow(&h, 5000 + HOLD_MS, HOLD_MS));
	assert_int_equal(hold_silent_ms(&h, 5000 + HOLD_MS), HOLD_MS);
	/* What came before is taken into account, and a wait that is over is not silence. */
	h = stream(1 << 20, 100, 0, 10000);
	hold_wait(&h, 10000);
	assert_false(hold_is_slow(&h, 10000 + 89999, HOLD_MS));
	assert_true(hold_is_slow(&h, 10000 + 90001, HOLD_MS));
	hold_pass(&h, 20000, 0);
	assert_int_equal(hold_silent_ms(&h, 30000), 0);
	assert_int_equal(hold_waited_ms(&h, 30000), 20000);
}

static void test_slower(void **state)
{
	(void)state;
	struct hold quick = stream(1 << 20, 100, 0, 5000), slow = stream(1 << 20, 200, 0, 5000), none = {0};
	hold_wait(&none, 0);
	assert_true(hold_is_slower(&slow, &quick, 5000));
	assert_false(hold_is_slower(&quick, &slow, 5000));
	assert_true(hold_is_slower(&none, &slow, 5000));
	assert_false(hold_is_slower(&slow, &slow, 5000));
}

static void test_extremes(void **state)
{
	(void)state;
	struct hold h = {.bytes = UINT64_MAX / 2, .waited_ms = INT64_MAX / 4};
	(void)hold_is_slow(&h, INT64_MAX / 4, HOLD_MS);
	h = (struct hold){0};
	assert_true(hold_is_slow(&h, 0, 0));
	hold_pass(&h, -5, SIZE_MAX / 4);
	assert_false(hold_is_slow(&h, 0, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rates),    cmocka_unit_test(test_only_waiting_counts),
		cmocka_unit_test(test_stalled),  cmocka_unit_test(test_slower),
		cmocka_unit_test(test_extremes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
