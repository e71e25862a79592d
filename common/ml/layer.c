#include "ml/layer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { LINE_FLOATS = 16 };

const struct layer_op *const layer_ops[] = {
	&layer_linear,
	&layer_conv1d,
	&layer_batchnorm1d,
	&layer_relu,
	&layer_maxpool1d,
	&layer_avgpool1d,
	&layer_adaptivemaxpool1d,
	&layer_adaptiveavgpool1d,
	&layer_flatten,
	&layer_dropout,
	NULL,
};

const struct layer_op *layer_op_find(const char *op)
{
	for (const struct layer_op *const *row = layer_ops; *row != NULL; row++) {
		if (strcmp((*row)->op, op) == 0)
			return *row;
	}
	return NULL;
}

enum err layer_param(struct model *m, struct layer *l, const char *suffix, enum param_kind kind,
		     const struct shape *shape)
{
	size_t count;
	TRY(shape_count(shape, &count));
	if (m->n_params == MODEL_PARAMS_MAX)
		return err_set(ERR_LIMIT, "more than %d tensors", MODEL_PARAMS_MAX);
	if (count > MODEL_COUNT_MAX - m->n_theta)
		return err_set(ERR_LIMIT, "more than %zu parameters", MODEL_COUNT_MAX);
	ENSURE(l->n_params < LAYER_PARAMS_MAX);
	struct param *p = &m->params[m->n_params];
	*p = (struct param){.kind = kind, .shape = *shape, .n = count, .layer = (unsigned)(l - m->layers)};
	int n = snprintf(p->name, sizeof p->name, "%s.%s", l->name, suffix);
	ENSURE(n > 0 && (size_t)n < sizeof p->name);
	l->param[l->n_params++] = (unsigned)m->n_params++;
	m->n_theta += count;
	return ERR_OK;
}

void layer_init_uniform(const struct layer *l, struct model *m, uint64_t seed, size_t fan_in)
{
	double bound = 1 / sqrt((double)fan_in);
	for (unsigned i = 0; i < l->n_params; i++) {
		const struct param *p = &m->params[l->param[i]];
		struct rng r;
		rng_stream(&r, seed, p->name, 0);
		for (size_t j = 0; j < p->n; j++)
			m->theta[p->offset + j] = (float)(bound * (2 * rng_uniform(&r) - 1));
	}
}

size_t layer_count(const struct shape *s)
{
	size_t count;
	ENSURE(shape_count(s, &count) == ERR_OK);
	return count;
}

size_t layer_channels(const struct shape *s)
{
	return s->d[0];
}

size_t layer_length(const struct shape *s)
{
	return s->n > 1 ? s->d[1] : 1;
}

size_t layer_aligned(size_t n)
{
	return (n + LINE_FLOATS - 1) / LINE_FLOATS * LINE_FLOATS;
}
