#include "ml/dataset.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct shape input = {.n = 2, .d = {2, 3}};

static void test_classes(void **state)
{
	(void)state;
	struct dataset *d, *picked;
	assert_int_equal(dataset_new(4, &input, 3, 0, &d), ERR_OK);
	assert_int_equal(d->n, 4);
	assert_int_equal(d->width, 6);
	assert_true(shape_equal(&d->input, &input));
	assert_null(d->target);
	for (size_t i = 0; i < 24; i++) {
		assert_true(d->x[i] == 0);
		d->x[i] = (float)i;
	}
	for (size_t i = 0; i < 4; i++)
		d->label[i] = (uint32_t)(i % 2 * 2);
	size_t counts[3];
	dataset_class_counts(d, counts);
	assert_int_equal(counts[0], 2);
	assert_int_equal(counts[1], 0);
	assert_int_equal(counts[2], 2);
	const uint32_t rows[] = {3, 0, 3};
	assert_int_equal(dataset_pick(d, rows, 3, &picked), ERR_OK);
	assert_int_equal(picked->n, 3);
	assert_int_equal(picked->n_classes, 3);
	for (size_t i = 0; i < 3; i++) {
		assert_memory_equal(picked->x + 6 * i, d->x + 6 * rows[i], 6 * sizeof *d->x);
		assert_int_equal(picked->label[i], d->label[rows[i]]);
	}
	dataset_free(picked);
	assert_int_equal(dataset_pick(d, NULL, 0, &picked), ERR_OK);
	assert_int_equal(picked->n, 0);
	dataset_class_counts(picked, counts);
	assert_int_equal(counts[0] + counts[1] + counts[2], 0);
	dataset_free(picked);
	dataset_free(d);
	dataset_free(NULL);
}

static void test_targets(void **state)
{
	(void)state;
	struct dataset *d, *picked;
	assert_int_equal(dataset_new(0, &input, 0, 2, &d), ERR_OK);
	assert_null(d->label);
	assert_int_equal(dataset_grow(d, 2), ERR_OK);
	for (size_t i = 0; i < 4; i++)
		d->target[i] = (float)i;
	assert_int_equal(dataset_grow(d, 1), ERR_OK);
	assert_int_equal(d->n, 3);
	for (size_t i = 0; i < 4; i++)
		assert_true(d->target[i] == (float)i);
	assert_true(d->target[4] == 0 && d->target[5] == 0);
	const uint32_t row = 1;
	assert_int_equal(dataset_pick(d, &row, 1, &picked), ERR_OK);
	assert_true(picked->target[0] == 2 && picked->target[1] == 3);
	dataset_free(picked);
	dataset_free(d);
}

static void test_limits(void **state)
{
	(void)state;
	struct dataset *d;
	assert_int_equal(dataset_new(DATASET_VALUES_MAX / 6 + 1, &input, 2, 0, &d), ERR_LIMIT);
	assert_int_equal(dataset_new(SIZE_MAX / 2, &input, 2, 0, &d), ERR_LIMIT);
	assert_int_equal(dataset_new(1, &input, 2, 0, &d), ERR_OK);
	assert_int_equal(dataset_grow(d, SIZE_MAX), ERR_LIMIT);
	assert_int_equal(dataset_grow(d, DATASET_VALUES_MAX), ERR_LIMIT);
	assert_int_equal(d->n, 1);
	dataset_free(d);
	const struct shape huge = {.n = 2, .d = {1 << 20, 1 << 20}};
	assert_int_equal(dataset_new(1, &huge, 2, 0, &d), ERR_LIMIT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_classes),
		cmocka_unit_test(test_targets),
		cmocka_unit_test(test_limits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
