/*
 * Who gets a place for a stream, and who gives one up.
 */
#include "rpc/gate.h"

#include "base/clock.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* A stream that ends when it is cancelled, as a worker's does. */
struct entering {
	struct gate *g;
	struct gate_pass pass;
	atomic_int cancelled;
	enum err result;
	char text[200];
	pthread_t thread;
	atomic_bool done;
};

static void cancel(void *arg, const char *why)
{
	struct entering *e = arg;
	assert_non_null(why);
	atomic_fetch_add(&e->cancelled, 1);
}

static void entering_init(struct entering *e, struct gate *g, const char *name)
{
	*e = (struct entering){.g = g, .pass = {.cancel = cancel, .arg = e}};
	assert_int_equal(identity_make(ROLE_PLANT, "acme", name, &e->pass.id), ERR_OK);
}

static void *enter_main(void *arg)
{
	struct entering *e = arg;
	e->result = gate_enter(e->g, &e->pass);
	snprintf(e->text, sizeof e->text, "%s", e->result == ERR_OK ? "" : err_text());
	atomic_store(&e->done, true);
	return NULL;
}

static void enter_later(struct entering *e)
{
	assert_int_equal(pthread_create(&e->thread, NULL, enter_main, e), 0);
}

static void wait_waiting(struct gate *g, size_t n)
{
	while (gate_waiting(g) != n)
		clock_sleep_ms(1);
}

/* As if it had waited for its peer for so long. */
static void stall(struct entering *e, int64_t ms)
{
	gate_wait(e->g, &e->pass);
	e->pass.hold.since_ms -= ms;
}

static void test_one_stream(void **state)
{
	(void)state;
	struct gate *g = gate_new(8, 0);
	struct entering a, a2, b;
	entering_init(&a, g, "a");
	entering_init(&a2, g, "a");
	entering_init(&b, g, "b");
	assert_int_equal(gate_enter(g, &a.pass), ERR_OK);
	assert_int_equal(gate_enter(g, &a2.pass), ERR_UNAVAILABLE);
	assert_non_null(strstr(err_text(), "another upload or download of yours is running"));
	assert_int_equal(gate_enter(g, &b.pass), ERR_OK);
	gate_wait(g, &a.pass);
	gate_progress(g, &a.pass, 1000);
	assert_int_equal(gate_enter(g, &a2.pass), ERR_UNAVAILABLE);
	/* When its data has passed, the next one may begin although the call has not quite ended. */
	gate_stream_end(g, &a.pass);
	assert_int_equal(gate_enter(g, &a2.pass), ERR_OK);
	gate_leave(g, &a.pass);
	gate_leave(g, &a2.pass);
	gate_leave(g, &b.pass);
	assert_int_equal(atomic_load(&a.cancelled), 0);
	assert_null(gate_why(g, &a.pass));
	gate_free(g);
}

/* The peer is back while its old stream still waits for a dead connection. */
static void test_stalled_stream(void **state)
{
	(void)state;
	struct gate *g = gate_new(8, 0);
	struct entering old, new;
	entering_init(&old, g, "a");
	entering_init(&new, g, "a");
	assert_int_equal(gate_enter(g, &old.pass), ERR_OK);
	stall(&old, 60 * 1000);
	enter_later(&new);
	while (atomic_load(&old.cancelled) == 0)
		sched_yield();
	assert_string_equal(gate_why(g, &old.pass), "a later upload or download of yours took the place of this one");
	gate_leave(g, &old.pass);
	pthread_join(new.thread, NULL);
	assert_int_equal(new.result, ERR_OK);
	assert_int_equal(atomic_load(&old.cancelled), 1);
	gate_leave(g, &new.pass);
	gate_free(g);
}

/* A handler that takes its time has not stalled: it does not wait for its peer. */
static void test_busy_is_not_stalled(void **state)
{
	(void)state;
	struct gate *g = gate_new(8, 0);
	struct entering old, new;
	entering_init(&old, g, "a");
	entering_init(&new, g, "a");
	assert_int_equal(gate_enter(g, &old.pass), ERR_OK);
	stall(&old, 60 * 1000);
	gate_progress(g, &old.pass, 1);
	assert_int_equal(gate_enter(g, &new.pass), ERR_UNAVAILABLE);
	assert_int_equal(atomic_load(&old.cancelled), 0);
	gate_leave(g, &old.pass);
	gate_free(g);
}

