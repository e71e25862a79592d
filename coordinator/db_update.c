/*
 * Accepted updates and reports. Metrics are a JSON list of [name, value], in the order in which the plant sent them.
 */
#include "base/json.h"
#include "coordinator/db_schema.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { METRICS_MAX = 4096 };

/* Names and numbers of bounded length: the text always fits. */
static void bind_metrics(struct query *q, const struct wire_metrics *metrics)
{
	struct buf text;
	struct json *list = json_list();
	for (size_t i = 0; i < metrics->n; i++) {
		struct json *pair = json_push(json_list(), json_str(metrics->v[i].name));
		json_push(list, json_push(pair, json_num(metrics->v[i].value)));
	}
	buf_init(&text, METRICS_MAX);
	ENSURE(json_write(list, &text) == ERR_OK);
	sql_bind_text(q, buf_str(&text));
	buf_deinit(&text);
	json_free(list);
}

static void read_metrics(struct query *q, int column, struct wire_metrics *metrics)
{
	struct json *list = NULL;
	const char *name;
	*metrics = (struct wire_metrics){0};
	if (json_parse(bytes_str(sql_text(q, column)), &list) != ERR_OK || json_count(list) > WIRE_METRICS_MAX) {
		sql_spoil(q, "metrics that cannot be read");
	} else {
		for (size_t i = 0; i < json_count(list); i++) {
			struct wire_metric *m = &metrics->v[metrics->n++];
			const struct json *pair = json_at(list, i);
			if (!json_get_str(json_at(pair, 0), &name) || !json_get_num(json_at(pair, 1), &m->value) ||
			    strlen(name) >= sizeof m->name)
				sql_spoil(q, "a metric that cannot be read");
			else
				snprintf(m->name, sizeof m->name, "%s", name);
		}
	}
	json_free(list);
}

static enum err insert_update(struct db *db, const struct update_row *u)
{
	struct query *q = sql_query(db->sql, "INSERT INTO contribution (job, round, plant, digest, size, samples, "
					     "norm, time_ms, metrics, base_round, place) "
					     "SELECT job, number, ?, ?, ?, ?, ?, ?, ?, ?, ? FROM round WHERE job = ? "
					     "AND number = ? AND phase = 'open'");
	sql_bind_text(q, u->plant);
	db_bind_digest(q, &u->digest);
	sql_bind_int(q, (int64_t)u->size);
	sql_bind_int(q, (int64_t)u->samples);
	sql_bind_real(q, u->norm);
	sql_bind_int(q, u->time_ms);
	bind_metrics(q, &u->metrics);
	sql_bind_int(q, u->base_round);
	sql_bind_int(q, u->place);
	sql_bind_int(q, (int64_t)u->job);
	sql_bind_int(q, u->round);
	TRY(sql_end(q));
	if (sql_changes(db->sql) != 1)
		return ERR_STALE;
	q = sql_query(db->sql, "UPDATE round SET bytes_up = bytes_up + ? WHERE job = ? AND number = ?");
	sql_bind_int(q, (int64_t)u->size);
	sql_bind_int(q, (int64_t)u->job);
	sql_bind_int(q, u->round);
	return sql_end(q);
}

/* A refused row changes nothing, and the transaction goes on: a constraint undoes its own statement only. */
static enum err insert_all(struct db *db, const struct update_row *const *rows, size_t n, enum err *refusals)
{
	for (size_t i = 0; i < n; i++) {
		enum err err = insert_update(db, rows[i]);
		if (err != ERR_OK && err != ERR_STALE && err != ERR_DUPLICATE)
			return err;
		refusals[i] = err;
	}
	return ERR_OK;
}

enum err db_update_add_all(struct db *db, const struct update_row *const *rows, size_t n, enum err *ret_refusals)
{
	TRY(sql_begin(db->sql));
	return sql_end_transaction(db->sql, insert_all(db, rows, n, ret_refusals));
}

enum err db_update_refused(enum err refusal, const struct update_row *u)
{
	ENSURE(refusal == ERR_STALE || refusal == ERR_DUPLICATE);
	if (refusal == ERR_STALE)
		return err_set(ERR_STALE, "round %lu of job %llu is not open", (unsigned long)u->round,
			       (unsigned long long)u->job);
	return err_set(ERR_DUPLICATE, "an update of %s from the base of round %lu, or in round %lu, counts already",
		       u->plant, (unsigned long)u->base_round, (unsigned long)u->round);
}

enum err db_update_add(struct db *db, const struct update_row *u)
{
	enum err refusal = ERR_OK;
	TRY(db_update_add_all(db, &u, 1, &refusal));
	return refusal == ERR_OK ? ERR_OK : db_update_refused(refusal, u);
}

static enum err drop_update(struct db *db, const struct update_row *u)
{
	struct query *q =
		sql_query(db->sql, "DELETE FROM contribution WHERE job = ?1 AND round = ?2 AND plant = ?3 AND EXISTS "
				   "(SELECT 1 FROM round WHERE job = ?1 AND number = ?2 AND phase = 'open')");
	sql_bind_int(q, (int64_t)u->job);
	sql_bind_int(q, u->round);
	sql_bind_text(q, u->plant);
	TRY(sql_end(q));
	if (sql_changes(db->sql) != 1)
		return err_set(ERR_INTERNAL, "no update of %s in an open round %lu of job %llu", u->plant,
			       (unsigned long)u->round, (unsigned long long)u->job);
	q = sql_query(db->sql, "UPDATE round SET bytes_up = bytes_up - ? WHERE job = ? AND number = ?");
	sql_bind_int(q, (int64_t)u->size);
	sql_bind_int(q, (int64_t)u->job);
	sql_bind_int(q, u->round);
	return sql_end(q);
}

