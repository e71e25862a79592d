#include "crypto/address.h"

#include "crypto/fixture.h"

#define LABEL63 "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffggg"

static void test_good(void **state)
{
	(void)state;
	static const struct {
		const char *text, *host;
		enum host_kind kind;
		uint16_t port;
	} good[] = {
		{"localhost:1", "localhost", HOST_DNS, 1},
		{"Hansa.Example.ORG:65535", "Hansa.Example.ORG", HOST_DNS, 65535},
		{"plant_a-1.intern:8443", "plant_a-1.intern", HOST_DNS, 8443},
		{"1.example:80", "1.example", HOST_DNS, 80},
		{"127.0.0.1:8443", "127.0.0.1", HOST_IP4, 8443},
		{"[::1]:8443", "::1", HOST_IP6, 8443},
		{"[2001:db8::1:2]:9", "2001:db8::1:2", HOST_IP6, 9},
		{LABEL63 "." LABEL63 ".x:10", LABEL63 "." LABEL63 ".x", HOST_DNS, 10},
	};
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		struct address a;
		assert_ok(address_parse(good[i].text, &a));
		assert_string_equal(a.host, good[i].host);
		assert_int_equal(a.kind, good[i].kind);
		assert_int_equal(a.port, good[i].port);
	}
}

static void test_bad(void **state)
{
	(void)state;
	static const char *const bad[] = {
		"",
		":",
		"host",
		"host:",
		":1",
		"host:0",
		"host:00",
		"host:080",
		"host:65536",
		"host:99999",
		"host:100000",
		"host:1x",
		"host:-1",
		"host:+1",
		"host: 1",
		"host:1 ",
		" host:1",
		"host:1\n",
		"::1:80",
		"[::1]",
		"[::1]80",
		"[::1:80",
		"::1]:80",
		"[]:80",
		"[:80",
		"[host]:80",
		"[127.0.0.1]:80",
		"[::1%eth0]:80",
		"127.0.0:80",
		"127.0.0.256:80",
		"1:2",
		"host..x:1",
		".host:1",
		"host.:1",
		"-host:1",
		"host-:1",
		"a.-b:1",
		"a b:1",
		"*.example:1",
		"host/x:1",
		"user@host:1",
		"http://host:1",
		"h\xc3\xb6st:1",
		"a\"b:1",
		"a\\b:1",
		LABEL63 "a:1",
		LABEL63 "." LABEL63 "." LABEL63 "." LABEL63 ":1",
	};
	struct address a;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		if (address_parse(bad[i], &a) != ERR_MALFORMED)
			fail_msg("\"%s\" parses", bad[i]);
	}
}

static void test_host(void **state)
{
	(void)state;
	enum host_kind kind;
	assert_ok(host_parse("10.0.0.1", &kind));
	assert_int_equal(kind, HOST_IP4);
	assert_ok(host_parse("fe80::1", &kind));
	assert_int_equal(kind, HOST_IP6);
	assert_ok(host_parse("a", &kind));
	assert_int_equal(kind, HOST_DNS);
	assert_err(ERR_MALFORMED, host_parse("", &kind));
	assert_err(ERR_MALFORMED, host_parse("a:1", &kind));
	assert_err(ERR_MALFORMED, host_parse("[::1]", &kind));
	char longest[300];
	memset(longest, 'a', sizeof longest);
	for (size_t i = 50; i < sizeof longest; i += 50)
		longest[i] = '.';
	longest[253] = '\0';
	assert_ok(host_parse(longest, &kind));
	longest[253] = 'a';
	longest[254] = '\0';
	assert_err(ERR_MALFORMED, host_parse(longest, &kind));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_bad),
		cmocka_unit_test(test_host),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
