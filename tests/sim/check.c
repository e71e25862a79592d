/*
 * The invariants, in a table at the end: what is checked, and at which moments. What the database says is in look.c; here is the rest: the
 * memory, who waits, what is due, and that everything ends. The spool and the store are in keep.c.
 */
#include "sim/sim.h"

#include "coordinator/engine_parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { LEARN_MS = 300000, PASSES_MAX = 2000 };

void check_error(struct sim *s, const char *invariant, const char *what, enum err got, errors right)
{
	static const char *const names[ERR_COUNT] = {
		[ERR_MALFORMED] = "refused: malformed",
		[ERR_DENIED] = "refused: denied",
		[ERR_NOT_FOUND] = "refused: not found",
		[ERR_STALE] = "refused: stale",
		[ERR_DUPLICATE] = "refused: duplicate",
		[ERR_LIMIT] = "refused: limit",
		[ERR_SHAPE] = "refused: shape",
		[ERR_NUMERIC] = "refused: numeric",
		[ERR_UNAVAILABLE] = "refused: unavailable",
	};
	for (size_t i = 0; i < ERR_COUNT; i++) {
		if (names[i] != NULL)
			cover_expect(names[i]);
	}
	if (names[got] != NULL)
		cover(names[got]);
	/* The disk has failed under this call. */
	if (got == ERR_UNAVAILABLE && host_failed(s))
		return;
	/* Jobs are started without that cloak. */
	if (got == ERR_INTERNAL && s->host.refuses != NULL)
		return;
	if ((right & ONLY(got)) != 0)
		return;
	const char *text = got != ERR_OK ? err_text() : "";
	for (size_t i = 0; i < ERR_COUNT; i++) {
		if ((right & ONLY(i)) != 0)
			sim_violated(s, invariant, "%s: %s (%s) instead of %s", what, err_name(got), text,
				     err_name((enum err)i));
	}
}

void check_operator_error(struct sim *s, const char *what, enum err got, errors right)
{
	if (got != ERR_IO || !host_failed(s))
		check_error(s, "jobs are judged rightly", what, got, right);
}

/* ---- memory ---- */

static void check_memory(struct sim *s)
{
	size_t running = 0;
	for (size_t i = 1; i <= s->book.n_jobs; i++)
		running += s->book.jobs[i]->state == WIRE_JOB_RUNNING;
	if (s->host.engine->lobby.n != s->n_open || s->n_open > 2 * (size_t)s->n_plants + 4)
		sim_violated(s, "who waits is who has asked", "%zu in the lobby, %zu calls", s->host.engine->lobby.n,
			     s->n_open);
	if (s->host.engine->n_runs != running)
		sim_violated(s, "what runs is what is running", "%zu runs, %zu jobs", s->host.engine->n_runs, running);
}

/* ---- when nothing is to be done ---- */

static void check_idle_job(struct sim *s, const struct book_job *j, int64_t wait_ms)
{
	const struct book_round *r = &j->rounds[j->round];
	int64_t left = r->deadline_ms - sim_wall(s);
	int64_t flow_ms = INT64_MAX;
	bool doubt;
	if (left <= 0) {
		left += r->grace_ms;
		book_flowing(s, j, &flow_ms);
		left = flow_ms < left ? flow_ms : left;
		cover("a round that waits for what flows in");
	}
	if (r->phase != ROUND_OPEN)
		sim_violated(s, "a sealed round goes on", "job %" PRIu64 " round %u is %s", j->id, j->round,
			     round_phase_name(r->phase));
	else if (book_is_over(s, j) || wait_ms > left)
		sim_violated(s, "no round waits beyond its deadline and its grace",
			     "job %" PRIu64 " round %u: %" PRId64 " ms left, sleeping for %" PRId64, j->id, j->round,
			     left, wait_ms);
	else if (j->stop_asked)
		sim_violated(s, "a stopped job ends", "job %" PRIu64, j->id);
	else if (book_is_full(s, j, &doubt) && !doubt)
		sim_violated(s, "a full round is sealed", "job %" PRIu64 " round %u", j->id, j->round);
	else if (r->counted < r->quorum && book_is_lost(s, j, &doubt) && !doubt)
		sim_violated(s, "a round that is lost is given up", "job %" PRIu64 " round %u", j->id, j->round);
}

