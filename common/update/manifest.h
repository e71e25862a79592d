/*
 * The manifest: which tensors of a model travel, in what order, in what role and with what fixed-point scale. Part of a
 * job's record; plant and coordinator derive it each on their own from the base model and the job's configuration and
 * compare digests.
 *
 * As canonical JSON: {"tensors":[{"name":...,"role":"trainable","scale":24,"shape":[16,1,64]},...],"version":1}, in the
 * order of the model's parameter block; the scale of a tensor that does not travel is 0. An update is the concatenation
 * of the travelling tensors in that order, each element an int32 little-endian.
 */
#ifndef HANSA_UPDATE_MANIFEST_H
#define HANSA_UPDATE_MANIFEST_H

#include "crypto/digest.h"
#include "ml/model.h"

enum tensor_role {
	TENSOR_TRAINABLE, /* combined by the strategy */
	TENSOR_STATISTIC, /* BatchNorm running statistics: plain weighted average, never a server optimiser */
	TENSOR_FROZEN,    /* never travels; pinned by the source digest */
	TENSOR_LOCAL,     /* stays at the plant */
	TENSOR_ROLE_COUNT
};
const char *tensor_role_name(enum tensor_role role);

struct manifest_tensor {
	char name[PARAM_NAME_SIZE];
	enum tensor_role role;
	struct shape shape;
	size_t offset, n; /* place in the model's parameter block, in floats */
	size_t at;        /* place in the update, in elements; only for those that travel */
	int scale;        /* s: q = round(delta * 2^s) */
	bool travels;
};

struct manifest {
	struct manifest_tensor *tensors; /* owned */
	size_t n_tensors;
	size_t n_travel;      /* elements of an update */
	size_t n_theta;       /* floats of the parameter block */
	struct digest digest; /* of the canonical JSON */
};

enum { MANIFEST_MAX = 1 << 20 }; /* bytes of the canonical JSON */

/*
 * Roles: tensors matching `freeze` are frozen, and so are the statistics of a BatchNorm whose weight and bias are
 * (model_freeze() puts it into inference mode); of the others, those matching `local` are local.
 *
 * Scale: the largest s <= 30 with 2^FIXED_BITS / 2^s >= 64 * max(1, largest magnitude in the base tensor), so any
 * sensible delta fits.
 *
 * ERR_CONFIG when a pattern matches nothing or nothing travels; ERR_NUMERIC when the base is not finite. Either list
 * may be NULL.
 */
MUST_CHECK enum err manifest_build(const struct model *base, const struct config_list *freeze,
				   const struct config_list *local, struct manifest **ret_manifest);
/* Appends to `out`. */
MUST_CHECK enum err manifest_canonical(const struct manifest *m, struct buf *out);
/* Takes nothing but what manifest_canonical() writes, so that a manifest has one text and one digest. ERR_MALFORMED;
 * ERR_LIMIT. */
MUST_CHECK enum err manifest_parse(struct bytes json, struct manifest **ret_manifest);
/* Does it describe this model: same tensors, shapes, order? ERR_SHAPE names the first difference. */
MUST_CHECK enum err manifest_check_model(const struct manifest *m, const struct model *model);
size_t manifest_update_bytes(const struct manifest *m); /* 4 * n_travel */
void manifest_free(struct manifest *m);                 /* NULL is fine */

#endif