enum err db_update_drop(struct db *db, const struct update_row *u)
{
	TRY(sql_begin(db->sql));
	return sql_end_transaction(db->sql, drop_update(db, u));
}

#define UPDATE_COLUMNS "job, round, plant, digest, size, samples, norm, time_ms, metrics, base_round, place"

static void read_update(struct query *q, struct update_row *u)
{
	*u = (struct update_row){
		.job = db_count(q, 0, INT64_MAX),
		.round = (uint32_t)db_count(q, 1, UINT32_MAX),
		.digest = db_digest(q, 3),
		.size = db_count(q, 4, INT64_MAX),
		.samples = db_count(q, 5, INT64_MAX),
		.norm = sql_real(q, 6),
		.time_ms = sql_int(q, 7),
		.base_round = (uint32_t)db_count(q, 9, UINT32_MAX),
		.place = sql_int(q, 10),
	};
	db_text(q, 2, u->plant, sizeof u->plant);
	read_metrics(q, 8, &u->metrics);
}

static enum err get_update(struct db *db, const char *text, uint64_t job, uint32_t round, const char *plant,
			   struct update_row *ret_update)
{
	struct update_row u;
	struct query *q = sql_query(db->sql, text);
	sql_bind_int(q, job <= INT64_MAX ? (int64_t)job : -1);
	sql_bind_int(q, round);
	sql_bind_text(q, plant);
	bool found = sql_next(q);
	if (found)
		read_update(q, &u);
	TRY(sql_end(q));
	if (!found)
		return err_set(ERR_NOT_FOUND, "no update of %s in round %lu of job %llu", plant, (unsigned long)round,
			       (unsigned long long)job);
	*ret_update = u;
	return ERR_OK;
}

enum err db_update_get(struct db *db, uint64_t job, uint32_t round, const char *plant, struct update_row *ret_update)
{
	return get_update(db, "SELECT " UPDATE_COLUMNS " FROM contribution WHERE job = ? AND round = ? AND plant = ?",
			  job, round, plant, ret_update);
}

enum err db_update_find(struct db *db, uint64_t job, uint32_t base_round, const char *plant,
			struct update_row *ret_update)
{
	return get_update(db,
			  "SELECT " UPDATE_COLUMNS " FROM contribution WHERE job = ? AND base_round = ? AND plant = ?",
			  job, base_round, plant, ret_update);
}

enum err db_update_list(struct db *db, uint64_t job, uint32_t round, struct update_row **ret_updates, size_t *ret_n)
{
	struct update_row *list = NULL;
	size_t n = 0;
	struct query *q = sql_query(db->sql, "SELECT " UPDATE_COLUMNS
					     " FROM contribution WHERE job = ? AND round = ? ORDER BY plant");
	sql_bind_int(q, (int64_t)job);
	sql_bind_int(q, round);
	while (sql_next(q)) {
		list = DB_GROW(list, n);
		read_update(q, &list[n++]);
	}
	enum err err = sql_end(q);
	if (err != ERR_OK) {
		free(list);
		return err;
	}
	*ret_updates = list;
	*ret_n = n;
	return ERR_OK;
}

enum err db_report_put(struct db *db, const char *plant, const struct wire_report *r, int64_t now_ms)
{
	struct query *q = sql_query(db->sql, "INSERT OR REPLACE INTO report (job, round, plant, model, taken, metrics, "
					     "time_ms) VALUES (?, ?, ?, ?, ?, ?, ?)");
	sql_bind_int(q, (int64_t)r->job);
	sql_bind_int(q, r->round);
	sql_bind_text(q, plant);
	db_bind_digest(q, &r->model);
	sql_bind_int(q, r->taken);
	bind_metrics(q, &r->metrics);
	sql_bind_int(q, now_ms);
	return sql_end(q);
}

static void read_report(struct query *q, struct wire_plant_report *r)
{
	*r = (struct wire_plant_report){
		.model = db_digest(q, 1),
		.taken = db_count(q, 2, 1) != 0,
		.time_ms = db_count(q, 4, INT64_MAX),
	};
	db_text(q, 0, r->plant, sizeof r->plant);
	read_metrics(q, 3, &r->metrics);
}

enum err db_report_list(struct db *db, uint64_t job, uint32_t round, struct wire_plant_report **ret_reports,
			size_t *ret_n)
{
	struct wire_plant_report *list = NULL;
	size_t n = 0;
	struct query *q = sql_query(db->sql, "SELECT plant, model, taken, metrics, time_ms FROM report "
					     "WHERE job = ? AND round = ? ORDER BY plant");
	sql_bind_int(q, job <= INT64_MAX ? (int64_t)job : -1);
	sql_bind_int(q, round);
	while (sql_next(q)) {
		list = DB_GROW(list, n);
		read_report(q, &list[n++]);
	}
	enum err err = sql_end(q);
	if (err != ERR_OK) {
		free(list);
		return err;
	}
	*ret_reports = list;
	*ret_n = n;
	return ERR_OK;
}
