/*
 * Reading and verifying certificates. What is read once is checked once, here: a `struct cert` has DER without a second
 * spelling, times that can be told, a positive serial number and a public key that OpenSSL understands.
 */
#include "crypto/cert.h"

#include "base/file.h"
#include "crypto/openssl.h"
#include "crypto/ossl.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char label[] = "CERTIFICATE";

/* DER of the certificate; free with OPENSSL_free(). */
static struct bytes cert_der(const struct cert *c)
{
	unsigned char *p = NULL;
	int n = i2d_X509(c->x509, &p);
	ENSURE(n > 0);
	return bytes_of(p, (size_t)n);
}

static void der_free(struct bytes der)
{
	OPENSSL_free((void *)(uintptr_t)der.p);
}

static bool time_ms(const ASN1_TIME *t, int64_t *ret_ms)
{
	struct tm tm = {0};
	if (ASN1_TIME_to_tm(t, &tm) != 1)
		return false;
	*ret_ms = (int64_t)timegm(&tm) * 1000;
	return true;
}

enum err ossl_cert_take(X509 *x509, struct cert **ret_cert)
{
	struct cert c = {.x509 = x509};
	const char *wrong = NULL;
	if (!time_ms(X509_get0_notBefore(x509), &c.not_before_ms) ||
	    !time_ms(X509_get0_notAfter(x509), &c.not_after_ms))
		wrong = "its validity is not a time";
	else if (ASN1_STRING_type(X509_get0_serialNumber(x509)) != V_ASN1_INTEGER)
		wrong = "its serial number is negative";
	else if (X509_get0_pubkey(x509) == NULL)
		wrong = "its public key cannot be read";
	if (wrong != NULL) {
		X509_free(x509);
		return ossl_err(ERR_MALFORMED, "not a usable certificate: %s", wrong);
	}
	*ret_cert = mem_new(sizeof c);
	**ret_cert = c;
	return ERR_OK;
}

enum err cert_parse(struct bytes pem, struct cert **ret_cert)
{
	struct ossl_der der = {0};
	unsigned char *again = NULL;
	enum err e = ERR_OK;
	TRY(ossl_pem_read(pem, label, &der));
	const uint8_t *p = der.p;
	X509 *x509 = d2i_X509(NULL, &p, der.n);
	int n = x509 == NULL ? 0 : i2d_X509(x509, &again);
	if (n <= 0 || n != der.n || memcmp(again, der.p, (size_t)n) != 0) {
		X509_free(x509);
		e = ossl_err(ERR_MALFORMED, "not a certificate in DER");
	} else {
		e = ossl_cert_take(x509, ret_cert);
	}
	OPENSSL_free(again);
	ossl_der_free(&der);
	return e;
}

enum err cert_load(const char *path, struct cert **ret_cert)
{
	struct buf pem;
	TRY(file_read(path, OSSL_PEM_MAX, &pem));
	enum err e = cert_parse(buf_bytes(&pem), ret_cert);
	buf_deinit(&pem);
	return e == ERR_OK ? e : err_add(e, "%s", path);
}

enum err cert_pem(const struct cert *c, struct buf *ret_pem)
{
	struct bytes der = cert_der(c);
	enum err e = ossl_pem_write(label, der, ret_pem);
	der_free(der);
	return e;
}

void cert_free(struct cert *c)
{
	if (c == NULL)
		return;
	X509_free(c->x509);
	free(c);
}

struct digest cert_fingerprint(const struct cert *c)
{
	struct bytes der = cert_der(c);
	struct digest d = digest_of(der);
	der_free(der);
	return d;
}

struct digest cert_key_digest(const struct cert *c)
{
	unsigned char *p = NULL;
	int n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(c->x509), &p);
	ENSURE(n > 0);
	struct digest d = digest_of(bytes_of(p, (size_t)n));
	OPENSSL_free(p);
	return d;
}

int64_t cert_not_before_ms(const struct cert *c)
{
	return c->not_before_ms;
}

int64_t cert_not_after_ms(const struct cert *c)
{
	return c->not_after_ms;
}

enum err cert_serial(const struct cert *c, char *out, size_t size)
{
	const ASN1_INTEGER *serial = X509_get0_serialNumber(c->x509);
	size_t n = (size_t)ASN1_STRING_length(serial);
	if (size < 2 * n + 1)
		return err_set(ERR_LIMIT, "a serial number of %zu bytes does not fit in %zu characters", n, size);
	hex_encode(ASN1_STRING_get0_data(serial), n, out);
	return ERR_OK;
}

enum err cert_identity(const struct cert *c, struct identity *ret_id)
{
	int critical = 0; /* also tells why there is no result: -2, more than one such extension */
	GENERAL_NAMES *names = X509_get_ext_d2i(c->x509, NID_subject_alt_name, &critical, NULL);
	if (names == NULL && critical == -2)
		return ossl_err(ERR_UNAUTHENTIC, "the certificate has several subject alternative name extensions");
	if (names == NULL)
		return ossl_err(ERR_UNAUTHENTIC, "the certificate has no readable subject alternative name");
	enum err e = ossl_san_identity(names, "the certificate", ret_id);
	GENERAL_NAMES_free(names);
	return e;
}

enum err cert_verify(const struct cert *c, const struct cert *ca, int64_t at_ms)
{
	return ossl_verify(c->x509, ca->x509, NULL, NULL, at_ms);
}

/* The only entry `nid` of a name as text; false when there is none, several, or too much of it. */
static bool name_entry(const X509_NAME *name, int nid, char *out, size_t size)
{
	int at = X509_NAME_get_index_by_NID(name, nid, -1);
	if (at < 0 || X509_NAME_get_index_by_NID(name, nid, at) >= 0)
		return false;
	const ASN1_STRING *s = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at));
	size_t n = (size_t)ASN1_STRING_length(s);
	if (n >= size || memchr(ASN1_STRING_get0_data(s), 0, n) != NULL)
		return false;
	memcpy(out, ASN1_STRING_get0_data(s), n);
	out[n] = '\0';
	return true;
}

enum err cert_ca_federation(const struct cert *c, char ret_federation[IDENTITY_PART_SIZE])
{
	char organisation[sizeof OSSL_CA_ORGANISATION];
	char federation[IDENTITY_PART_SIZE];
	struct identity id;
	const X509_NAME *name = X509_get_subject_name(c->x509);
	bool ok = X509_check_ca(c->x509) == 1 &&
		  name_entry(name, NID_organizationName, organisation, sizeof organisation) &&
		  strcmp(organisation, OSSL_CA_ORGANISATION) == 0 &&
		  name_entry(name, NID_commonName, federation, sizeof federation) &&
		  identity_make(ROLE_COORDINATOR, federation, NULL, &id) == ERR_OK;
	if (!ok)
		return ossl_err(ERR_MALFORMED, "not a Hansa CA certificate");
	memcpy(ret_federation, federation, sizeof federation);
	return ERR_OK;
}
