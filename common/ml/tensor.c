/*
 * Owns the calls into OpenBLAS. Everything else here is plain C in a fixed order of operations, so that its bits do not
 * depend on the CPU (ml/simd.h).
 */
#include <cblas.h>

#include "ml/tensor.h"

#include "ml/simd.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { SUM_ROWS = 8 };
enum { DOT_LANES = 8, DOT_OUTPUTS = 4 };

enum err shape_count(const struct shape *s, size_t *ret_count)
{
	size_t count = 1;
	for (unsigned i = 0; i < s->n; i++) {
		if (s->d[i] > 0 && count > TENSOR_COUNT_MAX / s->d[i]) {
			char text[SHAPE_TEXT_SIZE];
			return err_set(ERR_LIMIT, "a tensor of %s elements; at most %zu are allowed",
				       shape_format(s, text), TENSOR_COUNT_MAX);
		}
		count *= s->d[i];
	}
	*ret_count = count;
	return ERR_OK;
}

bool shape_equal(const struct shape *a, const struct shape *b)
{
	return a->n == b->n && memcmp(a->d, b->d, a->n * sizeof *a->d) == 0;
}

const char *shape_format(const struct shape *s, char out[SHAPE_TEXT_SIZE])
{
	size_t at = 0;
	snprintf(out, SHAPE_TEXT_SIZE, "scalar");
	for (unsigned i = 0; i < s->n; i++)
		at += (size_t)snprintf(out + at, SHAPE_TEXT_SIZE - at, "%s%zu", i > 0 ? "x" : "", s->d[i]);
	return out;
}

/* Threads of our own are worth more than threads inside a product, and one thread gives one order of additions. */
static void use_one_thread(void)
{
	openblas_set_num_threads(1);
}

static blasint as_int(size_t n)
{
	ENSURE(n <= INT32_MAX);
	return (blasint)n;
}

void gemm(bool trans_a, bool trans_b, size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
	  const float *b, size_t ldb, float beta, float *c, size_t ldc)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	if (m == 0 || n == 0)
		return;
	pthread_once(&once, use_one_thread);
	/* A wrong stride would be a line on stderr and no product. */
	ENSURE(lda >= (trans_a ? m : k) && ldb >= (trans_b ? k : n) && ldc >= n);
	cblas_sgemm(CblasRowMajor, trans_a ? CblasTrans : CblasNoTrans, trans_b ? CblasTrans : CblasNoTrans, as_int(m),
		    as_int(n), as_int(k), alpha, a, as_int(lda), b, as_int(ldb), beta, c, as_int(ldc));
}

SIMD_CLONES
void axpy(size_t n, float alpha, const float *x, float *y)
{
	for (size_t i = 0; i < n; i++)
		y[i] += alpha * x[i];
}

/* Eight rows are added to each other before they meet the sum: shorter chains, and errors that grow with R/8 instead of
 * R. */
SIMD_CLONES
void add_column_sums(size_t r, size_t n, const float *x, float *sums)
{
	size_t i = 0;
	for (; i + SUM_ROWS <= r; i += SUM_ROWS) {
		const float *p = x + i * n;
		for (size_t j = 0; j < n; j++) {
			float low = (p[j] + p[n + j]) + (p[2 * n + j] + p[3 * n + j]);
			float high = (p[4 * n + j] + p[5 * n + j]) + (p[6 * n + j] + p[7 * n + j]);
			sums[j] += low + high;
		}
	}
	for (; i < r; i++) {
		for (size_t j = 0; j < n; j++)
			sums[j] += x[i * n + j];
	}
}

/* Four floats in a register, which every x86-64 and ARM64 has. */
typedef float quad __attribute__((vector_size(16)));

static inline quad quad_load(const float *p)
{
	quad v;
	memcpy(&v, p, sizeof v);
	return v;
}

/* out[0 .. n_out) = dot products of x (N) with n_out rows of w: DOT_LANES sums each, added in a fixed order at the end.
 */
static inline __attribute__((always_inline)) void dots(size_t n, size_t n_out, const float *x, const float *w,
						       float *out)
{
	quad even[DOT_OUTPUTS] = {{0}}, odd[DOT_OUTPUTS] = {{0}};
	size_t whole = n - n % DOT_LANES;
	for (size_t k = 0; k < whole; k += DOT_LANES) {
		quad x_even = quad_load(x + k), x_odd = quad_load(x + k + 4);
		for (size_t o = 0; o < n_out; o++) {
			even[o] += x_even * quad_load(w + o * n + k);
			odd[o] += x_odd * quad_load(w + o * n + k + 4);
		}
	}
	for (size_t o = 0; o < n_out; o++) {
		quad s = even[o] + odd[o];
		float sum = (s[0] + s[2]) + (s[1] + s[3]);
		for (size_t k = whole; k < n; k++)
			sum += x[k] * w[o * n + k];
		out[o] = sum;
	}
}

void rowwise_linear(size_t b, size_t i, size_t o, const float *x, const float *w, const float *bias, float *y)
{
	for (size_t r = 0; r < b; r++) {
		float *out = y + r * o;
		size_t first = 0;
		for (; first + DOT_OUTPUTS <= o; first += DOT_OUTPUTS)
			dots(i, DOT_OUTPUTS, x + r * i, w + first * i, out + first);
		for (; first < o; first++)
			dots(i, 1, x + r * i, w + first * i, out + first);
		for (size_t j = 0; bias != NULL && j < o; j++)
			out[j] += bias[j];
	}
}

void transpose(size_t r, size_t n, const float *x, float *y)
{
	for (size_t j = 0; j < n; j++) {
		for (size_t i = 0; i < r; i++)
			y[j * r + i] = x[i * n + j];
	}
}

bool pattern_match(const char *pattern, const char *name)
{
	const char *star = NULL, *retry = NULL;
	while (*name != '\0') {
		if (*pattern == '*') {
			/* Let the run be empty first; come back to make it one longer. */
			star = pattern++;
			retry = name;
		} else if (*pattern == '?' || *pattern == *name) {
			pattern++;
			name++;
		} else if (star != NULL) {
			pattern = star + 1;
			name = ++retry;
		} else {
			return false;
		}
	}
	while (*pattern == '*')
		pattern++;
	return *pattern == '\0';
}
