#include "coordinator/watchdog.h"

#include "base/log.h"
#include "base/mem.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

struct watchdog {
	int64_t interval_ms;
	enum err (*check)(void *arg);
	void *arg;
	void (*tell)(void);
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool ending;
};

static void look(const struct watchdog *w)
{
	enum err err = w->check(w->arg);
	if (err == ERR_OK)
		w->tell();
	else
		log_error("serve", "not well: %s; without a change systemd starts this coordinator anew", err_text());
}

/* false: it is to end. */
static bool rest(struct watchdog *w)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += w->interval_ms / 1000;
	until.tv_nsec += w->interval_ms % 1000 * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	pthread_mutex_lock(&w->lock);
	while (!w->ending && pthread_cond_timedwait(&w->wake, &w->lock, &until) == 0)
		continue;
	bool ending = w->ending;
	pthread_mutex_unlock(&w->lock);
	return !ending;
}

static void *run(void *arg)
{
	struct watchdog *w = arg;
	do
		look(w);
	while (rest(w));
	return NULL;
}

static void release(struct watchdog *w)
{
	pthread_cond_destroy(&w->wake);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

enum err watchdog_start(int64_t interval_ms, enum err (*check)(void *arg), void *arg, void (*tell)(void),
			struct watchdog **ret_watchdog)
{
	pthread_condattr_t monotonic;
	struct watchdog *w = mem_new(sizeof *w);
	*w = (struct watchdog){
		.interval_ms = interval_ms > 0 ? interval_ms : 1, .check = check, .arg = arg, .tell = tell};
	pthread_mutex_init(&w->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&w->wake, &monotonic);
	pthread_condattr_destroy(&monotonic);
	if (pthread_create(&w->thread, NULL, run, w) != 0) {
		release(w);
		return err_set(ERR_IO, "cannot start the watchdog's thread");
	}
	*ret_watchdog = w;
	return ERR_OK;
}

void watchdog_stop(struct watchdog *w)
{
	if (w == NULL)
		return;
	pthread_mutex_lock(&w->lock);
	w->ending = true;
	pthread_cond_signal(&w->wake);
	pthread_mutex_unlock(&w->lock);
	pthread_join(w->thread, NULL);
	release(w);
}
