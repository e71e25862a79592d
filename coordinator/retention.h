/*
 * Which updates and models may go, and when they do.
 *
 * Updates. Of a round that is not over: kept while its job runs. Of a committed round: kept while fewer than keep_updates committed rounds of
 * its job are newer (0: they go when the round is committed). Of an abandoned round: go at once.
 *
 * Models. Kept are, whatever else holds: sources; the last model of each job, running or over; base and result of rounds that are not
 * over; results of committed rounds that fewer than keep_models committed ones of the job follow; base and result of each round whose
 * updates are kept, so that it can be calculated again; and those that no round has begun with or made: somebody has published them. A
 * model that several jobs know goes when none of them needs it.
 *
 * One round leaves when one is closed: that is looked at then, a handful of queries. retention_sweep() looks at everything, at start:
 * whatever a crash has left behind goes then. Nothing that fails here matters to a round: it is logged, and the next start tries again.
 *
 * thread: any; removing takes turns with retention_hold().
 */
#ifndef HANSA_COORDINATOR_RETENTION_H
#define HANSA_COORDINATOR_RETENTION_H

#include "coordinator/db.h"
#include "coordinator/store.h"

/* How much a job wants to keep, in committed rounds; UINT32_MAX: all. */
struct retention_keep {
	uint32_t updates, models;
};

struct retention_config {
	struct db *db; /* borrowed, as the store */
	struct store *store;
	void *arg; /* of the functions */
	/* What job `job` wants. */
	enum err (*keep)(void *arg, uint64_t job, struct retention_keep *ret_keep);
	/* Remove this update, or with plant NULL the batch of small ones that count in `round`. Absent is fine. */
	void (*remove_update)(void *arg, uint64_t job, uint32_t round, const char *plant);
};

struct retention;
struct retention *retention_new(const struct retention_config *config);
void retention_free(struct retention *r); /* NULL is fine */

/* The round is committed or abandoned, and the database knows: what goes with that is removed. */
void retention_closed(struct retention *r, uint64_t job, uint32_t round);

/* For the sweep of the spool at start: is the file of this update still needed? `round`: whose base it was made from. */
bool retention_needs_update(struct retention *r, uint64_t job, uint32_t round, const char *plant);
/* The same of the batch of small ones that count in `round`. */
bool retention_needs_batch(struct retention *r, uint64_t job, uint32_t round);

/* At start: every model that is not needed goes. */
void retention_sweep(struct retention *r);

/* Of a model that is not in the store: ERR_NOT_FOUND, with a text for those who asked for it, when it was old and has been removed; ERR_OK
 * when nothing explains its absence. */
MUST_CHECK enum err retention_explain(struct db *db, const struct digest *model);

/* Nothing is removed between these two: for who finds a model in the store and then writes down that it is needed. */
void retention_hold(struct retention *r);
void retention_release(struct retention *r);

#endif
