#include "rpc/credentials.h"

#include "crypto/cert.h"
#include "crypto/random.h"

#include <grpc/support/alloc.h>
#include <grpc/support/string_util.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REASON_SIZE = 512 };

/* Lives as long as the client or any TLS connection of it, whichever ends last: gRPC says when in destruct(). */
struct credentials_check {
	grpc_tls_certificate_verifier_external external;
	grpc_tls_certificate_verifier *host_name; /* owned */
	char federation[IDENTITY_PART_SIZE];
	atomic_bool ready; /* what stands above is written; makes it visible to gRPC's threads */
	atomic_int refs;
	pthread_mutex_t lock;
	char reason[REASON_SIZE]; /* under lock; "": none */
};

/* ---- PEM into gRPC ---- */

static char *text_of(struct bytes b)
{
	char *s = mem_new(b.n + 1);
	if (b.n > 0)
		memcpy(s, b.p, b.n);
	return s;
}

static void text_wipe(char *s)
{
	secret_wipe(s, strlen(s));
	free(s);
}

/* gRPC would only log a key that does not fit and then fail every handshake. */
static enum err check_pair(const struct credentials_pem *pem)
{
	struct key *key = NULL;
	struct cert *cert = NULL, *ca = NULL;
	enum err e = pem->ca.n > 0 ? cert_parse(pem->ca, &ca) : ERR_OK;
	if (e != ERR_OK) {
		err_set(ERR_CONFIG, "CA certificate: %s", err_text());
		goto out;
	}
	if (pem->key.n == 0 && pem->cert.n == 0)
		goto out;
	e = key_parse(pem->key, &key);
	if (e == ERR_OK)
		e = cert_parse(pem->cert, &cert);
	if (e != ERR_OK) {
		err_set(ERR_CONFIG, "key or certificate: %s", err_text());
		goto out;
	}
	struct digest of_key = key_public_digest(key), of_cert = cert_key_digest(cert);
	if (!key_has_private(key) || !digest_equal(&of_key, &of_cert))
		e = err_set(ERR_CONFIG, "the private key does not belong to the certificate");
out:
	key_free(key);
	cert_free(cert);
	cert_free(ca);
	return e == ERR_OK ? ERR_OK : ERR_CONFIG;
}

static grpc_tls_credentials_options *options_new(const struct credentials_pem *pem)
{
	grpc_tls_identity_pairs *pairs = NULL;
	if (pem->key.n > 0) {
		char *key = text_of(pem->key), *cert = text_of(pem->cert);
		pairs = grpc_tls_identity_pairs_create();
		grpc_tls_identity_pairs_add_pair(pairs, key, cert);
		text_wipe(key);
		free(cert);
	}
	char *ca = pem->ca.n > 0 ? text_of(pem->ca) : NULL;
	grpc_tls_certificate_provider *provider = grpc_tls_certificate_provider_static_data_create(ca, pairs);
	free(ca);
	grpc_tls_credentials_options *options = grpc_tls_credentials_options_create();
	grpc_tls_credentials_options_set_certificate_provider(options, provider);
	grpc_tls_certificate_provider_release(provider);
	if (pairs != NULL)
		grpc_tls_credentials_options_watch_identity_key_cert_pairs(options);
	return options;
}

enum err credentials_server(const struct credentials_pem *pem, bool client_certificates,
			    grpc_server_credentials **ret_creds)
{
	TRY(check_pair(pem));
	if (pem->key.n == 0 || (client_certificates && pem->ca.n == 0))
		return err_set(ERR_CONFIG, "a server needs a key, a certificate and the CA of its clients");
	grpc_tls_credentials_options *options = options_new(pem);
	if (client_certificates)
		grpc_tls_credentials_options_watch_root_certs(options);
	grpc_tls_credentials_options_set_cert_request_type(
		options, client_certificates ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
					     : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE);
	grpc_server_credentials *creds = grpc_tls_server_credentials_create(options);
	if (creds == NULL)
		return err_set(ERR_CRYPTO, "gRPC refuses the server's TLS settings");
	*ret_creds = creds;
	return ERR_OK;
}

/* ---- the client's check of the server ---- */

void credentials_check_free(struct credentials_check *check)
{
	if (check == NULL || atomic_fetch_sub(&check->refs, 1) > 1)
		return;
	grpc_tls_certificate_verifier_release(check->host_name);
	pthread_mutex_destroy(&check->lock);
	free(check);
}

static void check_destruct(void *user_data)
{
	credentials_check_free(user_data);
}

static void check_cancel(void *user_data, grpc_tls_custom_verification_check_request *request)
{
	(void)user_data;
	(void)request;
}

