/*
 * Model plants: what client/participant.c and client/session.c do, as a state machine. A plant asks for a task, trains for a while, sends its
 * update, and sends it again until it has a receipt or a refusal; it has one call under way at a time, with a number (`request`), and answers
 * to calls that it has given up mean nothing to it. It may vanish at any moment and come back with what it had on disk, or without.
 */
#include "sim/sim.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ASK_MS = SIM_HOLD_MS + 10000, SEND_MS = 40000, BACKOFF_FIRST_MS = 500, BACKOFF_MAX_MS = 15000, TRAIN_MS = 4000 };

static void wake_in(struct sim *s, uint32_t who, int64_t ms)
{
	sim_later(s, ms, EVENT_TIMER, who, ++s->plants[who].timer, NULL);
}

static void back_off(struct sim *s, uint32_t who)
{
	struct plant *p = &s->plants[who];
	int64_t most = BACKOFF_FIRST_MS;
	for (uint32_t i = 0; i < p->tries && most < BACKOFF_MAX_MS; i++)
		most *= 2;
	p->tries++;
	wake_in(s, who, 1 + (int64_t)rng_below(&s->rng, (uint64_t)(most < BACKOFF_MAX_MS ? most : BACKOFF_MAX_MS)));
}

static void ask(struct sim *s, uint32_t who)
{
	struct plant *p = &s->plants[who];
	p->state = PLANT_ASKING;
	net_ask(s, who, ++p->request, p->finished_job, p->is_old ? 0 : p->finished_ends, 0);
	wake_in(s, who, ASK_MS);
}

static void rest(struct sim *s, uint32_t who, int64_t ms)
{
	s->plants[who].state = PLANT_IDLE;
	wake_in(s, who, ms);
}

void plant_start(struct sim *s, uint32_t who)
{
	struct plant *p = &s->plants[who];
	p->tries = 0;
	rest(s, who, 1 + (int64_t)rng_below(&s->rng, 1000));
}

void plant_vanish(struct sim *s, uint32_t who)
{
	struct plant *p = &s->plants[who];
	sim_say(s, "%s: vanishes", p->name);
	if (p->state == PLANT_ASKING)
		net_hang_up(s, who, p->request);
	net_abandon(s, who);
	p->state = PLANT_GONE;
	p->timer++;
	p->request++;
}

/* ---- learning ---- */

uint8_t *plant_learn(struct sim *s, uint32_t who, uint64_t job, uint32_t round, uint32_t variant, size_t *ret_n)
{
	const struct book_job *j = book_job(s, job);
	const float *base = book_model(s, &book_round(s, job, round)->base);
	float *local = mem_array(j->manifest->n_theta, sizeof *local);
	uint8_t *bytes;
	struct rng r;
	rng_stream(&r, s->seed ^ job << 32 ^ round, s->plants[who].name, variant);
	float width = (float)ldexp(1, (int)rng_below(&r, 12) - 9);
	for (size_t i = 0; i < j->manifest->n_theta; i++)
		local[i] = base[i] + width * (float)(2 * rng_uniform(&r) - 1);
	ENSURE(update_make(j->manifest, base, local, j->config.clip_norm, &bytes, NULL) == ERR_OK);
	free(local);
	*ret_n = manifest_update_bytes(j->manifest);
	return bytes;
}

uint64_t plant_samples(struct sim *s, uint32_t who, uint64_t job, uint32_t round)
{
	struct rng r;
	rng_stream(&r, s->seed ^ job << 32 ^ round, "samples", who);
	return rng_below(&r, 8) == 0 ? FIXED_WEIGHT_MAX - rng_below(&r, 2) : 1 + rng_below(&r, 1000);
}

struct stream *plant_stream(struct sim *s, uint32_t who, uint64_t job, uint32_t round, uint32_t variant)
{
	struct stream *t = mem_new(sizeof *t);
	t->who = who;
	t->content = plant_learn(s, who, job, round, variant, &t->n);
	t->head = (struct wire_head){.size = t->n, .digest = digest_of(bytes_of(t->content, t->n)), .has_update = true};
	t->head.update = (struct wire_update_head){.job = job,
						   .round = round,
						   .base = book_round(s, job, round)->base,
						   .manifest = book_job(s, job)->manifest->digest,
						   .samples = plant_samples(s, who, job, round)};
	t->head.update.metrics.n = 1;
	t->head.update.metrics.v[0] = (struct wire_metric){.name = "train_loss", .value = 0.5};
	return t;
}

/* ---- what comes back ---- */

static void send(struct sim *s, uint32_t who)
{
	struct plant *p = &s->plants[who];
	p->state = PLANT_SENDING;
	struct stream *t = plant_stream(s, who, p->task.job, p->task.round, p->variant);
	t->request = ++p->request;
	/* It asks where to go on once something has gone wrong, and sometimes from the beginning. */
	t->asks = p->tries > 0 || rng_below(&s->rng, 4) == 0;
	if (net_chance(s, s->weather.repeat)) {
		struct stream *again = plant_stream(s, who, p->task.job, p->task.round, p->variant);
		again->request = p->request;
		cover("a repeated update");
		net_upload(s, again);
	}
	net_upload(s, t);
	wake_in(s, who, SEND_MS);
}

