/*
 * The TLS policy, asked of contexts made in the way gRPC's core makes them, with real handshakes in memory. The order
 * of the tests matters: the policy is the process's, so what holds without it is shown first.
 */
#include "crypto/tls.h"

#include "crypto/forge.h"

#include <sys/wait.h>

static struct authority ca;
static struct key *server_key;
static struct cert *server_cert;

static int teardown(void **state)
{
	(void)state;
	cert_free(server_cert);
	key_free(server_key);
	authority_free(&ca);
	return 0;
}

static const char golden[] =
	"protocols: TLSv1.3\n"
	"cipher suites: TLS_AES_128_GCM_SHA256 TLS_AES_256_GCM_SHA384 TLS_CHACHA20_POLY1305_SHA256\n"
	"session tickets: 0\n"
	"security level: 2\n";

/* Exit codes of the child below. */
enum { CHILD_OK, CHILD_NOT_WEAK, CHILD_NOT_INSTALLED, CHILD_OTHER_TEXT };

static int weak_child(const char *conf_path)
{
	struct buf text;
	buf_init(&text, 4096);
	if (setenv("OPENSSL_CONF", conf_path, 1) != 0)
		return CHILD_NOT_WEAK;
	/* The weak file must have been read for the test to mean anything. */
	if (tls_policy_check() != ERR_CRYPTO || tls_policy_describe(&text) != ERR_OK ||
	    strstr(buf_str(&text), "security level: 0\n") == NULL ||
	    strstr(buf_str(&text), "session tickets: 5\n") == NULL)
		return CHILD_NOT_WEAK;
	if (tls_policy_install() != ERR_OK)
		return CHILD_NOT_INSTALLED;
	buf_reset(&text);
	if (tls_policy_describe(&text) != ERR_OK || strcmp(buf_str(&text), golden) != 0)
		return CHILD_OTHER_TEXT;
	buf_deinit(&text);
	return CHILD_OK;
}

/* A machine whose own OpenSSL configuration is weak; in a child, since it is read once in a process. */
static void test_weak_machine(void **state)
{
	(void)state;
	static const char conf[] = "openssl_conf = o\n[o]\nssl_conf = s\n[s]\nsystem_default = d\n[d]\n"
				   "MinProtocol = TLSv1\nCipherString = ALL:@SECLEVEL=0\nNumTickets = 5\n";
	struct tempdir dir;
	char path[PATH_SIZE];
	int status = 0;
	tempdir_make(&dir);
	assert_ok(file_replace(path_join(path, dir.path, "openssl.cnf"), bytes_str(conf), 0644));
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(weak_child(path));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), CHILD_OK);
	tempdir_remove(&dir);
}

static int tickets_seen;

static int on_ticket(SSL *ssl, SSL_SESSION *session)
{
	(void)ssl;
	(void)session;
	tickets_seen++;
	return 0;
}

static SSL_CTX *core_like(void)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_method());
	assert_int_equal(SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION), 1);
	assert_int_equal(SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION), 1);
	return ctx;
}

/* Somebody who speaks this version and no other, whatever the policy says. */
static SSL_CTX *only(int version, uint64_t forbidden)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_method());
	SSL_CTX_clear_options(ctx, forbidden);
	assert_int_equal(SSL_CTX_set_min_proto_version(ctx, version), 1);
	assert_int_equal(SSL_CTX_set_max_proto_version(ctx, version), 1);
	return ctx;
}

/* Takes both contexts. Returns the version agreed on, 0 when there is none; counts the tickets that the client gets. */
static int handshake(SSL_CTX *server_ctx, SSL_CTX *client_ctx)
{
	BIO *server_bio = NULL, *client_bio = NULL;
	assert_int_equal(SSL_CTX_use_certificate(server_ctx, server_cert->x509), 1);
	assert_int_equal(SSL_CTX_use_PrivateKey(server_ctx, server_key->pkey), 1);
	SSL_CTX_set_session_cache_mode(client_ctx, SSL_SESS_CACHE_CLIENT);
	SSL_CTX_sess_set_new_cb(client_ctx, on_ticket);
	SSL *server = SSL_new(server_ctx), *client = SSL_new(client_ctx);
	assert_int_equal(BIO_new_bio_pair(&server_bio, 0, &client_bio, 0), 1);
	SSL_set_bio(server, server_bio, server_bio);
	SSL_set_bio(client, client_bio, client_bio);
	SSL_set_accept_state(server);
	SSL_set_connect_state(client);
	int c = 0, s = 0;
	tickets_seen = 0;
	for (int i = 0; i < 10 && !(c == 1 && s == 1); i++) {
		c = SSL_do_handshake(client);
		s = SSL_do_handshake(server);
	}
	int version = c == 1 && s == 1 ? SSL_version(client) : 0;
	if (version != 0) { /* tickets come with the first bytes that are read */
		char byte = 'x';
		assert_int_equal(SSL_write(server, &byte, 1), 1);
		assert_int_equal(SSL_read(client, &byte, 1), 1);
	}
	ERR_clear_error();
	SSL_free(server);
	SSL_free(client);
	SSL_CTX_free(server_ctx);
	SSL_CTX_free(client_ctx);
	return version;
}

