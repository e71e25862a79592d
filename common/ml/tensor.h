/*
 * Shapes and the few dense operations everything else is made of. The door to OpenBLAS (single-threaded; one core type
 * gives one result, different core types may differ in the last digits).
 */
#ifndef HANSA_ML_TENSOR_H
#define HANSA_ML_TENSOR_H

#include "base/err.h"

#include <stdint.h>

enum { SHAPE_DIMS_MAX = 4 };
#define TENSOR_COUNT_MAX ((size_t)1 << 31) /* elements of one tensor, and of one parameter block */

struct shape {
	unsigned n; /* dimensions; 0: a scalar */
	size_t d[SHAPE_DIMS_MAX];
};

MUST_CHECK enum err shape_count(const struct shape *s, size_t *ret_count); /* ERR_LIMIT over TENSOR_COUNT_MAX */
bool shape_equal(const struct shape *a, const struct shape *b);
enum { SHAPE_TEXT_SIZE = 96 };
const char *shape_format(const struct shape *s, char out[SHAPE_TEXT_SIZE]); /* "16x1x64" */

/* C (M,N) = alpha * op(A) (M,K) * op(B) (K,N) + beta * C; row-major; lda, ldb, ldc: row strides of A, B, C as stored.
 */
void gemm(bool trans_a, bool trans_b, size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
	  const float *b, size_t ldb, float beta, float *c, size_t ldc);
void axpy(size_t n, float alpha, const float *x, float *y); /* y += alpha * x */

/* sums (N) += the sum of the rows of x (R,N). */
void add_column_sums(size_t r, size_t n, const float *x, float *sums);
/* y (B,O) = x (B,I) * transposed w (O,I) + bias (O; NULL: none). A row's bits depend on that row alone, whatever B is
 * and whatever the CPU; gemm() is faster, but promises neither. */
void rowwise_linear(size_t b, size_t i, size_t o, const float *x, const float *w, const float *bias, float *y);

void transpose(size_t r, size_t n, const float *x, float *y); /* y (N,R) = transposed x (R,N); y is not x */

/* Reads "conv*" against "conv1.weight": '*' any run, '?' one character. For tensor-name patterns. */
bool pattern_match(const char *pattern, const char *name);

#endif
