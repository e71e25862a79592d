/*
 * A plant taking part in rounds: ask for a task, fetch the base, train, send the update, judge the new global model,
 *again.
 *
 * STATE holds what must outlive a restart:
 *	model.safetensors, model.json   the model in use
 *	global.safetensors              the last aggregated model
 *	received/SHA256.safetensors     models by content; only those of the present job are kept
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

/* One task: wait for it and do it. *ret_job_ended: it was the end of a job. ERR_CANCELLED when the user stops. */
MUST_CHECK enum err participant_step(struct participant *p, bool *ret_job_ended);

#endif
