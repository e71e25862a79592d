/*
 * Errors there and back.
 */
#include "rpc/status.h"

#include <grpc/status.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void test_there_and_back(void **state)
{
	(void)state;
	char text[STATUS_TEXT_SIZE];
	for (int i = 1; i < ERR_COUNT; i++) {
		enum err e = (enum err)i;
		status_format(e, "because: it is so", text);
		assert_int_not_equal(status_code(e), GRPC_STATUS_OK);
		err_set(ERR_OK, "%s", "");
		assert_int_equal(status_parse(status_code(e), bytes_str(text), "host:1"), e);
		if (status_is_public(e))
			assert_string_equal(err_text(), "because: it is so");
		else
			assert_null(strstr(text, "because"));
		/* The name alone. */
		status_format(e, "", text);
		assert_string_equal(text, err_name(e));
		assert_int_equal(status_parse(status_code(e), bytes_str(text), "host:1"), e);
	}
	assert_int_equal(status_code(ERR_OK), GRPC_STATUS_OK);
	assert_int_equal(status_parse(GRPC_STATUS_OK, bytes_str(""), "x"), ERR_OK);
}

/* What is about our own house is not told. */
static void test_secrets_stay(void **state)
{
	(void)state;
	static const enum err private[] = {ERR_IO, ERR_CORRUPT, ERR_CRYPTO, ERR_INTERNAL, ERR_END};
	char text[STATUS_TEXT_SIZE];
	for (size_t i = 0; i < sizeof private / sizeof private[0]; i++) {
		assert_false(status_is_public(private[i]));
		assert_string_equal(status_format(private[i], "/var/lib/hansa/db", text), err_name(private[i]));
	}
}

static void test_grpc_itself(void **state)
{
	(void)state;
	static const struct {
		int status;
		const char *message;
		enum err code;
	} cases[] = {
		{GRPC_STATUS_UNAVAILABLE, "Socket closed", ERR_UNAVAILABLE},
		{GRPC_STATUS_CANCELLED, "CANCELLED", ERR_UNAVAILABLE},
		{GRPC_STATUS_DEADLINE_EXCEEDED, "Deadline Exceeded", ERR_DEADLINE},
		{GRPC_STATUS_RESOURCE_EXHAUSTED, "Sent message larger than max (3 vs. 2)", ERR_LIMIT},
		{GRPC_STATUS_UNIMPLEMENTED, "", ERR_NOT_FOUND},
		{GRPC_STATUS_UNKNOWN, "Stream removed", ERR_INTERNAL},
		{GRPC_STATUS_INTERNAL, "io", ERR_IO},
		/* A name that does not belong to the number is not ours. */
		{GRPC_STATUS_UNAVAILABLE, "denied: x", ERR_UNAVAILABLE},
		{GRPC_STATUS_INTERNAL, "ok", ERR_INTERNAL},
		{GRPC_STATUS_INTERNAL, ":", ERR_INTERNAL},
		{99, "what", ERR_INTERNAL},
		{-1, "", ERR_INTERNAL},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		err_set(ERR_OK, "%s", "");
		enum err e = status_parse(cases[i].status, bytes_str(cases[i].message), "host:1");
		assert_int_equal(e, cases[i].code);
		assert_string_not_equal(err_text(), "");
	}
}

static void test_deadline_text(void **state)
{
	(void)state;
	assert_int_equal(status_parse(GRPC_STATUS_DEADLINE_EXCEEDED, bytes_str("Deadline Exceeded"), "host:1"),
			 ERR_DEADLINE);
	assert_string_equal(err_text(), "host:1: the coordinator did not answer in time");
	/* What our own server says about it stays. */
	assert_int_equal(status_parse(GRPC_STATUS_DEADLINE_EXCEEDED, bytes_str("deadline: too late"), "host:1"),
			 ERR_DEADLINE);
	assert_string_equal(err_text(), "too late");
}

static void test_hostile_text(void **state)
{
	(void)state;
	static uint8_t long_text[5000];
	memset(long_text, 'a', sizeof long_text);
	memcpy(long_text, "denied: \n\x1b[2J", 13);
	assert_int_equal(status_parse(GRPC_STATUS_PERMISSION_DENIED, bytes_of(long_text, sizeof long_text), "x"),
			 ERR_DENIED);
	assert_null(strchr(err_text(), '\n'));
	assert_null(strchr(err_text(), 27));
	assert_int_equal(status_parse(GRPC_STATUS_UNKNOWN, bytes_of(NULL, 0), "x"), ERR_INTERNAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_there_and_back), cmocka_unit_test(test_secrets_stay),
		cmocka_unit_test(test_grpc_itself),    cmocka_unit_test(test_deadline_text),
		cmocka_unit_test(test_hostile_text),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
