/*
 * The model in use at the plant: STATE/model.safetensors, with STATE/model.json beside it saying where it came from. It
 * is replaced only by one that is not worse on the plant's own held-out samples (DESIGN.md, invariant 9), by a durable
 * rename: a reader always finds a whole model.
 */
#ifndef HANSA_CLIENT_INUSE_H
#define HANSA_CLIENT_INUSE_H

#include "base/json.h"
#include "crypto/digest.h"
#include "ml/train.h"

struct inuse;
/* Loads the present model, if there is one, and scores it on `heldout` as it is today (borrowed). A model that does not
 * fit `like` (another architecture or other classes) is not compared with: it is kept aside as
 * model.previous.safetensors when a new one comes. */
MUST_CHECK enum err inuse_open(const char *state_dir, const struct model *like, const struct dataset *heldout,
			       struct inuse **ret_inuse);
void inuse_close(struct inuse *u);

/* A file that holds a candidate, byte by byte what has been judged; it is never written to again, only replaced. */
struct inuse_file {
	const char *path;
	struct digest digest;
};

/*
 * Offer a candidate. Taken into use when there is no model yet or the candidate is not worse. Without held-out samples
 * nothing can be compared: then the newest is taken, and the caller has warned the user. `origin`: "round 3 of
 * bearings", "personalised ...". *ret_score: the candidate's. `file` NULL: there is none, the model is written; otherwise the
 * model in use becomes another name of that file.
 */
MUST_CHECK enum err inuse_offer(struct inuse *u, struct model *candidate, const struct inuse_file *file,
				const char *origin, bool *ret_taken, struct metrics *ret_score);
#define INUSE_UNKNOWN "not recorded"
const char *
inuse_origin(const struct inuse *u); /* "" when there is none; INUSE_UNKNOWN when model.json is of another model */
const struct metrics *inuse_score(const struct inuse *u); /* held-out; n == 0 when there is none */

#endif
