/*
 * The end of a round, on the engine's thread: each function does one thing, makes it durable, and then tells the round.
 *
 * What a function reads of its run without the lock cannot change meanwhile: `closing` keeps updates out of an open round, and a round
 * that is not open takes none; the seats' digests and weights are therefore settled.
 *
 * What a round costs in syncs, beside its updates: the commit of the seal, the content of the new model, the directory that gets its name,
 * the commit of the end. round.c says why these, and why no more.
 */
#include "coordinator/engine_parts.h"

#include "base/log.h"
#include "coordinator/aggregate.h"
#include "coordinator/staleness.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	IO_TRIES = 3, /* before a stopped job gives up a round that cannot be read or written */
	FRESH_MS =
		10 * 60000, /* so young an update, whose bytes this process has checked, is still in the page cache */
};

static enum round_action tell_round(struct engine *e, struct run *r, enum round_event event)
{
	enum round_action action;
	ENSURE(round_step(&r->round, event, engine_wall_ms(e), &action) == ERR_OK);
	return action;
}

/* The event's fact is durable: step, and let watchers see it. */
static void advance(struct engine *e, struct run *r, enum round_event event)
{
	struct notices notices = {0};
	pthread_mutex_lock(&e->lock);
	r->todo = tell_round(e, r, event);
	r->failed_tries = 0;
	r->trouble[0] = '\0';
	r->version++;
	engine_tell_watchers(e, r, &notices);
	pthread_mutex_unlock(&e->lock);
	notices_send(&notices, e->config.db);
}

static bool is_stopped(struct engine *e, const struct run *r)
{
	pthread_mutex_lock(&e->lock);
	bool stopped = r->stop_asked;
	pthread_mutex_unlock(&e->lock);
	return stopped;
}

/* ---- sealing and aggregating ---- */

static enum err seal(struct engine *e, struct run *r)
{
	struct digest digest = run_seal(r);
	TRY(db_round_seal(e->config.db, r->id, r->round.number, &digest));
	log_info("round", "sealed job=%" PRIu64 " round=%" PRIu32 " updates=%" PRIu32 "/%" PRIu32 " goal=%" PRIu32,
		 r->id, r->round.number, r->round.accepted, r->round.cohort, r->round.goal);
	advance(e, r, ROUND_EVENT_SEALED);
	return ERR_OK;
}

/* Nothing here may differ between two federations of one name that run the same job: the model's digest is a function of the learning. */
static struct json *lineage(const struct engine *e, const struct run *r)
{
	char text[DIGEST_TEXT_SIZE], number[16];
	struct json *meta = json_map();
	snprintf(number, sizeof number, "%" PRIu32, r->round.number);
	json_put(meta, "hansa.federation", json_str(e->config.federation));
	json_put(meta, "hansa.job", json_str(r->name));
	json_put(meta, "hansa.round", json_str(number));
	json_put(meta, "hansa.parent", json_str(digest_format(&r->base, text)));
	return meta;
}

/* A long aggregation is a sign of life, too, as long as it gets on. */
static void show_life(void *arg)
{
	engine_beat(arg, true);
}

static enum err run_rule(struct engine *e, struct run *r, const struct aggregate_input *inputs, size_t n,
			 struct digest *ret_model, uint64_t *ret_size)
{
	char base[PATH_SIZE], temp[PATH_SIZE], name[64];
	struct digest made;
	uint64_t size;
	snprintf(name, sizeof name, "job-%" PRIu64 "-round-%" PRIu32, r->id, r->round.number);
	struct json *meta = lineage(e, r);
	struct aggregate_job job = {
		.base_path = store_path(e->config.store, &r->base, base),
		.base_digest = &r->base,
		.manifest = r->plan->manifest,
		.inputs = inputs,
		.n_inputs = n,
		.server_rate = r->plan->config.server_rate,
		.meta = meta,
		.out_path = store_temp_path(e->config.store, name, temp),
		.progress = show_life,
		.progress_arg = e,
	};
	enum err err = aggregate_run(&job, &made, &size);
	if (err == ERR_OK)
		err = store_take(e->config.store, temp, &made);
	json_free(meta);
	TRY(err);
	*ret_model = made;
	*ret_size = size;
	return ERR_OK;
}

/* What the accepted updates count, by plant. */
static struct staleness *weigh(const struct run *r)
{
	struct staleness *v = mem_array(r->round.accepted, sizeof *v);
	size_t n = 0;
	for (size_t i = 0; i < r->n_seats; i++) {
		const struct seat *s = &r->seats[i];
		if (!s->accepted)
			continue;
		ENSURE(n < r->round.accepted && s->base_round <= r->round.number);
		v[n++] = (struct staleness){.samples = s->samples, .late = r->round.number - s->base_round};
	}
	ENSURE(n == r->round.accepted);
	staleness_weigh(v, n, (enum job_late_weight)r->plan->config.late_weight);
	return v;
}

