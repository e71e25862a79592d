/*
 * SHA-256, the only digest of the project: names of models and updates, hashes of configurations, fingerprints.
 */
#ifndef HANSA_CRYPTO_DIGEST_H
#define HANSA_CRYPTO_DIGEST_H

#include "base/err.h"
#include "base/mem.h"

enum { DIGEST_SIZE = 32, DIGEST_TEXT_SIZE = 65 };

struct digest {
	uint8_t b[DIGEST_SIZE];
};

struct digest digest_of(struct bytes content);
bool digest_equal(const struct digest *a, const struct digest *b);
bool digest_is_zero(const struct digest *d);
/* 64 lower-case hex digits; returns `out`. */
const char *digest_format(const struct digest *d, char out[DIGEST_TEXT_SIZE]);
MUST_CHECK enum err digest_parse(const char *text, struct digest *ret_digest); /* ERR_MALFORMED unless 64 hex digits */
MUST_CHECK enum err digest_from(struct bytes raw, struct digest *ret_digest);  /* ERR_MALFORMED unless 32 bytes */
MUST_CHECK enum err digest_file(const char *path, struct digest *ret_digest, uint64_t *ret_size /* may be NULL */);

/* Piece by piece. digest_end frees; digest_free ends without a result. */
struct digester;
struct digester *digest_begin(void);
void digest_add(struct digester *d, const void *p, size_t n);
struct digest digest_end(struct digester *d);
void digest_free(struct digester *d); /* NULL is fine */

#endif
