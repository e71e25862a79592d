#include "crypto/digest.h"

#include "crypto/fixture.h"

/* FIPS 180-4 example messages and the empty one. */
static const struct {
	const char *message, *digest;
} vectors[] = {
	{"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
	{"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
	{"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
	 "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
	{"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqr"
	 "stu",
	 "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
};

static void test_vectors(void **state)
{
	(void)state;
	char text[DIGEST_TEXT_SIZE];
	for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
		struct digest d = digest_of(bytes_str(vectors[i].message));
		assert_string_equal(digest_format(&d, text), vectors[i].digest);
	}
}

static void test_piecewise(void **state)
{
	(void)state;
	char text[DIGEST_TEXT_SIZE];
	char block[1000];
	memset(block, 'a', sizeof block);
	/* One million times "a", in pieces of changing size. */
	struct digester *d = digest_begin();
	size_t left = 1000000;
	for (size_t step = 1; left > 0; step = step % 997 + 1) {
		size_t n = step < left ? step : left;
		digest_add(d, block, n);
		left -= n;
	}
	digest_add(d, NULL, 0);
	struct digest got = digest_end(d);
	assert_string_equal(digest_format(&got, text),
			    "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
	digest_free(digest_begin());
	digest_free(NULL);
}

static void test_text(void **state)
{
	(void)state;
	char text[DIGEST_TEXT_SIZE];
	struct digest d = digest_of(bytes_str("abc")), back, untouched = d;
	assert_ok(digest_parse(vectors[1].digest, &back));
	assert_true(digest_equal(&d, &back));
	static const char *const bad[] = {
		"",
		"ba78",
		"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015a",
		"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad0",
		"ga7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
		" a7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
	};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		assert_err(ERR_MALFORMED, digest_parse(bad[i], &back));
		assert_true(digest_equal(&untouched, &back));
	}
	assert_ptr_equal(digest_format(&d, text), text);
	assert_int_equal(strlen(text), 64);
}

static void test_raw(void **state)
{
	(void)state;
	struct digest d = digest_of(bytes_str("abc")), back;
	uint8_t raw[DIGEST_SIZE + 1] = {0};
	memcpy(raw, d.b, DIGEST_SIZE);
	assert_ok(digest_from(bytes_of(raw, DIGEST_SIZE), &back));
	assert_true(digest_equal(&d, &back));
	assert_err(ERR_MALFORMED, digest_from(bytes_of(raw, DIGEST_SIZE - 1), &back));
	assert_err(ERR_MALFORMED, digest_from(bytes_of(raw, DIGEST_SIZE + 1), &back));
	assert_err(ERR_MALFORMED, digest_from(bytes_of(NULL, 0), &back));
	back.b[31] ^= 1;
	assert_false(digest_equal(&d, &back));
	assert_false(digest_is_zero(&d));
	assert_true(digest_is_zero(&(struct digest){{0}}));
}

static void test_file(void **state)
{
	(void)state;
	static const size_t sizes[] = {0, 1, 4096, 256 * 1024 - 1, 256 * 1024, 256 * 1024 + 1, 600 * 1024};
	struct tempdir dir;
	char path[PATH_SIZE];
	tempdir_make(&dir);
	path_join(path, dir.path, "content");
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		size_t n = sizes[i];
		uint8_t *content = mem_new(n + 1);
		for (size_t j = 0; j < n; j++)
			content[j] = (uint8_t)(j * 7 + j / 251);
		struct digest want = digest_of(bytes_of(content, n)), got;
		uint64_t size = 77;
		assert_ok(file_replace(path, bytes_of(content, n), 0644));
		assert_ok(digest_file(path, &got, &size));
		assert_true(digest_equal(&want, &got));
		assert_int_equal(size, n);
		assert_ok(digest_file(path, &got, NULL));
		free(content);
	}
	struct digest d;
	uint64_t size = 77;
	assert_err(ERR_NOT_FOUND, digest_file(path_join(path, dir.path, "absent"), &d, &size));
	assert_int_equal(size, 77);
	tempdir_remove(&dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vectors), cmocka_unit_test(test_piecewise), cmocka_unit_test(test_text),
		cmocka_unit_test(test_raw),     cmocka_unit_test(test_file),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
