/*
 * A job under way, in memory: its plan, its cohort, the present round and who has reported. All that is not fixed belongs to the engine's
 * lock. The database holds the same; run_load() makes one from the other after a restart.
 */
#ifndef HANSA_COORDINATOR_RUN_H
#define HANSA_COORDINATOR_RUN_H

#include "coordinator/blob.h"
#include "coordinator/db.h"
#include "coordinator/plan.h"
#include "coordinator/registry.h"
#include "coordinator/round.h"
#include "coordinator/spool.h"

/* A plant of the job. */
struct seat {
	char plant[WIRE_NAME_SIZE];
	bool invited;          /* in the present round's cohort */
	bool uploading;        /* an update is on its way in */
	uint32_t upload_round; /* whose base that was made from */
	int64_t progress_ms;   /* monotonic: when bytes of it came last */
	bool working;          /* it is being read back, or finished: no bytes come, and it is not the plant's fault */
	bool accepted;         /* its update counts; what follows is about it */
	struct digest digest;
	uint64_t samples;
	int64_t time_ms;
	uint32_t base_round; /* as in struct update_row */
	int64_t place;       /* likewise */
	bool verified;       /* this process has itself received and checked its bytes */
};

/* What a round began with. */
struct run_base {
	uint32_t round; /* 0: none */
	struct digest base;
};

/* How long a plant's bytes may stay away before a round that is past its deadline stops waiting for them. */
enum { RUN_FLOW_MS = 10000 };

struct run {
	/* fixed */
	uint64_t id;
	char name[WIRE_NAME_SIZE];
	struct plan *plan; /* shared */
	struct digest source;
	uint64_t source_size;
	int64_t created_ms;
	struct seat *seats; /* owned; sorted by plant */
	size_t n_seats;
	struct run_base *past; /* owned; NULL unless updates may come late: [late_max + 1], under the lock */

	/* the engine's lock */
	size_t users; /* the engine's list and the updates on their way in */
	bool ended;   /* no longer in the engine's list */
	struct round round;
	struct digest base, model; /* of the present round; the last committed one (zero: none) */
	uint64_t base_size, model_size;
	struct blob *base_copy; /* shared: a small base, which goes out with the task; NULL: it is fetched */
	uint32_t model_round, committed, failures;
	uint32_t ends;                 /* how often it has ended; it can be resumed */
	uint64_t version;              /* grows with everything that a watcher can see */
	uint64_t bytes_up, bytes_down; /* of the round; down: since the last restart */
	size_t recording;              /* updates whose row is being written: the round cannot be closed meanwhile */
	bool held_up;                  /* the round asks for something, which waits until none is recorded any more */
	bool closing;                  /* the end of the open round has begun: it takes no update any more */
	bool stop_asked;
	enum round_action todo;   /* of the engine's thread, when the round is not open */
	struct digest next_model; /* AGGREGATED: what will be committed */
	uint64_t next_model_size;
	int64_t retry_at_ms; /* monotonic; after a failure */
	unsigned failed_tries;
	char trouble
		[WIRE_REASON_SIZE]; /* "waiting: ...": what holds the round up, until the next success; "": nothing */
};

/* A job that has just been started. `cohort` as in db.h. Takes a share of `plan`. */
struct run *run_new(const struct job_row *j, struct plan *plan, struct bytes cohort);
/* The job as the database has it. Of an open round, updates whose bytes are not in the spool are struck off: nobody could combine
 * them, and their plants send again. ERR_CORRUPT: what is stored does not hold together; other errors are the database's own. */
MUST_CHECK enum err run_load(struct db *db, const struct spool *spool, uint64_t id, struct run **ret_run);
/* A job that has ended, without a round: the next one opens after its last. ERR_CORRUPT as above. */
MUST_CHECK enum err run_take_up(struct db *db, const struct job_row *j, struct run **ret_run);
void run_free(struct run *r); /* NULL is fine */

struct seat *run_seat(const struct run *r, const char *plant); /* NULL: not of the job */
/* The next round's row: base, cohort (of the job's plants those that are still enrolled, or as many of them as are asked in a round, drawn
 * by the job's seed and the round's number), goal, deadline; round_row_deinit(). ERR_STATE: too few plants. */
MUST_CHECK enum err run_next_round(const struct run *r, struct registry *registry, const struct digest *base,
				   uint64_t base_size, int64_t now_ms, struct round_row *ret_round);
/* The row is durable. Takes over `base_copy`, which may be NULL. */
void run_open_round(struct run *r, const struct round_row *row, struct blob *base_copy);
/* SHA-256 over the accepted updates, by plant: "PLANT DIGEST SAMPLES\n", and "PLANT DIGEST SAMPLES ROUND\n" of those that came late, with
 * the round that they were made in. */
struct digest run_seal(const struct run *r);
/* May updates of this job come late? */
bool run_carries(const struct run *r);
/* The base of one of the last rounds that a late update may be made from, and of the present one; NULL: not known. */
const struct digest *run_base(const struct run *r, uint32_t round);
/* Updates that flow into the open round, or are being worked on for it; *wait_ms is lowered to the time in which one of them may have stopped. */
uint32_t run_flowing(const struct run *r, int64_t monotonic_ms, int64_t *wait_ms);
/* As operators see it; `config` and the contributions are left out. */
void run_show(const struct run *r, struct wire_job *ret_job, struct wire_round *ret_round);

#endif
