/*
 * Rounds: what is durable when, and why nothing is lost or counted twice.
 *
 * The machine itself is memory only. It is worth something because of the order in which the engine works: it does
 * what an action says, makes the result durable, and only then feeds the event that tells the machine so. An event
 * is thus always about something that is on disk already, and the phase in the database is never ahead of the
 * facts. It may be behind them: what is done twice must give the same, then.
 *
 *	phase        durable at that moment                   on the way out
 *	----------   --------------------------------------   ----------------------------------------
 *	OPEN         number, base digest, cohort, goal,       ACCEPTED counts one row more; the goal, the
 *	             quorum, deadline; a row and a spooled    deadline or a lost quorum asks for SEAL or
 *	             file for each accepted update            ABANDON
 *	SEALED       the list of accepted digests; no row     AGGREGATE makes the model from exactly
 *	             is added or taken away any more          that list
 *	AGGREGATED   the new model in the store, under its    COMMIT records its digest and makes it the
 *	             digest; the database says SEALED         job's current model
 *	COMMITTED    the new model is current                 NEXT: the spooled updates go, the next
 *	                                                      round opens
 *	ABANDONED    the base stays current; the accepted     NEXT
 *	             updates are on record and not used
 *
 * A crash can fall between any two of these lines, and round_resume() then names the action from the phase alone.
 * Each action may therefore be done twice, and each can be: sealing the same rows gives the same list; aggregating
 * the same list gives the same bytes under the same name (aggregate.h); committing sets the same value; abandoning
 * likewise. Nothing is lost: an acknowledged update has its row, a row is in the seal, and the seal is all that
 * aggregation reads. Nothing is doubled: rows are unique per (job, round, plant) and per (job, round it was made in,
 * plant), `accepted` is their number, and a round whose seal is on disk takes no row (round_accepts() and the table
 * say no).
 *
 * Syncs. A round costs two commits: the seal, and the end, in which the model's digest, what it means for the job and
 * the next round are one transaction. AGGREGATED has none of its own: nothing but the commit can follow it, neither a
 * stop nor the clock, so there is nothing to remember; a crash there aggregates once more. (A database of an earlier
 * release may hold the phase: it is taken up as what it is.) The seal has one, because it is a promise: who has seen
 * a round sealed never sees another set of updates in it.
 *
 * The point of no return is SEALED. Before it, a stop of the job or a missed quorum ends the round without a model;
 * from it on the outcome is a function of what is on disk, so a stop waits for the commit: otherwise two
 * coordinators that resume the same database could end with different models.
 *
 * One other way out of SEALED: the sealed updates give no model at all, today or ever (a parameter would not be
 * finite, a file is not what was sealed). That is an outcome, too, and a function of what is on disk; neither a
 * stop nor the clock leads there.
 *
 * Time. Only OPEN looks at the clock. An update whose row was on its way to the disk when the deadline passed is
 * counted when its event comes: the promise was made to the plant, and the seal is what decides. `now` may go
 * backwards (wall clock): that delays a decision and never undoes one, because decisions are phases.
 *
 * Goal and cohort. Asking more plants than the goal wants (over-selection) keeps slow ones from holding the others up;
 * with updates that may come late (engine_judge.c) it is buffered asynchronous training, and the goal is the size of
 * the buffer. The machine does not know the difference: an update that came late is one more that is accepted.
 *
 * Grace. An update of an hour's transfer that lacks its last second at the deadline is worth waiting for, one whose
 * plant has gone to sleep is not. What tells them apart is whether bytes come, so `flowing` is told from outside, like
 * the time, and the wait ends with the last of them or with the grace. It is no phase: nothing about it is durable,
 * and after a restart nothing flows. Where accepted and flowing ones together are no quorum, nobody waits.
 */
#include "coordinator/round.h"

#include <string.h>

static const char *const phase_names[ROUND_PHASE_COUNT] = {
	[ROUND_OPEN] = "open",           [ROUND_SEALED] = "sealed",       [ROUND_AGGREGATED] = "aggregated",
	[ROUND_COMMITTED] = "committed", [ROUND_ABANDONED] = "abandoned",
};

