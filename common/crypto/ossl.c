/*
 * What the files of this folder share about OpenSSL: its error queue, PEM, subject alternative names, chain
 * verification.
 */
#include "crypto/ossl.h"
#include "crypto/openssl.h"

#include "base/clock.h"

#include <arpa/inet.h>
#include <string.h>

/* Bits of security that keys and signatures of a chain must have: 2 is 112 bits (no SHA-1, no RSA below 2048). */
enum { AUTH_LEVEL = 2 };

enum err ossl_err(enum err code, const char *fmt, ...)
{
	char text[512];
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	ENSURE(n >= 0);
	/* The first entry of the queue is nearest to the cause. */
	const char *reason = ERR_reason_error_string(ERR_peek_error());
	ERR_clear_error();
	return reason == NULL ? err_set(code, "%s", text) : err_set(code, "%s (%s)", text, reason);
}

enum err ossl_pem_read(struct bytes pem, const char *label, struct ossl_der *ret_der)
{
	enum { FLAGS = PEM_FLAG_SECURE | PEM_FLAG_EAY_COMPATIBLE };
	char *name = NULL, *header = NULL;
	struct ossl_der der = {0};
	enum err e = ERR_OK;
	if (pem.n > OSSL_PEM_MAX)
		return err_set(ERR_LIMIT, "PEM text is larger than %d bytes", OSSL_PEM_MAX);
	/* An empty buffer is no memory BIO. */
	BIO *bio = BIO_new_mem_buf(pem.n == 0 ? "" : (const void *)pem.p, (int)pem.n);
	ENSURE(bio != NULL);
	if (PEM_read_bio_ex(bio, &name, &header, &der.p, &der.n, FLAGS) != 1) {
		e = ossl_err(ERR_MALFORMED, "no PEM block \"%s\" found", label);
		goto out;
	}
	if (strcmp(name, label) != 0) {
		e = err_set(ERR_MALFORMED, "PEM block is \"%.64s\", but \"%s\" is needed", name, label);
		goto out;
	}
	if (header[0] != '\0') {
		e = err_set(ERR_MALFORMED, "PEM block \"%s\" is encrypted or has headers; store it without", label);
		goto out;
	}
	*ret_der = der;
	der = (struct ossl_der){0};
out:
	OPENSSL_secure_free(name);
	OPENSSL_secure_free(header);
	ossl_der_free(&der);
	BIO_free(bio);
	return e;
}

void ossl_der_free(struct ossl_der *der)
{
	if (der->p != NULL)
		OPENSSL_secure_clear_free(der->p, (size_t)der->n);
	*der = (struct ossl_der){0};
}

enum err ossl_pem_write(const char *label, struct bytes der, struct buf *ret_pem)
{
	ENSURE(der.n <= OSSL_PEM_MAX);
	/* The secure BIO wipes what it held, which may have been a private key. */
	BIO *bio = BIO_new(BIO_s_secmem());
	ENSURE(bio != NULL);
	ENSURE(PEM_write_bio(bio, label, "", der.p, (long)der.n) > 0);
	char *text = NULL;
	long n = BIO_get_mem_data(bio, &text);
	ENSURE(n > 0);
	struct buf pem;
	buf_init(&pem, 2 * OSSL_PEM_MAX);
	enum err e = buf_append(&pem, text, (size_t)n);
	if (e == ERR_OK)
		*ret_pem = pem;
	else
		buf_deinit(&pem);
	BIO_free(bio);
	return e;
}

enum err ossl_san_identity(const struct stack_st_GENERAL_NAME *names, const char *what, struct identity *ret_id)
{
	const ASN1_IA5STRING *uri = NULL;
	int count = 0;
	struct identity id;
	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
		if (name->type != GEN_URI)
			continue;
		uri = name->d.uniformResourceIdentifier;
		count++;
	}
	if (count != 1)
		return err_set(ERR_UNAUTHENTIC, "%s must name exactly one URI, not %d", what, count);
	if (identity_parse((const char *)ASN1_STRING_get0_data(uri), (size_t)ASN1_STRING_length(uri), &id) != ERR_OK)
		return err_add(ERR_UNAUTHENTIC, "%s", what);
	*ret_id = id;
	return ERR_OK;
}

static GENERAL_NAME *ia5_name(int type, const char *text)
{
	GENERAL_NAME *name = GENERAL_NAME_new();
	ASN1_IA5STRING *s = ASN1_IA5STRING_new();
	ENSURE(name != NULL && s != NULL && ASN1_STRING_set(s, text, -1) == 1);
	GENERAL_NAME_set0_value(name, type, s);
	return name;
}

static GENERAL_NAME *ip_name(const char *text)
{
	GENERAL_NAME *name = GENERAL_NAME_new();
	ASN1_OCTET_STRING *ip = a2i_IPADDRESS(text);
	ENSURE(name != NULL && ip != NULL);
	GENERAL_NAME_set0_value(name, GEN_IPADD, ip);
	return name;
}

