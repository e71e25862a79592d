/*
 * May an update come in? Its head is judged against the round under the engine's lock, and when it is welcome its seat is claimed: from
 * then on no other stream of the plant is.
 *
 * Late updates. Where the job carries them, an update that was made from the base of an earlier round counts in the round that is open when
 * it is recorded: it takes its plant's seat there, and weighs less (staleness.h). So the question "which round?" is asked three times: at the
 * head, to refuse what is hopeless; while it comes, where a round that closes does no harm as long as the job goes on; and when it is
 * recorded, where the answer counts. While a round is being closed there is none: the plant is told to try again, and finds the next.
 * What was counted once is found again by the round whose base it was made from, of which the database takes one of each plant.
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
	const struct digest *base = run_base(r, u->round);
	if (base == NULL || !digest_equal(&u->base, base))
		return err_set(ERR_STALE, "wrong base: the update was not made from the base model of round %" PRIu32,
			       u->round);
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

/* Could an update of this round count in the present one, whatever that does just now? */
static enum err check_age(const struct run *r, const struct wire_head *head)
{
	uint32_t made = head->update.round;
	if (r == NULL || r->ended || made > r->round.number || (made < r->round.number && !run_carries(r)))
		return err_set(ERR_STALE, "round %" PRIu32 " of job %" PRIu64 " is not open", made, head->update.job);
	if (r->round.number - made > (uint32_t)r->plan->config.late_max)
		return err_set(ERR_STALE,
			       "too late: round %" PRIu32 " is open, and an update may be late by %lld rounds",
			       r->round.number, (long long)r->plan->config.late_max);
	return ERR_OK;
}

/* `begun`: in time, so it has the time of grace. */
static enum err check_round(const struct engine *e, const struct run *r, const struct wire_head *head, bool begun)
{
	int64_t now = engine_wall_ms(e);
	TRY(check_age(r, head));
	enum err err = r->closing ? err_set(ERR_STALE, "round %" PRIu32 " of job %" PRIu64 " is not open",
					    r->round.number, r->id)
				  : (begun ? round_finishes(&r->round, now) : round_accepts(&r->round, now));
	/* The next round takes it. */
	if (err == ERR_STALE && run_carries(r))
		return err_add(ERR_UNAVAILABLE, "the update counts in the next round, try again");
	return err;
}

enum err engine_check_open(const struct engine *e, const struct run *r, const struct wire_head *head)
{
	TRY(check_age(r, head));
	return run_carries(r) ? ERR_OK : check_round(e, r, head, true);
}

/* Of a round of the job: is this plant's seat there free? */
static enum err check_seat(const struct run *r, const struct seat *s, const char *plant, const struct wire_head *head)
{
	if (s == NULL || (!s->invited && r->round.number == head->update.round))
		return err_set(ERR_DENIED, "%s is not in the cohort of round %" PRIu32 " of job %" PRIu64, plant,
			       head->update.round, head->update.job);
	if (!s->invited)
		return err_set(ERR_STALE, "too late: round %" PRIu32 ", which is open, does not ask %s",
			       r->round.number, plant);
	if (s->accepted)
		return err_set(ERR_DUPLICATE, "another update of %s has been accepted for round %" PRIu32 " already",
			       plant, r->round.number);
	return ERR_OK;
}

