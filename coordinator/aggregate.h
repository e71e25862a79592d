/*
 * Aggregation: the sealed updates and the base make the new global model. A pure function of their bytes: any order of
 * the updates, any number of threads and runs, any CPU give the same file.
 *
 * Works block by block: O(block) memory for each thread, each update read once, in blocks that stay in cache together
 * with their sum. FedAvg (McMahan 2017): new = base + rate * sum_k(w_k * delta_k) / sum_k n_k, in exact integers
 * (update/fixed.h). w_k = n_k unless an update came late: then it counts less, and the whole step is damped by what is
 * missing (Nguyen 2022, section 4). Statistics: rate 1, and a running variance that rounding would make negative is 0.
 */
#ifndef HANSA_COORDINATOR_AGGREGATE_H
#define HANSA_COORDINATOR_AGGREGATE_H

#include "base/json.h"
#include "update/update.h"

enum { AGGREGATE_THREADS_MAX = 8 };

struct aggregate_input {
	const char *path; /* spooled update, or a file of many */
	uint64_t offset;  /* where in the file it begins */
	int64_t weight;   /* 1 .. full */
	int64_t full;     /* what it would weigh in time, 1 .. FIXED_WEIGHT_MAX: the weight, when nothing is late */
	const struct digest *digest; /* what was sealed; NULL: the content is not compared with it */
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
	/* A file in the making, such as store_temp_path() gives: overwritten; on success complete, its content synced, its name not: that is
	 * for who gives it its lasting name (store_take()). Absent after a failure. */
	const char *out_path;
	/* Called again and again as it gets on, by any of its threads; NULL: nobody wants to know. */
	void (*progress)(void *arg);
	void *progress_arg;
	unsigned threads; /* 0: as many as pay, at most AGGREGATE_THREADS_MAX and the CPUs */
};

/* *ret_digest is of the bytes as they were written. ERR_NUMERIC when the new model would not be finite; ERR_CORRUPT when the base or a
 * spooled file is not what it was; ERR_LIMIT for more plants or larger weights than update/fixed.h allows; ERR_STATE without inputs; ERR_IO;
 * what aggregate_check_base() says. */
MUST_CHECK enum err aggregate_run(const struct aggregate_job *job, struct digest *ret_digest, uint64_t *ret_size);

/* Can rounds start from this file? ERR_SHAPE unless it has every tensor of the manifest, in its shape, as float32; what
 * safetensors_parse() says. For the start of a job: a base that cannot be aggregated would only be noticed at the end
 * of a round. */
MUST_CHECK enum err aggregate_check_base(const char *base_path, const struct manifest *m);

#endif