static const char *const event_names[ROUND_EVENT_COUNT] = {
	[ROUND_EVENT_ACCEPTED] = "accepted",   [ROUND_EVENT_TICK] = "tick",
	[ROUND_EVENT_SEALED] = "sealed",       [ROUND_EVENT_AGGREGATED] = "aggregated",
	[ROUND_EVENT_COMMITTED] = "committed", [ROUND_EVENT_ABANDONED] = "abandoned",
	[ROUND_EVENT_STOP] = "stop",
};

/* A row that is not there is an event that cannot happen. */
static const struct transition {
	bool possible;
	bool counts;  /* one update more */
	bool judges;  /* the action follows from the count and the time: judge() */
	bool quorate; /* only with a quorum */
	enum round_phase next;
	enum round_action action;
} table[ROUND_PHASE_COUNT][ROUND_EVENT_COUNT] = {
	[ROUND_OPEN] =
		{
			[ROUND_EVENT_ACCEPTED] = {.possible = true, .counts = true, .judges = true, .next = ROUND_OPEN},
			[ROUND_EVENT_TICK] = {.possible = true, .judges = true, .next = ROUND_OPEN},
			[ROUND_EVENT_SEALED] =
				{.possible = true, .quorate = true, .next = ROUND_SEALED, .action = ROUND_AGGREGATE},
			[ROUND_EVENT_ABANDONED] = {.possible = true, .next = ROUND_ABANDONED, .action = ROUND_NEXT},
			[ROUND_EVENT_STOP] = {.possible = true, .next = ROUND_OPEN, .action = ROUND_ABANDON},
		},
	[ROUND_SEALED] =
		{
			[ROUND_EVENT_TICK] = {.possible = true, .next = ROUND_SEALED},
			[ROUND_EVENT_AGGREGATED] = {.possible = true, .next = ROUND_AGGREGATED, .action = ROUND_COMMIT},
			[ROUND_EVENT_ABANDONED] = {.possible = true, .next = ROUND_ABANDONED, .action = ROUND_NEXT},
			[ROUND_EVENT_STOP] = {.possible = true, .next = ROUND_SEALED},
		},
	[ROUND_AGGREGATED] =
		{
			[ROUND_EVENT_TICK] = {.possible = true, .next = ROUND_AGGREGATED},
			[ROUND_EVENT_COMMITTED] = {.possible = true, .next = ROUND_COMMITTED, .action = ROUND_NEXT},
			[ROUND_EVENT_STOP] = {.possible = true, .next = ROUND_AGGREGATED},
		},
	[ROUND_COMMITTED] =
		{
			[ROUND_EVENT_TICK] = {.possible = true, .next = ROUND_COMMITTED},
			[ROUND_EVENT_STOP] = {.possible = true, .next = ROUND_COMMITTED},
		},
	[ROUND_ABANDONED] =
		{
			[ROUND_EVENT_TICK] = {.possible = true, .next = ROUND_ABANDONED},
			[ROUND_EVENT_STOP] = {.possible = true, .next = ROUND_ABANDONED},
		},
};

/* What an interrupted round needs, by phase; OPEN is judged instead. */
static const enum round_action resume_actions[ROUND_PHASE_COUNT] = {
	[ROUND_SEALED] = ROUND_AGGREGATE,
	[ROUND_AGGREGATED] = ROUND_COMMIT,
	[ROUND_COMMITTED] = ROUND_NEXT,
	[ROUND_ABANDONED] = ROUND_NEXT,
};

static enum round_action judge(const struct round *r, int64_t now_ms)
{
	bool quorate = r->accepted >= r->quorum;
	if (r->accepted >= r->goal)
		return ROUND_SEAL;
	if (r->lost && !quorate)
		return ROUND_ABANDON;
	if (now_ms < r->deadline_ms)
		return ROUND_NOTHING;
	/* Differences, which cannot overflow, unlike deadline + grace of a damaged row. */
	bool graced = r->flowing > 0 && now_ms - r->deadline_ms < r->grace_ms;
	if (graced && (uint64_t)r->accepted + r->flowing >= r->quorum)
		return ROUND_NOTHING;
	return quorate ? ROUND_SEAL : ROUND_ABANDON;
}