/* Somebody waits: is there nothing for it? A wall clock that has gone back since may have opened what had been passed over. */
static void check_idle_call(struct sim *s, const struct call *c)
{
	if (s->now - c->since_ms >= SIM_HOLD_MS)
		sim_violated(s, "no call waits too long", "%s: %" PRId64 " ms",
			     c->who == SIM_NOBODY ? "admin" : s->plants[c->who].name, s->now - c->since_ms);
	if (c->who == SIM_NOBODY || c->since_ms <= s->skewed_ms)
		return;
	const struct book_job *next = book_job_after(s, c->who, c->seen, c->ends);
	if (next != NULL && next->state != WIRE_JOB_RUNNING)
		sim_violated(s, "who waits hears of ends", "%s: job %" PRIu64, s->plants[c->who].name, next->id);
	for (size_t i = 1; i <= s->book.n_jobs; i++) {
		if (book_has_task(s, s->book.jobs[i], c->who, true))
			sim_violated(s, "nobody waits while there is a task", "%s: job %zu", s->plants[c->who].name, i);
	}
}

static void check_rest(struct sim *s)
{
	for (size_t i = 1; i <= s->book.n_jobs && !host_retries(s); i++) {
		if (s->book.jobs[i]->state == WIRE_JOB_RUNNING)
			check_idle_job(s, s->book.jobs[i], s->host.wait_ms);
	}
}

static void check_waiting(struct sim *s)
{
	for (size_t i = 0; i < s->n_open; i++)
		check_idle_call(s, s->open[i]);
}

/* ---- answers ---- */

static void check_task(struct sim *s, const struct call *c, const struct wire_task *t)
{
	const struct book_job *j = book_job(s, t->job);
	const char *name = s->plants[c->who].name;
	if (j != NULL && t->job_ends != j->ends)
		sim_violated(s, "the ends of a job are counted", "%s: job %" PRIu64 ": %u instead of %u", name, j->id,
			     t->job_ends, j->ends);
	if (t->kind == WIRE_TASK_TRAIN) {
		const struct book_round *r = j != NULL ? &j->rounds[j->round] : NULL;
		if (j == NULL || !book_has_task(s, j, c->who, false) || t->round != j->round ||
		    !digest_equal(&t->base, &r->base) || !digest_equal(&t->source, &j->source) ||
		    (int64_t)t->deadline_in_ms != r->deadline_ms - sim_wall(s))
			sim_violated(s, "a task is of an open round", "%s: job %" PRIu64 " round %u", name, t->job,
				     t->round);
		cover("a task: train");
	} else if (t->kind == WIRE_TASK_FINISHED) {
		const struct book_job *next = book_job_after(s, c->who, c->seen, c->ends);
		if (j == NULL || j != next || j->state == WIRE_JOB_RUNNING || j->state != t->job_state)
			sim_violated(s, "ends are told in their order",
				     "%s has seen %" PRIu64 " and is told of %" PRIu64, name, c->seen, t->job);
		cover("a task: finished");
	} else {
		cover("a task: wait");
	}
}

void check_answer(struct sim *s, const struct call *c, const struct answer *a)
{
	look_at_database(s);
	if (s->violated != NULL)
		return;
	if (a->code == ERR_UNAVAILABLE || (a->code == ERR_DENIED && !a->watches && !s->plants[c->who].enrolled))
		return;
	if (a->watches) {
		const struct book_job *j = book_job(s, c->job);
		if ((j == NULL) != (a->code == ERR_NOT_FOUND) ||
		    (j != NULL && (a->code != ERR_OK || a->watched.job != j->id || a->state != j->state)))
			sim_violated(s, "watchers see what is", "job %" PRIu64 ": %s", c->job, err_name(a->code));
		return;
	}
	if (a->code != ERR_OK)
		sim_violated(s, "who asks for a task gets an answer", "%s: %s", s->plants[c->who].name,
			     err_name(a->code));
	else
		check_task(s, c, &a->task);
}

