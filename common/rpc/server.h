/*
 * A gRPC server: TLS 1.3, workers that run straight-line handlers of streams, calls of one message that are answered
 * without waiting for the peer, and parked calls that cost no thread. The door to gRPC C core.
 *
 * For every call, in this order: the method must be in the table and have a handler here (else UNIMPLEMENTED); the
 * peer's certificate must have exactly one identity, of our federation (else UNAUTHENTICATED); the role must be allowed
 * (else PERMISSION_DENIED); `authorize` must agree (the roster; also for every call of an open connection); sizes must
 * be within the table's limits (RESOURCE_EXHAUSTED). Only then does the handler run. An error of a handler becomes a
 * gRPC status; the text in err_text() is sent to the peer only for errors that are about the peer's own request, others
 * send the name alone and are logged.
 */
#ifndef HANSA_RPC_SERVER_H
#define HANSA_RPC_SERVER_H

#include "base/buf.h"
#include "rpc/method.h"
#include "rpc/reply.h"
#include "rpc/wire.h"

struct peer {
	struct identity id; /* role ROLE_NOBODY on a port without client certificates */
	struct digest key;  /* SHA-256 of the public key; zero for nobody */
	char from[64];      /* network address, for logs only */
};

struct rpc_stream; /* the parts of one upload or download */
struct rpc_ticket; /* a parked call */

/* An upload. The first part must be a head, all others data; the first data may come with the head. */
MUST_CHECK enum err rpc_stream_head(struct rpc_stream *s, struct wire_head *ret_head);
/*
 * The data of the next message as it lies in memory: one or more stretches (at most 256), none of them empty, valid until
 * the next call. ERR_END when all that the head announced has come, or after a clean half-close by the client: it is the
 * handler that knows whether that is enough, and whether the last message had too much. A cut, a peer that is too slow
 * (pace.h) and one that has to make room for others (hold.h) are ERR_UNAVAILABLE, a missed deadline ERR_DEADLINE.
 */
MUST_CHECK enum err rpc_stream_next(struct rpc_stream *s, const struct bytes **ret_pieces, size_t *ret_n);
/* The parts of a download; n <= WIRE_CHUNK_SIZE. */
MUST_CHECK enum err rpc_stream_send_head(struct rpc_stream *s, const struct wire_head *head);
MUST_CHECK enum err rpc_stream_send(struct rpc_stream *s, const void *p, size_t n);
/* The same without a copy: `p` must stay as it is until release(arg) is called, which happens exactly once, whatever is
 * returned, on any thread, perhaps after the call has ended but before rpc_server_stop() returns. It must not block. */
MUST_CHECK enum err rpc_stream_send_shared(struct rpc_stream *s, const void *p, size_t n, void (*release)(void *arg),
					   void *arg);

/* Answer a parked call; exactly once per ticket; thread: any. After it the ticket is gone. When the peer has gone
 * meanwhile, that is fine. */
void rpc_ticket_answer(struct rpc_ticket *t, enum err code, struct bytes reply);
/* The same with a reply that others get, too: not copied, and held until gRPC has let go of it. `reply` is borrowed. */
void rpc_ticket_answer_shared(struct rpc_ticket *t, struct rpc_reply *reply);
const struct peer *rpc_ticket_peer(const struct rpc_ticket *t);

struct rpc_handler {
	/* One of these, by the kind of the method; NULL: this server does not offer it. */
	enum err (*unary)(void *ctx, const struct peer *peer, struct bytes request, struct buf *reply);
	/* Takes the ticket in every case. `gone` below is called when the peer hangs up before the answer. Must not
	 * block: one thread of the server calls this for all waiting calls. Only the latest call of a plant waits. */
	void (*parked)(void *ctx, const struct peer *peer, struct bytes request, struct rpc_ticket *ticket);
	enum err (*upload)(void *ctx, const struct peer *peer, struct rpc_stream *in, struct buf *reply);
	enum err (*download)(void *ctx, const struct peer *peer, struct bytes request, struct rpc_stream *out);
};

struct rpc_server_config {
	const char *name;   /* "main", "enrol": for logs */
	const char *listen; /* HOST:PORT; port 0: a free one */
	struct bytes key_pem, cert_pem /* leaf, then CA */, ca_pem;
	bool client_certificates; /* required and verified, or not asked for (enrolment) */
	const char *federation;
	/* Handlers at a time: a quarter of them, at least one, unary ones; the rest, at least one, uploads and downloads.
	 * (The server has two threads more: one in which the next stream waits for its place, and one for all that is to
	 * do with calls of one message but their unary handlers.) A peer has one stream at a time: another one waits a
	 * moment for the one before to end, which is cancelled when nothing has come on it for a while (gate.h), and is
	 * ERR_UNAVAILABLE then. Streams of many peers wait for their turn; meanwhile slow ones must make room (hold.h).
	 * Unary calls wait for their turn, too; a peer that has very many of them is answered ERR_UNAVAILABLE. */
	size_t workers;
	size_t parked_max;   /* parked calls in all; more are answered ERR_UNAVAILABLE */
	int64_t patience_ms; /* how long a stream may stall; 0: PACE_PATIENCE_MS. See pace.h for the least rate. */
	int64_t room_ms; /* how long a slow stream may go on while others wait; 0: HOLD_MS. See hold.h for the rate. */
	const struct rpc_handler *handlers; /* METHOD_COUNT of them */
	/* NULL: all. Must be quick: one thread of the server asks for all calls of one message. */
	enum err (*authorize)(void *ctx, const struct peer *peer);
	/* A parked call's peer hung up, its deadline passed, or the same plant has called again. After this returns
	 * true, the ticket must not be answered: the callee forgets it. Called without locks held; exactly one of
	 * rpc_ticket_answer and this takes effect. Return false when the ticket is being answered already. thread: the
	 * server's own, as for `parked`; must not block. */
	bool (*gone)(void *ctx, struct rpc_ticket *ticket);
	void *ctx;
};

struct rpc_server;
/* tls_policy_install() must have succeeded before. ERR_IO when the port is taken. */
MUST_CHECK enum err rpc_server_start(const struct rpc_server_config *config, struct rpc_server **ret_server);
int rpc_server_port(const struct rpc_server *s);
/* No new calls; running ones have `grace_ms`, then they are cancelled; the owner answers its parked calls first. Frees
 * the server. */
void rpc_server_stop(struct rpc_server *s, int64_t grace_ms);

struct rpc_server_stats {
	uint64_t calls, refused, parked, bytes_in, bytes_out;
};
void rpc_server_get_stats(struct rpc_server *s, struct rpc_server_stats *ret_stats);

#endif
