/*
 * A simulator of the protocol: the real engine, database, spool, store and aggregation in one process with model plants, a held clock and a
 * network that loses, repeats, delays and reorders. One seed is one run, replayable to the last event.
 *
 *	main.c      seeds, output
 *	sim.c       the run: events in the order of their time, and after each of them the invariants
 *	queue.c     events that are to come
 *	trace.c     what has happened: a hash of everything, and the last lines
 *	host.c      the coordinator's machine: opening, crashing, its disk, the engine's thread
 *	net.c       calls and streams on their way
 *	plant.c     model plants
 *	lie.c       what no honest plant sends
 *	operator.c  jobs, members, watchers
 *	chaos.c     what goes wrong, and when
 *	book.c      the oracle's own record of jobs, rounds and updates
 *	judge.c     what the engine may answer
 *	doubt.c     what a commit that failed may have left behind
 *	sums.c      the oracle's own arithmetic
 *	look.c      what the database says, and whether it may
 *	check.c     the invariants
 *	keep.c      the spool and the store: what must be there, and what must not
 *	sabotage.c  mistakes made on purpose, which the oracle must notice
 *
 * Time is simulated milliseconds since the start. Nothing in a run depends on real time, addresses or the generator of crypto/random.h.
 */
#ifndef HANSA_TESTS_SIM_H
#define HANSA_TESTS_SIM_H

#include "base/file.h"
#include "base/rng.h"
#include "coordinator/engine.h"
#include "coordinator/sql.h"
#include "update/job.h"
#include "update/update.h"

enum {
	SIM_PLANTS_MAX = 300,
	SIM_JOBS_MAX = 16,
	SIM_ROUNDS_MAX = 160, /* of a job, abandoned ones included */
	SIM_SOURCES = 2,
	SIM_HOLD_MS = 55000,
};

#define SIM_NOBODY UINT32_MAX

struct sim;

/* ---- events (queue.c) ---- */

enum event_kind {
	EVENT_TIMER,    /* a plant wakes; ref: its timer */
	EVENT_CALL,     /* a call that waits reaches the coordinator; data: struct call */
	EVENT_HANGUP,   /* the coordinator sees that the caller has gone; data: struct call */
	EVENT_ANSWER,   /* it reaches the caller; data: struct answer */
	EVENT_STREAM,   /* the next message of an upload reaches the coordinator; data: struct stream */
	EVENT_RECEIPT,  /* the end of an upload reaches the plant; data: struct answer */
	EVENT_REPORT,   /* reaches the coordinator; data: struct report */
	EVENT_OPERATOR, /* an operator does something; ref: enum deed */
	EVENT_PUMP,     /* the engine's thread makes a pass */
	EVENT_OPEN,     /* the coordinator starts */
	EVENT_CHAOS,    /* something goes wrong; ref: index of the disturbance */
	EVENT_AMBUSH, /* something goes wrong right after a round has gone on; who: its job; ref: index of the ambush */
	EVENT_HEAL,   /* from now on nothing does */
	EVENT_COUNT
};

struct event {
	int64_t at;
	uint64_t serial; /* of events at the same time the first made comes first */
	enum event_kind kind;
	uint32_t who, ref;
	void *data; /* owned by the event */
};

struct queue {
	struct event *heap; /* owned */
	size_t n, room;
	uint64_t serial;
};
void queue_put(struct queue *q, struct event e);
bool queue_take(struct queue *q, struct event *ret_event);
void queue_deinit(struct queue *q);

/* ---- what has happened (trace.c) ---- */

void trace_begin(struct sim *s, bool verbose); /* of the lines of the engine's log, too */
void sim_say(struct sim *s, const char *fmt, ...) PRINTF_LIKE(2, 3);
uint64_t trace_hash(void);
void trace_print(void); /* the last lines */

/* Counters of what has occurred, over all runs, by name: a simulation in which something never happens proves nothing about it. */
void cover(const char *name);
void cover_expect(const char *name); /* counts nothing: it is missed when nothing else does */
void cover_print(void);
bool cover_missing(void); /* prints what has never happened */

/* ---- the coordinator's machine (host.c) ---- */

