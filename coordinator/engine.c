/*
 * Opening, the thread, closing. The thread's pass: find a run that needs something, do it without the lock, look again; then answer calls
 * whose time is over, and write the roster's last calls once a minute.
 *
 * A step that fails (full disk, say) is tried again, later each time; round_resume() says what is to be done then, as after a restart.
 */
#include "coordinator/engine_parts.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdlib.h>
#include <string.h>

enum { FLUSH_MS = 60000, IDLE_MS = 60000, RETRY_FIRST_MS = 1000, RETRY_MAX_MS = 60000 };

int64_t engine_wall_ms(const struct engine *e)
{
	return e->config.wall_ms != NULL ? e->config.wall_ms() : clock_wall_ms();
}

int64_t engine_monotonic_ms(const struct engine *e)
{
	return e->config.monotonic_ms != NULL ? e->config.monotonic_ms() : clock_monotonic_ms();
}

/* ---- the list of running jobs ---- */

struct run *engine_find(const struct engine *e, uint64_t job)
{
	for (size_t i = 0; i < e->n_runs; i++) {
		if (e->runs[i]->id == job)
			return e->runs[i];
	}
	return NULL;
}

void engine_add_run(struct engine *e, struct run *r)
{
	ENSURE(e->n_runs < ENGINE_JOBS_MAX);
	size_t at = e->n_runs++;
	for (; at > 0 && e->runs[at - 1]->id > r->id; at--)
		e->runs[at] = e->runs[at - 1];
	e->runs[at] = r;
}

void engine_remove_run(struct engine *e, struct run *r)
{
	size_t at = 0;
	while (e->runs[at] != r)
		at++;
	memmove(&e->runs[at], &e->runs[at + 1], (e->n_runs - at - 1) * sizeof *e->runs);
	e->n_runs--;
	r->ended = true;
	r->ends++;
	engine_note_end(e, r->id, r->ends);
	engine_release_run(e, r);
}

void engine_note_end(struct engine *e, uint64_t job, uint32_t ends)
{
	if (job < e->last_ended)
		return;
	e->last_ended = job;
	e->last_ends = ends;
}

void engine_release_run(struct engine *e, struct run *r)
{
	(void)e;
	if (--r->users == 0)
		run_free(r);
}

/* ---- opening ---- */

/* What the rows of the present rounds speak of, and what was cut off and may still come. */
static bool is_known(void *arg, const struct spool_name *name)
{
	const struct engine *e = arg;
	switch (name->kind) {
	case SPOOL_UPDATE:
		return retention_needs_update(e->retention, name->job, name->round, name->plant);
	case SPOOL_BATCH:
		return retention_needs_batch(e->retention, name->job, name->round);
	case SPOOL_PART:
		break;
	}
	const struct run *r = engine_find(e, name->job);
	const struct seat *s = r != NULL ? run_seat(r, name->plant) : NULL;
	const struct wire_head head = {.update = {.job = name->job, .round = name->round}};
	return s != NULL && s->invited && !s->accepted && r->round.phase == ROUND_OPEN &&
	       engine_check_open(e, r, &head) == ERR_OK;
}

/* How long the job keeps what it made: a running one says so itself, of others the database. */
static enum err keep_of(void *arg, uint64_t job, struct retention_keep *ret_keep)
{
	struct engine *e = arg;
	struct plan *plan = NULL;
	struct job_row j;
	pthread_mutex_lock(&e->lock);
	struct run *r = engine_find(e, job);
	if (r != NULL)
		plan = plan_share(r->plan);
	pthread_mutex_unlock(&e->lock);
	if (plan == NULL) {
		TRY(db_job_get(e->config.db, job, &j));
		enum err err = plan_load(buf_bytes(&j.config), &j.config_hash, buf_bytes(&j.manifest), &plan);
		job_row_deinit(&j);
		TRY(err);
	}
	ret_keep->updates = job_keep_updates(&plan->config);
	ret_keep->models = job_keep_models(&plan->config);
	plan_release(plan);
	return ERR_OK;
}

