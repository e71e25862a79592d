/*
 * A credential: what a plant, an operator or the coordinator proves itself with. A directory, mode 0700:
 *
 *	key.pem (0600)   the private key; made here, never leaves
 *	cert.pem         the certificate
 *	ca.pem           the CA that signed it and whose signature the other side must show
 *	peer.yaml        address: HOST:PORT of the coordinator, identity: our own URI
 */
#ifndef HANSA_CERTS_CREDENTIAL_H
#define HANSA_CERTS_CREDENTIAL_H

#include "crypto/cert.h"

struct credential {
	struct identity id;
	struct key *key;    /* owned */
	struct cert *cert;  /* owned */
	struct buf key_pem; /* for the TLS library; wiped by credential_free */
	struct buf cert_pem;
	struct buf ca_pem;
	char *address; /* owned; NULL for a coordinator */
	char *dir;     /* owned */
};

/*
 * Loads and checks: private key is private, fits the certificate, certificate is signed by the CA; says when it expires
 * or expired. ERR_NOT_FOUND (no credential here), ERR_DENIED (key readable by others), ERR_CORRUPT (parts that do not
 * belong together), ERR_UNAUTHENTIC (expired, other CA).
 */
MUST_CHECK enum err credential_load(const char *dir, int64_t now_ms, struct credential *ret_cred);
void credential_free(struct credential *c);

/*
 * Durable; cert.pem is written last, so a directory with a certificate is complete. `address` may be NULL. Replaces
 * what is there; a certificate of another key is removed first. ERR_UNAUTHENTIC when `cert` is not for `key`,
 * ERR_MALFORMED for the address.
 */
MUST_CHECK enum err credential_save(const char *dir, const struct key *key, const struct cert *cert,
				    struct bytes ca_pem, const char *address);
MUST_CHECK enum err credential_set_address(const char *dir, const char *address);

#endif
