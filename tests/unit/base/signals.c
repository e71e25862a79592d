#include "base/fixture.h"

#include "base/signals.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

static void first_asks(void)
{
	signals_catch();
	if (signals_stop_asked())
		_exit(1);
	raise(SIGTERM);
	_exit(signals_stop_asked() ? 42 : 2);
}

static void second_ends(void)
{
	signals_catch();
	raise(SIGTERM);
	raise(SIGINT);
	_exit(3);
}

static void pipe_does_not_kill(void)
{
	int ends[2];
	signals_catch();
	if (pipe(ends) != 0 || close(ends[0]) != 0)
		_exit(4);
	_exit(write(ends[1], "x", 1) < 0 && errno == EPIPE ? 43 : 5);
}

static void waiting_gets_each(void)
{
	signals_block();
	kill(getpid(), SIGHUP);
	if (signals_wait() != SIGHUP || signals_stop_asked())
		_exit(6);
	kill(getpid(), SIGTERM);
	if (signals_wait() != SIGTERM || !signals_stop_asked())
		_exit(7);
	kill(getpid(), SIGINT);
	_exit(signals_wait() == SIGINT ? 45 : 8);
}

static void *live_on(void *arg)
{
	while (arg == NULL)
		pause();
	return arg;
}

/* Libraries start threads when they are loaded: those have nothing blocked. */
static void threads_from_before_pass_on(void)
{
	static const int numbers[] = {SIGHUP, SIGHUP, SIGTERM, SIGINT, SIGTERM};
	pthread_t others[3];
	for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
		if (pthread_create(&others[i], NULL, live_on, NULL) != 0)
			_exit(9);
	}
	signals_block();
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
		kill(getpid(), numbers[i]); /* nobody waits for it yet */
		if (signals_wait() != numbers[i])
			_exit(10);
	}
	_exit(46);
}

static void assert_exits(void (*fn)(void), int code)
{
	int status = status_of(fn);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), code);
}

static void test_signals(void **state)
{
	(void)state;
	assert_exits(first_asks, 42);
	assert_exits(second_ends, 128 + SIGINT);
	assert_exits(pipe_does_not_kill, 43);
	assert_exits(waiting_gets_each, 45);
	assert_exits(threads_from_before_pass_on, 46);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_signals)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
