/*
 * One plant of the swarm: asks for a task, takes the base, sends an update, and again. What it does about trouble is
 * what `hansa join` does: it backs off with jitter and tries again, unless the answer is final.
 */
#ifndef HANSA_SWARM_PLANT_H
#define HANSA_SWARM_PLANT_H

#include "certs/credential.h"
#include "rpc/client.h"
#include "swarm/tally.h"

#include <pthread.h>
#include <stdatomic.h>

struct swarm_options {
	int64_t plants, think_ms, stall_ms, retry_ms, seconds, jobs, ramp, threads;
	double rate; /* bytes a second, up and down; 0: as fast as it goes */
	const char *dir, *state, *prefix, *misbehave, *receipts;
	bool wait_only, prepared, json;
	struct mischief_plan mischief;
};

/* Shared by all plants of the process. */
struct swarm {
	const struct swarm_options *options;
	struct credential operator;
	struct tally *tally;
	atomic_bool stop;
	pthread_mutex_t lock; /* with the two conditions */
	pthread_cond_t stopped, gate;
	size_t connecting; /* plants in their first handshake; under lock */
	atomic_size_t running;
};

struct plant;
MUST_CHECK enum err plant_start(struct swarm *swarm, size_t i, struct plant **ret_plant);
/* thread: any: the call that it waits in ends, and then the plant. `swarm->stop` is set. */
void plant_cancel(struct plant *p);
/* Waits for its end and frees it; the error that ended it, if one did. */
MUST_CHECK enum err plant_join(struct plant *p);

#endif
