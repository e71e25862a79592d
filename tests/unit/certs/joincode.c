#include "certs/joincode.h"

#include "crypto/fixture.h"
#include "crypto/random.h"

enum { RAW_ROOM = 1024, CHECK_SIZE = 4 };

static const int64_t expiry_ms = INT64_C(1790000000) * 1000;

static struct joincode sample(void)
{
	struct joincode code = {.id = identity_of(ROLE_PLANT, "steel.example", "plant-7"), .expires_ms = expiry_ms};
	strcpy(code.address, "hansa.example.org:8444");
	for (size_t i = 0; i < DIGEST_SIZE; i++)
		code.ca_fingerprint.b[i] = (uint8_t)(0xa0 + i);
	for (size_t i = 0; i < JOINCODE_SECRET_SIZE; i++)
		code.secret[i] = (uint8_t)(0x10 + i);
	return code;
}

static void assert_same(const struct joincode *a, const struct joincode *b)
{
	assert_true(identity_equal(&a->id, &b->id));
	assert_string_equal(a->address, b->address);
	assert_true(digest_equal(&a->ca_fingerprint, &b->ca_fingerprint));
	assert_memory_equal(a->secret, b->secret, JOINCODE_SECRET_SIZE);
	assert_int_equal(a->expires_ms, b->expires_ms);
}

/* A code put together by hand, byte by byte as the header of joincode.h lays it out. */
struct raw {
	uint8_t b[RAW_ROOM];
	size_t n;
};

static void add(struct raw *r, const void *p, size_t n)
{
	assert_true(r->n + n <= sizeof r->b);
	memcpy(r->b + r->n, p, n);
	r->n += n;
}

static void add_byte(struct raw *r, unsigned v)
{
	uint8_t b = (uint8_t)v;
	add(r, &b, 1);
}

static void add_text(struct raw *r, const char *text, size_t n)
{
	add_byte(r, (unsigned)n);
	add(r, text, n);
}

struct parts {
	unsigned version;
	uint64_t expiry_s;
	const char *uri, *address;
	size_t uri_n, address_n; /* 0: strlen */
	const char *tail;        /* bytes that do not belong there */
};

static void assemble(const struct parts *p, struct raw *r)
{
	struct joincode fill = sample();
	r->n = 0;
	add_byte(r, p->version);
	for (int shift = 56; shift >= 0; shift -= 8)
		add_byte(r, (unsigned)(p->expiry_s >> shift & 0xff));
	add(r, fill.ca_fingerprint.b, DIGEST_SIZE);
	add(r, fill.secret, JOINCODE_SECRET_SIZE);
	add_text(r, p->uri, p->uri_n == 0 ? strlen(p->uri) : p->uri_n);
	add_text(r, p->address, p->address_n == 0 ? strlen(p->address) : p->address_n);
	if (p->tail != NULL)
		add(r, p->tail, strlen(p->tail));
}

/* With the right check at the end. */
static void seal(const struct raw *r, char *text, size_t size)
{
	struct raw sealed = *r;
	struct digest d = digest_of(bytes_of(r->b, r->n));
	add(&sealed, d.b, CHECK_SIZE);
	strcpy(text, "hansa1-");
	assert_ok(base64url_encode(sealed.b, sealed.n, text + 7, size - 7));
}

static const struct parts good_parts = {.version = 1,
					.expiry_s = 1790000000,
					.uri = "spiffe://steel.example/plant/plant-7",
					.address = "hansa.example.org:8444"};

static void test_layout(void **state)
{
	(void)state;
	struct joincode code = sample(), back;
	char text[JOINCODE_TEXT_SIZE], by_hand[2048];
	struct raw r;
	assemble(&good_parts, &r);
	seal(&r, by_hand, sizeof by_hand);
	assert_ok(joincode_format(&code, text));
	assert_string_equal(text, by_hand);
	assert_ok(joincode_parse(text, &back));
	assert_same(&code, &back);
}

static void test_round_trip(void **state)
{
	(void)state;
	static const enum role roles[] = {ROLE_PLANT, ROLE_OPERATOR, ROLE_AUDITOR, ROLE_LAB};
	static const char *const addresses[] = {"a:1", "10.0.0.1:65535", "[2001:db8::1]:8444", "localhost:8444"};
	for (size_t i = 0; i < 4; i++) {
		struct joincode code = sample(), back;
		char text[JOINCODE_TEXT_SIZE];
		code.id = identity_of(roles[i], "f", "n");
		strcpy(code.address, addresses[i]);
		random_bytes(code.secret, sizeof code.secret);
		random_bytes(code.ca_fingerprint.b, DIGEST_SIZE);
		assert_ok(joincode_format(&code, text));
		assert_ok(joincode_parse(text, &back));
		assert_same(&code, &back);
	}
	struct joincode code = sample(), back;
	char text[JOINCODE_TEXT_SIZE];
	code.expires_ms = expiry_ms + 999; /* seconds are what travels */
	assert_ok(joincode_format(&code, text));
	assert_ok(joincode_parse(text, &back));
	assert_int_equal(back.expires_ms, expiry_ms);
	code.expires_ms = 0;
	assert_ok(joincode_format(&code, text));
	code.expires_ms = INT64_C(253402300799) * 1000;
	assert_ok(joincode_format(&code, text));
	assert_ok(joincode_parse(text, &back));
	assert_int_equal(back.expires_ms, code.expires_ms);
}

