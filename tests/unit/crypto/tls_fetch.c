/*
 * tls_fetch_ca() against small servers in a thread of this process, most of which are up to no good.
 */
#include "crypto/tls.h"

#include "base/clock.h"
#include "crypto/forge.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>

enum { TIMEOUT_MS = 20000 }; /* only ever waited for when something is broken */

enum behaviour { SPEAK_TLS, STAY_SILENT, CLOSE_AT_ONCE, SPEAK_HTTP };

struct server {
	int fd;
	char address[64];
	enum behaviour behaviour;
	SSL_CTX *ctx;
	pthread_t thread;
};

static struct authority ca, other_ca;
static struct key *leaf_key;
static int64_t now; /* the real time: tls_fetch_ca() looks at the clock */

static int setup(void **state)
{
	(void)state;
	now = clock_wall_ms();
	signal(SIGPIPE, SIG_IGN);
	authority_make(&ca, "example.org", now);
	authority_make(&other_ca, "example.org", now);
	assert_ok(key_generate(KEY_P256, &leaf_key));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	authority_free(&ca);
	authority_free(&other_ca);
	key_free(leaf_key);
	return 0;
}

static void serve_one(struct server *s, int fd)
{
	static const char http[] = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";
	char sink[512];
	if (s->behaviour == CLOSE_AT_ONCE)
		return;
	if (s->behaviour == SPEAK_HTTP && write(fd, http, sizeof http - 1) < 0)
		return;
	if (s->behaviour == SPEAK_TLS) {
		SSL *ssl = SSL_new(s->ctx);
		SSL_set_fd(ssl, fd);
		(void)SSL_accept(ssl);
		SSL_free(ssl);
	}
	while (read(fd, sink, sizeof sink) > 0)
		continue; /* until the client hangs up */
}

static void *server_main(void *arg)
{
	struct server *s = arg;
	int fd = accept(s->fd, NULL, NULL);
	if (fd < 0)
		return NULL;
	serve_one(s, fd);
	close(fd);
	return NULL;
}

static int bind_loopback(const char *host, char *address, size_t size)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof sin;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&sin, n), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sin, &n), 0);
	snprintf(address, size, "%s:%u", host, (unsigned)ntohs(sin.sin_port));
	return fd;
}

static void server_start(struct server *s, const char *host)
{
	s->fd = bind_loopback(host, s->address, sizeof s->address);
	assert_int_equal(listen(s->fd, 4), 0);
	assert_int_equal(pthread_create(&s->thread, NULL, server_main, s), 0);
}

static void server_stop(struct server *s)
{
	shutdown(s->fd, SHUT_RDWR); /* in case that nobody came */
	assert_int_equal(pthread_join(s->thread, NULL), 0);
	close(s->fd);
	SSL_CTX_free(s->ctx);
	ERR_clear_error();
}

static SSL_CTX *server_context(X509 *leaf, EVP_PKEY *key, X509 *const *chain)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
	assert_int_equal(SSL_CTX_use_certificate(ctx, leaf), 1);
	assert_int_equal(SSL_CTX_use_PrivateKey(ctx, key), 1);
	for (; *chain != NULL; chain++)
		assert_int_equal(SSL_CTX_add1_chain_cert(ctx, *chain), 1);
	return ctx;
}

struct scenario {
	const char *dial;          /* host part of the address; NULL: 127.0.0.1 */
	const char *hosts[3];      /* in the leaf; empty: 127.0.0.1 */
	struct authority *signer;  /* NULL: ca */
	enum role role;            /* 0: coordinator */
	int64_t from_ms, to_ms;    /* 0, 0: now */
	X509 *shown[3];            /* after the leaf; empty: the CA */
	bool show_nothing;         /* but the leaf */
	const struct digest *want; /* NULL: the CA's fingerprint */
	bool tls12;
};

