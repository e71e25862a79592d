#include "crypto/cert.h"

#include "crypto/forge.h"

#define ONE                                                                                                            \
	{                                                                                                              \
		GEN_URI, "spiffe://example.org/plant/a", 0                                                             \
	}

static const struct forge_name one[] = {ONE, {0}};

struct forge_csr {
	const char *key_type;                    /* forge_key() */
	const struct forge_name *names, *names2; /* one subjectAltName extension each */
	const EVP_MD *md;
	bool no_extensions, microsoft;
	enum { SECOND_NONE, SECOND_VALUE, SECOND_ATTRIBUTE } second_list;
};

static void add_san(STACK_OF(X509_EXTENSION) * *list, const struct forge_name *names)
{
	GENERAL_NAMES *g = forge_names(names);
	assert_int_equal(X509V3_add1_i2d(list, NID_subject_alt_name, g, 0, X509V3_ADD_APPEND), 1);
	GENERAL_NAMES_free(g);
}

/*
 * The extension request once more: as a second value of the attribute, or as a second attribute. OpenSSL writes
 * neither, so the second attribute is added as its neighbour in the tree of object identifiers (...9.15) and renamed
 * (...9.14) in the DER.
 */
static void add_second_list(X509_REQ **req, STACK_OF(X509_EXTENSION) * list, int how)
{
	static const uint8_t neighbour[] = {0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0f};
	unsigned char *ext = NULL, *der = NULL;
	int ext_n = ASN1_item_i2d((ASN1_VALUE *)list, &ext, ASN1_ITEM_rptr(X509_EXTENSIONS));
	assert_true(ext_n > 0);
	if (how == SECOND_VALUE) {
		X509_ATTRIBUTE *a = X509_REQ_get_attr(*req, X509_REQ_get_attr_by_NID(*req, NID_ext_req, -1));
		assert_int_equal(X509_ATTRIBUTE_set1_data(a, V_ASN1_SEQUENCE, ext, ext_n), 1);
		assert_int_equal(X509_ATTRIBUTE_count(a), 2);
	} else {
		assert_int_equal(X509_REQ_add1_attr_by_NID(*req, NID_SMIMECapabilities, V_ASN1_SEQUENCE, ext, ext_n),
				 1);
		i2d_re_X509_REQ_tbs(*req, NULL); /* forget the encoding that was signed */
		int n = i2d_X509_REQ(*req, &der);
		assert_true(n > 0);
		uint8_t *at = memmem(der, (size_t)n, neighbour, sizeof neighbour);
		assert_non_null(at);
		at[sizeof neighbour - 1] = 0x0e;
		const unsigned char *p = der;
		X509_REQ_free(*req);
		*req = d2i_X509_REQ(NULL, &p, n);
		assert_non_null(*req);
		assert_int_equal(X509_REQ_get_attr_count(*req), 2);
	}
	OPENSSL_free(ext);
	OPENSSL_free(der);
}

static enum err parse_forged(const struct forge_csr *f, struct identity *ret_id, struct key **ret_key)
{
	EVP_PKEY *k = forge_key(f->key_type);
	X509_REQ *req = X509_REQ_new();
	STACK_OF(X509_EXTENSION) *list = NULL;
	unsigned char *der = NULL;
	struct buf pem;
	const EVP_MD *md = strcmp(f->key_type, "ED25519") == 0 ? NULL : f->md == NULL ? EVP_sha256() : f->md;
	assert_int_equal(X509_REQ_set_pubkey(req, k), 1);
	if (f->names != NULL)
		add_san(&list, f->names);
	if (f->names2 != NULL)
		add_san(&list, f->names2);
	if (list == NULL) { /* a list, but of something else */
		list = sk_X509_EXTENSION_new_null();
		sk_X509_EXTENSION_push(list, X509V3_EXT_conf_nid(NULL, NULL, NID_key_usage, "digitalSignature"));
	}
	if (!f->no_extensions)
		assert_int_equal(X509_REQ_add_extensions_nid(req, list, f->microsoft ? NID_ms_ext_req : NID_ext_req),
				 1);
	assert_true(X509_REQ_sign(req, k, md) > 0);
	if (f->second_list != SECOND_NONE) {
		add_second_list(&req, list, f->second_list);
		assert_true(X509_REQ_sign(req, k, md) > 0);
	}
	int n = i2d_X509_REQ(req, &der);
	forge_pem("CERTIFICATE REQUEST", der, (size_t)n, &pem);
	enum err e = csr_parse(buf_bytes(&pem), ret_id, ret_key);
	assert_int_equal(ERR_peek_error(), 0);
	buf_deinit(&pem);
	OPENSSL_free(der);
	sk_X509_EXTENSION_pop_free(list, X509_EXTENSION_free);
	X509_REQ_free(req);
	EVP_PKEY_free(k);
	return e;
}