static void test_format_refuses(void **state)
{
	(void)state;
	char text[JOINCODE_TEXT_SIZE];
	struct joincode code = sample();
	code.id = identity_of(ROLE_COORDINATOR, "f", NULL);
	assert_err(ERR_MALFORMED, joincode_format(&code, text));
	code = sample();
	code.id.role = ROLE_NONE;
	assert_err(ERR_MALFORMED, joincode_format(&code, text));
	code = sample();
	strcpy(code.id.name, "Upper");
	assert_err(ERR_MALFORMED, joincode_format(&code, text));
	code = sample();
	strcpy(code.address, "no-port");
	assert_err(ERR_MALFORMED, joincode_format(&code, text));
	code = sample();
	memset(code.address, 'a', sizeof code.address);
	assert_err(ERR_MALFORMED, joincode_format(&code, text));
	code = sample();
	code.expires_ms = -1;
	assert_err(ERR_MALFORMED, joincode_format(&code, text));
	code.expires_ms = INT64_C(253402300800) * 1000;
	assert_err(ERR_MALFORMED, joincode_format(&code, text));
}

#define L63 "a23456789b123456789c123456789d123456789e123456789f123456789abcd"

/* The longest names with ever longer addresses: up to 512 characters it works both ways, from then on it is ERR_LIMIT.
 */
static void test_length_limit(void **state)
{
	(void)state;
	size_t fitted = 0, refused = 0, longest = 0;
	for (size_t n = 1; n + 3 < JOINCODE_ADDRESS_SIZE; n++) {
		struct joincode code = sample(), back;
		char text[JOINCODE_TEXT_SIZE];
		code.id = identity_of(ROLE_OPERATOR, L63, L63);
		memset(code.address, 'a', n);
		for (size_t i = 40; i + 1 < n; i += 40)
			code.address[i] = '.';
		strcpy(code.address + n, ":1");
		enum err e = joincode_format(&code, text);
		if (e == ERR_OK) {
			assert_int_equal(refused, 0);
			assert_true(strlen(text) <= 512);
			longest = strlen(text);
			assert_ok(joincode_parse(text, &back));
			assert_same(&code, &back);
			fitted++;
		} else {
			assert_err(ERR_LIMIT, e);
			refused++;
		}
	}
	assert_true(fitted > 0 && refused > 0);
	assert_true(longest >= 510);
}

static void test_cut_and_altered(void **state)
{
	(void)state;
	struct joincode code = sample(), back, before;
	char text[JOINCODE_TEXT_SIZE], bad[2 * JOINCODE_TEXT_SIZE];
	memset(&back, 0x5a, sizeof back);
	before = back;
	assert_ok(joincode_format(&code, text));
	size_t n = strlen(text);
	for (size_t cut = 0; cut < n; cut++) {
		memcpy(bad, text, cut);
		bad[cut] = '\0';
		assert_err(ERR_MALFORMED, joincode_parse(bad, &back));
		memmove(bad, text + n - cut, cut + 1); /* the tail alone */
		assert_err(ERR_MALFORMED, joincode_parse(bad, &back));
	}
	static const char replacements[] = "Aa0-_ =\n.9z";
	for (size_t i = 0; i < n; i++) {
		for (size_t c = 0; c < sizeof replacements - 1; c++) {
			strcpy(bad, text);
			if (bad[i] == replacements[c])
				continue;
			bad[i] = replacements[c];
			if (joincode_parse(bad, &back) != ERR_MALFORMED)
				fail_msg("character %zu may be '%c'", i, replacements[c]);
		}
		memcpy(bad, text, i); /* one character missing, one doubled */
		strcpy(bad + i, text + i + 1);
		assert_err(ERR_MALFORMED, joincode_parse(bad, &back));
		memcpy(bad, text, i + 1);
		strcpy(bad + i + 1, text + i);
		assert_err(ERR_MALFORMED, joincode_parse(bad, &back));
	}
	snprintf(bad, sizeof bad, "%s%s", text, text);
	assert_err(ERR_MALFORMED, joincode_parse(bad, &back));
	assert_memory_equal(&back, &before, sizeof back);
}

