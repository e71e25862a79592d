/*
 * Updates on their way in. Receiving, checking and syncing happen on the thread that brings the update, without the lock; the lock is taken
 * to judge the head, to claim the seat, and at the end to count.
 *
 * The end, in this order: the file is complete and synced (spool.c); under the lock the round is asked once more, and `recording` keeps it
 * from being closed; the row is committed; under the lock the round is told. A crash before the row leaves a file that the next start
 * removes, a crash after it leaves an update that counts and a plant without a receipt: it sends again and gets it.
 */
#include "coordinator/engine_parts.h"

#include "base/log.h"
#include "coordinator/spool.h"
#include "coordinator/trouble.h"
#include "update/fixed.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char spooling[] = "spooling an update";

struct upload {
	struct engine *engine;
	struct run *run;   /* one of its users */
	struct seat *seat; /* claimed: `uploading` */
	struct wire_head head;
	struct spool_key key;
	struct spool_entry *entry; /* NULL once it is finished */
};

/* ---- the head ---- */

static enum err check_numbers(const struct engine *e, const struct run *r, const struct wire_head *head)
{
	const struct wire_update_head *u = &head->update;
	size_t size = manifest_update_bytes(r->plan->manifest);
	if (!digest_equal(&u->base, &r->base))
		return err_set(ERR_STALE, "wrong base: the update was not made from the base model of round %" PRIu32,
			       r->round.number);
	if (!digest_equal(&u->manifest, &r->plan->manifest->digest))
		return err_set(ERR_SHAPE, "wrong manifest: the update is laid out for other tensors than the job's");
	if (head->size != size || head->size > e->config.upload_bytes_max)
		return err_set(ERR_SHAPE, "wrong size: an update of this job has %zu bytes, this one says %" PRIu64,
			       size, head->size);
	if (u->samples < 1 || u->samples > FIXED_WEIGHT_MAX)
		return err_set(ERR_LIMIT, "samples: %" PRIu64 " is not between 1 and %d", u->samples, FIXED_WEIGHT_MAX);
	for (size_t i = 0; i < u->metrics.n; i++) {
		if (!isfinite(u->metrics.v[i].value))
			return err_set(ERR_NUMERIC, "metric %.63s is not a finite number", u->metrics.v[i].name);
	}
	return ERR_OK;
}

static enum err check_open(const struct engine *e, const struct run *r, const struct wire_head *head)
{
	if (r == NULL || r->ended || r->round.number != head->update.round || r->closing)
		return err_set(ERR_STALE, "round %" PRIu32 " of job %" PRIu64 " is not open", head->update.round,
			       head->update.job);
	return round_accepts(&r->round, engine_wall_ms(e));
}

static void write_receipt(const struct wire_head *head, int64_t time_ms, bool repeated, struct wire_receipt *out)
{
	*out = (struct wire_receipt){.job = head->update.job,
				     .round = head->update.round,
				     .digest = head->digest,
				     .time_ms = (uint64_t)time_ms,
				     .repeated = repeated};
}

/* Under the lock. *ret_seat is NULL when this very update counts already. */
static enum err judge(const struct engine *e, const char *plant, const struct wire_head *head, struct run **ret_run,
		      struct seat **ret_seat, struct wire_receipt *ret_receipt)
{
	struct run *r = engine_find(e, head->update.job);
	struct seat *s = r != NULL && r->round.number == head->update.round ? run_seat(r, plant) : NULL;
	bool counts = s != NULL && s->accepted;
	/* The last update closes the round to others, but its own plant may ask again. */
	if (!counts)
		TRY(check_open(e, r, head));
	if (s == NULL || !s->invited)
		return err_set(ERR_DENIED, "%s is not in the cohort of round %" PRIu32 " of job %" PRIu64, plant,
			       head->update.round, head->update.job);
	TRY(check_numbers(e, r, head));
	if (counts && !digest_equal(&s->digest, &head->digest))
		return err_set(ERR_DUPLICATE, "another update of %s has been accepted for round %" PRIu32 " already",
			       plant, head->update.round);
	if (!counts && s->uploading)
		return err_set(ERR_UNAVAILABLE, "an earlier stream of this update has not ended; try again");
	if (counts)
		write_receipt(head, s->time_ms, true, ret_receipt);
	*ret_run = r;
	*ret_seat = counts ? NULL : s;
	return ERR_OK;
}