static void test_round_trip(void **state)
{
	(void)state;
	struct key *k = NULL, *public = NULL;
	assert_ok(key_generate(KEY_P256, &k));
	const struct identity ids[] = {identity_of(ROLE_PLANT, "example.org", "a"),
				       identity_of(ROLE_COORDINATOR, "example.org", NULL)};
	for (size_t i = 0; i < 2; i++) {
		struct identity got;
		struct buf pem;
		assert_ok(csr_make(k, &ids[i], &pem));
		assert_int_equal(strncmp(buf_str(&pem), "-----BEGIN CERTIFICATE REQUEST-----\n", 36), 0);
		assert_null(strstr(buf_str(&pem), "PRIVATE"));
		assert_ok(csr_parse(buf_bytes(&pem), &got, &public));
		assert_true(identity_equal(&ids[i], &got));
		assert_false(key_has_private(public));
		struct digest a = key_public_digest(k), b = key_public_digest(public);
		assert_true(digest_equal(&a, &b));
		key_free(public);
		buf_deinit(&pem);
	}
	key_free(k);
}

static void test_make_refuses(void **state)
{
	(void)state;
	struct key *ed = NULL;
	struct buf pem;
	struct identity id = identity_of(ROLE_PLANT, "f", "a");
	assert_ok(key_generate(KEY_ED25519, &ed));
	assert_err(ERR_DENIED, csr_make(ed, &id, &pem));
	key_free(ed);
}

static void test_key_kinds(void **state)
{
	(void)state;
	static const char *const refused[] = {"RSA-1024", "RSA-2048", "P-224", "P-384", "P-521", "ED25519"};
	struct identity id;
	struct key *k = NULL;
	for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
		if (parse_forged(&(struct forge_csr){.key_type = refused[i], .names = one}, &id, &k) != ERR_DENIED)
			fail_msg("%s is accepted", refused[i]);
	}
	assert_err(ERR_DENIED,
		   parse_forged(&(struct forge_csr){.key_type = "P-256", .names = one, .md = EVP_sha1()}, &id, &k));
	assert_null(k);
	assert_ok(parse_forged(&(struct forge_csr){.key_type = "P-256", .names = one}, &id, &k));
	key_free(k);
	assert_ok(parse_forged(&(struct forge_csr){.key_type = "P-256", .names = one, .md = EVP_sha384()}, &id, &k));
	key_free(k);
}

static void test_identities(void **state)
{
	(void)state;
	static const struct forge_name two[] = {ONE, {GEN_URI, "spiffe://example.org/plant/b", 0}, {0}}, none[] = {{0}},
				       foreign[] = {{GEN_URI, "https://example.org/plant/a", 0}, {0}},
				       upper[] = {{GEN_URI, "spiffe://example.org/plant/Upper", 0}, {0}},
				       zero[] = {{GEN_URI, "spiffe://example.org/plant/a\0b", 30}, {0}},
				       dns[] = {{GEN_DNS, "a.example", 0}, {0}};
	const struct forge_csr cases[] = {
		{.names = two},
		{.names = none},
		{.names = foreign},
		{.names = upper},
		{.names = zero},
		{.names = dns},
		{.names = NULL},
		{.names = one, .no_extensions = true},
		{.names = one, .names2 = one},
		{.names = one, .microsoft = true},
		{.names = one, .second_list = SECOND_VALUE},
		{.names = one, .second_list = SECOND_ATTRIBUTE},
		{.names = one, .microsoft = true},
	};
	struct identity id;
	struct key *k = NULL;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct forge_csr f = cases[i];
		f.key_type = "P-256";
		if (parse_forged(&f, &id, &k) != ERR_UNAUTHENTIC)
			fail_msg("case %zu has an identity", i);
		assert_null(k);
	}
}

