/*
 * What retention asks about: which rounds are old, which models and updates belong to them.
 */
#include "coordinator/db_schema.h"

#include <stdlib.h>

static int64_t job_number(uint64_t job)
{
	return job <= INT64_MAX ? (int64_t)job : -1;
}

enum err db_keep_committed(struct db *db, uint64_t job, uint32_t skip, uint32_t *ret_number, struct digest *ret_model)
{
	uint32_t number = 0;
	struct digest model = {{0}};
	struct query *q = sql_query(db->sql, "SELECT number, model FROM round WHERE job = ? AND phase = 'committed' "
					     "ORDER BY number DESC LIMIT 1 OFFSET ?");
	sql_bind_int(q, job_number(job));
	sql_bind_int(q, skip);
	bool found = sql_next(q);
	if (found) {
		number = (uint32_t)db_count(q, 0, UINT32_MAX);
		model = db_digest(q, 1);
	}
	TRY(sql_end(q));
	if (!found)
		return err_set(ERR_NOT_FOUND, "job %llu has no more than %lu committed rounds", (unsigned long long)job,
			       (unsigned long)skip);
	*ret_number = number;
	*ret_model = model;
	return ERR_OK;
}

enum err db_keep_newer(struct db *db, uint64_t job, uint32_t number, uint32_t *ret_n)
{
	struct query *q =
		sql_query(db->sql, "SELECT count(*) FROM round WHERE job = ? AND number > ? AND phase = 'committed'");
	sql_bind_int(q, job_number(job));
	sql_bind_int(q, number);
	uint32_t n = sql_next(q) ? (uint32_t)db_count(q, 0, UINT32_MAX) : 0;
	TRY(sql_end(q));
	*ret_n = n;
	return ERR_OK;
}

static enum err is_pinned(struct db *db, const struct digest *model, bool *ret_pinned)
{
	struct query *q = sql_query(
		db->sql, "SELECT 1 FROM job WHERE source = ?1 UNION ALL SELECT 1 FROM job WHERE model = ?1 LIMIT 1");
	db_bind_digest(q, model);
	bool pinned = sql_next(q);
	TRY(sql_end(q));
	*ret_pinned = pinned;
	return ERR_OK;
}

static enum round_phase phase_of(struct query *q, int column)
{
	enum round_phase phase = ROUND_OPEN;
	if (round_phase_parse(sql_text(q, column), &phase) != ERR_OK)
		sql_spoil(q, "'%.40s' is not the phase of a round", sql_text(q, column));
	return phase;
}

enum err db_keep_uses(struct db *db, const struct digest *model, bool *ret_pinned, struct db_model_use **ret_uses,
		      size_t *ret_n)
{
	struct db_model_use *uses = NULL;
	size_t n = 0;
	bool pinned;
	TRY(is_pinned(db, model, &pinned));
	struct query *q = sql_query(db->sql, "SELECT job, number, phase, 0 FROM round WHERE base = ?1 UNION ALL "
					     "SELECT job, number, phase, 1 FROM round WHERE model = ?1");
	db_bind_digest(q, model);
	while (sql_next(q)) {
		uses = DB_GROW(uses, n);
		uses[n++] = (struct db_model_use){
			.job = db_count(q, 0, INT64_MAX),
			.round = (uint32_t)db_count(q, 1, UINT32_MAX),
			.phase = phase_of(q, 2),
			.made = sql_int(q, 3) != 0,
		};
	}
	enum err err = sql_end(q);
	if (err != ERR_OK) {
		free(uses);
		return err;
	}
	*ret_pinned = pinned;
	*ret_uses = uses;
	*ret_n = n;
	return ERR_OK;
}

enum err db_keep_counted(struct db *db, uint64_t job, uint32_t base_round, const char *plant, uint32_t *ret_round,
			 enum round_phase *ret_phase, int64_t *ret_place)
{
	uint32_t round = 0;
	enum round_phase phase = ROUND_OPEN;
	int64_t place = -1;
	struct query *q = sql_query(
		db->sql, "SELECT c.round, r.phase, c.place FROM contribution c JOIN round r ON r.job = c.job AND "
			 "r.number = c.round WHERE c.job = ? AND c.base_round = ? AND c.plant = ?");
	sql_bind_int(q, job_number(job));
	sql_bind_int(q, base_round);
	sql_bind_text(q, plant);
	bool found = sql_next(q);
	if (found) {
		round = (uint32_t)db_count(q, 0, UINT32_MAX);
		phase = phase_of(q, 1);
		place = sql_int(q, 2);
	}
	TRY(sql_end(q));
	if (!found)
		return err_set(ERR_NOT_FOUND, "no update of %s made in round %lu of job %llu counts", plant,
			       (unsigned long)base_round, (unsigned long long)job);
	*ret_round = round;
	*ret_phase = phase;
	*ret_place = place;
	return ERR_OK;
}
