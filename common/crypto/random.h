/*
 * Secrets: random bytes from OpenSSL's generator, wiping, comparison in constant time.
 */
#ifndef HANSA_CRYPTO_RANDOM_H
#define HANSA_CRYPTO_RANDOM_H

#include "base/err.h"

#include <stdint.h>

void random_bytes(void *p, size_t n); /* ends the process when the generator fails */
uint64_t random_u64(void);
void secret_wipe(void *p, size_t n); /* never optimised away */
bool secret_equal(const void *a, const void *b, size_t n);

/*
 * base64url without padding (RFC 4648 section 5). Decoding is strict: no padding, no white space, canonical last
 * character. ERR_MALFORMED; ERR_LIMIT when `out` is too small.
 */
MUST_CHECK enum err base64url_encode(const void *p, size_t n, char *out, size_t out_size);
MUST_CHECK enum err base64url_decode(const char *text, size_t len, uint8_t *out, size_t out_size, size_t *ret_n);

#endif
