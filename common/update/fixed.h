/*
 * Fixed-point arithmetic of updates. Integers, so sums are exact: order, thread count and CPU do not matter, and
 * anyone can redo them.
 *
 *	q = round_half_even(delta * 2^s), |q| <= FIXED_MAX = 2^30          one value of an update
 *	sum = sum over plants of weight * q                                64-bit
 *	new = (float)((double)base + (double)sum / (double)W * 2^-s)       W = sum of weights
 *
 * Range proof: |sum| <= plants * weight_max * 2^30. With plants <= 2^12 and weights <= 2^20 that is <= 2^62 < 2^63:
 * it cannot wrap. fixed_check_cohort() refuses a job whose cohort and largest weight could; a weight above the
 * limit is refused with the update.
 *
 * All functions are pure and give the same bits on every CPU. thread: any.
 */
#ifndef HANSA_UPDATE_FIXED_H
#define HANSA_UPDATE_FIXED_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

enum { FIXED_BITS = 30, FIXED_PLANTS_MAX = 4096, FIXED_WEIGHT_MAX = 1 << 20 };
#define FIXED_MAX ((int32_t)1 << FIXED_BITS)

/* Scales s. The smallest still covers 64 times the largest float: 2^(30 + 104) = 64 * 2^128. */
enum { FIXED_SCALE_MIN = -104, FIXED_SCALE_MAX = 30 };

/* q[i] of (local - base)[i] * factor, the difference taken in float32. ERR_NUMERIC with the index in *ret_bad (may
 * be NULL): not finite or out of range; `q` is undefined then. */
MUST_CHECK enum err fixed_encode(const float *local, const float *base, size_t n, double factor, int scale, int32_t *q,
				 size_t *ret_bad);
double fixed_decode(int32_t q, int scale);
/* sum[i] += weight * q[i]; weight in 0 .. FIXED_WEIGHT_MAX. Returns false when some q[i] is outside +-FIXED_MAX: the sums are worth
 * nothing then (and one such update more could make them wrap). */
MUST_CHECK bool fixed_add(int64_t *sum, const int32_t *q, size_t n, int64_t weight);
/* out[i] = base[i] + rate * sum[i] / total * 2^-scale, left to right in double, rounded once to float. `out` may be
 * `base`. */
void fixed_apply(const float *base, const int64_t *sum, size_t n, int64_t total, int scale, double rate, float *out);
/* Can sums over `plants` weights of at most `weight_max` never wrap? ERR_LIMIT otherwise, also for none at all. */
MUST_CHECK enum err fixed_check_cohort(uint64_t plants, uint64_t weight_max);

/* n 4-byte words, in place, from little-endian (files, wire) to the machine's order or back: mostly nothing to do. */
void fixed_order(void *words, size_t n);

/*
 * Sums of squares in double, in a defined order: element i of a tensor is added to lane i % FIXED_LANES, and the
 * lanes are added up at the end as ((0+1)+(2+3))+((4+5)+(6+7)). A vector unit does that as it is, a scalar one gets
 * the same bits.
 */
enum { FIXED_LANES = 8 };
/*
 * One pass over n int32 little-endian (any alignment), elements at, at + 1, ... of their tensor: the square of each
 * is added to its lane. Returns true when all are within +-FIXED_MAX; otherwise *ret_bad is the first that is not
 * (counted from 0 in this piece).
 */
bool fixed_scan(const uint8_t *bytes, size_t n, size_t at, double lanes[FIXED_LANES], size_t *ret_bad);
double fixed_lanes_sum(const double lanes[FIXED_LANES]);
/* The sum of the squares of local - base, the difference taken in float32. */
double fixed_square(const float *local, const float *base, size_t n);

#endif
