/*
 * Who gets in: certificates, identities, roles, the roster; TLS versions and tickets; and what a client thinks of a
 * server.
 */
#include "crypto/openssl.h"
#include "rpc/fixture.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

static atomic_int handled;
static atomic_int revoked; /* what authorize() says */

static enum err echo(void *ctx, const struct peer *peer, struct bytes request, struct buf *reply)
{
	(void)ctx;
	(void)peer;
	atomic_fetch_add(&handled, 1);
	return buf_append(reply, request.p, request.n);
}

static void answer_now(void *ctx, const struct peer *peer, struct bytes request, struct rpc_ticket *t)
{
	(void)ctx;
	(void)peer;
	atomic_fetch_add(&handled, 1);
	rpc_ticket_answer(t, ERR_OK, request);
}

static bool never_gone(void *ctx, struct rpc_ticket *t)
{
	(void)ctx;
	(void)t;
	return false;
}

static enum err authorize(void *ctx, const struct peer *peer)
{
	(void)ctx;
	if (atomic_load(&revoked))
		return err_set(ERR_DENIED, "%s has been revoked", peer->id.name);
	return ERR_OK;
}

static const struct rpc_handler handlers[METHOD_COUNT] = {
	[METHOD_ENROLL] = {.unary = echo},
	[METHOD_REPORT] = {.unary = echo},
	[METHOD_LIST_JOBS] = {.unary = echo},
	[METHOD_NEXT_TASK] = {.parked = answer_now},
};

static struct rpc_server *server_of(const struct fixture_id *id, bool client_certificates)
{
	struct rpc_server *s;
	struct rpc_server_config config = fixture_server_config(handlers, NULL);
	config.key_pem = buf_bytes(&id->key);
	config.cert_pem = buf_bytes(&id->cert);
	config.client_certificates = client_certificates;
	config.authorize = authorize;
	config.gone = never_gone;
	assert_ok(rpc_server_start(&config, &s));
	atomic_store(&handled, 0);
	return s;
}

static enum err call(struct rpc_client *c, enum method_id method)
{
	struct buf reply = {0};
	enum err e = rpc_client_call(c, method, bytes_str("x"), 10000, &reply);
	buf_deinit(&reply);
	return e;
}

/* One call by a new client. */
static enum err try_call(const struct rpc_server *s, const struct fixture_id *id, enum method_id method)
{
	struct rpc_client *c = fixture_client(s, id);
	enum err e = call(c, method);
	rpc_client_free(c);
	return e;
}

static void test_roles(void **state)
{
	(void)state;
	struct rpc_server *s = server_of(&fixture.coordinator, true);
	assert_ok(try_call(s, &fixture.plant, METHOD_REPORT));
	assert_ok(try_call(s, &fixture.plant, METHOD_NEXT_TASK));
	assert_ok(try_call(s, &fixture.operator, METHOD_LIST_JOBS));
	assert_int_equal(atomic_load(&handled), 3);
	assert_err(ERR_DENIED, try_call(s, &fixture.plant, METHOD_LIST_JOBS));
	assert_err(ERR_DENIED, try_call(s, &fixture.operator, METHOD_REPORT));
	assert_err(ERR_DENIED, try_call(s, &fixture.operator, METHOD_NEXT_TASK));
	assert_non_null(strstr(err_text(), "operator"));
	assert_err(ERR_DENIED, try_call(s, &fixture.coordinator, METHOD_REPORT));
	/* On the main port even enrolment needs the role that nobody with a certificate has. */
	assert_err(ERR_DENIED, try_call(s, &fixture.plant, METHOD_ENROLL));
	assert_int_equal(atomic_load(&handled), 3);
	struct rpc_server_stats stats;
	rpc_server_get_stats(s, &stats);
	assert_int_equal(stats.calls, 8);
	assert_int_equal(stats.refused, 5);
	rpc_server_stop(s, 1000);
}

