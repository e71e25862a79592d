/*
 * The end of a round, on the engine's thread: each function does one thing, makes it durable, and then tells the round.
 *
 * What a function reads of its run without the lock cannot change meanwhile: `closing` keeps updates out of an open round, and a round
 * that is not open takes none; the seats' digests and weights are therefore settled.
 */
#include "coordinator/engine_parts.h"

#include "base/log.h"
#include "coordinator/aggregate.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { IO_TRIES = 3 }; /* before a stopped job gives up a round that cannot be read or written */

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
	log_info("round", "sealed job=%" PRIu64 " round=%" PRIu32 " updates=%" PRIu32 "/%" PRIu32, r->id,
		 r->round.number, r->round.accepted, r->round.cohort);
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

static enum err run_rule(struct engine *e, struct run *r, const struct aggregate_input *inputs, size_t n,
			 struct digest *ret_model, uint64_t *ret_size)
{
	char base[PATH_SIZE], temp[PATH_SIZE], name[64];
	struct digest made, stored;
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
	};
	enum err err = aggregate_run(&job, &made, &size);
	if (err == ERR_OK)
		err = store_adopt(e->config.store, temp, &made, &stored, &size);
	json_free(meta);
	TRY(err);
	*ret_model = stored;
	*ret_size = size;
	return ERR_OK;
}

static enum err combine(struct engine *e, struct run *r, struct digest *ret_model, uint64_t *ret_size)
{
	struct aggregate_input *inputs = mem_array(r->round.accepted, sizeof *inputs);
	char(*paths)[PATH_SIZE] = mem_array(r->round.accepted, sizeof *paths);
	size_t n = 0;
	for (size_t i = 0; i < r->n_seats; i++) {
		const struct seat *s = &r->seats[i];
		if (!s->accepted)
			continue;
		ENSURE(n < r->round.accepted);
		const struct spool_key key = {.job = r->id, .round = s->base_round, .plant = s->plant};
		if (s->place < 0)
			spool_path(e->spool, &key, paths[n]);
		else
			spool_batch_path(e->spool, r->id, r->round.number, paths[n]);
		inputs[n] = (struct aggregate_input){.path = paths[n],
						     .offset = s->place < 0 ? 0 : (uint64_t)s->place,
						     .weight = (int64_t)s->samples,
						     .digest = &s->digest};
		n++;
	}
	enum err err = run_rule(e, r, inputs, n, ret_model, ret_size);
	free(inputs);
	free(paths);
	return err;
}

static enum err abandon(struct engine *e, struct run *r, const char *reason);

/* The sealed updates give no model, today or ever: the round ends without one. The machine has no such way out, because nothing that an
 * operator or the clock does may lead here. */
static enum err give_up(struct engine *e, struct run *r)
{
	char reason[DB_REASON_SIZE];
	snprintf(reason, sizeof reason, "aggregation failed: %s", err_text());
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
	TRY(db_round_aggregated(e->config.db, r->id, r->round.number, &model, size));
	log_info("round", "aggregated job=%" PRIu64 " round=%" PRIu32 " model=%s", r->id, r->round.number,
		 digest_format(&model, text));
	pthread_mutex_lock(&e->lock);
	r->next_model = model;
	r->next_model_size = size;
	pthread_mutex_unlock(&e->lock);
	advance(e, r, ROUND_EVENT_AGGREGATED);
	return ERR_OK;
}

/* ---- closing ---- */

/* What comes after the round: another one, or the end of the job. */
struct sequel {
	struct round_row next;
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
	} else {
		end_with(s, WIRE_JOB_FAILED, err_text());
	}
}

/* In memory what is durable already. */
static void install(struct engine *e, struct run *r, const struct round_close *c, const struct sequel *s)
{
	struct notices notices = {0};
	pthread_mutex_lock(&e->lock);
	/* Giving a sealed round up is not the machine's: see give_up(). */
	if (r->round.phase != ROUND_SEALED)
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
		run_open_round(r, &s->next);
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
		log_info("round", "opened job=%" PRIu64 " round=%" PRIu32 " cohort=%" PRIu32 " quorum=%" PRIu32, r->id,
			 s->next.state.number, s->next.state.cohort, s->next.state.quorum);
	else
		log_info("job", "%s job=%" PRIu64 " name=%s%s%s", wire_job_state_name(s->state), r->id, r->name,
			 s->reason[0] != '\0' ? ": " : "", s->reason);
}

/* The updates of the round that is being closed which have a file of their own, so that they can go when it is over. */
struct leftovers {
	struct spool_key *keys; /* owned; the plants are those of the seats */
	size_t n;
};

static struct leftovers list_files(const struct run *r)
{
	struct leftovers l = {.keys = mem_array(r->n_seats, sizeof *l.keys)};
	for (size_t i = 0; i < r->n_seats; i++) {
		const struct seat *s = &r->seats[i];
		if (s->accepted && s->place < 0)
			l.keys[l.n++] = (struct spool_key){.job = r->id, .round = s->base_round, .plant = s->plant};
	}
	return l;
}

/* A file that stays behind has no open round and goes with the next start. */
static void remove_leftovers(struct engine *e, const struct leftovers *l, uint64_t job, uint32_t round)
{
	for (size_t i = 0; i < l->n; i++)
		spool_remove(e->spool, &l->keys[i]);
	spool_remove_batch(e->spool, job, round);
	spool_remove_parts(e->spool, job, round);
}

static enum err close_round(struct engine *e, struct run *r, enum round_phase phase, const char *reason,
			    struct sequel *s)
{
	uint32_t number = r->round.number;
	struct leftovers files = list_files(r);
	pthread_mutex_lock(&e->lock);
	struct round_close c = {
		.job = r->id,
		.number = number,
		.phase = phase,
		.reason = reason,
		.bytes_down = r->bytes_down,
		.now_ms = engine_wall_ms(e),
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
		remove_leftovers(e, &files, c.job, number);
	}
	free(files.keys);
	round_row_deinit(&s->next);
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
		snprintf(why, sizeof why, "%lu rounds in a row failed; the last: %.150s",
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
