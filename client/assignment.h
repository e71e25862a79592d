/*
 * An assignment: what belongs to one job at this plant. The source model, what travels, the plant's samples, the model in use.
 */
#ifndef HANSA_CLIENT_ASSIGNMENT_H
#define HANSA_CLIENT_ASSIGNMENT_H

#include "client/inuse.h"
#include "client/local.h"
#include "client/plant.h"
#include "rpc/wire.h"
#include "update/job.h"

struct assignment {
	uint64_t job;
	char name[WIRE_NAME_SIZE];
	struct job_config config;
	struct model *source;
	bool head_is_new; /* the source's head was made for this job: L2-SP pulls it to zero, not to the source */
	struct manifest *manifest; /* derived here, not taken from the coordinator */
	struct reader_split split;
	struct inuse *inuse;
	struct digest judged; /* the last global model that was offered for use */
	int64_t started_ms;   /* monotonic */
	struct local local;
	bool has_config, has_split;
};

/* `source_path`: where the task's source model lies. ERR_DENIED when the coordinator's manifest is not the one that follows from the job's
 * configuration and the source: then nothing is sent. */
MUST_CHECK enum err assignment_open(const struct plant_config *plant, const struct wire_task *task,
				    const char *source_path, struct assignment **ret_assignment);
void assignment_close(struct assignment *a);
MUST_CHECK enum err assignment_check(const struct assignment *a, const struct wire_task *task);

#endif
