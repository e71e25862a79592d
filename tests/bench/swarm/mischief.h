/*
 * What a plant of the swarm does wrong on purpose, and how often. Everything but `late` and `hangup` is done to one
 * update and then made good, so that a round still gets its quorum.
 */
#ifndef HANSA_SWARM_MISCHIEF_H
#define HANSA_SWARM_MISCHIEF_H

#include "base/err.h"
#include "base/rng.h"

enum mischief {
	MISCHIEF_NONE,
	MISCHIEF_STALL,  /* stops sending in the middle for a while, then goes on */
	MISCHIEF_CUT,    /* ends the stream at a random byte, then goes on where the coordinator is */
	MISCHIEF_DIGEST, /* the head names another digest */
	MISCHIEF_RANGE,  /* one value is out of range */
	MISCHIEF_BASE,   /* the head names another base */
	MISCHIEF_REPEAT, /* sends an accepted update once more */
	MISCHIEF_LATE,   /* sends after the deadline, where that is near enough to wait for */
	MISCHIEF_HANGUP, /* hangs up while it waits for a task, and connects again; drawn per wait, not per update */
	MISCHIEF_COUNT
};

struct mischief_plan {
	double share[MISCHIEF_COUNT]; /* of updates (of waits for HANGUP), 0 to 1 */
};

const char *mischief_name(enum mischief m);
/* Must an update with this wrong be refused? */
bool mischief_is_refused(enum mischief m);
/* "cut=0.1,stall=0.05"; NULL: none. ERR_USAGE. */
MUST_CHECK enum err mischief_parse(const char *text, struct mischief_plan *ret_plan);
/* For one update; never HANGUP. */
enum mischief mischief_draw(const struct mischief_plan *plan, struct rng *rng);

#endif
