#include "ml/model.h"

#include "ml/layer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct model *model_dup(const struct model *m)
{
	struct model *d = mem_new(sizeof *d);
	*d = *m;
	d->name = mem_str(m->name);
	d->classes.v = mem_array(m->classes.n, sizeof *d->classes.v);
	for (size_t i = 0; i < m->classes.n; i++)
		d->classes.v[i] = mem_str(m->classes.v[i]);
	d->layers = memcpy(mem_array(m->n_layers, sizeof *d->layers), m->layers, m->n_layers * sizeof *d->layers);
	d->params = memcpy(mem_array(m->n_params, sizeof *d->params), m->params, m->n_params * sizeof *d->params);
	d->theta = memcpy(mem_aligned(m->n_theta * sizeof *d->theta), m->theta, m->n_theta * sizeof *d->theta);
	return d;
}

void model_free(struct model *m)
{
	if (m == NULL)
		return;
	for (size_t i = 0; i < m->classes.n; i++)
		free(m->classes.v[i]);
	free(m->classes.v);
	free(m->name);
	free(m->layers);
	free(m->params);
	free(m->theta);
	free(m);
}

void model_init(struct model *m, uint64_t seed)
{
	for (size_t i = 0; i < m->n_layers; i++) {
		if (m->layers[i].op->init != NULL)
			m->layers[i].op->init(&m->layers[i], m, seed);
	}
}

const struct param *model_param(const struct model *m, const char *name)
{
	for (size_t i = 0; i < m->n_params; i++) {
		if (strcmp(m->params[i].name, name) == 0)
			return &m->params[i];
	}
	return NULL;
}

static bool matches_any(const struct param *p, const struct config_list *patterns)
{
	for (size_t i = 0; i < patterns->n; i++) {
		if (pattern_match(patterns->v[i], p->name))
			return true;
	}
	return false;
}

static bool is_used(const struct model *m, const char *pattern)
{
	for (size_t i = 0; i < m->n_params; i++) {
		if (pattern_match(pattern, m->params[i].name))
			return true;
	}
	return false;
}

/* Statistics follow the weights of their layer: when nothing of it learns, it works in inference mode, and they stay.
 */
static void freeze_statistics(struct model *m, const struct layer *l)
{
	bool learns = false;
	for (unsigned i = 0; i < l->n_params; i++) {
		const struct param *p = &m->params[l->param[i]];
		learns = learns || (p->kind == PARAM_WEIGHT && !p->frozen);
	}
	for (unsigned i = 0; i < l->n_params && !learns; i++)
		m->params[l->param[i]].frozen = true;
}

enum err model_freeze(struct model *m, const struct config_list *patterns)
{
	for (size_t i = 0; i < patterns->n; i++) {
		if (!is_used(m, patterns->v[i]))
			return err_set(ERR_CONFIG, "freeze: '%.100s' matches no tensor of model '%s' (its first is %s)",
				       patterns->v[i], m->name, m->n_params > 0 ? m->params[0].name : "missing");
	}
	for (size_t i = 0; i < m->n_params; i++)
		m->params[i].frozen = matches_any(&m->params[i], patterns);
	for (size_t i = 0; i < m->n_layers; i++)
		freeze_statistics(m, &m->layers[i]);
	return ERR_OK;
}

enum err model_check_finite(const struct model *m)
{
	for (size_t i = 0; i < m->n_params; i++) {
		const struct param *p = &m->params[i];
		for (size_t j = 0; j < p->n; j++) {
			if (!isfinite(m->theta[p->offset + j]))
				return err_set(ERR_NUMERIC, "%s: not finite", p->name);
		}
	}
	return ERR_OK;
}