static void test_certificates(void **state)
{
	(void)state;
	struct rpc_server *s = server_of(&fixture.coordinator, true);
	assert_err(ERR_UNAVAILABLE, try_call(s, NULL, METHOD_REPORT));
	assert_err(ERR_UNAVAILABLE, try_call(s, &fixture.stranger, METHOD_REPORT));
	assert_int_equal(atomic_load(&handled), 0);

	/* Signed by our CA, but of another federation, or out of date. */
	struct fixture_id other, old;
	struct fixture_ca same_key = fixture.ca;
	assert_ok(cert_make_ca(fixture.ca.key, "zeta", clock_wall_ms() - DAY_MS, clock_wall_ms() + DAY_MS,
			       &same_key.cert));
	fixture_id_make_until(&old, &fixture.ca, ROLE_PLANT, FEDERATION, "p1", NULL, clock_wall_ms() - 1000);
	assert_err(ERR_UNAVAILABLE, try_call(s, &old, METHOD_REPORT));
	fixture_id_make_until(&other, &fixture.ca, ROLE_PLANT, "zeta", "p1", NULL, clock_wall_ms() + DAY_MS);
	assert_err(ERR_UNAUTHENTIC, try_call(s, &other, METHOD_REPORT));
	assert_err(ERR_UNAUTHENTIC, try_call(s, &other, METHOD_NEXT_TASK));
	assert_int_equal(atomic_load(&handled), 0);
	assert_ok(try_call(s, &fixture.plant, METHOD_REPORT));
	cert_free(same_key.cert);
	fixture_id_free(&other);
	fixture_id_free(&old);
	rpc_server_stop(s, 1000);
}

/* The enrolment port asks for no certificate and serves nobody. */
static void test_nobody(void **state)
{
	(void)state;
	struct rpc_server *s = server_of(&fixture.coordinator, false);
	assert_ok(try_call(s, NULL, METHOD_ENROLL));
	assert_ok(try_call(s, &fixture.plant, METHOD_ENROLL));
	assert_err(ERR_DENIED, try_call(s, NULL, METHOD_REPORT));
	assert_err(ERR_DENIED, try_call(s, &fixture.plant, METHOD_REPORT));
	assert_int_equal(atomic_load(&handled), 2);
	rpc_server_stop(s, 1000);
}

/* Revoked while connected: the next call on the same connection is refused. */
static void test_roster(void **state)
{
	(void)state;
	struct rpc_server *s = server_of(&fixture.coordinator, true);
	struct rpc_client *c = fixture_client(s, &fixture.plant);
	assert_ok(call(c, METHOD_REPORT));
	assert_ok(call(c, METHOD_NEXT_TASK));
	atomic_store(&revoked, 1);
	assert_err(ERR_DENIED, call(c, METHOD_REPORT));
	assert_string_equal(err_text(), "p1 has been revoked");
	assert_err(ERR_DENIED, call(c, METHOD_NEXT_TASK));
	atomic_store(&revoked, 0);
	assert_ok(call(c, METHOD_REPORT));
	rpc_client_free(c);
	rpc_server_stop(s, 1000);
}

/* ---- what a client thinks of a server ---- */

static enum err call_with(const char *host, int port, const struct fixture_ca *ca, const char *federation)
{
	char address[64];
	struct rpc_client *c;
	snprintf(address, sizeof address, "%s:%d", host, port);
	struct rpc_client_config config = {.address = address,
					   .ca_pem = buf_bytes(&ca->pem),
					   .key_pem = buf_bytes(&fixture.plant.key),
					   .cert_pem = buf_bytes(&fixture.plant.cert),
					   .federation = federation};
	assert_ok(rpc_client_new(&config, &c));
	enum err e = call(c, METHOD_REPORT);
	rpc_client_free(c);
	return e;
}

