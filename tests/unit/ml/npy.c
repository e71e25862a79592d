#include "ml/npy.h"

#include "temp.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

/* A .npy file of the given version with this header text, byte by byte. */
static struct buf make(unsigned major, const char *header, const void *data, size_t n)
{
	struct buf b;
	buf_init(&b, 1 << 20);
	size_t len = strlen(header);
	uint8_t head[12] = {0x93, 'N', 'U', 'M', 'P', 'Y', (uint8_t)major, 0, (uint8_t)len, (uint8_t)(len >> 8), 0, 0};
	assert_int_equal(buf_append(&b, head, major == 1 ? 10 : 12), ERR_OK);
	assert_int_equal(buf_append(&b, header, len), ERR_OK);
	assert_int_equal(buf_append(&b, data, n), ERR_OK);
	return b;
}

/* Parses an exact-size copy, so that the address sanitizer sees the first byte read past the end. */
static enum err parse(struct bytes content, struct shape *shape, float **values)
{
	uint8_t *copy = malloc(content.n > 0 ? content.n : 1);
	assert_non_null(copy);
	if (content.n > 0)
		memcpy(copy, content.p, content.n);
	enum err e = npy_parse("x.npy", bytes_of(copy, content.n), shape, values);
	free(copy);
	return e;
}

static enum err parse_text(const char *header, const void *data, size_t n)
{
	struct buf b = make(1, header, data, n);
	struct shape shape;
	float *values;
	enum err e = parse(buf_bytes(&b), &shape, &values);
	if (e == ERR_OK)
		free(values);
	buf_deinit(&b);
	return e;
}

static void test_types(void **state)
{
	(void)state;
	const float f4[] = {0, 1.5f, -2};
	const double f8[] = {0, 1.5, -2};
	const int16_t i2[] = {0, 300, -2};
	const int32_t i4[] = {0, 70000, -2};
	const uint8_t u1[] = {0, 255, 2};
	const struct {
		const char *descr;
		const void *data;
		size_t n;
		float want[3];
	} cases[] = {
		{"<f4", f4, sizeof f4, {0, 1.5f, -2}}, {"<f8", f8, sizeof f8, {0, 1.5f, -2}},
		{"<i2", i2, sizeof i2, {0, 300, -2}},  {"<i4", i4, sizeof i4, {0, 70000, -2}},
		{"|u1", u1, sizeof u1, {0, 255, 2}},   {"<u1", u1, sizeof u1, {0, 255, 2}},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		for (unsigned major = 1; major <= 3; major++) {
			char header[128];
			snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': False, 'shape': (3,), }\n",
				 cases[i].descr);
			struct buf b = make(major, header, cases[i].data, cases[i].n);
			struct shape shape;
			float *values;
			assert_int_equal(parse(buf_bytes(&b), &shape, &values), ERR_OK);
			assert_int_equal(shape.n, 1);
			assert_int_equal(shape.d[0], 3);
			for (size_t k = 0; k < 3; k++)
				assert_true(values[k] == cases[i].want[k]);
			free(values);
			buf_deinit(&b);
		}
	}
}

static void test_header_forms(void **state)
{
	(void)state;
	const float v[6] = {1, 2, 3, 4, 5, 6};
	const char *good[] = {
		"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }   \n",
		"{\"shape\":(2,3),\"descr\":\"<f4\",\"fortran_order\":False}",
		" { 'shape' : ( 6 , ) , 'fortran_order' : False , 'descr' : '<f4' } ",
		"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2,), }",
	};
	for (size_t i = 0; i < sizeof good / sizeof *good; i++)
		assert_int_equal(parse_text(good[i], v, sizeof v), ERR_OK);
}

