/*
 * STATE/progress.json: what a plant remembers over restarts, for itself (the last job whose end it has seen, and how often) and for
 * people and programs (bytes, what happened last).
 */
#ifndef HANSA_CLIENT_PROGRESS_H
#define HANSA_CLIENT_PROGRESS_H

#include "base/json.h"
#include "client/session.h"

struct progress {
	const char *state_dir; /* borrowed */
	uint64_t finished_job;
	uint64_t finished_ends;                /* at most UINT32_MAX; 0: not known */
	uint64_t sent_before, received_before; /* bytes by earlier runs */
};

/* A file that is absent or cannot be used is a new beginning, the latter with a warning: every end of a job is then
 * judged once more, which changes nothing. */
void progress_read(struct progress *p, const char *state_dir);
/* `last` (may be NULL) is what happened last; taken. ERR_IO. */
MUST_CHECK enum err progress_write(const struct progress *p, const char *plant, const struct session *session,
				   struct json *last);

#endif
