/*
 * May an update come in? Its head is judged against the round under the engine's lock, and when it is welcome its seat is claimed: from
 * then on no other stream of the plant is.
 */
#include "coordinator/engine_parts.h"

#include "coordinator/trouble.h"
#include "update/fixed.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

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

enum err engine_check_open(const struct engine *e, const struct run *r, const struct wire_head *head)
{
	if (r == NULL || r->ended || r->round.number != head->update.round || r->closing)
		return err_set(ERR_STALE, "round %" PRIu32 " of job %" PRIu64 " is not open", head->update.round,
			       head->update.job);
	return round_accepts(&r->round, engine_wall_ms(e));
}

void engine_write_receipt(const struct wire_head *head, int64_t time_ms, bool repeated, struct wire_receipt *out)
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
		TRY(engine_check_open(e, r, head));
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
		engine_write_receipt(head, s->time_ms, true, ret_receipt);
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
		engine_write_receipt(head, u.time_ms, true, ret_receipt);
	else if (err == ERR_OK || err == ERR_NOT_FOUND)
		err = why_not_open(e, head, refusal, text);
	else
		err = trouble_hide(err, "looking for an update", TROUBLE_READ);
	free(text);
	return err;
}

enum err engine_judge(struct engine *e, const char *plant, const struct wire_head *head, struct run **ret_run,
		      struct seat **ret_seat, struct wire_receipt *ret_receipt)
{
	struct run *r = NULL;
	struct seat *s = NULL;
	pthread_mutex_lock(&e->lock);
	enum err err = judge(e, plant, head, &r, &s, ret_receipt);
	if (err == ERR_OK && s != NULL) {
		s->uploading = true;
		r->users++;
	}
	pthread_mutex_unlock(&e->lock);
	if (err == ERR_STALE) {
		r = NULL;
		s = NULL;
		err = look_back(e, plant, head, err, ret_receipt);
	}
	TRY(err);
	*ret_run = r;
	*ret_seat = s;
	return ERR_OK;
}