static void test_server_identity(void **state)
{
	(void)state;
	struct rpc_server *s = server_of(&fixture.coordinator, true);
	int port = rpc_server_port(s);
	assert_ok(call_with("127.0.0.1", port, &fixture.ca, FEDERATION));
	/* The certificate says 127.0.0.1, not localhost. */
	assert_err(ERR_UNAUTHENTIC, call_with("localhost", port, &fixture.ca, FEDERATION));
	assert_non_null(strstr(err_text(), "localhost"));
	assert_err(ERR_UNAUTHENTIC, call_with("127.0.0.1", port, &fixture.other_ca, FEDERATION));
	assert_err(ERR_UNAUTHENTIC, call_with("127.0.0.1", port, &fixture.ca, "zeta"));
	assert_non_null(strstr(err_text(), "spiffe://acme/coordinator"));
	assert_int_equal(atomic_load(&handled), 1);
	rpc_server_stop(s, 1000);

	/* Certificates of our CA that are not the coordinator's. */
	s = server_of(&fixture.plant, true);
	assert_err(ERR_UNAUTHENTIC, call_with("127.0.0.1", rpc_server_port(s), &fixture.ca, FEDERATION));
	assert_int_equal(atomic_load(&handled), 0);
	rpc_server_stop(s, 1000);
	struct fixture_id old;
	fixture_id_make_until(&old, &fixture.ca, ROLE_COORDINATOR, FEDERATION, "", "127.0.0.1", clock_wall_ms() - 1000);
	s = server_of(&old, true);
	assert_err(ERR_UNAUTHENTIC, call_with("127.0.0.1", rpc_server_port(s), &fixture.ca, FEDERATION));
	rpc_server_stop(s, 1000);
	fixture_id_free(&old);
}

static void test_bad_files(void **state)
{
	(void)state;
	struct rpc_server *s;
	struct rpc_client *c;
	struct rpc_server_config config = fixture_server_config(handlers, NULL);
	config.gone = never_gone;
	config.cert_pem = buf_bytes(&fixture.plant.cert);
	assert_err(ERR_CONFIG, rpc_server_start(&config, &s));
	config.cert_pem = bytes_str("nonsense");
	assert_err(ERR_CONFIG, rpc_server_start(&config, &s));
	config = fixture_server_config(handlers, NULL);
	config.gone = never_gone;
	config.ca_pem = bytes_str("nonsense");
	assert_err(ERR_CONFIG, rpc_server_start(&config, &s));
	static const char *const addresses[] = {"127.0.0.1",   "unix:/tmp/x", "127.0.0.1:70000",
						"127.0.0.1:x", ":80",         ""};
	for (size_t i = 0; i < sizeof addresses / sizeof addresses[0]; i++) {
		config = fixture_server_config(handlers, NULL);
		config.gone = never_gone;
		config.listen = addresses[i];
		assert_err(ERR_CONFIG, rpc_server_start(&config, &s));
	}
	struct rpc_client_config cc = {
		.address = "unix:/x", .ca_pem = buf_bytes(&fixture.ca.pem), .federation = FEDERATION};
	assert_err(ERR_MALFORMED, rpc_client_new(&cc, &c));
	cc.address = "127.0.0.1:1";
	cc.ca_pem = (struct bytes){0};
	assert_err(ERR_CONFIG, rpc_client_new(&cc, &c));
	cc.ca_pem = buf_bytes(&fixture.ca.pem);
	cc.key_pem = buf_bytes(&fixture.plant.key);
	cc.cert_pem = buf_bytes(&fixture.operator.cert);
	assert_err(ERR_CONFIG, rpc_client_new(&cc, &c));
}

/* SO_REUSEPORT is off: a second server on the port is told so. */
static void test_port_taken(void **state)
{
	(void)state;
	char listen[64];
	struct rpc_server *first = server_of(&fixture.coordinator, true), *second;
	struct rpc_server_config config = fixture_server_config(handlers, NULL);
	snprintf(listen, sizeof listen, "127.0.0.1:%d", rpc_server_port(first));
	config.gone = never_gone;
	config.listen = listen;
	assert_err(ERR_IO, rpc_server_start(&config, &second));
	assert_ok(try_call(first, &fixture.plant, METHOD_REPORT));
	rpc_server_stop(first, 1000);
}

/* ---- a TLS client and a TLS server of OpenSSL's own ---- */

