/*
 * A model: a sequence of layers over one parameter block. Described in YAML (or JSON, which is YAML):
 *
 *	name: bearing-cnn
 *	input: [1, 1024]                     # (channels, length); [features] for tables
 *	classes: [B007, B014, IR007]         # classification; or  outputs: 1  for regression
 *	layers:
 *	  - {op: conv1d, name: conv1, out: 16, kernel: 64, stride: 8, padding: 28}
 *	  - {op: batchnorm1d, name: bn1}
 *	  - {op: relu}
 *	  - {op: maxpool1d, kernel: 2}
 *	  - {op: adaptiveavgpool1d, out: 4}
 *	  - {op: flatten}
 *	  - {op: dropout, p: 0.5}
 *	  - {op: linear, name: head, out: outputs}   # "outputs": number of classes
 *	head: head                           # layer that is replaced for other classes; default: the last linear one
 *
 * Tensor names are PyTorch's: NAME.weight, NAME.bias, NAME.running_mean, NAME.running_var. All learned tensors stand
 * first in the block, in layer order, then all statistics: an update is a few spans of it.
 */
#ifndef HANSA_ML_MODEL_H
#define HANSA_ML_MODEL_H

#include "base/config.h"
#include "ml/tensor.h"

enum { PARAM_NAME_SIZE = 128, MODEL_LAYERS_MAX = 256, MODEL_PARAMS_MAX = 2048, MODEL_CLASSES_MAX = 4096 };
/* Bytes: of a name, of all names of classes together, of a description as JSON. */
enum { MODEL_CLASS_NAME_MAX = 127, MODEL_CLASS_BYTES_MAX = 1 << 17, MODEL_DESCRIPTION_MAX = 1 << 20 };
#define MODEL_COUNT_MAX ((size_t)1 << 28) /* floats in a parameter block: 1 GiB */

enum param_kind { PARAM_WEIGHT /* learned by gradient */, PARAM_STATISTIC /* BatchNorm running mean and variance */ };

struct param {
	char name[PARAM_NAME_SIZE];
	enum param_kind kind;
	struct shape shape;
	size_t offset, n; /* place in the block, in floats */
	unsigned layer;   /* index of its layer */
	bool head;        /* belongs to the head */
	bool frozen;      /* not trained here; set by model_freeze() */
};

struct layer; /* ml/layer.h */

struct model {
	char *name;         /* owned */
	struct shape input; /* without the batch */
	size_t n_outputs;
	struct config_list classes; /* owned; n == 0: regression */
	struct layer *layers;       /* owned */
	size_t n_layers;
	struct param *params; /* owned */
	size_t n_params;
	float *theta;              /* owned: the parameter block, n_theta floats, 64-byte aligned */
	size_t n_theta, n_weights; /* weights are theta[0 .. n_weights) */
};

/* Parameters are zero until model_init() or a load. ERR_CONFIG "file:line: ...", ERR_SHAPE when layers do not fit. */
MUST_CHECK enum err model_from_yaml(const struct yaml_node *node, struct model **ret_model);
MUST_CHECK enum err model_load_description(const char *path, struct model **ret_model);
struct model *model_dup(const struct model *m);
void model_free(struct model *m);

/* PyTorch's defaults: Kaiming-uniform (a = sqrt 5) weights, uniform biases, BatchNorm 1, 0, 0, 1. Each tensor has its
 * own stream of `seed` and its name, so adding a layer does not change the others. */
void model_init(struct model *m, uint64_t seed);

/* The description as canonical JSON; model_from_yaml() reads it back to an equal model. */
MUST_CHECK enum err model_describe(const struct model *m, struct buf *out);
/* A table of layers, shapes and parameter counts, for people. */
MUST_CHECK enum err model_summary(const struct model *m, struct buf *out);

const struct param *model_param(const struct model *m, const char *name); /* NULL when absent */

/* Freeze the tensors whose name matches one of the patterns (all others are unfrozen). A BatchNorm whose weight and
 * bias are frozen works in inference mode and its statistics stay as they are. ERR_CONFIG when a pattern matches
 * nothing. */
MUST_CHECK enum err model_freeze(struct model *m, const struct config_list *patterns);

/*
 * Transfer: copy `source`'s parameters into `m`, which has the same layers but perhaps other classes. Head rows are
 * carried over class by class, by name, when `keep_head`; the rows of new classes, or the whole head, keep what
 * model_init() gave them. ERR_SHAPE names the first tensor that does not fit. *ret_carried: number of head rows carried
 * over (may be NULL).
 */
MUST_CHECK enum err model_transfer(struct model *m, const struct model *source, bool keep_head, size_t *ret_carried);

/* Are the two the same architecture (description, so names, shapes, classes)? */
bool model_same(const struct model *a, const struct model *b);

/* ERR_NUMERIC "conv1.weight: not finite" unless every parameter is finite. */
MUST_CHECK enum err model_check_finite(const struct model *m);

#endif