/* ---- life ---- */

static int64_t time_for(const struct book_job *j)
{
	return (j->config.rounds + 1) * j->config.failures_max * (j->config.deadline + j->config.grace + 5000) + 150000;
}

/* Once nothing goes wrong any more, everything comes to an end. */
static void check_life(struct sim *s)
{
	bool running = false;
	if (!s->healed)
		return;
	for (size_t i = 1; i <= s->book.n_jobs; i++) {
		const struct book_job *j = s->book.jobs[i];
		if (j->state != WIRE_JOB_RUNNING)
			continue;
		running = true;
		int64_t since = j->resumed_ms > s->healed_ms ? j->resumed_ms : s->healed_ms;
		if (s->now - since > time_for(j))
			sim_violated(s, "every job ends", "job %" PRIu64 " round %u is %s", j->id, j->round,
				     round_phase_name(j->rounds[j->round].phase));
	}
	if (running || s->ended_ms == 0)
		s->ended_ms = s->now;
	if (s->now - s->ended_ms > LEARN_MS && !sim_over(s))
		sim_violated(s, "every plant hears of every end", "%d s after the last", LEARN_MS / 1000);
}

/* An engine that always finds something to do does nothing. */
static void check_busy(struct sim *s)
{
	if (s->host.busy > PASSES_MAX)
		sim_violated(s, "the engine comes to rest", "%u passes, and still something to do", s->host.busy);
}

/* ---- what has become of everything ---- */

static void check_rows(struct sim *s)
{
	for (size_t i = 1; i <= s->book.n_jobs; i++) {
		for (uint32_t number = 1; number <= s->book.jobs[i]->round && s->violated == NULL; number++)
			look_at_rows(s, s->book.jobs[i], number);
	}
}

/* To the bit: each has the digest that its name says. */
static void check_models(struct sim *s)
{
	for (size_t i = 0; i < s->book.n_models && s->violated == NULL; i++) {
		struct model *m;
		if (keep_needs_model(s, &s->book.models[i].digest) && look_at_model(s, &s->book.models[i].digest, &m))
			model_free(m);
	}
}

/* ---- the table ---- */

/* `every`: not after each step, but after so many. */
static const struct {
	void (*check)(struct sim *s);
	uint64_t every;
	bool at[MOMENT_COUNT];
} invariants[] = {
	{look_at_database, 1, {[MOMENT_STEP] = true, [MOMENT_IDLE] = true, [MOMENT_START] = true, [MOMENT_END] = true}},
	{check_memory, 1, {[MOMENT_STEP] = true, [MOMENT_START] = true}},
	{check_busy, 1, {[MOMENT_STEP] = true}},
	{check_spool, 128, {[MOMENT_STEP] = true, [MOMENT_START] = true, [MOMENT_END] = true}},
	{check_store, 128, {[MOMENT_STEP] = true, [MOMENT_START] = true, [MOMENT_END] = true}},
	{check_store_clean, 1, {[MOMENT_START] = true, [MOMENT_END] = true}},
	{check_open, 128, {[MOMENT_STEP] = true}},
	{check_models, 1, {[MOMENT_END] = true}},
	{check_kept, 1, {[MOMENT_START] = true, [MOMENT_END] = true}},
	{check_rest, 1, {[MOMENT_IDLE] = true}},
	{check_waiting, 1, {[MOMENT_IDLE] = true}},
	{check_rows, 1, {[MOMENT_START] = true, [MOMENT_END] = true}},
};

void check(struct sim *s, enum moment moment)
{
	for (size_t i = 0; i < sizeof invariants / sizeof invariants[0] && s->host.up && s->violated == NULL; i++) {
		bool due = moment != MOMENT_STEP || s->steps % invariants[i].every == 0;
		if (invariants[i].at[moment] && due)
			invariants[i].check(s);
	}
	if (moment == MOMENT_STEP && s->violated == NULL)
		check_life(s);
}
