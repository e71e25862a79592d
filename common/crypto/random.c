#include "crypto/random.h"

#include "crypto/openssl.h"

#include <string.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

void random_bytes(void *p, size_t n)
{
	ENSURE(RAND_priv_bytes_ex(NULL, p, n, 0) == 1);
}

uint64_t random_u64(void)
{
	uint64_t v;
	random_bytes(&v, sizeof v);
	return v;
}

void secret_wipe(void *p, size_t n)
{
	if (n > 0)
		OPENSSL_cleanse(p, n);
}

bool secret_equal(const void *a, const void *b, size_t n)
{
	return CRYPTO_memcmp(a, b, n) == 0;
}

enum err base64url_encode(const void *p, size_t n, char *out, size_t out_size)
{
	const uint8_t *in = p;
	size_t tail = n % 3;
	/* Written so that it cannot wrap: n / 3 * 4 is below SIZE_MAX only for n that fit in memory. */
	if (n > SIZE_MAX / 2 || n / 3 * 4 + (tail == 0 ? 0 : tail + 1) >= out_size)
		return err_set(ERR_LIMIT, "base64url text of %zu bytes does not fit in %zu characters", n, out_size);
	for (size_t i = 0; i + 2 < n; i += 3) {
		uint32_t v = (uint32_t)in[i] << 16 | (uint32_t)in[i + 1] << 8 | in[i + 2];
		*out++ = alphabet[v >> 18];
		*out++ = alphabet[v >> 12 & 63];
		*out++ = alphabet[v >> 6 & 63];
		*out++ = alphabet[v & 63];
	}
	if (tail > 0) {
		uint32_t v = (uint32_t)in[n - tail] << 16 | (tail == 2 ? (uint32_t)in[n - 1] << 8 : 0);
		*out++ = alphabet[v >> 18];
		*out++ = alphabet[v >> 12 & 63];
		if (tail == 2)
			*out++ = alphabet[v >> 6 & 63];
	}
	*out = '\0';
	return ERR_OK;
}

enum err base64url_decode(const char *text, size_t len, uint8_t *out, size_t out_size, size_t *ret_n)
{
	size_t tail = len % 4;
	size_t n = len / 4 * 3 + (tail == 0 ? 0 : tail - 1);
	if (tail == 1)
		return err_set(ERR_MALFORMED, "base64url text has an impossible length");
	if (n > out_size)
		return err_set(ERR_LIMIT, "base64url text holds more than %zu bytes", out_size);
	uint32_t v = 0;
	size_t at = 0;
	for (size_t i = 0; i < len; i++) {
		const char *c = text[i] == '\0' ? NULL : strchr(alphabet, text[i]);
		if (c == NULL)
			return err_set(ERR_MALFORMED, "character %zu is not base64url", i + 1);
		v = v << 6 | (uint32_t)(c - alphabet);
		if (i % 4 != 3)
			continue;
		out[at++] = (uint8_t)(v >> 16);
		out[at++] = (uint8_t)(v >> 8);
		out[at++] = (uint8_t)v;
		v = 0;
	}
	/* Bits behind the last byte must be zero, else several texts would mean the same bytes. */
	uint32_t spare = tail == 2 ? 4 : 2;
	if (tail > 0 && (v & ((1u << spare) - 1)) != 0)
		return err_set(ERR_MALFORMED, "base64url text ends in a character that no encoder writes");
	if (tail > 0)
		v >>= spare;
	if (tail == 3)
		out[at++] = (uint8_t)(v >> 8);
	if (tail > 0)
		out[at++] = (uint8_t)v;
	*ret_n = at;
	return ERR_OK;
}
