#include "coordinator/lobby.h"

#include <string.h>

/* FNV-1a: names come from our own certificates, nobody can choose many of them. */
static size_t bucket_of(const char *who)
{
	uint32_t h = 2166136261u;
	for (const char *c = who; *c != '\0'; c++)
		h = (h ^ (uint8_t)*c) * 16777619u;
	return h % LOBBY_BUCKETS;
}

void lobby_add(struct lobby *l, struct waiter *w)
{
	struct waiter **bucket = &l->buckets[bucket_of(w->who)];
	w->same = *bucket;
	*bucket = w;
	w->prev = l->last;
	w->next = NULL;
	if (l->last != NULL)
		l->last->next = w;
	else
		l->first = w;
	l->last = w;
	l->n++;
	l->n_unchecked += w->unchecked;
}

void lobby_remove(struct lobby *l, struct waiter *w)
{
	struct waiter **at = &l->buckets[bucket_of(w->who)];
	while (*at != w)
		at = &(*at)->same;
	*at = w->same;
	if (w->prev != NULL)
		w->prev->next = w->next;
	else
		l->first = w->next;
	if (w->next != NULL)
		w->next->prev = w->prev;
	else
		l->last = w->prev;
	w->prev = w->next = w->same = NULL;
	l->n--;
	l->n_unchecked -= w->unchecked;
}

void lobby_checked(struct lobby *l, struct waiter *w)
{
	l->n_unchecked -= w->unchecked;
	w->unchecked = false;
}

struct waiter *lobby_task_of(const struct lobby *l, const char *plant)
{
	struct waiter *w = l->buckets[bucket_of(plant)];
	while (w != NULL && (w->kind != WAITER_TASK || strcmp(w->who, plant) != 0))
		w = w->same;
	return w;
}

struct waiter *lobby_call(const struct lobby *l, const char *who, const void *call)
{
	struct waiter *w = l->buckets[bucket_of(who)];
	while (w != NULL && w->call != call)
		w = w->same;
	return w;
}
