/*
 * Credentials for the plants of a swarm: each invited with the operator's credential and enrolled over the enrolment
 * port, in this process, several at a time. What is there already is used again.
 */
#ifndef HANSA_SWARM_ENROL_H
#define HANSA_SWARM_ENROL_H

#include "base/file.h"
#include "certs/credential.h"

enum { ENROL_NAME_SIZE = 64, ENROL_THREADS_MAX = 32 };

struct enrol_job {
	const struct credential *operator; /* of the federation, borrowed */
	const char *state, *prefix;        /* folder; plants are called PREFIX-00001, ... */
	size_t plants, threads;
};

const char *enrol_name(const char *prefix, size_t i, char out[ENROL_NAME_SIZE]); /* from 0 */
const char *enrol_dir(const char *state, const char *prefix, size_t i, char out[PATH_SIZE]);
/* After rpc_init(). *ret_new: how many were enrolled now. */
MUST_CHECK enum err enrol_plants(const struct enrol_job *job, size_t *ret_new);

#endif