static enum err why_not_open(struct engine *e, const struct wire_head *head, enum err refusal, const char *text)
{
	struct job_row j;
	/* ERR_NOT_FOUND: there has never been such a job. */
	TRY(trouble_hide(db_job_get(e->config.db, head->update.job, &j), "looking for a job", TROUBLE_READ));
	job_row_deinit(&j);
	return err_set(refusal, "%s", text);
}

/* The round has gone on, but perhaps with this update: then the plant has missed its receipt. Otherwise the refusal stands. */
static enum err look_back(struct engine *e, const char *plant, const struct wire_head *head, enum err refusal,
			  struct wire_receipt *ret_receipt)
{
	struct update_row u;
	char *text = mem_str(err_text());
	enum err err = db_update_get(e->config.db, head->update.job, head->update.round, plant, &u);
	if (err == ERR_OK && digest_equal(&u.digest, &head->digest))
		write_receipt(head, u.time_ms, true, ret_receipt);
	else if (err == ERR_OK || err == ERR_NOT_FOUND)
		err = why_not_open(e, head, refusal, text);
	else
		err = trouble_hide(err, "looking for an update", TROUBLE_READ);
	free(text);
	return err;
}

static void let_go(struct upload *u)
{
	struct engine *e = u->engine;
	pthread_mutex_lock(&e->lock);
	u->seat->uploading = false;
	/* Revoked while it was sending: the round was left waiting for it. */
	if (!u->run->ended && !registry_is_enrolled(e->config.registry, ROLE_PLANT, u->seat->plant) &&
	    engine_dismiss(e, u->run, u->seat->plant))
		engine_wake(e);
	engine_release_run(e, u->run);
	pthread_mutex_unlock(&e->lock);
	free(u);
}

enum err engine_upload_begin(struct engine *e, const char *plant, const struct wire_head *head,
			     struct upload **ret_upload, struct wire_receipt *ret_receipt)
{
	struct run *r = NULL;
	struct seat *s = NULL;
	if (!head->has_update)
		return err_set(ERR_MALFORMED, "an update begins with a head that says which round it is for");
	if (head->offset != 0)
		return err_set(ERR_MALFORMED, "an update begins at offset 0");
	pthread_mutex_lock(&e->lock);
	enum err err = judge(e, plant, head, &r, &s, ret_receipt);
	if (err == ERR_OK && s != NULL) {
		s->uploading = true;
		r->users++;
	}
	pthread_mutex_unlock(&e->lock);
	if (err == ERR_STALE)
		err = look_back(e, plant, head, err, ret_receipt);
	TRY(err);
	if (s == NULL) {
		*ret_upload = NULL;
		return ERR_OK;
	}
	struct upload *u = mem_new(sizeof *u);
	*u = (struct upload){.engine = e, .run = r, .seat = s, .head = *head};
	u->key = (struct spool_key){.job = r->id, .round = head->update.round, .plant = s->plant};
	err = spool_begin(e->config.dir, &u->key, r->plan->manifest, r->plan->config.norm_max, head->size,
			  &head->digest, &u->entry);
	err = trouble_hide_file(err, spooling, TROUBLE_STORE);
	if (err != ERR_OK) {
		let_go(u);
		return err;
	}
	*ret_upload = u;
	return ERR_OK;
}

/* ---- the pieces ---- */

