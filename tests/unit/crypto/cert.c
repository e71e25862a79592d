#include "crypto/cert.h"

#include "crypto/forge.h"

enum { YEAR_DAYS = 365 };

static const int64_t now = FIXTURE_NOW_MS;
static struct authority ca, other_ca; /* of the same federation name, but another key */
static struct key *leaf_key;

static int setup(void **state)
{
	(void)state;
	authority_make(&ca, "example.org", now);
	authority_make(&other_ca, "example.org", now);
	assert_ok(key_generate(KEY_P256, &leaf_key));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	authority_free(&ca);
	authority_free(&other_ca);
	key_free(leaf_key);
	return 0;
}

static struct cert *issue(enum role role, const char *name, const char *const *hosts, int64_t from_ms, int64_t to_ms)
{
	struct cert *c = NULL;
	struct identity id = identity_of(role, "example.org", name);
	assert_ok(cert_issue(ca.cert, ca.key, leaf_key, &id, hosts, from_ms, to_ms, &c));
	return c;
}

static struct cert *issue_plant(void)
{
	return issue(ROLE_PLANT, "plant-1", NULL, now - DAY_MS, now + DAY_MS);
}

static bool is_critical(X509 *x, int nid)
{
	int at = X509_get_ext_by_NID(x, nid, -1);
	assert_true(at >= 0);
	assert_int_equal(X509_get_ext_by_NID(x, nid, at), -1);
	return X509_EXTENSION_get_critical(X509_get_ext(x, at)) == 1;
}

static void assert_subject(X509 *x, const char *want)
{
	char *got = X509_NAME_oneline(X509_get_subject_name(x), NULL, 0);
	assert_string_equal(got, want);
	OPENSSL_free(got);
}

static void test_make_ca(void **state)
{
	(void)state;
	X509 *x = ca.cert->x509;
	char federation[IDENTITY_PART_SIZE], serial[64];
	struct identity id;
	assert_int_equal(X509_get_version(x), 2);
	assert_int_equal(X509_check_ca(x), 1);
	assert_int_equal(X509_get_pathlen(x), 0);
	assert_true(is_critical(x, NID_basic_constraints));
	assert_true(is_critical(x, NID_key_usage));
	assert_int_equal(X509_get_key_usage(x), KU_KEY_CERT_SIGN | KU_CRL_SIGN);
	assert_non_null(X509_get0_subject_key_id(x));
	assert_int_equal(X509_get_signature_nid(x), NID_ecdsa_with_SHA256);
	assert_int_equal(cert_not_before_ms(ca.cert), now - 10 * DAY_MS);
	assert_int_equal(cert_not_after_ms(ca.cert), now + 3650 * DAY_MS);
	assert_subject(x, "/O=Hansa CA/CN=example.org");
	assert_ok(cert_ca_federation(ca.cert, federation));
	assert_string_equal(federation, "example.org");
	assert_ok(cert_serial(ca.cert, serial, sizeof serial));
	assert_ok(cert_verify(ca.cert, ca.cert, now));
	assert_err(ERR_UNAUTHENTIC, cert_identity(ca.cert, &id));
	struct digest a = key_public_digest(ca.key), b = cert_key_digest(ca.cert);
	assert_true(digest_equal(&a, &b));
}

static void test_make_ca_refuses(void **state)
{
	(void)state;
	struct key *ed = NULL;
	struct cert *none = NULL;
	assert_ok(key_generate(KEY_ED25519, &ed));
	assert_err(ERR_DENIED, cert_make_ca(ed, "example.org", now, now + DAY_MS, &none));
	assert_err(ERR_MALFORMED, cert_make_ca(ca.key, "Example", now, now + DAY_MS, &none));
	assert_err(ERR_MALFORMED, cert_make_ca(ca.key, "", now, now + DAY_MS, &none));
	assert_null(none);
	key_free(ed);
	/* The longest federation that an identity can have. */
	char federation[IDENTITY_PART_SIZE],
		longest[] = "a123456789b123456789c123456789d123456789e123456789f123456789abc";
	struct cert *c = NULL;
	assert_int_equal(strlen(longest), IDENTITY_PART_SIZE - 1);
	assert_ok(cert_make_ca(ca.key, longest, now, now + DAY_MS, &c));
	assert_ok(cert_ca_federation(c, federation));
	assert_string_equal(federation, longest);
	cert_free(c);
}

