/*
 * Models received from the coordinator: STATE/received/SHA256.safetensors, whole or not there; one that is being
 * fetched ends in .part. Only those of the present round are kept. Nothing is written to a model under its name, so it
 * may have other names (the model in use is one): file_link(). They are made as readable as the model in use has to be;
 * the folder is not.
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
/* Remove all but these two and their parts. */
MUST_CHECK enum err received_keep(const char *dir, const struct digest *a, const struct digest *b);

#endif
