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
};

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

static bool is_free(struct gate *g, const struct gate_pass *pass)
{
	return (!pass->stream || stream_of(g, &pass->id) == NULL) && calls_of(g, &pass->id, false) < g->calls_max;
}

/* Under the lock, which is given up meanwhile. */
static enum err wait_for_place(struct gate *g, struct gate_pass *pass)
{
	struct gate_pass *old = pass->stream ? stream_of(g, &pass->id) : NULL;
	bool stalled = old != NULL && clock_monotonic_ms() - old->progress_ms >= STALLED_MS;
	if (calls_of(g, &pass->id, true) > 0)
		return err_set(ERR_UNAVAILABLE, "%zu calls of yours are running; try again when one has ended",
			       g->calls_max);
	if (stalled)
		old->cancel(old->arg);
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
