/*
 * Rounds. The end of a round, its model, the opening of the next and what both mean for the job are one transaction, so that no crash leaves a running
 * job without a round.
 */
#include "coordinator/db_schema.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void round_row_deinit(struct round_row *r)
{
	buf_deinit(&r->cohort);
}

void db_show_round(const struct round_row *r, struct wire_round *ret_round)
{
	*ret_round = (struct wire_round){
		.round = r->state.number,
		.cohort = r->state.cohort,
		.goal = r->state.goal,
		.accepted = r->state.accepted,
		.opened_ms = (uint64_t)r->state.opened_ms,
		.deadline_ms = (uint64_t)r->state.deadline_ms,
		.closed_ms = (uint64_t)r->closed_ms,
		.bytes_up = r->bytes_up,
		.bytes_down = r->bytes_down,
		.base = r->base,
		.model = r->model,
	};
	snprintf(ret_round->phase, sizeof ret_round->phase, "%s", round_phase_name(r->state.phase));
	db_show_reason(r->reason, ret_round->reason);
}

enum err db_write_round(struct db *db, uint64_t job, const struct round_row *r)
{
	struct query *q = sql_query(
		db->sql, "INSERT INTO round (job, number, phase, base, base_size, cohort, plants, quorum, opened_ms, "
			 "deadline_ms, goal, grace_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
	sql_bind_int(q, (int64_t)job);
	sql_bind_int(q, r->state.number);
	sql_bind_text(q, round_phase_name(ROUND_OPEN));
	db_bind_digest(q, &r->base);
	sql_bind_int(q, (int64_t)r->base_size);
	sql_bind_bytes(q, buf_bytes(&r->cohort));
	sql_bind_int(q, r->state.cohort);
	sql_bind_int(q, r->state.quorum);
	sql_bind_int(q, r->state.opened_ms);
	sql_bind_int(q, r->state.deadline_ms);
	sql_bind_int(q, r->state.goal);
	sql_bind_int(q, r->state.grace_ms);
	return sql_end(q);
}

#define ROUND_COLUMNS                                                                                                  \
	"job, number, phase, base, base_size, plants, quorum, opened_ms, deadline_ms, closed_ms, seal, model, "        \
	"model_size, bytes_up, bytes_down, reason, (SELECT count(*) FROM contribution c WHERE c.job = round.job AND "  \
	"c.round = round.number), goal, grace_ms"
enum { ROUND_COLUMN_COUNT = 19 };

static void read_round(struct query *q, struct round_row *r)
{
	*r = (struct round_row){
		.job = db_count(q, 0, INT64_MAX),
		.state = {.number = (uint32_t)db_count(q, 1, UINT32_MAX),
			  .cohort = (uint32_t)db_count(q, 5, UINT32_MAX),
			  .quorum = (uint32_t)db_count(q, 6, UINT32_MAX),
			  .opened_ms = sql_int(q, 7),
			  .deadline_ms = sql_int(q, 8),
			  .accepted = (uint32_t)db_count(q, 16, UINT32_MAX),
			  .goal = (uint32_t)db_count(q, 17, UINT32_MAX),
			  .grace_ms = sql_int(q, 18)},
		.base = db_digest(q, 3),
		.base_size = db_count(q, 4, INT64_MAX),
		.closed_ms = sql_int(q, 9),
		.seal = db_digest(q, 10),
		.model = db_digest(q, 11),
		.model_size = db_count(q, 12, INT64_MAX),
		.bytes_up = db_count(q, 13, INT64_MAX),
		.bytes_down = db_count(q, 14, INT64_MAX),
	};
	db_text(q, 15, r->reason, sizeof r->reason);
	if (round_phase_parse(sql_text(q, 2), &r->state.phase) != ERR_OK)
		sql_spoil(q, "'%.40s' is not the phase of a round", sql_text(q, 2));
}

enum err db_round_get(struct db *db, uint64_t job, uint32_t number, struct round_row *ret_round)
{
	struct round_row r = {0};
	struct query *q =
		sql_query(db->sql, "SELECT " ROUND_COLUMNS ", cohort FROM round WHERE job = ? AND number = ?");
	sql_bind_int(q, job <= INT64_MAX ? (int64_t)job : -1);
	sql_bind_int(q, number);
	bool found = sql_next(q);
	if (found) {
		read_round(q, &r);
		db_buf(q, ROUND_COLUMN_COUNT, DB_COHORT_MAX, &r.cohort);
	}
	enum err err = sql_end(q);
	if (err == ERR_OK && !found)
		err = err_set(ERR_NOT_FOUND, "job %llu has no round %lu", (unsigned long long)job,
			      (unsigned long)number);
	if (err == ERR_OK)
		err = round_check(&r.state);
	if (err != ERR_OK) {
		round_row_deinit(&r);
		return err;
	}
	*ret_round = r;
	return ERR_OK;
}

enum err db_round_list(struct db *db, uint64_t job, struct round_row **ret_rounds, size_t *ret_n)
{
	struct round_row *list = NULL;
	size_t n = 0;
	struct query *q = sql_query(db->sql, "SELECT " ROUND_COLUMNS " FROM round WHERE job = ? ORDER BY number");
	sql_bind_int(q, job <= INT64_MAX ? (int64_t)job : -1);
	while (sql_next(q)) {
		list = DB_GROW(list, n);
		read_round(q, &list[n++]);
	}
	enum err err = sql_end(q);
	if (err != ERR_OK) {
		free(list);
		return err;
	}
	*ret_rounds = list;
	*ret_n = n;
	return ERR_OK;
}

/* The round must have been in a phase that leads here: anything else is a mistake of the engine, or two of them on one
 * file. */
static enum err expect_one(struct db *db, uint64_t job, uint32_t number, const char *what)
{
	if (sql_changes(db->sql) == 1)
		return ERR_OK;
	return err_set(ERR_INTERNAL, "job %llu round %lu cannot be %s in its present phase", (unsigned long long)job,
		       (unsigned long)number, what);
}

static enum err seal(struct db *db, uint64_t job, uint32_t number, const struct digest *digest)
{
	struct query *q = sql_query(
		db->sql, "UPDATE round SET phase = 'sealed', seal = ? WHERE job = ? AND number = ? AND phase = 'open'");
	db_bind_digest(q, digest);
	sql_bind_int(q, (int64_t)job);
	sql_bind_int(q, number);
	TRY(sql_end(q));
	return expect_one(db, job, number, "sealed");
}

enum err db_round_seal(struct db *db, uint64_t job, uint32_t number, const struct digest *digest)
{
	TRY(sql_begin(db->sql));
	return sql_end_transaction(db->sql, seal(db, job, number, digest));
}

/* A round that was aggregated by an earlier release has a model already: the same one. */
static enum err close_round(struct db *db, const struct round_close *c)
{
	struct query *q = sql_query(
		db->sql,
		"UPDATE round SET phase = ?1, reason = ?2, closed_ms = ?3, bytes_down = ?4, model = ?5, model_size = "
		"?6 "
		"WHERE job = ?7 AND number = ?8 AND ((?1 = 'committed' AND phase IN ('sealed', 'aggregated')) OR "
		"(?1 = 'abandoned' AND phase IN ('open', 'sealed', 'aggregated')))");
	sql_bind_text(q, round_phase_name(c->phase));
	sql_bind_text(q, c->reason != NULL ? c->reason : "");
	sql_bind_int(q, c->now_ms);
	sql_bind_int(q, (int64_t)c->bytes_down);
	db_bind_digest(q, &c->model);
	sql_bind_int(q, (int64_t)c->model_size);
	sql_bind_int(q, (int64_t)c->job);
	sql_bind_int(q, c->number);
	TRY(sql_end(q));
	return expect_one(db, c->job, c->number, round_phase_name(c->phase));
}

static enum err carry_over(struct db *db, const struct round_close *c)
{
	if (c->phase == ROUND_COMMITTED) {
		struct query *q = sql_query(
			db->sql,
			"UPDATE job SET model = r.model, model_size = r.model_size, model_round = r.number, "
			"committed = committed + 1 FROM round r WHERE r.job = ?1 AND r.number = ?2 AND job.id = ?1");
		sql_bind_int(q, (int64_t)c->job);
		sql_bind_int(q, c->number);
		TRY(sql_end(q));
	}
	struct query *q =
		sql_query(db->sql, "UPDATE job SET failures = ?, round = ? WHERE id = ? AND state = 'running'");
	sql_bind_int(q, c->failures);
	sql_bind_int(q, c->next != NULL ? c->next->state.number : c->number);
	sql_bind_int(q, (int64_t)c->job);
	TRY(sql_end(q));
	return expect_one(db, c->job, c->number, "closed: its job has ended");
}

static enum err close_all(struct db *db, const struct round_close *c)
{
	TRY(close_round(db, c));
	TRY(carry_over(db, c));
	return c->next != NULL ? db_write_round(db, c->job, c->next)
			       : db_write_job_end(db, c->job, c->state, c->job_reason, c->now_ms);
}

enum err db_round_close(struct db *db, const struct round_close *c)
{
	ENSURE(c->phase == ROUND_COMMITTED || c->phase == ROUND_ABANDONED);
	ENSURE((c->phase == ROUND_COMMITTED) == !digest_is_zero(&c->model));
	ENSURE((c->next != NULL) == (c->state == WIRE_JOB_RUNNING));
	TRY(sql_begin(db->sql));
	return sql_end_transaction(db->sql, close_all(db, c));
}