/* The base is fetched as the service would serve it: the plant must own it, and it must be in the store, whole. */
static bool fetch(struct sim *s, uint32_t who, const struct wire_task *task)
{
	struct store_model *m;
	const struct book_round *r = book_round(s, task->job, task->round);
	/* The round may be over by now, and its base have gone. */
	if (!s->host.up || (r->phase >= ROUND_COMMITTED && !keep_needs_model(s, &task->base)))
		return false;
	enum err err = db_job_owns(s->host.db, s->plants[who].name, &task->base);
	if (err == ERR_OK)
		err = store_acquire(s->host.store, &task->base, &m);
	if (err != ERR_OK) {
		sim_violated(s, "the base can be fetched", "%s, job %" PRIu64 " round %u: %s", s->plants[who].name,
			     task->job, task->round, err_text());
		return false;
	}
	struct digest got = digest_of(store_content(m));
	if (!digest_equal(&got, &task->base) || store_content(m).n != task->base_size)
		sim_violated(s, "the base can be fetched", "job %" PRIu64 " round %u: another file than announced",
			     task->job, task->round);
	store_release(s->host.store, m);
	return true;
}

static void report(struct sim *s, uint32_t who, const struct wire_task *task)
{
	struct wire_report r = {.job = task->job, .round = task->round, .model = task->base, .taken = true};
	r.metrics.n = 1;
	r.metrics.v[0] = (struct wire_metric){.name = "heldout_loss", .value = 0.25};
	net_report(s, who, &r, false);
}

static void train(struct sim *s, uint32_t who, const struct wire_task *task)
{
	struct plant *p = &s->plants[who];
	if (!fetch(s, who, task)) {
		p->state = PLANT_IDLE;
		back_off(s, who);
		return;
	}
	/* It has seen this job's end: then that has been taken back, and the next one will be one more. */
	bool counted = !p->is_old && task->job_ends != 0;
	if (task->job <= p->finished_job) {
		p->has_retrained = true;
		p->finished_job = counted ? task->job : task->job - 1;
		p->finished_ends = counted ? task->job_ends : 0;
		cover("a plant that trains in a job whose end it has seen");
	}
	cover_expect("a plant that trains in a job whose end it has seen");
	p->tries = 0;
	p->task = *task;
	p->state = PLANT_TRAINING;
	p->until_ms = s->now + (int64_t)task->deadline_in_ms;
	if (rng_below(&s->rng, 8) == 0)
		report(s, who, task);
	sim_say(s, "%s: trains in job %" PRIu64 " round %u", p->name, task->job, task->round);
	wake_in(s, who, 1 + (int64_t)(p->slowness * (double)(TRAIN_MS / 2 + rng_below(&s->rng, TRAIN_MS))));
}

static void finish(struct sim *s, uint32_t who, const struct wire_task *task)
{
	struct plant *p = &s->plants[who];
	sim_say(s, "%s: job %" PRIu64 " has ended: %s", p->name, task->job, wire_job_state_name(task->job_state));
	cover_expect("a plant that hears of a job's next end without having trained");
	if (task->job == p->finished_job && !p->has_retrained)
		cover("a plant that hears of a job's next end without having trained");
	p->has_retrained = false;
	p->finished_job = task->job;
	p->finished_ends = task->job_ends;
	if (rng_below(&s->rng, 8) == 0)
		report(s, who, task);
	rest(s, who, 1 + (int64_t)rng_below(&s->rng, 500));
}

void plant_answer(struct sim *s, const struct answer *a)
{
	struct plant *p = &s->plants[a->who];
	if (p->state != PLANT_ASKING || a->request != p->request)
		return;
	p->request++;
	if (a->code == ERR_DENIED) {
		sim_say(s, "%s: is not let in", p->name);
		p->state = PLANT_GONE;
		p->timer++;
	} else if (a->code != ERR_OK) {
		p->state = PLANT_IDLE;
		back_off(s, a->who);
	} else if (a->task.kind == WIRE_TASK_TRAIN) {
		train(s, a->who, &a->task);
	} else if (a->task.kind == WIRE_TASK_FINISHED) {
		finish(s, a->who, &a->task);
	} else {
		rest(s, a->who, 1 + (int64_t)rng_below(&s->rng, 1000));
	}
}

void plant_receipt(struct sim *s, const struct answer *a)
{
	struct plant *p = &s->plants[a->who];
	if (p->state != PLANT_SENDING || a->request != p->request)
		return;
	p->request++;
	if (err_is_transient(a->code)) {
		back_off(s, a->who);
		return;
	}
	if (a->code == ERR_DENIED && !p->enrolled) {
		p->state = PLANT_GONE;
		p->timer++;
		return;
	}
	p->tries = 0;
	rest(s, a->who, 1 + (int64_t)rng_below(&s->rng, 20));
}

/* ---- time ---- */

static void wake_idle(struct sim *s, uint32_t who)
{
	ask(s, who);
}

static void wake_asking(struct sim *s, uint32_t who)
{
	net_hang_up(s, who, s->plants[who].request);
	ask(s, who);
}

static void wake_training(struct sim *s, uint32_t who)
{
	struct plant *p = &s->plants[who];
	/* It knows when its round ends; a clock that runs slow does not. */
	if (s->now >= p->until_ms && rng_below(&s->rng, 4) != 0)
		ask(s, who);
	else
		send(s, who);
}

static void wake_sending(struct sim *s, uint32_t who)
{
	net_abandon(s, who);
	s->plants[who].tries++;
	send(s, who);
}

void plant_timer(struct sim *s, const struct event *e)
{
	static void (*const wakes[])(struct sim * s, uint32_t who) = {
		[PLANT_IDLE] = wake_idle,
		[PLANT_ASKING] = wake_asking,
		[PLANT_TRAINING] = wake_training,
		[PLANT_SENDING] = wake_sending,
	};
	struct plant *p = &s->plants[e->who];
	if (e->ref == p->timer && p->state != PLANT_GONE)
		wakes[p->state](s, e->who);
}
