#include "crypto/key.h"

#include "base/file.h"
#include "crypto/openssl.h"
#include "crypto/ossl.h"
#include "crypto/random.h"

#include <stdlib.h>
#include <string.h>

enum { PEM_FILE_MAX = 16 * 1024, RAW_SIZE = KEY_RAW_SIZE };

/* SubjectPublicKeyInfo of a P-256 key with a named curve: 26 bytes of header, then 04 (uncompressed), X, Y. */
enum { P256_SPKI_SIZE = 91, P256_POINT_AT = 26, POINT_UNCOMPRESSED = 4 };

static const char private_label[] = "PRIVATE KEY"; /* PKCS#8, RFC 5958 */
static const char public_label[] = "PUBLIC KEY";   /* RFC 7468 section 13 */

/* DER of the public half; free with OPENSSL_free(). */
static struct bytes public_der(EVP_PKEY *pkey)
{
	unsigned char *p = NULL;
	int n = i2d_PUBKEY(pkey, &p);
	ENSURE(n > 0);
	return bytes_of(p, (size_t)n);
}

static void der_free(struct bytes der)
{
	OPENSSL_free((void *)(uintptr_t)der.p);
}

/* One key must have one SubjectPublicKeyInfo, because its digest is pinned: no compressed points, no spelt-out curves.
 */
static bool is_plain_p256(EVP_PKEY *pkey)
{
	char group[32];
	if (!EVP_PKEY_is_a(pkey, "EC") || EVP_PKEY_get_group_name(pkey, group, sizeof group, NULL) != 1 ||
	    strcmp(group, "prime256v1") != 0)
		return false;
	struct bytes der = public_der(pkey);
	bool plain = der.n == P256_SPKI_SIZE && der.p[P256_POINT_AT] == POINT_UNCOMPRESSED;
	der_free(der);
	return plain;
}

enum err ossl_key_take(EVP_PKEY *pkey, bool has_private, struct key **ret_key)
{
	enum key_kind kind;
	if (is_plain_p256(pkey)) {
		kind = KEY_P256;
	} else if (EVP_PKEY_is_a(pkey, "ED25519")) {
		kind = KEY_ED25519;
	} else {
		const char *type = EVP_PKEY_get0_type_name(pkey);
		enum err e = ossl_err(ERR_DENIED,
				      "%s key of %d bits: only P-256 (named curve, uncompressed) and Ed25519 are used",
				      type == NULL ? "unknown" : type, EVP_PKEY_get_bits(pkey));
		EVP_PKEY_free(pkey);
		return e;
	}
	struct key *k = mem_new(sizeof *k);
	*k = (struct key){.pkey = pkey, .kind = kind, .has_private = has_private};
	*ret_key = k;
	return ERR_OK;
}

enum err key_generate(enum key_kind kind, struct key **ret_key)
{
	EVP_PKEY *pkey = kind == KEY_P256 ? EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256")
					  : EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	if (pkey == NULL)
		return ossl_err(ERR_CRYPTO, "cannot generate a key");
	return ossl_key_take(pkey, true, ret_key);
}

enum err key_from_seed(const uint8_t seed[KEY_RAW_SIZE], struct key **ret_key)
{
	EVP_PKEY *pkey = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, RAW_SIZE);
	if (pkey == NULL)
		return ossl_err(ERR_CRYPTO, "cannot make an Ed25519 key");
	return ossl_key_take(pkey, true, ret_key);
}

enum key_kind key_kind_of(const struct key *k)
{
	return k->kind;
}

bool key_has_private(const struct key *k)
{
	return k->has_private;
}

/* PKCS#8 carries the public half as well, and OpenSSL takes it as it is. */
static enum err take_private(EVP_PKEY *pkey, struct key **ret_key)
{
	struct key *k = NULL;
	TRY(ossl_key_take(pkey, true, &k));
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, pkey, NULL);
	ENSURE(ctx != NULL);
	bool fits = EVP_PKEY_pairwise_check(ctx) == 1;
	EVP_PKEY_CTX_free(ctx);
	if (!fits) {
		key_free(k);
		return ossl_err(ERR_MALFORMED, "the private key and its public half do not belong together");
	}
	*ret_key = k;
	return ERR_OK;
}

enum err key_parse(struct bytes pem, struct key **ret_key)
{
	struct ossl_der der = {0};
	EVP_PKEY *pkey = NULL;
	TRY(ossl_pem_read(pem, private_label, &der));
	const uint8_t *p = der.p;
	PKCS8_PRIV_KEY_INFO *info = d2i_PKCS8_PRIV_KEY_INFO(NULL, &p, der.n);
	if (info != NULL && p == der.p + der.n)
		pkey = EVP_PKCS82PKEY(info);
	enum err e = pkey != NULL ? ERR_OK : ossl_err(ERR_MALFORMED, "not a PKCS#8 private key");
	if (pkey != NULL)
		e = take_private(pkey, ret_key);
	PKCS8_PRIV_KEY_INFO_free(info);
	ossl_der_free(&der);
	return e;
}