enum disk_state { DISK_GOOD, DISK_FLAKY, DISK_ARMED, DISK_DEAD };
struct disk {
	enum disk_state state;
	struct rng rng;
	uint32_t left;                      /* ARMED: operations until it is dead */
	bool tripped;                       /* ARMED and then dead */
	uint64_t failures, commit_failures; /* operations that have failed; of these, the database's */
};
struct host {
	char dir[PATH_SIZE];
	struct db *db;
	struct store *store;
	struct registry *registry;
	struct engine *engine;
	struct sql *eye; /* the oracle's own connection: sees what is committed */
	bool up, dying;
	uint32_t life;        /* counts its starts */
	bool dirty;           /* the disk has failed since the last start: files may have stayed */
	int64_t failed_ms;    /* when it last failed */
	int64_t pump_at;      /* of the event that counts */
	uint32_t pump_serial; /* likewise */
	int64_t wait_ms;      /* how long the engine's thread sleeps */
	uint32_t busy;        /* its passes since it slept last */
	const char *refuses;  /* the table that the database does not change; NULL: none */
	int64_t data_version; /* of the database when it was looked at last */
	uint64_t failures_in_step, commit_failures_in_step; /* those of the disk when the step began */
	bool opening;       /* it has just been opened: what is new in the database is older than that */
	uint32_t quiet;     /* the simulator itself is at the disk, which does not fail then */
	uint64_t small_max; /* of the spool */
	bool small_changes; /* with every start */
};
void host_make(struct sim *s); /* folder, database, sources, members */
void host_start(struct sim *s);
void host_crash(struct sim *s, const char *how);
void host_stop(struct sim *s); /* politely */
void host_drop(struct sim *s);
void host_refuse(struct sim *s, const char *table);
void host_quiet(struct sim *s, bool quiet); /* the disk does not fail while the simulator itself works on it */
const char *host_spool(const struct sim *s, char out[PATH_SIZE]);
void host_pump(struct sim *s, const struct event *e);
void host_touch(struct sim *s);        /* something may have woken the engine's thread */
bool host_failed(const struct sim *s); /* the disk or the database, in this step */
bool host_disk_failed(const struct sim *s);
bool host_commit_failed(const struct sim *s); /* in this step, in the database: it may have happened after all */
bool host_retries(const struct sim *s);       /* the engine may be waiting to try something again */

/* ---- calls and streams (net.c) ---- */

struct weather {
	double loss, repeat, cut, stall; /* probabilities of a message */
	int64_t delay_ms;                /* mean */
};

/* A call that waits. It is kept until the coordinator's life ends, so that a second answer is seen. */
struct call {
	uint32_t who; /* SIM_NOBODY: an operator that watches */
	uint32_t request, life;
	uint64_t seen, job;
	uint32_t ends; /* of `seen`, as far as the caller knows */
	bool counts;   /* and says so: older plants do not */
	int64_t since_ms;
	bool asked, forgotten; /* by the engine */
	unsigned answers;
	size_t place;      /* in sim.open while it waits */
	struct call *next; /* of the same life */
};
struct answer {
	uint32_t who, request;
	enum err code;
	bool watches;
	struct wire_task task; /* without its texts */
	struct wire_job_ref watched;
	enum wire_job_state state;
	uint64_t version;
	struct wire_receipt receipt;
};
struct stream {
	uint32_t who, request, life;
	struct wire_head head;
	uint8_t *content; /* owned */
	size_t n, at;
	const char *lie;       /* NULL: honest */
	bool asks;             /* first where to begin */
	uint32_t resumes;      /* of its job, when it began: what is under way when a job ends has ended, too */
	bool begun, abandoned; /* abandoned: its sender has gone, and the coordinator has yet to see it */
	struct upload *upload; /* owned by the engine; NULL: none open */
	uint8_t *got;          /* owned: what the coordinator has of it, with what was there before */
	size_t n_got;
	int64_t progress_ms; /* when the coordinator has had a message of it last */
};
struct report {
	uint32_t who;
	struct wire_report report;
	bool is_lie;
};

int64_t net_delay(struct sim *s);
bool net_chance(struct sim *s, double probability);
void net_ask(struct sim *s, uint32_t who, uint32_t request, uint64_t seen, uint32_t ends, uint64_t job);
void net_hang_up(struct sim *s, uint32_t who, uint32_t request);
void net_upload(struct sim *s, struct stream *t); /* takes it */
void net_abandon(struct sim *s, uint32_t who);    /* the sender of these streams has gone */
void net_report(struct sim *s, uint32_t who, const struct wire_report *report, bool is_lie);
void net_call_arrives(struct sim *s, const struct event *e);
void net_hang_up_arrives(struct sim *s, const struct event *e);
void net_stream_arrives(struct sim *s, const struct event *e);
void net_report_arrives(struct sim *s, const struct event *e);
void net_break(struct sim *s, bool told); /* the coordinator has gone: its streams and calls are cut */
void net_drop(struct sim *s);
bool net_uploading(const struct sim *s, uint32_t who, uint64_t job);
/* The same of an update that was made in this round, also while the job was another time running. */
bool net_receiving(const struct sim *s, uint32_t who, uint64_t job, uint32_t made);
bool net_is_current(const struct sim *s, const struct stream *t); /* it has begun since its job runs */