static const char *flaw_of(const struct round *r)
{
	if ((unsigned)r->phase >= ROUND_PHASE_COUNT)
		return "unknown phase";
	if (r->number == 0)
		return "rounds are numbered from 1";
	if (r->quorum == 0 || r->quorum > r->cohort)
		return "the quorum is not between 1 and the cohort";
	if (r->goal < r->quorum || r->goal > r->cohort)
		return "the goal is not between the quorum and the cohort";
	if (r->accepted > r->cohort)
		return "more updates than plants";
	if (r->grace_ms < 0 || r->grace_ms > INT64_MAX / 4 || r->deadline_ms > INT64_MAX / 4)
		return "a deadline or a grace that cannot be";
	if (r->opened_ms < 0 || r->opened_ms >= r->deadline_ms)
		return "the deadline is not after the opening, or both before 1970";
	bool sealed = r->phase == ROUND_SEALED || r->phase == ROUND_AGGREGATED || r->phase == ROUND_COMMITTED;
	if (sealed && r->accepted < r->quorum)
		return "sealed without a quorum";
	return NULL;
}

void round_validate(const struct round *r)
{
	ENSURE(flaw_of(r) == NULL);
}

enum err round_check(const struct round *r)
{
	const char *flaw = flaw_of(r);
	return flaw == NULL ? ERR_OK : err_set(ERR_CORRUPT, "round %lu: %s", (unsigned long)r->number, flaw);
}

enum err round_step(struct round *r, enum round_event event, int64_t now_ms, enum round_action *ret_action)
{
	round_validate(r);
	ENSURE((unsigned)event < ROUND_EVENT_COUNT);
	const struct transition *t = &table[r->phase][event];
	if (!t->possible)
		return err_set(ERR_STATE, "round %lu is %s: it cannot be told '%s'", (unsigned long)r->number,
			       phase_names[r->phase], event_names[event]);
	if (t->counts && r->accepted == r->cohort)
		return err_set(ERR_STATE, "round %lu has an update of each of its %lu plants already",
			       (unsigned long)r->number, (unsigned long)r->cohort);
	if (t->quorate && r->accepted < r->quorum)
		return err_set(ERR_STATE, "round %lu cannot be sealed with %lu updates: its quorum is %lu",
			       (unsigned long)r->number, (unsigned long)r->accepted, (unsigned long)r->quorum);
	r->accepted += t->counts;
	r->phase = t->next;
	round_validate(r);
	*ret_action = t->judges ? judge(r, now_ms) : t->action;
	return ERR_OK;
}

enum err round_accepts(const struct round *r, int64_t now_ms)
{
	TRY(round_finishes(r, now_ms));
	if (now_ms >= r->deadline_ms)
		return err_set(ERR_STALE, "the deadline of round %lu has passed", (unsigned long)r->number);
	return ERR_OK;
}

enum err round_finishes(const struct round *r, int64_t now_ms)
{
	round_validate(r);
	if (r->phase != ROUND_OPEN)
		return err_set(ERR_STALE, "round %lu is %s", (unsigned long)r->number, phase_names[r->phase]);
	if (r->accepted >= r->goal)
		return err_set(ERR_STALE, "round %lu has all the updates that it wants", (unsigned long)r->number);
	if (now_ms >= r->deadline_ms && now_ms - r->deadline_ms >= r->grace_ms)
		return err_set(ERR_STALE, "the deadline of round %lu has passed", (unsigned long)r->number);
	return ERR_OK;
}

enum round_action round_resume(const struct round *r, int64_t now_ms)
{
	round_validate(r);
	return r->phase == ROUND_OPEN ? judge(r, now_ms) : resume_actions[r->phase];
}

const char *round_phase_name(enum round_phase phase)
{
	ENSURE((unsigned)phase < ROUND_PHASE_COUNT);
	return phase_names[phase];
}

enum err round_phase_parse(const char *text, enum round_phase *ret_phase)
{
	for (int i = 0; i < ROUND_PHASE_COUNT; i++) {
		if (strcmp(phase_names[i], text) == 0) {
			*ret_phase = (enum round_phase)i;
			return ERR_OK;
		}
	}
	return err_set(ERR_MALFORMED, "'%.40s' is not a phase of a round", text);
}
