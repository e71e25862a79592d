/*
 * How much of a server one peer may hold.
 */
#include "rpc/gate.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static atomic_int cancelled;

static void cancel(void *arg)
{
	(void)arg;
	atomic_fetch_add(&cancelled, 1);
}

static struct gate_pass pass_of(const char *name, bool stream)
{
	struct gate_pass p = {.stream = stream, .cancel = cancel};
	assert_int_equal(identity_make(ROLE_PLANT, "acme", name, &p.id), ERR_OK);
	return p;
}

static void test_one_stream(void **state)
{
	(void)state;
	struct gate *g = gate_new(8);
	struct gate_pass a = pass_of("a", true), a2 = pass_of("a", true), b = pass_of("b", true),
			 call = pass_of("a", false);
	assert_int_equal(gate_enter(g, &a), ERR_OK);
	assert_int_equal(gate_enter(g, &a2), ERR_UNAVAILABLE);
	assert_int_equal(gate_enter(g, &b), ERR_OK);
	assert_int_equal(gate_enter(g, &call), ERR_OK);
	gate_progress(g, &a);
	assert_int_equal(gate_enter(g, &a2), ERR_UNAVAILABLE);
	/* When its data has passed, the next one may begin although the call has not quite ended. */
	gate_stream_end(g, &a);
	assert_int_equal(gate_enter(g, &a2), ERR_OK);
	gate_leave(g, &a);
	gate_leave(g, &a2);
	gate_leave(g, &b);
	gate_leave(g, &call);
	assert_int_equal(atomic_load(&cancelled), 0);
	gate_free(g);
}

struct entering {
	struct gate *g;
	struct gate_pass pass;
	enum err result;
	pthread_t thread;
};

static void *enter_main(void *arg)
{
	struct entering *e = arg;
	e->result = gate_enter(e->g, &e->pass);
	return NULL;
}

/* The peer is back while its old stream still waits for a dead connection. */
static void test_stalled_stream(void **state)
{
	(void)state;
	struct entering e = {.g = gate_new(8), .pass = pass_of("a", true)};
	struct gate_pass old = pass_of("a", true);
	atomic_store(&cancelled, 0);
	assert_int_equal(gate_enter(e.g, &old), ERR_OK);
	old.progress_ms -= 60 * 1000;
	assert_int_equal(pthread_create(&e.thread, NULL, enter_main, &e), 0);
	while (atomic_load(&cancelled) == 0)
		sched_yield();
	gate_leave(e.g, &old);
	pthread_join(e.thread, NULL);
	assert_int_equal(e.result, ERR_OK);
	assert_int_equal(atomic_load(&cancelled), 1);
	gate_leave(e.g, &e.pass);
	gate_free(e.g);
}

static void test_half_of_the_workers(void **state)
{
	(void)state;
	struct entering e = {.g = gate_new(8), .pass = pass_of("a", false)};
	struct gate_pass p[4], b = pass_of("b", false), more = pass_of("a", false);
	for (size_t i = 0; i < 4; i++) {
		p[i] = pass_of("a", false);
		assert_int_equal(gate_enter(e.g, &p[i]), ERR_OK);
	}
	/* One may wait; whether it waits already when the next one comes, or the next one waits and gets the place. */
	assert_int_equal(pthread_create(&e.thread, NULL, enter_main, &e), 0);
	assert_int_equal(gate_enter(e.g, &b), ERR_OK);
	gate_leave(e.g, &p[0]);
	pthread_join(e.thread, NULL);
	assert_int_equal(e.result, ERR_OK);
	gate_leave(e.g, &e.pass);
	assert_int_equal(gate_enter(e.g, &more), ERR_OK);
	for (size_t i = 1; i < 4; i++)
		gate_leave(e.g, &p[i]);
	gate_leave(e.g, &more);
	gate_leave(e.g, &b);
	gate_free(e.g);
}