/* ---- plants (plant.c) ---- */

enum plant_state { PLANT_GONE, PLANT_IDLE, PLANT_ASKING, PLANT_TRAINING, PLANT_SENDING };
struct plant {
	char name[16];
	bool enrolled;          /* as far as the coordinator's operator is concerned */
	uint32_t enrolments;    /* each has a key of its own */
	enum plant_state state; /* GONE: not running */
	uint32_t timer, request;
	uint64_t finished_job;
	uint32_t finished_ends; /* of that job */
	bool is_old;            /* of a release that does not count ends */
	bool has_retrained;     /* since that end */
	uint32_t variant;       /* of its data: changes when it comes back without its state */
	struct wire_task task;  /* under way */
	int64_t until_ms, began_ms;
	uint32_t tries;
	double slowness;
};
void plant_start(struct sim *s, uint32_t who);
void plant_vanish(struct sim *s, uint32_t who);
void plant_timer(struct sim *s, const struct event *e);
void plant_answer(struct sim *s, const struct answer *a);
void plant_receipt(struct sim *s, const struct answer *a);
/* What the plant learns from this base: a function of the arguments alone. free(). */
uint8_t *plant_learn(struct sim *s, uint32_t who, uint64_t job, uint32_t round, uint32_t variant, size_t *ret_n);
uint64_t plant_samples(struct sim *s, uint32_t who, uint64_t job, uint32_t round);
struct stream *plant_stream(struct sim *s, uint32_t who, uint64_t job, uint32_t round, uint32_t variant);

void lie_send(struct sim *s); /* some lie of some plant (lie.c) */

/* ---- the oracle's record (book.c) ---- */

struct book_model {
	struct digest digest;
	float *theta; /* owned */
};
struct book_update {
	bool counted;
	uint32_t base_round; /* the one that it was made in */
	struct digest digest;
	uint64_t samples;
	int64_t time_ms;
	uint8_t *content; /* owned: the oracle's own copy */
	size_t n;
};
struct book_round {
	enum round_phase phase;
	struct digest base, seal, model;
	int64_t opened_ms, deadline_ms;
	int64_t grace_ms;
	uint32_t quorum, goal, cohort, counted;
	bool *invited, *excused;     /* owned, by plant. Excused: revoked since it opened */
	struct book_update *updates; /* owned, by plant: those that count in this round */
};
struct book_job {
	uint64_t id;
	struct job_config config; /* owned */
	struct manifest *manifest;
	struct digest source;
	bool *cohort; /* owned, by plant */
	int64_t resumed_ms;
	uint32_t resumes, ends; /* it can be resumed, and end again */
	enum wire_job_state state;
	uint32_t round, committed, failures; /* round: the present one, from 1 */
	bool stop_asked;
	struct book_round rounds[SIM_ROUNDS_MAX + 1]; /* by number */
};
struct book {
	struct book_job *jobs[SIM_JOBS_MAX + 1]; /* owned, by number; [0] unused */
	size_t n_jobs;
	struct book_model *models; /* owned */
	size_t n_models;
	struct model *source; /* the shape of them all */
	struct digest sources[SIM_SOURCES];
};
struct book_job *book_job(struct sim *s, uint64_t id);                       /* NULL */
struct book_round *book_round(struct sim *s, uint64_t job, uint32_t number); /* NULL */
bool book_carries(const struct book_job *j);
/* The update of the plant that was made in round `made`, in whichever round it counts; NULL. *ret_round may be NULL. */
const struct book_update *book_made(const struct book_job *j, uint32_t made, uint32_t who, uint32_t *ret_round);
uint32_t book_newer(const struct book_job *j, uint32_t number); /* committed rounds after this one */
bool book_keeps_updates(const struct book_job *j, uint32_t number);
void book_start(struct sim *s, uint64_t id, const struct wire_start_job *request); /* a job is in the database */
void book_open_round(struct sim *s, struct book_job *j, uint32_t number);
const float *book_model(const struct sim *s, const struct digest *d); /* NULL */
void book_add_model(struct sim *s, const struct digest *d, const float *theta);
void book_draw(struct sim *s, const struct book_job *j, uint32_t number, bool *ret_invited); /* who is asked */
void book_count(struct sim *s, const struct stream *t);
/* It does not count after all. The update is the caller's; its content: free(). */
struct book_update book_discount(struct sim *s, const struct stream *t);
void book_revoked(struct sim *s, uint32_t who);
void book_drop(struct sim *s);

