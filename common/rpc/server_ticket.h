/*
 * Private to server_parked.c and server_unary.c: a call of one message, as an object in memory.
 */
#ifndef HANSA_RPC_SERVER_TICKET_H
#define HANSA_RPC_SERVER_TICKET_H

#include "rpc/server_parts.h"

enum tag_kind { TAG_NEW, TAG_CLOSE, TAG_ANSWER };

struct tag {
	struct rpc_ticket *ticket;
	enum tag_kind kind;
};

struct rpc_ticket {
	struct rpc_server *server;
	enum method_id method;
	struct peer peer;
	struct tag tag_new, tag_close, tag_answer;
	grpc_call *call;
	gpr_timespec deadline;
	grpc_metadata_array metadata;
	grpc_byte_buffer *request;
	int cancelled;        /* written by gRPC until the tag that brings it has come */
	bool closed, settled; /* the close tag has come; no answer is or will be under way */
	bool admitted;        /* its peer is known, and it is in that peer's bucket */
	bool parked;          /* handed to the handler of a waiting call */
	atomic_bool answered; /* the answer's batch is being started; makes what it points to visible to the thread */
	grpc_byte_buffer *reply; /* of the answer */
	grpc_slice details;
	int64_t expires_ms; /* the call's own deadline */
	int64_t reply_until_ms;
	struct rpc_ticket *prev, *next; /* all live calls */
	struct rpc_ticket *same;        /* admitted calls in the same bucket */
	struct rpc_ticket *behind;      /* the desk's */
};

bool ticket_is_unary(const struct rpc_ticket *t);
/* Starts the last batch. From then on the ticket may be gone at any moment. `reply` is taken; NULL exactly when `code` is an error. */
void ticket_answer(struct rpc_ticket *t, enum err code, const char *text, grpc_byte_buffer *reply);
void ticket_free(struct rpc_ticket *t);

#endif
