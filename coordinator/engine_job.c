/*
 * Jobs started and stopped; what a revoked plant means for rounds; reports and figures.
 */
#include "coordinator/engine_parts.h"

#include "base/log.h"
#include "coordinator/trouble.h"
#include "ml/safetensors.h"
#include "update/fixed.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- starting ---- */

static enum err load_source(struct engine *e, const struct digest *source, uint64_t *ret_size, struct model **ret_model)
{
	char path[PATH_SIZE], text[DIGEST_TEXT_SIZE];
	struct model *m;
	if (!store_has(e->config.store, source, ret_size))
		return err_set(ERR_NOT_FOUND, "model %s has not been published to this coordinator",
			       digest_format(source, text));
	TRY(safetensors_load(store_path(e->config.store, source, path), &m));
	enum err err = model_check_finite(m);
	if (err != ERR_OK) {
		model_free(m);
		return err;
	}
	*ret_model = m;
	return ERR_OK;
}

static enum err make_plan(struct engine *e, const struct wire_start_job *request, uint64_t *ret_source_size,
			  struct plan **ret_plan)
{
	struct model *source;
	struct plan *plan = NULL;
	TRY(load_source(e, &request->source, ret_source_size, &source));
	enum err err = plan_make(buf_bytes(&request->config), source, &plan);
	model_free(source);
	TRY(err);
	size_t bytes = manifest_update_bytes(plan->manifest);
	if (bytes > e->config.upload_bytes_max) {
		plan_release(plan);
		return err_set(ERR_LIMIT,
			       "an update would have %zu bytes; upload_bytes_max of this coordinator is %" PRIu64,
			       bytes, e->config.upload_bytes_max);
	}
	*ret_plan = plan;
	return ERR_OK;
}

