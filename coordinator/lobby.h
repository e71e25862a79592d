/*
 * Calls that wait for something to happen: a plant for its next task, an operator for a job to move. They cost a small struct each.
 * Belongs to the engine's lock.
 */
#ifndef HANSA_COORDINATOR_LOBBY_H
#define HANSA_COORDINATOR_LOBBY_H

#include "base/err.h"
#include "base/mem.h"
#include "rpc/reply.h"
#include "rpc/wire.h"

enum { LOBBY_BUCKETS = 4096 };

/* Answers a call that waited, once; thread: any. `reply` is borrowed, and others get the same; NULL with an error. */
typedef void (*answer_fn)(void *call, enum err code, struct rpc_reply *reply);

enum waiter_kind { WAITER_TASK, WAITER_WATCH };

struct waiter {
	enum waiter_kind kind;
	char who[IDENTITY_PART_SIZE];
	uint64_t seen;    /* TASK: the last job whose end is known; WATCH: the version */
	uint32_t ends;    /* TASK: how many ends of that */
	uint64_t job;     /* WATCH; TASK: what it does not train in, 0: none */
	uint32_t round;   /* TASK: only this round of `job`; 0: any */
	bool unchecked;   /* the database has not been asked yet whether there is something for it */
	int64_t until_ms; /* monotonic: answered "nothing yet" then */
	answer_fn answer;
	void *call; /* its address identifies it */
	struct waiter *prev, *next;
	struct waiter *same; /* next in the bucket */
};

struct lobby {
	struct waiter *first, *last; /* in the order of arrival, which is that of `until_ms` */
	size_t n, n_unchecked;
	struct waiter *buckets[LOBBY_BUCKETS]; /* by who */
};

void lobby_add(struct lobby *l, struct waiter *w);
void lobby_remove(struct lobby *l, struct waiter *w); /* it belongs to the caller then */
void lobby_checked(struct lobby *l, struct waiter *w);
struct waiter *lobby_task_of(const struct lobby *l, const char *plant);              /* NULL: it does not wait */
struct waiter *lobby_call(const struct lobby *l, const char *who, const void *call); /* NULL */

#endif
