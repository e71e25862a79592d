#include "ml/dataset.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

/* At least one element, so that an empty set has pointers like any other. */
static void *block(void *p, size_t n, size_t width, size_t size)
{
	return mem_grow(p, (n > 0 ? n : 1) * width, size);
}

static enum err check_size(size_t n, size_t width)
{
	if (width > 0 && n > DATASET_VALUES_MAX / width)
		return err_set(ERR_LIMIT, "%zu samples of %zu values; at most %zu values are kept in memory", n, width,
			       DATASET_VALUES_MAX);
	return ERR_OK;
}

void dataset_free(struct dataset *d)
{
	if (d == NULL)
		return;
	free(d->x);
	free(d->label);
	free(d->target);
	free(d);
}

enum err dataset_new(size_t n, const struct shape *input, size_t n_classes, size_t n_targets,
		     struct dataset **ret_dataset)
{
	ENSURE((n_classes > 0) != (n_targets > 0));
	size_t width;
	TRY(shape_count(input, &width));
	ENSURE(width > 0);
	TRY(check_size(n, width));
	struct dataset *d = mem_new(sizeof *d);
	*d = (struct dataset){.input = *input, .width = width, .n_targets = n_targets, .n_classes = n_classes};
	enum err e = dataset_grow(d, n);
	if (e != ERR_OK) {
		dataset_free(d);
		return e;
	}
	*ret_dataset = d;
	return ERR_OK;
}

enum err dataset_grow(struct dataset *d, size_t more)
{
	if (more > DATASET_VALUES_MAX)
		return err_set(ERR_LIMIT, "%zu samples; at most %zu values are kept in memory", more,
			       DATASET_VALUES_MAX);
	size_t n = d->n + more;
	TRY(check_size(n, d->width));
	TRY(check_size(n, d->n_targets));
	d->x = block(d->x, n, d->width, sizeof *d->x);
	memset(d->x + d->n * d->width, 0, more * d->width * sizeof *d->x);
	if (d->n_classes > 0) {
		d->label = block(d->label, n, 1, sizeof *d->label);
		memset(d->label + d->n, 0, more * sizeof *d->label);
	} else {
		d->target = block(d->target, n, d->n_targets, sizeof *d->target);
		memset(d->target + d->n * d->n_targets, 0, more * d->n_targets * sizeof *d->target);
	}
	d->n = n;
	return ERR_OK;
}

enum err dataset_pick(const struct dataset *d, const uint32_t *rows, size_t n, struct dataset **ret_dataset)
{
	struct dataset *out;
	TRY(dataset_new(n, &d->input, d->n_classes, d->n_targets, &out));
	for (size_t i = 0; i < n; i++) {
		size_t r = rows[i];
		ENSURE(r < d->n);
		memcpy(out->x + i * d->width, d->x + r * d->width, d->width * sizeof *d->x);
		if (d->label != NULL)
			out->label[i] = d->label[r];
		else
			memcpy(out->target + i * d->n_targets, d->target + r * d->n_targets,
			       d->n_targets * sizeof *d->target);
	}
	*ret_dataset = out;
	return ERR_OK;
}

void dataset_class_counts(const struct dataset *d, size_t *counts)
{
	memset(counts, 0, d->n_classes * sizeof *counts);
	if (d->label == NULL)
		return;
	for (size_t i = 0; i < d->n; i++) {
		ENSURE(d->label[i] < d->n_classes);
		counts[d->label[i]]++;
	}
}