enum err ossl_san_make(const struct identity *id, const char *const *hosts, struct stack_st_GENERAL_NAME **ret_names)
{
	char uri[IDENTITY_TEXT_SIZE];
	GENERAL_NAMES *names = GENERAL_NAMES_new();
	ENSURE(names != NULL);
	ENSURE(sk_GENERAL_NAME_push(names, ia5_name(GEN_URI, identity_format(id, uri))) > 0);
	for (size_t i = 0; hosts != NULL && hosts[i] != NULL; i++) {
		enum host_kind kind;
		enum err e = i < CERT_HOSTS_MAX
				     ? host_parse(hosts[i], &kind)
				     : err_set(ERR_LIMIT, "a certificate names at most %d hosts", CERT_HOSTS_MAX);
		if (e != ERR_OK) {
			GENERAL_NAMES_free(names);
			return e;
		}
		GENERAL_NAME *name = kind == HOST_DNS ? ia5_name(GEN_DNS, hosts[i]) : ip_name(hosts[i]);
		ENSURE(sk_GENERAL_NAME_push(names, name) > 0);
	}
	*ret_names = names;
	return ERR_OK;
}

/* What OpenSSL found, in words that tell what to do. */
static const struct verify_text {
	int code;
	const char *text;
} verify_texts[] = {
	{X509_V_ERR_CERT_HAS_EXPIRED, "the certificate or its CA has expired"},
	{X509_V_ERR_CERT_NOT_YET_VALID, "the certificate or its CA is not valid yet; is the clock right?"},
	{X509_V_ERR_HOSTNAME_MISMATCH, "the certificate is for another host"},
	{X509_V_ERR_IP_ADDRESS_MISMATCH, "the certificate is for another IP address"},
	{X509_V_ERR_INVALID_PURPOSE, "the certificate is not one for a server"},
	{X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, "the certificate was not signed by this CA"},
	{X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY, "the certificate was not signed by this CA"},
	{X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE, "the certificate was not signed by this CA"},
	{X509_V_ERR_CERT_SIGNATURE_FAILURE, "the certificate was not signed by this CA"},
	{X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT, "the certificate was not signed by this CA"},
	{X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN, "the certificate was not signed by this CA"},
};

static enum err verify_failure(int code, int64_t at_ms)
{
	char at[CLOCK_TEXT_SIZE];
	const char *text = "the certificate does not verify";
	for (size_t i = 0; i < sizeof verify_texts / sizeof verify_texts[0]; i++) {
		if (verify_texts[i].code == code)
			text = verify_texts[i].text;
	}
	return err_set(ERR_UNAUTHENTIC, "%s (%s, checked for %s)", text, X509_verify_cert_error_string(code),
		       clock_format(at_ms, at));
}

static void verify_host(X509_VERIFY_PARAM *param, const struct address *host)
{
	if (host->kind == HOST_DNS) {
		X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT |
							       X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
		ENSURE(X509_VERIFY_PARAM_set1_host(param, host->host, 0) == 1);
	} else {
		ENSURE(X509_VERIFY_PARAM_set1_ip_asc(param, host->host) == 1);
	}
	ENSURE(X509_VERIFY_PARAM_set_purpose(param, X509_PURPOSE_SSL_SERVER) == 1);
}

enum err ossl_verify(X509 *leaf, X509 *ca, struct stack_st_X509 *others, const struct address *host, int64_t at_ms)
{
	/* A certificate in the trust store vouches for itself, so whether it may sign at all has to be asked before. */
	if (X509_check_ca(ca) != 1) {
		ERR_clear_error();
		return err_set(ERR_UNAUTHENTIC, "the issuing certificate is not one of a CA");
	}
	X509_STORE *store = X509_STORE_new();
	X509_STORE_CTX *ctx = X509_STORE_CTX_new();
	ENSURE(store != NULL && ctx != NULL);
	ENSURE(X509_STORE_add_cert(store, ca) == 1);
	ENSURE(X509_STORE_CTX_init(ctx, store, leaf, others) == 1);
	X509_VERIFY_PARAM *param = X509_STORE_CTX_get0_param(ctx);
	/* PARTIAL_CHAIN: the pinned CA may itself be signed by another one, as outside CAs are; gRPC verifies like this
	 * too. */
	X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_PARTIAL_CHAIN | X509_V_FLAG_TRUSTED_FIRST);
	X509_VERIFY_PARAM_set_auth_level(param, AUTH_LEVEL);
	X509_VERIFY_PARAM_set_time(param, (time_t)(at_ms / 1000));
	if (host != NULL)
		verify_host(param, host);
	enum err e = ERR_OK;
	if (X509_verify_cert(ctx) != 1)
		e = verify_failure(X509_STORE_CTX_get_error(ctx), at_ms);
	ERR_clear_error();
	X509_STORE_CTX_free(ctx);
	X509_STORE_free(store);
	return e;
}
