/*
 * Answers for calls that wait. What is said is settled under the engine's lock; packing and sending come after it, and thousands of calls
 * that wait for the same thing get the same packed bytes.
 */
#ifndef HANSA_COORDINATOR_NOTICE_H
#define HANSA_COORDINATOR_NOTICE_H

#include "coordinator/lobby.h"
#include "coordinator/run.h"

enum { NOTICE_WAIT_MS = 1000 }; /* a plant without a task asks again after a random time up to this */

struct notice;
struct notices {
	struct notice *first; /* owned */
};

/* Each takes the waiter, which is in no lobby any more. The engine's lock is held. */
void notice_wait(struct notices *list, struct waiter *w); /* TASK: nothing yet */
void notice_train(struct notices *list, struct waiter *w, const struct run *r, int64_t now_ms);
void notice_finished(struct notices *list, struct waiter *w,
		     uint64_t job); /* the job has ended; needs the database to be sent */
void notice_moved(struct notices *list, struct waiter *w, const struct run *r); /* WATCH of a running job */
void notice_ended(struct notices *list, struct waiter *w,
		  uint64_t job); /* WATCH of one that is not; needs the database */
void notice_refuse(struct notices *list, struct waiter *w, enum err code, const char *text);

/* Without any lock. Sends and frees all; the list is empty then. `db` may be NULL when nothing in the list needs it. */
void notices_send(struct notices *list, struct db *db);

#endif
