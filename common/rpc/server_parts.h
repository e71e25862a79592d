/*
 * Private to server*.c: what the parts of a server share. The server owns the workers (streams: straight-line handlers,
 * one pluck queue each), the parking (all calls of one message: tickets, one `next` queue, one thread) and the desk (the
 * threads that run the handlers of unary calls).
 */
#ifndef HANSA_RPC_SERVER_PARTS_H
#define HANSA_RPC_SERVER_PARTS_H

#include "rpc/gate.h"
#include "rpc/peer_cache.h"
#include "rpc/server.h"

#include <grpc/grpc.h>
#include <pthread.h>
#include <stdatomic.h>

struct worker;
struct parking;
struct desk;

struct rpc_server {
	struct rpc_server_config config; /* name and federation are copies; key, certificate and CA are empty */
	struct rpc_handler handlers[METHOD_COUNT];
	grpc_server *grpc;
	grpc_completion_queue *main_cq; /* for the shutdown only */
	int port;
	struct gate *gate;
	struct peer_cache *cache; /* NULL: no client certificates */
	struct worker *workers;   /* one more than streams at a time: it waits for a place */
	size_t n_workers;
	struct parking *parking;
	struct desk *desk;
	atomic_bool cut;         /* the grace of the shutdown is over */
	_Atomic uint64_t active; /* calls that a worker or the parking has and that have not ended */
	_Atomic uint64_t shared; /* messages sent from where they lie that gRPC still has */
	_Atomic uint64_t calls, refused, bytes_in, bytes_out;
};

/* How the configured threads are divided: a quarter, one at least, for unary calls; the rest, one at least, for
 * streams. */
size_t server_unary_threads(size_t workers);
size_t server_streams(size_t workers);

/* Does this server offer `method`, with a handler that fits its kind? */
bool server_offers(const struct rpc_server *s, enum method_id method);

/* Identity, role, roster. Counts and logs a refusal. */
MUST_CHECK enum err server_admit(struct rpc_server *s, grpc_call *call, const struct method *method,
				 struct peer *ret_peer);

/* Log the error of a handler when the peer is not told all of it, or when it is about who the peer is. */
void server_log_error(const struct rpc_server *s, const struct method *method, const struct peer *peer, enum err e);

gpr_timespec server_time(int64_t monotonic_ms); /* ours as gRPC's */
int64_t server_deadline(gpr_timespec deadline,
			int64_t limit_ms); /* a call's deadline, cut to `limit_ms` from now; clock_monotonic_ms() */
/* Until when a peer may take an answer of `n` bytes: less patience with those we do not know. */
int64_t server_reply_until(const struct peer *peer, size_t n);

/* Workers. start: threads run; join: after gRPC's shutdown is complete. */
void workers_new(struct rpc_server *s);
MUST_CHECK enum err workers_start(struct rpc_server *s);
void workers_free(struct rpc_server *s); /* joins first */

/* Parking, likewise. The desk outlives its thread. */
void parking_new(struct rpc_server *s);
MUST_CHECK enum err parking_start(struct rpc_server *s);
void parking_free(struct rpc_server *s);
uint64_t parking_count(const struct rpc_server *s);

/* The desk. put: takes an admitted ticket; its answer comes back to the parking as a tag. */
void desk_new(struct rpc_server *s);
MUST_CHECK enum err desk_start(struct rpc_server *s);
void desk_put(struct rpc_server *s, struct rpc_ticket *t);
void desk_free(struct rpc_server *s); /* after the last ticket */

#endif
