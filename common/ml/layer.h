/*
 * Layers: a row in the table of operations and a few pure functions each. A new layer is a row.
 *
 * Notation: B batch, C channels in, O channels out, L length in, K kernel, P length out; float32. Shapes are PyTorch's:
 * (C,L) for windows, (F) for features. In memory the channels stand last: a (C,L) activation of a batch is (B,L,C),
 * row-major. So one step of a window is a contiguous run of channels, which makes every loop of every layer one over
 * contiguous floats; PyTorch's order of the elements is restored where it shows, in `flatten`.
 */
#ifndef HANSA_ML_LAYER_H
#define HANSA_ML_LAYER_H

#include "base/rng.h"
#include "ml/model.h"

enum { LAYER_PARAMS_MAX = 4, LAYER_SIZE_MAX = 1 << 16 /* of a kernel, stride, padding, number of outputs */ };

struct layer {
	const struct layer_op *op;
	char name[PARAM_NAME_SIZE];           /* "" when it has none; a layer with parameters has one */
	unsigned line;                        /* of the description, for messages */
	int64_t out, kernel, stride, padding; /* what the description says; 0 when it does not apply */
	bool out_is_outputs;                  /* it said `out: outputs` */
	double p;                             /* dropout: probability; batchnorm: momentum */
	bool bias;
	struct shape in_shape, out_shape;           /* without the batch */
	unsigned n_params, param[LAYER_PARAMS_MAX]; /* indices into model->params */
};

/* A layer as it stands in the description: what the rows of an operation read into. */
struct layer_config {
	char *op, *name, *out; /* owned */
	int64_t kernel, stride, padding;
	double p;
	bool bias;
};

/* What one call of a layer works on. Pointers are into the net's one memory plan. */
struct layer_io {
	size_t batch;
	const float *x;                   /* (B, in_shape) */
	float *y;                         /* (B, out_shape) */
	const float *dy;                  /* backward: (B, out_shape) */
	float *dx;                        /* backward: (B, in_shape); NULL when nothing before it learns */
	const float *w[LAYER_PARAMS_MAX]; /* parameters in the order the layer declared them */
	float *stat[LAYER_PARAMS_MAX];    /* the same for statistics, when this step updates them; NULL otherwise */
	float *dw[LAYER_PARAMS_MAX];      /* backward: gradients to add to; NULL where frozen */
	float *keep;     /* keep_count floats, from forward to backward of the same step; NULL when there is
			    no backward to come */
	float *scratch;  /* scratch_count floats, content undefined */
	bool train;      /* a training step: dropout; otherwise a sample's result must depend on it alone */
	struct rng *rng; /* dropout */
};

/* Where a layer's output may lie. */
enum layer_memory {
	LAYER_OWN,      /* memory of its own; backward may read x, not y */
	LAYER_IN_PLACE, /* y may be x and dx may be dy; backward may read y, not x */
	LAYER_ALIAS,    /* y is x, nothing to do */
};

struct layer_op {
	const char *op;                /* name in the description */
	const struct config_row *rows; /* its keys, into struct layer_config */
	/* Work out out_shape and declare the parameters (via layer_param()). Errors without the place: the caller adds
	 * it. */
	enum err (*shape)(struct model *m, struct layer *l);
	/* Floats needed: kept per batch of B, and scratch per batch of B. NULL: none. */
	size_t (*keep_count)(const struct layer *l, size_t batch);
	size_t (*scratch_count)(const struct layer *l, size_t batch);
	enum layer_memory (*memory)(const struct layer *l); /* NULL: LAYER_OWN */
	void (*forward)(const struct layer *l, struct layer_io *io);
	void (*backward)(const struct layer *l, struct layer_io *io);        /* writes dx, adds to dw */
	void (*init)(const struct layer *l, struct model *m, uint64_t seed); /* NULL: no parameters */
};

extern const struct layer_op *const layer_ops[];      /* the table; NULL ends */
const struct layer_op *layer_op_find(const char *op); /* NULL when there is none */

/* Declare the next parameter of `l`: NAME.suffix. Only while a model is being made. ERR_LIMIT. */
MUST_CHECK enum err layer_param(struct model *m, struct layer *l, const char *suffix, enum param_kind kind,
				const struct shape *shape);
/* PyTorch's default for linear and convolution: weight and bias uniform in +-1/sqrt(fan_in). */
void layer_init_uniform(const struct layer *l, struct model *m, uint64_t seed, size_t fan_in);

size_t layer_count(const struct shape *s);    /* elements; the shape was checked when the model was made */
size_t layer_channels(const struct shape *s); /* C of (C,L), F of (F) */
size_t layer_length(const struct shape *s);   /* L of (C,L), 1 of (F) */
size_t layer_aligned(size_t n);               /* n rounded up to a whole number of cache lines of floats */

/* The rows, each in its file. */
extern const struct layer_op layer_linear, layer_conv1d, layer_batchnorm1d, layer_relu, layer_dropout, layer_flatten;
extern const struct layer_op layer_maxpool1d, layer_avgpool1d, layer_adaptivemaxpool1d, layer_adaptiveavgpool1d;

#endif
