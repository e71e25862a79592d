/*
 * What goes wrong, and when. Each run draws for itself which disturbances it has at all and how often they strike (swarm testing): a run in
 * which everything goes wrong all the time finds little, because nothing gets far.
 */
#include "sim/sim.h"

#include <math.h>
#include <stdio.h>

enum { CHAOS_MS = 150000 };

static uint32_t any_plant(struct sim *s)
{
	return (uint32_t)rng_below(&s->rng, s->n_plants);
}

static void crash(struct sim *s)
{
	host_crash(s, "between two steps");
}

static void arm_disk(struct sim *s, uint64_t most)
{
	if (s->disk.state != DISK_GOOD)
		return;
	s->disk.state = DISK_ARMED;
	s->disk.left = (uint32_t)rng_below(&s->rng, most);
	sim_say(s, "disk: dies after %u operations", s->disk.left);
}

static void crash_within(struct sim *s)
{
	arm_disk(s, 40);
}

static void stop(struct sim *s)
{
	host_stop(s);
}

/* Some disturbances end by a second strike. */
static void flaky_disk(struct sim *s)
{
	if (s->disk.state == DISK_GOOD)
		s->disk.state = DISK_FLAKY;
	else if (s->disk.state == DISK_FLAKY)
		s->disk.state = DISK_GOOD;
	sim_say(s, "disk: %s", s->disk.state == DISK_FLAKY ? "fails now and then" : "works");
}

static void database(struct sim *s)
{
	static const char *const tables[] = {"contribution", "round", "job", "report"};
	host_refuse(s, s->host.refuses != NULL ? NULL : tables[rng_below(&s->rng, 4)]);
}

static void clock_back(struct sim *s)
{
	s->skew -= (int64_t)rng_below(&s->rng, 3000);
	s->skewed_ms = s->now;
	sim_say(s, "clock: goes back");
}

static void clock_forth(struct sim *s)
{
	s->skew += (int64_t)rng_below(&s->rng, 5000);
	sim_say(s, "clock: leaps forward");
	host_touch(s);
}

static void vanish(struct sim *s)
{
	uint32_t who = any_plant(s);
	if (s->plants[who].state != PLANT_GONE)
		plant_vanish(s, who);
}

static void come_back(struct sim *s)
{
	uint32_t who = any_plant(s);
	struct plant *p = &s->plants[who];
	if (p->state != PLANT_GONE || !p->enrolled)
		return;
	bool bare = rng_below(&s->rng, 3) == 0;
	if (bare)
		p->finished_job = p->finished_ends = 0;
	if (bare && rng_below(&s->rng, 2) == 0)
		p->variant++;
	sim_say(s, "%s: comes back %s its state", p->name, bare ? "without" : "with");
	plant_start(s, who);
}

static void revoke(struct sim *s)
{
	uint32_t who = any_plant(s);
	/* One whose update is on its way in, if there is one. */
	if (s->n_streams > 0 && rng_below(&s->rng, 2) == 0)
		who = s->streams[rng_below(&s->rng, s->n_streams)]->who;
	if (s->plants[who].enrolled)
		operator_revoke(s, who);
	if (rng_uniform(&s->rng) < s->ambush)
		crash(s);
}

static void enrol(struct sim *s)
{
	uint32_t who = any_plant(s);
	if (!s->plants[who].enrolled)
		operator_enrol(s, who);
}

static void lie(struct sim *s)
{
	lie_send(s);
}

static void weather(struct sim *s)
{
	static const double losses[] = {0, 0, 0.02, 0.1, 0.3}, cuts[] = {0, 0.02, 0.1, 0.3};
	s->weather = (struct weather){
		.loss = losses[rng_below(&s->rng, 5)],
		.repeat = losses[rng_below(&s->rng, 5)],
		.cut = cuts[rng_below(&s->rng, 4)],
		.stall = cuts[rng_below(&s->rng, 3)],
		.delay_ms = (int64_t)exp(rng_uniform(&s->rng) * log(3000)) + 1,
	};
	sim_say(s, "network: loses %.2f, repeats %.2f, cuts %.2f, delay %d ms", s->weather.loss, s->weather.repeat,
		s->weather.cut, (int)s->weather.delay_ms);
}

/* `mean_ms` between two strikes in a run of full intensity; `share` of the runs that have it; `needs_host`: it takes a running one. */
static const struct {
	const char *name;
	void (*strike)(struct sim *s);
	int64_t mean_ms;
	double share;
	bool needs_host, each_plant; /* each_plant: more plants, more strikes */
} disturbances[] = {
	{"a crash between two steps", crash, 40000, 0.4, true, false},
	{"a crash within a step", crash_within, 30000, 0.4, true, false},
	{"a polite restart", stop, 60000, 0.3, true, false},
	{"a disk that fails now and then", flaky_disk, 20000, 0.25, false, false},
	{"a database that refuses", database, 15000, 0.2, true, false},
	{"a clock that goes back", clock_back, 20000, 0.3, false, false},
	{"a clock that leaps", clock_forth, 20000, 0.2, false, false},
	{"a plant that vanishes", vanish, 300000, 0.7, false, true},
	{"a plant that comes back", come_back, 100000, 1, false, true},
	{"a plant that is revoked", revoke, 20000, 0.35, true, false},
	{"a plant that is enrolled", enrol, 15000, 0.4, true, false},
	{"a lie", lie, 2000, 0.8, false, false},
	{"other weather", weather, 30000, 1, false, false},
};
enum { DISTURBANCES = sizeof disturbances / sizeof disturbances[0] };

