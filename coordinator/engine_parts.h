/*
 * Private to engine*.c: the engine's state and what its files call of each other.
 *
 *	engine.c         opening, the thread, closing
 *	engine_round.c   the end of a round: seal, aggregate, commit, abandon
 *	engine_judge.c   may an update come in
 *	engine_upload.c  updates on their way in
 *	engine_job.c     jobs started, stopped and resumed
 *	engine_plant.c   plants revoked, reports and figures
 *	engine_wait.c    calls that wait
 *	engine_health.c  is it well, and what holds a round up
 */
#ifndef HANSA_COORDINATOR_ENGINE_PARTS_H
#define HANSA_COORDINATOR_ENGINE_PARTS_H

#include "coordinator/engine.h"
#include "coordinator/ledger.h"
#include "coordinator/notice.h"
#include "coordinator/retention.h"
#include "coordinator/run.h"

#include <pthread.h>
#include <stdatomic.h>

struct engine {
	struct engine_config config; /* the texts are borrowed */
	struct retention *retention; /* owned */
	struct spool *spool;         /* owned, like the ledger */
	struct ledger *ledger;
	pthread_t thread;
	bool threaded;
	int64_t flushed_ms;      /* the thread's own: when the registry was written last */
	_Atomic int64_t beat_ms; /* the thread's last sign of life, by the monotonic clock ... */
	atomic_bool stepping;    /* ... before a step of a run */

	pthread_mutex_t lock;              /* everything below, and all runs and seats */
	pthread_cond_t wake;               /* the thread: there is something to do */
	struct run *runs[ENGINE_JOBS_MAX]; /* running jobs, by id */
	size_t n_runs;
	const char *starting[ENGINE_JOBS_MAX]; /* borrowed: names of jobs that are being started, which need a place */
	size_t n_starting;
	uint64_t last_ended; /* the highest number of a job that has ended ... */
	uint32_t last_ends;  /* ... and how often */
	bool draining, closing;
	bool woken; /* something has come up since the thread began its pass */
	struct lobby lobby;
};

int64_t engine_wall_ms(const struct engine *e);
int64_t engine_monotonic_ms(const struct engine *e);

#define ENGINE_STOPPING "the coordinator is stopping; try again"

/* ---- under the lock ---- */

void engine_wake(struct engine *e);                            /* the thread, for another pass */
struct run *engine_find(const struct engine *e, uint64_t job); /* a running one; NULL */
void engine_add_run(struct engine *e, struct run *r);
void engine_remove_run(struct engine *e, struct run *r);
void engine_note_end(struct engine *e, uint64_t job, uint32_t ends);
void engine_release_run(struct engine *e, struct run *r); /* the last user frees it */
/* Something that watchers see has changed: collect those that wait for it. */
void engine_tell_watchers(struct engine *e, const struct run *r, struct notices *out);
/* A round has opened: collect its plants, and the watchers. */
void engine_tell_open(struct engine *e, struct run *r, struct notices *out);
/* The job has left the list: collect its plants and watchers. */
void engine_tell_end(struct engine *e, const struct run *r, struct notices *out);
void engine_expire(struct engine *e, int64_t monotonic_ms, struct notices *out); /* those whose time is over */
/* An open round does not wait any longer for plants that are not enrolled. Returns whether something changed. */
bool engine_dismiss(struct engine *e, struct run *r, const char *plant);
/* The same for all plants of a round that has just been opened: one may have been revoked since its cohort was chosen. */
void engine_dismiss_absent(struct engine *e, struct run *r);

/* May an update that is on its way in go on? ERR_STALE when it can count nowhere any more: its round takes none, or, where late ones are
 * carried, the job has ended or gone on too far. */
MUST_CHECK enum err engine_check_open(const struct engine *e, const struct run *r, const struct wire_head *head);
/* It is complete: the round in which it counts when it is recorded now. ERR_STALE as above; ERR_UNAVAILABLE: no round takes updates just now,
 * but the next one will take this; ERR_DENIED, ERR_DUPLICATE: the plant has no free seat in it. */
MUST_CHECK enum err engine_find_round(const struct engine *e, const struct run *r, const struct seat *s,
				      const struct wire_head *head, uint32_t *ret_round);

/* What holds the run's round up, for its watchers; wait_ms: until it is tried again, 0: somebody else will. */
void engine_note_trouble(struct engine *e, struct run *r, const char *text, int64_t wait_ms, struct notices *out);

/* ---- without the lock ---- */

/* An error's text without the directory that everything of ours is in: short texts have room for what comes after the file's name. */
const char *engine_without_dir(const struct engine *e, const char *text);

/* trouble_hide(), or trouble_hide_file(), of what a plant wants stored; what is hidden from it (or a spool that is full) holds the job's round
 * up, and operators are told. */
MUST_CHECK enum err engine_hide(struct engine *e, uint64_t job, enum err err, const char *what,
				enum err (*hide)(enum err err, const char *what, const char *told));

enum { ENGINE_INLINE_MAX = 32 << 20 }; /* of a round's base, times the plants that get it with their task */
/* A copy of the round's base, when it is small enough to go out with the task; NULL otherwise, also when it cannot be read: plants fetch it
 * then. blob_release(). */
struct blob *engine_copy_base(struct engine *e, const struct round_row *round);

/* Judges the head of an update and claims its seat: `uploading` is set and the run has one user more. *ret_seat is NULL when this very
 * update counts already: the receipt says so. What engine_upload_begin() refuses. */
MUST_CHECK enum err engine_judge(struct engine *e, const char *plant, const struct wire_head *head,
				 struct run **ret_run, struct seat **ret_seat, struct wire_receipt *ret_receipt);
/* The stream has ended, however: the seat is free again, and the run has one user less. */
void engine_leave_seat(struct engine *e, struct run *r, struct seat *s);
void engine_write_receipt(const struct wire_head *head, int64_t time_ms, bool repeated,
			  struct wire_receipt *ret_receipt);

/* ---- the engine's thread, without the lock ---- */

void engine_beat(struct engine *e, bool stepping); /* a sign of life; `stepping`: also from those who help it */

/* Ask the database about those that have come since; at most some dozens at a time. Returns whether there are more. */
bool engine_check_lobby(struct engine *e);
/* What the round asks for: ROUND_SEAL, AGGREGATE, COMMIT or ABANDON. */
MUST_CHECK enum err engine_perform(struct engine *e, struct run *r, enum round_action action);

#endif
