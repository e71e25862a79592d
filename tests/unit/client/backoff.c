#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "client/backoff.h"

#include <stdbool.h>

static void waits_grow_to_the_ceiling_and_differ(void **state)
{
	(void)state;
	struct rng r;
	rng_seed(&r, 1);
	struct backoff b = {.first_ms = 500, .max_ms = 30000};
	int64_t base = 500;
	bool differs = false;
	for (int i = 0; i < 100; i++) {
		int64_t wait = backoff_next(&b, &r);
		assert_in_range(wait, base / 2, base);
		differs = differs || wait != base;
		base = base * 2 < 30000 ? base * 2 : 30000;
	}
	assert_true(differs);
	backoff_reset(&b);
	assert_in_range(backoff_next(&b, &r), 250, 500);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(waits_grow_to_the_ceiling_and_differ)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