enum err key_public_parse(struct bytes pem, struct key **ret_key)
{
	struct ossl_der der = {0};
	TRY(ossl_pem_read(pem, public_label, &der));
	const uint8_t *p = der.p;
	EVP_PKEY *pkey = d2i_PUBKEY(NULL, &p, der.n);
	enum err e = ERR_OK;
	if (pkey == NULL || p != der.p + der.n) {
		EVP_PKEY_free(pkey);
		e = ossl_err(ERR_MALFORMED, "not a public key");
	} else {
		e = ossl_key_take(pkey, false, ret_key);
	}
	ossl_der_free(&der);
	return e;
}

enum err key_load(const char *path, struct key **ret_key)
{
	struct buf pem;
	TRY(file_check_private(path));
	TRY(file_read(path, PEM_FILE_MAX, &pem));
	enum err e = key_parse(buf_bytes(&pem), ret_key);
	secret_wipe(pem.p, pem.n);
	buf_deinit(&pem);
	return e == ERR_OK ? e : err_add(e, "%s", path);
}

enum err key_public_load(const char *path, struct key **ret_key)
{
	struct buf pem;
	TRY(file_read(path, PEM_FILE_MAX, &pem));
	enum err e = key_public_parse(buf_bytes(&pem), ret_key);
	buf_deinit(&pem);
	return e == ERR_OK ? e : err_add(e, "%s", path);
}

enum err key_save(const struct key *k, const char *path)
{
	struct buf pem;
	TRY(key_pem(k, &pem));
	enum err e = file_replace(path, buf_bytes(&pem), 0600);
	secret_wipe(pem.p, pem.n);
	buf_deinit(&pem);
	return e;
}

enum err key_pem(const struct key *k, struct buf *ret_pem)
{
	unsigned char *der = NULL;
	ENSURE(k->has_private);
	PKCS8_PRIV_KEY_INFO *info = EVP_PKEY2PKCS8(k->pkey);
	ENSURE(info != NULL);
	int n = i2d_PKCS8_PRIV_KEY_INFO(info, &der);
	PKCS8_PRIV_KEY_INFO_free(info);
	ENSURE(n > 0);
	enum err e = ossl_pem_write(private_label, bytes_of(der, (size_t)n), ret_pem);
	OPENSSL_clear_free(der, (size_t)n);
	return e;
}

enum err key_public_pem(const struct key *k, struct buf *ret_pem)
{
	struct bytes der = public_der(k->pkey);
	enum err e = ossl_pem_write(public_label, der, ret_pem);
	der_free(der);
	return e;
}

struct digest key_public_digest(const struct key *k)
{
	struct bytes der = public_der(k->pkey);
	struct digest d = digest_of(der);
	der_free(der);
	return d;
}

void key_public_raw(const struct key *k, uint8_t ret_raw[KEY_RAW_SIZE])
{
	size_t n = RAW_SIZE;
	ENSURE(k->kind == KEY_ED25519);
	ENSURE(EVP_PKEY_get_raw_public_key(k->pkey, ret_raw, &n) == 1 && n == RAW_SIZE);
}

enum err key_public_from_raw(struct bytes raw, struct key **ret_key)
{
	if (raw.n != RAW_SIZE)
		return err_set(ERR_MALFORMED, "an Ed25519 public key has %d bytes, not %zu", RAW_SIZE, raw.n);
	EVP_PKEY *pkey = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, raw.p, raw.n);
	if (pkey == NULL)
		return ossl_err(ERR_MALFORMED, "not an Ed25519 public key");
	return ossl_key_take(pkey, false, ret_key);
}

void key_free(struct key *k)
{
	if (k == NULL)
		return;
	EVP_PKEY_free(k->pkey);
	free(k);
}

/* Ed25519 hashes by itself; a digest must not be named. */
static const EVP_MD *digest_for(const struct key *k)
{
	return k->kind == KEY_P256 ? EVP_sha256() : NULL;
}

enum err key_sign(const struct key *k, struct bytes message, uint8_t ret_signature[KEY_SIGNATURE_MAX], size_t *ret_n)
{
	uint8_t signature[KEY_SIGNATURE_MAX];
	size_t n = sizeof signature;
	ENSURE(k->has_private);
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	ENSURE(ctx != NULL);
	bool ok = EVP_DigestSignInit(ctx, NULL, digest_for(k), NULL, k->pkey) == 1 &&
		  EVP_DigestSign(ctx, signature, &n, message.p, message.n) == 1;
	EVP_MD_CTX_free(ctx);
	if (!ok)
		return ossl_err(ERR_CRYPTO, "cannot sign");
	memcpy(ret_signature, signature, n);
	*ret_n = n;
	return ERR_OK;
}

enum err key_verify(const struct key *k, struct bytes message, struct bytes signature)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	ENSURE(ctx != NULL);
	bool ok = EVP_DigestVerifyInit(ctx, NULL, digest_for(k), NULL, k->pkey) == 1 &&
		  EVP_DigestVerify(ctx, signature.p, signature.n, message.p, message.n) == 1;
	EVP_MD_CTX_free(ctx);
	return ok ? ERR_OK : ossl_err(ERR_UNAUTHENTIC, "the signature is not by this key over this content");
}
