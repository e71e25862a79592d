/*
 * Why the sums are exact, and the results the same everywhere.
 *
 * Range. An element of an accepted update is an integer q with |q| <= 2^30 (fixed_encode() makes no other,
 * fixed_scan() lets no other in). A weight is an integer n with 1 <= n <= 2^20, a round has at most 2^12 plants,
 * and each plant counts once. So
 *
 *	|n * q|          <= 2^20 * 2^30        = 2^50
 *	|sum of n * q|   <= 2^12 * 2^50        = 2^62  <  2^63 - 1
 *	W = sum of n     <= 2^12 * 2^20        = 2^32
 *
 * and every partial sum, in whatever order, keeps the same bound: no addition can wrap, so the order cannot matter.
 * n and q fit in 32 bits each, so one product is one 32 x 32 -> 64 multiplication.
 *
 * Rounding. delta = local - base is one float32 operation. delta * (factor * 2^s) is one double multiplication;
 * without clipping it only moves the exponent, so it is exact. Adding and taking away 1.5 * 2^52 leaves the nearest
 * integer, ties to even, for every |x| < 2^51, because doubles in [2^52, 2^53) are exactly the integers; a larger x
 * stays far above 2^30 and is refused, and so are infinity and NaN, for which no comparison holds. An encoded value
 * is therefore at most 2^-s / 2 away from the delta.
 *
 * The mean is (double)sum / (double)W: the sum is rounded to 53 bits (exact below 2^53), the quotient once more,
 * the scale is exact, and the new parameter is rounded to float once. Equal updates give back exactly their value
 * while W * |q| < 2^53; above that the double is off by at most 2^-52 of itself, far below float's 2^-24.
 *
 * Same bits. IEEE 754 operations are the same on all our CPUs as long as the compiler neither fuses
 * (-ffp-contract=off) nor reorders (no -ffast-math) them. Elements are independent of each other except in the sums
 * of squares, whose order is written down in fixed.h. So the clones below differ in speed only.
 */
#include "update/fixed.h"

#include <math.h>
#include <string.h>

/* A resolver runs before a thread sanitizer is ready for it. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) &&                           \
	!defined(__SANITIZE_THREAD__)
#define FOR_EACH_CPU __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_CPU
#endif

static const double integer_shift = 0x1.8p52;

_Static_assert(((int64_t)FIXED_PLANTS_MAX * FIXED_WEIGHT_MAX) << FIXED_BITS == INT64_C(1) << 62, "the range proof");

static inline double nearest(double x)
{
	return (x + integer_shift) - integer_shift;
}

FOR_EACH_CPU static unsigned encode(const float *restrict local, const float *restrict base, size_t n, double k,
				    int32_t *restrict q)
{
	unsigned bad = 0;
	for (size_t i = 0; i < n; i++) {
		float delta = local[i] - base[i];
		double r = nearest((double)delta * k);
		unsigned fits = (r >= -(double)FIXED_MAX) & (r <= (double)FIXED_MAX);
		bad |= !fits;
		q[i] = (int32_t)(fits ? r : 0.0);
	}
	return bad;
}

enum err fixed_encode(const float *local, const float *base, size_t n, double factor, int scale, int32_t *q,
		      size_t *ret_bad)
{
	ENSURE(scale >= FIXED_SCALE_MIN && scale <= FIXED_SCALE_MAX);
	double k = ldexp(factor, scale);
	if (!encode(local, base, n, k, q))
		return ERR_OK;
	size_t i = 0;
	while (fabs(nearest((double)(local[i] - base[i]) * k)) <= (double)FIXED_MAX)
		i++;
	if (ret_bad != NULL)
		*ret_bad = i;
	double delta = (double)(local[i] - base[i]) * factor;
	if (!isfinite(delta))
		return err_set(ERR_NUMERIC, "not finite");
	return err_set(ERR_NUMERIC, "a change of %g is out of range (+-%g)", delta, ldexp(1, FIXED_BITS - scale));
}

double fixed_decode(int32_t q, int scale)
{
	return ldexp(q, -scale);
}

static inline unsigned outside(int32_t q)
{
	/* q + 2^30 as unsigned is 0 .. 2^31 for exactly the values that are allowed. */
	return (uint32_t)q + (uint32_t)FIXED_MAX > 2u * (uint32_t)FIXED_MAX;
}

/* The check costs nothing here: what takes time is reading q. */
FOR_EACH_CPU static unsigned add(int64_t *restrict sum, const int32_t *restrict q, size_t n, int32_t weight)
{
	unsigned bad = 0;
	for (size_t i = 0; i < n; i++) {
		bad |= outside(q[i]);
		sum[i] += (int64_t)weight * q[i];
	}
	return bad;
}

bool fixed_add(int64_t *sum, const int32_t *q, size_t n, int64_t weight)
{
	ENSURE(weight >= 0 && weight <= FIXED_WEIGHT_MAX);
	return !add(sum, q, n, (int32_t)weight);
}

