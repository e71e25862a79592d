/*
 * Is the engine well? Its thread leaves a sign of life with every pass and before every step. A pass is short, and comes
 * at least every IDLE_MS of engine.c; a step (the aggregation of a large job) may take long and is given long. Whatever
 * is stuck holding the engine's lock or the database's makes this question stick, too, which is an answer.
 */
#include "coordinator/engine_parts.h"

#include <inttypes.h>

enum { PASS_MAX_MS = 3 * 60 * 1000, STEP_MAX_MS = 60 * 60 * 1000 };

void engine_beat(struct engine *e, bool stepping)
{
	atomic_store(&e->stepping, stepping);
	atomic_store(&e->beat_ms, engine_monotonic_ms(e));
}

enum err engine_check(struct engine *e)
{
	struct job_row job;
	pthread_mutex_lock(&e->lock);
	bool closing = e->closing;
	pthread_mutex_unlock(&e->lock);
	bool stepping = atomic_load(&e->stepping);
	int64_t age_ms = engine_monotonic_ms(e) - atomic_load(&e->beat_ms);
	if (!closing && age_ms > (stepping ? STEP_MAX_MS : PASS_MAX_MS))
		return err_set(ERR_DEADLINE, "the engine %s for %" PRId64 " s",
			       stepping ? "has been at one step" : "has done nothing", age_ms / 1000);
	enum err err = db_job_get(e->config.db, 0, &job);
	return err == ERR_OK || err == ERR_NOT_FOUND ? ERR_OK : err_add(err, "the database");
}