/* An update that this process has received and checked, and whose bytes have not left its memory since, is not hashed again. */
static bool is_trusted(const struct seat *s, int64_t now_ms)
{
	return s->verified && now_ms >= s->time_ms && now_ms - s->time_ms < FRESH_MS;
}

static enum err combine(struct engine *e, struct run *r, struct digest *ret_model, uint64_t *ret_size)
{
	struct aggregate_input *inputs = mem_array(r->round.accepted, sizeof *inputs);
	char(*paths)[PATH_SIZE] = mem_array(r->round.accepted, sizeof *paths);
	struct staleness *weights = weigh(r);
	int64_t now = engine_wall_ms(e);
	size_t n = 0;
	for (size_t i = 0; i < r->n_seats; i++) {
		const struct seat *s = &r->seats[i];
		if (!s->accepted)
			continue;
		const struct spool_key key = {.job = r->id, .round = s->base_round, .plant = s->plant};
		if (s->place < 0)
			spool_path(e->spool, &key, paths[n]);
		else
			spool_batch_path(e->spool, r->id, r->round.number, paths[n]);
		inputs[n] = (struct aggregate_input){.path = paths[n],
						     .offset = s->place < 0 ? 0 : (uint64_t)s->place,
						     .weight = weights[n].weight,
						     .full = weights[n].full,
						     .digest = is_trusted(s, now) ? NULL : &s->digest};
		n++;
	}
	enum err err = run_rule(e, r, inputs, n, ret_model, ret_size);
	free(weights);
	free(inputs);
	free(paths);
	return err;
}

static enum err commit(struct engine *e, struct run *r);
static enum err abandon(struct engine *e, struct run *r, const char *reason);

/* The sealed updates give no model, today or ever: the round ends without one. Nothing that an operator or the clock does leads here. */
static enum err give_up(struct engine *e, struct run *r)
{
	char reason[DB_REASON_SIZE];
	snprintf(reason, sizeof reason, "aggregation failed: %s", engine_without_dir(e, err_text()));
	return abandon(e, r, reason);
}

static enum err aggregate(struct engine *e, struct run *r)
{
	struct digest model;
	uint64_t size;
	char text[DIGEST_TEXT_SIZE];
	enum err err = combine(e, r, &model, &size);
	/* A full disk passes, and the outcome is the same then. Only an operator who stops the job does not have to wait for that. */
	if (err == ERR_IO && (!is_stopped(e, r) || r->failed_tries < IO_TRIES))
		return err;
	if (err != ERR_OK)
		return give_up(e, r);
	log_info("round", "aggregated job=%" PRIu64 " round=%" PRIu32 " model=%s", r->id, r->round.number,
		 digest_format(&model, text));
	pthread_mutex_lock(&e->lock);
	r->next_model = model;
	r->next_model_size = size;
	pthread_mutex_unlock(&e->lock);
	advance(e, r, ROUND_EVENT_AGGREGATED);
	/* At once: until then a restart would aggregate again. */
	return commit(e, r);
}

/* ---- closing ---- */

/* What comes after the round: another one, or the end of the job. */
struct sequel {
	struct round_row next;
	struct blob *base_copy; /* of the next round; owned */
	bool has_next;
	enum wire_job_state state;
	char reason[DB_REASON_SIZE];
};

static void end_with(struct sequel *s, enum wire_job_state state, const char *reason)
{
	s->state = state;
	snprintf(s->reason, sizeof s->reason, "%s", reason);
}

static void open_next(struct engine *e, struct run *r, const struct digest *base, uint64_t base_size, struct sequel *s)
{
	if (run_next_round(r, e->config.registry, base, base_size, engine_wall_ms(e), &s->next) == ERR_OK) {
		s->has_next = true;
		s->state = WIRE_JOB_RUNNING;
		s->base_copy = engine_copy_base(e, &s->next);
	} else {
		end_with(s, WIRE_JOB_FAILED, err_text());
	}
}

/* In memory what is durable already. */
static void install(struct engine *e, struct run *r, const struct round_close *c, struct sequel *s)
{
	struct notices notices = {0};
	pthread_mutex_lock(&e->lock);
	ENSURE(tell_round(e, r, c->phase == ROUND_COMMITTED ? ROUND_EVENT_COMMITTED : ROUND_EVENT_ABANDONED) ==
	       ROUND_NEXT);
	if (c->phase == ROUND_COMMITTED) {
		r->model = r->next_model;
		r->model_size = r->next_model_size;
		r->model_round = r->round.number;
		r->committed++;
	}
	r->failures = c->failures;
	r->version++;
	if (s->has_next) {
		run_open_round(r, &s->next, s->base_copy);
		s->base_copy = NULL;
		engine_dismiss_absent(e, r);
		engine_tell_open(e, r, &notices);
	} else {
		r->todo = ROUND_NOTHING;
		engine_tell_end(e, r, &notices);
		engine_remove_run(e, r);
	}
	pthread_mutex_unlock(&e->lock);
	notices_send(&notices, e->config.db);
}