static void test_issue_client(void **state)
{
	(void)state;
	static const struct {
		enum role role;
		const char *name, *subject;
	} cases[] = {
		{ROLE_PLANT, "plant-1", "/CN=plant-1"},
		{ROLE_OPERATOR, "olga", "/CN=olga"},
		{ROLE_AUDITOR, "aud", "/CN=aud"},
		{ROLE_LAB, "lab-0", "/CN=lab-0"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct identity want = identity_of(cases[i].role, "example.org", cases[i].name), got;
		struct cert *c = issue(cases[i].role, cases[i].name, NULL, now - DAY_MS, now + DAY_MS);
		assert_ok(cert_identity(c, &got));
		assert_true(identity_equal(&want, &got));
		assert_ok(cert_verify(c, ca.cert, now));
		assert_int_equal(X509_get_version(c->x509), 2);
		assert_int_equal(X509_check_ca(c->x509), 0);
		assert_true(is_critical(c->x509, NID_basic_constraints));
		assert_true(is_critical(c->x509, NID_key_usage));
		assert_int_equal(X509_get_key_usage(c->x509), KU_DIGITAL_SIGNATURE);
		assert_int_equal(X509_get_extended_key_usage(c->x509), XKU_SSL_CLIENT);
		assert_int_equal(X509_get_signature_nid(c->x509), NID_ecdsa_with_SHA256);
		assert_int_equal(ASN1_OCTET_STRING_cmp(X509_get0_authority_key_id(c->x509),
						       X509_get0_subject_key_id(ca.cert->x509)),
				 0);
		assert_non_null(X509_get0_subject_key_id(c->x509));
		assert_subject(c->x509, cases[i].subject);
		struct digest a = key_public_digest(leaf_key), b = cert_key_digest(c);
		assert_true(digest_equal(&a, &b));
		cert_free(c);
	}
}

static void test_issue_server(void **state)
{
	(void)state;
	static const char *const hosts[] = {"hansa.example.org", "10.1.2.3", "2001:db8::7", "localhost", NULL};
	struct cert *c = issue(ROLE_COORDINATOR, NULL, hosts, now, now + YEAR_DAYS * DAY_MS);
	struct identity id;
	X509 *x = c->x509;
	assert_ok(cert_identity(c, &id));
	assert_int_equal(id.role, ROLE_COORDINATOR);
	assert_int_equal(X509_get_extended_key_usage(x), XKU_SSL_SERVER | XKU_SSL_CLIENT);
	assert_subject(x, "/CN=coordinator");
	assert_int_equal(X509_check_host(x, "hansa.example.org", 0, 0, NULL), 1);
	assert_int_equal(X509_check_host(x, "localhost", 0, 0, NULL), 1);
	assert_int_equal(X509_check_host(x, "example.org", 0, 0, NULL), 0);
	assert_int_equal(X509_check_host(x, "10.1.2.3", 0, 0, NULL), 0); /* an IP address is no DNS name */
	assert_int_equal(X509_check_ip_asc(x, "10.1.2.3", 0), 1);
	assert_int_equal(X509_check_ip_asc(x, "2001:db8:0::7", 0), 1);
	assert_int_equal(X509_check_ip_asc(x, "10.1.2.4", 0), 0);
	cert_free(c);
}

static void test_issue_refuses(void **state)
{
	(void)state;
	static const char *const bad_hosts[] = {"*.example.org", "a b",    "",        "host:80",
						"[::1]",         "10.0.0", "a,DNS:b", NULL};
	struct identity id = identity_of(ROLE_COORDINATOR, "example.org", NULL);
	struct key *ed = NULL;
	struct cert *c = NULL;
	for (size_t i = 0; bad_hosts[i] != NULL; i++) {
		const char *hosts[] = {"good.example", bad_hosts[i], NULL};
		assert_err(ERR_MALFORMED, cert_issue(ca.cert, ca.key, leaf_key, &id, hosts, now, now + DAY_MS, &c));
	}
	const char *many[CERT_HOSTS_MAX + 2] = {NULL};
	for (size_t i = 0; i <= CERT_HOSTS_MAX; i++)
		many[i] = "h.example";
	assert_err(ERR_LIMIT, cert_issue(ca.cert, ca.key, leaf_key, &id, many, now, now + DAY_MS, &c));
	assert_ok(key_generate(KEY_ED25519, &ed));
	assert_err(ERR_DENIED, cert_issue(ca.cert, ca.key, ed, &id, NULL, now, now + DAY_MS, &c));
	assert_err(ERR_DENIED, cert_issue(ca.cert, ed, leaf_key, &id, NULL, now, now + DAY_MS, &c));
	assert_err(ERR_STATE, cert_issue(ca.cert, other_ca.key, leaf_key, &id, NULL, now, now + DAY_MS, &c));
	assert_null(c);
	many[CERT_HOSTS_MAX] = NULL;
	assert_ok(cert_issue(ca.cert, ca.key, leaf_key, &id, many, now, now + DAY_MS, &c));
	cert_free(c);
	key_free(ed);
}

static void test_serials(void **state)
{
	(void)state;
	char text[33], seen[20][33], small[8];
	for (size_t i = 0; i < 20; i++) {
		struct cert *c = issue_plant();
		const ASN1_INTEGER *n = X509_get0_serialNumber(c->x509);
		assert_int_equal(ASN1_STRING_type(n), V_ASN1_INTEGER); /* positive */
		assert_true(ASN1_STRING_length(n) <= 16 && ASN1_STRING_length(n) >= 12);
		assert_ok(cert_serial(c, text, sizeof text));
		assert_int_equal(strspn(text, "0123456789abcdef"), strlen(text));
		for (size_t j = 0; j < i; j++)
			assert_string_not_equal(text, seen[j]);
		strcpy(seen[i], text);
		assert_err(ERR_LIMIT, cert_serial(c, small, sizeof small));
		cert_free(c);
	}
}

/* What cert_identity() says of a certificate with these names. */
static enum err identity_with(const struct forge_name *names, const struct forge_name *names2, struct identity *ret_id)
{
	EVP_PKEY *k = forge_key("P-256");
	X509 *x = forge_x509(&(struct forge_cert){.key = k, .names = names, .names2 = names2});
	struct cert *c = forge_take(x);
	enum err e = cert_identity(c, ret_id);
	assert_int_equal(ERR_peek_error(), 0);
	cert_free(c);
	X509_free(x);
	EVP_PKEY_free(k);
	return e;
}

#define ONE                                                                                                            \
	{                                                                                                              \
		GEN_URI, "spiffe://example.org/plant/a", 0                                                             \
	}

static void test_identity_negative(void **state)
{
	(void)state;
	static const struct forge_name cases[][4] = {
		{{0}},
		{{GEN_DNS, "plant-a.example", 0}},
		{{GEN_EMAIL, "spiffe://example.org/plant/a", 0}},
		{{GEN_DNS, "spiffe://example.org/plant/a", 0}},
		{ONE, {GEN_URI, "spiffe://example.org/plant/b", 0}},
		{ONE, ONE},
		{ONE, {GEN_URI, "https://example.org/", 0}},
		{{GEN_URI, "https://example.org/plant/a", 0}},
		{{GEN_URI, "spiffe://example.org/plant/A", 0}},
		{{GEN_URI, "SPIFFE://example.org/plant/a", 0}},
		{{GEN_URI, "spiffe://example.org/plant/a\0", 29}},
		{{GEN_URI, "spiffe://example.org/plant/a\0.evil", 34}},
		{{GEN_URI, "spiffe://example.org/plant/a ", 0}},
		{{GEN_URI, "spiffe://example.org", 0}},
		{{GEN_URI, "", 0}},
	};
	struct identity id, before;
	memset(&id, 0x5a, sizeof id);
	before = id;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		if (identity_with(cases[i], NULL, &id) != ERR_UNAUTHENTIC)
			fail_msg("case %zu has an identity", i);
	}
	/* No subjectAltName at all; and two extensions of it with one URI each, or one URI together. */
	static const struct forge_name one[] = {ONE, {0}}, dns[] = {{GEN_DNS, "a.example", 0}, {0}};
	assert_err(ERR_UNAUTHENTIC, identity_with(NULL, NULL, &id));
	assert_err(ERR_UNAUTHENTIC, identity_with(one, one, &id));
	assert_err(ERR_UNAUTHENTIC, identity_with(one, dns, &id));
	assert_memory_equal(&id, &before, sizeof id);
	assert_ok(identity_with(one, NULL, &id));
	static const struct forge_name beside[] = {{GEN_DNS, "a.example", 0}, ONE, {GEN_DNS, "b.example", 0}, {0}};
	assert_ok(identity_with(beside, NULL, &id));
	assert_string_equal(id.name, "a");
}

