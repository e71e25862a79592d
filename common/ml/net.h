/*
 * A net runs a model forward and backward for batches up to a size that is fixed when it is made: one memory plan, no
 * allocation per step. Several nets may share one model's parameters as long as only one of them trains. thread: one
 * at a time.
 *
 *	net_new(model, 64, true, &net);
 *	y = net_forward(net, x, n, NET_TRAIN, &rng);
 *	loss_backward(..., net_output_gradient(net));
 *	net_zero_gradient(net); net_backward(net);        -> net->gradient
 */
#ifndef HANSA_ML_NET_H
#define HANSA_ML_NET_H

#include "ml/model.h"

struct rng;
struct net;

enum { NET_BATCH_MAX = 1 << 16 };
#define NET_MEMORY_MAX ((size_t)8 << 30) /* bytes of a plan */

enum net_mode {
	NET_INFER,
	NET_TRAIN,            /* BatchNorm uses and updates the step's statistics, except where it is frozen; dropout */
	NET_TRAIN_FIXED_NORM, /* the same, but every BatchNorm works with its running statistics and leaves them */
};

/* `train` false: no memory for gradients. ERR_LIMIT when the plan is over NET_MEMORY_MAX. `m` is borrowed. */
MUST_CHECK enum err net_new(struct model *m, size_t batch_max, bool train, struct net **ret_net);
void net_free(struct net *n);
size_t net_batch_max(const struct net *n);
size_t net_memory_bytes(const struct net *n);

/* x (B, input), as PyTorch orders it, is borrowed until the backward pass. Returns the output (B, n_outputs), valid
 * until the next forward. In NET_INFER a sample's result is bit-identical whatever else is in the batch. `rng`:
 * dropout; unused in NET_INFER. */
const float *net_forward(struct net *n, const float *x, size_t batch, enum net_mode mode, struct rng *rng);

float *net_output_gradient(struct net *n); /* (B, n_outputs): to be filled between forward and backward */
void net_backward(struct net *n);   /* after a forward in training mode; adds to the gradient; stops below the first
				       layer that learns */
float *net_gradient(struct net *n); /* n_weights floats, laid out as theta; zero for frozen tensors */
void net_zero_gradient(struct net *n);

#endif
