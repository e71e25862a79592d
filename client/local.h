/*
 * This plant's own values of the tensors that stay here (role `local`): STATE/local/JOB-SOURCE-ROUND.safetensors, what
 * was trained in that round. A round starts from the newest earlier one of its job, never from its own, so that a round
 * that is repeated after a crash trains the same update again; and a job never starts from another job's.
 */
#ifndef HANSA_CLIENT_LOCAL_H
#define HANSA_CLIENT_LOCAL_H

#include "base/file.h"
#include "update/manifest.h"

struct local {
	char dir[PATH_SIZE]; /* STATE/local */
	uint64_t job;
	struct digest source;
	bool any; /* the manifest has such tensors; without them nothing here touches the disk */
};

void local_init(struct local *l, const char *state_dir, uint64_t job, const struct digest *source,
		const struct manifest *m);
/* Put the values of the newest round before `round` into `model`; without one it stays as it is. */
MUST_CHECK enum err local_restore(const struct local *l, uint32_t round, const struct manifest *m, struct model *model);
/* Durable. */
MUST_CHECK enum err local_keep(const struct local *l, uint32_t round, const struct model *m);
/* The update of `round` has been accepted: what is older than what that round started from is not needed again. */
MUST_CHECK enum err local_trim(const struct local *l, uint32_t round);
/* The job has ended. When it is done, its files go; otherwise they stay, for it may be resumed. Of other jobs, which run or may be resumed,
 * the LOCAL_JOBS_MAX that were worked for last keep theirs. */
enum { LOCAL_JOBS_MAX = 8 };
MUST_CHECK enum err local_end(const char *state_dir, uint64_t job, bool done);

#endif
