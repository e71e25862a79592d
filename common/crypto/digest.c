#include "crypto/digest.h"

#include "base/file.h"
#include "crypto/openssl.h"

#include <stdlib.h>
#include <string.h>

/* One read of digest_file: large enough to be bound by the disk, small enough not to matter in memory. */
enum { CHUNK = 256 * 1024 };

struct digester {
	EVP_MD_CTX *ctx; /* owned */
};

struct digester *digest_begin(void)
{
	struct digester *d = mem_new(sizeof *d);
	d->ctx = EVP_MD_CTX_new();
	ENSURE(d->ctx != NULL);
	ENSURE(EVP_DigestInit_ex(d->ctx, EVP_sha256(), NULL) == 1);
	return d;
}

void digest_add(struct digester *d, const void *p, size_t n)
{
	ENSURE(EVP_DigestUpdate(d->ctx, p, n) == 1);
}

struct digest digest_end(struct digester *d)
{
	struct digest result;
	ENSURE(EVP_DigestFinal_ex(d->ctx, result.b, NULL) == 1);
	digest_free(d);
	return result;
}

void digest_free(struct digester *d)
{
	if (d == NULL)
		return;
	EVP_MD_CTX_free(d->ctx);
	free(d);
}

struct digest digest_of(struct bytes content)
{
	struct digest result;
	ENSURE(EVP_Digest(content.p, content.n, result.b, NULL, EVP_sha256(), NULL) == 1);
	return result;
}

bool digest_equal(const struct digest *a, const struct digest *b)
{
	return memcmp(a->b, b->b, DIGEST_SIZE) == 0;
}

bool digest_is_zero(const struct digest *d)
{
	static const struct digest zero;
	return digest_equal(d, &zero);
}

const char *digest_format(const struct digest *d, char out[DIGEST_TEXT_SIZE])
{
	hex_encode(d->b, DIGEST_SIZE, out);
	return out;
}

enum err digest_parse(const char *text, struct digest *ret_digest)
{
	struct digest d;
	if (hex_decode(text, strlen(text), d.b, DIGEST_SIZE) != 0)
		return err_set(ERR_MALFORMED, "a SHA-256 digest is written as 64 hexadecimal digits");
	*ret_digest = d;
	return ERR_OK;
}

enum err digest_from(struct bytes raw, struct digest *ret_digest)
{
	if (raw.n != DIGEST_SIZE)
		return err_set(ERR_MALFORMED, "a SHA-256 digest has 32 bytes, not %zu", raw.n);
	memcpy(ret_digest->b, raw.p, DIGEST_SIZE);
	return ERR_OK;
}

enum err digest_file(const char *path, struct digest *ret_digest, uint64_t *ret_size)
{
	struct file *f = NULL;
	struct digester *d = NULL;
	uint8_t *chunk = NULL;
	uint64_t size = 0;
	enum err e = file_size(path, &size);
	if (e != ERR_OK)
		return e;
	e = file_open_read(path, &f);
	if (e != ERR_OK)
		return e;
	chunk = mem_new(CHUNK);
	d = digest_begin();
	for (uint64_t at = 0; at < size;) {
		size_t n = size - at < CHUNK ? (size_t)(size - at) : CHUNK;
		e = file_read_at(f, at, chunk, n);
		if (e != ERR_OK)
			goto out;
		digest_add(d, chunk, n);
		at += n;
	}
	*ret_digest = digest_end(d);
	d = NULL;
	if (ret_size != NULL)
		*ret_size = size;
out:
	digest_free(d);
	free(chunk);
	file_close(f);
	return e;
}