enum err engine_find_round(const struct engine *e, const struct run *r, const struct seat *s,
			   const struct wire_head *head, uint32_t *ret_round)
{
	TRY(check_round(e, r, head, true));
	TRY(check_seat(r, s, s->plant, head));
	*ret_round = r->round.number;
	return ERR_OK;
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
	struct seat *s = r != NULL ? run_seat(r, plant) : NULL;
	/* The last update closes the round to others, but its own plant may ask again. */
	bool same_round = s != NULL && s->accepted && s->base_round == head->update.round;
	if (!same_round) {
		TRY(check_round(e, r, head, false));
		TRY(check_seat(r, s, plant, head));
	}
	TRY(check_numbers(e, r, head));
	bool counts = same_round && digest_equal(&s->digest, &head->digest);
	if (same_round && !counts)
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

/* The round has gone on, but perhaps with this update: then the plant has missed its receipt. Otherwise the refusal stands; with ERR_OK,
 * there is none. */
static enum err look_back(struct engine *e, const char *plant, const struct wire_head *head, enum err refusal,
			  bool *ret_counts, struct wire_receipt *ret_receipt)
{
	struct update_row u;
	char *text = mem_str(err_text());
	enum err err = db_update_find(e->config.db, head->update.job, head->update.round, plant, &u);
	bool found = err == ERR_OK, counts = found && digest_equal(&u.digest, &head->digest);
	if (counts)
		engine_write_receipt(head, u.time_ms, true, ret_receipt);
	else if (found && refusal == ERR_OK)
		err = err_set(ERR_DUPLICATE, "another update of %s has been accepted for round %" PRIu32 " already",
			      plant, head->update.round);
	else if (found || err == ERR_NOT_FOUND)
		err = refusal == ERR_OK ? ERR_OK : why_not_open(e, head, refusal, text);
	else
		err = trouble_hide(err, "looking for an update", TROUBLE_READ);
	free(text);
	TRY(err);
	*ret_counts = counts;
	return ERR_OK;
}

static enum err claim(struct engine *e, const char *plant, const struct wire_head *head, bool *ret_late,
		      struct run **ret_run, struct seat **ret_seat, struct wire_receipt *ret_receipt)
{
	pthread_mutex_lock(&e->lock);
	enum err err = judge(e, plant, head, ret_run, ret_seat, ret_receipt);
	if (err == ERR_OK && *ret_seat != NULL) {
		struct seat *s = *ret_seat;
		s->uploading = true;
		s->upload_round = head->update.round;
		s->progress_ms = engine_monotonic_ms(e);
		(*ret_run)->users++;
		*ret_late = (*ret_run)->round.number != head->update.round;
	}
	pthread_mutex_unlock(&e->lock);
	return err;
}

void engine_leave_seat(struct engine *e, struct run *r, struct seat *s)
{
	bool dismissed = false;
	pthread_mutex_lock(&e->lock);
	s->uploading = s->working = false;
	/* Revoked while it was sending: the round was left waiting for it. So was one that is past its deadline. */
	if (!r->ended && !registry_is_enrolled(e->config.registry, ROLE_PLANT, s->plant))
		dismissed = engine_dismiss(e, r, s->plant);
	if (dismissed || (r->round.phase == ROUND_OPEN && engine_wall_ms(e) >= r->round.deadline_ms))
		engine_wake(e);
	engine_release_run(e, r);
	pthread_mutex_unlock(&e->lock);
}

/* Has this plant's update of that round been counted in another one? Only a plant that missed its receipt asks, or one that is wrong; the
 * seat is claimed, so no other stream of it is about to be. */
static enum err look_for_late(struct engine *e, const char *plant, const struct wire_head *head, struct run *r,
			      struct seat **seat, struct wire_receipt *ret_receipt)
{
	bool counts = false;
	enum err err = look_back(e, plant, head, ERR_OK, &counts, ret_receipt);
	if (err != ERR_OK || counts) {
		engine_leave_seat(e, r, *seat);
		*seat = NULL;
	}
	return err;
}

enum err engine_judge(struct engine *e, const char *plant, const struct wire_head *head, struct run **ret_run,
		      struct seat **ret_seat, struct wire_receipt *ret_receipt)
{
	struct run *r = NULL;
	struct seat *s = NULL;
	bool late = false, counts;
	enum err err = claim(e, plant, head, &late, &r, &s, ret_receipt);
	/* ERR_DUPLICATE: another update of the plant is in the open round, but this one may count in an earlier one. */
	if (err == ERR_STALE || err == ERR_UNAVAILABLE || err == ERR_DUPLICATE) {
		r = NULL;
		s = NULL;
		err = look_back(e, plant, head, err, &counts, ret_receipt);
	} else if (err == ERR_OK && late) {
		err = look_for_late(e, plant, head, r, &s, ret_receipt);
	}
	TRY(err);
	*ret_run = r;
	*ret_seat = s;
	return ERR_OK;
}
