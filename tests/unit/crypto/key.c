#include "crypto/key.h"

#include "crypto/forge.h"

static struct tempdir dir;

static int setup(void **state)
{
	(void)state;
	tempdir_make(&dir);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	tempdir_remove(&dir);
	return 0;
}

static void unhex(const char *text, uint8_t *out, size_t n)
{
	assert_int_equal(hex_decode(text, strlen(text), out, n), 0);
}

/* RFC 8032 section 7.1, tests 1 to 3. */
static const struct {
	const char *seed, *public, *message, *signature;
} rfc8032[] = {
	{"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
	 "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
	 "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
	 "d25bf5f0595bbe24655141438e7a100b"},
	{"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
	 "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
	 "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
	 "387b2eaeb4302aeeb00d291612bb0c00"},
	{"c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
	 "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
	 "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
	 "4a7c15e9716ed28dc027beceea1ec40a"},
};

static void test_ed25519_vectors(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof rfc8032 / sizeof rfc8032[0]; i++) {
		uint8_t seed[32], want_public[32], public[32], want[64], got[KEY_SIGNATURE_MAX], message[8];
		size_t message_n = strlen(rfc8032[i].message) / 2, n = 0;
		struct key *k = NULL, *pub = NULL;
		unhex(rfc8032[i].seed, seed, sizeof seed);
		unhex(rfc8032[i].public, want_public, sizeof want_public);
		unhex(rfc8032[i].signature, want, sizeof want);
		unhex(rfc8032[i].message, message, message_n);
		assert_ok(key_from_seed(seed, &k));
		assert_int_equal(key_kind_of(k), KEY_ED25519);
		key_public_raw(k, public);
		assert_memory_equal(public, want_public, sizeof public);
		assert_ok(key_sign(k, bytes_of(message, message_n), got, &n));
		assert_int_equal(n, 64);
		assert_memory_equal(got, want, 64);
		assert_ok(key_public_from_raw(bytes_of(public, sizeof public), &pub));
		assert_false(key_has_private(pub));
		assert_ok(key_verify(pub, bytes_of(message, message_n), bytes_of(want, sizeof want)));
		if (message_n == 0)
			assert_ok(key_verify(pub, bytes_of(NULL, 0), bytes_of(want, sizeof want)));
		key_free(k);
		key_free(pub);
	}
	struct key *none = NULL;
	uint8_t raw[33] = {0};
	assert_err(ERR_MALFORMED, key_public_from_raw(bytes_of(raw, 31), &none));
	assert_err(ERR_MALFORMED, key_public_from_raw(bytes_of(raw, 33), &none));
	assert_null(none);
}

/* RFC 6979 A.2.5: P-256 with SHA-256, message "sample". */
static void test_p256_vector(void **state)
{
	(void)state;
	uint8_t spki[91], signature[80];
	unhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004"
	      "60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6"
	      "7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299",
	      spki, sizeof spki);
	unhex("3046022100efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716"
	      "022100f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8",
	      signature, 72);
	struct buf pem;
	struct key *k = NULL;
	forge_pem("PUBLIC KEY", spki, sizeof spki, &pem);
	assert_ok(key_public_parse(buf_bytes(&pem), &k));
	assert_int_equal(key_kind_of(k), KEY_P256);
	assert_ok(key_verify(k, bytes_str("sample"), bytes_of(signature, 72)));
	assert_err(ERR_UNAUTHENTIC, key_verify(k, bytes_str("Sample"), bytes_of(signature, 72)));
	struct digest want = digest_of(bytes_of(spki, sizeof spki)), got = key_public_digest(k);
	assert_true(digest_equal(&want, &got));
	key_free(k);
	buf_deinit(&pem);
}