static void plan_next(struct sim *s, uint32_t index)
{
	double mean = (double)disturbances[index].mean_ms / s->intensity[index];
	if (disturbances[index].each_plant)
		mean /= s->n_plants;
	double wait = -log(1 - rng_uniform(&s->rng)) * mean;
	sim_later(s, 1 + (int64_t)(wait < 1e9 ? wait : 1e9), EVENT_CHAOS, SIM_NOBODY, index, NULL);
}

void chaos_strikes(struct sim *s, const struct event *e)
{
	if (s->healed)
		return;
	if (!disturbances[e->ref].needs_host || s->host.up) {
		cover(disturbances[e->ref].name);
		disturbances[e->ref].strike(s);
	}
	plan_next(s, e->ref);
}

static void plan_jobs(struct sim *s)
{
	uint64_t jobs = 1 + rng_below(&s->rng, 4);
	for (uint64_t i = 0; i < jobs; i++)
		sim_later(s, (int64_t)rng_below(&s->rng, i == 0 ? 2000 : CHAOS_MS), EVENT_OPERATOR, SIM_NOBODY,
			  DEED_START, NULL);
	for (uint64_t i = rng_below(&s->rng, 3); i > 0; i--) {
		int64_t at = (int64_t)rng_below(&s->rng, CHAOS_MS);
		sim_later(s, at, EVENT_OPERATOR, SIM_NOBODY, DEED_STOP, NULL);
		sim_later(s, at + (int64_t)rng_below(&s->rng, 40000), EVENT_OPERATOR, SIM_NOBODY, DEED_RESUME, NULL);
	}
	for (uint64_t i = rng_below(&s->rng, 3); i > 0; i--)
		sim_later(s, (int64_t)rng_below(&s->rng, CHAOS_MS), EVENT_OPERATOR, SIM_NOBODY, DEED_RESUME, NULL);
	for (uint64_t i = rng_below(&s->rng, 4); i > 0; i--)
		sim_later(s, (int64_t)rng_below(&s->rng, CHAOS_MS), EVENT_OPERATOR, SIM_NOBODY, DEED_WATCH, NULL);
}

/* ---- ambushes: between two phases of a round, where little time is left for anything to go wrong by chance ---- */

static void ambush_crash(struct sim *s, uint64_t job)
{
	(void)job;
	crash(s);
}

static void ambush_disk(struct sim *s, uint64_t job)
{
	(void)job;
	arm_disk(s, 12);
}

static void ambush_revoke(struct sim *s, uint64_t job)
{
	(void)job;
	revoke(s);
}

static const struct {
	const char *name;
	void (*strike)(struct sim *s, uint64_t job);
} ambushes[] = {
	{"ambush: a crash", ambush_crash},
	{"ambush: a crash within the next steps", ambush_disk},
	{"ambush: a stop of the job", operator_stop},
	{"ambush: a plant is revoked", ambush_revoke},
};
enum { AMBUSHES = sizeof ambushes / sizeof ambushes[0] };

void chaos_ambush(struct sim *s, uint64_t job)
{
	if (!s->healed && rng_uniform(&s->rng) < s->ambush)
		sim_later(s, (int64_t)rng_below(&s->rng, 2), EVENT_AMBUSH, (uint32_t)job,
			  (uint32_t)rng_below(&s->rng, AMBUSHES), NULL);
}

void chaos_ambushes(struct sim *s, const struct event *e)
{
	if (s->healed || !s->host.up)
		return;
	cover(ambushes[e->ref].name);
	ambushes[e->ref].strike(s, e->who);
}

void chaos_plan(struct sim *s)
{
	_Static_assert(DISTURBANCES <= 32, "sim.intensity");
	weather(s);
	s->ambush = rng_below(&s->rng, 2) == 0 ? 0 : 0.15;
	for (uint32_t i = 0; i < AMBUSHES; i++)
		cover_expect(ambushes[i].name);
	for (uint32_t i = 0; i < DISTURBANCES; i++) {
		cover_expect(disturbances[i].name);
		s->intensity[i] = exp(rng_normal(&s->rng) * 0.7);
		if (rng_uniform(&s->rng) < disturbances[i].share)
			plan_next(s, i);
	}
	for (uint32_t i = 0; i < s->n_plants; i++) {
		if (rng_below(&s->rng, 20) != 0 && s->plants[i].enrolled)
			plant_start(s, i);
	}
	plan_jobs(s);
	sim_later(s, CHAOS_MS, EVENT_HEAL, SIM_NOBODY, 0, NULL);
}

/* Everybody who may be there is, and stays; what was under way when things were bad may still be. */
void chaos_end(struct sim *s)
{
	s->disk.state = DISK_GOOD;
	s->disk.tripped = false;
	if (s->host.refuses != NULL && s->host.up)
		host_refuse(s, NULL);
	for (uint32_t i = 0; i < s->n_plants; i++) {
		if (s->plants[i].enrolled && s->plants[i].state == PLANT_GONE)
			plant_start(s, i);
	}
}