/* The certificate under test: that of the coordinator, unless the scenario says otherwise. */
static struct cert *scenario_leaf(const struct scenario *sc)
{
	static const char *const loopback[] = {"127.0.0.1", NULL};
	struct authority *signer = sc->signer == NULL ? &ca : sc->signer;
	struct identity id = identity_of(sc->role == ROLE_NONE ? ROLE_COORDINATOR : sc->role, "example.org",
					 sc->role == ROLE_NONE ? NULL : "someone");
	struct cert *leaf = NULL;
	int64_t from_ms = sc->from_ms == 0 ? now - DAY_MS : sc->from_ms,
		to_ms = sc->to_ms == 0 ? now + DAY_MS : sc->to_ms;
	assert_ok(cert_issue(signer->cert, signer->key, leaf_key, &id, sc->hosts[0] == NULL ? loopback : sc->hosts,
			     from_ms, to_ms, &leaf));
	return leaf;
}

static enum err run(const struct scenario *sc)
{
	X509 *const just_ca[] = {ca.cert->x509, NULL}, *const nothing[] = {NULL};
	struct digest ca_print = cert_fingerprint(ca.cert);
	struct cert *leaf = scenario_leaf(sc);
	struct server s = {.behaviour = SPEAK_TLS};
	struct buf pem = {0};
	s.ctx = server_context(leaf->x509, leaf_key->pkey,
			       sc->show_nothing       ? nothing
			       : sc->shown[0] == NULL ? just_ca
						      : sc->shown);
	if (sc->tls12)
		assert_int_equal(SSL_CTX_set_max_proto_version(s.ctx, TLS1_2_VERSION), 1);
	server_start(&s, sc->dial == NULL ? "127.0.0.1" : sc->dial);
	enum err e = tls_fetch_ca(s.address, sc->want == NULL ? &ca_print : sc->want, TIMEOUT_MS, &pem);
	assert_int_equal(ERR_peek_error(), 0);
	server_stop(&s);
	if (e == ERR_OK) {
		struct cert *got = NULL;
		assert_ok(cert_parse(buf_bytes(&pem), &got));
		struct digest d = cert_fingerprint(got);
		assert_true(digest_equal(&d, sc->want == NULL ? &ca_print : sc->want));
		cert_free(got);
		buf_deinit(&pem);
	} else {
		assert_null(pem.p);
		assert_non_null(strstr(err_text(), s.address));
	}
	cert_free(leaf);
	return e;
}

static void test_good(void **state)
{
	(void)state;
	assert_ok(run(&(struct scenario){0}));
	assert_ok(run(&(struct scenario){.dial = "localhost", .hosts = {"localhost"}}));
	assert_ok(run(&(struct scenario){.dial = "localhost", .hosts = {"10.0.0.1", "localhost"}}));
	/* The CA may stand anywhere in the chain, and others beside it. */
	assert_ok(run(&(struct scenario){.shown = {other_ca.cert->x509, ca.cert->x509}}));
}

static void test_wrong_fingerprint(void **state)
{
	(void)state;
	struct digest other = cert_fingerprint(other_ca.cert), one_bit = cert_fingerprint(ca.cert), zero = {{0}};
	one_bit.b[31] ^= 1;
	assert_err(ERR_UNAUTHENTIC, run(&(struct scenario){.want = &other}));
	assert_err(ERR_UNAUTHENTIC, run(&(struct scenario){.want = &one_bit}));
	assert_err(ERR_UNAUTHENTIC, run(&(struct scenario){.want = &zero}));
	assert_err(ERR_UNAUTHENTIC, run(&(struct scenario){.show_nothing = true}));
	assert_err(ERR_UNAUTHENTIC, run(&(struct scenario){.shown = {other_ca.cert->x509}}));
}

