#include "base/fixture.h"

#include "base/json.h"
#include "base/rng.h"

#include <math.h>

/* The canonical text of `v`, which is freed. */
static char *text_of(struct json *v)
{
	struct buf out;
	buf_init(&out, 1 << 20);
	assert_int_equal(json_write(v, &out), ERR_OK);
	char *text = mem_str(buf_str(&out));
	buf_deinit(&out);
	json_free(v);
	return text;
}

static void assert_text(struct json *v, const char *expected)
{
	char *text = text_of(v);
	assert_string_equal(text, expected);
	free(text);
}

static void test_write_values(void **state)
{
	(void)state;
	assert_text(json_map(), "{}");
	assert_text(json_list(), "[]");
	assert_text(json_str(NULL), "null");
	assert_text(json_str(""), "\"\"");
	assert_text(json_int(INT64_MIN), "-9223372036854775808");
	assert_text(json_int(INT64_MAX), "9223372036854775807");
	assert_text(json_bool(true), "true");
	assert_text(json_bool(false), "false");
	assert_text(json_num(0.1), "0.1");
	assert_text(json_num(3), "3.0");
	assert_text(json_num(1e300), "1e+300");
	assert_text(json_num((double)NAN), "null");
	assert_text(json_num((double)-INFINITY), "null");
}

static void test_write_strings(void **state)
{
	(void)state;
	assert_text(json_str("a\"b\\c/d"), "\"a\\\"b\\\\c/d\"");
	assert_text(json_str("\b\f\n\r\t\x01\x1f\x7f"), "\"\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\"");
	assert_text(json_str("l\u00fcbeck \U0001F6A2"), "\"l\u00fcbeck \U0001F6A2\"");
	assert_text(json_str("a\xff\xc3z\xe2\x82"), "\"a??z??\"");
	assert_text(json_put(json_map(), "k\xff", json_int(1)), "{\"k?\":1}");
}

static void test_sorted_and_pretty(void **state)
{
	(void)state;
	struct json *v = json_map();
	json_put(v, "b", json_push(json_push(json_list(), json_int(1)), json_list()));
	json_put(v, "a", json_put(json_map(), "z", json_bool(true)));
	json_put(v, "", json_map());
	json_put(v, "b2", json_int(1));
	json_put(v, "b2", json_int(2));
	struct buf out;
	buf_init(&out, 1000);
	assert_int_equal(json_write_pretty(v, &out), ERR_OK);
	assert_string_equal(buf_str(&out), "{\n"
					   "  \"b\": [\n"
					   "    1,\n"
					   "    []\n"
					   "  ],\n"
					   "  \"a\": {\n"
					   "    \"z\": true\n"
					   "  },\n"
					   "  \"\": {},\n"
					   "  \"b2\": 2\n"
					   "}");
	buf_deinit(&out);
	assert_text(v, "{\"\":{},\"a\":{\"z\":true},\"b\":[1,[]],\"b2\":2}");
}

static void test_full_buffer(void **state)
{
	(void)state;
	struct json *v = json_push(json_push(json_list(), json_str("abc")), json_num(1.5));
	for (size_t max = 0; max < 13; max++) {
		struct buf out;
		buf_init(&out, max + 1);
		assert_int_equal(buf_append(&out, "x", 1), ERR_OK);
		assert_int_equal(json_write(v, &out), max < 11 ? ERR_LIMIT : ERR_OK);
		assert_string_equal(buf_str(&out), max < 11 ? "x" : "x[\"abc\",1.5]");
		buf_deinit(&out);
	}
	json_free(v);
}

static enum err parse(const char *text, struct json **ret_value)
{
	/* An exact copy: the address sanitizer sees a byte read past the end. */
	size_t n = strlen(text);
	char *copy = mem_new(n);
	memcpy(copy, text, n);
	enum err e = json_parse(bytes_of(copy, n), ret_value);
	free(copy);
	return e;
}

