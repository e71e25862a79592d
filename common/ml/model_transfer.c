/*
 * Transfer between two models of the same layers: everything but the head as it is, the head row by row, by the names
 * of the classes. All is compared before anything is copied, so a model that does not fit changes nothing.
 */
#include "ml/model.h"

#include <string.h>

static enum err does_not_fit(const struct param *p, const struct param *q)
{
	char ours[SHAPE_TEXT_SIZE], theirs[SHAPE_TEXT_SIZE];
	if (q == NULL)
		return err_set(ERR_SHAPE, "%s: the source model has no such tensor", p->name);
	return err_set(ERR_SHAPE, "%s is %s here and %s in the source model", p->name, shape_format(&p->shape, ours),
		       shape_format(&q->shape, theirs));
}

/* Do the rows of the head correspond to outputs? */
static bool is_by_output(const struct param *p, const struct model *m)
{
	return p->shape.n > 0 && p->shape.d[0] == m->n_outputs;
}

static bool head_fits(const struct model *m, const struct param *p, const struct model *source, const struct param *q)
{
	struct shape ours = p->shape, theirs = q->shape;
	if (is_by_output(p, m) && is_by_output(q, source))
		ours.d[0] = theirs.d[0] = 1;
	return shape_equal(&ours, &theirs);
}

static enum err check_fit(const struct model *m, const struct model *source, bool keep_head)
{
	for (size_t i = 0; i < m->n_params; i++) {
		const struct param *p = &m->params[i], *q = model_param(source, p->name);
		if (p->head && !keep_head)
			continue;
		if (q == NULL || q->kind != p->kind || q->head != p->head)
			return does_not_fit(p, NULL);
		if (p->head ? !head_fits(m, p, source, q) : !shape_equal(&p->shape, &q->shape))
			return does_not_fit(p, q);
	}
	for (size_t i = 0; i < source->n_params; i++) {
		const struct param *q = &source->params[i];
		if (!q->head && model_param(m, q->name) == NULL)
			return err_set(ERR_SHAPE, "%s of the source model is missing here", q->name);
	}
	bool named = m->classes.n > 0 && source->classes.n > 0;
	if (keep_head && !named && (m->classes.n != source->classes.n || m->n_outputs != source->n_outputs))
		return err_set(ERR_SHAPE,
			       "%zu outputs here and %zu in the source model, and no names of classes to match them by",
			       m->n_outputs, source->n_outputs);
	return ERR_OK;
}

/* The source's row for output i; false when it has none. */
static bool source_row(const struct model *m, const struct model *source, size_t i, size_t *ret_row)
{
	if (m->classes.n == 0) {
		*ret_row = i;
		return true;
	}
	for (size_t j = 0; j < source->classes.n; j++) {
		if (strcmp(m->classes.v[i], source->classes.v[j]) == 0) {
			*ret_row = j;
			return true;
		}
	}
	return false;
}

static void copy_rows(struct model *m, const struct param *p, const struct model *source, const struct param *q)
{
	size_t width = p->n / m->n_outputs, row;
	for (size_t i = 0; i < m->n_outputs; i++) {
		if (source_row(m, source, i, &row))
			memcpy(m->theta + p->offset + i * width, source->theta + q->offset + row * width,
			       width * sizeof *m->theta);
	}
}

enum err model_transfer(struct model *m, const struct model *source, bool keep_head, size_t *ret_carried)
{
	TRY(check_fit(m, source, keep_head));
	for (size_t i = 0; i < m->n_params; i++) {
		const struct param *p = &m->params[i], *q = model_param(source, p->name);
		if (p->head && !keep_head)
			continue;
		if (p->head && is_by_output(p, m) && is_by_output(q, source))
			copy_rows(m, p, source, q);
		else
			memcpy(m->theta + p->offset, source->theta + q->offset, p->n * sizeof *m->theta);
	}
	size_t carried = 0, row;
	for (size_t i = 0; keep_head && i < m->n_outputs; i++)
		carried += source_row(m, source, i, &row);
	if (ret_carried != NULL)
		*ret_carried = carried;
	return ERR_OK;
}
