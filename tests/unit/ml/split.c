#include "ml/split.h"

#include "base/mem.h"
#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_cut(void **state)
{
	(void)state;
	const struct {
		size_t begin, end, window, step, n;
	} cases[] = {
		{0, 10, 3, 3, 3}, {0, 9, 3, 3, 3}, {0, 8, 3, 3, 2}, {5, 8, 3, 1, 1}, {5, 7, 3, 1, 0},
		{0, 10, 4, 2, 4}, {7, 7, 1, 1, 0}, {8, 7, 1, 1, 0}, {0, 7, 3, 5, 1}, {0, 8, 3, 5, 2},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		size_t *starts;
		size_t n = split_cut(cases[i].begin, cases[i].end, cases[i].window, cases[i].step, &starts);
		assert_int_equal(n, cases[i].n);
		for (size_t k = 0; k < n; k++) {
			assert_int_equal(starts[k], cases[i].begin + k * cases[i].step);
			assert_true(starts[k] + cases[i].window <= cases[i].end);
		}
		free(starts);
	}
}

static void test_borders(void **state)
{
	(void)state;
	for (size_t n = 0; n < 2000; n++) {
		for (int share = 0; share <= 10; share++) {
			struct split_rule rule = {.train = share / 10.0, .test_from = share / 10.0};
			size_t train_end, test_begin;
			split_borders(&rule, n, &train_end, &test_begin);
			assert_true(train_end <= test_begin && test_begin <= n);
			/* A sample at the border may be lost to rounding, no more. */
			assert_true(test_begin - train_end <= 1);
		}
	}
}

static void test_heldout_count(void **state)
{
	(void)state;
	const struct {
		size_t labelled;
		double share;
		size_t want;
	} cases[] = {
		{0, .2, 0},  {1, .2, 0}, {2, .2, 1}, {3, .2, 1},  {5, .2, 1},   {7, .2, 1},   {8, .2, 2},
		{20, .2, 4}, {20, 0, 0}, {2, .9, 1}, {10, .9, 9}, {10, .01, 1}, {10, .25, 3},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		assert_int_equal(split_heldout_count(cases[i].labelled, cases[i].share), cases[i].want);
}

static bool ascending(const size_t *v, size_t n)
{
	for (size_t i = 1; i < n; i++) {
		if (v[i] <= v[i - 1])
			return false;
	}
	return true;
}

static bool contains(const size_t *v, size_t n, size_t x)
{
	for (size_t i = 0; i < n; i++) {
		if (v[i] == x)
			return true;
	}
	return false;
}

/* Whatever the rule, the sets are what the header promises. */
static void test_choose_properties(void **state)
{
	(void)state;
	struct rng r;
	size_t refused = 0;
	rng_seed(&r, 7);
	for (int round = 0; round < 3000; round++) {
		struct split_rule rule = {
			.window = 1 + rng_below(&r, 20),
			.step = 1 + rng_below(&r, 20),
			.heldout = 0.9 * rng_uniform(&r),
			.labels = rng_below(&r, 30),
			.parts = 1 + rng_below(&r, 4),
			.offset = rng_uniform(&r),
		};
		rule.part = rng_below(&r, rule.parts);
		size_t *starts, n = split_cut(0, rng_below(&r, 400), rule.window, rule.step, &starts);
		size_t own = n > rule.part ? (n - rule.part - 1) / rule.parts + 1 : 0;
		struct split s;
		enum err e = split_choose(&rule, starts, n, &s);
		if (e != ERR_OK) {
			assert_int_equal(e, ERR_CONFIG);
			assert_true(own < rule.labels || rule.step * rule.parts < rule.window);
			refused++;
			free(starts);
			continue;
		}
		size_t labelled = rule.labels > 0 ? rule.labels : own;
		assert_int_equal(s.n_heldout, split_heldout_count(labelled, rule.heldout));
		if (rule.labels > 0 || rule.step * rule.parts >= rule.window)
			assert_int_equal(s.n_train + s.n_heldout, labelled);
		assert_true(ascending(s.train, s.n_train) && ascending(s.heldout, s.n_heldout));
		if (s.n_train > 0 && s.n_heldout > 0)
			assert_true(s.train[s.n_train - 1] + rule.window <= s.heldout[0]);
		for (size_t i = 0; i < s.n_train; i++)
			assert_true(contains(starts, n, s.train[i]) &&
				    s.train[i] / rule.step % rule.parts == rule.part);
		for (size_t i = 0; i < s.n_heldout; i++)
			assert_true(contains(starts, n, s.heldout[i]) &&
				    s.heldout[i] / rule.step % rule.parts == rule.part);
		split_deinit(&s);
		free(starts);
	}
	assert_in_range(refused, 1, 2000);
}

/* Few labels stand in all of the training part, one in each stretch. */
static void test_choose_spread(void **state)
{
	(void)state;
	size_t *starts, n = split_cut(0, 10000, 10, 10, &starts);
	for (int k = 0; k < 20; k++) {
		struct split_rule rule = {
			.window = 10, .step = 10, .labels = 5, .parts = 1, .heldout = .2, .offset = k / 20.0};
		struct split s;
		assert_int_equal(split_choose(&rule, starts, n, &s), ERR_OK);
		assert_int_equal(s.n_train, 4);
		for (size_t i = 0; i < 4; i++)
			assert_int_equal(s.train[i] / 2000, i);
		assert_int_equal(s.heldout[0] / 2000, 4);
		split_deinit(&s);
	}
	free(starts);
}

/* Overlapping windows: the gap before the held-out ones is left out, or the labels are moved together in front of it.
 */
static void test_choose_overlap(void **state)
{
	(void)state;
	size_t *starts, n = split_cut(0, 109, 10, 1, &starts); /* 100 windows */
	assert_int_equal(n, 100);
	struct split_rule rule = {.window = 10, .step = 1, .parts = 1, .heldout = .2};
	struct split s;
	assert_int_equal(split_choose(&rule, starts, n, &s), ERR_OK);
	assert_int_equal(s.n_heldout, 20);
	assert_int_equal(s.n_train, 71);
	split_deinit(&s);
	rule.labels = 80;
	assert_int_equal(split_choose(&rule, starts, n, &s), ERR_OK);
	assert_int_equal(s.n_heldout, 16);
	assert_int_equal(s.n_train, 64);
	split_deinit(&s);
	rule.labels = 99;
	assert_int_equal(split_choose(&rule, starts, n, &s), ERR_CONFIG);
	assert_non_null(strstr(err_text(), "without overlap"));
	rule.labels = 101;
	assert_int_equal(split_choose(&rule, starts, n, &s), ERR_CONFIG);
	assert_non_null(strstr(err_text(), "only 100"));
	free(starts);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cut),           cmocka_unit_test(test_borders),
		cmocka_unit_test(test_heldout_count), cmocka_unit_test(test_choose_properties),
		cmocka_unit_test(test_choose_spread), cmocka_unit_test(test_choose_overlap),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