static enum err still_open(struct upload *u)
{
	pthread_mutex_lock(&u->engine->lock);
	enum err err = check_open(u->engine, u->run, &u->head);
	pthread_mutex_unlock(&u->engine->lock);
	return err;
}

enum err engine_upload_add(struct upload *u, struct bytes piece)
{
	TRY(still_open(u));
	return trouble_hide_file(spool_add(u->entry, piece), spooling, TROUBLE_STORE);
}

void engine_upload_abort(struct upload *u)
{
	if (u == NULL)
		return;
	spool_abort(u->entry);
	let_go(u);
}

/* ---- the end ---- */

static void drop_file(const struct upload *u)
{
	char *text = mem_str(err_text());
	if (spool_remove(u->engine->config.dir, &u->key) != ERR_OK)
		log_warn("engine", "%s", err_text());
	err_set(ERR_OK, "%s", text);
	free(text);
}

static enum err begin_recording(struct upload *u)
{
	pthread_mutex_lock(&u->engine->lock);
	enum err err = check_open(u->engine, u->run, &u->head);
	if (err == ERR_OK)
		u->run->recording++;
	pthread_mutex_unlock(&u->engine->lock);
	return err;
}

static void count(struct upload *u, const struct update_row *row, bool durable)
{
	struct engine *e = u->engine;
	struct run *r = u->run;
	struct notices notices = {0};
	enum round_action action;
	pthread_mutex_lock(&e->lock);
	r->recording--;
	if (durable) {
		u->seat->accepted = true;
		u->seat->digest = row->digest;
		u->seat->samples = row->samples;
		u->seat->time_ms = row->time_ms;
		r->bytes_up += row->size;
		/* What it asks for is found by the thread, which looks at every open round. */
		ENSURE(round_step(&r->round, ROUND_EVENT_ACCEPTED, row->time_ms, &action) == ERR_OK);
		r->version++;
		engine_tell_watchers(e, r, &notices);
	}
	engine_wake(e);
	pthread_mutex_unlock(&e->lock);
	notices_send(&notices, e->config.db);
}

static enum err record(struct upload *u, double norm, struct wire_receipt *ret_receipt)
{
	const struct wire_update_head *head = &u->head.update;
	struct update_row row = {
		.job = head->job,
		.round = head->round,
		.size = u->head.size,
		.digest = u->head.digest,
		.samples = head->samples,
		.norm = norm,
		.time_ms = engine_wall_ms(u->engine),
		.metrics = head->metrics,
	};
	memcpy(row.plant, u->seat->plant, sizeof row.plant);
	enum err err = begin_recording(u);
	if (err == ERR_OK) {
		err = db_update_add(u->engine->config.db, &row);
		count(u, &row, err == ERR_OK);
	}
	/* A commit that failed may come back after a crash: only a refusal says that there is no row, and then the file goes. The same
	 * update, sent again, finds the file and is welcome. */
	if (err == ERR_STALE || err == ERR_DUPLICATE)
		drop_file(u);
	TRY(trouble_hide(err, "recording an update", TROUBLE_STORE));
	log_info("round", "accepted job=%" PRIu64 " round=%" PRIu32 " plant=%s samples=%" PRIu64 " norm=%.4g", row.job,
		 row.round, row.plant, row.samples, norm);
	write_receipt(&u->head, row.time_ms, false, ret_receipt);
	return ERR_OK;
}

enum err engine_upload_commit(struct upload *u, struct wire_receipt *ret_receipt)
{
	double norm;
	enum err err = still_open(u);
	if (err != ERR_OK) {
		engine_upload_abort(u);
		return err;
	}
	err = trouble_hide_file(spool_finish(u->entry, &norm), spooling, TROUBLE_STORE);
	if (err == ERR_OK)
		spool_free(u->entry);
	else
		spool_abort(u->entry);
	u->entry = NULL;
	if (err == ERR_OK)
		err = record(u, norm, ret_receipt);
	let_go(u);
	return err;
}
