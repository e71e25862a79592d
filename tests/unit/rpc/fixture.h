/*
 * A federation in memory for the tests of this folder: a CA, certificates, a server on a free port of 127.0.0.1,
 * clients.
 */
#ifndef HANSA_TEST_RPC_FIXTURE_H
#define HANSA_TEST_RPC_FIXTURE_H

#include "base/clock.h"
#include "base/log.h"
#include "crypto/cert.h"
#include "crypto/random.h"
#include "crypto/tls.h"
#include "rpc/client.h"
#include "rpc/server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { DAY_MS = 24 * 3600 * 1000 };

#define FEDERATION "acme"

/* assert that an expression is ERR_OK, showing the text otherwise */
#define assert_ok(expr)                                                                                                \
	do {                                                                                                           \
		enum err ok_err_ = (expr);                                                                             \
		if (ok_err_ != ERR_OK)                                                                                 \
			fail_msg("%s: %s: %s", #expr, err_name(ok_err_), err_text());                                  \
	} while (0)
#define assert_err(code, expr)                                                                                         \
	do {                                                                                                           \
		enum err is_ = (expr);                                                                                 \
		if (is_ != (code))                                                                                     \
			fail_msg("%s: %s instead of %s: %s", #expr, err_name(is_), err_name(code), err_text());        \
	} while (0)

struct fixture_ca {
	struct key *key;
	struct cert *cert;
	struct buf pem;
};

struct fixture_id {
	struct buf key, cert;
};

static inline void fixture_ca_make(struct fixture_ca *ca, const char *federation)
{
	int64_t now = clock_wall_ms();
	assert_ok(key_generate(KEY_P256, &ca->key));
	assert_ok(cert_make_ca(ca->key, federation, now - DAY_MS, now + 10 * DAY_MS, &ca->cert));
	assert_ok(cert_pem(ca->cert, &ca->pem));
}

static inline void fixture_ca_free(struct fixture_ca *ca)
{
	key_free(ca->key);
	cert_free(ca->cert);
	buf_deinit(&ca->pem);
}

static inline void fixture_id_make_until(struct fixture_id *id, const struct fixture_ca *ca, enum role role,
					 const char *federation, const char *name, const char *host, int64_t to_ms)
{
	struct identity identity;
	struct key *key;
	struct cert *cert;
	const char *hosts[2] = {host, NULL};
	assert_ok(identity_make(role, federation, name, &identity));
	assert_ok(key_generate(KEY_P256, &key));
	assert_ok(cert_issue(ca->cert, ca->key, key, &identity, host != NULL ? hosts : NULL, clock_wall_ms() - DAY_MS,
			     to_ms, &cert));
	assert_ok(key_pem(key, &id->key));
	assert_ok(cert_pem(cert, &id->cert));
	key_free(key);
	cert_free(cert);
}

static inline void fixture_id_make(struct fixture_id *id, const struct fixture_ca *ca, enum role role, const char *name,
				   const char *host)
{
	fixture_id_make_until(id, ca, role, FEDERATION, name, host, clock_wall_ms() + DAY_MS);
}

static inline void fixture_id_free(struct fixture_id *id)
{
	secret_wipe(id->key.p, id->key.n);
	buf_deinit(&id->key);
	buf_deinit(&id->cert);
}

/* The usual cast; made once per program by fixture_begin(). */
struct fixture {
	struct fixture_ca ca, other_ca;
	struct fixture_id coordinator, plant, plant2, operator, stranger;
};

static struct fixture fixture;

static inline void fixture_cast(void)
{
	log_set_level(getenv("HANSA_TEST_LOG") != NULL ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR);
	assert_ok(tls_policy_install());
	fixture_ca_make(&fixture.ca, FEDERATION);
	fixture_ca_make(&fixture.other_ca, FEDERATION);
	fixture_id_make(&fixture.coordinator, &fixture.ca, ROLE_COORDINATOR, "", "127.0.0.1");
	fixture_id_make(&fixture.plant, &fixture.ca, ROLE_PLANT, "p1", NULL);
	fixture_id_make(&fixture.plant2, &fixture.ca, ROLE_PLANT, "p2", NULL);
	fixture_id_make(&fixture.operator, & fixture.ca, ROLE_OPERATOR, "anna", NULL);
	fixture_id_make(&fixture.stranger, &fixture.other_ca, ROLE_PLANT, "p1", NULL);
}

static inline int fixture_begin(void **state)
{
	(void)state;
	fixture_cast();
	rpc_init();
	return 0;
}

static inline int fixture_end(void **state)
{
	(void)state;
	fixture_id_free(&fixture.coordinator);
	fixture_id_free(&fixture.plant);
	fixture_id_free(&fixture.plant2);
	fixture_id_free(&fixture.operator);
	fixture_id_free(&fixture.stranger);
	fixture_ca_free(&fixture.ca);
	fixture_ca_free(&fixture.other_ca);
	rpc_shutdown();
	return 0;
}

/* A configuration with the usual cast; the caller adds handlers and ctx. */
static inline struct rpc_server_config fixture_server_config(const struct rpc_handler *handlers, void *ctx)
{
	return (struct rpc_server_config){.name = "test",
					  .listen = "127.0.0.1:0",
					  .key_pem = buf_bytes(&fixture.coordinator.key),
					  .cert_pem = buf_bytes(&fixture.coordinator.cert),
					  .ca_pem = buf_bytes(&fixture.ca.pem),
					  .client_certificates = true,
					  .federation = FEDERATION,
					  .workers = 4,
					  .parked_max = 1000,
					  .handlers = handlers,
					  .ctx = ctx};
}

static inline struct rpc_client *fixture_client_of(int port, const struct fixture_id *id, const struct fixture_ca *ca)
{
	char address[64];
	struct rpc_client *c;
	snprintf(address, sizeof address, "127.0.0.1:%d", port);
	struct rpc_client_config config = {.address = address, .ca_pem = buf_bytes(&ca->pem), .federation = FEDERATION};
	if (id != NULL) {
		config.key_pem = buf_bytes(&id->key);
		config.cert_pem = buf_bytes(&id->cert);
	}
	assert_ok(rpc_client_new(&config, &c));
	return c;
}

static inline struct rpc_client *fixture_client(const struct rpc_server *s, const struct fixture_id *id)
{
	return fixture_client_of(rpc_server_port(s), id, &fixture.ca);
}

#endif
