/*
 * X.509 certificates and requests as Hansa uses them: exactly one URI SAN, which is an identity (crypto/identity.h).
 * A coordinator's certificate has DNS or IP names beside it, so that clients can check the host they dialled.
 */
#ifndef HANSA_CRYPTO_CERT_H
#define HANSA_CRYPTO_CERT_H

#include "base/buf.h"
#include "crypto/identity.h"
#include "crypto/key.h"

struct cert;

/*
 * `pem` may hold a chain; the first certificate is taken. Limit: 64 KiB. ERR_MALFORMED unless it is DER to the letter,
 * so that one certificate has one fingerprint.
 */
MUST_CHECK enum err cert_parse(struct bytes pem, struct cert **ret_cert);
MUST_CHECK enum err cert_load(const char *path, struct cert **ret_cert);
MUST_CHECK enum err cert_pem(const struct cert *c, struct buf *ret_pem); /* buf_init's it */
void cert_free(struct cert *c);

struct digest cert_fingerprint(const struct cert *c); /* SHA-256 of the DER */
struct digest cert_key_digest(const struct cert *c);  /* as key_public_digest() */
int64_t cert_not_before_ms(const struct cert *c);
int64_t cert_not_after_ms(const struct cert *c);
MUST_CHECK enum err cert_serial(const struct cert *c, char *out, size_t size); /* hex; ERR_LIMIT */

/* The one identity of the certificate; ERR_UNAUTHENTIC unless there is exactly one URI SAN and it parses. */
MUST_CHECK enum err cert_identity(const struct cert *c, struct identity *ret_id);

/*
 * Is `c` signed by `ca`, a CA, and are both valid at `at_ms`, that is not_before <= at < not_after to the second?
 * ERR_UNAUTHENTIC with the reason. `ca` need not be self-signed.
 */
MUST_CHECK enum err cert_verify(const struct cert *c, const struct cert *ca, int64_t at_ms);

/* Self-signed CA with path length 0; subject O="Hansa CA", CN=FEDERATION (X.520 allows a CN of 64 characters). */
MUST_CHECK enum err cert_make_ca(const struct key *k, const char *federation, int64_t from_ms, int64_t to_ms,
				 struct cert **ret_cert);

/* The federation of a certificate made by cert_make_ca(); ERR_MALFORMED for any other. */
MUST_CHECK enum err cert_ca_federation(const struct cert *c, char ret_federation[IDENTITY_PART_SIZE]);

/*
 * A leaf for `id` with the public half of `subject_key`: serverAuth+clientAuth for a coordinator, clientAuth otherwise.
 * `hosts` ends with NULL and may be NULL: DNS names and IP addresses, at most CERT_HOSTS_MAX. Both keys must be P-256
 * (ERR_DENIED). ERR_STATE when `ca_key` is not the key of `ca`; ERR_MALFORMED, ERR_LIMIT for hosts.
 */
enum { CERT_HOSTS_MAX = 32 };
MUST_CHECK enum err cert_issue(const struct cert *ca, const struct key *ca_key, const struct key *subject_key,
			       const struct identity *id, const char *const *hosts, int64_t from_ms, int64_t to_ms,
			       struct cert **ret_cert);

/* Certificate signing requests (PKCS#10, PEM). The request is self-signed; parsing verifies that. */
MUST_CHECK enum err csr_make(const struct key *k, const struct identity *id, struct buf *ret_pem);
/* ERR_MALFORMED (bytes, signature), ERR_DENIED (any key but P-256), ERR_UNAUTHENTIC (not exactly one identity). */
MUST_CHECK enum err csr_parse(struct bytes pem, struct identity *ret_id, struct key **ret_public_key);

#endif
