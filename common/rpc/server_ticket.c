#include "rpc/server_ticket.h"

#include "rpc/payload.h"
#include "rpc/status.h"

#include <stdlib.h>

bool ticket_is_unary(const struct rpc_ticket *t)
{
	return methods[t->method].kind == METHOD_UNARY;
}

void ticket_answer(struct rpc_ticket *t, enum err code, const char *text, grpc_byte_buffer *reply)
{
	char message[STATUS_TEXT_SIZE];
	grpc_op ops[4] = {{0}};
	size_t n = 0, size = reply != NULL ? grpc_byte_buffer_length(reply) : 0;
	ENSURE((code == ERR_OK) == (reply != NULL));
	ops[n++].op = GRPC_OP_SEND_INITIAL_METADATA;
	if (code == ERR_OK) {
		t->reply = reply;
		ops[n].op = GRPC_OP_SEND_MESSAGE;
		ops[n++].data.send_message.send_message = t->reply;
		atomic_fetch_add(&t->server->bytes_out, size);
		t->details = grpc_empty_slice();
	} else {
		t->details = grpc_slice_from_copied_string(status_format(code, text, message));
	}
	ops[n].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
	ops[n].data.send_status_from_server.status = (grpc_status_code)status_code(code);
	ops[n++].data.send_status_from_server.status_details = &t->details;
	/* Only a call that waits has to know before its answer that the peer has gone. */
	if (ticket_is_unary(t)) {
		ops[n].op = GRPC_OP_RECV_CLOSE_ON_SERVER;
		ops[n++].data.recv_close_on_server.cancelled = &t->cancelled;
	}
	t->reply_until_ms = server_reply_until(&t->peer, size);
	/* From the start of the batch on, the ticket may be freed at any moment. */
	ENSURE(!atomic_exchange(&t->answered, true));
	ENSURE(grpc_call_start_batch(t->call, ops, n, &t->tag_answer, NULL) == GRPC_CALL_OK);
}

/* What is sent of an answer with a reply of `n` bytes. */
static enum err judge(const struct rpc_ticket *t, enum err code, size_t n)
{
	if (code == ERR_OK && n > methods[t->method].reply_max)
		code = err_set(ERR_INTERNAL, "reply of %zu bytes is too large", n);
	if (code != ERR_OK)
		server_log_error(t->server, &methods[t->method], &t->peer, code);
	return code;
}

void rpc_ticket_answer(struct rpc_ticket *t, enum err code, struct bytes reply)
{
	code = judge(t, code, reply.n);
	ticket_answer(t, code, err_text(), code == ERR_OK ? payload_new(reply, (struct bytes){0}) : NULL);
}

static void drop(void *reply)
{
	rpc_reply_release(reply);
}

void rpc_ticket_answer_shared(struct rpc_ticket *t, struct rpc_reply *reply)
{
	struct bytes content = rpc_reply_bytes(reply);
	enum err code = judge(t, ERR_OK, content.n);
	grpc_byte_buffer *message = NULL;
	if (code == ERR_OK && content.n == 0)
		message = payload_new(content, content);
	else if (code == ERR_OK)
		message = payload_shared((struct bytes){0}, content, drop, rpc_reply_share(reply));
	ticket_answer(t, code, err_text(), message);
}

const struct peer *rpc_ticket_peer(const struct rpc_ticket *t)
{
	return &t->peer;
}

void ticket_free(struct rpc_ticket *t)
{
	if (t->reply != NULL)
		grpc_byte_buffer_destroy(t->reply);
	if (t->request != NULL)
		grpc_byte_buffer_destroy(t->request);
	grpc_slice_unref(t->details);
	grpc_metadata_array_destroy(&t->metadata);
	if (t->call != NULL)
		grpc_call_unref(t->call);
	free(t);
}
