/*
 * The table of methods against the services of the protocol file, in both directions.
 */
#include "rpc/method.h"

#include <protobuf-c/protobuf-c.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

extern const ProtobufCServiceDescriptor hansa__v1__enrolment__descriptor, hansa__v1__plant__descriptor,
	hansa__v1__operator__descriptor;

static const ProtobufCServiceDescriptor *const services[] = {
	&hansa__v1__enrolment__descriptor,
	&hansa__v1__plant__descriptor,
	&hansa__v1__operator__descriptor,
};
enum { SERVICES = sizeof services / sizeof services[0] };

static void test_every_row_is_in_the_protocol(void **state)
{
	(void)state;
	bool seen[METHOD_COUNT] = {false};
	for (size_t i = 0; i < SERVICES; i++) {
		for (unsigned k = 0; k < services[i]->n_methods; k++) {
			const ProtobufCMethodDescriptor *d = &services[i]->methods[k];
			char path[200];
			int n = snprintf(path, sizeof path, "/%s/%s", services[i]->name, d->name);
			int id = method_find(path, (size_t)n);
			if (id < 0)
				fail_msg("%s is not in the table", path);
			assert_false(seen[id]);
			seen[id] = true;
			/* The descriptor does not say what is a stream, but only streams are made of parts. */
			assert_int_equal(methods[id].kind == METHOD_UPLOAD,
					 strcmp(d->input->name, "hansa.v1.Part") == 0);
			assert_int_equal(methods[id].kind == METHOD_DOWNLOAD,
					 strcmp(d->output->name, "hansa.v1.Part") == 0);
		}
	}
	for (int i = 0; i < METHOD_COUNT; i++) {
		if (!seen[i])
			fail_msg("row %d (%s) is not in the protocol", i, methods[i].path);
	}
}

static void test_rows(void **state)
{
	(void)state;
	static const unsigned known = ROLE_NOBODY | ROLE_PLANT | ROLE_OPERATOR | ROLE_AUDITOR | ROLE_LAB;
	for (int i = 0; i < METHOD_COUNT; i++) {
		const struct method *m = &methods[i];
		assert_true(m->roles != 0 && (m->roles & ~known) == 0);
		/* Nobody may enrol and do nothing else. */
		assert_int_equal((m->roles & ROLE_NOBODY) != 0, i == METHOD_ENROLL);
		assert_true(m->request_max > 0 && m->request_max <= 2 << 20);
		assert_true(m->reply_max > 0 && m->reply_max <= 2 << 20);
		assert_true(m->deadline_ms >= 1000 && m->deadline_ms <= 3600 * 1000);
		assert_int_equal(method_find(m->path, strlen(m->path)), i);
	}
	/* What changes the federation is for operators alone. */
	static const enum method_id powers[] = {METHOD_INVITE, METHOD_REVOKE, METHOD_START_JOB, METHOD_STOP_JOB};
	for (size_t i = 0; i < sizeof powers / sizeof powers[0]; i++)
		assert_int_equal(methods[powers[i]].roles, ROLE_OPERATOR);
	assert_int_equal(methods[METHOD_UPLOAD_UPDATE].roles, ROLE_PLANT);
}

static void test_find_nothing(void **state)
{
	(void)state;
	static const char *const paths[] = {"",
					    "/",
					    "/hansa.v1.Plant/",
					    "/hansa.v1.Plant/nexttask",
					    "hansa.v1.Plant/NextTask",
					    "/hansa.v1.Plant/NextTaskX"};
	for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
		assert_int_equal(method_find(paths[i], strlen(paths[i])), -1);
	assert_int_equal(method_find("/hansa.v1.Plant/NextTask", 23), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_row_is_in_the_protocol),
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_find_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
