/*
 * A step walks over the spans of the block that learn, in pieces that stay in the nearest cache: the pulls make the
 * gradient of a piece complete, then the rule of the optimiser moves its parameters.
 */
#include "ml/optim.h"

#include "ml/simd.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 1024 };
static const double adam_beta1 = 0.9, adam_beta2 = 0.999, adam_epsilon = 1e-8;

const char *const optim_names[] = {[OPTIM_SGD] = "sgd", [OPTIM_ADAM] = "adam", NULL};

/* Neighbouring tensors that learn alike. */
struct span {
	size_t offset, n;
	bool head;
};

struct optim {
	struct optim_config config;
	struct model *m;     /* borrowed */
	const float *source; /* borrowed; NULL: none */
	const float *base;   /* borrowed; NULL: none */
	bool head_is_new;
	double lr_scale;
	uint64_t steps;
	struct span *spans; /* owned */
	size_t n_spans;
	float *state; /* owned: n_state floats for each weight */
};

/* One piece of n parameters p with the complete gradient g; `state` points to the piece in the first block, the next
 * block lies `stride` floats further. */
struct piece {
	size_t n, stride;
	float *p, *state;
	const float *g;
};

SIMD_CLONES
static void sgd_step(const struct optim *o, double lr, const struct piece *piece)
{
	const float rate = (float)lr, momentum = (float)o->config.momentum, *g = piece->g;
	float *p = piece->p, *v = piece->state;
	for (size_t i = 0; i < piece->n; i++) {
		v[i] = momentum * v[i] + g[i];
		p[i] -= rate * v[i];
	}
}

SIMD_CLONES
static void adam_step(const struct optim *o, double lr, const struct piece *piece)
{
	double t = (double)o->steps;
	const float b1 = (float)adam_beta1, b2 = (float)adam_beta2, c1 = (float)(1 - adam_beta1),
		    c2 = (float)(1 - adam_beta2);
	const float rate = (float)(lr / (1 - pow(adam_beta1, t))), root = (float)(1 / sqrt(1 - pow(adam_beta2, t)));
	const float epsilon = (float)adam_epsilon, *g = piece->g;
	float *p = piece->p, *m = piece->state, *v = piece->state + piece->stride;
	for (size_t i = 0; i < piece->n; i++) {
		m[i] = b1 * m[i] + c1 * g[i];
		v[i] = b2 * v[i] + c2 * (g[i] * g[i]);
		p[i] -= rate * m[i] / (sqrtf(v[i]) * root + epsilon);
	}
}

static const struct {
	size_t n_state;
	void (*step)(const struct optim *o, double lr, const struct piece *piece);
} rules[] = {
	[OPTIM_SGD] = {1, sgd_step},
	[OPTIM_ADAM] = {2, adam_step},
};

static void find_spans(struct optim *o)
{
	const struct model *m = o->m;
	o->spans = mem_array(m->n_params, sizeof *o->spans);
	for (size_t i = 0; i < m->n_params; i++) {
		const struct param *p = &m->params[i];
		if (p->frozen || p->kind != PARAM_WEIGHT)
			continue;
		struct span *last = o->n_spans > 0 ? &o->spans[o->n_spans - 1] : NULL;
		if (last != NULL && last->head == p->head && last->offset + last->n == p->offset)
			last->n += p->n;
		else
			o->spans[o->n_spans++] = (struct span){p->offset, p->n, p->head};
	}
}

enum err optim_new(const struct optim_config *config, struct model *m, const float *source, bool head_is_new,
		   const float *base, struct optim **ret_optim)
{
	if (config->l2sp_alpha != 0 && source == NULL)
		return err_set(ERR_CONFIG, "l2sp_alpha is %g, but there is no source model to pull to",
			       config->l2sp_alpha);
	if (config->prox_mu != 0 && base == NULL)
		return err_set(ERR_CONFIG, "prox_mu is %g, but there is no round's base to pull to", config->prox_mu);
	struct optim *o = mem_new(sizeof *o);
	*o = (struct optim){
		.config = *config, .m = m, .source = source, .base = base, .head_is_new = head_is_new, .lr_scale = 1};
	find_spans(o);
	o->state = mem_aligned(rules[config->kind].n_state * m->n_weights * sizeof *o->state);
	*ret_optim = o;
	return ERR_OK;
}

void optim_free(struct optim *o)
{
	if (o == NULL)
		return;
	free(o->spans);
	free(o->state);
	free(o);
}

void optim_set_lr_scale(struct optim *o, double scale)
{
	o->lr_scale = scale;
}

/* g += weight * (p - anchor) */
SIMD_CLONES
static void pull_to(size_t n, float weight, const float *p, const float *anchor, float *g)
{
	for (size_t i = 0; i < n; i++)
		g[i] += weight * (p[i] - anchor[i]);
}

static void add_pulls(const struct optim *o, bool head, size_t offset, size_t n, float *g)
{
	const struct optim_config *c = &o->config;
	const float *p = o->m->theta + offset;
	bool own = head && o->head_is_new;
	if (c->weight_decay != 0)
		axpy(n, (float)c->weight_decay, p, g);
	if (own && c->l2sp_beta != 0)
		axpy(n, (float)c->l2sp_beta, p, g);
	if (!own && c->l2sp_alpha != 0)
		pull_to(n, (float)c->l2sp_alpha, p, o->source + offset, g);
	if (c->prox_mu != 0)
		pull_to(n, (float)c->prox_mu, p, o->base + offset, g);
}

void optim_step(struct optim *o, const float *gradient)
{
	float g[PIECE];
	o->steps++;
	for (size_t s = 0; s < o->n_spans; s++) {
		const struct span *span = &o->spans[s];
		double lr = o->config.lr * o->lr_scale * (span->head ? o->config.head_lr : 1);
		for (size_t done = 0; done < span->n; done += PIECE) {
			size_t n = span->n - done < PIECE ? span->n - done : PIECE, at = span->offset + done;
			memcpy(g, gradient + at, n * sizeof *g);
			add_pulls(o, span->head, at, n, g);
			const struct piece piece = {n, o->m->n_weights, o->m->theta + at, o->state + at, g};
			rules[o->config.kind].step(o, lr, &piece);
		}
	}
}
