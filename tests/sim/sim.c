/*
 * A run: everything is an event in a queue, handled one after another at its time; after each the invariants are checked. For some simulated
 * minutes things go wrong; then the network heals, and everything must come to its end.
 */
#include "sim/sim.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS_MAX = 2000000, WALL_ZERO_S = 1800000000 };

/* The engine's clocks take no argument. */
static const struct sim *present;

int64_t sim_wall(const struct sim *s)
{
	return (int64_t)WALL_ZERO_S * 1000 + s->now + s->skew;
}

int64_t sim_monotonic(const struct sim *s)
{
	return 1000 + s->now;
}

int64_t host_wall_now(void);
int64_t host_monotonic_now(void);

int64_t host_wall_now(void)
{
	return sim_wall(present);
}

int64_t host_monotonic_now(void)
{
	return sim_monotonic(present);
}

void sim_later(struct sim *s, int64_t in_ms, enum event_kind kind, uint32_t who, uint32_t ref, void *data)
{
	ENSURE(in_ms >= 0);
	queue_put(&s->queue, (struct event){.at = s->now + in_ms, .kind = kind, .who = who, .ref = ref, .data = data});
}

void sim_violated(struct sim *s, const char *invariant, const char *fmt, ...)
{
	va_list ap;
	if (s->violated != NULL)
		return;
	s->violated = invariant;
	va_start(ap, fmt);
	vsnprintf(s->why, sizeof s->why, fmt, ap);
	va_end(ap);
}

/* ---- events ---- */

static void answer_arrives(struct sim *s, const struct event *e)
{
	const struct answer *a = e->data;
	if (a->watches)
		operator_answer(s, a);
	else
		plant_answer(s, a);
}

static void receipt_arrives(struct sim *s, const struct event *e)
{
	plant_receipt(s, e->data);
}

static void host_opens(struct sim *s, const struct event *e)
{
	(void)e;
	if (!s->host.up)
		host_start(s);
}

static void heals(struct sim *s, const struct event *e)
{
	(void)e;
	sim_say(s, "everything heals");
	s->healed = true;
	s->healed_ms = s->now;
	chaos_end(s);
}

/* `owns`: data is freed when the event is over. `reaches`: the coordinator; what does not cannot have changed anything there. */
static const struct {
	const char *name;
	void (*handle)(struct sim *s, const struct event *e);
	bool owns, reaches;
} handlers[EVENT_COUNT] = {
	[EVENT_TIMER] = {"a plant wakes", plant_timer, false, false},
	[EVENT_CALL] = {"a call arrives", net_call_arrives, false, true},
	[EVENT_HANGUP] = {"a caller has gone", net_hang_up_arrives, false, true},
	[EVENT_ANSWER] = {"an answer arrives", answer_arrives, true, false},
	[EVENT_STREAM] = {"a message of an upload arrives", net_stream_arrives, false, true},
	[EVENT_RECEIPT] = {"the end of an upload arrives", receipt_arrives, true, false},
	[EVENT_REPORT] = {"a report arrives", net_report_arrives, true, true},
	[EVENT_OPERATOR] = {"an operator acts", operator_acts, false, true},
	[EVENT_PUMP] = {"a pass of the engine", host_pump, false, true},
	[EVENT_OPEN] = {"the coordinator starts", host_opens, false, true},
	[EVENT_CHAOS] = {"a disturbance", chaos_strikes, false, true},
	[EVENT_AMBUSH] = {"an ambush", chaos_ambushes, false, true},
	[EVENT_HEAL] = {"healing", heals, false, true},
};