static void test_wrapping(void **state)
{
	(void)state;
	static const char *const forms[] = {
		" %s", "%s ", "%s\n", "\"%s\"", "%s=", "%s==", "join %s", "%s.", "HANSA1-%s", "hansa1-%s"};
	struct joincode code = sample(), back;
	char text[JOINCODE_TEXT_SIZE], bad[2 * JOINCODE_TEXT_SIZE];
	assert_ok(joincode_format(&code, text));
	for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
		const char *hole = strstr(forms[i], "%s");
		snprintf(bad, sizeof bad, "%.*s%s%s", (int)(hole - forms[i]), forms[i], text, hole + 2);
		assert_err(ERR_MALFORMED, joincode_parse(bad, &back));
	}
	snprintf(bad, sizeof bad, "hansa2-%s", text + 7);
	assert_err(ERR_MALFORMED, joincode_parse(bad, &back));
	snprintf(bad, sizeof bad, "Hansa1-%s", text + 7);
	assert_err(ERR_MALFORMED, joincode_parse(bad, &back));
	assert_err(ERR_MALFORMED, joincode_parse("", &back));
	assert_err(ERR_MALFORMED, joincode_parse("hansa1-", &back));
	assert_err(ERR_MALFORMED, joincode_parse("hansa1-AAAAAAAA", &back));
	/* Oversize: 513 characters, and very many. */
	char *huge = mem_new(1 << 20);
	memset(huge, 'A', (1 << 20) - 1);
	memcpy(huge, "hansa1-", 7);
	assert_err(ERR_MALFORMED, joincode_parse(huge, &back));
	huge[513] = '\0';
	assert_err(ERR_MALFORMED, joincode_parse(huge, &back));
	assert_non_null(strstr(err_text(), "at most 512"));
	huge[512] = '\0';
	assert_err(ERR_MALFORMED, joincode_parse(huge, &back));
	assert_null(strstr(err_text(), "at most 512"));
	free(huge);
}

/* Well sealed, but wrong inside: what somebody could make who knows the format. */
static void test_wrong_inside(void **state)
{
	(void)state;
	static const char uri[] = "spiffe://steel.example/plant/plant-7", address[] = "hansa.example.org:8444";
	static const struct parts cases[] = {
		{0, 1790000000, uri, address, 0, 0, NULL},
		{2, 1790000000, uri, address, 0, 0, NULL},
		{255, 1790000000, uri, address, 0, 0, NULL},
		{1, 253402300800, uri, address, 0, 0, NULL},
		{1, UINT64_MAX, uri, address, 0, 0, NULL},
		{1, UINT64_C(1) << 63, uri, address, 0, 0, NULL},
		{1, 1790000000, "spiffe://steel.example/coordinator", address, 0, 0, NULL},
		{1, 1790000000, "spiffe://steel.example/plant/Plant", address, 0, 0, NULL},
		{1, 1790000000, "https://steel.example/plant/plant-7", address, 0, 0, NULL},
		{1, 1790000000, "spiffe://steel.example/plant/a\0b", address, 32, 0, NULL},
		{1, 1790000000, "", address, 0, 0, NULL},
		{1, 1790000000, uri, "", 0, 0, NULL},
		{1, 1790000000, uri, "hansa.example.org", 0, 0, NULL},
		{1, 1790000000, uri, "hansa.example.org:0", 0, 0, NULL},
		{1, 1790000000, uri, "hansa.example.org:8444\0", 0, 23, NULL},
		{1, 1790000000, uri, "hansa.example.org:8444\0:1", 0, 25, NULL},
		{1, 1790000000, uri, "evil.example/x:1", 0, 0, NULL},
		{1, 1790000000, uri, address, 0, 0, "x"},
	};
	struct joincode back;
	struct raw r;
	char text[2048];
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		assemble(&cases[i], &r);
		seal(&r, text, sizeof text);
		if (joincode_parse(text, &back) != ERR_MALFORMED)
			fail_msg("case %zu parses", i);
	}
	/* Cut anywhere and sealed again: lengths that point beyond the end. */
	assemble(&good_parts, &r);
	for (size_t full = r.n; r.n > 0; r.n--) {
		seal(&r, text, sizeof text);
		assert_err(r.n == full ? ERR_OK : ERR_MALFORMED, joincode_parse(text, &back));
	}
	/* Texts as long as their length byte can say, longer than what may hold them. */
	char longest[256];
	memset(longest, 'a', 255);
	longest[255] = '\0';
	struct parts p = good_parts;
	p.uri = longest;
	assemble(&p, &r);
	seal(&r, text, sizeof text);
	assert_err(ERR_MALFORMED, joincode_parse(text, &back));
	p = good_parts;
	p.address = longest;
	assemble(&p, &r);
	seal(&r, text, sizeof text);
	assert_err(ERR_MALFORMED, joincode_parse(text, &back));
}

static void test_expiry(void **state)
{
	(void)state;
	struct joincode code = sample();
	assert_ok(joincode_check(&code, 0));
	assert_ok(joincode_check(&code, expiry_ms - 1));
	assert_err(ERR_STALE, joincode_check(&code, expiry_ms));
	assert_non_null(strstr(err_text(), "hansactl invite plant-7"));
	assert_err(ERR_STALE, joincode_check(&code, INT64_MAX));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_layout),          cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_format_refuses),  cmocka_unit_test(test_length_limit),
		cmocka_unit_test(test_cut_and_altered), cmocka_unit_test(test_wrapping),
		cmocka_unit_test(test_wrong_inside),    cmocka_unit_test(test_expiry),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
