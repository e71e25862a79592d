/*
 * What the coordinator must not forget, in DIR/hansa.db: members, invitations, jobs, rounds, accepted updates, reports.
 * One function per operation; each is one transaction and durable when it returns ERR_OK. thread: any.
 *
 * ERR_IO (disk), ERR_CORRUPT (a value that cannot be ours), ERR_STATE (another program holds the file) come out of
 * every function.
 */
#ifndef HANSA_COORDINATOR_DB_H
#define HANSA_COORDINATOR_DB_H

#include "base/buf.h"
#include "coordinator/round.h"
#include "crypto/digest.h"
#include "crypto/identity.h"
#include "rpc/wire.h"

enum {
	DB_MEMBERS_MAX = WIRE_LIST_MAX, /* members and open invitations, of all roles */
	DB_JOBS_MAX = WIRE_LIST_MAX,    /* ever started */
	DB_REASON_SIZE = 256,
};

struct db;

/* Makes the file and its tables, or takes over what an earlier release left. ERR_CONFIG: a later release wrote it. */
MUST_CHECK enum err db_open(const char *path, struct db **ret_db);
void db_close(struct db *db); /* NULL is fine */

/* ---- members: whoever has, or had, a certificate ---- */

enum member_state { MEMBER_ENROLLED, MEMBER_REVOKED, MEMBER_STATE_COUNT };
struct member {
	enum role role;
	char name[IDENTITY_PART_SIZE];
	enum member_state state;
	struct digest key;                        /* of the public key that is pinned */
	int64_t expires_ms;                       /* of the certificate */
	int64_t enrolled_ms, revoked_ms, seen_ms; /* 0: never */
	char software[WIRE_NAME_SIZE];
};
const char *member_state_name(enum member_state state); /* "enrolled", "revoked" */

MUST_CHECK enum err db_member_put(struct db *db,
				  const struct member *m); /* enrols; replaces what was known of the name */
MUST_CHECK enum err db_member_get(struct db *db, enum role role, const char *name,
				  struct member *ret_member); /* ERR_NOT_FOUND */
/* Sorted by role and name. *ret_members: free(). */
MUST_CHECK enum err db_member_list(struct db *db, struct member **ret_members, size_t *ret_n);
/* Takes back the membership and every invitation of the name. ERR_NOT_FOUND when there is neither. */
MUST_CHECK enum err db_member_revoke(struct db *db, enum role role, const char *name, int64_t now_ms);
MUST_CHECK enum err db_member_seen(struct db *db, const struct member *members,
				   size_t n); /* seen_ms and software of each */

/* ---- invitations ---- */

struct invite {
	struct digest secret; /* SHA-256 of it */
	enum role role;
	char name[IDENTITY_PART_SIZE];
	int64_t created_ms, expires_ms, used_ms; /* used 0: not yet */
	struct digest key;                       /* of whoever used it */
	struct buf certificate;                  /* owned; PEM that was given for it; empty: not used */
};
void invite_deinit(struct invite *i);

/* Replaces unused invitations of the same name, forgets those that expired more than 30 days ago. ERR_LIMIT:
 * DB_MEMBERS_MAX, or FIXED_PLANTS_MAX plants. */
MUST_CHECK enum err db_invite_put(struct db *db, const struct invite *i);
MUST_CHECK enum err db_invite_get(struct db *db, const struct digest *secret,
				  struct invite *ret_invite); /* ERR_NOT_FOUND */
/* Those not used. *ret_invites: free(); `certificate` is empty. */
MUST_CHECK enum err db_invite_list(struct db *db, struct invite **ret_invites, size_t *ret_n);
/* The invitation is used up and its name enrolled, both or neither. ERR_STATE when it had been used. */
MUST_CHECK enum err db_invite_use(struct db *db, const struct digest *secret, const struct member *m,
				  struct bytes certificate);

/* ---- jobs ---- */