static void test_without_policy(void **state)
{
	(void)state;
	struct identity id = identity_of(ROLE_COORDINATOR, "example.org", NULL);
	authority_make(&ca, "example.org", FIXTURE_NOW_MS);
	assert_ok(key_generate(KEY_P256, &server_key));
	assert_ok(cert_issue(ca.cert, ca.key, server_key, &id, NULL, FIXTURE_NOW_MS, FIXTURE_NOW_MS + DAY_MS,
			     &server_cert));
	assert_err(ERR_CRYPTO, tls_policy_check());
	assert_non_null(strstr(err_text(), "TLSv1.2 is still possible"));
	assert_int_equal(handshake(core_like(), only(TLS1_2_VERSION, SSL_OP_NO_TLSv1_2)), TLS1_2_VERSION);
	assert_int_equal(handshake(core_like(), core_like()), TLS1_3_VERSION);
	assert_true(tickets_seen > 0);
}

static void test_install(void **state)
{
	(void)state;
	struct buf text;
	assert_ok(tls_policy_install());
	assert_ok(tls_policy_install()); /* again: no harm */
	assert_ok(tls_policy_check());
	buf_init(&text, 4096);
	assert_ok(tls_policy_describe(&text));
	assert_string_equal(buf_str(&text), golden);
	buf_deinit(&text);
	buf_init(&text, 40);
	assert_err(ERR_LIMIT, tls_policy_describe(&text));
	buf_deinit(&text);
}

static void test_with_policy(void **state)
{
	(void)state;
	assert_int_equal(handshake(core_like(), core_like()), TLS1_3_VERSION);
	assert_int_equal(tickets_seen, 0);
	assert_int_equal(handshake(core_like(), only(TLS1_3_VERSION, 0)), TLS1_3_VERSION);
	assert_int_equal(tickets_seen, 0);
	assert_int_equal(handshake(core_like(), only(TLS1_2_VERSION, SSL_OP_NO_TLSv1_2)), 0);
	assert_int_equal(handshake(only(TLS1_2_VERSION, SSL_OP_NO_TLSv1_2), core_like()), 0);
	/* The 1.2-only party of these tests does speak 1.2. */
	assert_int_equal(handshake(only(TLS1_2_VERSION, SSL_OP_NO_TLSv1_2), only(TLS1_2_VERSION, SSL_OP_NO_TLSv1_2)),
			 TLS1_2_VERSION);
	assert_int_equal(handshake(core_like(), only(TLS1_1_VERSION, SSL_OP_NO_TLSv1_1)), 0);
}

/* The self-test notices when something later in the process takes the policy away. */
static void test_lost_policy(void **state)
{
	(void)state;
	static const struct {
		const char *defaults, *finding;
	} cases[] = {
		{"Protocol = -TLSv1.2\n", "session tickets"},
		{"NumTickets = 0\n", "TLSv1.2 is still possible"},
		{"Protocol = -TLSv1.3,-TLSv1.2\nNumTickets = 0\n", "TLSv1.3 is missing"},
		{"Protocol = -TLSv1.2\nNumTickets = 0\nCipherString = ALL:@SECLEVEL=1\n", "security level is 1"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		char text[512];
		long line = 0;
		snprintf(text, sizeof text, "openssl_conf = o\n[o]\nssl_conf = s\n[s]\nsystem_default = d\n[d]\n%s",
			 cases[i].defaults);
		BIO *bio = BIO_new_mem_buf(text, -1);
		CONF *conf = NCONF_new(NULL);
		assert_int_equal(NCONF_load_bio(conf, bio, &line), 1);
		assert_int_equal(CONF_modules_load(conf, NULL, 0), 1);
		NCONF_free(conf);
		BIO_free(bio);
		assert_err(ERR_CRYPTO, tls_policy_check());
		if (strstr(err_text(), cases[i].finding) == NULL)
			fail_msg("case %zu: %s", i, err_text());
	}
	assert_ok(tls_policy_install());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_weak_machine), cmocka_unit_test(test_without_policy),
		cmocka_unit_test(test_install),      cmocka_unit_test(test_with_policy),
		cmocka_unit_test(test_lost_policy),
	};
	return cmocka_run_group_tests(tests, NULL, teardown);
}