static void test_parse_refuses(void **state)
{
	(void)state;
	static const char *const bad[] = {
		"",
		" ",
		"{",
		"[1,]",
		"{\"a\":1,}",
		"{\"a\":1,\"a\":1}",
		"[{\"a\":{\"b\":1,\"c\":2,\"b\":3}}]",
		"1 2",
		"{} x",
		"{}{}",
		"nul",
		"'a'",
		"\"a",
		"\"\\u0000\"",
		"\"\xff\"",
		"\"\n\"",
		"01",
		"9223372036854775808",
		"1e999",
		"NaN",
		"// c\n1",
		"{a:1}",
		"\"\\ud800\"",
	};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct json *v = NULL;
		if (parse(bad[i], &v) != ERR_MALFORMED)
			fail_msg("accepted: %s", bad[i]);
		assert_null(v);
		for (const char *c = err_text(); *c != '\0'; c++)
			assert_in_range((unsigned char)*c, 0x20, 0x7e);
	}
	struct json *v = NULL;
	assert_int_equal(json_parse(bytes_of("1\0", 2), &v), ERR_MALFORMED);
	assert_int_equal(json_parse(bytes_of("{}\0 x", 5), &v), ERR_MALFORMED);
	assert_int_equal(json_parse(bytes_of(NULL, 0), &v), ERR_MALFORMED);
}

static enum err parse_nested(int levels, const char *open, const char *close)
{
	struct buf text;
	struct json *v = NULL;
	buf_init(&text, 100000);
	for (int i = 0; i < levels; i++)
		assert_int_equal(buf_append(&text, open, strlen(open)), ERR_OK);
	assert_int_equal(buf_append(&text, "1", 1), ERR_OK);
	for (int i = 0; i < levels; i++)
		assert_int_equal(buf_append(&text, close, strlen(close)), ERR_OK);
	enum err e = json_parse(buf_bytes(&text), &v);
	json_free(v);
	buf_deinit(&text);
	return e;
}

static void test_depth(void **state)
{
	(void)state;
	assert_int_equal(parse_nested(64, "[", "]"), ERR_OK);
	assert_int_equal(parse_nested(65, "[", "]"), ERR_MALFORMED);
	assert_int_equal(parse_nested(64, "{\"[{\\\"[\":", "}"), ERR_OK);
	assert_int_equal(parse_nested(65, "{\"[{\\\"[\":", "}"), ERR_MALFORMED);
	assert_int_equal(parse_nested(10000, "[", "]"), ERR_MALFORMED);
	/* Brackets in texts are no levels; neither are neighbours. */
	struct json *v;
	struct buf text;
	buf_init(&text, 10000);
	for (int i = 0; i < 500; i++)
		assert_int_equal(buf_printf(&text, "%s[{}],\"[{[{\"", i == 0 ? "[" : ","), ERR_OK);
	assert_int_equal(buf_append(&text, "]", 1), ERR_OK);
	assert_int_equal(json_parse(buf_bytes(&text), &v), ERR_OK);
	assert_int_equal(json_count(v), 1000);
	json_free(v);
	buf_deinit(&text);
}

static enum err note_key(void *arg, const char *key, const struct json *value)
{
	int64_t v;
	assert_true(json_get_int(value, &v));
	strcat(arg, key);
	return v == 9 ? err_set(ERR_STATE, "nine") : ERR_OK;
}

static void test_reading(void **state)
{
	(void)state;
	struct json *v;
	const char *s = NULL;
	int64_t n = 0;
	double d = 0;
	bool b = false;
	char keys[20] = "";
	assert_int_equal(parse("{\"s\":\"x\",\"i\":-5,\"r\":2.5,\"t\":true,\"n\":null,\"l\":[1,2,3],\"m\":{\"z\":1,"
			       "\"a\":2,\"q\":9,\"b\":1}}",
			       &v),
			 ERR_OK);
	assert_true(json_is_map(v) && !json_is_list(v) && !json_is_null(v));
	assert_int_equal(json_count(v), 7);
	assert_true(json_get_str(json_get(v, "s"), &s));
	assert_string_equal(s, "x");
	assert_true(json_get_int(json_get(v, "i"), &n) && n == -5);
	assert_true(json_get_num(json_get(v, "i"), &d) && d == -5);
	assert_true(json_get_num(json_get(v, "r"), &d) && d == 2.5);
	assert_true(json_get_bool(json_get(v, "t"), &b) && b);
	assert_true(json_is_null(json_get(v, "n")));
	const struct json *list = json_get(v, "l");
	assert_true(json_is_list(list));
	assert_int_equal(json_count(list), 3);
	assert_true(json_get_int(json_at(list, 2), &n) && n == 3);
	assert_null(json_at(list, 3));
	assert_int_equal(json_each(json_get(v, "m"), note_key, keys), ERR_STATE);
	assert_string_equal(keys, "zaq");
	json_free(v);
}