static void log_sequel(const struct run *r, const struct sequel *s)
{
	if (s->has_next)
		log_info("round",
			 "opened job=%" PRIu64 " round=%" PRIu32 " cohort=%" PRIu32 " goal=%" PRIu32 " quorum=%" PRIu32,
			 r->id, s->next.state.number, s->next.state.cohort, s->next.state.goal, s->next.state.quorum);
	else
		log_info("job", "%s job=%" PRIu64 " name=%s%s%s", wire_job_state_name(s->state), r->id, r->name,
			 s->reason[0] != '\0' ? ": " : "", s->reason);
}

/* What was cut off and cannot count any more: of this round, or of the last one that a late update may be made from. */
static void remove_parts(struct engine *e, const struct run *r, uint32_t number)
{
	uint32_t late = run_carries(r) && !r->ended ? (uint32_t)r->plan->config.late_max : 0;
	if (number > late)
		spool_remove_parts(e->spool, r->id, number - late);
}

static enum err close_round(struct engine *e, struct run *r, enum round_phase phase, const char *reason,
			    struct sequel *s)
{
	uint32_t number = r->round.number;
	pthread_mutex_lock(&e->lock);
	struct round_close c = {
		.job = r->id,
		.number = number,
		.phase = phase,
		.reason = reason,
		.bytes_down = r->bytes_down,
		.now_ms = engine_wall_ms(e),
		.model = phase == ROUND_COMMITTED ? r->next_model : (struct digest){{0}},
		.model_size = phase == ROUND_COMMITTED ? r->next_model_size : 0,
		.failures = phase == ROUND_ABANDONED && !r->stop_asked ? r->failures + 1 : 0,
		.next = s->has_next ? &s->next : NULL,
		.state = s->state,
		.job_reason = s->reason,
	};
	pthread_mutex_unlock(&e->lock);
	enum err err = db_round_close(e->config.db, &c);
	if (err == ERR_OK) {
		log_info("round", "%s job=%" PRIu64 " round=%" PRIu32 "%s%s", round_phase_name(phase), r->id, number,
			 reason != NULL ? ": " : "", reason != NULL ? reason : "");
		log_sequel(r, s);
		install(e, r, &c, s);
		retention_closed(e->retention, c.job, number);
		remove_parts(e, r, number);
	}
	round_row_deinit(&s->next);
	blob_release(s->base_copy);
	return err;
}

static enum err commit(struct engine *e, struct run *r)
{
	struct sequel s = {0};
	if (r->committed + 1 >= (uint32_t)r->plan->config.rounds)
		end_with(&s, WIRE_JOB_DONE, "");
	else if (is_stopped(e, r))
		end_with(&s, WIRE_JOB_STOPPED, "stopped by an operator");
	else
		open_next(e, r, &r->next_model, r->next_model_size, &s);
	return close_round(e, r, ROUND_COMMITTED, NULL, &s);
}

static enum err abandon(struct engine *e, struct run *r, const char *reason)
{
	struct sequel s = {0};
	char why[DB_REASON_SIZE];
	if (is_stopped(e, r)) {
		end_with(&s, WIRE_JOB_STOPPED, "stopped by an operator");
	} else if (r->failures + 1 >= (uint32_t)r->plan->config.failures_max) {
		snprintf(why, sizeof why, "%lu rounds in a row failed; the last: %.190s",
			 (unsigned long)r->failures + 1, reason);
		end_with(&s, WIRE_JOB_FAILED, why);
	} else {
		open_next(e, r, &r->base, r->base_size, &s);
	}
	return close_round(e, r, ROUND_ABANDONED, reason, &s);
}

static enum err abandon_open(struct engine *e, struct run *r)
{
	char reason[DB_REASON_SIZE];
	if (is_stopped(e, r))
		return abandon(e, r, "the job was stopped");
	if (r->round.lost && engine_wall_ms(e) < r->round.deadline_ms) {
		snprintf(reason, sizeof reason,
			 "plants were revoked, and those that are left cannot come to the quorum of %" PRIu32,
			 r->round.quorum);
		return abandon(e, r, reason);
	}
	snprintf(reason, sizeof reason,
		 "%" PRIu32 " of %" PRIu32 " plants had reported at the deadline; the quorum is %" PRIu32,
		 r->round.accepted, r->round.cohort, r->round.quorum);
	return abandon(e, r, reason);
}

/* ROUND_NEXT is part of closing: both are one transaction. */
static enum err (*const actions[ROUND_ACTION_COUNT])(struct engine *e, struct run *r) = {
	[ROUND_SEAL] = seal,
	[ROUND_AGGREGATE] = aggregate,
	[ROUND_COMMIT] = commit,
	[ROUND_ABANDON] = abandon_open,
};

enum err engine_perform(struct engine *e, struct run *r, enum round_action action)
{
	ENSURE((unsigned)action < ROUND_ACTION_COUNT && actions[action] != NULL);
	return actions[action](e, r);
}
