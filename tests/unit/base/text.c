#include "base/fixture.h"

#include "base/rng.h"
#include "base/text.h"

#include <math.h>

static void test_int(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		int64_t v;
	} good[] = {{"0", 0},
		    {"-0", 0},
		    {"+7", 7},
		    {"007", 7},
		    {"9223372036854775807", INT64_MAX},
		    {"-9223372036854775808", INT64_MIN}};
	static const char *const bad[] = {
		"", "-", "+", "--1", " 1", "1 ", "1.0", "1e3", "0x10", "1_000", "a", "1a", "9223372036854775808"};
	int64_t v = 42;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		assert_false(text_to_int(bad[i], &v));
		assert_int_equal(v, 42);
	}
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		assert_true(text_to_int(good[i].text, &v));
		assert_int_equal(v, good[i].v);
	}
}

static void test_real(void **state)
{
	(void)state;
	static const char *const bad[] = {"",   "inf", "nan", "NAN",   "0x1p3", " 1", "1 ",
					  "1e", "e5",  ".",   "1e999", "1,5",   "--1"};
	double v = 42;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		assert_false(text_to_real(bad[i], &v));
		assert_true(v == 42);
	}
	assert_true(text_to_real("-1.5e-3", &v) && v == -1.5e-3);
	assert_true(text_to_real(".5", &v) && v == 0.5);
	assert_true(text_to_real("1e-999", &v) && v == 0);
}

static void test_shortest_real(void **state)
{
	(void)state;
	static const struct {
		double v;
		const char *text;
	} cases[] = {{0, "0"},      {-0.0, "-0"}, {0.1, "0.1"}, {1e22, "1e+22"}, {1.0 / 3, "0.3333333333333333"},
		     {0.01, "0.01"}};
	char out[TEXT_REAL_SIZE];
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		assert_string_equal(text_real(cases[i].v, out), cases[i].text);
	struct rng r;
	rng_seed(&r, 1);
	for (int i = 0; i < 100000; i++) {
		uint64_t bits = rng_u64(&r);
		double v, back;
		memcpy(&v, &bits, sizeof v);
		if (!isfinite(v))
			continue;
		assert_true(text_to_real(text_real(v, out), &back));
		assert_memory_equal(&v, &back, sizeof v);
	}
}

static void test_utf8(void **state)
{
	(void)state;
	static const char *const good[] = {"",           "abc",          "\u00e4\u00f6",    "\u20ac",
					   "\U0001F600", "\xed\x9f\xbf", "\xf4\x8f\xbf\xbf"};
	/* Continuation alone, overlong forms, a surrogate, above U+10FFFF, cut sequences, bytes that never occur. */
	static const char *const bad[] = {"\x80",         "a\xbf",
					  "\xc0\xaf",     "\xc1\xbf",
					  "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf",
					  "\xed\xa0\x80", "\xf4\x90\x80\x80",
					  "\xc3",         "\xe2\x82",
					  "\xf0\x9f\x98", "\xff",
					  "\xfe",         "\xc3(",
					  "\xe2\x28\xa1", "\xf5\x80\x80\x80"};
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
		assert_true(text_is_utf8(good[i], strlen(good[i])));
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_false(text_is_utf8(bad[i], strlen(bad[i])));
	assert_int_equal(text_utf8_next("\u20ac", 3), 3);
	assert_int_equal(text_utf8_next("\u20ac", 2), 0);
}

static const char *guess(const char *word)
{
	static const char *const names[] = {"learning_rate", "epochs", "lr", "momentum", "batch", NULL};
	struct text_guess g = {.word = word};
	for (size_t i = 0; names[i] != NULL; i++)
		text_guess_offer(&g, names[i]);
	return g.best;
}

static void test_guess(void **state)
{
	(void)state;
	assert_string_equal(guess("lerning_rate"), "learning_rate");
	assert_string_equal(guess("learning-rate"), "learning_rate");
	assert_string_equal(guess("epoch"), "epochs");
	assert_string_equal(guess("epcohs"), "epochs");
	assert_string_equal(guess("rl"), "lr");
	assert_string_equal(guess("momnetum"), "momentum");
	assert_string_equal(guess("lr"), "lr");
	assert_null(guess("x"));
	assert_null(guess(""));
	assert_null(guess("completely-different"));
	char longest[500];
	memset(longest, 'a', sizeof longest - 1);
	longest[sizeof longest - 1] = '\0';
	assert_null(guess(longest));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_int),  cmocka_unit_test(test_real),  cmocka_unit_test(test_shortest_real),
		cmocka_unit_test(test_utf8), cmocka_unit_test(test_guess),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