/* Only a CA with our subject tells a federation: not a leaf that calls itself so, nor a CA with another name. */
static void test_federation_negative(void **state)
{
	(void)state;
	char federation[IDENTITY_PART_SIZE] = "untouched";
	EVP_PKEY *k = forge_key("P-256");
	const struct forge_cert cases[] = {
		{.key = k, .organisation = "Hansa CA"},                /* CN "leaf" could be a federation */
		{.key = k, .is_ca = true, .organisation = "Hansa CA"}, /* CN "Root" could not */
		{.key = k, .is_ca = true, .organisation = "Hansa CA "},
		{.key = k, .is_ca = true},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		X509 *x = forge_x509(&cases[i]);
		struct cert *c = forge_take(x);
		assert_err(ERR_MALFORMED, cert_ca_federation(c, federation));
		assert_string_equal(federation, "untouched");
		cert_free(c);
		X509_free(x);
	}
	EVP_PKEY_free(k);
}

static void test_pem_and_chain(void **state)
{
	(void)state;
	struct cert *c = issue_plant(), *back = NULL;
	struct buf pem, ca_pem;
	assert_ok(cert_pem(c, &pem));
	assert_ok(cert_pem(ca.cert, &ca_pem));
	assert_ok(buf_append(&pem, ca_pem.p, ca_pem.n));
	assert_ok(cert_parse(buf_bytes(&pem), &back));
	struct digest a = cert_fingerprint(c), b = cert_fingerprint(back), other = cert_fingerprint(ca.cert);
	assert_true(digest_equal(&a, &b));
	assert_false(digest_equal(&a, &other));
	size_t n = 0;
	unsigned char *der = forge_der(&pem, &n);
	struct digest of_der = digest_of(bytes_of(der, n));
	assert_true(digest_equal(&a, &of_der));
	OPENSSL_free(der);
	buf_deinit(&pem);
	buf_deinit(&ca_pem);
	cert_free(c);
	cert_free(back);
	cert_free(NULL);
}

