#include "base/fixture.h"

#include "base/mem.h"

static void test_blocks_are_zeroed(void **state)
{
	(void)state;
	uint8_t *a = mem_new(1000), *b = mem_array(10, 100);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(a[i] | b[i], 0);
	free(a);
	free(b);
}

static void test_empty_blocks_can_be_freed(void **state)
{
	(void)state;
	void *blocks[] = {mem_new(0), mem_array(0, 8), mem_array(8, 0), mem_grow(NULL, 0, 4), mem_aligned(0)};
	for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) {
		assert_non_null(blocks[i]);
		free(blocks[i]);
	}
}

static void test_grow_keeps_content(void **state)
{
	(void)state;
	int *v = NULL;
	for (int i = 0; i < 1000; i++) {
		v = mem_grow(v, (size_t)i + 1, sizeof *v);
		v[i] = i;
	}
	for (int i = 0; i < 1000; i++)
		assert_int_equal(v[i], i);
	free(v);
}

static void test_aligned(void **state)
{
	(void)state;
	for (size_t n = 1; n < 300; n += 7) {
		uint8_t *p = mem_aligned(n);
		assert_int_equal((uintptr_t)p % 64, 0);
		for (size_t i = 0; i < n; i++)
			assert_int_equal(p[i], 0);
		free(p);
	}
}

/* What is kept and given out again is zeroed like everything else. */
static void test_keeping_large_blocks(void **state)
{
	(void)state;
	enum { SIZE = 40 << 20 };
	mem_keep_large();
	for (int i = 0; i < 3; i++) {
		uint8_t *p = i % 2 == 0 ? mem_new(SIZE) : mem_aligned(SIZE);
		for (size_t k = 0; k < SIZE; k += 509)
			assert_int_equal(p[k], 0);
		memset(p, 1, SIZE);
		free(p);
		if (i == 1)
			mem_give_back();
	}
}

static void test_strings(void **state)
{
	(void)state;
	assert_null(mem_str(NULL));
	char *copy = mem_str("abc"), *text = mem_printf("%s-%d", "x", 12);
	assert_string_equal(copy, "abc");
	assert_string_equal(text, "x-12");
	free(copy);
	free(text);
	struct bytes b = bytes_str("abc");
	assert_int_equal(b.n, 3);
	assert_memory_equal(b.p, "abc", 3);
	b = bytes_of("xyz", 2);
	assert_int_equal(b.n, 2);
}

static void array_overflow(void)
{
	volatile size_t huge = SIZE_MAX / 2;
	free(mem_array(huge, 3));
}

static void grow_overflow(void)
{
	volatile size_t huge = SIZE_MAX / 2;
	free(mem_grow(NULL, huge, 3));
}

static void aligned_overflow(void)
{
	volatile size_t huge = SIZE_MAX - 3;
	free(mem_aligned(huge));
}

static void test_overflow_ends_the_process(void **state)
{
	(void)state;
	assert_dies(array_overflow);
	assert_dies(grow_overflow);
	assert_dies(aligned_overflow);
}

static void test_hex(void **state)
{
	(void)state;
	uint8_t bytes[256], back[256];
	char text[513];
	for (int i = 0; i < 256; i++)
		bytes[i] = (uint8_t)i;
	hex_encode(bytes, 256, text);
	assert_int_equal(strlen(text), 512);
	assert_memory_equal(text, "000102", 6);
	assert_string_equal(text + 508, "feff");
	assert_int_equal(hex_decode(text, 512, back, 256), 0);
	assert_memory_equal(bytes, back, 256);
	hex_encode(bytes, 0, text);
	assert_string_equal(text, "");
	assert_int_equal(hex_decode("", 0, back, 0), 0);
}

static void test_hex_refuses(void **state)
{
	(void)state;
	static const char *const bad[] = {"", "0", "012", "01234", "0g12", "AB12", "01 2", "0x12", "-112", "012\xff"};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		uint8_t out[2] = {0x55, 0x66};
		assert_int_equal(hex_decode(bad[i], strlen(bad[i]), out, 2), -1);
		assert_int_equal(out[0] << 8 | out[1], 0x5566);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_blocks_are_zeroed),
		cmocka_unit_test(test_empty_blocks_can_be_freed),
		cmocka_unit_test(test_grow_keeps_content),
		cmocka_unit_test(test_aligned),
		cmocka_unit_test(test_keeping_large_blocks),
		cmocka_unit_test(test_strings),
		cmocka_unit_test(test_overflow_ends_the_process),
		cmocka_unit_test(test_hex),
		cmocka_unit_test(test_hex_refuses),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