static void remove_update(void *arg, uint64_t job, uint32_t round, const char *plant)
{
	const struct engine *e = arg;
	const struct spool_key key = {.job = job, .round = round, .plant = plant};
	if (plant != NULL)
		spool_remove(e->spool, &key);
	else
		spool_remove_batch(e->spool, job, round);
}

/* A round that was sealed needs its models; a lost result is made again, a lost base cannot be. */
static enum err check_models(struct engine *e, struct run *r)
{
	char text[DIGEST_TEXT_SIZE];
	if (!store_has(e->config.store, &r->source, NULL))
		return err_set(ERR_CORRUPT, "the source model %s is not in the store", digest_format(&r->source, text));
	if (!store_has(e->config.store, &r->base, NULL))
		return err_set(ERR_CORRUPT, "the base model %s is not in the store", digest_format(&r->base, text));
	if (r->round.phase == ROUND_AGGREGATED && !store_has(e->config.store, &r->next_model, NULL)) {
		log_warn("engine", "job %llu round %lu: the new model is not in the store; aggregating again",
			 (unsigned long long)r->id, (unsigned long)r->round.number);
		r->round.phase = ROUND_SEALED;
	}
	return ERR_OK;
}

struct blob *engine_copy_base(struct engine *e, const struct round_row *round)
{
	struct store_model *m;
	uint64_t each = round->base_size;
	if (each == 0 || each > WIRE_INLINE_MAX || each * round->state.cohort > ENGINE_INLINE_MAX)
		return NULL;
	if (store_acquire(e->config.store, &round->base, &m) != ERR_OK) {
		log_warn("engine", "plants have to fetch a base model: %s", err_text());
		return NULL;
	}
	/* What has not its digest would only be refused by every plant. */
	struct digest got = digest_of(store_content(m));
	struct blob *copy = digest_equal(&got, &round->base) ? blob_new(store_content(m)) : NULL;
	store_release(e->config.store, m);
	return copy;
}

static enum err resume(struct engine *e, const struct job_row *j)
{
	struct run *r = NULL;
	int64_t now = engine_wall_ms(e);
	enum err err = e->n_runs < ENGINE_JOBS_MAX ? run_load(e->config.db, e->spool, j->id, &r)
						   : err_set(ERR_LIMIT, "more jobs are running than fit");
	if (err == ERR_OK)
		err = check_models(e, r);
	if (err == ERR_CORRUPT) {
		run_free(r);
		log_error("engine", "job %llu (%s) cannot go on: %s", (unsigned long long)j->id, j->name, err_text());
		char *reason = mem_str(err_text());
		err = db_job_end(e->config.db, j->id, WIRE_JOB_FAILED, reason, now);
		free(reason);
		engine_note_end(e, j->id, j->ends + 1);
		return err;
	}
	if (err != ERR_OK) {
		run_free(r);
		return err_add(err, "resuming job %llu", (unsigned long long)j->id);
	}
	if (r->round.phase != ROUND_OPEN)
		r->todo = round_resume(&r->round, now);
	r->base_copy =
		engine_copy_base(e, &(struct round_row){.state = r->round, .base = r->base, .base_size = r->base_size});
	/* Watchers from before the restart have seen lower versions: those began at an earlier time. */
	r->version = (uint64_t)now;
	engine_add_run(e, r);
	engine_dismiss_absent(e, r);
	log_info("engine", "taken up job %llu (%s): round %lu is %s with %lu of %lu updates", (unsigned long long)r->id,
		 r->name, (unsigned long)r->round.number, round_phase_name(r->round.phase),
		 (unsigned long)r->round.accepted, (unsigned long)r->round.cohort);
	return ERR_OK;
}

static enum err load(struct engine *e)
{
	struct job_row *jobs;
	size_t n;
	TRY(db_job_list(e->config.db, &jobs, &n));
	enum err err = ERR_OK;
	for (size_t i = 0; err == ERR_OK && i < n; i++) {
		if (jobs[i].state == WIRE_JOB_RUNNING)
			err = resume(e, &jobs[i]);
		else
			engine_note_end(e, jobs[i].id, jobs[i].ends);
	}
	free(jobs);
	TRY(err);
	TRY(spool_sweep(e->spool, is_known, e));
	retention_sweep(e->retention);
	return ERR_OK;
}

