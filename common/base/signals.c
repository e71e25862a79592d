#include "base/signals.h"

#include "base/err.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

static _Atomic int stop_asked;

static void on_signal(int number)
{
	int saved = errno;
	if (atomic_exchange(&stop_asked, 1))
		_exit(128 + number);
	errno = saved;
}

static void handle(int number, void (*handler)(int))
{
	/* Without SA_RESTART: sleeping and waiting calls return, and the caller's loop asks signals_stop_asked(). */
	struct sigaction action = {.sa_handler = handler};
	sigemptyset(&action.sa_mask);
	ENSURE(sigaction(number, &action, NULL) == 0);
}

void signals_catch(void)
{
	handle(SIGINT, on_signal);
	handle(SIGTERM, on_signal);
	handle(SIGPIPE, SIG_IGN);
}

bool signals_stop_asked(void)
{
	return atomic_load(&stop_asked) != 0;
}

static sigset_t waited_for(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	return set;
}

/*
 * On a thread that was there before signals_block(): libraries start some when they are loaded. It shall not have the signal, now or later:
 * the mask that it goes on with has them, and the process gets the signal once more.
 */
static void pass_on(int number, siginfo_t *info, void *context)
{
	int saved = errno;
	ucontext_t *c = context;
	(void)info;
	sigaddset(&c->uc_sigmask, SIGINT);
	sigaddset(&c->uc_sigmask, SIGTERM);
	sigaddset(&c->uc_sigmask, SIGHUP);
	kill(getpid(), number);
	errno = saved;
}

void signals_block(void)
{
	sigset_t set = waited_for();
	struct sigaction action = {.sa_sigaction = pass_on, .sa_flags = SA_SIGINFO | SA_RESTART, .sa_mask = set};
	ENSURE(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
	for (int number = 1; number < NSIG; number++) {
		if (sigismember(&set, number) == 1)
			ENSURE(sigaction(number, &action, NULL) == 0);
	}
	handle(SIGPIPE, SIG_IGN);
}

int signals_wait(void)
{
	sigset_t set = waited_for();
	int number = 0;
	while (sigwait(&set, &number) != 0)
		continue;
	if (number != SIGHUP)
		atomic_store(&stop_asked, 1);
	return number;
}
