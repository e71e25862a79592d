/*
 * What the commands of hansactl share: the connection with the operator's credential, and how members, jobs and rounds are shown.
 */
#ifndef HANSA_COORDINATOR_CTL_H
#define HANSA_COORDINATOR_CTL_H

#include "base/cli.h"
#include "base/json.h"
#include "certs/credential.h"
#include "rpc/client.h"

#define CTL_DIRECTORY "HANSA_DIR" /* environment: what --dir would say */

/* The first members of every command's arguments, and their rows. */
struct ctl_args {
	const char *dir;
	bool json;
};
#define CTL_DIR_OPTION                                                                                                 \
	{                                                                                                              \
		"dir", 'd', CLI_STRING, offsetof(struct ctl_args, dir), "DIR",                                         \
			"the federation's directory, or that of an operator's credential (or set " CTL_DIRECTORY ")",  \
			.required = false                                                                              \
	}
#define CTL_JSON_OPTION                                                                                                \
	{                                                                                                              \
		"json", 0, CLI_FLAG, offsetof(struct ctl_args, json), NULL, "print JSON", .required = false            \
	}

struct ctl {
	struct credential credential;
	struct rpc_client *client;
};

/* `dir` NULL: from the environment. ERR_CONFIG and ERR_NOT_FOUND say what to give. */
MUST_CHECK enum err ctl_open(const char *dir, struct ctl *ret_ctl);
void ctl_close(struct ctl *c); /* safe on a zeroed one */
/* buf_init's *ret_reply. */
MUST_CHECK enum err ctl_call(struct ctl *c, enum method_id method, const struct buf *request, struct buf *ret_reply);

/* A number, or the name of a job: the latest one that has it. wire_jobs_free(); exactly one, with its configuration. */
MUST_CHECK enum err ctl_find_job(struct ctl *c, const char *word, struct wire_jobs *ret_job);
MUST_CHECK enum err ctl_list_rounds(struct ctl *c, uint64_t job,
				    struct wire_rounds *ret_rounds); /* wire_rounds_free() */
/* Waits for news of a job later than `seen`, for at most `deadline_ms` (0: as long as such a call may take; then ERR_DEADLINE).
 * wire_watch_reply_free(). */
MUST_CHECK enum err ctl_watch(struct ctl *c, uint64_t job, uint64_t seen, int64_t deadline_ms,
			      struct wire_watch_reply *ret_reply);
/* Publishes a file; its content is mapped, not read into memory. */
MUST_CHECK enum err ctl_publish(struct ctl *c, const char *path, struct wire_publish_reply *ret_reply);

/* Views for programs. Times are RFC 3339, absent ones and absent digests are null. */
struct json *ctl_job_json(const struct wire_job *j);
struct json *ctl_round_json(const struct wire_round *r);
struct json *ctl_time_json(uint64_t ms);
/* One line on stdout; frees. */
MUST_CHECK enum err ctl_print_json(struct json *v);
enum { CTL_TEXT_SIZE = 64 };
const char *ctl_time(uint64_t ms, char out[CTL_TEXT_SIZE]);             /* "-" for 0 */
const char *ctl_short(const struct digest *d, char out[CTL_TEXT_SIZE]); /* the first digits; "-" for none */
/* "3 of 4", and ", 6 asked" when a round asks more plants than it wants updates. */
const char *ctl_count(const struct wire_round *r, char out[CTL_TEXT_SIZE]);
/* The mean of a metric over the round's updates, weighted by samples; false when no plant shares it. */
bool ctl_round_mean(const struct wire_round *r, const char *metric, double *ret_mean);

#endif
