/*
 * Aggregation: the sealed updates and the base make the new global model. A pure function of their bytes: any order of
 * the updates, any number of runs, any CPU give the same file.
 *
 * Works block by block: O(model block) memory, each update file read once, in blocks that stay in cache together with
 * their sum. FedAvg (McMahan 2017): new = base + rate * sum_k(n_k * delta_k) / sum_k n_k, in exact integers
 * (update/fixed.h). Statistics: rate 1, and a running variance that rounding would make negative is 0.
 */
#ifndef HANSA_COORDINATOR_AGGREGATE_H
#define HANSA_COORDINATOR_AGGREGATE_H

#include "base/json.h"
#include "update/update.h"

struct aggregate_input {
	const char *path;            /* spooled update, or a batch of them */
	int64_t weight;              /* samples, 1 .. FIXED_WEIGHT_MAX */
	const struct digest *digest; /* what was sealed; NULL: the content is not compared with it */
	uint64_t offset;             /* where it begins in that file */
};

struct aggregate_job {
	const char *base_path; /* the round's base model (safetensors) */
	const struct digest
		*base_digest; /* what the round was opened with; NULL: the content is not compared with it */
	const struct manifest *manifest;
	const struct aggregate_input *inputs;
	size_t n_inputs;
	double server_rate;      /* 1: plain average */
	const struct json *meta; /* metadata of the new model file; map of strings; may be NULL */
	const char *out_path;    /* durable when this returns; never anything but a complete model */
};

/* ERR_NUMERIC when the new model would not be finite; ERR_CORRUPT when the base or a spooled file is not what it was; ERR_LIMIT for
 * more plants or larger weights than update/fixed.h allows; ERR_STATE without inputs; what aggregate_check_base() says.
 */
MUST_CHECK enum err aggregate_run(const struct aggregate_job *job, struct digest *ret_digest, uint64_t *ret_size);

/* Can rounds start from this file? ERR_SHAPE unless it has every tensor of the manifest, in its shape, as float32; what
 * safetensors_parse() says. For the start of a job: a base that cannot be aggregated would only be noticed at the end
 * of a round. */
MUST_CHECK enum err aggregate_check_base(const char *base_path, const struct manifest *m);

#endif
