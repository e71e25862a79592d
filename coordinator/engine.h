/*
 * The engine: jobs and their rounds. It owns everything that changes while the coordinator runs, under one mutex; nothing slow (disk,
 * database, aggregation, sending) happens under that mutex. One thread of its own does what the clock and full rounds ask for: seal,
 * aggregate, commit, open the next. Updates are received and written by the threads that bring them.
 *
 * thread: any, except where it says otherwise. Peers are given by their name: the caller has checked who they are.
 */
#ifndef HANSA_COORDINATOR_ENGINE_H
#define HANSA_COORDINATOR_ENGINE_H

#include "coordinator/db.h"
#include "coordinator/lobby.h"
#include "coordinator/registry.h"
#include "coordinator/spool.h"
#include "coordinator/store.h"

enum {
	ENGINE_JOBS_MAX = 64, /* running at a time */
};

struct engine_config {
	const char *dir; /* DIR: the spool is in it */
	const char *federation;
	struct db *db; /* these four are borrowed */
	struct store *store;
	struct registry *registry;
	uint64_t upload_bytes_max; /* of one update */
	struct spool_config spool; /* its limits */
	int64_t hold_ms;           /* how long a call waits before it is answered "nothing yet" */
	/* Clocks; NULL: the machine's. Deadlines go by the wall clock, waiting by the monotonic one. */
	int64_t (*wall_ms)(void);
	int64_t (*monotonic_ms)(void);
};

struct engine;

/* Takes up the jobs that are running, sweeps the spool. A job that does not hold together is marked failed, and the others go on. */
MUST_CHECK enum err engine_open(const struct engine_config *config, struct engine **ret_engine);
MUST_CHECK enum err engine_start(struct engine *e); /* its thread */
/* Answers all that wait with ERR_UNAVAILABLE, from now on at once; no further step is begun after the present one. Updates that are on their
 * way in can still be finished. */
void engine_drain(struct engine *e);
/* Is it well: has its thread been seen lately, and does the database answer? ERR_DEADLINE, or the database's error. Waits for whatever
 * the engine waits for. */
MUST_CHECK enum err engine_check(struct engine *e);
void engine_close(struct engine *e); /* drains, ends the thread; after the last call of anything else. NULL is fine */
/* Without a thread, for tests: do what there is to do now. Returns the milliseconds until the next thing, 0 when there is more now. */
int64_t engine_pump(struct engine *e);

/* ---- plants ---- */

/* Calls that wait: `answer` is called once for `call`, perhaps before these return; the reply is a packed wire_task or wire_watch_reply. */
void engine_task(struct engine *e, const char *plant, const struct wire_task_request *request, answer_fn answer,
		 void *call);
/* The peer has hung up: true when `call` was waiting; it will not be answered then. */
bool engine_forget(struct engine *e, const char *who, const void *call);

/*
 * An update on its way in, in three steps: begin checks the head against the round, add takes the pieces of one message, commit makes it
 * count. What is not committed is suspended (its stream was cut: a large one goes on at head.offset another time) or aborted. ERR_STALE: not
 * the round that is open, its deadline has passed, or another base; ERR_DENIED: not in its cohort; ERR_SHAPE: other manifest or size;
 * ERR_LIMIT, ERR_NUMERIC: samples, norm, values; ERR_DUPLICATE: another update of this plant counts already; ERR_UNAVAILABLE: an earlier
 * stream of it has not ended, there is less of it than its offset says, or it cannot be stored now. When this very update counts already,
 * *ret_upload is NULL and the receipt says so.
 */
struct upload; /* thread: one at a time */
MUST_CHECK enum err engine_upload_begin(struct engine *e, const char *plant, const struct wire_head *head,
					struct upload **ret_upload, struct wire_receipt *ret_receipt);
MUST_CHECK enum err engine_upload_add(struct upload *u, const struct bytes *pieces, size_t n);
/* Frees `u`, also on failure. ERR_OK: durable, and counted exactly once. */
MUST_CHECK enum err engine_upload_commit(struct upload *u, struct wire_receipt *ret_receipt);
void engine_upload_suspend(struct upload *u); /* NULL is fine */
void engine_upload_abort(struct upload *u);   /* NULL is fine */
/* Where a stream of the update may begin; 0 unless the round takes it and a part of it is there. */
void engine_upload_offset(struct engine *e, const char *plant, const struct wire_upload_offset_request *request,
			  struct wire_upload_offset_reply *ret_reply);

MUST_CHECK enum err engine_report(struct engine *e, const char *plant, const struct wire_report *report);
void engine_sent(struct engine *e, const char *plant, const struct digest *model,
		 uint64_t bytes); /* for the figures of the round */

/* ---- operators ---- */

/* ERR_NOT_FOUND: source not published; ERR_CONFIG, ERR_SHAPE, ERR_NUMERIC, ERR_LIMIT: cannot work; ERR_STATE: the name is running. */
MUST_CHECK enum err engine_job_start(struct engine *e, const struct wire_start_job *request, uint64_t *ret_job);
/* The job will end when its present step is done (a round that is sealed is committed first), which engine_watch() tells; a restart
 * before that forgets it. ERR_NOT_FOUND; ERR_STATE: it had ended before; ERR_UNAVAILABLE: the coordinator is stopping. */
MUST_CHECK enum err engine_job_stop(struct engine *e, uint64_t job);
/* A stopped or failed job goes on: its next round opens from its last committed model. ERR_NOT_FOUND: no such job, or its models are gone;
 * ERR_STATE: it runs, or is done, its name is running, or too few of its plants are still enrolled; ERR_LIMIT; ERR_CORRUPT: what is stored of
 * it does not hold together. */
MUST_CHECK enum err engine_job_resume(struct engine *e, uint64_t job);
void engine_watch(struct engine *e, const char *who, const struct wire_watch_request *request, answer_fn answer,
		  void *call);
/* What the round of a running job waits for, when it cannot go on by itself (a full disk, say); "": nothing. */
void engine_trouble(struct engine *e, uint64_t job, char out[WIRE_REASON_SIZE]);
/* A plant has been revoked: it is told so, and open rounds no longer wait for it. The registry has been reloaded. */
void engine_revoked(struct engine *e, const char *plant);

#endif