static void check_signatures(enum key_kind kind)
{
	struct key *k = NULL, *other = NULL;
	uint8_t s[KEY_SIGNATURE_MAX];
	size_t n = 0;
	struct bytes message = bytes_str("the message");
	assert_ok(key_generate(kind, &k));
	assert_ok(key_generate(kind, &other));
	assert_ok(key_sign(k, message, s, &n));
	assert_true(n <= KEY_SIGNATURE_MAX);
	assert_ok(key_verify(k, message, bytes_of(s, n)));
	assert_err(ERR_UNAUTHENTIC, key_verify(other, message, bytes_of(s, n)));
	assert_err(ERR_UNAUTHENTIC, key_verify(k, bytes_str("the Message"), bytes_of(s, n)));
	for (size_t cut = 0; cut < n; cut++)
		assert_err(ERR_UNAUTHENTIC, key_verify(k, message, bytes_of(s, cut)));
	for (size_t i = 0; i < n; i++) {
		s[i] ^= 0x10;
		assert_err(ERR_UNAUTHENTIC, key_verify(k, message, bytes_of(s, n)));
		s[i] ^= 0x10;
	}
	uint8_t longer[KEY_SIGNATURE_MAX + 1] = {0};
	memcpy(longer, s, n);
	assert_err(ERR_UNAUTHENTIC, key_verify(k, message, bytes_of(longer, n + 1)));
	/* Nothing is left behind that the next TLS operation of this thread would take for its own failure. */
	assert_int_equal(ERR_peek_error(), 0);
	key_free(k);
	key_free(other);
}

static void test_signatures(void **state)
{
	(void)state;
	check_signatures(KEY_P256);
	check_signatures(KEY_ED25519);
}

static void check_files(enum key_kind kind)
{
	struct key *k = NULL, *back = NULL, *public = NULL;
	char path[PATH_SIZE], public_path[PATH_SIZE];
	struct stat st;
	struct buf pem, pem2;
	uint8_t s[KEY_SIGNATURE_MAX];
	size_t n = 0;
	path_join(path, dir.path, "key.pem");
	path_join(public_path, dir.path, "public.pem");
	assert_ok(key_generate(kind, &k));
	assert_ok(key_save(k, path));
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_ok(key_load(path, &back));
	assert_int_equal(key_kind_of(back), kind);
	assert_true(key_has_private(back));
	assert_ok(key_pem(k, &pem));
	assert_ok(key_pem(back, &pem2));
	assert_string_equal(buf_str(&pem), buf_str(&pem2));
	assert_non_null(strstr(buf_str(&pem), "-----BEGIN PRIVATE KEY-----\n"));
	struct digest a = key_public_digest(k), b = key_public_digest(back);
	assert_true(digest_equal(&a, &b));
	buf_deinit(&pem);
	buf_deinit(&pem2);

	assert_ok(key_public_pem(k, &pem));
	assert_ok(file_replace(public_path, buf_bytes(&pem), 0644));
	assert_ok(key_public_load(public_path, &public));
	assert_int_equal(key_kind_of(public), kind);
	assert_false(key_has_private(public));
	b = key_public_digest(public);
	assert_true(digest_equal(&a, &b));
	assert_ok(key_sign(back, bytes_str("x"), s, &n));
	assert_ok(key_verify(public, bytes_str("x"), bytes_of(s, n)));
	buf_deinit(&pem);
	key_free(k);
	key_free(back);
	key_free(public);
}

static void test_files(void **state)
{
	(void)state;
	check_files(KEY_P256);
	check_files(KEY_ED25519);
	key_free(NULL);
}

static void test_private_file(void **state)
{
	(void)state;
	static const mode_t open_modes[] = {0604, 0640, 0644, 0660, 0602, 0620, 0601};
	struct key *k = NULL, *back = NULL;
	char path[PATH_SIZE];
	path_join(path, dir.path, "shown.pem");
	assert_ok(key_generate(KEY_P256, &k));
	assert_ok(key_save(k, path));
	for (size_t i = 0; i < sizeof open_modes / sizeof open_modes[0]; i++) {
		assert_int_equal(chmod(path, open_modes[i]), 0);
		assert_err(ERR_DENIED, key_load(path, &back));
		assert_null(back);
	}
	assert_int_equal(chmod(path, 0400), 0);
	assert_ok(key_load(path, &back));
	key_free(back);
	back = NULL;
	assert_err(ERR_NOT_FOUND, key_load(path_join(path, dir.path, "absent.pem"), &back));
	assert_err(ERR_DENIED, key_load(dir.path, &back));
	/* A key that others can read comes into the mode it should have when it is saved again. */
	struct stat st;
	path_join(path, dir.path, "shown.pem");
	assert_int_equal(chmod(path, 0644), 0);
	assert_ok(key_save(k, path));
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	key_free(k);
}

