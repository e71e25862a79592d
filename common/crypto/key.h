/*
 * Private and public keys: P-256 for TLS identities and the CA, Ed25519 for the log.
 * Private key files are PKCS#8 PEM with mode 0600; a file that others can read is refused.
 */
#ifndef HANSA_CRYPTO_KEY_H
#define HANSA_CRYPTO_KEY_H

#include "base/buf.h"
#include "crypto/digest.h"

enum key_kind { KEY_P256, KEY_ED25519 };

struct key; /* a private key with its public half, or a public key alone */

MUST_CHECK enum err key_generate(enum key_kind kind, struct key **ret_key);
MUST_CHECK enum err key_load(const char *path, struct key **ret_key);  /* ERR_DENIED when others can read it */
MUST_CHECK enum err key_save(const struct key *k, const char *path);   /* durable, 0600 */
MUST_CHECK enum err key_pem(const struct key *k, struct buf *ret_pem); /* private key; wipe the buffer after use */
MUST_CHECK enum err key_public_pem(const struct key *k, struct buf *ret_pem);
MUST_CHECK enum err key_public_load(const char *path, struct key **ret_key);
struct digest key_public_digest(const struct key *k); /* SHA-256 of the SubjectPublicKeyInfo (DER) */
enum key_kind key_kind_of(const struct key *k);
bool key_has_private(const struct key *k);
void key_free(struct key *k); /* NULL is fine */

/* From memory. ERR_MALFORMED; ERR_DENIED for a kind of key that is not used here, as with the two ..._load() above. */
MUST_CHECK enum err key_parse(struct bytes pem, struct key **ret_key);
MUST_CHECK enum err key_public_parse(struct bytes pem, struct key **ret_key);

/* Ed25519 as bare bytes (RFC 8032): the seed of a private key (test vectors), the public key (signed notes). */
enum { KEY_RAW_SIZE = 32 };
MUST_CHECK enum err key_from_seed(const uint8_t seed[KEY_RAW_SIZE], struct key **ret_key);
void key_public_raw(const struct key *k, uint8_t ret_raw[KEY_RAW_SIZE]);         /* Ed25519 only */
MUST_CHECK enum err key_public_from_raw(struct bytes raw, struct key **ret_key); /* ERR_MALFORMED unless 32 bytes */

/* P-256: ECDSA with SHA-256, DER. Ed25519: RFC 8032, 64 bytes. */
enum { KEY_SIGNATURE_MAX = 80 };
MUST_CHECK enum err key_sign(const struct key *k, struct bytes message, uint8_t ret_signature[KEY_SIGNATURE_MAX],
			     size_t *ret_n);
MUST_CHECK enum err key_verify(const struct key *k, struct bytes message, struct bytes signature); /* ERR_UNAUTHENTIC */

#endif
