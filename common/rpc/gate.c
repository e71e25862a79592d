#include "rpc/gate.h"

#include "base/clock.h"
#include "base/mem.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

enum { STALLED_MS = 5000, HANDOVER_MS = 5000, OWN_MS = 1000, LOOK_MS = 200 };

static const char later_text[] = "a later upload or download of yours took the place of this one",
		  room_text[] = "others are waiting and your connection is slow; go on at your offset later";

struct gate {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct gate_pass *first; /* in the order in which they came */
	size_t places;
	int64_t room_ms;
};

struct gate *gate_new(size_t places, int64_t room_ms)
{
	struct gate *g = mem_new(sizeof *g);
	pthread_condattr_t attr;
	ENSURE(places > 0);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&g->changed, &attr);
	pthread_condattr_destroy(&attr);
	pthread_mutex_init(&g->lock, NULL);
	g->places = places;
	g->room_ms = room_ms > 0 ? room_ms : HOLD_MS;
	return g;
}

void gate_free(struct gate *g)
{
	if (g == NULL)
		return;
	ENSURE(g->first == NULL);
	pthread_cond_destroy(&g->changed);
	pthread_mutex_destroy(&g->lock);
	free(g);
}

static void unlist(struct gate *g, struct gate_pass *pass)
{
	struct gate_pass **at = &g->first;
	while (*at != pass)
		at = &(*at)->next;
	*at = pass->next;
	pass->state = GATE_OUTSIDE;
}

/* At the end of the list. */
static void list(struct gate *g, struct gate_pass *pass, enum gate_state state)
{
	struct gate_pass **at = &g->first;
	while (*at != NULL)
		at = &(*at)->next;
	*at = pass;
	pass->next = NULL;
	pass->state = state;
}

static void cancel(struct gate_pass *pass, const char *why)
{
	if (pass->why != NULL)
		return;
	pass->why = why;
	pass->cancel(pass->arg, why);
}

static struct gate_pass *find(struct gate *g, const struct identity *id, enum gate_state state)
{
	for (struct gate_pass *p = g->first; p != NULL; p = p->next) {
		if (p->state == state && identity_equal(&p->id, id))
			return p;
	}
	return NULL;
}

/* A stream of the same peer, running or waiting for a place. */
static struct gate_pass *own(struct gate *g, const struct identity *id)
{
	struct gate_pass *p = find(g, id, GATE_STREAM);
	return p != NULL ? p : find(g, id, GATE_PLACE);
}

static size_t count(struct gate *g, enum gate_state from, enum gate_state to)
{
	size_t n = 0;
	for (struct gate_pass *p = g->first; p != NULL; p = p->next)
		n += p->state >= from && p->state <= to;
	return n;
}

/* Under the lock, which is given up meanwhile. */
static void wait_ms(struct gate *g, int64_t ms)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += ms / 1000;
	until.tv_nsec += ms % 1000 * 1000000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_cond_timedwait(&g->changed, &g->lock, &until);
}

/* The stream before of the same peer. Waiting is for one. */
static enum err wait_for_own(struct gate *g, struct gate_pass *pass)
{
	struct gate_pass *old = own(g, &pass->id);
	if (old == NULL)
		return ERR_OK;
	if (find(g, &pass->id, GATE_OWN) != NULL)
		return err_set(ERR_UNAVAILABLE,
			       "an upload or download of yours is running and one is waiting; try again later");
	int64_t now = clock_monotonic_ms();
	bool stalled = old->why != NULL || hold_silent_ms(&old->hold, now) >= STALLED_MS;
	if (stalled)
		cancel(old, later_text);
	int64_t until = now + (stalled ? HANDOVER_MS : OWN_MS);
	list(g, pass, GATE_OWN);
	for (; own(g, &pass->id) != NULL && now < until; now = clock_monotonic_ms())
		wait_ms(g, until - now);
	unlist(g, pass);
	if (own(g, &pass->id) != NULL)
		return err_set(ERR_UNAVAILABLE,
			       "another upload or download of yours is running; try again when it has ended");
	return ERR_OK;
}

/* Ends the slowest of the slow streams, one at a time: the place of one that is on its way out counts as found. */
static void make_room(struct gate *g)
{
	struct gate_pass *slowest = NULL;
	int64_t now = clock_monotonic_ms();
	if (count(g, GATE_STREAM, GATE_ENDING) < g->places)
		return;
	for (struct gate_pass *p = g->first; p != NULL; p = p->next) {
		if (p->state < GATE_STREAM)
			continue;
		if (p->why != NULL)
			return;
		if (hold_is_slow(&p->hold, now, g->room_ms) &&
		    (slowest == NULL || hold_is_slower(&p->hold, &slowest->hold, now)))
			slowest = p;
	}
	if (slowest != NULL)
		cancel(slowest, room_text);
}

static bool is_next(struct gate *g, const struct gate_pass *pass)
{
	const struct gate_pass *p = g->first;
	while (p->state != GATE_PLACE)
		p = p->next;
	return p == pass && count(g, GATE_STREAM, GATE_ENDING) < g->places;
}

/* Can somebody who waits go on? Nobody is woken for nothing: streams come and go by the thousand a second. */
static bool is_awaited(struct gate *g)
{
	for (const struct gate_pass *p = g->first; p != NULL; p = p->next) {
		if (p->state == GATE_OWN && own(g, &p->id) == NULL)
			return true;
		if (p->state == GATE_PLACE && is_next(g, p))
			return true;
	}
	return false;
}

/* After a change; the lock is given up first, or who is woken would wait for it. */
static void unlock_and_tell(struct gate *g)
{
	bool awaited = is_awaited(g);
	pthread_mutex_unlock(&g->lock);
	if (awaited)
		pthread_cond_broadcast(&g->changed);
}

enum err gate_enter(struct gate *g, struct gate_pass *pass)
{
	pthread_mutex_lock(&g->lock);
	enum err e = wait_for_own(g, pass);
	if (e == ERR_OK) {
		list(g, pass, GATE_PLACE);
		while (!is_next(g, pass)) {
			make_room(g);
			wait_ms(g, LOOK_MS);
		}
		pass->state = GATE_STREAM;
	}
	unlock_and_tell(g);
	return e;
}

void gate_wait(struct gate *g, struct gate_pass *pass)
{
	int64_t now = clock_monotonic_ms();
	pthread_mutex_lock(&g->lock);
	hold_wait(&pass->hold, now);
	pthread_mutex_unlock(&g->lock);
}

void gate_progress(struct gate *g, struct gate_pass *pass, size_t bytes)
{
	int64_t now = clock_monotonic_ms();
	pthread_mutex_lock(&g->lock);
	hold_pass(&pass->hold, now, bytes);
	pthread_mutex_unlock(&g->lock);
}

const char *gate_why(struct gate *g, const struct gate_pass *pass)
{
	pthread_mutex_lock(&g->lock);
	const char *why = pass->why;
	pthread_mutex_unlock(&g->lock);
	return why;
}

void gate_stream_end(struct gate *g, struct gate_pass *pass)
{
	pthread_mutex_lock(&g->lock);
	pass->state = GATE_ENDING;
	unlock_and_tell(g);
}

void gate_leave(struct gate *g, struct gate_pass *pass)
{
	pthread_mutex_lock(&g->lock);
	unlist(g, pass);
	unlock_and_tell(g);
}

size_t gate_waiting(struct gate *g)
{
	pthread_mutex_lock(&g->lock);
	size_t n = count(g, GATE_PLACE, GATE_PLACE);
	pthread_mutex_unlock(&g->lock);
	return n;
}
