/*
 * A plant taking part in rounds: ask for a task, fetch the base, train, send the update, judge the new global model,
 * again.
 *
 * STATE holds what must outlive a restart:
 *	model.safetensors, model.json   the model in use
 *	global.safetensors              the last aggregated model
 *	received/SHA256.safetensors     models by content, .part while they come; only what the jobs under way need
 *	local/...                       tensors that stay here (client/local.h)
 *	progress.json                   last finished job, bytes, rounds: for people and programs
 */
#ifndef HANSA_CLIENT_PARTICIPANT_H
#define HANSA_CLIENT_PARTICIPANT_H

#include "client/plant.h"
#include "client/session.h"

struct participant;
/* `config` and `session` are borrowed. ERR_STATE when another process uses the state folder. */
MUST_CHECK enum err participant_open(const struct plant_config *config, struct session *session, const char *plant_name,
				     bool json, struct participant **ret_participant);
void participant_close(struct participant *p);

/*
 * One task: wait for it and do it. *ret_job_ended: it was the end of a job. What goes wrong in one job is logged and
 * passed over. Errors end the program: ERR_CANCELLED (the user stops), ERR_IO (the state folder), ERR_UNAUTHENTIC and
 * ERR_DENIED (the coordinator is not ours, or this plant not one of its own, any more).
 */
MUST_CHECK enum err participant_step(struct participant *p, bool *ret_job_ended);
/* Why this plant took no part in the job that ended last; NULL: it did. Borrowed until the next step. */
const char *participant_missed(const struct participant *p);

#endif
