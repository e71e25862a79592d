/*
 * Certificates, requests and identities from strangers. An input that begins like DER (30) is wrapped into PEM first,
 * so that mutations reach the ASN.1 and not only the base64 around it.
 */
#include "crypto/cert.h"
#include "crypto/ossl.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SEQUENCE = 0x30, SERIAL_ROOM = 256 };

static void try_identity(const uint8_t *p, size_t n)
{
	struct identity id;
	char text[IDENTITY_TEXT_SIZE];
	if (identity_parse((const char *)p, n, &id) != ERR_OK)
		return;
	/* One identity, one spelling. */
	identity_format(&id, text);
	ENSURE(strlen(text) == n && memcmp(text, p, n) == 0);
}

static void try_cert(struct bytes pem)
{
	struct cert *c = NULL, *again = NULL;
	struct identity id;
	struct buf text;
	char serial[SERIAL_ROOM], federation[IDENTITY_PART_SIZE], uri[IDENTITY_TEXT_SIZE];
	if (cert_parse(pem, &c) != ERR_OK)
		return;
	if (cert_identity(c, &id) == ERR_OK)
		try_identity((const uint8_t *)identity_format(&id, uri), strlen(uri));
	if (cert_serial(c, serial, sizeof serial) == ERR_OK)
		ENSURE(strlen(serial) % 2 == 0);
	if (cert_ca_federation(c, federation) == ERR_OK)
		ENSURE(federation[0] != '\0');
	if (cert_verify(c, c, cert_not_before_ms(c)) == ERR_OK)
		ENSURE(cert_not_before_ms(c) < cert_not_after_ms(c));
	/* One certificate, one fingerprint. */
	ENSURE(cert_pem(c, &text) == ERR_OK);
	ENSURE(cert_parse(buf_bytes(&text), &again) == ERR_OK);
	struct digest a = cert_fingerprint(c), b = cert_fingerprint(again);
	ENSURE(digest_equal(&a, &b));
	a = cert_key_digest(c);
	b = cert_key_digest(again);
	ENSURE(digest_equal(&a, &b));
	buf_deinit(&text);
	cert_free(again);
	cert_free(c);
}

static void try_csr(struct bytes pem)
{
	struct identity id;
	struct key *k = NULL;
	if (csr_parse(pem, &id, &k) != ERR_OK)
		return;
	ENSURE(key_kind_of(k) == KEY_P256 && !key_has_private(k));
	key_free(k);
}

static void try_der(const char *label, struct bytes der, void (*try_pem)(struct bytes pem))
{
	struct buf pem;
	ENSURE(ossl_pem_write(label, der, &pem) == ERR_OK);
	try_pem(buf_bytes(&pem));
	buf_deinit(&pem);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bytes input = bytes_of(data, size);
	try_identity(data, size);
	if (size > 0 && size <= OSSL_PEM_MAX / 2 && data[0] == SEQUENCE) {
		try_der("CERTIFICATE", input, try_cert);
		try_der("CERTIFICATE REQUEST", input, try_csr);
		return 0;
	}
	try_cert(input);
	try_csr(input);
	return 0;
}
