#include "coordinator/fixture.h"

#include "coordinator/crew.h"

#include <pthread.h>
#include <stdatomic.h>

enum { ITEMS = 500, THREADS = 8 };

static atomic_int done[ITEMS], inside[THREADS];

static enum err mark(void *arg, unsigned worker, size_t item)
{
	(void)arg;
	/* No assertion: it would not end this thread's test. */
	bool alone = atomic_fetch_add(&inside[worker], 1) == 0;
	atomic_fetch_add(&done[item], 1);
	atomic_fetch_sub(&inside[worker], 1);
	return alone ? ERR_OK : err_set(ERR_INTERNAL, "two items at a time");
}

static void every_item_is_done_once(void **state)
{
	(void)state;
	for (unsigned threads = 1; threads <= THREADS; threads++) {
		for (size_t i = 0; i < ITEMS; i++)
			atomic_store(&done[i], 0);
		assert_ok(crew_run(threads, ITEMS, mark, NULL));
		for (size_t i = 0; i < ITEMS; i++)
			assert_int_equal(atomic_load(&done[i]), 1);
	}
	assert_ok(crew_run(THREADS, 0, mark, NULL));
	assert_ok(crew_run(CREW_MAX, 1, mark, NULL));
}

static enum err fail_some(void *arg, unsigned worker, size_t item)
{
	const size_t *step = arg;
	(void)worker;
	atomic_fetch_add(&done[item], 1);
	return item > 0 && item % *step == 0 ? err_set(item % 2 ? ERR_IO : ERR_CORRUPT, "item %zu", item) : ERR_OK;
}

static void the_lowest_failure_is_told(void **state)
{
	(void)state;
	for (size_t step = 1; step < 40; step++) {
		char text[32];
		snprintf(text, sizeof text, "item %zu", step);
		for (unsigned threads = 1; threads <= THREADS; threads++) {
			for (size_t i = 0; i < ITEMS; i++)
				atomic_store(&done[i], 0);
			assert_int_equal(crew_run(threads, ITEMS, fail_some, &step), step % 2 ? ERR_IO : ERR_CORRUPT);
			assert_string_equal(err_text(), text);
			/* All before it are done; alone, none after it. */
			for (size_t i = 0; i <= step; i++)
				assert_int_equal(atomic_load(&done[i]), 1);
			assert_true(threads > 1 || atomic_load(&done[step + 1]) == 0);
		}
	}
}

static enum err compare_thread(void *arg, unsigned worker, size_t item)
{
	(void)item;
	return worker == 0 && pthread_equal(*(pthread_t *)arg, pthread_self()) ? ERR_OK
									       : err_set(ERR_INTERNAL, "other");
}

static void one_thread_is_the_callers(void **state)
{
	(void)state;
	pthread_t self = pthread_self();
	assert_ok(crew_run(1, ITEMS, compare_thread, &self));
	assert_true(crew_cpus() >= 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_item_is_done_once),
		cmocka_unit_test(the_lowest_failure_is_told),
		cmocka_unit_test(one_thread_is_the_callers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
