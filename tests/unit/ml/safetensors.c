#include "ml/safetensors.h"

#include "safetensors_file.h"

#include <stdlib.h>

static enum err parse(const char *header, size_t n)
{
	struct buf b = file_of(header, n);
	struct safetensors *st;
	/* An exact-size copy, so that the address sanitizer sees the first byte read past the end. */
	uint8_t *copy = malloc(b.n);
	assert_non_null(copy);
	memcpy(copy, b.p, b.n);
	enum err e = safetensors_parse("x", bytes_of(copy, b.n), &st);
	if (e == ERR_OK)
		safetensors_free(st);
	free(copy);
	buf_deinit(&b);
	return e;
}

static void test_parse(void **state)
{
	(void)state;
	struct buf b = file_of("{\"b\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[4,28]},"
			       "\"__metadata__\":{\"k\":\"v\",\"e\":\"\"},"
			       "\"a\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]},"
			       "\"s\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[28,36]},"
			       "\"z\":{\"dtype\":\"U8\",\"shape\":[0,7],\"data_offsets\":[36,36]}}   ",
			       36);
	struct safetensors *st;
	assert_int_equal(safetensors_parse("x", buf_bytes(&b), &st), ERR_OK);
	assert_int_equal(safetensors_count(st), 4);
	const char *order[] = {"a", "b", "s", "z"};
	for (size_t i = 0; i < 4; i++) {
		assert_string_equal(safetensors_at(st, i)->name, order[i]);
		assert_ptr_equal(safetensors_find(st, order[i]), safetensors_at(st, i));
	}
	const struct safetensors_entry *e = safetensors_find(st, "b");
	assert_string_equal(e->dtype, "F32");
	assert_true(e->shape.n == 2 && e->shape.d[0] == 2 && e->shape.d[1] == 3);
	/* No copy: a view of the very bytes. */
	assert_ptr_equal(e->data.p, b.p + b.n - 36 + 4);
	assert_int_equal(e->data.n, 24);
	assert_int_equal(safetensors_find(st, "s")->shape.n, 0);
	assert_null(safetensors_find(st, "c"));
	assert_string_equal(safetensors_meta(st, "k"), "v");
	assert_string_equal(safetensors_meta(st, "e"), "");
	assert_null(safetensors_meta(st, "x"));
	safetensors_free(st);
	safetensors_free(NULL);
	buf_deinit(&b);
	b = file_of("{}", 0);
	assert_int_equal(safetensors_parse("x", buf_bytes(&b), &st), ERR_OK);
	assert_int_equal(safetensors_count(st), 0);
	assert_null(safetensors_find(st, "a"));
	assert_null(safetensors_meta(st, "a"));
	safetensors_free(st);
	buf_deinit(&b);
}

#define ONE(dtype, shape, offsets) "{\"a\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"
#define PAIR(first, second)                                                                                            \
	"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":" first "},"                                         \
	"\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":" second "}}"

