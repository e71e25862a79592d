/*
 * Private to client*.c: one call, from its beginning to its end, as batches of operations.
 */
#ifndef HANSA_RPC_CLIENT_CALL_H
#define HANSA_RPC_CLIENT_CALL_H

#include "rpc/client.h"

#include <grpc/grpc.h>
#include <pthread.h>
#include <stdatomic.h>

struct rpc_client {
	char *address; /* owned */
	bool (*stop_asked)(void);
	grpc_channel_credentials *creds;
	struct credentials_check *check;
	grpc_channel *channel; /* owned; NULL before the first call and after a failure */
	grpc_completion_queue *cq;
	atomic_bool cancelled;
	pthread_mutex_t lock;
	grpc_call *running; /* under lock; NULL: none that may be cancelled */
	_Atomic uint64_t sent, received;
	int tap; /* test builds: file of outgoing messages, or -1 */
};

struct client_call {
	struct rpc_client *c;
	const struct method *method;
	grpc_call *call;
	grpc_metadata_array initial, trailing;
	grpc_status_code status;
	grpc_slice details;
	const char *error; /* gpr_free() */
	grpc_byte_buffer *in;
	bool started;        /* the status has been asked for */
	bool ended;          /* ... and has come */
	bool initial_asked;  /* RECV_INITIAL_METADATA has been started */
	bool cut;            /* receiving failed: what came may not be all, whatever the status says */
	int64_t deadline_ms; /* clock_monotonic_ms() */
};

enum { CALL_FIRST = 1, CALL_LAST = 2, CALL_REPLY = 4 }; /* what goes along with a message */

/* A call of which nothing has been sent yet. deadline_ms 0: the method's own. ERR_CANCELLED. */
MUST_CHECK enum err client_call_begin(struct client_call *k, struct rpc_client *c, enum method_id method,
				      int64_t deadline_ms);
/* Takes the message. With CALL_REPLY, the first answer is waited for, into k->in. false: the call has ended, its status
 * says why. */
bool client_call_send(struct client_call *k, grpc_byte_buffer *message, unsigned along);
/* The whole call at once: takes and sends the one message, and waits for the reply, k->in, and the end. */
void client_call_exchange(struct client_call *k, grpc_byte_buffer *message);
/* The next message into k->in; false: there is none, the status says why. */
bool client_call_receive(struct client_call *k);
/* Waits for the end of the call and frees it. How did it end? */
enum err client_call_end(struct client_call *k);
/* Ends a call that failed at this end: the error and its text stay as they are. */
enum err client_call_abort(struct client_call *k, enum err e);

#endif
