/*
 * Samples in memory: x (n, input shape) float32 with a class or target each. Made by the readers (ml/reader.h); never
 * travels.
 */
#ifndef HANSA_ML_DATASET_H
#define HANSA_ML_DATASET_H

#include "base/config.h"
#include "ml/tensor.h"

/* Values of one set, 4 GiB of floats: more does not belong into memory at once. */
#define DATASET_VALUES_MAX ((size_t)1 << 30)

struct dataset {
	size_t n;
	struct shape input; /* of one sample */
	size_t width;       /* floats in one sample */
	float *x;           /* owned: (n, input) */
	uint32_t *label;    /* owned: (n) classes; NULL for regression */
	float *target;      /* owned: (n, n_targets) values; NULL for classification */
	size_t n_targets;
	size_t n_classes;
};

void dataset_free(struct dataset *d); /* NULL is fine */
/* n zero samples, n == 0 is fine. Either n_classes or n_targets is 0. ERR_LIMIT over DATASET_VALUES_MAX. */
MUST_CHECK enum err dataset_new(size_t n, const struct shape *input, size_t n_classes, size_t n_targets,
				struct dataset **ret_dataset);
/* `more` further samples, zero, at the end; the set is unchanged on failure. */
MUST_CHECK enum err dataset_grow(struct dataset *d, size_t more);
/* A new set of the rows `rows[0..n)`. */
MUST_CHECK enum err dataset_pick(const struct dataset *d, const uint32_t *rows, size_t n, struct dataset **ret_dataset);
/* counts[n_classes]: samples of each class. */
void dataset_class_counts(const struct dataset *d, size_t *counts);

#endif