static void handle(struct sim *s, const struct event *e)
{
	ENSURE(e->at >= s->now);
	s->now = e->at;
	s->steps++;
	s->host.failures_in_step = s->disk.failures;
	s->host.commit_failures_in_step = s->disk.commit_failures;
	cover(handlers[e->kind].name);
	handlers[e->kind].handle(s, e);
	if (handlers[e->kind].owns)
		free(e->data);
	doubt_step(s);
	if (s->sabotage != NULL && s->host.up && !s->disk.tripped)
		sabotage_strikes(s);
	/* The disk has died in this step: the machine has, too. */
	if (s->disk.tripped && s->host.up) {
		look_at_database(s); /* what had become durable, at the time when it did */
		host_crash(s, "in the middle of a step");
	}
	if (handlers[e->kind].reaches)
		check(s, MOMENT_STEP);
}

/* ---- the run ---- */

/* Many runs are small, because small ones are fast and find most; some are large. */
static uint32_t crowd(struct sim *s)
{
	double low = log(20), high = log(SIM_PLANTS_MAX);
	double skewed = rng_uniform(&s->rng);
	return (uint32_t)exp(low + (high - low) * skewed * skewed);
}

static void make(struct sim *s, const struct sim_options *o)
{
	*s = (struct sim){.seed = o->seed, .sabotage = o->sabotage};
	present = s;
	trace_begin(s, o->verbose);
	rng_stream(&s->rng, o->seed, "simulation", 0);
	rng_stream(&s->disk.rng, o->seed, "disk", 0);
	s->n_plants = o->plants != 0 ? o->plants : crowd(s);
	s->plants = mem_array(s->n_plants, sizeof *s->plants);
	snprintf(s->host.dir, sizeof s->host.dir, "%s", o->dir);
	for (uint32_t i = 0; i < s->n_plants; i++) {
		struct plant *p = &s->plants[i];
		snprintf(p->name, sizeof p->name, "p%03u", i);
		p->slowness = exp(rng_normal(&s->rng) * 0.7);
		p->enrolled = rng_uniform(&s->rng) < 0.9;
		p->is_old = rng_below(&s->rng, 6) == 0;
	}
	host_make(s);
	sim_say(s, "seed %" PRIu64 ", %u plants", s->seed, s->n_plants);
	host_start(s);
	chaos_plan(s);
}

static void drop(struct sim *s)
{
	struct event e;
	host_drop(s);
	while (queue_take(&s->queue, &e)) {
		if (handlers[e.kind].owns)
			free(e.data);
	}
	doubt_clear(s);
	queue_deinit(&s->queue);
	net_drop(s);
	book_drop(s);
	free(s->plants);
}

bool sim_over(struct sim *s)
{
	for (size_t i = 1; i <= s->book.n_jobs; i++) {
		if (s->book.jobs[i]->state == WIRE_JOB_RUNNING)
			return false;
	}
	for (uint32_t i = 0; i < s->n_plants; i++) {
		if (s->plants[i].enrolled && !book_knows_ends(s, i))
			return false;
	}
	return true;
}

/* Whatever the end of the run was: a coordinator that starts now finds everything. */
static void look_back(struct sim *s)
{
	if (s->host.up)
		host_crash(s, "for a last look");
	host_start(s);
	check(s, MOMENT_END);
}

void sim_run(const struct sim_options *options, struct sim_result *ret_result)
{
	struct sim *s = mem_new(sizeof *s);
	struct event e;
	make(s, options);
	while (s->violated == NULL && queue_take(&s->queue, &e)) {
		handle(s, &e);
		if (s->healed && s->steps % 16 == 0 && sim_over(s))
			break;
		if (s->steps > STEPS_MAX)
			sim_violated(s, "a run ends", "%d events, and still something to do", STEPS_MAX);
	}
	if (s->violated == NULL)
		look_back(s);
	sim_say(s, "%s after %" PRIu64 " events", s->violated == NULL ? "all is well" : s->violated, s->steps);
	*ret_result = (struct sim_result){
		.violated = s->violated, .hash = trace_hash(), .steps = s->steps, .sabotaged = s->sabotaged};
	memcpy(ret_result->why, s->why, sizeof s->why);
	drop(s);
	free(s);
}
