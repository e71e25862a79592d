#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "client/parts.h"

static void assert_told(const struct parts *p, uint64_t job, uint32_t round)
{
	uint64_t told_job;
	uint32_t told_round;
	parts_last(p, &told_job, &told_round);
	assert_int_equal(told_job, job);
	assert_int_equal(told_round, round);
}

static void what_was_passed_over_last_is_told(void **state)
{
	(void)state;
	struct parts p = {0};
	assert_told(&p, 0, 0);
	parts_sent(&p, 4);
	assert_told(&p, 0, 0);
	parts_pass(&p, 4, 2, "diverges");
	assert_told(&p, 4, 2);
	assert_true(parts_passed(&p, 4, 2));
	assert_false(parts_passed(&p, 4, 3));
	assert_false(parts_passed(&p, 5, 2));
	parts_pass(&p, 5, 0, "other classes");
	assert_told(&p, 5, 0);
	assert_true(parts_passed(&p, 5, 1) && parts_passed(&p, 5, 77));
	parts_again(&p, 4);
	assert_told(&p, 4, 2);
	parts_pass(&p, 5, 3, "a job that is passed over stays so");
	assert_told(&p, 5, 0);
	parts_sent(&p, 6);
	assert_told(&p, 5, 0);
	parts_end(&p, 5);
	assert_told(&p, 4, 2);
	parts_end(&p, 5);
	parts_end(&p, 4);
	assert_told(&p, 0, 0);
}

static void a_job_is_missed_without_an_update(void **state)
{
	(void)state;
	struct parts p = {0};
	assert_null(parts_missed(&p, 1));
	parts_pass(&p, 1, 1, "diverges");
	assert_string_equal(parts_missed(&p, 1), "diverges");
	parts_sent(&p, 1);
	assert_null(parts_missed(&p, 1));
	parts_pass(&p, 1, 0, "data gone");
	assert_string_equal(parts_missed(&p, 1), "data gone");
	parts_end(&p, 1);
	assert_null(parts_missed(&p, 1));
}

static void only_so_many_are_remembered(void **state)
{
	(void)state;
	struct parts p = {0};
	for (uint64_t job = 1; job <= 3 * PARTS_MAX; job++) {
		parts_pass(&p, job, 0, "x");
		parts_sent(&p, 1000 + job);
		assert_told(&p, job, 0);
		assert_true(p.n <= PARTS_MAX);
	}
	assert_false(parts_passed(&p, 1, 1));
	assert_true(parts_passed(&p, 3 * PARTS_MAX, 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_passed_over_last_is_told),
		cmocka_unit_test(a_job_is_missed_without_an_update),
		cmocka_unit_test(only_so_many_are_remembered),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
