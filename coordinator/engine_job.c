/*
 * Jobs started, stopped and resumed.
 *
 * A job that goes on keeps its number, its configuration and its rounds; what is lost is the round that it ended in. Everything that can be
 * refused is, before the transaction that makes it run again, because from there on it runs: here, or after a restart.
 */
#include "coordinator/engine_parts.h"

#include "base/log.h"
#include "coordinator/aggregate.h"
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
	struct model *source = NULL;
	struct plan *plan = NULL;
	TRY(load_source(e, &request->source, ret_source_size, &source));
	enum err err = plan_make(buf_bytes(&request->config), source, &plan);
	char path[PATH_SIZE];
	model_free(source);
	/* What plants can load and we cannot combine would only be noticed at the end of a round. */
	if (err == ERR_OK) {
		err = aggregate_check_base(store_path(e->config.store, &request->source, path), plan->manifest);
		if (err != ERR_OK)
			plan_release(plan);
	}
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

static enum err check_size(const char *name, int64_t wanted, size_t plants)
{
	if (wanted <= (int64_t)plants)
		return ERR_OK;
	return err_set(ERR_CONFIG, "%s: %lld updates cannot come from the %zu plants that are enrolled", name,
		       (long long)wanted, plants);
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
	if (err == ERR_OK)
		err = check_size("quorum", c->quorum, n);
	if (err == ERR_OK)
		err = check_size("goal", c->goal, n);
	if (err == ERR_OK)
		err = check_size("cohort", c->cohort, n);
	if (err == ERR_OK)
		err = fixed_check_cohort(n, FIXED_WEIGHT_MAX);
	if (err != ERR_OK) {
		buf_deinit(&cohort);
		return err;
	}
	*ret_cohort = cohort;
	return ERR_OK;
}

/* The round's row is durable: let plants hear of it. */
static void enter(struct engine *e, struct run *r, const struct round_row *round, struct blob *base_copy)
{
	struct notices notices = {0};
	log_info("round",
		 "opened job=%" PRIu64 " round=%" PRIu32 " cohort=%" PRIu32 " goal=%" PRIu32 " quorum=%" PRIu32, r->id,
		 round->state.number, round->state.cohort, round->state.goal, round->state.quorum);
	pthread_mutex_lock(&e->lock);
	run_open_round(r, round, base_copy);
	engine_add_run(e, r);
	engine_dismiss_absent(e, r);
	engine_tell_open(e, r, &notices);
	engine_wake(e);
	pthread_mutex_unlock(&e->lock);
	notices_send(&notices, e->config.db);
}

/* Write the job, then let plants hear of it. */
static enum err launch(struct engine *e, struct job_row *j, struct plan *plan, struct bytes cohort, uint64_t *ret_job)
{
	struct round_row first;
	uint64_t id = 0;
	struct run *r = run_new(j, plan, cohort);
	enum err err = run_next_round(r, e->config.registry, &j->source, j->source_size, j->created_ms, &first);
	if (err != ERR_OK) {
		run_free(r);
		return err;
	}
	j->round = first.state.number;
	err = db_job_start(e->config.db, j, cohort, &first, &id);
	if (err == ERR_OK) {
		r->id = id;
		r->version = (uint64_t)j->created_ms;
		log_info("job", "started job=%" PRIu64 " name=%s rounds=%" PRIu32 " plants=%zu update_bytes=%zu", id,
			 r->name, j->rounds, r->n_seats, manifest_update_bytes(plan->manifest));
		enter(e, r, &first, engine_copy_base(e, &first));
		*ret_job = id;
	} else {
		run_free(r);
	}
	round_row_deinit(&first);
	return err;
}

