/*
 * What an update counts that came late. An update that was made s rounds before the one in which it counts gets the
 * weight of its samples divided by sqrt(1+s), 1+s or 1 (job_late_weight), and the divisor of the mean stays the sum of
 * what all would weigh in time: staleness makes the step smaller, it does not hand the weight to the others (FedBuff,
 * Nguyen et al. 2022, divides by the size of the buffer).
 *
 * Weights are integers (update/fixed.h). When an update of the round is late, all are first multiplied by 2^f, with the
 * largest f <= 8 for which the largest still fits, so that small numbers of samples do not lose what rounding takes; the
 * mean does not change by that, as the divisor is multiplied, too. When none is late, f = 0 and weight = full = samples:
 * FedAvg, to the bit.
 *
 * Pure; only integers and what IEEE 754 rounds correctly: the same weights on every machine. thread: any.
 */
#ifndef HANSA_COORDINATOR_STALENESS_H
#define HANSA_COORDINATOR_STALENESS_H

#include "update/job.h"

enum { STALENESS_BITS_MAX = 8 };

struct staleness {
	uint64_t samples; /* 1 .. FIXED_WEIGHT_MAX */
	uint32_t late;    /* rounds */
	int64_t weight;   /* out: 1 .. full */
	int64_t full;     /* out: what it would weigh in time; its part of the divisor; <= FIXED_WEIGHT_MAX */
};

void staleness_weigh(struct staleness *v, size_t n, enum job_late_weight rule);

#endif
