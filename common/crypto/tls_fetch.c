/*
 * The one TLS connection that is not gRPC's: a plant that holds a join code asks the enrolment port for the CA
 * certificate whose fingerprint is in the code. The handshake itself accepts any server; what is shown is judged
 * afterwards against the fingerprint, and the connection is closed before anything else is said. The gRPC channel that
 * then carries the secret trusts that CA and nothing else.
 */
#include "crypto/tls.h"

#include "base/clock.h"
#include "base/signals.h"
#include "crypto/address.h"
#include "crypto/openssl.h"
#include "crypto/ossl.h"

#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CHAIN_BYTES_MAX = 64 * 1024 };

/* gRPC servers expect a client that asks for HTTP/2 (RFC 7301 wire form). */
static const unsigned char alpn_h2[] = {2, 'h', '2'};

static enum err wait_ready(int fd, short events, int64_t deadline_ms)
{
	for (;;) {
		struct pollfd p = {.fd = fd, .events = events};
		int64_t left = deadline_ms - clock_monotonic_ms();
		if (left <= 0)
			return err_set(ERR_DEADLINE, "no answer in time");
		int n = poll(&p, 1, left > INT_MAX ? INT_MAX : (int)left);
		if (n > 0)
			return ERR_OK;
		if (n < 0 && errno != EINTR)
			return err_errno("poll");
		if (signals_stop_asked())
			return err_set(ERR_CANCELLED, "stopped on request");
	}
}

static enum err connect_one(const struct addrinfo *ai, int64_t deadline_ms, int *ret_fd)
{
	int failure = 0;
	socklen_t len = sizeof failure;
	int fd = socket(ai->ai_family, ai->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, ai->ai_protocol);
	if (fd < 0)
		return err_errno("socket");
	enum err e = ERR_OK;
	if (connect(fd, ai->ai_addr, ai->ai_addrlen) != 0)
		failure = errno;
	if (failure == EINPROGRESS || failure == EINTR) {
		e = wait_ready(fd, POLLOUT, deadline_ms);
		if (e == ERR_OK && getsockopt(fd, SOL_SOCKET, SO_ERROR, &failure, &len) != 0)
			failure = errno;
	}
	if (e == ERR_OK && failure != 0)
		e = err_set(ERR_UNAVAILABLE, "cannot connect: %s", strerror(failure));
	if (e != ERR_OK) {
		close(fd);
		return e;
	}
	*ret_fd = fd;
	return ERR_OK;
}

/* Every address of the host gets its share of the time that is left, so that a dead first one does not use it up. */
static enum err connect_any(const struct address *a, int64_t deadline_ms, int *ret_fd)
{
	const struct addrinfo hints = {
		.ai_family = AF_UNSPEC,
		.ai_socktype = SOCK_STREAM,
		.ai_flags = AI_NUMERICSERV | (a->kind == HOST_DNS ? 0 : AI_NUMERICHOST),
	};
	struct addrinfo *list = NULL;
	char port[8];
	snprintf(port, sizeof port, "%u", (unsigned)a->port);
	int rc = getaddrinfo(a->host, port, &hints, &list);
	if (rc != 0)
		return err_set(ERR_UNAVAILABLE, "cannot resolve the host name: %s", gai_strerror(rc));
	int64_t count = 0;
	for (const struct addrinfo *ai = list; ai != NULL; ai = ai->ai_next)
		count++;
	enum err e = err_set(ERR_UNAVAILABLE, "the host has no address");
	for (const struct addrinfo *ai = list; ai != NULL && e != ERR_OK && e != ERR_CANCELLED;
	     ai = ai->ai_next, count--) {
		int64_t now = clock_monotonic_ms();
		e = connect_one(ai, now + (deadline_ms - now) / count, ret_fd);
	}
	freeaddrinfo(list);
	return e;
}

static enum err handshake_failure(int why)
{
	bool closed = why == SSL_ERROR_SYSCALL || why == SSL_ERROR_ZERO_RETURN ||
		      ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING;
	if (closed)
		return ossl_err(ERR_UNAVAILABLE, "the connection was closed during the TLS handshake");
	return ossl_err(ERR_UNAUTHENTIC,
			"the server does not speak TLS 1.3 as Hansa does; is this the address of the enrolment port?");
}

static enum err handshake(SSL *ssl, int fd, int64_t deadline_ms)
{
	for (;;) {
		ERR_clear_error();
		int rc = SSL_connect(ssl);
		if (rc == 1)
			return ERR_OK;
		int why = SSL_get_error(ssl, rc);
		if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE)
			return handshake_failure(why);
		TRY(wait_ready(fd, why == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, deadline_ms));
	}
}

static SSL *client_new(SSL_CTX *ctx, const struct address *a, int fd)
{
	ENSURE(SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) == 1);
	SSL_CTX_set_max_cert_list(ctx, CHAIN_BYTES_MAX);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL); /* see the top: judged afterwards */
	SSL *ssl = SSL_new(ctx);
	ENSURE(ssl != NULL && SSL_set_fd(ssl, fd) == 1);
	ENSURE(SSL_set_alpn_protos(ssl, alpn_h2, sizeof alpn_h2) == 0); /* 0 is success here */
	if (a->kind == HOST_DNS)
		ENSURE(SSL_set_tlsext_host_name(ssl, a->host) == 1);
	return ssl;
}

static enum err judge_chain(SSL *ssl, const struct address *a, const struct digest *fingerprint, struct buf *ret_ca_pem)
{
	STACK_OF(X509) *chain = SSL_get_peer_cert_chain(ssl); /* the leaf is its first */
	X509 *ca = NULL;
	for (int i = 0; i < sk_X509_num(chain) && ca == NULL; i++) {
		struct digest d;
		X509 *shown = sk_X509_value(chain, i);
		ENSURE(X509_digest(shown, EVP_sha256(), d.b, NULL) == 1);
		if (digest_equal(&d, fingerprint))
			ca = shown;
	}
	if (ca == NULL)
		return err_set(ERR_UNAUTHENTIC,
			       "the server does not show the expected CA; is the join code from this federation?");
	TRY(ossl_verify(sk_X509_value(chain, 0), ca, chain, a, clock_wall_ms()));
	unsigned char *der = NULL;
	int n = i2d_X509(ca, &der);
	ENSURE(n > 0);
	enum err e = ossl_pem_write("CERTIFICATE", bytes_of(der, (size_t)n), ret_ca_pem);
	OPENSSL_free(der);
	return e;
}

enum err tls_fetch_ca(const char *address, const struct digest *fingerprint, int64_t timeout_ms, struct buf *ret_ca_pem)
{
	struct address a;
	int fd = -1;
	SSL *ssl = NULL;
	int64_t deadline_ms = clock_monotonic_ms() + timeout_ms;
	TRY(address_parse(address, &a));
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	ENSURE(ctx != NULL);
	enum err e = connect_any(&a, deadline_ms, &fd);
	if (e != ERR_OK)
		goto out;
	ssl = client_new(ctx, &a, fd);
	e = handshake(ssl, fd, deadline_ms);
	if (e != ERR_OK)
		goto out;
	e = judge_chain(ssl, &a, fingerprint, ret_ca_pem);
out:
	SSL_free(ssl);
	SSL_CTX_free(ctx);
	if (fd >= 0)
		close(fd);
	ERR_clear_error();
	return e == ERR_OK ? e : err_add(e, "%s", address);
}
