/*
 * One block of memory holds all that a net needs: outputs of the layers, what they keep for the backward pass, scratch,
 * two buffers that gradients of activations go back and forth between, and the gradient of the parameters. A training
 * net has a place for every output, save where a layer may write over its input or has nothing to do; an inference net
 * has two places that are used in turn.
 *
 * The floor of a step is its multiply-adds: for each linear or convolution layer one product forward and two backward
 * (one for the lowest layer, whose input needs no gradient). Measured on one core (AMD EPYC, Zen 5; OpenBLAS 0.3.21;
 * Release build), where sgemm of 1024 x 1024 x 1024 does 112 GFLOP/s, with SGD and batches of 64 windows of 1024
 * samples, medians:
 *
 *	conv 64/8, three conv 3, BatchNorm (48 000 parameters)   3.6 MFLOP a sample, at least  32 us; reached   46 us
 *	four conv without stride, BatchNorm (233 000)          103.7 MFLOP a sample, at least 0.93 ms; reached 1.42 ms
 *
 * That is 21 900 and 700 samples/s; inference does 58 000 and 2 450. Products take two thirds of the time, BatchNorm a
 * tenth, gathering for the convolutions a tenth. This OpenBLAS does not know the CPU and takes its AVX2 kernels; with
 * OPENBLAS_CORETYPE=SkylakeX sgemm does 205 GFLOP/s, and the two nets train at 33 000 and 980 samples/s.
 */
#include "ml/net.h"

#include "ml/layer.h"

#include <stdlib.h>
#include <string.h>

struct slot {
	enum layer_memory memory; /* as planned */
	float *y, *keep;          /* y: NULL for an alias */
};

struct net {
	struct model *m; /* borrowed */
	size_t batch_max;
	bool train;
	float *memory; /* owned; n_memory floats */
	size_t n_memory;
	struct slot *slots; /* owned; one a layer */
	float *input;       /* the batch with channels last; NULL when that is the order it comes in */
	float *scratch;
	float *d[2];     /* gradients of activations */
	float *gradient; /* of the parameters */
	/* Of the last forward. */
	const float *x;
	size_t batch;
	enum net_mode mode;
	struct rng *rng;
};

/* The next n floats of the plan. Without memory it only counts. */
static float *take(struct net *n, size_t count)
{
	float *p = n->memory != NULL ? n->memory + n->n_memory : NULL;
	n->n_memory += layer_aligned(count);
	return p;
}

static bool needs_turning(const struct shape *input)
{
	return layer_channels(input) > 1 && layer_length(input) > 1;
}

static enum layer_memory wanted_memory(const struct layer *l)
{
	return l->op->memory != NULL ? l->op->memory(l) : LAYER_OWN;
}

static size_t largest_output(const struct model *m, size_t batch)
{
	size_t most = 0;
	for (size_t i = 0; i < m->n_layers; i++) {
		size_t count = batch * layer_count(&m->layers[i].out_shape);
		most = count > most ? count : most;
	}
	return most;
}

static size_t largest_scratch(const struct model *m, size_t batch)
{
	size_t most = 0;
	for (size_t i = 0; i < m->n_layers; i++) {
		const struct layer *l = &m->layers[i];
		size_t count = l->op->scratch_count != NULL ? l->op->scratch_count(l, batch) : 0;
		most = count > most ? count : most;
	}
	return most;
}

/* A layer may write over its input when that is an output of ours which no other layer has written over. */
static void plan_outputs(struct net *n)
{
	const struct model *m = n->m;
	size_t most = largest_output(m, n->batch_max);
	float *turn[2] = {NULL, NULL};
	if (!n->train) {
		turn[0] = take(n, most);
		turn[1] = take(n, most);
	}
	bool fresh = needs_turning(&m->input);
	float *last = n->input;
	for (size_t i = 0; i < m->n_layers; i++) {
		const struct layer *l = &m->layers[i];
		struct slot *s = &n->slots[i];
		s->memory = wanted_memory(l);
		if (s->memory == LAYER_IN_PLACE && !fresh)
			s->memory = LAYER_OWN;
		if (s->memory == LAYER_OWN)
			s->y = n->train          ? take(n, n->batch_max * layer_count(&l->out_shape))
			       : last == turn[0] ? turn[1]
						 : turn[0];
		else
			s->y = s->memory == LAYER_IN_PLACE ? last : NULL;
		if (n->train && l->op->keep_count != NULL)
			s->keep = take(n, l->op->keep_count(l, n->batch_max));
		if (s->memory != LAYER_ALIAS) {
			last = s->y;
			fresh = wanted_memory(l) == LAYER_OWN;
		}
	}
}

static void plan(struct net *n)
{
	const struct model *m = n->m;
	n->n_memory = 0;
	n->input = needs_turning(&m->input) ? take(n, n->batch_max * layer_count(&m->input)) : NULL;
	plan_outputs(n);
	n->scratch = take(n, largest_scratch(m, n->batch_max));
	if (!n->train)
		return;
	size_t most = largest_output(m, n->batch_max);
	n->d[0] = take(n, most);
	n->d[1] = take(n, most);
	n->gradient = take(n, m->n_weights);
}