static void use(SSL_CTX *ctx, const struct fixture_id *id)
{
	BIO *key = BIO_new_mem_buf(id->key.p, (int)id->key.n), *cert = BIO_new_mem_buf(id->cert.p, (int)id->cert.n);
	EVP_PKEY *pkey = PEM_read_bio_PrivateKey(key, NULL, NULL, NULL);
	X509 *x509 = PEM_read_bio_X509(cert, NULL, NULL, NULL);
	assert_int_equal(SSL_CTX_use_certificate(ctx, x509), 1);
	assert_int_equal(SSL_CTX_use_PrivateKey(ctx, pkey), 1);
	X509_free(x509);
	EVP_PKEY_free(pkey);
	BIO_free(key);
	BIO_free(cert);
}

static struct sockaddr_in loopback(int port)
{
	return (struct sockaddr_in){
		.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static atomic_int tickets;

static int new_session(SSL *ssl, SSL_SESSION *session)
{
	(void)ssl;
	(void)session;
	atomic_fetch_add(&tickets, 1);
	return 0;
}

/* This version only: what the process's policy says is taken back for this one context. */
static SSL_CTX *context(const SSL_METHOD *method, int version)
{
	SSL_CTX *ctx = SSL_CTX_new(method);
	SSL_CTX_clear_options(ctx, SSL_OP_NO_TLSv1_2);
	assert_int_equal(SSL_CTX_set_min_proto_version(ctx, version), 1);
	assert_int_equal(SSL_CTX_set_max_proto_version(ctx, version), 1);
	return ctx;
}

/* Shakes hands; then reads what the server says first, which would bring tickets along. 0, or the reason of OpenSSL. */
static int shake(int port, int version)
{
	SSL_CTX *ctx = context(TLS_client_method(), version);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT);
	SSL_CTX_sess_set_new_cb(ctx, new_session);
	use(ctx, &fixture.plant);
	SSL *ssl = SSL_new(ctx);
	static const unsigned char h2[] = {2, 'h', '2'};
	SSL_set_alpn_protos(ssl, h2, sizeof h2);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in to = loopback(port);
	assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
	SSL_set_fd(ssl, fd);
	bool ok = SSL_connect(ssl) == 1;
	int reason = ok ? 0 : ERR_GET_REASON(ERR_peek_error());
	if (ok) {
		static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
		char in[256];
		assert_true(SSL_write(ssl, preface, sizeof preface - 1) > 0);
		assert_true(SSL_read(ssl, in, sizeof in) > 0);
		assert_int_equal(SSL_version(ssl), version);
	}
	SSL_free(ssl);
	close(fd);
	SSL_CTX_free(ctx);
	ERR_clear_error();
	return reason;
}

static void test_tls_versions(void **state)
{
	(void)state;
	struct rpc_server *s = server_of(&fixture.coordinator, true);
	assert_int_equal(shake(rpc_server_port(s), TLS1_3_VERSION), 0);
	assert_int_equal(atomic_load(&tickets), 0);
	/* gRPC hangs up without sending the alert. Any other reason would be one of the client's own. */
	assert_int_equal(shake(rpc_server_port(s), TLS1_2_VERSION), SSL_R_UNEXPECTED_EOF_WHILE_READING);
	rpc_server_stop(s, 1000);
}

struct foreign {
	int fd, port, version;
	pthread_t thread;
	atomic_int shaken, reason;
};

static void *foreign_main(void *arg)
{
	struct foreign *f = arg;
	SSL_CTX *ctx = context(TLS_server_method(), f->version);
	use(ctx, &fixture.coordinator);
	int fd = accept(f->fd, NULL, NULL);
	if (fd >= 0) {
		SSL *ssl = SSL_new(ctx);
		SSL_set_fd(ssl, fd);
		atomic_store(&f->shaken, SSL_accept(ssl) == 1);
		atomic_store(&f->reason, ERR_GET_REASON(ERR_peek_error()));
		SSL_free(ssl);
		close(fd);
	}
	SSL_CTX_free(ctx);
	ERR_clear_error();
	return NULL;
}

/* A server that only speaks TLS 1.2, with the right certificate. */
static void test_old_server(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		struct foreign f = {.version = i == 0 ? TLS1_2_VERSION : TLS1_3_VERSION};
		struct sockaddr_in at = loopback(0);
		socklen_t n = sizeof at;
		f.fd = socket(AF_INET, SOCK_STREAM, 0);
		assert_int_equal(bind(f.fd, (struct sockaddr *)&at, sizeof at), 0);
		assert_int_equal(listen(f.fd, 1), 0);
		assert_int_equal(getsockname(f.fd, (struct sockaddr *)&at, &n), 0);
		assert_int_equal(pthread_create(&f.thread, NULL, foreign_main, &f), 0);
		/* Neither speaks HTTP/2, so neither call succeeds; only the TLS handshakes differ. */
		assert_int_not_equal(call_with("127.0.0.1", ntohs(at.sin_port), &fixture.ca, FEDERATION), ERR_OK);
		pthread_join(f.thread, NULL);
		close(f.fd);
		assert_int_equal(atomic_load(&f.shaken), i);
		if (i == 0)
			assert_int_equal(atomic_load(&f.reason), SSL_R_UNSUPPORTED_PROTOCOL);
	}
}