/* The updates of a round, and of the rounds whose updates are kept. */
static enum err check_room(struct engine *e, const struct plan *plan, size_t plants)
{
	const struct job_config *c = &plan->config;
	uint64_t kept = job_keep_updates(c), n = plants;
	if (c->goal > 0)
		n = (uint64_t)c->goal;
	else if (c->cohort > 0)
		n = (uint64_t)c->cohort;
	if (kept == JOB_KEEP_ALL) {
		log_warn("job", "%s keeps the updates of all rounds: the spool grows until spool_bytes_max", c->name);
		kept = 0;
	}
	return spool_check_room(e->spool, n * (kept + 1), manifest_update_bytes(plan->manifest));
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
	enum err err = check_room(e, plan, count_plants(&cohort));
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

/* The source may be another job's old model, which is needed only once this job's row says so; it may have gone while it was read, for the
 * engine's thread does not wait for that. */
static enum err start_held(struct engine *e, const struct wire_start_job *request, struct plan *plan,
			   uint64_t source_size, uint64_t *ret_job)
{
	char text[DIGEST_TEXT_SIZE];
	retention_hold(e->retention);
	enum err err = store_has(e->config.store, &request->source, NULL)
			       ? start(e, request, plan, source_size, ret_job)
			       : err_set(ERR_NOT_FOUND, "model %s has been removed meanwhile; publish it again",
					 digest_format(&request->source, text));
	retention_release(e->retention);
	return err;
}

enum err engine_job_start(struct engine *e, const struct wire_start_job *request, uint64_t *ret_job)
{
	struct plan *plan = NULL;
	uint64_t source_size;
	TRY(make_plan(e, request, &source_size, &plan));
	enum err err = take_place(e, plan->config.name);
	if (err == ERR_OK) {
		err = start_held(e, request, plan, source_size, ret_job);
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

enum err engine_job_stop(struct engine *e, uint64_t job)
{
	enum err err = ERR_OK;
	pthread_mutex_lock(&e->lock);
	struct run *r = engine_find(e, job);
	bool running = r != NULL;
	if (running && e->draining) {
		err = err_set(ERR_UNAVAILABLE, ENGINE_STOPPING);
	} else if (running) {
		r->stop_asked = true;
		r->retry_at_ms = 0;
		engine_wake(e);
	}
	pthread_mutex_unlock(&e->lock);
	return running ? err : why_not_running(e, job);
}

/* ---- resuming ---- */

/* What the next round needs is checked while the job can still be left as it is. */
static enum err check_resume(struct engine *e, const struct job_row *j, const struct run *r)
{
	char text[DIGEST_TEXT_SIZE];
	size_t bytes = manifest_update_bytes(r->plan->manifest);
	const struct digest *base = digest_is_zero(&j->model) ? &j->source : &j->model;
	if (!store_has(e->config.store, &j->source, NULL))
		return err_set(ERR_NOT_FOUND, "the job's source model %s is not in the store",
			       digest_format(&j->source, text));
	if (!store_has(e->config.store, base, NULL))
		return err_set(ERR_NOT_FOUND, "the job's last model %s is not in the store", digest_format(base, text));
	if (bytes > e->config.upload_bytes_max)
		return err_set(ERR_LIMIT, "an update has %zu bytes; upload_bytes_max of this coordinator is %" PRIu64,
			       bytes, e->config.upload_bytes_max);
	return check_room(e, r->plan, r->n_seats);
}

/* Takes over `r`. */
static enum err go_on(struct engine *e, const struct job_row *j, struct run *r)
{
	struct round_row next;
	int64_t now = engine_wall_ms(e);
	bool has_model = !digest_is_zero(&j->model);
	enum err err = check_resume(e, j, r);
	if (err == ERR_OK)
		err = run_next_round(r, e->config.registry, has_model ? &j->model : &j->source,
				     has_model ? j->model_size : j->source_size, now, &next);
	if (err != ERR_OK) {
		run_free(r);
		return err;
	}
	err = db_job_resume(e->config.db, j->id, &next);
	if (err == ERR_OK) {
		r->failures = 0;
		/* Watchers have seen the end, whose version is its time. */
		r->version = (uint64_t)(now > j->ended_ms ? now : j->ended_ms) + 1;
		log_info("job", "resumed job=%" PRIu64 " name=%s", r->id, r->name);
		enter(e, r, &next, engine_copy_base(e, &next));
	} else {
		run_free(r);
	}
	round_row_deinit(&next);
	return err;
}

static enum err check_ended(const struct job_row *j)
{
	if (j->state == WIRE_JOB_DONE)
		return err_set(ERR_STATE,
			       "job %" PRIu64
			       " is done: all its rounds are committed; start another job from its model",
			       j->id);
	if (j->state == WIRE_JOB_RUNNING)
		return err_set(ERR_STATE, "job %" PRIu64 " is running", j->id);
	return ERR_OK;
}

static enum err resume(struct engine *e, uint64_t job)
{
	struct job_row j;
	struct run *r;
	/* Asked again, with its place taken: nobody else resumes it now. */
	TRY(db_job_get(e->config.db, job, &j));
	enum err err = check_ended(&j);
	if (err == ERR_OK)
		err = run_take_up(e->config.db, &j, &r);
	if (err == ERR_OK)
		err = go_on(e, &j, r);
	job_row_deinit(&j);
	return err;
}

enum err engine_job_resume(struct engine *e, uint64_t job)
{
	struct job_row j;
	TRY(db_job_get(e->config.db, job, &j));
	enum err err = check_ended(&j);
	if (err == ERR_OK)
		err = take_place(e, j.name);
	if (err == ERR_OK) {
		err = resume(e, job);
		leave_place(e, j.name);
	}
	job_row_deinit(&j);
	return err;
}
