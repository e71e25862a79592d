/*
 * Certificates, requests and keys that the layer itself would never make: foreign key types, any names, any times.
 */
#ifndef HANSA_TESTS_CRYPTO_FORGE_H
#define HANSA_TESTS_CRYPTO_FORGE_H

#include "crypto/fixture.h"
#include "crypto/openssl.h"
#include "crypto/ossl.h"

/* One entry of a subjectAltName: GEN_URI, GEN_DNS, GEN_EMAIL; type 0 ends a list. n 0: strlen(text). */
struct forge_name {
	int type;
	const char *text;
	size_t n;
};

struct forge_cert {
	EVP_PKEY *key; /* of the subject */
	X509 *issuer;  /* NULL: self-signed */
	EVP_PKEY *issuer_key;
	const struct forge_name *names;  /* NULL: no subjectAltName */
	const struct forge_name *names2; /* a second extension of the same kind */
	const char *usage;               /* extendedKeyUsage; NULL: none */
	const char *organisation;        /* O of the subject; NULL: none */
	const EVP_MD *md;                /* NULL: SHA-256 */
	bool is_ca, negative_serial;
	int64_t from_ms, to_ms; /* both 0: a year around FIXTURE_NOW_MS */
};

static inline EVP_PKEY *forge_key(const char *type)
{
	EVP_PKEY *k = NULL;
	if (strncmp(type, "RSA-", 4) == 0)
		k = EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)strtoul(type + 4, NULL, 10));
	else if (strncmp(type, "P-", 2) == 0)
		k = EVP_PKEY_Q_keygen(NULL, NULL, "EC", type);
	else
		k = EVP_PKEY_Q_keygen(NULL, NULL, type);
	assert_non_null(k);
	return k;
}

static inline GENERAL_NAMES *forge_names(const struct forge_name *list)
{
	GENERAL_NAMES *names = GENERAL_NAMES_new();
	for (; list->type != 0; list++) {
		GENERAL_NAME *name = GENERAL_NAME_new();
		ASN1_IA5STRING *s = ASN1_IA5STRING_new();
		size_t n = list->n > 0 ? list->n : strlen(list->text);
		assert_int_equal(ASN1_STRING_set(s, list->text, (int)n), 1);
		GENERAL_NAME_set0_value(name, list->type, s);
		sk_GENERAL_NAME_push(names, name);
	}
	return names;
}

static inline void forge_add(X509 *x, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX ctx;
	X509V3_set_ctx_nodb(&ctx);
	X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
	X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	assert_non_null(e);
	assert_int_equal(X509_add_ext(x, e, -1), 1);
	X509_EXTENSION_free(e);
}

static inline void forge_add_names(X509 *x, const struct forge_name *list)
{
	GENERAL_NAMES *names = forge_names(list);
	assert_int_equal(X509_add1_ext_i2d(x, NID_subject_alt_name, names, 0, X509V3_ADD_APPEND), 1);
	GENERAL_NAMES_free(names);
}

static inline X509 *forge_x509(const struct forge_cert *f)
{
	X509 *x = X509_new();
	bool timed = f->from_ms != 0 || f->to_ms != 0;
	X509 *issuer = f->issuer == NULL ? x : f->issuer;
	assert_int_equal(X509_set_version(x, 2), 1);
	ASN1_INTEGER_set_int64(X509_get_serialNumber(x), f->negative_serial ? -5 : 4711);
	ASN1_TIME_set(X509_getm_notBefore(x), (timed ? f->from_ms : FIXTURE_NOW_MS - 180 * DAY_MS) / 1000);
	ASN1_TIME_set(X509_getm_notAfter(x), (timed ? f->to_ms : FIXTURE_NOW_MS + 180 * DAY_MS) / 1000);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
				   (const unsigned char *)(!f->is_ca           ? "leaf"
							   : f->issuer == NULL ? "Root"
									       : "Middle"),
				   -1, -1, 0);
	if (f->organisation != NULL)
		X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "O", MBSTRING_ASC,
					   (const unsigned char *)f->organisation, -1, -1, 0);
	X509_set_issuer_name(x, X509_get_subject_name(issuer));
	assert_int_equal(X509_set_pubkey(x, f->key), 1);
	forge_add(x, issuer, NID_basic_constraints, f->is_ca ? "critical,CA:TRUE" : "critical,CA:FALSE");
	if (f->usage != NULL)
		forge_add(x, issuer, NID_ext_key_usage, f->usage);
	if (f->names != NULL)
		forge_add_names(x, f->names);
	if (f->names2 != NULL)
		forge_add_names(x, f->names2);
	assert_true(X509_sign(x, f->issuer_key == NULL ? f->key : f->issuer_key, f->md == NULL ? EVP_sha256() : f->md) >
		    0);
	return x;
}

/* As text; the buffer is the caller's to buf_deinit(). */
static inline void forge_pem(const char *label, const uint8_t *der, size_t n, struct buf *ret_pem)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *text = NULL;
	assert_true(PEM_write_bio(bio, label, "", der, (long)n) > 0);
	long text_n = BIO_get_mem_data(bio, &text);
	buf_init(ret_pem, 1 << 20);
	assert_ok(buf_append(ret_pem, text, (size_t)text_n));
	BIO_free(bio);
}

static inline void forge_x509_pem(X509 *x, struct buf *ret_pem)
{
	unsigned char *der = NULL;
	int n = i2d_X509(x, &der);
	assert_true(n > 0);
	forge_pem("CERTIFICATE", der, (size_t)n, ret_pem);
	OPENSSL_free(der);
}

/* The DER inside the first PEM block; free with OPENSSL_free(). */
static inline unsigned char *forge_der(const struct buf *pem, size_t *ret_n)
{
	char *name = NULL, *header = NULL;
	unsigned char *der = NULL;
	long n = 0;
	BIO *bio = BIO_new_mem_buf(pem->p, (int)pem->n);
	assert_int_equal(PEM_read_bio(bio, &name, &header, &der, &n), 1);
	OPENSSL_free(name);
	OPENSSL_free(header);
	BIO_free(bio);
	*ret_n = (size_t)n;
	return der;
}

static inline struct cert *forge_take(X509 *x)
{
	struct cert *c = NULL;
	struct buf pem;
	forge_x509_pem(x, &pem);
	assert_ok(cert_parse(buf_bytes(&pem), &c));
	buf_deinit(&pem);
	return c;
}

#endif