/* Anybody can copy the CA's certificate into his chain; his own leaf must still be signed by it. */
static void test_borrowed_ca(void **state)
{
	(void)state;
	assert_err(ERR_UNAUTHENTIC, run(&(struct scenario){.signer = &other_ca}));
	assert_non_null(strstr(err_text(), "not signed by this CA"));
	assert_err(ERR_UNAUTHENTIC,
		   run(&(struct scenario){.signer = &other_ca, .shown = {other_ca.cert->x509, ca.cert->x509}}));
	/* A plant has a certificate of the right CA, but not one for a server. */
	assert_err(ERR_UNAUTHENTIC, run(&(struct scenario){.role = ROLE_PLANT}));
	assert_non_null(strstr(err_text(), "not one for a server"));
	assert_err(ERR_UNAUTHENTIC, run(&(struct scenario){.role = ROLE_OPERATOR}));
}

static void test_leaf_as_ca(void **state)
{
	(void)state;
	struct identity id = identity_of(ROLE_COORDINATOR, "example.org", NULL);
	static const char *const hosts[] = {"127.0.0.1", NULL};
	X509 *const nothing[] = {NULL};
	struct cert *leaf = NULL;
	struct buf pem = {0};
	assert_ok(cert_issue(ca.cert, ca.key, leaf_key, &id, hosts, now - DAY_MS, now + DAY_MS, &leaf));
	struct digest print = cert_fingerprint(leaf);
	struct server s = {.behaviour = SPEAK_TLS, .ctx = server_context(leaf->x509, leaf_key->pkey, nothing)};
	server_start(&s, "127.0.0.1");
	assert_err(ERR_UNAUTHENTIC, tls_fetch_ca(s.address, &print, TIMEOUT_MS, &pem));
	assert_non_null(strstr(err_text(), "not one of a CA"));
	server_stop(&s);
	cert_free(leaf);
}

static void test_wrong_host(void **state)
{
	(void)state;
	assert_err(ERR_UNAUTHENTIC, run(&(struct scenario){.hosts = {"127.0.0.2"}}));
	assert_err(ERR_UNAUTHENTIC, run(&(struct scenario){.hosts = {"localhost"}})); /* dialled by its IP address */
	assert_err(ERR_UNAUTHENTIC, run(&(struct scenario){.dial = "localhost"}));    /* and the other way round */
	assert_err(ERR_UNAUTHENTIC, run(&(struct scenario){.dial = "localhost", .hosts = {"localhost.example.org"}}));
}

static void test_times(void **state)
{
	(void)state;
	assert_err(ERR_UNAUTHENTIC, run(&(struct scenario){.from_ms = now - 9 * DAY_MS, .to_ms = now - DAY_MS}));
	assert_non_null(strstr(err_text(), "expired"));
	assert_err(ERR_UNAUTHENTIC, run(&(struct scenario){.from_ms = now + DAY_MS, .to_ms = now + 9 * DAY_MS}));
	assert_non_null(strstr(err_text(), "not valid yet"));
}

static void test_tls12_server(void **state)
{
	(void)state;
	assert_err(ERR_UNAUTHENTIC, run(&(struct scenario){.tls12 = true}));
}