/* Never called: the host name check answers at once. */
static void check_done(grpc_tls_custom_verification_check_request *request, void *arg, grpc_status_code status,
		       const char *details)
{
	(void)request;
	(void)arg;
	(void)status;
	(void)details;
}

static enum err check_identity(const struct credentials_check *check, const char *pem)
{
	struct cert *cert;
	struct identity id, expected;
	char is[IDENTITY_TEXT_SIZE], should_be[IDENTITY_TEXT_SIZE];
	if (pem == NULL)
		return err_set(ERR_UNAUTHENTIC, "the server showed no certificate");
	TRY(identity_make(ROLE_COORDINATOR, check->federation, "", &expected));
	TRY(cert_parse(bytes_str(pem), &cert));
	enum err e = cert_identity(cert, &id);
	cert_free(cert);
	if (e != ERR_OK)
		return err_add(e, "the server's certificate");
	if (!identity_equal(&id, &expected))
		return err_set(ERR_UNAUTHENTIC, "the server is %s, not %s", identity_format(&id, is),
			       identity_format(&expected, should_be));
	return ERR_OK;
}

static int check_verify(void *user_data, grpc_tls_custom_verification_check_request *request,
			grpc_tls_on_custom_verification_check_done_cb done, void *done_arg,
			grpc_status_code *ret_status, char **ret_details)
{
	(void)done;
	(void)done_arg;
	struct credentials_check *check = user_data;
	char reason[REASON_SIZE] = "";
	grpc_status_code status = GRPC_STATUS_OK;
	char *details = NULL;
	ENSURE(atomic_load(&check->ready));
	int sync = grpc_tls_certificate_verifier_verify(check->host_name, request, check_done, NULL, &status, &details);
	if (!sync || status != GRPC_STATUS_OK)
		snprintf(reason, sizeof reason, "the server's certificate is not for %s (%s)",
			 request->target_name != NULL ? request->target_name : "?",
			 details != NULL ? details : "no reason given");
	else if (check_identity(check, request->peer_info.peer_cert) != ERR_OK)
		snprintf(reason, sizeof reason, "%s", err_text());
	gpr_free(details);
	if (reason[0] == '\0') {
		*ret_status = GRPC_STATUS_OK;
		return 1;
	}
	pthread_mutex_lock(&check->lock);
	memcpy(check->reason, reason, sizeof reason);
	pthread_mutex_unlock(&check->lock);
	*ret_status = GRPC_STATUS_UNAUTHENTICATED;
	*ret_details = gpr_strdup(reason);
	return 1;
}

enum err credentials_client(const struct credentials_pem *pem, const char *federation,
			    struct credentials_check **ret_check, grpc_channel_credentials **ret_creds)
{
	struct identity expected;
	TRY(check_pair(pem));
	TRY(identity_make(ROLE_COORDINATOR, federation, "", &expected));
	if (pem->ca.n == 0)
		return err_set(ERR_CONFIG, "a client needs the CA of its federation");
	struct credentials_check *check = mem_new(sizeof *check);
	atomic_init(&check->refs, 2); /* the caller's and gRPC's */
	pthread_mutex_init(&check->lock, NULL);
	memcpy(check->federation, expected.federation, sizeof check->federation);
	check->host_name = grpc_tls_certificate_verifier_host_name_create();
	check->external = (grpc_tls_certificate_verifier_external){
		.user_data = check, .verify = check_verify, .cancel = check_cancel, .destruct = check_destruct};
	atomic_store(&check->ready, true);

	grpc_tls_credentials_options *options = options_new(pem);
	grpc_tls_credentials_options_watch_root_certs(options);
	grpc_tls_certificate_verifier *verifier = grpc_tls_certificate_verifier_external_create(&check->external);
	grpc_tls_credentials_options_set_certificate_verifier(options, verifier);
	grpc_tls_certificate_verifier_release(verifier);
	grpc_channel_credentials *creds = grpc_tls_credentials_create(options);
	if (creds == NULL) {
		credentials_check_free(check);
		return err_set(ERR_CRYPTO, "gRPC refuses the client's TLS settings");
	}
	*ret_check = check;
	*ret_creds = creds;
	return ERR_OK;
}

bool credentials_check_take(struct credentials_check *check, char *out, size_t size)
{
	pthread_mutex_lock(&check->lock);
	bool refused = check->reason[0] != '\0';
	if (refused)
		snprintf(out, size, "%s", check->reason);
	check->reason[0] = '\0';
	pthread_mutex_unlock(&check->lock);
	return refused;
}