static void test_load(void **state)
{
	(void)state;
	struct tempdir dir;
	char path[PATH_SIZE];
	struct cert *c = NULL;
	struct buf pem;
	tempdir_make(&dir);
	path_join(path, dir.path, "cert.pem");
	assert_err(ERR_NOT_FOUND, cert_load(path, &c));
	assert_ok(file_replace(path, bytes_str("nonsense"), 0644));
	assert_err(ERR_MALFORMED, cert_load(path, &c));
	assert_non_null(strstr(err_text(), path));
	assert_null(c);
	assert_ok(cert_pem(ca.cert, &pem));
	assert_ok(file_replace(path, buf_bytes(&pem), 0644));
	assert_ok(cert_load(path, &c));
	struct digest a = cert_fingerprint(c), b = cert_fingerprint(ca.cert);
	assert_true(digest_equal(&a, &b));
	uint8_t *huge = mem_new(OSSL_PEM_MAX + 1);
	memset(huge, '\n', OSSL_PEM_MAX + 1);
	assert_ok(file_replace(path, bytes_of(huge, OSSL_PEM_MAX + 1), 0644));
	struct cert *none = NULL;
	assert_err(ERR_LIMIT, cert_load(path, &none));
	assert_err(ERR_LIMIT, cert_parse(bytes_of(huge, OSSL_PEM_MAX + 1), &none));
	free(huge);
	cert_free(c);
	buf_deinit(&pem);
	tempdir_remove(&dir);
}

