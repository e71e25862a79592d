/*
 * The methods: one row each. A method without a row does not exist; a row without roles is refused at start.
 */
#ifndef HANSA_RPC_METHOD_H
#define HANSA_RPC_METHOD_H

#include "crypto/identity.h"

#include <stddef.h>
#include <stdint.h>

enum method_kind {
	METHOD_UNARY,    /* message in, message out */
	METHOD_PARKED,   /* the same, answered later; holds no thread while it waits */
	METHOD_UPLOAD,   /* stream of parts in, message out */
	METHOD_DOWNLOAD, /* message in, stream of parts out */
};

enum method_id {
	METHOD_ENROLL,
	METHOD_NEXT_TASK,
	METHOD_FETCH,
	METHOD_UPLOAD_UPDATE,
	METHOD_UPLOAD_OFFSET,
	METHOD_REPORT,
	METHOD_INVITE,
	METHOD_REVOKE,
	METHOD_LIST_PLANTS,
	METHOD_PUBLISH,
	METHOD_START_JOB,
	METHOD_STOP_JOB,
	METHOD_RESUME_JOB,
	METHOD_LIST_JOBS,
	METHOD_LIST_ROUNDS,
	METHOD_WATCH,
	METHOD_COUNT
};

struct method {
	const char *path; /* "/hansa.v1.Plant/NextTask" */
	enum method_kind kind;
	unsigned roles;                /* bits of enum role */
	size_t request_max, reply_max; /* bytes of one message */
	int64_t deadline_ms;           /* what a client gives it; a server cuts longer ones to it */
};

extern const struct method methods[METHOD_COUNT];
int method_find(const char *path, size_t n); /* -1: unknown */

#endif
