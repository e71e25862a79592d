#include "base/fixture.h"

static void test_append(void **state)
{
	(void)state;
	struct buf b;
	buf_init(&b, 1000);
	assert_string_equal(buf_str(&b), "");
	assert_int_equal(buf_bytes(&b).n, 0);
	assert_int_equal(buf_append(&b, NULL, 0), ERR_OK);
	assert_int_equal(b.p[0], 0);
	assert_int_equal(buf_append(&b, "abc", 3), ERR_OK);
	assert_int_equal(buf_printf(&b, "%d-%s", 7, "x"), ERR_OK);
	assert_string_equal(buf_str(&b), "abc7-x");
	assert_int_equal(buf_bytes(&b).n, 6);
	buf_reset(&b);
	assert_string_equal(buf_str(&b), "");
	assert_int_equal(buf_append(&b, "z", 1), ERR_OK);
	assert_string_equal(buf_str(&b), "z");
	buf_deinit(&b);
	buf_deinit(&b);
}

static void test_every_length_to_the_ceiling(void **state)
{
	(void)state;
	for (size_t max = 0; max < 300; max++) {
		struct buf b;
		buf_init(&b, max);
		for (size_t i = 0; i < max; i++) {
			assert_int_equal(buf_append(&b, "x", 1), ERR_OK);
			assert_true(b.n == i + 1 && b.n < b.cap && b.cap <= max + 1 && b.p[b.n] == 0);
		}
		assert_int_equal(buf_append(&b, "y", 1), ERR_LIMIT);
		assert_int_equal(buf_printf(&b, "%s", "y"), ERR_LIMIT);
		assert_int_equal(buf_reserve(&b, 1), ERR_LIMIT);
		assert_int_equal(buf_append(&b, "y", 0), ERR_OK);
		assert_int_equal(b.n, max);
		assert_int_equal(strspn(buf_str(&b), "x"), max);
		buf_deinit(&b);
	}
}

static void test_failure_leaves_content(void **state)
{
	(void)state;
	struct buf b;
	buf_init(&b, 5);
	assert_int_equal(buf_append(&b, "abc", 3), ERR_OK);
	assert_int_equal(buf_append(&b, "def", 3), ERR_LIMIT);
	assert_int_equal(buf_printf(&b, "%s", "def"), ERR_LIMIT);
	assert_int_equal(buf_append(&b, "def", SIZE_MAX), ERR_LIMIT);
	assert_string_equal(buf_str(&b), "abc");
	assert_int_equal(buf_append(&b, "de", 2), ERR_OK);
	assert_string_equal(buf_str(&b), "abcde");
	buf_deinit(&b);
}

static void test_reserve(void **state)
{
	(void)state;
	struct buf b;
	buf_init(&b, SIZE_MAX);
	assert_true(b.max < SIZE_MAX / 2);
	assert_int_equal(buf_reserve(&b, 100), ERR_OK);
	memset(b.p + b.n, 'x', 100);
	b.n += 100;
	assert_int_equal(buf_append(&b, "y", 1), ERR_OK);
	assert_int_equal(strlen(buf_str(&b)), 101);
	assert_int_equal(buf_reserve(&b, SIZE_MAX), ERR_LIMIT);
	buf_deinit(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_append),
		cmocka_unit_test(test_every_length_to_the_ceiling),
		cmocka_unit_test(test_failure_leaves_content),
		cmocka_unit_test(test_reserve),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