static enum err parse_der(const char *label, const uint8_t *der, size_t n, struct cert **ret_cert)
{
	struct buf pem;
	forge_pem(label, der, n, &pem);
	enum err e = cert_parse(buf_bytes(&pem), ret_cert);
	buf_deinit(&pem);
	return e;
}

static void test_malformed(void **state)
{
	(void)state;
	struct cert *c = issue_plant(), *none = NULL;
	struct buf pem;
	size_t n = 0;
	assert_ok(cert_pem(c, &pem));
	unsigned char *der = forge_der(&pem, &n);
	for (size_t cut = 0; cut + 2 < pem.n; cut += 11)
		assert_err(ERR_MALFORMED, cert_parse(bytes_of(pem.p, cut), &none));
	for (size_t cut = 1; cut < n; cut += 5)
		assert_err(ERR_MALFORMED, parse_der("CERTIFICATE", der, cut, &none));
	assert_err(ERR_MALFORMED, cert_parse(bytes_of(NULL, 0), &none));
	assert_err(ERR_MALFORMED, parse_der("TRUSTED CERTIFICATE", der, n, &none));
	assert_err(ERR_MALFORMED, parse_der("X509 CERTIFICATE", der, n, &none));
	assert_err(ERR_MALFORMED, parse_der("CERTIFICATE REQUEST", der, n, &none));
	uint8_t *longer = mem_new(n + 2);
	memcpy(longer, der, n);
	assert_err(ERR_MALFORMED, parse_der("CERTIFICATE", longer, n + 1, &none));
	/* The outer length in three bytes where two do: BER, not DER. Its meaning is the same, its fingerprint would
	 * not be. */
	assert_true(der[0] == 0x30 && der[1] == 0x82);
	longer[0] = 0x30;
	longer[1] = 0x83;
	longer[2] = 0;
	memcpy(longer + 3, der + 2, n - 2);
	assert_err(ERR_MALFORMED, parse_der("CERTIFICATE", longer, n + 1, &none));
	free(longer);
	EVP_PKEY *k = forge_key("P-256");
	X509 *negative = forge_x509(&(struct forge_cert){.key = k, .negative_serial = true});
	struct buf negative_pem;
	forge_x509_pem(negative, &negative_pem);
	assert_err(ERR_MALFORMED, cert_parse(buf_bytes(&negative_pem), &none));
	assert_null(none);
	assert_int_equal(ERR_peek_error(), 0);
	buf_deinit(&negative_pem);
	X509_free(negative);
	EVP_PKEY_free(k);
	OPENSSL_free(der);
	buf_deinit(&pem);
	cert_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_make_ca),
		cmocka_unit_test(test_make_ca_refuses),
		cmocka_unit_test(test_issue_client),
		cmocka_unit_test(test_issue_server),
		cmocka_unit_test(test_issue_refuses),
		cmocka_unit_test(test_serials),
		cmocka_unit_test(test_identity_negative),
		cmocka_unit_test(test_pem_and_chain),
		cmocka_unit_test(test_load),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_federation_negative),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