/* ---- what the engine may answer (judge.c) ---- */

/* Sets of errors that are right. */
typedef uint32_t errors;
#define ONLY(err) ((errors)1 << (err))
errors book_judge(struct sim *s, const struct stream *t, bool *ret_repeats);
errors book_judge_open(struct sim *s, const struct wire_head *head);            /* may it go on? ONLY(ERR_OK): yes */
errors book_judge_piece(const struct sim *s, const struct stream *t, size_t n); /* the last n bytes that it has got */
errors book_judge_end(struct sim *s, const struct stream *t);
errors book_judge_report(struct sim *s, const struct report *r);
/* Where may a stream of this update begin? At 0, when nothing else is said, and at this. *ret_sure: nowhere else. */
uint64_t book_offset(struct sim *s, const struct stream *t, bool *ret_sure);
/* What is there of an update that does not count, and where: all of it as an .update when it may begin at its end, and otherwise what its
 * part has. 0: nothing. */
uint64_t book_there(struct sim *s, const struct stream *t, uint64_t offset, char ret_path[PATH_SIZE]);
bool book_is_small(const struct sim *s, const struct book_job *j);
/* May the plant be given this job's present round to train? `firmly`: it must. */
bool book_has_task(const struct sim *s, const struct book_job *j, uint32_t who, bool firmly);
/* Has the present round the updates that it wants, revoked plants being excused? *ret_doubt: somebody is missing who may be waited for or not. */
bool book_is_full(const struct sim *s, const struct book_job *j, bool *ret_doubt);
/* Have so many been revoked that the quorum cannot come together? */
bool book_is_lost(const struct sim *s, const struct book_job *j, bool *ret_doubt);
/* Updates that flow into the present round. *wait_ms is lowered to the time in which one of them may have stopped. */
uint32_t book_flowing(const struct sim *s, const struct book_job *j, int64_t *wait_ms);
/* The deadline of the present round has passed, and nothing that flows in is waited for any longer. */
bool book_is_over(const struct sim *s, const struct book_job *j);
/* Of the jobs that the plant is in the first whose end it may hear of, now or once it has come: it has seen `ends` ends of job `seen`, and
 * looks at nothing before that. NULL: none. */
const struct book_job *book_job_after(const struct sim *s, uint32_t who, uint64_t seen, uint32_t ends);
/* The plant has seen every end. */
bool book_knows_ends(const struct sim *s, uint32_t who);

/* ---- what a commit that failed may have left behind (doubt.c) ---- */

/* The last transaction that failed: it may be there after the next start, unless another one has been written since. */
enum { SIM_DOUBTS_MAX = 64 };
struct doubt_update {
	uint64_t job;
	uint32_t round, who;
	struct book_update update; /* its content is owned */
};
struct doubt {
	bool is;
	int64_t wall_ms; /* when the last one failed */
	struct doubt_update updates[SIM_DOUBTS_MAX];
	size_t n_updates;
	bool starts;
	struct wire_start_job start; /* its configuration is owned */
	uint64_t resumes;            /* 0: none */
};
void doubt_step(struct sim *s); /* the step is over */
void doubt_update(struct sim *s, uint64_t job, uint32_t round, uint32_t who, struct book_update update);
void doubt_start(struct sim *s, const struct wire_start_job *request);
void doubt_clear(struct sim *s);
/* The coordinator has just started: what it may have found after all. */
bool doubt_take_update(struct sim *s, uint64_t job, uint32_t round);
const struct wire_start_job *doubt_take_start(struct sim *s);
bool doubt_resumes(const struct sim *s, uint64_t job);
int64_t doubt_wall(const struct sim *s); /* when what is new in the database happened */

/* ---- the oracle's arithmetic (sums.c) ---- */

/* The new model of sealed round `number` from `base`; `contents` by plant, NULL: those of the record. */
void sums_model(struct sim *s, const struct book_job *j, uint32_t number, const float *base, uint8_t *const *contents,
		float *ret_theta);
struct digest sums_seal(struct sim *s, const struct book_job *j, uint32_t number);
long double sums_norm(const struct manifest *m, const uint8_t *content);

/* ---- the oracle's eye (look.c) ---- */

