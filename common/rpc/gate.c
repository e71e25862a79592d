#include "rpc/gate.h"

#include "base/clock.h"
#include "base/mem.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

enum { STALLED_MS = 5000, HANDOVER_S = 5, WAIT_S = 1, CALLS_MIN = 2 };

struct gate {
	pthread_mutex_t lock;
	pthread_cond_t left;     /* somebody has left */
	struct gate_pass *first; /* at most one a worker; the waiting ones too */
	size_t calls_max;        /* of one peer */
	size_t streams_max;      /* of all; with the waiting ones */
};

size_t gate_streams_max(size_t workers)
{
	size_t kept = workers / 4 > 0 ? workers / 4 : 1;
	return workers > 1 ? workers - kept : 1;
}

struct gate *gate_new(size_t workers)
{
	struct gate *g = mem_new(sizeof *g);
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&g->left, &attr);
	pthread_condattr_destroy(&attr);
	pthread_mutex_init(&g->lock, NULL);
	g->calls_max = workers / 2 > CALLS_MIN ? workers / 2 : CALLS_MIN;
	g->streams_max = gate_streams_max(workers);
	return g;
}

void gate_free(struct gate *g)
{
	if (g == NULL)
		return;
	ENSURE(g->first == NULL);
	pthread_cond_destroy(&g->left);
	pthread_mutex_destroy(&g->lock);
	free(g);
}

static void list(struct gate *g, struct gate_pass *pass)
{
	pass->next = g->first;
	g->first = pass;
}

static void unlist(struct gate *g, struct gate_pass *pass)
{
	struct gate_pass **at = &g->first;
	while (*at != pass)
		at = &(*at)->next;
	*at = pass->next;
	pthread_cond_broadcast(&g->left);
}

static struct gate_pass *stream_of(struct gate *g, const struct identity *id)
{
	for (struct gate_pass *p = g->first; p != NULL; p = p->next) {
		if (p->stream && !p->waiting && identity_equal(&p->id, id))
			return p;
	}
	return NULL;
}

static size_t calls_of(struct gate *g, const struct identity *id, bool waiting)
{
	size_t n = 0;
	for (struct gate_pass *p = g->first; p != NULL; p = p->next)
		n += p->waiting == waiting && identity_equal(&p->id, id);
	return n;
}

/* The workers that others hold for long: streams, and calls that wait. */
static size_t held(struct gate *g, const struct gate_pass *but)
{
	size_t n = 0;
	for (struct gate_pass *p = g->first; p != NULL; p = p->next)
		n += p != but && (p->stream || p->waiting);
	return n;
}

static bool is_free(struct gate *g, const struct gate_pass *pass)
{
	if (pass->stream && (stream_of(g, &pass->id) != NULL || held(g, pass) >= g->streams_max))
		return false;
	return calls_of(g, &pass->id, false) < g->calls_max;
}

/* Waiting holds a worker as well. */
static enum err check_waiting(struct gate *g, const struct gate_pass *pass)
{
	size_t n = held(g, pass);
	if (calls_of(g, &pass->id, true) > 0)
		return err_set(ERR_UNAVAILABLE,
			       "calls of yours are running (%zu) and one is waiting; try again when one has ended",
			       calls_of(g, &pass->id, false));
	if (n >= g->streams_max)
		return err_set(ERR_UNAVAILABLE,
			       "as many uploads and downloads as fit (%zu) are running; try again in a moment", n);
	return ERR_OK;
}

/* Under the lock, which is given up meanwhile. */
static enum err wait_for_place(struct gate *g, struct gate_pass *pass)
{
	struct gate_pass *old = pass->stream ? stream_of(g, &pass->id) : NULL;
	bool stalled = old != NULL && clock_monotonic_ms() - old->progress_ms >= STALLED_MS;
	/* Also when the newcomer may not wait: its next attempt finds the place free. */
	if (stalled)
		old->cancel(old->arg);
	TRY(check_waiting(g, pass));
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += stalled ? HANDOVER_S : WAIT_S;
	int timeout = 0;
	pass->waiting = true;
	list(g, pass);
	while (!is_free(g, pass) && timeout == 0)
		timeout = pthread_cond_timedwait(&g->left, &g->lock, &until);
	unlist(g, pass);
	pass->waiting = false;
	if (!is_free(g, pass))
		return err_set(ERR_UNAVAILABLE, "%s; try again when it has ended",
			       old != NULL ? "another upload or download of yours is running"
					   : "an earlier call of yours is running");
	return ERR_OK;
}

enum err gate_enter(struct gate *g, struct gate_pass *pass)
{
	enum err e = ERR_OK;
	pthread_mutex_lock(&g->lock);
	if (!is_free(g, pass))
		e = wait_for_place(g, pass);
	if (e == ERR_OK) {
		pass->progress_ms = clock_monotonic_ms();
		list(g, pass);
	}
	pthread_mutex_unlock(&g->lock);
	return e;
}

void gate_progress(struct gate *g, struct gate_pass *pass)
{
	int64_t now = clock_monotonic_ms();
	pthread_mutex_lock(&g->lock);
	pass->progress_ms = now;
	pthread_mutex_unlock(&g->lock);
}

void gate_stream_end(struct gate *g, struct gate_pass *pass)
{
	pthread_mutex_lock(&g->lock);
	pass->stream = false;
	pthread_cond_broadcast(&g->left);
	pthread_mutex_unlock(&g->lock);
}

void gate_leave(struct gate *g, struct gate_pass *pass)
{
	pthread_mutex_lock(&g->lock);
	unlist(g, pass);
	pthread_mutex_unlock(&g->lock);
}
