#include "crypto/random.h"

#include "crypto/fixture.h"

static void test_random(void **state)
{
	(void)state;
	uint8_t a[32] = {0}, b[32] = {0}, zero[32] = {0}, guard[3] = {1, 2, 3};
	random_bytes(a, sizeof a);
	random_bytes(b, sizeof b);
	assert_memory_not_equal(a, b, sizeof a);
	assert_memory_not_equal(a, zero, sizeof a);
	random_bytes(guard + 1, 0);
	assert_memory_equal(guard, ((uint8_t[]){1, 2, 3}), 3);
	/* Every bit is set in one of 128 numbers, and clear in another (fails once in 2^121 runs). */
	uint64_t any = 0, all = UINT64_MAX;
	for (int i = 0; i < 128; i++) {
		uint64_t v = random_u64();
		any |= v;
		all &= v;
	}
	assert_true(any == UINT64_MAX && all == 0);
}

static void test_secrets(void **state)
{
	(void)state;
	uint8_t a[16], b[16];
	random_bytes(a, sizeof a);
	memcpy(b, a, sizeof a);
	assert_true(secret_equal(a, b, sizeof a));
	for (size_t i = 0; i < sizeof a; i++) {
		b[i] ^= 0x80;
		assert_false(secret_equal(a, b, sizeof a));
		b[i] ^= 0x80;
	}
	assert_true(secret_equal(a, b, 0));
	secret_wipe(a, sizeof a);
	assert_memory_equal(a, (uint8_t[16]){0}, sizeof a);
	secret_wipe(NULL, 0);
}

/* RFC 4648 section 10 without padding, and the two characters in which base64url differs from base64. */
static const struct {
	const char *raw, *text;
} vectors[] = {
	{"", ""},           {"f", "Zg"},          {"fo", "Zm8"},          {"foo", "Zm9v"},
	{"foob", "Zm9vYg"}, {"fooba", "Zm9vYmE"}, {"foobar", "Zm9vYmFy"}, {"\xfb\xff\xbf", "-_-_"},
};

static void test_base64url_vectors(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
		char text[16];
		uint8_t raw[16];
		size_t n = 99, raw_n = strlen(vectors[i].raw), text_n = strlen(vectors[i].text);
		assert_ok(base64url_encode(vectors[i].raw, raw_n, text, sizeof text));
		assert_string_equal(text, vectors[i].text);
		assert_ok(base64url_decode(text, text_n, raw, sizeof raw, &n));
		assert_int_equal(n, raw_n);
		assert_memory_equal(raw, vectors[i].raw, n);
		/* Just enough room, and one too few. */
		assert_ok(base64url_encode(vectors[i].raw, raw_n, text, text_n + 1));
		assert_err(ERR_LIMIT, base64url_encode(vectors[i].raw, raw_n, text, text_n));
		assert_ok(base64url_decode(vectors[i].text, text_n, raw, raw_n, &n));
		if (raw_n > 0)
			assert_err(ERR_LIMIT, base64url_decode(vectors[i].text, text_n, raw, raw_n - 1, &n));
	}
}

static void test_base64url_round_trip(void **state)
{
	(void)state;
	uint8_t raw[64], back[64];
	char text[96];
	for (size_t n = 0; n <= sizeof raw; n++) {
		size_t got = 0;
		random_bytes(raw, n);
		assert_ok(base64url_encode(raw, n, text, sizeof text));
		assert_ok(base64url_decode(text, strlen(text), back, sizeof back, &got));
		assert_int_equal(got, n);
		assert_memory_equal(back, raw, n);
	}
}

static void test_base64url_strict(void **state)
{
	(void)state;
	static const char *const bad[] = {
		"Z",    "Zg==", "Zm8=",  "Zh",      "Zm9",       "Zm9v\n", "Zm 9v",   "Zm9v Zm9v",
		"+_-_", "-/-_", "Zm9vY", "Zm9v.Zg", "Z\xc3\xa4", "Zm9vYh", "Zm9vYmF",
	};
	uint8_t raw[16];
	size_t n = 99;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		assert_err(ERR_MALFORMED, base64url_decode(bad[i], strlen(bad[i]), raw, sizeof raw, &n));
		assert_int_equal(n, 99);
	}
	assert_err(ERR_MALFORMED, base64url_decode("Zm\0v", 4, raw, sizeof raw, &n));
}

/* One byte sequence, one text: of all texts of two and three characters each decodes to bytes that encode to it again.
 */
static void test_base64url_canonical(void **state)
{
	(void)state;
	static const char chars[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	char text[8] = {0}, again[8];
	uint8_t raw[8];
	size_t n, good = 0;
	for (size_t i = 0; i < 64 * 64; i++) {
		text[0] = 'A';
		text[1] = chars[i / 64];
		text[2] = chars[i % 64];
		if (base64url_decode(text, 3, raw, sizeof raw, &n) != ERR_OK)
			continue;
		good++;
		assert_ok(base64url_encode(raw, n, again, sizeof again));
		assert_string_equal(text, again);
	}
	assert_int_equal(good, 64 * 16); /* the last character carries four bits */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_secrets),
		cmocka_unit_test(test_base64url_vectors),
		cmocka_unit_test(test_base64url_round_trip),
		cmocka_unit_test(test_base64url_strict),
		cmocka_unit_test(test_base64url_canonical),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
