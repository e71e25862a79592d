#include "client/received.h"

#include "ml/safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { NAME_SIZE = DIGEST_TEXT_SIZE + 16 };

static const char *file_name(const struct digest *d, char out[NAME_SIZE])
{
	char text[DIGEST_TEXT_SIZE];
	snprintf(out, NAME_SIZE, "%s.safetensors", digest_format(d, text));
	return out;
}

enum err received_open(const char *state_dir, char ret_dir[PATH_SIZE])
{
	return dir_make(path_join(ret_dir, state_dir, "received"), 0700);
}

const char *received_path(const char *dir, const struct digest *d, char out[PATH_SIZE])
{
	char name[NAME_SIZE];
	return path_join(out, dir, file_name(d, name));
}

enum err received_get(const char *dir, struct session *session, const struct digest *d, uint64_t size,
		      struct model **ret_model)
{
	char path[PATH_SIZE];
	struct digest have;
	received_path(dir, d, path);
	if (digest_file(path, &have, NULL) != ERR_OK || !digest_equal(&have, d)) {
		if (size == 0 || size > SAFETENSORS_FILE_MAX)
			return err_set(ERR_LIMIT, "the coordinator announces a model of %" PRIu64 " bytes", size);
		TRY(session_fetch(session, d, size, path));
	}
	return ret_model != NULL ? safetensors_load(path, ret_model) : ERR_OK;
}

enum err received_put(const char *dir, const struct digest *d, struct bytes content)
{
	char path[PATH_SIZE];
	struct digest have, got = digest_of(content);
	if (!digest_equal(&got, d))
		return err_set(ERR_CORRUPT, "the model inside the task does not have the digest it was announced with");
	received_path(dir, d, path);
	if (digest_file(path, &have, NULL) == ERR_OK && digest_equal(&have, d))
		return ERR_OK;
	enum err err = file_replace(path, content, 0644);
	return err == ERR_OK ? ERR_OK : err_set(ERR_IO, "%s", err_text());
}

void received_need(struct received_needs *needs, uint64_t job, const struct digest *source, const struct digest *base)
{
	received_done(needs, job);
	if (needs->n == RECEIVED_JOBS_MAX)
		received_done(needs, needs->v[0].job);
	needs->v[needs->n++] = (struct received_need){.job = job, .source = *source, .base = *base};
}

void received_done(struct received_needs *needs, uint64_t job)
{
	size_t n = 0;
	for (size_t i = 0; i < needs->n; i++) {
		if (needs->v[i].job != job)
			needs->v[n++] = needs->v[i];
	}
	needs->n = n;
}

struct keep {
	const char *dir;
	const struct received_needs *needs;
};

static bool is_of(const struct digest *d, const char *name)
{
	char whole[NAME_SIZE];
	size_t n = strlen(file_name(d, whole));
	return strncmp(name, whole, n) == 0 && (name[n] == '\0' || strcmp(name + n, SESSION_PART_SUFFIX) == 0);
}

static enum err remove_unless_needed(void *arg, const char *name)
{
	const struct keep *keep = arg;
	char path[PATH_SIZE];
	for (size_t i = 0; i < keep->needs->n; i++) {
		const struct received_need *need = &keep->needs->v[i];
		if (is_of(&need->source, name) || is_of(&need->base, name))
			return ERR_OK;
	}
	return file_remove(path_join(path, keep->dir, name));
}

enum err received_keep(const char *dir, const struct received_needs *needs)
{
	struct keep keep = {.dir = dir, .needs = needs};
	return dir_each(dir, remove_unless_needed, &keep);
}
