#include "crypto/cert.h"

#include "crypto/forge.h"

#define ONE                                                                                                            \
	{                                                                                                              \
		GEN_URI, "spiffe://example.org/plant/a", 0                                                             \
	}

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

static void test_verify_times(void **state)
{
	(void)state;
	struct cert *c = issue(ROLE_PLANT, "a", NULL, now - DAY_MS, now + DAY_MS);
	assert_ok(cert_verify(c, ca.cert, now - DAY_MS));
	assert_err(ERR_UNAUTHENTIC, cert_verify(c, ca.cert, now - DAY_MS - 1000));
	assert_non_null(strstr(err_text(), "not valid yet"));
	assert_ok(cert_verify(c, ca.cert, now + DAY_MS - 1000));
	assert_err(ERR_UNAUTHENTIC, cert_verify(c, ca.cert, now + DAY_MS));
	assert_non_null(strstr(err_text(), "expired"));
	cert_free(c);
	/* The leaf outlives its CA. */
	c = issue(ROLE_PLANT, "a", NULL, now - DAY_MS, now + 4000 * DAY_MS);
	assert_ok(cert_verify(c, ca.cert, now + 3650 * DAY_MS - 1000));
	assert_err(ERR_UNAUTHENTIC, cert_verify(c, ca.cert, now + 3650 * DAY_MS));
	cert_free(c);
	/* Past 2049 times are written in another form, and 2038 is not the end either. */
	c = issue(ROLE_PLANT, "a", NULL, now - DAY_MS, now + 36500 * DAY_MS);
	assert_int_equal(cert_not_after_ms(c), now + 36500 * DAY_MS);
	cert_free(c);
}

static void test_verify_issuer(void **state)
{
	(void)state;
	struct cert *c = issue_plant(), *below = NULL;
	struct identity id = identity_of(ROLE_PLANT, "example.org", "b");
	assert_ok(cert_verify(c, ca.cert, now));
	assert_err(ERR_UNAUTHENTIC, cert_verify(c, other_ca.cert, now)); /* same names, other key */
	assert_non_null(strstr(err_text(), "not signed by this CA"));
	assert_err(ERR_UNAUTHENTIC, cert_verify(ca.cert, other_ca.cert, now));
	/* A leaf is no CA: neither for itself nor for what it signed. */
	assert_err(ERR_UNAUTHENTIC, cert_verify(c, c, now));
	assert_ok(cert_issue(c, leaf_key, leaf_key, &id, NULL, now - DAY_MS, now + DAY_MS, &below));
	assert_err(ERR_UNAUTHENTIC, cert_verify(below, c, now));
	assert_err(ERR_UNAUTHENTIC, cert_verify(below, ca.cert, now));
	assert_int_equal(ERR_peek_error(), 0);
	cert_free(below);
	cert_free(c);
}

static void test_verify_weak(void **state)
{
	(void)state;
	static const struct forge_name one[] = {ONE, {0}};
	EVP_PKEY *strong = forge_key("P-256"), *weak = forge_key("RSA-1024");
	struct forge_cert root = {.key = strong, .is_ca = true};
	X509 *root_x = forge_x509(&root);
	struct cert *root_c = forge_take(root_x);
	struct forge_cert leaf = {.key = strong, .issuer = root_x, .issuer_key = strong, .names = one};
	const struct {
		EVP_PKEY *key;
		const EVP_MD *md;
		enum err want;
	} cases[] = {{strong, EVP_sha256(), ERR_OK},
		     {strong, EVP_sha384(), ERR_OK},
		     {strong, EVP_sha1(), ERR_UNAUTHENTIC},
		     {weak, EVP_sha256(), ERR_UNAUTHENTIC}};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		leaf.key = cases[i].key;
		leaf.md = cases[i].md;
		X509 *x = forge_x509(&leaf);
		struct cert *c = forge_take(x);
		assert_err(cases[i].want, cert_verify(c, root_c, now));
		cert_free(c);
		X509_free(x);
	}
	cert_free(root_c);
	X509_free(root_x);
	EVP_PKEY_free(strong);
	EVP_PKEY_free(weak);
}

/* An outside CA: the certificate that signs the leaf is itself signed by another one. */
static void test_verify_intermediate(void **state)
{
	(void)state;
	static const struct forge_name one[] = {ONE, {0}};
	EVP_PKEY *root_k = forge_key("P-384"), *mid_k = forge_key("RSA-2048"), *leaf_k = forge_key("P-256");
	X509 *root = forge_x509(&(struct forge_cert){.key = root_k, .is_ca = true});
	X509 *mid = forge_x509(&(struct forge_cert){.key = mid_k, .issuer = root, .issuer_key = root_k, .is_ca = true});
	X509 *leaf = forge_x509(&(struct forge_cert){.key = leaf_k, .issuer = mid, .issuer_key = mid_k, .names = one});
	struct cert *root_c = forge_take(root), *mid_c = forge_take(mid), *leaf_c = forge_take(leaf);
	char federation[IDENTITY_PART_SIZE];
	assert_ok(cert_verify(mid_c, root_c, now));
	assert_ok(cert_verify(leaf_c, mid_c, now));
	assert_err(ERR_UNAUTHENTIC, cert_verify(leaf_c, root_c, now));
	assert_err(ERR_MALFORMED, cert_ca_federation(mid_c, federation));
	assert_err(ERR_MALFORMED, cert_ca_federation(leaf_c, federation));
	cert_free(root_c);
	cert_free(mid_c);
	cert_free(leaf_c);
	X509_free(root);
	X509_free(mid);
	X509_free(leaf);
	EVP_PKEY_free(root_k);
	EVP_PKEY_free(mid_k);
	EVP_PKEY_free(leaf_k);
}

static enum err parse_der(const char *label, const uint8_t *der, size_t n, struct cert **ret_cert)
{
	struct buf pem;
	forge_pem(label, der, n, &pem);
	enum err e = cert_parse(buf_bytes(&pem), ret_cert);
	buf_deinit(&pem);
	return e;
}

/* Property: no certificate that differs in one bit from a good one verifies, and none has its fingerprint. */
static void test_altered(void **state)
{
	(void)state;
	struct cert *c = issue_plant();
	struct digest good = cert_fingerprint(c);
	struct buf pem;
	size_t n = 0, parsed = 0;
	assert_ok(cert_pem(c, &pem));
	unsigned char *der = forge_der(&pem, &n);
	for (size_t i = 0; i < n; i++) {
		struct cert *bad = NULL;
		uint8_t bit = (uint8_t)(1u << i % 8);
		der[i] ^= bit;
		enum err e = parse_der("CERTIFICATE", der, n, &bad);
		der[i] ^= bit;
		if (e != ERR_OK) {
			assert_err(ERR_MALFORMED, e);
			continue;
		}
		parsed++;
		struct digest d = cert_fingerprint(bad);
		assert_false(digest_equal(&good, &d));
		if (cert_verify(bad, ca.cert, now) != ERR_UNAUTHENTIC)
			fail_msg("bit %u of byte %zu does not matter", bit, i);
		cert_free(bad);
	}
	assert_true(parsed > n / 4);
	OPENSSL_free(der);
	buf_deinit(&pem);
	cert_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_verify_times), cmocka_unit_test(test_verify_issuer),
		cmocka_unit_test(test_verify_weak),  cmocka_unit_test(test_verify_intermediate),
		cmocka_unit_test(test_altered),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