enum err engine_open(const struct engine_config *config, struct engine **ret_engine)
{
	struct engine *e = mem_new(sizeof *e);
	pthread_condattr_t monotonic;
	e->config = *config;
	e->retention = retention_new(&(struct retention_config){
		.db = config->db, .store = config->store, .arg = e, .keep = keep_of, .remove_update = remove_update});
	e->flushed_ms = engine_monotonic_ms(e);
	engine_beat(e, false);
	pthread_mutex_init(&e->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&e->wake, &monotonic);
	pthread_condattr_destroy(&monotonic);
	enum err err = spool_open(config->dir, &config->spool, &e->spool);
	e->ledger = ledger_new(config->db, e->spool);
	if (err == ERR_OK)
		err = load(e);
	if (err != ERR_OK) {
		char *text = mem_str(err_text());
		engine_close(e);
		err_set(err, "%s", text);
		free(text);
		return err;
	}
	*ret_engine = e;
	return ERR_OK;
}

/* ---- the thread ---- */

/* What a run needs now, and if nothing, in how many milliseconds it may. Under the lock. */
static enum round_action look_at(struct engine *e, struct run *r, int64_t now_ms, int64_t *wait_ms)
{
	enum round_action action = r->todo;
	bool open = r->round.phase == ROUND_OPEN;
	int64_t flow_ms = INT64_MAX;
	int64_t later = r->retry_at_ms - engine_monotonic_ms(e);
	if (later > 0) {
		*wait_ms = later < *wait_ms ? later : *wait_ms;
		return ROUND_NOTHING;
	}
	if (open)
		r->round.flowing = run_flowing(r, engine_monotonic_ms(e), &flow_ms);
	if (open)
		ENSURE(round_step(&r->round, r->stop_asked ? ROUND_EVENT_STOP : ROUND_EVENT_TICK, now_ms, &action) ==
		       ERR_OK);
	if (action == ROUND_NOTHING && open) {
		bool graced = now_ms >= r->round.deadline_ms;
		int64_t next = r->round.deadline_ms + (graced ? r->round.grace_ms : 0) - now_ms;
		next = graced && flow_ms < next ? flow_ms : next;
		*wait_ms = next < *wait_ms ? next : *wait_ms;
	}
	/* A row that is being written belongs to this round: its writer wakes us. */
	r->held_up = open && r->recording > 0 && action != ROUND_NOTHING;
	return r->held_up ? ROUND_NOTHING : action;
}

static void retry_later(struct engine *e, struct run *r, enum err err, struct notices *out)
{
	int64_t wait = RETRY_FIRST_MS;
	for (unsigned i = 0; i < r->failed_tries && wait < RETRY_MAX_MS; i++)
		wait *= 2;
	wait = wait < RETRY_MAX_MS ? wait : RETRY_MAX_MS;
	log_error("engine", "job %llu round %lu: %s (%s); trying again in %lld s", (unsigned long long)r->id,
		  (unsigned long)r->round.number, err_text(), err_name(err), (long long)wait / 1000);
	engine_note_trouble(e, r, err_text(), wait, out);
	r->failed_tries++;
	r->retry_at_ms = engine_monotonic_ms(e) + wait;
	r->closing = false;
	r->todo = r->round.phase == ROUND_OPEN ? ROUND_NOTHING : round_resume(&r->round, engine_wall_ms(e));
}

