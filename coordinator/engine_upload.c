/*
 * Updates on their way in. Receiving, checking and syncing happen on the thread that brings the update, without the lock; the lock is taken
 * to judge the head, to claim the seat, and at the end to count.
 *
 * The end, in this order: under the lock it is asked once more which round the update counts in, and `recording` keeps that one from being
 * closed; a large update is checked and synced (spool.c); bytes of a small one and the row become durable, together with those of others
 * (ledger.c); under the lock the round is told. A crash before the row leaves bytes that nobody speaks of, a crash after it leaves an
 * update that counts and a plant without a receipt: it sends again and gets it.
 *
 * A cut stream leaves what it has brought (engine_upload_suspend()), as long as the round would still take it. So does one that is
 * complete while no round takes it: then the plant tries again, finds that all of it is there, and sends nothing.
 */
#include "coordinator/engine_parts.h"

#include "base/log.h"
#include "coordinator/trouble.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char spooling[] = "spooling an update";

struct upload {
	struct engine *engine;
	struct run *run;   /* one of its users */
	struct seat *seat; /* claimed: `uploading` */
	struct wire_head head;
	struct spool_key key;
	struct spool_entry *entry;
};

static void let_go(struct upload *u)
{
	engine_leave_seat(u->engine, u->run, u->seat);
	free(u);
}

/* What we do ourselves to the update, while nothing comes. */
static void set_working(struct upload *u, bool working)
{
	struct engine *e = u->engine;
	pthread_mutex_lock(&e->lock);
	u->seat->working = working;
	u->seat->progress_ms = engine_monotonic_ms(e);
	pthread_mutex_unlock(&e->lock);
}

enum err engine_upload_begin(struct engine *e, const char *plant, const struct wire_head *head,
			     struct upload **ret_upload, struct wire_receipt *ret_receipt)
{
	struct run *r = NULL;
	struct seat *s = NULL;
	if (!head->has_update)
		return err_set(ERR_MALFORMED, "an update begins with a head that says which round it is for");
	if (head->offset > head->size)
		return err_set(ERR_MALFORMED, "offset %" PRIu64 " is behind the end of an update of %" PRIu64 " bytes",
			       head->offset, head->size);
	TRY(engine_judge(e, plant, head, &r, &s, ret_receipt));
	if (s == NULL) {
		*ret_upload = NULL;
		return ERR_OK;
	}
	struct upload *u = mem_new(sizeof *u);
	*u = (struct upload){.engine = e, .run = r, .seat = s, .head = *head};
	u->key = (struct spool_key){.job = r->id, .round = head->update.round, .plant = s->plant};
	set_working(u, true);
	enum err err = spool_begin(e->spool, &u->key, r->plan->manifest, r->plan->config.norm_max, head->size,
				   &head->digest, head->offset, &u->entry);
	set_working(u, false);
	err = engine_hide(e, r->id, err, spooling, trouble_hide_file);
	if (err != ERR_OK) {
		let_go(u);
		return err;
	}
	*ret_upload = u;
	return ERR_OK;
}

/* Nothing of a large update is there, or the round does not want it: 0 is an answer to everything. */
void engine_upload_offset(struct engine *e, const char *plant, const struct wire_upload_offset_request *request,
			  struct wire_upload_offset_reply *ret_reply)
{
	const struct wire_head head = {.update = {.job = request->job, .round = request->round}};
	pthread_mutex_lock(&e->lock);
	const struct run *r = engine_find(e, request->job);
	bool open = r != NULL && engine_check_open(e, r, &head) == ERR_OK;
	const struct seat *s = open ? run_seat(r, plant) : NULL;
	bool wanted = s != NULL && s->invited && !s->accepted;
	pthread_mutex_unlock(&e->lock);
	const struct spool_key key = {.job = request->job, .round = request->round, .plant = plant};
	*ret_reply = (struct wire_upload_offset_reply){
		.offset = wanted ? spool_received(e->spool, &key, &request->digest, request->size) : 0};
}

/* ---- the pieces ---- */

static enum err still_open(struct upload *u)
{
	struct engine *e = u->engine;
	pthread_mutex_lock(&e->lock);
	enum err err = engine_check_open(e, u->run, &u->head);
	pthread_mutex_unlock(&e->lock);
	return err;
}

enum err engine_upload_add(struct upload *u, const struct bytes *pieces, size_t n)
{
	struct engine *e = u->engine;
	pthread_mutex_lock(&e->lock);
	enum err err = engine_check_open(e, u->run, &u->head);
	u->seat->progress_ms = engine_monotonic_ms(e);
	pthread_mutex_unlock(&e->lock);
	TRY(err);
	return engine_hide(e, u->run->id, spool_add(u->entry, pieces, n), spooling, trouble_hide_file);
}