enum err net_new(struct model *m, size_t batch_max, bool train, struct net **ret_net)
{
	ENSURE(batch_max > 0 && m->n_layers > 0);
	if (batch_max > NET_BATCH_MAX)
		return err_set(ERR_LIMIT, "a batch of %zu; at most %d", batch_max, NET_BATCH_MAX);
	struct net *n = mem_new(sizeof *n);
	n->m = m;
	n->batch_max = batch_max;
	n->train = train;
	n->slots = mem_array(m->n_layers, sizeof *n->slots);
	plan(n);
	if (n->n_memory > NET_MEMORY_MAX / sizeof(float)) {
		enum err e = err_set(
			ERR_LIMIT, "model '%s' needs %zu MiB for a batch of %zu; at most %zu MiB: take a smaller batch",
			m->name, n->n_memory * sizeof(float) >> 20, batch_max, NET_MEMORY_MAX >> 20);
		net_free(n);
		return e;
	}
	n->memory = mem_aligned(n->n_memory * sizeof *n->memory);
	plan(n);
	*ret_net = n;
	return ERR_OK;
}

void net_free(struct net *n)
{
	if (n == NULL)
		return;
	free(n->slots);
	free(n->memory);
	free(n);
}

size_t net_batch_max(const struct net *n)
{
	return n->batch_max;
}

size_t net_memory_bytes(const struct net *n)
{
	return n->n_memory * sizeof *n->memory;
}

float *net_gradient(struct net *n)
{
	return n->gradient;
}

void net_zero_gradient(struct net *n)
{
	ENSURE(n->train);
	memset(n->gradient, 0, n->m->n_weights * sizeof *n->gradient);
}

/* Does this step use and update the layer's own statistics? */
static bool updates_statistics(const struct net *n, const struct layer *l)
{
	bool updates = n->mode == NET_TRAIN;
	for (unsigned i = 0; i < l->n_params; i++) {
		const struct param *p = &n->m->params[l->param[i]];
		updates = updates && !(p->kind == PARAM_STATISTIC && p->frozen);
	}
	return updates;
}

static struct layer_io io_of(const struct net *n, size_t i, const float *x)
{
	const struct layer *l = &n->m->layers[i];
	bool updates = updates_statistics(n, l);
	struct layer_io io = {
		.batch = n->batch,
		.x = x,
		.y = n->slots[i].y,
		.keep = n->mode != NET_INFER ? n->slots[i].keep : NULL,
		.scratch = n->scratch,
		.train = n->mode != NET_INFER,
		.rng = n->rng,
	};
	for (unsigned j = 0; j < l->n_params; j++) {
		const struct param *p = &n->m->params[l->param[j]];
		io.w[j] = n->m->theta + p->offset;
		if (p->kind == PARAM_STATISTIC)
			io.stat[j] = updates ? n->m->theta + p->offset : NULL;
		else
			io.dw[j] = n->train && !p->frozen ? n->gradient + p->offset : NULL;
	}
	return io;
}

static const float *turn_input(struct net *n, const float *x)
{
	size_t c = layer_channels(&n->m->input), len = layer_length(&n->m->input);
	if (n->input == NULL)
		return x;
	for (size_t b = 0; b < n->batch; b++)
		transpose(c, len, x + b * c * len, n->input + b * c * len);
	return n->input;
}

const float *net_forward(struct net *n, const float *x, size_t batch, enum net_mode mode, struct rng *rng)
{
	ENSURE(batch > 0 && batch <= n->batch_max && (n->train || mode == NET_INFER));
	n->batch = batch;
	n->mode = mode;
	n->rng = rng;
	n->x = turn_input(n, x);
	const float *last = n->x;
	for (size_t i = 0; i < n->m->n_layers; i++) {
		if (n->slots[i].memory == LAYER_ALIAS)
			continue;
		struct layer_io io = io_of(n, i, last);
		n->m->layers[i].op->forward(&n->m->layers[i], &io);
		last = io.y;
	}
	return last;
}

float *net_output_gradient(struct net *n)
{
	ENSURE(n->train);
	return n->d[0];
}

/* The lowest layer with something to learn; n_layers when there is none. */
static size_t first_learning(const struct model *m)
{
	for (size_t i = 0; i < m->n_layers; i++) {
		for (unsigned j = 0; j < m->layers[i].n_params; j++) {
			const struct param *p = &m->params[m->layers[i].param[j]];
			if (p->kind == PARAM_WEIGHT && !p->frozen)
				return i;
		}
	}
	return m->n_layers;
}

/* What layer i saw: the output of the last layer before it that is no alias. */
static const float *input_of(const struct net *n, size_t i)
{
	while (i-- > 0) {
		if (n->slots[i].memory != LAYER_ALIAS)
			return n->slots[i].y;
	}
	return n->x;
}

void net_backward(struct net *n)
{
	ENSURE(n->train && n->mode != NET_INFER && n->batch > 0);
	size_t stop = first_learning(n->m);
	float *dy = n->d[0];
	for (size_t i = n->m->n_layers; i-- > stop;) {
		const struct layer *l = &n->m->layers[i];
		if (n->slots[i].memory == LAYER_ALIAS)
			continue;
		struct layer_io io = io_of(n, i, input_of(n, i));
		float *other = dy == n->d[0] ? n->d[1] : n->d[0];
		io.dy = dy;
		io.dx = i == stop ? NULL : wanted_memory(l) == LAYER_IN_PLACE ? dy : other;
		l->op->backward(l, &io);
		dy = io.dx;
	}
}