FOR_EACH_CPU static void apply(const float *base, const int64_t *restrict sum, size_t n, double total, double unit,
			       double rate, float *out)
{
	for (size_t i = 0; i < n; i++)
		out[i] = (float)((double)base[i] + rate * (double)sum[i] / total * unit);
}

void fixed_apply(const float *base, const int64_t *sum, size_t n, int64_t total, int scale, double rate, float *out)
{
	ENSURE(total > 0);
	ENSURE(scale >= FIXED_SCALE_MIN && scale <= FIXED_SCALE_MAX);
	apply(base, sum, n, (double)total, ldexp(1, -scale), rate, out);
}

enum err fixed_check_cohort(uint64_t plants, uint64_t weight_max)
{
	if (plants == 0 || plants > FIXED_PLANTS_MAX)
		return err_set(ERR_LIMIT, "a round has 1 to %d plants, not %llu", FIXED_PLANTS_MAX,
			       (unsigned long long)plants);
	if (weight_max == 0 || weight_max > FIXED_WEIGHT_MAX)
		return err_set(ERR_LIMIT, "a weight (number of samples) is 1 to %d, not %llu", FIXED_WEIGHT_MAX,
			       (unsigned long long)weight_max);
	return ERR_OK;
}

static const bool is_little_endian = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__;

static inline uint32_t order(uint32_t v)
{
	return is_little_endian ? v : __builtin_bswap32(v);
}

void fixed_order(void *words, size_t n)
{
	uint8_t *p = words;
	for (size_t i = 0; i < n && !is_little_endian; i++, p += 4) {
		uint32_t v;
		memcpy(&v, p, sizeof v);
		v = order(v);
		memcpy(p, &v, sizeof v);
	}
}

static inline int32_t load(const uint8_t *p)
{
	uint32_t v;
	memcpy(&v, p, sizeof v);
	return (int32_t)order(v);
}

/* Whole groups of FIXED_LANES elements, the first of which belongs to lane 0. */
FOR_EACH_CPU static unsigned scan_groups(const uint8_t *restrict p, size_t groups, double *restrict lanes)
{
	double sum[FIXED_LANES];
	unsigned bad[FIXED_LANES] = {0}, any = 0;
	memcpy(sum, lanes, sizeof sum);
	for (size_t g = 0; g < groups; g++, p += 4 * FIXED_LANES) {
		for (int k = 0; k < FIXED_LANES; k++) {
			int32_t q = load(p + 4 * k);
			double v = q;
			bad[k] |= outside(q);
			sum[k] += v * v;
		}
	}
	memcpy(lanes, sum, sizeof sum);
	for (int k = 0; k < FIXED_LANES; k++)
		any |= bad[k];
	return any;
}

static unsigned scan_few(const uint8_t *p, size_t n, size_t at, double *lanes)
{
	unsigned bad = 0;
	for (size_t i = 0; i < n; i++) {
		int32_t q = load(p + 4 * i);
		double v = q;
		bad |= outside(q);
		lanes[(at + i) % FIXED_LANES] += v * v;
	}
	return bad;
}

bool fixed_scan(const uint8_t *bytes, size_t n, size_t at, double lanes[FIXED_LANES], size_t *ret_bad)
{
	size_t head = (FIXED_LANES - at % FIXED_LANES) % FIXED_LANES;
	if (head > n)
		head = n;
	size_t groups = (n - head) / FIXED_LANES;
	size_t tail = head + groups * FIXED_LANES;
	unsigned bad = scan_few(bytes, head, at, lanes);
	bad |= scan_groups(bytes + 4 * head, groups, lanes);
	bad |= scan_few(bytes + 4 * tail, n - tail, at + tail, lanes);
	if (!bad)
		return true;
	size_t i = 0;
	while (!outside(load(bytes + 4 * i)))
		i++;
	*ret_bad = i;
	return false;
}

double fixed_lanes_sum(const double lanes[FIXED_LANES])
{
	return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

FOR_EACH_CPU static void square_groups(const float *restrict local, const float *restrict base, size_t groups,
				       double *restrict lanes)
{
	double sum[FIXED_LANES] = {0};
	for (size_t g = 0; g < groups; g++, local += FIXED_LANES, base += FIXED_LANES) {
		for (int k = 0; k < FIXED_LANES; k++) {
			double d = local[k] - base[k];
			sum[k] += d * d;
		}
	}
	memcpy(lanes, sum, sizeof sum);
}

double fixed_square(const float *local, const float *base, size_t n)
{
	double lanes[FIXED_LANES];
	size_t groups = n / FIXED_LANES;
	square_groups(local, base, groups, lanes);
	for (size_t i = groups * FIXED_LANES; i < n; i++) {
		double d = local[i] - base[i];
		lanes[i % FIXED_LANES] += d * d;
	}
	return fixed_lanes_sum(lanes);
}
