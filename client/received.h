/*
 * Models received from the coordinator: STATE/received/SHA256.safetensors, whole or not there; one that is being
 * fetched ends in .part. Only what the jobs under way need is kept: their source and the base of their last round.
 * Nothing is written to a model under its name, so it may have other names (the model in use is one): file_link(). They
 * are made as readable as the model in use has to be; the folder is not.
 */
#ifndef HANSA_CLIENT_RECEIVED_H
#define HANSA_CLIENT_RECEIVED_H

#include "base/file.h"
#include "client/session.h"
#include "ml/model.h"

/* Makes the folder. `ret_dir` is STATE/received. */
MUST_CHECK enum err received_open(const char *state_dir, char ret_dir[PATH_SIZE]);
const char *received_path(const char *dir, const struct digest *d, char out[PATH_SIZE]);
/* The model `d` of `size` bytes: from disk when it is there and has that digest, else fetched. `ret_model` NULL: only make sure it is there. */
MUST_CHECK enum err received_get(const char *dir, struct session *session, const struct digest *d, uint64_t size,
				 struct model **ret_model);
/* The model `d`, which came inside a message; kept like a fetched one. ERR_CORRUPT when it is not that. */
MUST_CHECK enum err received_put(const char *dir, const struct digest *d, struct bytes content);

/* What the jobs under way at this plant need. In memory only: after a restart each says so again with its next task. */
enum { RECEIVED_JOBS_MAX = 4 /* of more, those that were met last; the others' models are fetched again */ };
struct received_needs {
	struct received_need {
		uint64_t job;
		struct digest source, base;
	} v[RECEIVED_JOBS_MAX]; /* what was needed last stands last */
	size_t n;
};
void received_need(struct received_needs *needs, uint64_t job, const struct digest *source, const struct digest *base);
/* The job is over. What it needed may stay until the next received_keep(): another job may begin with it. */
void received_done(struct received_needs *needs, uint64_t job);
/* Remove all but these models and their parts. */
MUST_CHECK enum err received_keep(const char *dir, const struct received_needs *needs);

#endif
