/*
 * TLS policy of the process, and the one TLS connection that is not gRPC's: fetching a CA certificate to compare it
 * with a fingerprint. gRPC C core 1.51 cannot be told "TLS 1.3 only, no tickets" through its own interface; it is told
 * through OpenSSL's system default section, which core does not clear, and a self-test makes sure that it worked.
 */
#ifndef HANSA_CRYPTO_TLS_H
#define HANSA_CRYPTO_TLS_H

#include "base/buf.h"
#include "crypto/digest.h"

/* Call first thing in main, before grpc_init and threads. ERR_CRYPTO when the policy did not take: do not go on. */
MUST_CHECK enum err tls_policy_install(void);

/*
 * The self-test of tls_policy_install() alone: would a context made the way gRPC makes its own speak TLS 1.3 only,
 * without tickets? ERR_CRYPTO with what is wrong.
 */
MUST_CHECK enum err tls_policy_check(void);

/* The effective policy as text, one "name: value" a line, for `check` commands and the golden test. Appends. */
MUST_CHECK enum err tls_policy_describe(struct buf *out);

/*
 * Connect to host:port with TLS 1.3, take the chain that the server shows and return the certificate in it whose
 * SHA-256 is `fingerprint`, provided that the chain's leaf is signed by it and is valid for the host. No secret crosses
 * this connection. The server's chain must therefore hold the CA's own certificate. ERR_UNAUTHENTIC when it does not,
 * or when this is no server of ours; ERR_MALFORMED for the address; ERR_UNAVAILABLE, ERR_DEADLINE for the network;
 * ERR_CANCELLED when asked to stop. The time-out does not cover the resolver, which has its own. SIGPIPE must be
 * ignored (signals_catch() does that).
 */
MUST_CHECK enum err tls_fetch_ca(const char *address, const struct digest *fingerprint, int64_t timeout_ms,
				 struct buf *ret_ca_pem); /* buf_init's it */

#endif