static void pkcs8_pem(EVP_PKEY *pkey, const EVP_CIPHER *cipher, struct buf *ret_pem)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *text = NULL;
	char pass[] = "secret";
	assert_int_equal(PEM_write_bio_PKCS8PrivateKey(bio, pkey, cipher, cipher == NULL ? NULL : pass,
						       cipher == NULL ? 0 : 6, NULL, NULL),
			 1);
	long n = BIO_get_mem_data(bio, &text);
	buf_init(ret_pem, 1 << 20);
	assert_ok(buf_append(ret_pem, text, (size_t)n));
	BIO_free(bio);
}

static void public_pem(EVP_PKEY *pkey, struct buf *ret_pem)
{
	unsigned char *der = NULL;
	int n = i2d_PUBKEY(pkey, &der);
	assert_true(n > 0);
	forge_pem("PUBLIC KEY", der, (size_t)n, ret_pem);
	OPENSSL_free(der);
}

static EVP_PKEY *p256_spelt(const char *parameter, const char *value)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
	char group[] = "P-256", spelling[32];
	EVP_PKEY *k = NULL;
	snprintf(spelling, sizeof spelling, "%s", value);
	OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string("group", group, 0),
			       OSSL_PARAM_construct_utf8_string(parameter, spelling, 0), OSSL_PARAM_construct_end()};
	assert_int_equal(EVP_PKEY_keygen_init(ctx), 1);
	assert_int_equal(EVP_PKEY_CTX_set_params(ctx, params), 1);
	assert_int_equal(EVP_PKEY_generate(ctx, &k), 1);
	EVP_PKEY_CTX_free(ctx);
	return k;
}

static void check_refused(EVP_PKEY *pkey)
{
	struct buf pem;
	struct key *k = NULL;
	pkcs8_pem(pkey, NULL, &pem);
	assert_err(ERR_DENIED, key_parse(buf_bytes(&pem), &k));
	buf_deinit(&pem);
	public_pem(pkey, &pem);
	assert_err(ERR_DENIED, key_public_parse(buf_bytes(&pem), &k));
	buf_deinit(&pem);
	assert_null(k);
	assert_int_equal(ERR_peek_error(), 0);
	EVP_PKEY_free(pkey);
}

static void test_foreign_kinds(void **state)
{
	(void)state;
	check_refused(forge_key("RSA-2048"));
	check_refused(forge_key("P-384"));
	check_refused(forge_key("P-224"));
	check_refused(forge_key("X25519"));
	check_refused(forge_key("ED448"));
	/* P-256, but with a second spelling of the same key. */
	check_refused(p256_spelt("encoding", "explicit"));
}

static void test_compressed_point(void **state)
{
	(void)state;
	/* The key of RFC 6979 A.2.5 with its point compressed: 03 and X. And in the hybrid form: 07, X, Y. */
	uint8_t compressed[59], hybrid[91];
	struct buf pem;
	struct key *k = NULL;
	unhex("3039301306072a8648ce3d020106082a8648ce3d03010703220003"
	      "60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6",
	      compressed, sizeof compressed);
	unhex("3059301306072a8648ce3d020106082a8648ce3d03010703420007"
	      "60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6"
	      "7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299",
	      hybrid, sizeof hybrid);
	forge_pem("PUBLIC KEY", compressed, sizeof compressed, &pem);
	assert_err(ERR_DENIED, key_public_parse(buf_bytes(&pem), &k));
	buf_deinit(&pem);
	forge_pem("PUBLIC KEY", hybrid, sizeof hybrid, &pem);
	assert_err(ERR_DENIED, key_public_parse(buf_bytes(&pem), &k));
	buf_deinit(&pem);
	/* A point that is not on the curve. */
	hybrid[26] = 4;
	hybrid[90] ^= 1;
	forge_pem("PUBLIC KEY", hybrid, sizeof hybrid, &pem);
	assert_err(ERR_MALFORMED, key_public_parse(buf_bytes(&pem), &k));
	buf_deinit(&pem);
	assert_null(k);
}

