/*
 * A gRPC client connection: TLS 1.3, the server must show a certificate of our CA for the host we dialled, with the
 * identity spiffe://FEDERATION/coordinator. Calls are made one after another. thread: one at a time, except
 * rpc_client_cancel.
 *
 * Every byte of every message is counted as it is handed to gRPC (HTTP/2 frames and headers are not). In test builds
 * (HANSA_WIRE_TAP) it is also written to the file named by HANSA_TAP_FILE.
 */
#ifndef HANSA_RPC_CLIENT_H
#define HANSA_RPC_CLIENT_H

#include "base/buf.h"
#include "rpc/method.h"
#include "rpc/wire.h"

struct rpc_client_config {
	const char *address;            /* HOST:PORT */
	struct bytes ca_pem;            /* the only root */
	struct bytes key_pem, cert_pem; /* empty: no client certificate (enrolment) */
	const char *federation;
	bool (*stop_asked)(void); /* asked every 50 ms while a call waits; true works like rpc_client_cancel(). NULL:
				     never asked, and a call that waits does nothing else */
};

struct rpc_client;
MUST_CHECK enum err rpc_client_new(const struct rpc_client_config *config,
				   struct rpc_client **ret_client); /* connects on first use */
void rpc_client_free(struct rpc_client *c);

/* Errors of the server come back as the same enum err with its text; network trouble is ERR_UNAVAILABLE, ERR_DEADLINE,
 * and a TLS refusal ERR_UNAUTHENTIC where it can be told apart. buf_init's *ret_reply. deadline_ms 0: the method's own.
 */
MUST_CHECK enum err rpc_client_call(struct rpc_client *c, enum method_id method, struct bytes request,
				    int64_t deadline_ms, struct buf *ret_reply);

/* An upload: `head`, and what `next` gives in pieces of at most WIRE_CHUNK_SIZE (ERR_END ends it). `next` is asked for a
 * piece before the one before it is sent. */
typedef enum err (*rpc_source_fn)(void *arg, struct bytes *ret_piece);
MUST_CHECK enum err rpc_client_upload(struct rpc_client *c, enum method_id method, const struct wire_head *head,
				      rpc_source_fn next, void *arg, struct buf *ret_reply);
/* A download: `head` once, then `data` for each message, with the stretches that its data lies in (n > 0). Ends with ERR_OK only
 * after a clean end and head.size - head.offset bytes. */
struct rpc_sink {
	enum err (*head)(void *arg, const struct wire_head *head);
	enum err (*data)(void *arg, const struct bytes *pieces, size_t n);
	void *arg;
};
MUST_CHECK enum err rpc_client_download(struct rpc_client *c, enum method_id method, struct bytes request,
					const struct rpc_sink *sink);

/* thread: any, but not a signal's handler (that is what stop_asked is for): make the running call, and all later ones, end
 * with ERR_CANCELLED. */
void rpc_client_cancel(struct rpc_client *c);

/* Bytes of messages handed to and taken from TLS, since the client was made. */
void rpc_client_get_bytes(const struct rpc_client *c, uint64_t *ret_sent, uint64_t *ret_received);

/* Once per process, before the first server or client and after the last one. Routes gRPC's own log to base/log.h. */
void rpc_init(void);
void rpc_shutdown(void);

#endif
