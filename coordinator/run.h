/*
 * A job under way, in memory: its plan, its cohort, the present round and who has reported. All that is not fixed belongs to the engine's
 * lock. The database holds the same; run_load() makes one from the other after a restart.
 */
#ifndef HANSA_COORDINATOR_RUN_H
#define HANSA_COORDINATOR_RUN_H

#include "coordinator/db.h"
#include "coordinator/plan.h"
#include "coordinator/registry.h"
#include "coordinator/round.h"
#include "coordinator/spool.h"

/* A plant of the job. */
struct seat {
	char plant[WIRE_NAME_SIZE];
	bool invited;        /* in the present round's cohort */
	bool uploading;      /* an update is on its way in */
	int64_t progress_ms; /* monotonic: when the last bytes of an update came */
	bool accepted;       /* its update counts; what follows is about it */
	struct digest digest;
	uint64_t samples;
	int64_t time_ms;
	uint32_t base_round; /* as in struct update_row */
	int64_t place;       /* likewise */
	bool verified;       /* this process has itself received and checked its bytes */
};

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

	/* the engine's lock */
	size_t users; /* the engine's list and the updates on their way in */
	bool ended;   /* no longer in the engine's list */
	struct round round;
	struct digest base, model; /* of the present round; the last committed one (zero: none) */
	uint64_t base_size, model_size;
	uint32_t model_round, committed, failures;
	uint64_t version;              /* grows with everything that a watcher can see */
	uint64_t bytes_up, bytes_down; /* of the round; down: since the last restart */
	size_t recording;              /* updates whose row is being written: the round cannot be closed meanwhile */
	bool closing;                  /* the end of the open round has begun: it takes no update any more */
	bool stop_asked;
	enum round_action todo;   /* of the engine's thread, when the round is not open */
	struct digest next_model; /* AGGREGATED: what will be committed */
	uint64_t next_model_size;
	int64_t retry_at_ms; /* monotonic; after a failure */
	unsigned failed_tries;
};

/* A job that has just been started. `cohort` as in db.h. Takes a share of `plan`. */
struct run *run_new(const struct job_row *j, struct plan *plan, struct bytes cohort);
/* The job as the database has it. Of an open round, updates whose bytes are not in the spool are struck off: nobody could combine
 * them, and their plants send again. ERR_CORRUPT: what is stored does not hold together; other errors are the database's own. */
MUST_CHECK enum err run_load(struct db *db, const struct spool *spool, uint64_t id, struct run **ret_run);
void run_free(struct run *r); /* NULL is fine */

struct seat *run_seat(const struct run *r, const char *plant); /* NULL: not of the job */
/* The next round's row: base, cohort (the job's plants that are still enrolled), deadline; round_row_deinit(). ERR_STATE: too few plants. */
MUST_CHECK enum err run_next_round(const struct run *r, struct registry *registry, const struct digest *base,
				   uint64_t base_size, int64_t now_ms, struct round_row *ret_round);
void run_open_round(struct run *r, const struct round_row *row); /* the row is durable */
/* SHA-256 over "PLANT DIGEST SAMPLES\n" of the accepted updates, by plant. */
struct digest run_seal(const struct run *r);
/* As operators see it; `config` and the contributions are left out. */
void run_show(const struct run *r, struct wire_job *ret_job, struct wire_round *ret_round);

#endif
