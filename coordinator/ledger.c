/*
 * Groups, one after another. The lock guards the queue only; the leader writes without it, and its turn (`led`) keeps every other group
 * waiting. A turn ends by handing over to the first in the queue, who is in the group that it leads: nobody who comes later is served
 * before, nobody leads more than one group, and a group is at most GROUP_MAX updates long.
 *
 * Everyone sleeps on a semaphore of their own: who is woken does not first wait for the lock that those before hold.
 *
 * A leader cannot leave without handing over: whatever fails becomes the verdict of those whom it concerns, and of them only.
 *
 *	the append to a batch       the small ones of that batch; nobody's row speaks of what has been written
 *	a row, refused              that update
 *	the transaction             all whose rows were to be written; it may have happened (spool.c says why that does no harm)
 */
#include "coordinator/ledger.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>

enum { GROUP_MAX = 256, TEXT_SIZE = 512 };

/* An update in the queue, on the stack of the thread that brings it. */
struct waiter {
	struct waiter *next;
	struct update_row *row;    /* borrowed */
	struct spool_entry *small; /* borrowed */
	sem_t wake;                /* posted once, when it is done or is to lead; the rest is read after that */
	bool done;
	enum err err;
	char text[TEXT_SIZE]; /* of the error */
};

struct ledger {
	struct db *db;
	struct spool *spool;
	pthread_mutex_t lock; /* all below; never held across disk work */
	struct waiter *first, **end;
	bool led; /* a group is being written, or its leader has been named */
	uint64_t groups;
};

struct group {
	struct waiter *v[GROUP_MAX];
	size_t n;
};

struct ledger *ledger_new(struct db *db, struct spool *spool)
{
	struct ledger *l = mem_new(sizeof *l);
	l->db = db;
	l->spool = spool;
	l->end = &l->first;
	pthread_mutex_init(&l->lock, NULL);
	return l;
}

void ledger_free(struct ledger *l)
{
	if (l == NULL)
		return;
	ENSURE(l->first == NULL && !l->led);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

/* ---- writing a group; its members belong to the leader ---- */

static void set_verdict(struct waiter *w, enum err err)
{
	w->err = err;
	snprintf(w->text, sizeof w->text, "%s", err_text());
}

static bool same_batch(const struct waiter *a, const struct waiter *b)
{
	return b->small != NULL && a->row->job == b->row->job && a->row->round == b->row->round;
}

/* All small ones that go into the batch of member `first`. */
static void append_batch(struct ledger *l, struct group *g, size_t first, bool seen[GROUP_MAX])
{
	struct spool_entry *entries[GROUP_MAX] = {NULL};
	struct waiter *members[GROUP_MAX] = {NULL};
	int64_t places[GROUP_MAX];
	size_t n = 0;
	for (size_t i = first; i < g->n; i++) {
		if (!same_batch(g->v[first], g->v[i]))
			continue;
		seen[i] = true;
		members[n] = g->v[i];
		entries[n++] = g->v[i]->small;
	}
	enum err err = spool_append(l->spool, members[0]->row->job, members[0]->row->round, entries, n, places);
	for (size_t i = 0; i < n; i++) {
		if (err == ERR_OK)
			members[i]->row->place = places[i];
		else
			set_verdict(members[i], err);
	}
}

static void append_small(struct ledger *l, struct group *g)
{
	bool seen[GROUP_MAX] = {false};
	for (size_t i = 0; i < g->n; i++) {
		if (g->v[i]->small != NULL && !seen[i])
			append_batch(l, g, i, seen);
	}
}

static void write_rows(struct ledger *l, struct group *g)
{
	const struct update_row *rows[GROUP_MAX] = {NULL};
	struct waiter *members[GROUP_MAX] = {NULL};
	enum err refusals[GROUP_MAX] = {ERR_OK};
	size_t n = 0;
	for (size_t i = 0; i < g->n; i++) {
		if (g->v[i]->err != ERR_OK)
			continue;
		members[n] = g->v[i];
		rows[n++] = g->v[i]->row;
	}
	if (n == 0)
		return;
	enum err err = db_update_add_all(l->db, rows, n, refusals);
	for (size_t i = 0; i < n; i++) {
		if (err != ERR_OK)
			set_verdict(members[i], err);
		else if (refusals[i] != ERR_OK)
			set_verdict(members[i], db_update_refused(refusals[i], rows[i]));
	}
}

/* ---- taking turns; under the lock ---- */

static void take_group(struct ledger *l, struct group *g)
{
	for (; l->first != NULL && g->n < GROUP_MAX; l->first = l->first->next)
		g->v[g->n++] = l->first;
	if (l->first == NULL)
		l->end = &l->first;
}

static void lead(struct ledger *l, struct waiter *leader)
{
	struct group g = {.n = 0};
	pthread_mutex_lock(&l->lock);
	take_group(l, &g);
	pthread_mutex_unlock(&l->lock);
	append_small(l, &g);
	write_rows(l, &g);
	pthread_mutex_lock(&l->lock);
	l->groups++;
	struct waiter *next = l->first;
	l->led = next != NULL;
	pthread_mutex_unlock(&l->lock);
	/* A waiter is gone as soon as it is woken. */
	if (next != NULL)
		sem_post(&next->wake);
	for (size_t i = 0; i < g.n; i++) {
		g.v[i]->done = true;
		if (g.v[i] != leader)
			sem_post(&g.v[i]->wake);
	}
}

static void sleep_until_woken(struct waiter *w)
{
	while (sem_wait(&w->wake) != 0)
		ENSURE(errno == EINTR);
}

enum err ledger_commit(struct ledger *l, struct update_row *row, struct spool_entry *small)
{
	struct waiter w = {.row = row, .small = small};
	ENSURE(sem_init(&w.wake, 0, 0) == 0);
	pthread_mutex_lock(&l->lock);
	*l->end = &w;
	l->end = &w.next;
	bool leads = !l->led;
	l->led = true;
	pthread_mutex_unlock(&l->lock);
	if (!leads)
		sleep_until_woken(&w);
	if (!w.done)
		lead(l, &w);
	ENSURE(w.done);
	sem_destroy(&w.wake);
	return w.err == ERR_OK ? ERR_OK : err_set(w.err, "%s", w.text);
}

uint64_t ledger_groups(struct ledger *l)
{
	pthread_mutex_lock(&l->lock);
	uint64_t groups = l->groups;
	pthread_mutex_unlock(&l->lock);
	return groups;
}

size_t ledger_waiting(struct ledger *l)
{
	size_t n = 0;
	pthread_mutex_lock(&l->lock);
	for (const struct waiter *w = l->first; w != NULL; w = w->next)
		n++;
	pthread_mutex_unlock(&l->lock);
	return n;
}
