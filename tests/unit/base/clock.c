#include "base/fixture.h"

#include "base/clock.h"

#include <signal.h>
#include <sys/time.h>
#include <time.h>

static void test_format(void **state)
{
	(void)state;
	static const struct {
		int64_t ms;
		const char *text;
	} cases[] = {
		{0, "1970-01-01T00:00:00.000Z"},
		{-1, "1969-12-31T23:59:59.999Z"},
		{-1000, "1969-12-31T23:59:59.000Z"},
		{951782400123, "2000-02-29T00:00:00.123Z"},
		{1709251199999, "2024-02-29T23:59:59.999Z"},
		{1795463400123, "2026-11-23T19:50:00.123Z"},
		{INT64_MIN, "0000-01-01T00:00:00.000Z"},
		{INT64_MAX, "9999-12-31T23:59:59.999Z"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		char out[CLOCK_TEXT_SIZE];
		assert_ptr_equal(clock_format(cases[i].ms, out), out);
		assert_string_equal(out, cases[i].text);
	}
}

static void test_wall_is_unix_time(void **state)
{
	(void)state;
	int64_t before = (int64_t)time(NULL) - 1, now = clock_wall_ms() / 1000, after = (int64_t)time(NULL) + 1;
	assert_true(before <= now && now <= after);
}

static void test_monotonic_and_sleep(void **state)
{
	(void)state;
	int64_t start = clock_monotonic_ms();
	clock_sleep_ms(-5);
	clock_sleep_ms(0);
	clock_sleep_ms(20);
	int64_t last = clock_monotonic_ms();
	assert_true(last - start >= 19);
	for (int i = 0; i < 1000; i++) {
		int64_t now = clock_monotonic_ms();
		assert_true(now >= last);
		last = now;
	}
}

static void on_alarm(int number)
{
	(void)number;
}

static void test_signal_ends_sleep(void **state)
{
	(void)state;
	struct sigaction action = {.sa_handler = on_alarm}, before;
	assert_int_equal(sigaction(SIGALRM, &action, &before), 0);
	/* Again and again, in case the first comes before the sleep begins. */
	struct itimerval timer = {.it_interval = {.tv_usec = 5000}, .it_value = {.tv_usec = 5000}};
	assert_int_equal(setitimer(ITIMER_REAL, &timer, NULL), 0);
	clock_sleep_ms(3600 * 1000); /* the test's own time limit is two minutes */
	assert_int_equal(setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL), 0);
	assert_int_equal(sigaction(SIGALRM, &before, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_format),
		cmocka_unit_test(test_wall_is_unix_time),
		cmocka_unit_test(test_monotonic_and_sleep),
		cmocka_unit_test(test_signal_ends_sleep),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