static void test_malformed(void **state)
{
	(void)state;
	struct key *k = NULL, *none = NULL;
	struct buf pem, public, encrypted;
	EVP_PKEY *pkey = forge_key("P-256");
	assert_ok(key_generate(KEY_P256, &k));
	assert_ok(key_pem(k, &pem));
	assert_ok(key_public_pem(k, &public));
	pkcs8_pem(pkey, EVP_aes_128_cbc(), &encrypted);
	EVP_PKEY_free(pkey);

	assert_err(ERR_MALFORMED, key_parse(bytes_of(NULL, 0), &none));
	assert_err(ERR_MALFORMED, key_parse(bytes_str("no key"), &none));
	assert_err(ERR_MALFORMED, key_parse(buf_bytes(&public), &none));
	assert_err(ERR_MALFORMED, key_public_parse(buf_bytes(&pem), &none));
	assert_err(ERR_MALFORMED, key_parse(buf_bytes(&encrypted), &none));
	for (size_t cut = 0; cut + 2 < pem.n; cut += 7)
		assert_err(ERR_MALFORMED, key_parse(bytes_of(pem.p, cut), &none));
	for (size_t cut = 0; cut + 2 < public.n; cut += 7)
		assert_err(ERR_MALFORMED, key_public_parse(bytes_of(public.p, cut), &none));
	uint8_t *huge = mem_new(OSSL_PEM_MAX + 1);
	memset(huge, '\n', OSSL_PEM_MAX + 1);
	assert_err(ERR_LIMIT, key_parse(bytes_of(huge, OSSL_PEM_MAX + 1), &none));
	assert_err(ERR_MALFORMED, key_parse(bytes_of(huge, OSSL_PEM_MAX), &none));
	free(huge);

	/* Old style ("Proc-Type") encryption of the block must not ask for a password. */
	assert_err(ERR_MALFORMED, key_parse(bytes_str("-----BEGIN PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n"
						      "DEK-Info: AES-128-CBC,00112233445566778899AABBCCDDEEFF\n\nAAAA\n"
						      "-----END PRIVATE KEY-----\n"),
					    &none));
	/* A good block with a header in it. */
	struct buf headed;
	const char *body = strchr(buf_str(&public), '\n') + 1;
	buf_init(&headed, 4096);
	assert_ok(buf_printf(&headed, "-----BEGIN PUBLIC KEY-----\nComment: hello\n\n%s", body));
	assert_err(ERR_MALFORMED, key_public_parse(buf_bytes(&headed), &none));
	assert_non_null(strstr(err_text(), "headers"));
	buf_deinit(&headed);
	assert_null(none);
	assert_int_equal(ERR_peek_error(), 0);
	buf_deinit(&pem);
	buf_deinit(&public);
	buf_deinit(&encrypted);
	key_free(k);
}

static void test_der_tail_and_mismatch(void **state)
{
	(void)state;
	struct key *k = NULL, *other = NULL, *none = NULL;
	struct buf pem, pem2, spoilt;
	size_t n = 0, n2 = 0;
	assert_ok(key_generate(KEY_P256, &k));
	assert_ok(key_generate(KEY_P256, &other));
	assert_ok(key_pem(k, &pem));
	assert_ok(key_pem(other, &pem2));
	unsigned char *der = forge_der(&pem, &n), *der2 = forge_der(&pem2, &n2);
	assert_int_equal(n, n2);

	uint8_t *longer = mem_new(n + 1);
	memcpy(longer, der, n);
	forge_pem("PRIVATE KEY", longer, n + 1, &spoilt);
	assert_err(ERR_MALFORMED, key_parse(buf_bytes(&spoilt), &none));
	buf_deinit(&spoilt);

	/* The private half of one with the public half (the last 64 bytes) of the other. */
	memcpy(longer + n - 64, der2 + n - 64, 64);
	forge_pem("PRIVATE KEY", longer, n, &spoilt);
	assert_err(ERR_MALFORMED, key_parse(buf_bytes(&spoilt), &none));
	buf_deinit(&spoilt);
	assert_null(none);

	free(longer);
	OPENSSL_free(der);
	OPENSSL_free(der2);
	buf_deinit(&pem);
	buf_deinit(&pem2);
	key_free(k);
	key_free(other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ed25519_vectors),
		cmocka_unit_test(test_p256_vector),
		cmocka_unit_test(test_signatures),
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_private_file),
		cmocka_unit_test(test_foreign_kinds),
		cmocka_unit_test(test_compressed_point),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_der_tail_and_mismatch),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
