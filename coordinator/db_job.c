/*
 * Jobs and rounds. The end of a round, the opening of the next and what both mean for the job are one transaction, so
 * that no crash leaves a running job without a round.
 */
#include "coordinator/db_schema.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COHORT_MAX = 4096 * WIRE_NAME_SIZE };

void job_row_deinit(struct job_row *j)
{
	buf_deinit(&j->config);
	buf_deinit(&j->manifest);
}

void round_row_deinit(struct round_row *r)
{
	buf_deinit(&r->cohort);
}

void db_show_job(const struct job_row *j, struct wire_job *ret_job)
{
	*ret_job = (struct wire_job){
		.job = j->id,
		.state = j->state,
		.round = j->round,
		.rounds = j->rounds,
		.source = j->source,
		.model = j->model,
		.model_size = j->model_size,
		.created_ms = (uint64_t)j->created_ms,
		.ended_ms = (uint64_t)j->ended_ms,
	};
	snprintf(ret_job->name, sizeof ret_job->name, "%s", j->name);
}

void db_show_round(const struct round_row *r, struct wire_round *ret_round)
{
	*ret_round = (struct wire_round){
		.round = r->state.number,
		.cohort = r->state.cohort,
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
}

/* ---- jobs ---- */

static enum err insert_job(struct db *db, const struct job_row *j, uint64_t *ret_id)
{
	struct query *q = sql_query(
		db->sql,
		"INSERT INTO job (name, state, config, config_hash, manifest, source, source_size, rounds, round, "
		"created_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
	sql_bind_text(q, j->name);
	sql_bind_text(q, wire_job_state_name(j->state));
	sql_bind_bytes(q, buf_bytes(&j->config));
	db_bind_digest(q, &j->config_hash);
	sql_bind_bytes(q, buf_bytes(&j->manifest));
	db_bind_digest(q, &j->source);
	sql_bind_int(q, (int64_t)j->source_size);
	sql_bind_int(q, j->rounds);
	sql_bind_int(q, j->round);
	sql_bind_int(q, j->created_ms);
	TRY(sql_end(q));
	*ret_id = (uint64_t)sql_last_id(db->sql);
	return ERR_OK;
}

static enum err insert_cohort(struct db *db, uint64_t job, struct bytes cohort)
{
	const char *p = (const char *)cohort.p, *end = p + cohort.n;
	while (p < end) {
		char name[WIRE_NAME_SIZE];
		const char *line_end = memchr(p, '\n', (size_t)(end - p));
		ENSURE(line_end != NULL && line_end - p < WIRE_NAME_SIZE);
		snprintf(name, sizeof name, "%.*s", (int)(line_end - p), p);
		struct query *q = sql_query(db->sql, "INSERT INTO cohort (plant, job) VALUES (?, ?)");
		sql_bind_text(q, name);
		sql_bind_int(q, (int64_t)job);
		TRY(sql_end(q));
		p = line_end + 1;
	}
	return ERR_OK;
}

static enum err insert_round(struct db *db, uint64_t job, const struct round_row *r)
{
	struct query *q = sql_query(
		db->sql, "INSERT INTO round (job, number, phase, base, base_size, cohort, plants, quorum, opened_ms, "
			 "deadline_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
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
	return sql_end(q);
}

static enum err start(struct db *db, const struct job_row *j, struct bytes cohort, const struct round_row *first,
		      uint64_t *ret_id)
{
	int64_t jobs;
	uint64_t id;
	TRY(db_ask_number(db, "SELECT count(*) FROM job", &jobs));
	if (jobs >= DB_JOBS_MAX)
		return err_set(ERR_LIMIT, "a federation has at most %d jobs", DB_JOBS_MAX);
	TRY(insert_job(db, j, &id));
	TRY(insert_cohort(db, id, cohort));
	TRY(insert_round(db, id, first));
	*ret_id = id;
	return ERR_OK;
}

enum err db_job_start(struct db *db, const struct job_row *j, struct bytes cohort, const struct round_row *first,
		      uint64_t *ret_id)
{
	uint64_t id = 0;
	TRY(sql_begin(db->sql));
	TRY(sql_end_transaction(db->sql, start(db, j, cohort, first, &id)));
	*ret_id = id;
	return ERR_OK;
}

static enum wire_job_state read_state(struct query *q, int column)
{
	const char *text = sql_text(q, column);
	for (int s = 0; s < WIRE_JOB_STATE_COUNT; s++) {
		if (strcmp(text, wire_job_state_name((enum wire_job_state)s)) == 0)
			return (enum wire_job_state)s;
	}
	sql_spoil(q, "'%.40s' is not the state of a job", text);
	return WIRE_JOB_FAILED;
}

#define JOB_COLUMNS                                                                                                    \
	"id, name, state, config_hash, source, model, source_size, model_size, model_round, rounds, committed, "       \
	"round, "                                                                                                      \
	"failures, created_ms, ended_ms, reason"
enum { JOB_COLUMN_COUNT = 16 };

static void read_job(struct query *q, struct job_row *j)
{
	*j = (struct job_row){
		.id = db_count(q, 0, INT64_MAX),
		.state = read_state(q, 2),
		.config_hash = db_digest(q, 3),
		.source = db_digest(q, 4),
		.model = db_digest(q, 5),
		.source_size = db_count(q, 6, INT64_MAX),
		.model_size = db_count(q, 7, INT64_MAX),
		.model_round = (uint32_t)db_count(q, 8, UINT32_MAX),
		.rounds = (uint32_t)db_count(q, 9, UINT32_MAX),
		.committed = (uint32_t)db_count(q, 10, UINT32_MAX),
		.round = (uint32_t)db_count(q, 11, UINT32_MAX),
		.failures = (uint32_t)db_count(q, 12, UINT32_MAX),
		.created_ms = sql_int(q, 13),
		.ended_ms = sql_int(q, 14),
	};
	db_text(q, 1, j->name, sizeof j->name);
	db_text(q, 15, j->reason, sizeof j->reason);
}

enum err db_job_get(struct db *db, uint64_t id, struct job_row *ret_job)
{
	struct job_row j = {0};
	struct query *q = sql_query(db->sql, "SELECT " JOB_COLUMNS ", config, manifest FROM job WHERE id = ?");
	sql_bind_int(q, id <= INT64_MAX ? (int64_t)id : -1);
	bool found = sql_next(q);
	if (found) {
		read_job(q, &j);
		db_buf(q, JOB_COLUMN_COUNT, WIRE_CONFIG_MAX, &j.config);
		db_buf(q, JOB_COLUMN_COUNT + 1, WIRE_MANIFEST_MAX, &j.manifest);
	}
	enum err err = sql_end(q);
	if (err == ERR_OK && !found)
		err = err_set(ERR_NOT_FOUND, "there is no job %llu", (unsigned long long)id);
	if (err != ERR_OK) {
		job_row_deinit(&j);
		return err;
	}
	*ret_job = j;
	return ERR_OK;
}

enum err db_job_list(struct db *db, struct job_row **ret_jobs, size_t *ret_n)
{
	struct job_row *list = NULL;
	size_t n = 0;
	struct query *q = sql_query(db->sql, "SELECT " JOB_COLUMNS " FROM job ORDER BY id");
	while (sql_next(q)) {
		list = DB_GROW(list, n);
		read_job(q, &list[n++]);
	}
	enum err err = sql_end(q);
	if (err != ERR_OK) {
		free(list);
		return err;
	}
	*ret_jobs = list;
	*ret_n = n;
	return ERR_OK;
}

enum err db_job_cohort(struct db *db, uint64_t id, struct buf *ret_cohort)
{
	struct buf cohort;
	enum err err = ERR_OK;
	buf_init(&cohort, COHORT_MAX);
	struct query *q = sql_query(db->sql, "SELECT plant FROM cohort WHERE job = ? ORDER BY plant");
	sql_bind_int(q, (int64_t)id);
	while (err == ERR_OK && sql_next(q))
		err = buf_printf(&cohort, "%s\n", sql_text(q, 0));
	enum err ended = sql_end(q);
	if (err == ERR_OK)
		err = ended;
	if (err != ERR_OK) {
		buf_deinit(&cohort);
		return err;
	}
	*ret_cohort = cohort;
	return ERR_OK;
}

static enum err end_job(struct db *db, uint64_t id, enum wire_job_state state, const char *reason, int64_t now_ms)
{
	struct query *q = sql_query(
		db->sql, "UPDATE job SET state = ?, reason = ?, ended_ms = ? WHERE id = ? AND state = 'running'");
	sql_bind_text(q, wire_job_state_name(state));
	sql_bind_text(q, reason != NULL ? reason : "");
	sql_bind_int(q, now_ms);
	sql_bind_int(q, (int64_t)id);
	TRY(sql_end(q));
	return sql_changes(db->sql) == 1 ? ERR_OK
					 : err_set(ERR_STATE, "job %llu is not running", (unsigned long long)id);
}

enum err db_job_end(struct db *db, uint64_t id, enum wire_job_state state, const char *reason, int64_t now_ms)
{
	TRY(sql_begin(db->sql));
	return sql_end_transaction(db->sql, end_job(db, id, state, reason, now_ms));
}

enum err db_job_after(struct db *db, const char *plant, uint64_t seen, uint64_t *ret_id, enum wire_job_state *ret_state)
{
	uint64_t id = 0;
	enum wire_job_state state = WIRE_JOB_RUNNING;
	struct query *q = sql_query(
		db->sql,
		"SELECT j.id, j.state FROM cohort c JOIN job j ON j.id = c.job WHERE c.plant = ? AND c.job > ? "
		"ORDER BY c.job LIMIT 1");
	sql_bind_text(q, plant);
	sql_bind_int(q, seen <= INT64_MAX ? (int64_t)seen : INT64_MAX);
	bool found = sql_next(q);
	if (found) {
		id = db_count(q, 0, INT64_MAX);
		state = read_state(q, 1);
	}
	TRY(sql_end(q));
	if (!found)
		return err_set(ERR_NOT_FOUND, "no job of %s after %llu", plant, (unsigned long long)seen);
	*ret_id = id;
	*ret_state = state;
	return ERR_OK;
}

enum err db_job_owns(struct db *db, const char *plant, const struct digest *model)
{
	struct query *q = sql_query(
		db->sql, "SELECT 1 FROM cohort c JOIN job j ON j.id = c.job WHERE c.plant = ?1 AND (j.source = ?2 OR "
			 "j.model = ?2 "
			 "OR EXISTS (SELECT 1 FROM round r WHERE r.job = j.id AND (r.base = ?2 OR r.model = ?2))) "
			 "ORDER BY c.job DESC LIMIT 1");
	sql_bind_text(q, plant);
	db_bind_digest(q, model);
	bool found = sql_next(q);
	TRY(sql_end(q));
	char text[DIGEST_TEXT_SIZE];
	return found ? ERR_OK
		     : err_set(ERR_NOT_FOUND, "no job of this plant has a model %s", digest_format(model, text));
}

/* ---- rounds ---- */

#define ROUND_COLUMNS                                                                                                  \
	"job, number, phase, base, base_size, plants, quorum, opened_ms, deadline_ms, closed_ms, seal, model, "        \
	"model_size, bytes_up, bytes_down, reason, (SELECT count(*) FROM contribution c WHERE c.job = round.job AND "  \
	"c.round = round.number)"
enum { ROUND_COLUMN_COUNT = 17 };

static void read_round(struct query *q, struct round_row *r)
{
	*r = (struct round_row){
		.job = db_count(q, 0, INT64_MAX),
		.state = {.number = (uint32_t)db_count(q, 1, UINT32_MAX),
			  .cohort = (uint32_t)db_count(q, 5, UINT32_MAX),
			  .quorum = (uint32_t)db_count(q, 6, UINT32_MAX),
			  .opened_ms = sql_int(q, 7),
			  .deadline_ms = sql_int(q, 8),
			  .accepted = (uint32_t)db_count(q, 16, UINT32_MAX)},
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
		db_buf(q, ROUND_COLUMN_COUNT, COHORT_MAX, &r.cohort);
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

static enum err aggregated(struct db *db, uint64_t job, uint32_t number, const struct digest *model,
			   uint64_t model_size)
{
	struct query *q = sql_query(db->sql, "UPDATE round SET phase = 'aggregated', model = ?, model_size = ? "
					     "WHERE job = ? AND number = ? AND phase IN ('sealed', 'aggregated')");
	db_bind_digest(q, model);
	sql_bind_int(q, (int64_t)model_size);
	sql_bind_int(q, (int64_t)job);
	sql_bind_int(q, number);
	TRY(sql_end(q));
	return expect_one(db, job, number, "aggregated");
}

enum err db_round_aggregated(struct db *db, uint64_t job, uint32_t number, const struct digest *model,
			     uint64_t model_size)
{
	TRY(sql_begin(db->sql));
	return sql_end_transaction(db->sql, aggregated(db, job, number, model, model_size));
}

static enum err close_round(struct db *db, const struct round_close *c)
{
	struct query *q = sql_query(
		db->sql,
		"UPDATE round SET phase = ?1, reason = ?2, closed_ms = ?3, bytes_down = ?4 WHERE job = ?5 AND number = "
		"?6 "
		"AND phase IN ('open', 'sealed', 'aggregated') AND (phase = 'aggregated') = (?1 = 'committed')");
	sql_bind_text(q, round_phase_name(c->phase));
	sql_bind_text(q, c->reason != NULL ? c->reason : "");
	sql_bind_int(q, c->now_ms);
	sql_bind_int(q, (int64_t)c->bytes_down);
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
	return c->next != NULL ? insert_round(db, c->job, c->next)
			       : end_job(db, c->job, c->state, c->job_reason, c->now_ms);
}

enum err db_round_close(struct db *db, const struct round_close *c)
{
	ENSURE(c->phase == ROUND_COMMITTED || c->phase == ROUND_ABANDONED);
	ENSURE((c->next != NULL) == (c->state == WIRE_JOB_RUNNING));
	TRY(sql_begin(db->sql));
	return sql_end_transaction(db->sql, close_all(db, c));
}