/* Signed by our CA, but with two identities: made here by hand, because cert_issue() never would. */
static void test_two_identities(void **state)
{
	(void)state;
	BIO *in = BIO_new_mem_buf(fixture.plant.cert.p, (int)fixture.plant.cert.n);
	X509 *x = PEM_read_bio_X509(in, NULL, NULL, NULL);
	BIO_free(in);
	struct buf ca_key;
	assert_ok(key_pem(fixture.ca.key, &ca_key));
	in = BIO_new_mem_buf(ca_key.p, (int)ca_key.n);
	EVP_PKEY *ca = PEM_read_bio_PrivateKey(in, NULL, NULL, NULL);
	BIO_free(in);
	buf_deinit(&ca_key);
	X509_EXTENSION_free(X509_delete_ext(x, X509_get_ext_by_NID(x, NID_subject_alt_name, -1)));
	X509_EXTENSION *san = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name,
						  "URI:spiffe://acme/plant/p1,URI:spiffe://acme/operator/anna");
	assert_int_equal(X509_add_ext(x, san, -1), 1);
	assert_true(X509_sign(x, ca, EVP_sha256()) > 0);
	struct fixture_id two = {0};
	buf_init(&two.key, fixture.plant.key.n);
	assert_ok(buf_append(&two.key, fixture.plant.key.p, fixture.plant.key.n));
	BIO *out = BIO_new(BIO_s_mem());
	char *pem;
	assert_int_equal(PEM_write_bio_X509(out, x), 1);
	long pem_n = BIO_get_mem_data(out, &pem);
	buf_init(&two.cert, (size_t)pem_n);
	assert_ok(buf_append(&two.cert, pem, (size_t)pem_n));
	BIO_free(out);
	X509_EXTENSION_free(san);
	EVP_PKEY_free(ca);
	X509_free(x);

	struct rpc_server *s = server_of(&fixture.coordinator, true);
	assert_err(ERR_UNAUTHENTIC, try_call(s, &two, METHOD_REPORT));
	assert_err(ERR_UNAUTHENTIC, try_call(s, &two, METHOD_LIST_JOBS));
	assert_err(ERR_UNAUTHENTIC, try_call(s, &two, METHOD_NEXT_TASK));
	assert_int_equal(atomic_load(&handled), 0);
	rpc_server_stop(s, 1000);
	fixture_id_free(&two);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_roles),           cmocka_unit_test(test_certificates),
		cmocka_unit_test(test_nobody),          cmocka_unit_test(test_roster),
		cmocka_unit_test(test_server_identity), cmocka_unit_test(test_bad_files),
		cmocka_unit_test(test_port_taken),      cmocka_unit_test(test_tls_versions),
		cmocka_unit_test(test_old_server),      cmocka_unit_test(test_two_identities),
	};
	return cmocka_run_group_tests(tests, fixture_begin, fixture_end);
}
