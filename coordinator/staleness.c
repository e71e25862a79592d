#include "coordinator/staleness.h"

#include "base/err.h"
#include "update/fixed.h"

#include <math.h>

static double divisor(uint32_t late, enum job_late_weight rule)
{
	double s = 1 + (double)late;
	if (rule == JOB_LATE_SQRT)
		return sqrt(s);
	return rule == JOB_LATE_INVERSE ? s : 1;
}

static unsigned spare_bits(const struct staleness *v, size_t n)
{
	uint64_t largest = 1;
	bool late = false;
	for (size_t i = 0; i < n; i++) {
		ENSURE(v[i].samples >= 1 && v[i].samples <= FIXED_WEIGHT_MAX);
		largest = v[i].samples > largest ? v[i].samples : largest;
		late |= v[i].late > 0;
	}
	unsigned f = 0;
	while (late && f < STALENESS_BITS_MAX && largest << (f + 1) <= FIXED_WEIGHT_MAX)
		f++;
	return f;
}

void staleness_weigh(struct staleness *v, size_t n, enum job_late_weight rule)
{
	unsigned f = spare_bits(v, n);
	for (size_t i = 0; i < n; i++) {
		v[i].full = (int64_t)(v[i].samples << f);
		int64_t weight = (int64_t)floor((double)v[i].full / divisor(v[i].late, rule) + 0.5);
		v[i].weight = weight > 0 ? weight : 1;
	}
}
