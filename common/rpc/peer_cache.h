/*
 * Certificates that have been parsed, by the SHA-256 of their PEM: a plant shows the same one with every call. Only what a
 * certificate says is kept; whether that is enough, and still valid, is judged with every call.
 *
 * What stands in it has come through a TLS handshake or is of no use: whoever shows a certificate has had it verified by
 * then. Bounded: a certificate more pushes out one that fell into the same few places. thread: any
 */
#ifndef HANSA_RPC_PEER_CACHE_H
#define HANSA_RPC_PEER_CACHE_H

#include "base/mem.h"
#include "crypto/digest.h"
#include "crypto/identity.h"

enum { PEER_CACHE_SIZE = 8192 }; /* certificates; about 2 MB when full */

struct peer_facts {
	struct identity id;
	struct digest key; /* cert_key_digest() */
	int64_t not_after_ms;
};

struct peer_cache;
struct peer_cache *peer_cache_new(void);
void peer_cache_free(struct peer_cache *c); /* NULL is fine */

/* ERR_MALFORMED, ERR_UNAUTHENTIC: not a certificate with exactly one identity. Those are not kept. */
MUST_CHECK enum err peer_cache_read(struct peer_cache *c, struct bytes pem, struct peer_facts *ret_facts);
uint64_t peer_cache_parsed(struct peer_cache *c); /* how many were not in it */

/* Of `federation`, and valid at `now_ms`? ERR_UNAUTHENTIC with the reason. Pure. */
MUST_CHECK enum err peer_facts_check(const struct peer_facts *facts, const char *federation, int64_t now_ms);

#endif
