/*
 * Certificate signing requests, RFC 2986. A request proves that its sender holds the private key, and says who it wants
 * to be; whether it may be that is for the reader of the join code to decide. Nothing else is taken from it.
 */
#include "crypto/cert.h"

#include "crypto/openssl.h"
#include "crypto/ossl.h"

#include <string.h>

static const char label[] = "CERTIFICATE REQUEST";

/* Digests that a request may be signed with; the key is P-256 in any case. */
static const int signature_nids[] = {NID_ecdsa_with_SHA256, NID_ecdsa_with_SHA384, NID_ecdsa_with_SHA512};

enum err csr_make(const struct key *k, const struct identity *id, struct buf *ret_pem)
{
	GENERAL_NAMES *names = NULL;
	STACK_OF(X509_EXTENSION) *extensions = NULL;
	unsigned char *der = NULL;
	ENSURE(k->has_private);
	if (k->kind != KEY_P256)
		return err_set(ERR_DENIED, "a certificate can only be requested for a P-256 key");
	TRY(ossl_san_make(id, NULL, &names));
	const char *cn = id->role == ROLE_COORDINATOR ? role_name(id->role) : id->name;
	X509_REQ *req = X509_REQ_new();
	ENSURE(req != NULL && X509_REQ_set_version(req, 0) == 1 && X509_REQ_set_pubkey(req, k->pkey) == 1);
	ENSURE(X509_NAME_add_entry_by_txt(X509_REQ_get_subject_name(req), "CN", MBSTRING_ASC, (const unsigned char *)cn,
					  -1, -1, 0) == 1);
	ENSURE(X509V3_add1_i2d(&extensions, NID_subject_alt_name, names, 0, X509V3_ADD_DEFAULT) == 1);
	ENSURE(X509_REQ_add_extensions(req, extensions) == 1);
	enum err e = ERR_OK;
	int n = X509_REQ_sign(req, k->pkey, EVP_sha256()) > 0 ? i2d_X509_REQ(req, &der) : 0;
	if (n > 0)
		e = ossl_pem_write(label, bytes_of(der, (size_t)n), ret_pem);
	else
		e = ossl_err(ERR_CRYPTO, "cannot sign a certificate request");
	OPENSSL_free(der);
	sk_X509_EXTENSION_pop_free(extensions, X509_EXTENSION_free);
	X509_REQ_free(req);
	GENERAL_NAMES_free(names);
	return e;
}

static enum err request_read(struct bytes pem, X509_REQ **ret_req)
{
	struct ossl_der der = {0};
	unsigned char *again = NULL;
	enum err e = ERR_OK;
	TRY(ossl_pem_read(pem, label, &der));
	const uint8_t *p = der.p;
	X509_REQ *req = d2i_X509_REQ(NULL, &p, der.n);
	int n = req == NULL ? 0 : i2d_X509_REQ(req, &again);
	if (n <= 0 || n != der.n || memcmp(again, der.p, (size_t)n) != 0) {
		X509_REQ_free(req);
		e = ossl_err(ERR_MALFORMED, "not a certificate request in DER");
	} else {
		*ret_req = req;
	}
	OPENSSL_free(again);
	ossl_der_free(&der);
	return e;
}

static enum err request_key(X509_REQ *req, struct key **ret_key)
{
	struct key *k = NULL;
	bool known = false;
	EVP_PKEY *pkey = X509_REQ_get_pubkey(req);
	if (pkey == NULL)
		return ossl_err(ERR_DENIED, "the request's public key is of a kind that is not accepted; use P-256");
	TRY(ossl_key_take(pkey, false, &k));
	for (size_t i = 0; i < sizeof signature_nids / sizeof signature_nids[0]; i++)
		known = known || signature_nids[i] == X509_REQ_get_signature_nid(req);
	enum err e = ERR_OK;
	if (k->kind != KEY_P256)
		e = err_set(ERR_DENIED, "a certificate can only be requested for a P-256 key");
	else if (!known)
		e = err_set(ERR_DENIED, "the request must be signed with ECDSA and SHA-256");
	else if (X509_REQ_verify(req, pkey) != 1)
		e = ossl_err(ERR_MALFORMED, "the request's own signature is wrong");
	if (e != ERR_OK) {
		key_free(k);
		return e;
	}
	*ret_key = k;
	return ERR_OK;
}

static enum err request_identity(X509_REQ *req, struct identity *ret_id)
{
	/* Two lists of extensions would be read differently by different readers. */
	int first = X509_REQ_get_attr_by_NID(req, NID_ext_req, -1);
	if (first < 0 || X509_REQ_get_attr_by_NID(req, NID_ext_req, first) >= 0 ||
	    X509_ATTRIBUTE_count(X509_REQ_get_attr(req, first)) != 1)
		return err_set(ERR_UNAUTHENTIC, "the request must have exactly one list of extensions");
	STACK_OF(X509_EXTENSION) *extensions = X509_REQ_get_extensions(req);
	GENERAL_NAMES *names = extensions == NULL ? NULL : X509V3_get_d2i(extensions, NID_subject_alt_name, NULL, NULL);
	enum err e = names != NULL ? ossl_san_identity(names, "the request", ret_id)
				   : ossl_err(ERR_UNAUTHENTIC, "the request has no readable subject alternative name");
	GENERAL_NAMES_free(names);
	sk_X509_EXTENSION_pop_free(extensions, X509_EXTENSION_free);
	return e;
}

enum err csr_parse(struct bytes pem, struct identity *ret_id, struct key **ret_public_key)
{
	X509_REQ *req = NULL;
	struct key *k = NULL;
	TRY(request_read(pem, &req));
	enum err e = request_key(req, &k);
	if (e == ERR_OK)
		e = request_identity(req, ret_id);
	if (e == ERR_OK) {
		*ret_public_key = k;
		k = NULL;
	}
	key_free(k);
	X509_REQ_free(req);
	return e;
}