/* However many peers: some workers are left to calls of one message. */
static void test_streams_in_all(void **state)
{
	(void)state;
	static const size_t most[][2] = {{1, 1}, {2, 1}, {3, 2}, {4, 3}, {7, 6}, {8, 6}, {16, 12}, {256, 192}};
	for (size_t i = 0; i < sizeof most / sizeof most[0]; i++)
		assert_int_equal(gate_streams_max(most[i][0]), most[i][1]);
	for (size_t workers = 1; workers <= 16; workers++) {
		struct gate *g = gate_new(workers);
		struct gate_pass p[16], more = pass_of("more", true), call = pass_of("more", false);
		size_t n = gate_streams_max(workers);
		for (size_t i = 0; i < n; i++) {
			char name[32];
			snprintf(name, sizeof name, "p%zu", i);
			p[i] = pass_of(name, true);
			assert_int_equal(gate_enter(g, &p[i]), ERR_OK);
		}
		assert_int_equal(gate_enter(g, &more), ERR_UNAVAILABLE);
		char says[64];
		snprintf(says, sizeof says, "as fit (%zu) are running", n);
		assert_non_null(strstr(err_text(), says));
		assert_int_equal(gate_enter(g, &call), ERR_OK);
		gate_leave(g, &call);
		gate_stream_end(g, &p[0]);
		assert_int_equal(gate_enter(g, &more), ERR_OK);
		gate_leave(g, &more);
		for (size_t i = 0; i < n; i++)
			gate_leave(g, &p[i]);
		gate_free(g);
	}
}

/* A newcomer that may not even wait still cancels its own stalled stream, and gets the place next time. */
static void test_stalled_stream_without_room(void **state)
{
	(void)state;
	struct gate *g = gate_new(2);
	struct gate_pass old = pass_of("a", true), new = pass_of("a", true);
	atomic_store(&cancelled, 0);
	assert_int_equal(gate_enter(g, &old), ERR_OK);
	assert_int_equal(gate_enter(g, &new), ERR_UNAVAILABLE);
	assert_int_equal(atomic_load(&cancelled), 0);
	old.progress_ms -= 60 * 1000;
	assert_int_equal(gate_enter(g, &new), ERR_UNAVAILABLE);
	assert_int_equal(atomic_load(&cancelled), 1);
	gate_leave(g, &old);
	assert_int_equal(gate_enter(g, &new), ERR_OK);
	gate_leave(g, &new);
	gate_free(g);
}

/* The text tells how many there are, and waiting is for one. */
static void test_one_waits(void **state)
{
	(void)state;
	struct entering e[2] = {{.g = gate_new(8), .pass = pass_of("a", true)}, {.pass = pass_of("a", true)}};
	struct gate_pass old = pass_of("a", true);
	e[1].g = e[0].g;
	atomic_store(&cancelled, 0);
	assert_int_equal(gate_enter(e[0].g, &old), ERR_OK);
	old.progress_ms -= 60 * 1000;
	/* When the cancellation is seen, the newcomer waits, or has the lock until it does. */
	assert_int_equal(pthread_create(&e[0].thread, NULL, enter_main, &e[0]), 0);
	while (atomic_load(&cancelled) == 0)
		sched_yield();
	assert_int_equal(gate_enter(e[1].g, &e[1].pass), ERR_UNAVAILABLE);
	assert_non_null(strstr(err_text(), "running (1) and one is waiting"));
	gate_leave(e[0].g, &old);
	pthread_join(e[0].thread, NULL);
	assert_int_equal(e[0].result, ERR_OK);
	gate_leave(e[0].g, &e[0].pass);
	gate_free(e[0].g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_stream),
		cmocka_unit_test(test_stalled_stream),
		cmocka_unit_test(test_half_of_the_workers),
		cmocka_unit_test(test_streams_in_all),
		cmocka_unit_test(test_stalled_stream_without_room),
		cmocka_unit_test(test_one_waits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
