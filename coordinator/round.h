/*
 * A round as a pure state machine: (round, event) -> (round, action). No clock, disk, network or lock; the engine
 * does what the action says, makes it durable and feeds the result back as the next event.
 *
 *	OPEN -> SEALED -> AGGREGATED -> COMMITTED      or      OPEN -> ABANDONED      or      SEALED -> ABANDONED
 *
 * OPEN: updates are accepted from the cohort, each plant once. It is sealed when `goal` of them have come, or when the
 * deadline has passed and at least `quorum` have; below the quorum at the deadline it is abandoned. Updates that flow in
 * when the deadline passes are waited for, for the time of grace, unless they could not make up the quorum. It is
 * abandoned before the deadline when so many of its plants are lost that the quorum cannot come together. SEALED: the set of accepted updates is fixed and durable; the outcome is determined from here on: a
 * model, or ABANDONED when these updates give none. AGGREGATED: the new model's digest is known. COMMITTED: the new
 * model is durable and current.
 */
#ifndef HANSA_COORDINATOR_ROUND_H
#define HANSA_COORDINATOR_ROUND_H

#include "base/err.h"

#include <stdint.h>

enum round_phase { ROUND_OPEN, ROUND_SEALED, ROUND_AGGREGATED, ROUND_COMMITTED, ROUND_ABANDONED, ROUND_PHASE_COUNT };
enum round_event {
	ROUND_EVENT_ACCEPTED,   /* an update is durable */
	ROUND_EVENT_TICK,       /* time went on */
	ROUND_EVENT_SEALED,     /* the seal is durable */
	ROUND_EVENT_AGGREGATED, /* the new model is in the store, its digest in the database */
	ROUND_EVENT_COMMITTED,  /* the new model is current, durably */
	ROUND_EVENT_ABANDONED,  /* the end without a model is durable */
	ROUND_EVENT_STOP,       /* the job is stopped */
	ROUND_EVENT_COUNT
};
enum round_action {
	ROUND_NOTHING,
	ROUND_SEAL,
	ROUND_AGGREGATE,
	ROUND_COMMIT,
	ROUND_ABANDON,
	ROUND_NEXT, /* this round is over */
	ROUND_ACTION_COUNT
};

struct round {
	uint32_t number; /* 1-based */
	enum round_phase phase;
	uint32_t cohort, goal, quorum; /* 1 <= quorum <= goal <= cohort */
	uint32_t accepted; /* <= cohort: those that were being recorded when the goal was reached count, too */
	uint32_t flowing;  /* updates on their way in whose bytes come now; told before each step */
	bool lost;         /* the quorum cannot come together any more: plants have been revoked */
	int64_t opened_ms, deadline_ms; /* Unix time; opened < deadline */
	int64_t grace_ms;               /* >= 0 */
};

/* ERR_STATE for an event that cannot happen in this phase: the round is unchanged then. */
MUST_CHECK enum err round_step(struct round *r, enum round_event event, int64_t now_ms, enum round_action *ret_action);
/* May an update begin to come in now? ERR_STALE with the reason otherwise. */
MUST_CHECK enum err round_accepts(const struct round *r, int64_t now_ms);
/* May one that has begun in time go on, and be recorded? That has the time of grace as well. */
MUST_CHECK enum err round_finishes(const struct round *r, int64_t now_ms);
/* What to do with a round as it stands in the database: after a restart, and again after an action that failed. */
enum round_action round_resume(const struct round *r, int64_t now_ms);
void round_validate(const struct round *r); /* ENSUREs the invariants */
/* The same for a round that was read from the database: ERR_CORRUPT names what does not hold. */
MUST_CHECK enum err round_check(const struct round *r);
const char *round_phase_name(enum round_phase phase); /* "open", "sealed", ... */
MUST_CHECK enum err round_phase_parse(const char *text, enum round_phase *ret_phase);

#endif