struct job_row {
	uint64_t id;
	char name[WIRE_NAME_SIZE];
	enum wire_job_state state;
	struct buf config, manifest; /* owned; canonical JSON; empty in lists */
	struct digest config_hash;
	struct digest source, model; /* model: the last committed one; zero: none */
	uint64_t source_size, model_size;
	uint32_t model_round;         /* the round that made it; 0: none */
	uint32_t rounds, committed;   /* wanted, done */
	uint32_t round;               /* the last one opened */
	uint32_t failures;            /* abandoned rounds in a row */
	uint32_t ends;                /* how often it has ended */
	int64_t created_ms, ended_ms; /* ended 0: running */
	char reason[DB_REASON_SIZE];  /* why it stopped or failed; "" otherwise */
};
void job_row_deinit(struct job_row *j);

struct round_row {
	uint64_t job;
	struct round state;        /* `accepted` is the number of update rows */
	struct digest base, model; /* model zero: none yet */
	uint64_t base_size, model_size;
	struct buf cohort;  /* owned; plant names, sorted, each followed by a line feed; empty in lists */
	struct digest seal; /* of the list of accepted updates; zero: not sealed */
	int64_t closed_ms;  /* 0: not yet */
	uint64_t bytes_up, bytes_down;
	char reason[DB_REASON_SIZE]; /* why it was abandoned; "" otherwise */
};
void round_row_deinit(struct round_row *r);

struct update_row {
	uint64_t job, size;
	uint32_t round;      /* that it counts in */
	uint32_t base_round; /* whose base it was made from: an earlier one when it came late */
	int64_t place;       /* where it begins in the round's batch (spool.h); -1: in a file of its own */
	char plant[WIRE_NAME_SIZE];
	struct digest digest;
	uint64_t samples;
	double norm;
	int64_t time_ms;
	struct wire_metrics metrics;
};

/* As operators see them; the configuration, the contributions and the reports are left out. */
void db_show_job(const struct job_row *j, struct wire_job *ret_job);
/* A reason as it can be sent: whole characters, none that controls a terminal; what is too much is cut off. */
void db_show_reason(const char *reason, char out[WIRE_REASON_SIZE]);
void db_show_round(const struct round_row *r, struct wire_round *ret_round);

/* A job with its cohort and first round. `cohort`: as in round_row. ERR_LIMIT: DB_JOBS_MAX. */
MUST_CHECK enum err db_job_start(struct db *db, const struct job_row *j, struct bytes cohort,
				 const struct round_row *first, uint64_t *ret_id);
MUST_CHECK enum err db_job_get(struct db *db, uint64_t id, struct job_row *ret_job);      /* ERR_NOT_FOUND */
MUST_CHECK enum err db_job_list(struct db *db, struct job_row **ret_jobs, size_t *ret_n); /* by id; free() */
MUST_CHECK enum err db_job_cohort(struct db *db, uint64_t id, struct buf *ret_cohort);    /* buf_init's it */
/* The end of a job outside of any round. */
MUST_CHECK enum err db_job_end(struct db *db, uint64_t id, enum wire_job_state state, const char *reason,
			       int64_t now_ms);
/* A stopped or failed job goes on with this round; a round that it ended in the middle of is abandoned. ERR_STATE: it runs, or is done. */
MUST_CHECK enum err db_job_resume(struct db *db, uint64_t id, const struct round_row *next);
/* The first job of the plant of whose end it does not know, when it has seen `ends` ends of the job `seen`: that one, when it has ended more
 * often or runs again, or one after it. ERR_NOT_FOUND: none. */
MUST_CHECK enum err db_job_after(struct db *db, const char *plant, uint64_t seen, uint32_t ends, uint64_t *ret_id,
				 enum wire_job_state *ret_state);
MUST_CHECK enum err db_job_has(struct db *db, const char *plant, uint64_t id); /* ERR_NOT_FOUND: it is not in it */
/* Does the model belong to a job that the plant is in: its source, a base, a result? ERR_NOT_FOUND otherwise. */
MUST_CHECK enum err db_job_owns(struct db *db, const char *plant, const struct digest *model);

/* ---- rounds ---- */

MUST_CHECK enum err db_round_get(struct db *db, uint64_t job, uint32_t number,
				 struct round_row *ret_round); /* ERR_NOT_FOUND */