void look_at_database(struct sim *s); /* when it has changed */
void look_at_rows(struct sim *s, const struct book_job *j, uint32_t number);
bool look_at_model(struct sim *s, const struct digest *d, struct model **ret_model);

/* ---- what is kept (keep.c) ---- */

void check_spool(struct sim *s); /* every file has a reason */
/* The plant has begun an update of this job: nothing that does not count stays of an earlier one. */
void check_left(struct sim *s, uint32_t who, uint64_t job);
void check_open(struct sim *s);        /* what counts in rounds that are not over is as it was accepted */
void check_kept(struct sim *s);        /* what is needed is there, and gives the same models again */
void check_store(struct sim *s);       /* models that must be there are */
void check_store_clean(struct sim *s); /* and after a start no others */
bool keep_needs_model(struct sim *s, const struct digest *d);

/* ---- mistakes made on purpose (sabotage.c) ---- */

const char *sabotage_name(size_t i);  /* of the i-th kind; NULL: no more */
void sabotage_strikes(struct sim *s); /* after a step: when there is an occasion */

/* ---- invariants (check.c) ---- */

enum moment {
	MOMENT_STEP,  /* after every event at the coordinator */
	MOMENT_IDLE,  /* the engine's thread goes to sleep */
	MOMENT_START, /* the coordinator has started */
	MOMENT_END,   /* everything has ended, and it has started once more */
	MOMENT_COUNT
};
void check(struct sim *s, enum moment moment);
void check_answer(struct sim *s, const struct call *c, const struct answer *a);
/* An error of the engine that is not among those that are right. */
void check_error(struct sim *s, const char *invariant, const char *what, enum err got, errors right);
/* The same of what an operator hears: disks and databases are not hidden from them. */
void check_operator_error(struct sim *s, const char *what, enum err got, errors right);
/* The first violation of a run is the one that counts. */
void sim_violated(struct sim *s, const char *invariant, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* ---- operators and disturbances ---- */

enum deed { DEED_START, DEED_STOP, DEED_RESUME, DEED_WATCH, DEED_COUNT };
void operator_stop(struct sim *s, uint64_t job);
void operator_acts(struct sim *s, const struct event *e);
void operator_answer(struct sim *s, const struct answer *a);
void operator_enrol(struct sim *s, uint32_t who);
void operator_revoke(struct sim *s, uint32_t who);
void chaos_plan(struct sim *s); /* what this run has in store */
void chaos_strikes(struct sim *s, const struct event *e);
void chaos_ambush(struct sim *s, uint64_t job); /* one of its rounds has gone on */
void chaos_ambushes(struct sim *s, const struct event *e);
void chaos_end(struct sim *s);

/* ---- the run ---- */

struct sim {
	uint64_t seed;
	struct rng rng;
	int64_t now, skew; /* skew: of the wall clock */
	uint64_t steps;
	struct queue queue;
	struct host host;
	struct disk disk;
	struct weather weather;
	struct plant *plants; /* owned */
	uint32_t n_plants;
	struct call *calls; /* owned: of this life and before */
	struct call **open; /* those that wait at the engine */
	size_t n_open;
	struct stream **streams; /* owned by their events */
	size_t n_streams;
	struct book book;
	double intensity[32]; /* of disturbances */
	double ambush;        /* probability that something strikes just when a round goes on */
	bool healed;
	int64_t healed_ms, ended_ms;           /* ended: when the last job did, after that */
	int64_t skewed_ms;                     /* when the wall clock went back */
	const struct wire_start_job *starting; /* what engine_job_start() is being asked */
	uint64_t resuming;                     /* what engine_job_resume() is being asked */
	struct doubt doubt;
	const char *sabotage; /* NULL: none */
	bool sabotaged;
	uint32_t watch_request;
	uint64_t watched;
	const char *violated; /* invariant; NULL: none */
	char why[512];
};

struct sim_options {
	uint64_t seed;
	uint32_t plants; /* 0: by the seed */
	bool verbose;
	const char *dir;
	const char *sabotage; /* NULL: none */
};
struct sim_result {
	const char *violated; /* NULL: none */
	char why[512];
	uint64_t hash, steps;
	bool sabotaged;
};
void sim_run(const struct sim_options *options, struct sim_result *ret_result);

void sim_later(struct sim *s, int64_t in_ms, enum event_kind kind, uint32_t who, uint32_t ref, void *data);
int64_t sim_wall(const struct sim *s);
int64_t sim_monotonic(const struct sim *s);
bool sim_over(struct sim *s); /* all jobs have ended, and all plants know */

#endif