/* An outside CA with an intermediate: the pinned one is the root, or the intermediate itself. */
static void test_outside_ca(void **state)
{
	(void)state;
	static const struct forge_name names[] = {
		{GEN_URI, "spiffe://example.org/coordinator", 0}, {GEN_DNS, "localhost", 0}, {0}};
	int64_t from_ms = now - DAY_MS, to_ms = now + DAY_MS;
	EVP_PKEY *root_k = forge_key("P-384"), *mid_k = forge_key("P-256");
	X509 *root = forge_x509(&(struct forge_cert){.key = root_k, .is_ca = true, .from_ms = from_ms, .to_ms = to_ms});
	X509 *mid = forge_x509(&(struct forge_cert){
		.key = mid_k, .issuer = root, .issuer_key = root_k, .is_ca = true, .from_ms = from_ms, .to_ms = to_ms});
	X509 *leaf = forge_x509(&(struct forge_cert){.key = leaf_key->pkey,
						     .issuer = mid,
						     .issuer_key = mid_k,
						     .names = names,
						     .usage = "serverAuth",
						     .from_ms = from_ms,
						     .to_ms = to_ms});
	X509 *const chain[] = {mid, root, NULL}, *pinned[] = {root, mid};
	for (size_t i = 0; i < 2; i++) {
		struct digest print;
		struct buf pem;
		struct server s = {.behaviour = SPEAK_TLS, .ctx = server_context(leaf, leaf_key->pkey, chain)};
		assert_int_equal(X509_digest(pinned[i], EVP_sha256(), print.b, NULL), 1);
		server_start(&s, "localhost");
		assert_ok(tls_fetch_ca(s.address, &print, TIMEOUT_MS, &pem));
		server_stop(&s);
		buf_deinit(&pem);
	}
	X509_free(root);
	X509_free(mid);
	X509_free(leaf);
	EVP_PKEY_free(root_k);
	EVP_PKEY_free(mid_k);
}

static void test_long_chain(void **state)
{
	(void)state;
	enum { COPIES = 250 }; /* over 64 KiB */
	struct digest print = cert_fingerprint(ca.cert);
	struct cert *leaf = scenario_leaf(&(struct scenario){0});
	X509 *chain[COPIES + 1] = {NULL};
	struct buf pem;
	for (size_t i = 0; i < COPIES; i++)
		chain[i] = ca.cert->x509;
	struct server s = {.behaviour = SPEAK_TLS, .ctx = server_context(leaf->x509, leaf_key->pkey, chain)};
	server_start(&s, "127.0.0.1");
	assert_err(ERR_UNAUTHENTIC, tls_fetch_ca(s.address, &print, TIMEOUT_MS, &pem));
	server_stop(&s);
	cert_free(leaf);
}

static void test_no_tls(void **state)
{
	(void)state;
	static const struct {
		enum behaviour behaviour;
		int64_t timeout_ms;
		enum err want;
	} cases[] = {
		{STAY_SILENT, 100, ERR_DEADLINE},
		{STAY_SILENT, 0, ERR_DEADLINE},
		{CLOSE_AT_ONCE, TIMEOUT_MS, ERR_UNAVAILABLE},
		{SPEAK_HTTP, TIMEOUT_MS, ERR_UNAUTHENTIC},
	};
	struct digest print = cert_fingerprint(ca.cert);
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct buf pem;
		struct server s = {.behaviour = cases[i].behaviour};
		server_start(&s, "127.0.0.1");
		assert_err(cases[i].want, tls_fetch_ca(s.address, &print, cases[i].timeout_ms, &pem));
		assert_int_equal(ERR_peek_error(), 0);
		server_stop(&s);
	}
}

static void test_nobody_there(void **state)
{
	(void)state;
	char address[64];
	struct digest print = cert_fingerprint(ca.cert);
	struct buf pem;
	int fd = bind_loopback("127.0.0.1", address, sizeof address); /* bound, but not listening: refused */
	assert_err(ERR_UNAVAILABLE, tls_fetch_ca(address, &print, TIMEOUT_MS, &pem));
	close(fd);
	static const char *const bad[] = {"",      "127.0.0.1",    "127.0.0.1:0", "http://127.0.0.1:1",
					  "::1:5", "*.example:443"};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_err(ERR_MALFORMED, tls_fetch_ca(bad[i], &print, TIMEOUT_MS, &pem));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),         cmocka_unit_test(test_wrong_fingerprint),
		cmocka_unit_test(test_borrowed_ca),  cmocka_unit_test(test_leaf_as_ca),
		cmocka_unit_test(test_wrong_host),   cmocka_unit_test(test_times),
		cmocka_unit_test(test_tls12_server), cmocka_unit_test(test_outside_ca),
		cmocka_unit_test(test_long_chain),   cmocka_unit_test(test_no_tls),
		cmocka_unit_test(test_nobody_there),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