static void test_reading_what_is_not_there(void **state)
{
	(void)state;
	struct json *v;
	const char *s = "unchanged";
	int64_t n = 7;
	double d = 7;
	bool b = true;
	assert_int_equal(parse("[1.0,\"1\",true,null]", &v), ERR_OK);
	const struct json *none[] = {NULL, json_get(v, "a"), json_at(v, 99), json_at(json_at(v, 0), 0),
				     json_get(json_at(v, 1), "x")};
	for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
		assert_null(none[i]);
		assert_false(json_is_map(none[i]) || json_is_list(none[i]) || json_is_null(none[i]));
		assert_false(json_get_str(none[i], &s) || json_get_int(none[i], &n) || json_get_num(none[i], &d) ||
			     json_get_bool(none[i], &b));
		assert_int_equal(json_count(none[i]), 0);
		assert_int_equal(json_each(none[i], note_key, NULL), ERR_OK);
	}
	assert_false(json_get_int(json_at(v, 0), &n));
	assert_false(json_get_int(json_at(v, 2), &n));
	assert_false(json_get_num(json_at(v, 1), &d));
	assert_false(json_get_str(json_at(v, 3), &s));
	assert_false(json_get_bool(json_at(v, 3), &b));
	assert_string_equal(s, "unchanged");
	assert_true(n == 7 && d == 7 && b);
	json_free(v);
	json_free(NULL);
}

static struct json *random_value(struct rng *r, int depth)
{
	char text[20];
	uint64_t bits = rng_u64(r);
	double real;
	size_t n = rng_below(r, 5);
	switch (rng_below(r, depth > 0 ? 7 : 5)) {
	case 0:
		return json_int((int64_t)bits);
	case 1:
		memcpy(&real, &bits, sizeof real);
		return json_num(real);
	case 2:
		return json_bool(bits & 1);
	case 3:
		return json_str(NULL);
	case 4:
		for (size_t i = 0; i < sizeof text - 1; i++)
			text[i] = (char)rng_below(r, i < 10 ? 128 : 256);
		text[rng_below(r, sizeof text)] = '\0';
		text[sizeof text - 1] = '\0';
		return json_str(text);
	case 5: {
		struct json *list = json_list();
		for (size_t i = 0; i < n; i++)
			json_push(list, random_value(r, depth - 1));
		return list;
	}
	default: {
		struct json *map = json_map();
		for (size_t i = 0; i < n; i++) {
			snprintf(text, sizeof text, "k%llu", (unsigned long long)rng_below(r, 10));
			json_put(map, text, random_value(r, depth - 1));
		}
		return map;
	}
	}
}

static void test_round_trip(void **state)
{
	(void)state;
	struct rng r;
	rng_seed(&r, 3);
	for (int i = 0; i < 2000; i++) {
		struct json *v = random_value(&r, 5), *back;
		struct buf pretty;
		buf_init(&pretty, 1 << 20);
		assert_int_equal(json_write_pretty(v, &pretty), ERR_OK);
		char *text = text_of(v);
		assert_int_equal(parse(text, &back), ERR_OK);
		assert_text(back, text);
		assert_int_equal(parse(buf_str(&pretty), &back), ERR_OK);
		assert_text(back, text);
		buf_deinit(&pretty);
		free(text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_write_values),      cmocka_unit_test(test_write_strings),
		cmocka_unit_test(test_sorted_and_pretty), cmocka_unit_test(test_full_buffer),
		cmocka_unit_test(test_parse_refuses),     cmocka_unit_test(test_depth),
		cmocka_unit_test(test_reading),           cmocka_unit_test(test_reading_what_is_not_there),
		cmocka_unit_test(test_round_trip),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