/* One step of one run. Returns false when no run needs one; *wait_ms is lowered to the next time then. */
static bool step(struct engine *e, int64_t *wait_ms)
{
	pthread_mutex_lock(&e->lock);
	int64_t now = engine_wall_ms(e);
	enum round_action action = ROUND_NOTHING;
	struct run *r = NULL;
	for (size_t i = 0; i < e->n_runs && action == ROUND_NOTHING && !e->draining; i++) {
		r = e->runs[i];
		action = look_at(e, r, now, wait_ms);
	}
	if (action != ROUND_NOTHING) {
		r->closing = true;
		r->users++;
	}
	pthread_mutex_unlock(&e->lock);
	if (action == ROUND_NOTHING)
		return false;
	engine_beat(e, true);
	enum err err = engine_perform(e, r, action);
	engine_beat(e, false);
	struct notices notices = {0};
	pthread_mutex_lock(&e->lock);
	if (err != ERR_OK)
		retry_later(e, r, err, &notices);
	engine_release_run(e, r);
	pthread_mutex_unlock(&e->lock);
	notices_send(&notices, e->config.db);
	return true;
}

static void flush_registry(struct engine *e, bool now)
{
	int64_t time = engine_monotonic_ms(e);
	if (!now && time - e->flushed_ms < FLUSH_MS)
		return;
	e->flushed_ms = time;
	if (registry_flush(e->config.registry) != ERR_OK)
		log_warn("engine", "writing when members were last here: %s", err_text());
}

int64_t engine_pump(struct engine *e)
{
	int64_t wait_ms = IDLE_MS;
	struct notices notices = {0};
	engine_beat(e, false);
	bool more = step(e, &wait_ms);
	more |= engine_check_lobby(e);
	pthread_mutex_lock(&e->lock);
	engine_expire(e, engine_monotonic_ms(e), &notices);
	if (e->lobby.first != NULL && e->lobby.first->until_ms - engine_monotonic_ms(e) < wait_ms)
		wait_ms = e->lobby.first->until_ms - engine_monotonic_ms(e);
	pthread_mutex_unlock(&e->lock);
	notices_send(&notices, e->config.db);
	flush_registry(e, false);
	return more || wait_ms < 0 ? 0 : wait_ms;
}

static void wait_for_work(struct engine *e, int64_t wait_ms)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += wait_ms / 1000;
	until.tv_nsec += wait_ms % 1000 * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	pthread_cond_timedwait(&e->wake, &e->lock, &until);
}

static void *run_thread(void *arg)
{
	struct engine *e = arg;
	for (;;) {
		pthread_mutex_lock(&e->lock);
		bool closing = e->closing;
		e->woken = false;
		pthread_mutex_unlock(&e->lock);
		if (closing)
			return NULL;
		int64_t wait_ms = engine_pump(e);
		pthread_mutex_lock(&e->lock);
		if (wait_ms > 0 && !e->woken && !e->closing)
			wait_for_work(e, wait_ms);
		pthread_mutex_unlock(&e->lock);
	}
}

void engine_wake(struct engine *e)
{
	e->woken = true;
	pthread_cond_signal(&e->wake);
}

enum err engine_start(struct engine *e)
{
	ENSURE(!e->threaded);
	if (pthread_create(&e->thread, NULL, run_thread, e) != 0)
		return err_errno("starting the engine's thread");
	e->threaded = true;
	return ERR_OK;
}

void engine_drain(struct engine *e)
{
	struct notices notices = {0};
	pthread_mutex_lock(&e->lock);
	e->draining = true;
	while (e->lobby.first != NULL) {
		struct waiter *w = e->lobby.first;
		lobby_remove(&e->lobby, w);
		notice_refuse(&notices, w, ERR_UNAVAILABLE, ENGINE_STOPPING);
	}
	engine_wake(e);
	pthread_mutex_unlock(&e->lock);
	notices_send(&notices, e->config.db);
}

void engine_close(struct engine *e)
{
	if (e == NULL)
		return;
	engine_drain(e);
	pthread_mutex_lock(&e->lock);
	e->closing = true;
	engine_wake(e);
	pthread_mutex_unlock(&e->lock);
	if (e->threaded)
		pthread_join(e->thread, NULL);
	flush_registry(e, true);
	for (size_t i = 0; i < e->n_runs; i++)
		run_free(e->runs[i]);
	ledger_free(e->ledger);
	spool_close(e->spool);
	pthread_cond_destroy(&e->wake);
	pthread_mutex_destroy(&e->lock);
	retention_free(e->retention);
	free(e);
}
