/*
 * What a late update counts.
 */
#include "update/fixture.h"

#include "coordinator/staleness.h"
#include "update/fixed.h"

#include <math.h>

static void in_time_is_the_plain_average(void **state)
{
	(void)state;
	for (int rule = JOB_LATE_SQRT; rule <= JOB_LATE_CONSTANT; rule++) {
		struct staleness v[] = {{.samples = 1}, {.samples = 77}, {.samples = FIXED_WEIGHT_MAX}};
		staleness_weigh(v, 3, (enum job_late_weight)rule);
		for (size_t i = 0; i < 3; i++) {
			assert_int_equal(v[i].weight, v[i].samples);
			assert_int_equal(v[i].full, v[i].samples);
		}
	}
	staleness_weigh(NULL, 0, JOB_LATE_SQRT);
}

/* By hand: f = 8, full = samples * 256. */
static void late_ones_weigh_less(void **state)
{
	(void)state;
	static const struct {
		enum job_late_weight rule;
		uint32_t late;
		int64_t weight; /* of 100 samples, of 25600 */
	} cases[] = {
		{JOB_LATE_SQRT, 0, 25600},     {JOB_LATE_SQRT, 1, 18102},   {JOB_LATE_SQRT, 3, 12800},
		{JOB_LATE_SQRT, 8, 8533},      {JOB_LATE_SQRT, 99, 2560},   {JOB_LATE_INVERSE, 1, 12800},
		{JOB_LATE_INVERSE, 2, 8533},   {JOB_LATE_INVERSE, 9, 2560}, {JOB_LATE_CONSTANT, 1, 25600},
		{JOB_LATE_CONSTANT, 9, 25600},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct staleness v[] = {{.samples = 100, .late = cases[i].late}, {.samples = 10, .late = 1}};
		staleness_weigh(v, 2, cases[i].rule);
		assert_int_equal(v[0].full, 25600);
		assert_int_equal(v[0].weight, cases[i].weight);
		assert_int_equal(v[1].full, 2560);
	}
}

static void weights_stay_in_range(void **state)
{
	(void)state;
	static const uint64_t largest[] = {
		1, 2, 4095, 4096, 4097, 8191, 8192, FIXED_WEIGHT_MAX / 2, FIXED_WEIGHT_MAX / 2 + 1, FIXED_WEIGHT_MAX};
	static const int64_t factor[] = {256, 256, 256, 256, 128, 128, 128, 2, 1, 1};
	for (size_t i = 0; i < sizeof largest / sizeof largest[0]; i++) {
		for (int rule = JOB_LATE_SQRT; rule <= JOB_LATE_CONSTANT; rule++) {
			struct staleness v[] = {{.samples = largest[i]}, {.samples = 1, .late = JOB_LATE_MAX}};
			staleness_weigh(v, 2, (enum job_late_weight)rule);
			assert_int_equal(v[0].full, (int64_t)largest[i] * factor[i]);
			assert_int_equal(v[0].weight, v[0].full);
			assert_int_equal(v[1].full, factor[i]);
			assert_true(v[1].weight >= 1 && v[1].weight <= v[1].full);
			assert_true(v[0].full <= FIXED_WEIGHT_MAX);
		}
	}
}

static void later_never_weighs_more(void **state)
{
	(void)state;
	for (int rule = JOB_LATE_SQRT; rule <= JOB_LATE_CONSTANT; rule++) {
		int64_t last = INT64_MAX;
		for (uint32_t late = 0; late <= JOB_LATE_MAX; late++) {
			struct staleness v[] = {{.samples = 1000, .late = late}, {.samples = 1, .late = 1}};
			staleness_weigh(v, 2, (enum job_late_weight)rule);
			assert_true(v[0].weight <= last && v[0].weight >= 1);
			double want = (double)v[0].full;
			want /= rule == JOB_LATE_SQRT ? sqrt(1.0 + late) : rule == JOB_LATE_INVERSE ? 1.0 + late : 1;
			assert_true(fabs((double)v[0].weight - want) <= 0.5 || v[0].weight == 1);
			last = v[0].weight;
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_time_is_the_plain_average),
		cmocka_unit_test(late_ones_weigh_less),
		cmocka_unit_test(weights_stay_in_range),
		cmocka_unit_test(later_never_weighs_more),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