static void test_malformed(void **state)
{
	(void)state;
	const float v[6] = {1, 2, 3, 4, 5, 6};
	const struct {
		const char *header, *says;
	} cases[] = {
		{"{'descr': '<f4', 'fortran_order': False, 'shape': (7,), }", "28 bytes, the file holds 24"},
		{"{'descr': '<f4', 'fortran_order': False, 'shape': (5,), }", "20 bytes, the file holds 24"},
		{"{'descr': '<f8', 'fortran_order': False, 'shape': (6,), }", "48 bytes"},
		{"{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }", "Fortran"},
		{"{'descr': '>f4', 'fortran_order': False, 'shape': (6,), }", "big-endian"},
		{"{'descr': '|O', 'fortran_order': False, 'shape': (6,), }", "Python objects"},
		{"{'descr': '<c8', 'fortran_order': False, 'shape': (3,), }", "type '<c8'"},
		{"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (6,), }", "fields"},
		{"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2, 3), }", "3 dimensions"},
		{"{'descr': '<f4', 'fortran_order': False, 'shape': (), }", "0 dimensions"},
		{"{'descr': '<f4', 'fortran_order': False, 'shape': (0,), }", "no values"},
		{"{'descr': '<f4', 'fortran_order': False, 'shape': (6), }", "not a tuple"},
		{"{'descr': '<f4', 'fortran_order': False, 'shape': (-6,), }", "bad shape"},
		{"{'descr': '<f4', 'fortran_order': False, 'shape': (2 3), }", "bad shape"},
		{"{'descr': '<f4', 'fortran_order': False, 'shape': (,), }", "bad shape"},
		{"{'descr': '<f4', 'fortran_order': False, 'shape': (6L,), }", "bad shape"},
		{"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }", "larger than any"},
		{"{'descr': '<f4', 'fortran_order': False, 'shape': (1073741823, 1073741823), }", "larger than any"},
		{"{'descr': '<f4', 'fortran_order': 0, 'shape': (6,), }", "neither True nor False"},
		{"{'descr': '<f4', 'fortran_order': False, }", "'shape' is missing"},
		{"{'fortran_order': False, 'shape': (6,), }", "'descr' is missing"},
		{"{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (6,), }", "stands twice"},
		{"{'descr': '<f4', 'fortran_order': False, 'shape': (6,), 'x': 1}", "unknown key 'x'"},
		{"{'descr': '<f4' 'fortran_order': False, 'shape': (6,), }", "expected ','"},
		{"{'descr' '<f4', 'fortran_order': False, 'shape': (6,), }", "expected ':'"},
		{"{'descr': '<f4', 'fortran_order': False, 'shape': (6,), } x", "after the closing brace"},
		{"{'descr': '<f4', 'fortran_order': False, 'shape': (6,), ", "quoted word"},
		{"{'descr': '<f4', 'fortran_order': False, 'shape': (6", "bad shape"},
		{"{'descr': '<f4", "no closing quote"},
		{"{'descr': '\\x3cf4', 'fortran_order': False, 'shape': (6,), }", "bad word"},
		{"{,}", "quoted word"},
		{"", "expected '{'"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		assert_int_equal(parse_text(cases[i].header, v, sizeof v), ERR_MALFORMED);
		if (strstr(err_text(), cases[i].says) == NULL)
			fail_msg("%s: \"%s\" does not say \"%s\"", cases[i].header, err_text(), cases[i].says);
		assert_non_null(strstr(err_text(), "x.npy: "));
	}
}

static void test_not_npy(void **state)
{
	(void)state;
	struct shape shape;
	float *values;
	struct buf b = make(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", "\0\0\x80\x3f", 4);
	/* Every cut of a good file. */
	for (size_t n = 0; n < b.n; n++)
		assert_int_equal(parse(bytes_of(b.p, n), &shape, &values), ERR_MALFORMED);
	const struct {
		size_t at;
		uint8_t value;
	} wrong[] = {{0, 0x92}, {1, 'n'}, {6, 0}, {6, 4}, {7, 1}, {8, 255}, {9, 255}};
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		uint8_t before = b.p[wrong[i].at];
		b.p[wrong[i].at] = wrong[i].value;
		assert_int_equal(parse(buf_bytes(&b), &shape, &values), ERR_MALFORMED);
		b.p[wrong[i].at] = before;
	}
	assert_int_equal(parse(buf_bytes(&b), &shape, &values), ERR_OK);
	free(values);
	buf_deinit(&b);
	/* Version 2 with a header length of four bytes that lies. */
	b = make(2, "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", "\0\0\x80\x3f", 4);
	b.p[11] = 0x7f;
	assert_int_equal(parse(buf_bytes(&b), &shape, &values), ERR_MALFORMED);
	buf_deinit(&b);
	/* One byte over the limit; nothing of it is read. */
	const uint8_t one = 0;
	assert_int_equal(npy_parse("big", bytes_of(&one, ((size_t)1 << 30) + 1), &shape, &values), ERR_LIMIT);
}

static void test_not_finite(void **state)
{
	(void)state;
	const float v[6] = {1, 2, 3, NAN, 5, 6};
	assert_int_equal(parse_text("{'descr': '<f4', 'fortran_order': False, 'shape': (6,), }", v, sizeof v),
			 ERR_NUMERIC);
	assert_non_null(strstr(err_text(), "[3]"));
	assert_int_equal(parse_text("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }", v, sizeof v),
			 ERR_NUMERIC);
	assert_non_null(strstr(err_text(), "[1, 1]"));
	const double large[2] = {0, 1e300};
	assert_int_equal(parse_text("{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }", large, sizeof large),
			 ERR_NUMERIC);
	assert_non_null(strstr(err_text(), "[1]"));
}

/* What is written is what NumPy writes: checked by reading it here, field by field, and then with the parser. */
static void test_save(void **state)
{
	(void)state;
	char dir[PATH_SIZE], path[PATH_SIZE];
	temp_make(dir);
	path_join(path, dir, "a.npy");
	const float v[6] = {1, -2, 3.25f, 4, 5, 1e-30f};
	const struct shape shapes[] = {{.n = 1, .d = {6}}, {.n = 2, .d = {2, 3}}};
	const char *texts[] = {"{'descr': '<f4', 'fortran_order': False, 'shape': (6,), }",
			       "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"};
	for (size_t i = 0; i < 2; i++) {
		struct buf b;
		struct shape shape;
		float *values;
		assert_int_equal(npy_save(path, &shapes[i], v), ERR_OK);
		assert_int_equal(file_read(path, 1 << 20, &b), ERR_OK);
		assert_int_equal(b.n, 128 + sizeof v);
		assert_memory_equal(b.p, "\x93NUMPY\x01\x00\x76\x00", 10);
		assert_memory_equal(b.p + 10, texts[i], strlen(texts[i]));
		for (size_t k = 10 + strlen(texts[i]); k < 127; k++)
			assert_int_equal(b.p[k], ' ');
		assert_int_equal(b.p[127], '\n');
		assert_memory_equal(b.p + 128, v, sizeof v);
		buf_deinit(&b);
		assert_int_equal(npy_load(path, &shape, &values), ERR_OK);
		assert_true(shape_equal(&shape, &shapes[i]));
		assert_memory_equal(values, v, sizeof v);
		free(values);
	}
	struct shape shape;
	float *values;
	assert_int_equal(npy_load(path_join(path, dir, "absent.npy"), &shape, &values), ERR_NOT_FOUND);
	temp_write(dir, "empty.npy", "", 0);
	assert_int_equal(npy_load(path_join(path, dir, "empty.npy"), &shape, &values), ERR_MALFORMED);
	temp_remove(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_types),   cmocka_unit_test(test_header_forms), cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_not_npy), cmocka_unit_test(test_not_finite),   cmocka_unit_test(test_save),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