/* What has come stays while it may still count. */
static void leave(struct upload *u)
{
	if (still_open(u) != ERR_OK) {
		spool_abort(u->entry);
		return;
	}
	spool_suspend(u->entry);
	/* The round may have ended in between, and looked for what nobody needs before this was left. */
	if (still_open(u) != ERR_OK)
		spool_remove_parts(u->engine->spool, u->key.job, u->key.round);
}

void engine_upload_suspend(struct upload *u)
{
	if (u == NULL)
		return;
	leave(u);
	let_go(u);
}

void engine_upload_abort(struct upload *u)
{
	if (u == NULL)
		return;
	spool_abort(u->entry);
	let_go(u);
}

/* ---- the end ---- */

/* Here it is settled in which round the update counts. */
static enum err begin_recording(struct upload *u, uint32_t *ret_round)
{
	pthread_mutex_lock(&u->engine->lock);
	enum err err = engine_find_round(u->engine, u->run, u->seat, &u->head, ret_round);
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
	enum round_action action = ROUND_NOTHING;
	pthread_mutex_lock(&e->lock);
	r->recording--;
	if (durable) {
		u->seat->accepted = true;
		u->seat->digest = row->digest;
		u->seat->samples = row->samples;
		u->seat->time_ms = row->time_ms;
		u->seat->base_round = row->base_round;
		u->seat->place = row->place;
		u->seat->verified = true;
		r->bytes_up += row->size;
		r->trouble[0] = '\0';
		ENSURE(round_step(&r->round, ROUND_EVENT_ACCEPTED, row->time_ms, &action) == ERR_OK);
		r->version++;
		engine_tell_watchers(e, r, &notices);
	}
	/* The thread finds by itself what the round asks for; it is woken for that, and not for every update. */
	r->held_up = r->held_up || action != ROUND_NOTHING;
	if (r->held_up && r->recording == 0)
		engine_wake(e);
	pthread_mutex_unlock(&e->lock);
	notices_send(&notices, e->config.db);
}

/* The row's fate is that of the bytes; ends the entry. A commit that failed may come back after a crash: only a refusal says that there is no
 * row. */
static void settle(struct upload *u, enum err err)
{
	bool refused = err == ERR_STALE || err == ERR_DENIED || err == ERR_DUPLICATE;
	if (err == ERR_OK)
		spool_free(u->entry);
	else if (refused)
		spool_abort(u->entry);
	else
		spool_doubt(u->entry);
}

/* Bytes and row are durable. Ends the entry. */
static enum err store(struct upload *u, struct update_row *row)
{
	struct engine *e = u->engine;
	enum err err = spool_finish(u->entry, &row->norm);
	if (err != ERR_OK) {
		err = engine_hide(e, row->job, err, spooling, trouble_hide_file);
		spool_abort(u->entry);
		return err;
	}
	row->time_ms = engine_wall_ms(e);
	err = ledger_commit(e->ledger, row, spool_is_small(u->entry) ? u->entry : NULL);
	err = engine_hide(e, row->job, err, "recording an update", trouble_hide_file);
	settle(u, err);
	return err;
}

/* And the round knows. When no round takes it just now, but the next one may, all of it stays. Ends the entry. */
static enum err write_down(struct upload *u, struct update_row *row)
{
	enum err err = begin_recording(u, &row->round);
	if (err != ERR_OK) {
		char *text = mem_str(err_text());
		if (err == ERR_UNAVAILABLE)
			leave(u);
		else
			spool_abort(u->entry);
		err_set(err, "%s", text);
		free(text);
		return err;
	}
	err = store(u, row);
	count(u, row, err == ERR_OK);
	return err;
}

static enum err record(struct upload *u, struct wire_receipt *ret_receipt)
{
	const struct wire_update_head *head = &u->head.update;
	struct update_row row = {
		.job = head->job,
		.base_round = u->key.round,
		.place = -1,
		.size = u->head.size,
		.digest = u->head.digest,
		.samples = head->samples,
		.metrics = head->metrics,
	};
	memcpy(row.plant, u->seat->plant, sizeof row.plant);
	TRY(write_down(u, &row));
	log_info("round",
		 "accepted job=%" PRIu64 " round=%" PRIu32 " plant=%s samples=%" PRIu64 " norm=%.4g late=%" PRIu32,
		 row.job, row.round, row.plant, row.samples, row.norm, row.round - row.base_round);
	engine_write_receipt(&u->head, row.time_ms, false, ret_receipt);
	return ERR_OK;
}

enum err engine_upload_commit(struct upload *u, struct wire_receipt *ret_receipt)
{
	set_working(u, true);
	enum err err = still_open(u);
	if (err == ERR_OK)
		err = record(u, ret_receipt);
	else
		spool_abort(u->entry);
	let_go(u);
	return err;
}
