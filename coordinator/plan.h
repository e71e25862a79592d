/*
 * What is fixed about a job from its start: its configuration and its manifest, as text and parsed. Shared by the job while it runs, by
 * updates that are on their way in and by answers that are being packed; the last one frees it.
 */
#ifndef HANSA_COORDINATOR_PLAN_H
#define HANSA_COORDINATOR_PLAN_H

#include "update/job.h"
#include "update/manifest.h"

#include <stdatomic.h>

struct plan {
	struct job_config config;
	struct manifest *manifest;             /* owned */
	struct buf config_text, manifest_text; /* canonical JSON */
	struct digest config_hash;
	atomic_uint users;
};

/* Of a configuration as an operator sends it, and the source model. ERR_CONFIG, ERR_MALFORMED (not canonical), what manifest_build() says. */
MUST_CHECK enum err plan_make(struct bytes config, const struct model *source, struct plan **ret_plan);
/* Of what the database holds. ERR_CORRUPT when the configuration does not have the hash, or the manifest is none. */
MUST_CHECK enum err plan_load(struct bytes config, const struct digest *config_hash, struct bytes manifest,
			      struct plan **ret_plan);
struct plan *plan_share(struct plan *p); /* thread: any */
void plan_release(struct plan *p);       /* thread: any; NULL is fine */

#endif