static void test_malformed(void **state)
{
	(void)state;
	const struct {
		const char *header;
		size_t n;
		const char *says;
	} cases[] = {
		{PAIR("[0,8]", "[4,12]"), 12, "'b': overlaps"},
		{PAIR("[0,8]", "[0,8]"), 8, "overlaps"},
		{PAIR("[0,8]", "[12,20]"), 20, "'b': there is a hole before it"},
		{PAIR("[4,12]", "[12,20]"), 20, "'a': there is a hole before it"},
		{PAIR("[0,8]", "[8,16]"), 17, "1 bytes after the last tensor"},
		{PAIR("[0,8]", "[8,16]"), 15, "'b': data_offsets lie outside"},
		{"{}", 1, "1 bytes after the last tensor"},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
		 "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]}}",
		 16, "duplicate"},
		{ONE("F32", "[3]", "[0,8]"), 8, "3 of F32 are 12 bytes, data_offsets say 8"},
		{ONE("F64", "[2]", "[0,8]"), 8, "2 of F64 are 16 bytes"},
		{ONE("I64", "[]", "[0,4]"), 4, "scalar of I64 are 8 bytes"},
		{ONE("F99", "[2]", "[0,8]"), 8, "unknown dtype 'F99'"},
		{ONE("F32", "[9223372036854775807]", "[0,8]"), 8, "larger than any file"},
		{ONE("F32", "[4294967296,4294967296]", "[0,8]"), 8, "larger than any file"},
		{ONE("F32", "[4611686018427387905,4]", "[0,16]"), 16, "larger than any file"},
		{ONE("F32", "[99999999999999999999]", "[0,8]"), 8, "JSON"},
		{ONE("F32", "[-2]", "[0,8]"), 8, "from 0 on"},
		{ONE("F32", "[2.0]", "[0,8]"), 8, "from 0 on"},
		{ONE("F32", "2", "[0,8]"), 8, "shape is not a list"},
		{ONE("F32", "[2]", "[0,8,8]"), 8, "not two numbers"},
		{ONE("F32", "[2]", "[\"0\",8]"), 8, "not two numbers"},
		{ONE("F32", "[2]", "[8,0]"), 8, "outside"},
		{ONE("F32", "[2]", "[-8,0]"), 8, "outside"},
		{ONE("F32", "[2]", "[0,9223372036854775807]"), 8, "outside"},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "described by"},
		{"{\"a\":{\"dtype\":7,\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "described by"},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"x\":1}}", 8, "described by"},
		{"{\"a\":[]}", 0, "described by"},
		{"{\"__metadata__\":{\"k\":1}}", 0, "metadata 'k' is not a string"},
		{"{\"__metadata__\":{\"k\":{\"l\":\"m\"}}}", 0, "metadata 'k' is not a string"},
		{"{\"__metadata__\":\"k\"}", 0, "metadata is not a map"},
		{"{\"a\":", 0, "JSON"},
		{"{} x", 0, "JSON"},
		{" {}", 0, "does not begin with '{'"},
		{"[]", 0, "does not begin with '{'"},
		{"", 0, "does not begin with '{'"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		assert_int_equal(parse(cases[i].header, cases[i].n), ERR_MALFORMED);
		if (strstr(err_text(), cases[i].says) == NULL)
			fail_msg("%s: \"%s\" does not say \"%s\"", cases[i].header, err_text(), cases[i].says);
	}
	assert_int_equal(parse(ONE("F32", "[1,1,1,1,2]", "[0,8]"), 8), ERR_LIMIT);
	assert_int_equal(parse(PAIR("[0,8]", "[8,16]"), 16), ERR_OK);
	assert_int_equal(parse(PAIR("[8,16]", "[0,8]"), 16), ERR_OK);
}

static void test_header_length(void **state)
{
	(void)state;
	struct safetensors *st;
	struct buf b = file_of(ONE("F32", "[2]", "[0,8]"), 8);
	const uint64_t lies[] = {
		0, 1, b.n - 8 + 1, SAFETENSORS_HEADER_MAX + 1, UINT64_MAX, UINT64_MAX - 7, (uint64_t)1 << 63};
	for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
		struct buf lie;
		buf_init(&lie, 1 << 20);
		assert_int_equal(buf_append(&lie, b.p, b.n), ERR_OK);
		for (unsigned k = 0; k < 8; k++)
			lie.p[k] = (uint8_t)(lies[i] >> (8 * k));
		assert_int_equal(safetensors_parse("x", buf_bytes(&lie), &st), ERR_MALFORMED);
		buf_deinit(&lie);
	}
	/* Every cut of a good file. */
	for (size_t n = 0; n < b.n; n++) {
		uint8_t *copy = malloc(n > 0 ? n : 1);
		assert_non_null(copy);
		memcpy(copy, b.p, n);
		assert_int_equal(safetensors_parse("x", bytes_of(copy, n), &st), ERR_MALFORMED);
		free(copy);
	}
	assert_int_equal(safetensors_parse("x", bytes_of(b.p, (size_t)SAFETENSORS_FILE_MAX + 1), &st), ERR_LIMIT);
	buf_deinit(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_header_length),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