MUST_CHECK enum err db_round_list(struct db *db, uint64_t job, struct round_row **ret_rounds,
				  size_t *ret_n); /* by number; free() */
MUST_CHECK enum err db_round_seal(struct db *db, uint64_t job, uint32_t number, const struct digest *seal);
/* The end of a round and what comes of it, in one transaction. */
struct round_close {
	uint64_t job;
	uint32_t number;
	enum round_phase phase; /* ROUND_COMMITTED or ROUND_ABANDONED */
	const char *reason;     /* ABANDONED: why */
	struct digest model;    /* COMMITTED: what it made; in the store, durable */
	uint64_t model_size;
	uint64_t bytes_down;
	int64_t now_ms;
	uint32_t failures;            /* of the job, after this */
	const struct round_row *next; /* the next round; NULL: the job ends */
	enum wire_job_state state;    /* of the job, after this */
	const char *job_reason;       /* why it stopped or failed; NULL otherwise */
};
MUST_CHECK enum err db_round_close(struct db *db, const struct round_close *c);

/* ---- what may go (retention.h) ---- */

/* The committed round of the job that `skip` newer committed ones follow; ERR_NOT_FOUND when there are not as many. */
MUST_CHECK enum err db_keep_committed(struct db *db, uint64_t job, uint32_t skip, uint32_t *ret_number,
				      struct digest *ret_model);
/* How many committed rounds of the job are newer than `number`. */
MUST_CHECK enum err db_keep_newer(struct db *db, uint64_t job, uint32_t number, uint32_t *ret_n);

/* A round that began with a model, or made it. */
struct db_model_use {
	uint64_t job;
	uint32_t round;
	enum round_phase phase;
	bool made; /* it is the round's result; otherwise its base */
};
/* All of them; free(). *ret_pinned: it is a job's source, or its last model. */
MUST_CHECK enum err db_keep_uses(struct db *db, const struct digest *model, bool *ret_pinned,
				 struct db_model_use **ret_uses, size_t *ret_n);
/* The round that the plant's update made from the base of `base_round` counts in, and its phase. ERR_NOT_FOUND: in none. */
MUST_CHECK enum err db_keep_counted(struct db *db, uint64_t job, uint32_t base_round, const char *plant,
				    uint32_t *ret_round, enum round_phase *ret_phase, int64_t *ret_place);

/* ---- updates and reports ---- */

/* ERR_STALE when the round is not open; ERR_DUPLICATE when the plant has one. */
MUST_CHECK enum err db_update_add(struct db *db, const struct update_row *u);
/* Many in one transaction, each judged alone: ret_refusals[i] is ERR_OK, ERR_STALE or ERR_DUPLICATE, for which db_update_refused() sets
 * the text. Any other error is that of all, and as with every commit that fails, it may have happened after all. */
MUST_CHECK enum err db_update_add_all(struct db *db, const struct update_row *const *rows, size_t n,
				      enum err *ret_refusals);
enum err db_update_refused(enum err refusal, const struct update_row *u);
MUST_CHECK enum err db_update_get(struct db *db, uint64_t job, uint32_t round, const char *plant,
				  struct update_row *ret_update); /* ERR_NOT_FOUND */
/* By the round whose base it was made from, wherever it counts. */
MUST_CHECK enum err db_update_find(struct db *db, uint64_t job, uint32_t base_round, const char *plant,
				   struct update_row *ret_update); /* ERR_NOT_FOUND */
MUST_CHECK enum err db_update_list(struct db *db, uint64_t job, uint32_t round, struct update_row **ret_updates,
				   size_t *ret_n); /* by plant; free() */
/* Of an open round; ERR_INTERNAL otherwise. */
MUST_CHECK enum err db_update_drop(struct db *db, const struct update_row *u);
/* Replaces an earlier one of the same plant and round. */
MUST_CHECK enum err db_report_put(struct db *db, const char *plant, const struct wire_report *r, int64_t now_ms);
/* By plant; free(). */
MUST_CHECK enum err db_report_list(struct db *db, uint64_t job, uint32_t round, struct wire_plant_report **ret_reports,
				   size_t *ret_n);

#endif
