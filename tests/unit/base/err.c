#include "base/fixture.h"

#include "base/err.h"

#include <errno.h>
#include <pthread.h>

static void test_names_round_trip(void **state)
{
	(void)state;
	for (unsigned i = 0; i < ERR_COUNT; i++) {
		const char *name = err_name((enum err)i);
		assert_non_null(name);
		assert_true(name[0] != '\0');
		assert_int_equal(err_from_name(name, strlen(name)), i);
		for (const char *c = name; *c != '\0'; c++)
			assert_true((*c >= 'a' && *c <= 'z') || *c == '_');
	}
	assert_string_equal(err_name(ERR_NOT_FOUND), "not_found");
	assert_string_equal(err_name((enum err)ERR_COUNT), "internal");
	assert_int_equal(err_from_name("corruption", 10), ERR_INTERNAL);
	assert_int_equal(err_from_name("corruption", 7), ERR_CORRUPT);
	assert_int_equal(err_from_name("", 0), ERR_INTERNAL);
}

static void test_set_and_add(void **state)
{
	(void)state;
	assert_int_equal(err_set(ERR_CORRUPT, "record %d", 7), ERR_CORRUPT);
	assert_string_equal(err_text(), "record 7");
	assert_int_equal(err_add(ERR_CORRUPT, "file %s", "a"), ERR_CORRUPT);
	assert_string_equal(err_text(), "file a: record 7");
	/* The old text may be an argument of the new one. */
	assert_int_equal(err_set(ERR_IO, "[%s]", err_text()), ERR_IO);
	assert_string_equal(err_text(), "[file a: record 7]");
}

static void test_text_is_cut(void **state)
{
	(void)state;
	char text[3000];
	memset(text, 'x', sizeof text - 1);
	text[sizeof text - 1] = '\0';
	err_set(ERR_IO, "%s", text);
	assert_int_equal(strlen(err_text()), 1023);
	err_add(ERR_IO, "%s", "prefix");
	assert_int_equal(strlen(err_text()), 1023);
	assert_memory_equal(err_text(), "prefix: xxx", 11);
}

static void test_errno_mapping(void **state)
{
	(void)state;
	static const struct {
		int number;
		enum err code;
	} cases[] = {
		{ENOENT, ERR_NOT_FOUND},         {EACCES, ERR_IO},          {ENOSPC, ERR_IO},
		{ECONNREFUSED, ERR_UNAVAILABLE}, {ETIMEDOUT, ERR_DEADLINE},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		errno = cases[i].number;
		assert_int_equal(err_errno("%s", "thing"), cases[i].code);
		assert_int_equal(errno, cases[i].number);
		assert_memory_equal(err_text(), "thing: ", 7);
		assert_string_equal(err_text() + 7, strerror(cases[i].number));
	}
}

static void test_transient(void **state)
{
	(void)state;
	for (unsigned i = 0; i < ERR_COUNT; i++)
		assert_int_equal(err_is_transient((enum err)i), i == ERR_UNAVAILABLE || i == ERR_DEADLINE);
}

static enum err tried(enum err inner, int *calls)
{
	TRY(inner);
	(*calls)++;
	return ERR_OK;
}

static void test_try(void **state)
{
	(void)state;
	int calls = 0;
	assert_int_equal(tried(ERR_STALE, &calls), ERR_STALE);
	assert_int_equal(calls, 0);
	assert_int_equal(tried(ERR_OK, &calls), ERR_OK);
	assert_int_equal(calls, 1);
}

static void *set_elsewhere(void *arg)
{
	assert_string_equal(err_text(), "");
	err_set(ERR_IO, "other thread");
	return arg;
}

static void test_text_belongs_to_the_thread(void **state)
{
	(void)state;
	pthread_t thread;
	err_set(ERR_STATE, "mine");
	assert_int_equal(pthread_create(&thread, NULL, set_elsewhere, NULL), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_string_equal(err_text(), "mine");
}

static void broken_promise(void)
{
	ENSURE(1 + 1 == 3);
}

static void kept_promise(void)
{
	ENSURE(1 + 1 == 2);
}

static void test_ensure(void **state)
{
	(void)state;
	assert_dies(broken_promise);
	assert_int_equal(status_of(kept_promise), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names_round_trip),
		cmocka_unit_test(test_set_and_add),
		cmocka_unit_test(test_text_is_cut),
		cmocka_unit_test(test_errno_mapping),
		cmocka_unit_test(test_transient),
		cmocka_unit_test(test_try),
		cmocka_unit_test(test_text_belongs_to_the_thread),
		cmocka_unit_test(test_ensure),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