/* Waiting for one's own stream is for one. */
static void test_one_waits(void **state)
{
	(void)state;
	struct gate *g = gate_new(8, 0);
	struct entering old, new, more;
	entering_init(&old, g, "a");
	entering_init(&new, g, "a");
	entering_init(&more, g, "a");
	assert_int_equal(gate_enter(g, &old.pass), ERR_OK);
	stall(&old, 60 * 1000);
	/* When the cancellation is seen, the newcomer waits, or has the lock until it does. */
	enter_later(&new);
	while (atomic_load(&old.cancelled) == 0)
		sched_yield();
	assert_int_equal(gate_enter(g, &more.pass), ERR_UNAVAILABLE);
	assert_non_null(strstr(err_text(), "running and one is waiting"));
	gate_leave(g, &old.pass);
	pthread_join(new.thread, NULL);
	assert_int_equal(new.result, ERR_OK);
	gate_leave(g, &new.pass);
	gate_free(g);
}

/* However many come: they wait, and get their places in the order in which they came. */
static void test_places(void **state)
{
	(void)state;
	enum { PLACES = 3, MORE = 5 };
	struct gate *g = gate_new(PLACES, 0);
	struct entering p[PLACES + MORE];
	for (int i = 0; i < PLACES + MORE; i++) {
		char name[20];
		snprintf(name, sizeof name, "p%d", i);
		entering_init(&p[i], g, name);
		if (i < PLACES) {
			assert_int_equal(gate_enter(g, &p[i].pass), ERR_OK);
		} else {
			enter_later(&p[i]);
			wait_waiting(g, (size_t)(i - PLACES + 1));
		}
	}
	for (int i = 0; i < MORE; i++) {
		/* Ending is not leaving: the worker is still held. */
		gate_stream_end(g, &p[i].pass);
		assert_int_equal(gate_waiting(g), (size_t)(MORE - i));
		gate_leave(g, &p[i].pass);
		pthread_join(p[PLACES + i].thread, NULL);
		assert_int_equal(p[PLACES + i].result, ERR_OK);
		for (int k = PLACES + i + 1; k < PLACES + MORE; k++)
			assert_false(atomic_load(&p[k].done));
	}
	for (int i = MORE; i < PLACES + MORE; i++) {
		gate_leave(g, &p[i].pass);
		assert_int_equal(atomic_load(&p[i].cancelled), 0);
	}
	gate_free(g);
}

/* Somebody waits: the slowest of those that have waited long enough goes, and only that one. */
static void test_make_room(void **state)
{
	(void)state;
	struct gate *g = gate_new(4, 0);
	struct entering quick, slow, slowest, young, new;
	entering_init(&quick, g, "quick");
	entering_init(&slow, g, "slow");
	entering_init(&slowest, g, "slowest");
	entering_init(&young, g, "young");
	entering_init(&new, g, "new");
	struct entering *all[] = {&quick, &slow, &slowest, &young};
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(gate_enter(g, &all[i]->pass), ERR_OK);
	stall(&quick, 60 * 1000);
	gate_progress(g, &quick.pass, 100 << 20);
	stall(&slow, 60 * 1000);
	gate_progress(g, &slow.pass, 30 << 20);
	stall(&slowest, 60 * 1000);
	gate_progress(g, &slowest.pass, 29 << 20);
	stall(&young, 1000);
	clock_sleep_ms(300);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(atomic_load(&all[i]->cancelled), 0); /* nobody waits */
	enter_later(&new);
	while (atomic_load(&slowest.cancelled) == 0)
		sched_yield();
	assert_string_equal(gate_why(g, &slowest.pass),
			    "others are waiting and your connection is slow; go on at your offset later");
	/* It is on its way out: nobody else has to go. */
	clock_sleep_ms(500);
	assert_int_equal(atomic_load(&slowest.cancelled), 1);
	assert_int_equal(atomic_load(&slow.cancelled), 0);
	assert_false(atomic_load(&new.done));
	gate_leave(g, &slowest.pass);
	pthread_join(new.thread, NULL);
	assert_int_equal(new.result, ERR_OK);
	gate_leave(g, &new.pass);
	assert_int_equal(atomic_load(&quick.cancelled) + atomic_load(&slow.cancelled) + atomic_load(&young.cancelled),
			 0);
	gate_leave(g, &quick.pass);
	gate_leave(g, &slow.pass);
	gate_leave(g, &young.pass);
	gate_free(g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_stream),
		cmocka_unit_test(test_stalled_stream),
		cmocka_unit_test(test_busy_is_not_stalled),
		cmocka_unit_test(test_one_waits),
		cmocka_unit_test(test_places),
		cmocka_unit_test(test_make_room),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
