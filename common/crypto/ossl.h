/*
 * Private to common/crypto: what its files share about OpenSSL objects. Nobody outside this folder includes it; it
 * includes no OpenSSL header itself (that is crypto/openssl.h).
 */
#ifndef HANSA_CRYPTO_OSSL_H
#define HANSA_CRYPTO_OSSL_H

#include "base/buf.h"
#include "crypto/address.h"
#include "crypto/cert.h"
#include "crypto/identity.h"
#include "crypto/key.h"

struct evp_pkey_st;
struct x509_st;
struct stack_st_GENERAL_NAME;
struct stack_st_X509;

enum { OSSL_PEM_MAX = 64 * 1024 };

#define OSSL_CA_ORGANISATION "Hansa CA" /* O of a CA's subject; CN is the federation */

struct key {
	struct evp_pkey_st *pkey; /* owned */
	enum key_kind kind;
	bool has_private;
};

struct cert {
	struct x509_st *x509; /* owned */
	int64_t not_before_ms, not_after_ms;
};

/*
 * err_set() with OpenSSL's own reason appended, when there is one. Empties this thread's OpenSSL error queue: what is
 * left there would be taken for a failure of the next TLS operation, ours or gRPC's.
 */
enum err ossl_err(enum err code, const char *fmt, ...) PRINTF_LIKE(2, 3);

/*
 * The first PEM block of `pem`, which must be a plain `label` ("CERTIFICATE", ...): no encryption, no other spelling.
 * ERR_MALFORMED, ERR_LIMIT. ossl_der_free() wipes.
 */
struct ossl_der {
	uint8_t *p;
	long n;
};
MUST_CHECK enum err ossl_pem_read(struct bytes pem, const char *label, struct ossl_der *ret_der);
void ossl_der_free(struct ossl_der *der);

/* buf_init's `ret_pem`. */
MUST_CHECK enum err ossl_pem_write(const char *label, struct bytes der, struct buf *ret_pem);

/* Takes `pkey`, also on failure. ERR_DENIED unless it is P-256 (named curve, uncompressed point) or Ed25519. */
MUST_CHECK enum err ossl_key_take(struct evp_pkey_st *pkey, bool has_private, struct key **ret_key);

/* Takes `x509`, also on failure. */
MUST_CHECK enum err ossl_cert_take(struct x509_st *x509, struct cert **ret_cert);

/* The one URI among `names` (may be NULL: none) as an identity, else ERR_UNAUTHENTIC. `what` begins the message. */
MUST_CHECK enum err ossl_san_identity(const struct stack_st_GENERAL_NAME *names, const char *what,
				      struct identity *ret_id);
/* subjectAltName of `id` and NULL-terminated `hosts` (may be NULL); free with GENERAL_NAMES_free(). */
MUST_CHECK enum err ossl_san_make(const struct identity *id, const char *const *hosts,
				  struct stack_st_GENERAL_NAME **ret_names);

/*
 * Does `leaf` chain to `ca`, the only certificate trusted, at `at_ms`? `host` NULL: any purpose, any name; else it must
 * be a TLS server's certificate for that host. `others` (may be NULL) may hold intermediates. ERR_UNAUTHENTIC with the
 * reason.
 */
MUST_CHECK enum err ossl_verify(struct x509_st *leaf, struct x509_st *ca, struct stack_st_X509 *others,
				const struct address *host, int64_t at_ms);

#endif