static int name_order(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The plants that the job names, sorted, in the form of the database. */
static enum err named_cohort(struct engine *e, const struct config_list *plants, struct buf *out)
{
	const char **names = mem_array(plants->n, sizeof *names);
	for (size_t i = 0; i < plants->n; i++)
		names[i] = plants->v[i];
	qsort(names, plants->n, sizeof *names, name_order);
	enum err err = ERR_OK;
	for (size_t i = 0; err == ERR_OK && i < plants->n; i++) {
		if (!registry_is_enrolled(e->config.registry, ROLE_PLANT, names[i]))
			err = err_set(ERR_CONFIG, "plants: %s is not enrolled; invite it first, or leave it out",
				      names[i]);
		else
			err = buf_printf(out, "%s\n", names[i]);
	}
	free(names);
	return err;
}

static size_t count_plants(const struct buf *cohort)
{
	size_t n = 0;
	for (size_t i = 0; i < cohort->n; i++)
		n += cohort->p[i] == '\n';
	return n;
}

static enum err choose_cohort(struct engine *e, const struct job_config *c, struct buf *ret_cohort)
{
	struct buf cohort;
	enum err err;
	if (c->plants.n == 0) {
		err = registry_plants(e->config.registry, &cohort);
		if (err != ERR_OK)
			return err;
	} else {
		buf_init(&cohort, (size_t)FIXED_PLANTS_MAX * WIRE_NAME_SIZE);
		err = named_cohort(e, &c->plants, &cohort);
	}
	size_t n = count_plants(&cohort);
	if (err == ERR_OK && n == 0)
		err = err_set(ERR_CONFIG, "no plant is enrolled yet; invite some first (hansactl invite PLANT)");
	if (err == ERR_OK && (int64_t)n < c->quorum)
		err = err_set(ERR_CONFIG, "quorum: %lld updates cannot come from the %zu plants that are enrolled",
			      (long long)c->quorum, n);
	if (err == ERR_OK)
		err = fixed_check_cohort(n, FIXED_WEIGHT_MAX);
	if (err != ERR_OK) {
		buf_deinit(&cohort);
		return err;
	}
	*ret_cohort = cohort;
	return ERR_OK;
}

/* Write the job, then let plants hear of it. */
static enum err launch(struct engine *e, struct job_row *j, struct plan *plan, struct bytes cohort, uint64_t *ret_job)
{
	struct notices notices = {0};
	struct round_row first;
	struct run *r = run_new(j, plan, cohort);
	enum err err = run_next_round(r, e->config.registry, &j->source, j->source_size, j->created_ms, &first);
	if (err != ERR_OK) {
		run_free(r);
		return err;
	}
	j->round = first.state.number;
	err = db_job_start(e->config.db, j, cohort, &first, &r->id);
	if (err == ERR_OK) {
		log_info("job", "started job=%" PRIu64 " name=%s rounds=%" PRIu32 " plants=%zu update_bytes=%zu", r->id,
			 r->name, j->rounds, r->n_seats, manifest_update_bytes(plan->manifest));
		log_info("round", "opened job=%" PRIu64 " round=1 cohort=%" PRIu32 " quorum=%" PRIu32, r->id,
			 first.state.cohort, first.state.quorum);
		pthread_mutex_lock(&e->lock);
		run_open_round(r, &first);
		r->version = (uint64_t)j->created_ms;
		engine_add_run(e, r);
		engine_dismiss_absent(e, r);
		engine_tell_open(e, r, &notices);
		*ret_job = r->id;
		engine_wake(e);
		pthread_mutex_unlock(&e->lock);
		notices_send(&notices, e->config.db);
	} else {
		run_free(r);
	}
	round_row_deinit(&first);
	return err;
}

static enum err start(struct engine *e, const struct wire_start_job *request, struct plan *plan, uint64_t source_size,
		      uint64_t *ret_job)
{
	const struct job_config *c = &plan->config;
	struct buf cohort;
	struct job_row j = {
		.state = WIRE_JOB_RUNNING,
		.config = plan->config_text, /* borrowed, like the manifest: not deinitialised here */
		.manifest = plan->manifest_text,
		.config_hash = plan->config_hash,
		.source = request->source,
		.source_size = source_size,
		.rounds = (uint32_t)c->rounds,
		.created_ms = engine_wall_ms(e),
	};
	snprintf(j.name, sizeof j.name, "%s", c->name);
	TRY(choose_cohort(e, c, &cohort));
	enum err err = spool_check_room(e->spool, count_plants(&cohort), manifest_update_bytes(plan->manifest));
	if (err == ERR_OK)
		err = launch(e, &j, plan, buf_bytes(&cohort), ret_job);
	buf_deinit(&cohort);
	return err;
}

/* A place in the list, so that whoever is durable also fits. `name` is borrowed until leave_place(). */
static enum err take_place(struct engine *e, const char *name)
{
	enum err err = ERR_OK;
	pthread_mutex_lock(&e->lock);
	if (e->draining)
		err = err_set(ERR_UNAVAILABLE, ENGINE_STOPPING);
	else if (e->n_runs + e->n_starting >= ENGINE_JOBS_MAX)
		err = err_set(ERR_LIMIT, "%d jobs are running; wait for one to end, or stop one", ENGINE_JOBS_MAX);
	for (size_t i = 0; err == ERR_OK && i < e->n_runs; i++) {
		if (strcmp(e->runs[i]->name, name) == 0)
			err = err_set(ERR_STATE,
				      "a job named %s is running (job %" PRIu64
				      "); stop it first, or choose another name",
				      name, e->runs[i]->id);
	}
	for (size_t i = 0; err == ERR_OK && i < e->n_starting; i++) {
		if (strcmp(e->starting[i], name) == 0)
			err = err_set(ERR_STATE, "a job named %s is being started", name);
	}
	if (err == ERR_OK)
		e->starting[e->n_starting++] = name;
	pthread_mutex_unlock(&e->lock);
	return err;
}

static void leave_place(struct engine *e, const char *name)
{
	size_t at = 0;
	pthread_mutex_lock(&e->lock);
	while (e->starting[at] != name)
		at++;
	e->starting[at] = e->starting[--e->n_starting];
	pthread_mutex_unlock(&e->lock);
}

enum err engine_job_start(struct engine *e, const struct wire_start_job *request, uint64_t *ret_job)
{
	struct plan *plan = NULL;
	uint64_t source_size;
	TRY(make_plan(e, request, &source_size, &plan));
	enum err err = take_place(e, plan->config.name);
	if (err == ERR_OK) {
		err = start(e, request, plan, source_size, ret_job);
		leave_place(e, plan->config.name);
	}
	plan_release(plan);
	return err;
}

/* ---- stopping ---- */

static enum err why_not_running(struct engine *e, uint64_t job)
{
	struct job_row j;
	TRY(db_job_get(e->config.db, job, &j));
	enum err err = err_set(ERR_STATE, "job %" PRIu64 " has ended (%s)", job, wire_job_state_name(j.state));
	job_row_deinit(&j);
	return err;
}

/* A round that is sealed is committed first, and a full disk may hold that up for as long as it likes. */
static enum err wait_for_end(struct engine *e, uint64_t job)
{
	struct timespec until;
	int late = 0;
	clock_gettime(CLOCK_MONOTONIC, &until);
	int64_t ms = e->config.stop_ms != 0 ? e->config.stop_ms : ENGINE_STOP_MS;
	until.tv_sec += ms / 1000 + (until.tv_nsec / 1000000 + ms % 1000) / 1000;
	until.tv_nsec = (until.tv_nsec + ms % 1000 * 1000000) % 1000000000;
	while (e->threaded && !e->draining && late == 0 && engine_find(e, job) != NULL)
		late = pthread_cond_timedwait(&e->ended, &e->lock, &until);
	if (!e->threaded || engine_find(e, job) == NULL)
		return ERR_OK;
	return e->draining
		       ? err_set(ERR_UNAVAILABLE, ENGINE_STOPPING)
		       : err_set(ERR_UNAVAILABLE,
				 "job %" PRIu64 " will stop when its present step is done; see hansactl job show", job);
}

enum err engine_job_stop(struct engine *e, uint64_t job)
{
	enum err err = ERR_OK;
	pthread_mutex_lock(&e->lock);
	struct run *r = engine_find(e, job);
	bool running = r != NULL;
	if (running) {
		r->stop_asked = true;
		r->retry_at_ms = 0;
		engine_wake(e);
		err = wait_for_end(e, job);
	}
	pthread_mutex_unlock(&e->lock);
	return running ? err : why_not_running(e, job);
}

/* ---- revoked plants ---- */

bool engine_dismiss(struct engine *e, struct run *r, const char *plant)
{
	(void)e;
	struct seat *s = run_seat(r, plant);
	if (s == NULL || !s->invited || s->accepted || s->uploading || r->round.phase != ROUND_OPEN || r->closing)
		return false;
	/* Fewer than the quorum can no longer come together: the deadline says so, the record stays as it was opened. */
	if (r->round.cohort == r->round.quorum)
		return false;
	s->invited = false;
	r->round.cohort--;
	r->version++;
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
	uint64_t id;
	enum wire_job_state state;
	/* The first job after the one before it is the job itself when the plant is in it. */
	enum err err =
		report->job == 0 ? ERR_NOT_FOUND : db_job_after(e->config.db, plant, report->job - 1, &id, &state);
	if (err == ERR_NOT_FOUND || (err == ERR_OK && id != report->job))
		return err_set(ERR_NOT_FOUND, "%s is in no job %" PRIu64, plant, report->job);
	TRY(err);
	TRY(db_job_get(e->config.db, id, &j));
	uint32_t last = j.round;
	job_row_deinit(&j);
	if (report->round > last)
		return err_set(ERR_STALE, "job %" PRIu64 " has no round %" PRIu32 " yet", id, report->round);
	TRY(db_job_owns(e->config.db, plant, &report->model));
	return db_report_put(e->config.db, plant, report, engine_wall_ms(e));
}

enum err engine_report(struct engine *e, const char *plant, const struct wire_report *report)
{
	return trouble_hide(take_report(e, plant, report), "recording a report", TROUBLE_STORE);
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
