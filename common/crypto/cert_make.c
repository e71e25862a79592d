/*
 * Making certificates: the self-signed CA and the leaves that it signs. Everything a peer could have a say in (names,
 * times, key usage) comes from our arguments, never from a request.
 */
#include "crypto/cert.h"

#include "crypto/openssl.h"
#include "crypto/ossl.h"
#include "crypto/random.h"

#include <string.h>

enum { SERIAL_SIZE = 16, VERSION_3 = 2 };

struct extension {
	int nid;
	const char *value; /* OpenSSL's configuration syntax; constants only, never anything from outside */
};

static const struct extension ca_extensions[] = {
	{NID_basic_constraints, "critical,CA:TRUE,pathlen:0"},
	{NID_key_usage, "critical,keyCertSign,cRLSign"},
	{NID_subject_key_identifier, "hash"},
	{NID_undef, NULL},
};

static const struct extension server_extensions[] = {
	{NID_basic_constraints, "critical,CA:FALSE"},   {NID_key_usage, "critical,digitalSignature"},
	{NID_ext_key_usage, "serverAuth,clientAuth"},   {NID_subject_key_identifier, "hash"},
	{NID_authority_key_identifier, "keyid:always"}, {NID_undef, NULL},
};

static const struct extension client_extensions[] = {
	{NID_basic_constraints, "critical,CA:FALSE"},
	{NID_key_usage, "critical,digitalSignature"},
	{NID_ext_key_usage, "clientAuth"},
	{NID_subject_key_identifier, "hash"},
	{NID_authority_key_identifier, "keyid:always"},
	{NID_undef, NULL},
};

static void add_extensions(X509 *x509, X509 *issuer, const struct extension *rows)
{
	X509V3_CTX ctx;
	X509V3_set_ctx_nodb(&ctx);
	X509V3_set_ctx(&ctx, issuer, x509, NULL, NULL, 0);
	for (; rows->value != NULL; rows++) {
		X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &ctx, rows->nid, rows->value);
		ENSURE(extension != NULL);
		ENSURE(X509_add_ext(x509, extension, -1) == 1);
		X509_EXTENSION_free(extension);
	}
}

static void set_serial(X509 *x509)
{
	uint8_t raw[SERIAL_SIZE];
	random_bytes(raw, sizeof raw);
	BIGNUM *n = BN_bin2bn(raw, sizeof raw, NULL);
	ENSURE(n != NULL && BN_to_ASN1_INTEGER(n, X509_get_serialNumber(x509)) != NULL);
	BN_free(n);
}

static void add_name(X509_NAME *name, const char *field, const char *value)
{
	ENSURE(X509_NAME_add_entry_by_txt(name, field, MBSTRING_ASC, (const unsigned char *)value, -1, -1, 0) == 1);
}

static X509 *new_certificate(const struct key *subject, int64_t from_ms, int64_t to_ms)
{
	X509 *x509 = X509_new();
	ENSURE(from_ms < to_ms);
	ENSURE(x509 != NULL && X509_set_version(x509, VERSION_3) == 1);
	set_serial(x509);
	ENSURE(ASN1_TIME_set(X509_getm_notBefore(x509), (time_t)(from_ms / 1000)) != NULL);
	ENSURE(ASN1_TIME_set(X509_getm_notAfter(x509), (time_t)(to_ms / 1000)) != NULL);
	ENSURE(X509_set_pubkey(x509, subject->pkey) == 1);
	return x509;
}

static enum err need_p256(const struct key *k, const char *whose)
{
	if (k->kind != KEY_P256)
		return err_set(ERR_DENIED, "the key of %s must be P-256", whose);
	return ERR_OK;
}

static enum err sign_and_take(X509 *x509, const struct key *k, struct cert **ret_cert)
{
	ENSURE(k->has_private);
	if (X509_sign(x509, k->pkey, EVP_sha256()) > 0)
		return ossl_cert_take(x509, ret_cert);
	X509_free(x509);
	return ossl_err(ERR_CRYPTO, "cannot sign a certificate");
}

enum err cert_make_ca(const struct key *k, const char *federation, int64_t from_ms, int64_t to_ms,
		      struct cert **ret_cert)
{
	struct identity id;
	TRY(need_p256(k, "a CA"));
	TRY(identity_make(ROLE_COORDINATOR, federation, NULL, &id)); /* is it the name of a federation? */
	X509 *x509 = new_certificate(k, from_ms, to_ms);
	add_name(X509_get_subject_name(x509), "O", OSSL_CA_ORGANISATION);
	add_name(X509_get_subject_name(x509), "CN", federation);
	ENSURE(X509_set_issuer_name(x509, X509_get_subject_name(x509)) == 1);
	add_extensions(x509, x509, ca_extensions);
	return sign_and_take(x509, k, ret_cert);
}

enum err cert_issue(const struct cert *ca, const struct key *ca_key, const struct key *subject_key,
		    const struct identity *id, const char *const *hosts, int64_t from_ms, int64_t to_ms,
		    struct cert **ret_cert)
{
	GENERAL_NAMES *names = NULL;
	bool server = id->role == ROLE_COORDINATOR;
	TRY(need_p256(ca_key, "a CA"));
	TRY(need_p256(subject_key, "a certificate"));
	struct digest ours = key_public_digest(ca_key), theirs = cert_key_digest(ca);
	if (!digest_equal(&ours, &theirs))
		return err_set(ERR_STATE, "the CA's private key and its certificate do not belong together");
	TRY(ossl_san_make(id, hosts, &names));
	X509 *x509 = new_certificate(subject_key, from_ms, to_ms);
	add_name(X509_get_subject_name(x509), "CN", server ? role_name(id->role) : id->name);
	ENSURE(X509_set_issuer_name(x509, X509_get_subject_name(ca->x509)) == 1);
	add_extensions(x509, ca->x509, server ? server_extensions : client_extensions);
	ENSURE(X509_add1_ext_i2d(x509, NID_subject_alt_name, names, 0, X509V3_ADD_DEFAULT) == 1);
	GENERAL_NAMES_free(names);
	return sign_and_take(x509, ca_key, ret_cert);
}
