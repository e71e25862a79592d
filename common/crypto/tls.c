/*
 * TLS policy of the process: TLS 1.3 only, no session tickets (a ticket would let a revoked peer back in without its
 * certificate).
 *
 * gRPC's core makes its own SSL_CTX, sets the oldest version to 1.2 by itself and offers no way to say otherwise.
 * OpenSSL applies the section "system_default" to every new SSL_CTX; an option bit against TLS 1.2 set there is not
 * cleared by core. Loading that section from a string, after the machine's own configuration, also overrules a weak
 * OPENSSL_CONF. Whether all this worked is asked of a context made in the way core makes its own, so a change in
 * OpenSSL shows as a refusal to start.
 */
#include "crypto/tls.h"

#include "crypto/openssl.h"
#include "crypto/ossl.h"

#include <string.h>

static const char policy_conf[] =
	"openssl_conf = hansa\n"
	"[hansa]\n"
	"ssl_conf = ssl\n"
	"[ssl]\n"
	"system_default = policy\n"
	"[policy]\n"
	"MinProtocol = TLSv1.3\n"
	"Protocol = -SSLv3,-TLSv1,-TLSv1.1,-TLSv1.2\n"
	"Ciphersuites = TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256\n"
	"CipherString = DEFAULT:@SECLEVEL=2\n"
	"NumTickets = 0\n";

enum { SECURITY_LEVEL_MIN = 2 };

static const struct version_row {
	int version;
	uint64_t forbidden; /* the option bit that switches it off */
	const char *name;
} versions[] = {
	{SSL3_VERSION, SSL_OP_NO_SSLv3, "SSLv3"},       {TLS1_VERSION, SSL_OP_NO_TLSv1, "TLSv1"},
	{TLS1_1_VERSION, SSL_OP_NO_TLSv1_1, "TLSv1.1"}, {TLS1_2_VERSION, SSL_OP_NO_TLSv1_2, "TLSv1.2"},
	{TLS1_3_VERSION, SSL_OP_NO_TLSv1_3, "TLSv1.3"},
};

enum { VERSION_COUNT = sizeof versions / sizeof versions[0] };

/* As gRPC's core does it; whatever the system default did not nail down is open again. */
static SSL_CTX *core_context(void)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_method());
	ENSURE(ctx != NULL);
	ENSURE(SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) == 1);
	ENSURE(SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) == 1);
	return ctx;
}

static bool version_allowed(const struct version_row *row, SSL_CTX *ctx)
{
	long min = SSL_CTX_get_min_proto_version(ctx), max = SSL_CTX_get_max_proto_version(ctx);
	return row->version >= min && (max == 0 || row->version <= max) &&
	       (SSL_CTX_get_options(ctx) & row->forbidden) == 0;
}

static enum err load_conf(void)
{
	BIO *bio = BIO_new_mem_buf(policy_conf, sizeof policy_conf - 1);
	CONF *conf = NCONF_new(NULL);
	long line = 0;
	ENSURE(bio != NULL && conf != NULL);
	enum err e = ERR_OK;
	if (NCONF_load_bio(conf, bio, &line) != 1 || CONF_modules_load(conf, NULL, 0) <= 0)
		e = ossl_err(ERR_CRYPTO, "OpenSSL does not take the TLS policy");
	NCONF_free(conf);
	BIO_free(bio);
	return e;
}

enum err tls_policy_check(void)
{
	SSL_CTX *ctx = core_context();
	enum err e = ERR_OK;
	for (size_t i = 0; i < VERSION_COUNT; i++) {
		bool wanted = versions[i].version == TLS1_3_VERSION;
		if (e == ERR_OK && version_allowed(&versions[i], ctx) != wanted)
			e = err_set(ERR_CRYPTO, "TLS policy is not in force: %s is %s", versions[i].name,
				    wanted ? "missing" : "still possible");
	}
	if (e == ERR_OK && SSL_CTX_get_num_tickets(ctx) != 0)
		e = err_set(ERR_CRYPTO, "TLS policy is not in force: session tickets would be issued");
	if (e == ERR_OK && SSL_CTX_get_security_level(ctx) < SECURITY_LEVEL_MIN)
		e = err_set(ERR_CRYPTO, "TLS policy is not in force: OpenSSL security level is %d",
			    SSL_CTX_get_security_level(ctx));
	SSL_CTX_free(ctx);
	return e;
}

enum err tls_policy_install(void)
{
	/*
	 * First the machine's configuration, so that it cannot come later and overwrite ours. No clean-up at exit: a thread
	 * of gRPC may still be inside OpenSSL then.
	 */
	if (OPENSSL_init_ssl(OPENSSL_INIT_LOAD_CONFIG | OPENSSL_INIT_NO_ATEXIT, NULL) != 1)
		return ossl_err(ERR_CRYPTO, "OpenSSL does not start");
	TRY(load_conf());
	enum err e = tls_policy_check();
	ERR_clear_error();
	return e;
}

static enum err describe_protocols(SSL_CTX *ctx, struct buf *out)
{
	TRY(buf_printf(out, "protocols:"));
	for (size_t i = 0; i < VERSION_COUNT; i++) {
		if (version_allowed(&versions[i], ctx))
			TRY(buf_printf(out, " %s", versions[i].name));
	}
	return buf_printf(out, "\n");
}

static enum err describe_ciphers(const STACK_OF(SSL_CIPHER) * ciphers, struct buf *out)
{
	TRY(buf_printf(out, "cipher suites:"));
	for (int i = 0; i < sk_SSL_CIPHER_num(ciphers); i++)
		TRY(buf_printf(out, " %s", SSL_CIPHER_get_name(sk_SSL_CIPHER_value(ciphers, i))));
	return buf_printf(out, "\n");
}

enum err tls_policy_describe(struct buf *out)
{
	SSL_CTX *ctx = core_context();
	SSL *ssl = SSL_new(ctx);
	ENSURE(ssl != NULL);
	STACK_OF(SSL_CIPHER) *ciphers = SSL_get1_supported_ciphers(ssl); /* those that a protocol in force can use */
	enum err e = describe_protocols(ctx, out);
	if (e == ERR_OK)
		e = describe_ciphers(ciphers, out);
	if (e == ERR_OK)
		e = buf_printf(out, "session tickets: %zu\nsecurity level: %d\n", SSL_CTX_get_num_tickets(ctx),
			       SSL_CTX_get_security_level(ctx));
	sk_SSL_CIPHER_free(ciphers);
	SSL_free(ssl);
	SSL_CTX_free(ctx);
	ERR_clear_error();
	return e;
}