/* Property: a request that differs in one bit is not accepted. */
static void test_altered(void **state)
{
	(void)state;
	struct key *k = NULL, *none = NULL;
	struct identity id = identity_of(ROLE_PLANT, "example.org", "a"), got;
	struct buf pem, spoilt;
	size_t n = 0;
	assert_ok(key_generate(KEY_P256, &k));
	assert_ok(csr_make(k, &id, &pem));
	unsigned char *der = forge_der(&pem, &n);
	for (size_t i = 0; i < n; i++) {
		uint8_t bit = (uint8_t)(1u << i % 8);
		der[i] ^= bit;
		forge_pem("CERTIFICATE REQUEST", der, n, &spoilt);
		enum err e = csr_parse(buf_bytes(&spoilt), &got, &none);
		if (e != ERR_MALFORMED && e != ERR_DENIED)
			fail_msg("bit %u of byte %zu: %s", bit, i, err_name(e));
		assert_null(none);
		buf_deinit(&spoilt);
		der[i] ^= bit;
	}
	for (size_t cut = 1; cut < n; cut += 3) {
		forge_pem("CERTIFICATE REQUEST", der, cut, &spoilt);
		assert_err(ERR_MALFORMED, csr_parse(buf_bytes(&spoilt), &got, &none));
		buf_deinit(&spoilt);
	}
	for (size_t cut = 0; cut + 2 < pem.n; cut += 7)
		assert_err(ERR_MALFORMED, csr_parse(bytes_of(pem.p, cut), &got, &none));
	uint8_t *longer = mem_new(n + 1);
	memcpy(longer, der, n);
	forge_pem("CERTIFICATE REQUEST", longer, n + 1, &spoilt);
	assert_err(ERR_MALFORMED, csr_parse(buf_bytes(&spoilt), &got, &none));
	buf_deinit(&spoilt);
	forge_pem("NEW CERTIFICATE REQUEST", der, n, &spoilt);
	assert_err(ERR_MALFORMED, csr_parse(buf_bytes(&spoilt), &got, &none));
	buf_deinit(&spoilt);
	free(longer);
	OPENSSL_free(der);
	buf_deinit(&pem);
	key_free(k);
}

/* The signature of one key over the request of another. */
static void test_foreign_signature(void **state)
{
	(void)state;
	struct key *none = NULL;
	struct identity id;
	EVP_PKEY *mine = forge_key("P-256"), *theirs = forge_key("P-256");
	X509_REQ *req = X509_REQ_new();
	STACK_OF(X509_EXTENSION) *list = NULL;
	unsigned char *der = NULL;
	struct buf pem;
	add_san(&list, one);
	assert_int_equal(X509_REQ_set_pubkey(req, theirs), 1);
	assert_int_equal(X509_REQ_add_extensions(req, list), 1);
	assert_true(X509_REQ_sign(req, mine, EVP_sha256()) > 0);
	int n = i2d_X509_REQ(req, &der);
	forge_pem("CERTIFICATE REQUEST", der, (size_t)n, &pem);
	assert_err(ERR_MALFORMED, csr_parse(buf_bytes(&pem), &id, &none));
	assert_null(none);
	buf_deinit(&pem);
	OPENSSL_free(der);
	sk_X509_EXTENSION_pop_free(list, X509_EXTENSION_free);
	X509_REQ_free(req);
	EVP_PKEY_free(mine);
	EVP_PKEY_free(theirs);
}

static void test_limit(void **state)
{
	(void)state;
	struct identity id;
	struct key *none = NULL;
	uint8_t *huge = mem_new(OSSL_PEM_MAX + 1);
	memset(huge, '\n', OSSL_PEM_MAX + 1);
	assert_err(ERR_LIMIT, csr_parse(bytes_of(huge, OSSL_PEM_MAX + 1), &id, &none));
	assert_err(ERR_MALFORMED, csr_parse(bytes_of(huge, OSSL_PEM_MAX), &id, &none));
	free(huge);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip), cmocka_unit_test(test_make_refuses),
		cmocka_unit_test(test_key_kinds),  cmocka_unit_test(test_identities),
		cmocka_unit_test(test_altered),    cmocka_unit_test(test_foreign_signature),
		cmocka_unit_test(test_limit),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
