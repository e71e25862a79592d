/*
 * What a revoked plant means for rounds; what plants report, and what was sent to them.
 */
#include "coordinator/engine_parts.h"

#include "coordinator/trouble.h"

#include <inttypes.h>

/* ---- revoked plants ---- */

bool engine_dismiss(struct engine *e, struct run *r, const char *plant)
{
	(void)e;
	struct seat *s = run_seat(r, plant);
	if (s == NULL || !s->invited || s->accepted || s->uploading || r->round.phase != ROUND_OPEN || r->closing)
		return false;
	s->invited = false;
	r->version++;
	/* Fewer than the quorum can no longer come together: the record stays as it was opened, and the round ends now. */
	if (r->round.cohort == r->round.quorum) {
		r->round.lost = true;
		return true;
	}
	r->round.cohort--;
	if (r->round.goal > r->round.cohort)
		r->round.goal = r->round.cohort;
	return true;
}

void engine_dismiss_absent(struct engine *e, struct run *r)
{
	for (size_t i = 0; i < r->n_seats; i++) {
		if (!registry_is_enrolled(e->config.registry, ROLE_PLANT, r->seats[i].plant))
			engine_dismiss(e, r, r->seats[i].plant);
	}
}

void engine_revoked(struct engine *e, const char *plant)
{
	struct notices notices = {0};
	pthread_mutex_lock(&e->lock);
	struct waiter *w = lobby_task_of(&e->lobby, plant);
	if (w != NULL) {
		lobby_remove(&e->lobby, w);
		notice_refuse(&notices, w, ERR_DENIED, "this plant's certificate has been revoked");
	}
	for (size_t i = 0; i < e->n_runs; i++) {
		if (engine_dismiss(e, e->runs[i], plant))
			engine_tell_watchers(e, e->runs[i], &notices);
	}
	engine_wake(e);
	pthread_mutex_unlock(&e->lock);
	notices_send(&notices, e->config.db);
}

/* ---- reports and figures ---- */

static enum err take_report(struct engine *e, const char *plant, const struct wire_report *report)
{
	struct job_row j;
	TRY(db_job_has(e->config.db, plant, report->job));
	TRY(db_job_get(e->config.db, report->job, &j));
	uint32_t last = j.round;
	job_row_deinit(&j);
	if (report->round > last)
		return err_set(ERR_STALE, "job %" PRIu64 " has no round %" PRIu32 " yet", report->job, report->round);
	TRY(db_job_owns(e->config.db, plant, &report->model));
	return db_report_put(e->config.db, plant, report, engine_wall_ms(e));
}

enum err engine_report(struct engine *e, const char *plant, const struct wire_report *report)
{
	/* Its plant repeats it, and sends no update before. */
	return engine_hide(e, report->job, take_report(e, plant, report), "recording a report", trouble_hide);
}

void engine_sent(struct engine *e, const char *plant, const struct digest *model, uint64_t bytes)
{
	pthread_mutex_lock(&e->lock);
	for (size_t i = 0; i < e->n_runs; i++) {
		struct run *r = e->runs[i];
		bool ours = digest_equal(&r->base, model) || digest_equal(&r->source, model);
		if (ours && run_seat(r, plant) != NULL) {
			r->bytes_down += bytes;
			break;
		}
	}
	pthread_mutex_unlock(&e->lock);
}
