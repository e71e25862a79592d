/*
 * Updates: made at the plant, checked at the coordinator while they stream in. Both are pure.
 *
 * Bytes: int32 little-endian, the travelling tensors in manifest order. Nothing else: what an update is about stands in
 * its head.
 */
#ifndef HANSA_UPDATE_UPDATE_H
#define HANSA_UPDATE_UPDATE_H

#include "update/fixed.h"
#include "update/manifest.h"

/*
 * The update local - base; both are parameter blocks of the manifest's model. `clip_norm` > 0: when the L2 norm of the
 * trainable tensors is over it, they are scaled down together, and so far that the norm that update_check_end() finds
 * after rounding is not over it either. *ret_bytes is owned by the caller (free); its size is manifest_update_bytes().
 * ERR_NUMERIC names the tensor and the element.
 */
MUST_CHECK enum err update_make(const struct manifest *m, const float *base, const float *local, double clip_norm,
				uint8_t **ret_bytes, double *ret_norm /* before clipping; may be NULL */);

/*
 * Checker: fed with the pieces of an update in order, of any size; keeps at most three bytes between them. What it
 * finds, and the norm to the last bit, do not depend on how the update is cut.
 *
 * Refuses (and stays refused): a value outside +-FIXED_MAX (ERR_NUMERIC "conv1.weight[17]: out of range"; float32 sent
 * as it is lands here at its first NaN or infinity without a sign, value from 2 upwards, or value between 0 and -2),
 * more bytes than the manifest has (ERR_SHAPE), fewer bytes at the end (ERR_SHAPE), an L2 norm of the trainable tensors
 * over norm_max (ERR_LIMIT; 0: no limit).
 */
struct update_check {
	const struct manifest *m; /* borrowed */
	double norm_max;
	size_t at;                 /* elements so far */
	size_t tensor;             /* index of the tensor it is in; n_tensors after the last */
	double lanes[FIXED_LANES]; /* squares of that tensor's integers so far */
	double square;             /* sum of squared deltas of the trainable tensors that are complete */
	uint8_t rest[4];           /* an element cut by the end of a piece */
	size_t n_rest;
	enum err failed;
};
void update_check_init(struct update_check *c, const struct manifest *m, double norm_max);
MUST_CHECK enum err update_check_feed(struct update_check *c, struct bytes piece);
MUST_CHECK enum err update_check_end(struct update_check *c, double *ret_norm);

#endif
