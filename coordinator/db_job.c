/*
 * Jobs: their rows, and who is in them.
 */
#include "coordinator/db_schema.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void job_row_deinit(struct job_row *j)
{
	buf_deinit(&j->config);
	buf_deinit(&j->manifest);
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
	db_show_reason(j->reason, ret_job->reason);
}

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
	TRY(db_write_round(db, id, first));
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
	"failures, created_ms, ended_ms, reason, ends"
enum { JOB_COLUMN_COUNT = 17 };

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
		.ends = (uint32_t)db_count(q, 16, UINT32_MAX),
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
	buf_init(&cohort, DB_COHORT_MAX);
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

enum err db_write_job_end(struct db *db, uint64_t id, enum wire_job_state state, const char *reason, int64_t now_ms)
{
	struct query *q = sql_query(db->sql, "UPDATE job SET state = ?, reason = ?, ended_ms = ?, ends = ends + 1 "
					     "WHERE id = ? AND state = 'running'");
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
	return sql_end_transaction(db->sql, db_write_job_end(db, id, state, reason, now_ms));
}

static enum err resume(struct db *db, uint64_t id, const struct round_row *next)
{
	/* Only a job that could not be taken up after a restart has ended like this. */
	struct query *q = sql_query(
		db->sql,
		"UPDATE round SET phase = 'abandoned', reason = 'the job ended in it', closed_ms = ?, model = NULL, "
		"model_size = 0 WHERE job = ? AND phase IN ('open', 'sealed', 'aggregated')");
	sql_bind_int(q, next->state.opened_ms);
	sql_bind_int(q, (int64_t)id);
	TRY(sql_end(q));
	q = sql_query(db->sql, "UPDATE job SET state = 'running', reason = '', ended_ms = 0, failures = 0, round = ? "
			       "WHERE id = ? AND state IN ('stopped', 'failed')");
	sql_bind_int(q, next->state.number);
	sql_bind_int(q, (int64_t)id);
	TRY(sql_end(q));
	if (sql_changes(db->sql) != 1)
		return err_set(ERR_STATE, "job %llu is neither stopped nor failed", (unsigned long long)id);
	return db_write_round(db, id, next);
}

enum err db_job_resume(struct db *db, uint64_t id, const struct round_row *next)
{
	TRY(sql_begin(db->sql));
	return sql_end_transaction(db->sql, resume(db, id, next));
}

enum err db_job_has(struct db *db, const char *plant, uint64_t id)
{
	struct query *q = sql_query(db->sql, "SELECT 1 FROM cohort WHERE plant = ? AND job = ?");
	sql_bind_text(q, plant);
	sql_bind_int(q, id <= INT64_MAX ? (int64_t)id : -1);
	bool found = sql_next(q);
	TRY(sql_end(q));
	return found ? ERR_OK : err_set(ERR_NOT_FOUND, "%s is in no job %llu", plant, (unsigned long long)id);
}

enum err db_job_after(struct db *db, const char *plant, uint64_t seen, uint32_t ends, uint64_t *ret_id,
		      enum wire_job_state *ret_state)
{
	uint64_t id = 0;
	enum wire_job_state state = WIRE_JOB_RUNNING;
	struct query *q = sql_query(
		db->sql,
		"SELECT j.id, j.state FROM cohort c JOIN job j ON j.id = c.job WHERE c.plant = ?1 AND c.job >= ?2 "
		"AND (c.job > ?2 OR j.ends > ?3 OR j.state = 'running') ORDER BY c.job LIMIT 1");
	sql_bind_text(q, plant);
	sql_bind_int(q, seen <= INT64_MAX ? (int64_t)seen : INT64_MAX);
	sql_bind_int(q, ends);
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
