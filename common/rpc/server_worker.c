/*
 * Workers: each asks gRPC for a call on its own queue, serves it from beginning to end in straight lines, and asks for
 * the next one.
 *
 * Everything that a pending operation points to lives in struct call, and no function returns before the operation's
 * tag has come: to give up is to cancel the call and wait on. The end of an upload is believed only after a clean
 * half-close (a stream that the server's own shutdown cuts looks almost the same, except for
 * grpc_call_failed_before_recv_message).
 */
#include "base/clock.h"
#include "base/log.h"
#include "rpc/pace.h"
#include "rpc/payload.h"
#include "rpc/server_parts.h"
#include "rpc/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	REQUEST_MS = 10 * 1000,      /* a peer has this long to send its one request message */
	REPLY_MS = 30 * 1000,        /* a peer has this long to take a reply, and what its size asks for */
	NOBODY_REPLY_MS = 10 * 1000, /* ... when we do not know it */
};

struct worker {
	struct rpc_server *server;
	grpc_completion_queue *cq; /* owned */
	pthread_t thread;
	bool started;
};

/* A call that a worker serves. */
struct rpc_stream {
	struct rpc_server *server;
	grpc_completion_queue *cq;
	grpc_call *call;
	const struct method *method;
	struct peer peer;
	int64_t deadline_ms;    /* clock_monotonic_ms() */
	int64_t reply_until_ms; /* likewise; from the start of the answer on */
	struct pace pace;       /* of a stream */
	bool slow;              /* the peer has been cut because it was too slow */
	struct gate_pass pass;
	bool entered;        /* pass is in the gate */
	int close_cancelled; /* written by gRPC until the close tag has come */
	bool initial_sent;
	enum err ended; /* uploads: ERR_OK, or why nothing more comes */
	bool has_head;
	grpc_byte_buffer *in; /* where gRPC puts a message */
	struct payload part;
};

static const char slow_text[] = "your connection is too slow or has stalled; try again";

/* Waits for `tag`; when `until_ms` has passed, cancels the call and goes on waiting. Was the operation successful? */
static bool call_wait(struct rpc_stream *s, void *tag, int64_t until_ms)
{
	char text[STATUS_TEXT_SIZE];
	grpc_event event = grpc_completion_queue_pluck(s->cq, tag, server_time(until_ms), NULL);
	if (event.type == GRPC_QUEUE_TIMEOUT) {
		s->slow = until_ms != s->deadline_ms;
		enum err e = s->slow ? ERR_UNAVAILABLE : ERR_DEADLINE;
		status_format(e, s->slow ? slow_text : "the call took too long", text);
		grpc_call_cancel_with_status(s->call, (grpc_status_code)status_code(e), text, NULL);
		event = grpc_completion_queue_pluck(s->cq, tag, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
	}
	ENSURE(event.type == GRPC_OP_COMPLETE);
	return event.success != 0;
}

static int64_t sooner(int64_t deadline_ms, int64_t in_ms)
{
	int64_t at = clock_monotonic_ms() + in_ms;
	return at < deadline_ms ? at : deadline_ms;
}

static void call_start(struct rpc_stream *s, const grpc_op *ops, size_t n, void *tag)
{
	ENSURE(grpc_call_start_batch(s->call, ops, n, tag, NULL) == GRPC_CALL_OK);
}

/* Why did an operation fail? Only our own cut and the deadline can be told from the many ways of losing a peer. */
static enum err cut(const struct rpc_stream *s, const char *what)
{
	if (s->slow)
		return err_set(ERR_UNAVAILABLE, "%s: %s", what, slow_text);
	if (clock_monotonic_ms() >= s->deadline_ms)
		return err_set(ERR_DEADLINE, "%s: the deadline has passed", what);
	return err_set(ERR_UNAVAILABLE, "%s: the connection was lost or the call cancelled", what);
}

/* Waits for `tag` of a message in a stream, or of a request. */
static bool message_wait(struct rpc_stream *s, void *tag, int64_t within_ms, int64_t *ret_waited_ms)
{
	int64_t start_ms = clock_monotonic_ms();
	bool ok = call_wait(s, tag, sooner(s->deadline_ms, within_ms));
	*ret_waited_ms = clock_monotonic_ms() - start_ms;
	return ok;
}

/* A message of `n` bytes has passed. */
static void progress(struct rpc_stream *s, int64_t waited_ms, size_t n)
{
	pace_count(&s->pace, waited_ms, n);
	if (s->entered)
		gate_progress(s->server->gate, &s->pass);
}

/* The next message into s->in. ERR_END only after a clean half-close. */
static enum err receive(struct rpc_stream *s, int64_t within_ms)
{
	grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};
	op.data.recv_message.recv_message = &s->in;
	s->in = NULL;
	int64_t waited_ms;
	call_start(s, &op, 1, &s->in);
	bool ok = message_wait(s, &s->in, within_ms, &waited_ms);
	if (s->in != NULL) {
		size_t n = grpc_byte_buffer_length(s->in);
		atomic_fetch_add(&s->server->bytes_in, n);
		progress(s, waited_ms, n);
		return ERR_OK;
	}
	if (ok && !grpc_call_failed_before_recv_message(s->call))
		return ERR_END;
	return cut(s, "waiting for the peer's next message");
}

/* ---- streams, as handlers see them ---- */

/* The next part, opened. */
static enum err next_part(struct rpc_stream *s, struct wire_head *head)
{
	bool is_head;
	payload_close(&s->part);
	TRY(receive(s, pace_left_ms(&s->pace)));
	grpc_byte_buffer *message = s->in;
	s->in = NULL;
	TRY(payload_open(&s->part, message, s->method->request_max, head, &is_head));
	if (is_head == s->has_head)
		return err_set(ERR_MALFORMED, is_head ? "upload: a second head" : "upload: data before the head");
	s->has_head = true;
	return ERR_OK;
}

enum err rpc_stream_head(struct rpc_stream *s, struct wire_head *ret_head)
{
	ENSURE(s->method->kind == METHOD_UPLOAD && !s->has_head);
	if (s->ended == ERR_OK)
		s->ended = next_part(s, ret_head);
	if (s->ended == ERR_END)
		s->ended = err_set(ERR_MALFORMED, "upload: empty");
	return s->ended;
}

enum err rpc_stream_read(struct rpc_stream *s, struct bytes *ret_data)
{
	struct wire_head unused;
	ENSURE(s->method->kind == METHOD_UPLOAD && s->has_head);
	if (s->ended != ERR_OK)
		return s->ended;
	if (payload_next(&s->part, ret_data))
		return ERR_OK;
	s->ended = next_part(s, &unused);
	/* An empty part would be progress without data. */
	if (s->ended == ERR_OK && !payload_next(&s->part, ret_data))
		s->ended = err_set(ERR_MALFORMED, "upload: a part without data");
	return s->ended;
}

static enum err send_message(struct rpc_stream *s, struct bytes head, struct bytes body)
{
	grpc_op ops[2] = {{0}};
	size_t n = 0;
	if (!s->initial_sent)
		ops[n++].op = GRPC_OP_SEND_INITIAL_METADATA;
	s->initial_sent = true;
	grpc_byte_buffer *message = payload_new(head, body);
	ops[n].op = GRPC_OP_SEND_MESSAGE;
	ops[n++].data.send_message.send_message = message;
	int64_t waited_ms;
	call_start(s, ops, n, ops);
	bool sent = message_wait(s, ops, pace_left_ms(&s->pace), &waited_ms);
	grpc_byte_buffer_destroy(message);
	if (!sent)
		return cut(s, "sending to the peer");
	atomic_fetch_add(&s->server->bytes_out, head.n + body.n);
	progress(s, waited_ms, head.n + body.n);
	return ERR_OK;
}

enum err rpc_stream_send_head(struct rpc_stream *s, const struct wire_head *head)
{
	struct buf out;
	ENSURE(s->method->kind == METHOD_DOWNLOAD && !s->has_head);
	buf_init(&out, s->method->reply_max);
	enum err e = wire_head_pack(head, &out);
	if (e == ERR_OK)
		e = send_message(s, buf_bytes(&out), (struct bytes){0});
	buf_deinit(&out);
	s->has_head = true;
	return e;
}

enum err rpc_stream_send(struct rpc_stream *s, const void *p, size_t n)
{
	uint8_t prefix[WIRE_DATA_PREFIX_MAX];
	ENSURE(s->method->kind == METHOD_DOWNLOAD && s->has_head && n <= WIRE_CHUNK_SIZE);
	for (size_t at = 0; at < n;) {
		size_t k = n - at < PACE_MESSAGE_SIZE ? n - at : PACE_MESSAGE_SIZE;
		struct bytes head = {prefix, wire_data_prefix(k, prefix)};
		TRY(send_message(s, head, (struct bytes){(const uint8_t *)p + at, k}));
		at += k;
	}
	return ERR_OK;
}

/* ---- one call ---- */

/* The one request message of a unary call or a download. */
static enum err read_request(struct rpc_stream *s, struct buf *ret_request)
{
	enum err e = receive(s, REQUEST_MS);
	if (e == ERR_END)
		return err_set(ERR_MALFORMED, "the request is missing");
	if (e != ERR_OK)
		return e;
	e = payload_read(s->in, s->method->request_max, ret_request);
	grpc_byte_buffer_destroy(s->in);
	s->in = NULL;
	return e;
}

static enum err run_handler(struct rpc_stream *s, const struct rpc_handler *h, struct buf *reply)
{
	void *ctx = s->server->config.ctx;
	struct buf request = {0};
	enum err e = ERR_OK;
	if (s->method->kind != METHOD_UPLOAD)
		TRY(read_request(s, &request));
	/* A handler that fails without a text must not send the text of some earlier error to the peer. */
	err_set(ERR_OK, "%s", "");
	if (s->method->kind == METHOD_UPLOAD)
		e = h->upload(ctx, &s->peer, s, reply);
	else if (s->method->kind == METHOD_DOWNLOAD)
		e = h->download(ctx, &s->peer, buf_bytes(&request), s);
	else
		e = h->unary(ctx, &s->peer, buf_bytes(&request), reply);
	buf_deinit(&request);
	return e;
}

static void pass_cancel(void *arg)
{
	grpc_call_cancel(arg, NULL);
}

static enum err serve(struct rpc_stream *s, struct buf *reply)
{
	struct rpc_server *server = s->server;
	TRY(server_admit(server, s->call, s->method, &s->peer));
	s->pass = (struct gate_pass){
		.id = s->peer.id, .stream = s->method->kind != METHOD_UNARY, .cancel = pass_cancel, .arg = s->call};
	if (s->peer.id.role != ROLE_NOBODY) {
		TRY(gate_enter(server->gate, &s->pass));
		s->entered = true;
	}
	enum err e = run_handler(s, &server->handlers[s->method - methods], reply);
	if (s->entered)
		gate_stream_end(server->gate, &s->pass);
	return e;
}

static int64_t reply_until(const struct rpc_stream *s, size_t n)
{
	bool nobody = s->peer.id.role == ROLE_NONE || s->peer.id.role == ROLE_NOBODY;
	return clock_monotonic_ms() + (nobody ? NOBODY_REPLY_MS : REPLY_MS) + pace_time_ms(n);
}

/* The last words to the peer: a reply, or an error. */
static void answer(struct rpc_stream *s, int status, const char *text, const struct buf *reply)
{
	grpc_op ops[3] = {{0}};
	size_t n = 0;
	grpc_byte_buffer *message = NULL;
	grpc_slice details = grpc_slice_from_copied_string(text);
	if (!s->initial_sent)
		ops[n++].op = GRPC_OP_SEND_INITIAL_METADATA;
	if (reply != NULL) {
		message = payload_new(buf_bytes(reply), (struct bytes){0});
		ops[n].op = GRPC_OP_SEND_MESSAGE;
		ops[n++].data.send_message.send_message = message;
		atomic_fetch_add(&s->server->bytes_out, reply->n);
	}
	ops[n].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
	ops[n].data.send_status_from_server.status = (grpc_status_code)status;
	ops[n++].data.send_status_from_server.status_details = &details;
	call_start(s, ops, n, ops);
	s->reply_until_ms = reply_until(s, reply != NULL ? reply->n : 0);
	(void)call_wait(s, ops, s->reply_until_ms);
	if (message != NULL)
		grpc_byte_buffer_destroy(message);
	grpc_slice_unref(details);
}

static void serve_and_answer(struct rpc_stream *s)
{
	char text[STATUS_TEXT_SIZE];
	struct buf reply;
	buf_init(&reply, s->method->reply_max);
	enum err e = serve(s, &reply);
	if (e == ERR_OK) {
		answer(s, GRPC_STATUS_OK, "", s->method->kind == METHOD_DOWNLOAD ? NULL : &reply);
	} else {
		server_log_error(s->server, s->method, &s->peer, e);
		answer(s, status_code(e), status_format(e, err_text(), text), NULL);
	}
	buf_deinit(&reply);
}

static void call_run(struct worker *w, grpc_call *call, const grpc_call_details *details)
{
	struct rpc_server *server = w->server;
	int id = method_find((const char *)GRPC_SLICE_START_PTR(details->method), GRPC_SLICE_LENGTH(details->method));
	struct rpc_stream s = {.server = server, .cq = w->cq, .call = call};
	grpc_op close = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER};
	close.data.recv_close_on_server.cancelled = &s.close_cancelled;
	call_start(&s, &close, 1, &s.close_cancelled);
	atomic_fetch_add(&server->calls, 1);
	if (id < 0 || !server_offers(server, (enum method_id)id)) {
		atomic_fetch_add(&server->refused, 1);
		answer(&s, GRPC_STATUS_UNIMPLEMENTED, "this server does not offer that call", NULL);
	} else {
		s.method = &methods[id];
		s.pace = pace_begin(server->config.patience_ms);
		s.deadline_ms = server_deadline(details->deadline, s.method->deadline_ms);
		serve_and_answer(&s);
	}
	payload_close(&s.part);
	(void)call_wait(&s, &s.close_cancelled, s.reply_until_ms);
	/* The gate may cancel the call until it has left, so it leaves before the call goes. */
	if (s.entered)
		gate_leave(server->gate, &s.pass);
	grpc_call_unref(call);
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	bool serving = true;
	while (serving) {
		grpc_call *call = NULL;
		grpc_call_details details;
		grpc_metadata_array metadata;
		grpc_call_details_init(&details);
		grpc_metadata_array_init(&metadata);
		grpc_call_error asked =
			grpc_server_request_call(w->server->grpc, &call, &details, &metadata, w->cq, w->cq, &call);
		ENSURE(asked == GRPC_CALL_OK);
		grpc_event event = grpc_completion_queue_pluck(w->cq, &call, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
		ENSURE(event.type == GRPC_OP_COMPLETE);
		serving = event.success != 0;
		if (serving) {
			atomic_fetch_add(&w->server->active, 1);
			call_run(w, call, &details);
			atomic_fetch_sub(&w->server->active, 1);
		}
		grpc_call_details_destroy(&details);
		grpc_metadata_array_destroy(&metadata);
	}
	return NULL;
}

enum err workers_new(struct rpc_server *s)
{
	s->workers = mem_array(s->config.workers, sizeof *s->workers);
	for (size_t i = 0; i < s->config.workers; i++) {
		s->workers[i] = (struct worker){.server = s, .cq = grpc_completion_queue_create_for_pluck(NULL)};
		grpc_server_register_completion_queue(s->grpc, s->workers[i].cq, NULL);
	}
	return ERR_OK;
}

enum err workers_start(struct rpc_server *s)
{
	for (size_t i = 0; i < s->config.workers; i++) {
		if (pthread_create(&s->workers[i].thread, NULL, worker_main, &s->workers[i]) != 0)
			return err_set(ERR_IO, "cannot start worker %zu of %zu", i + 1, s->config.workers);
		s->workers[i].started = true;
	}
	return ERR_OK;
}

void workers_free(struct rpc_server *s)
{
	for (size_t i = 0; s->workers != NULL && i < s->config.workers; i++) {
		if (s->workers[i].started)
			pthread_join(s->workers[i].thread, NULL);
		grpc_completion_queue_shutdown(s->workers[i].cq);
		grpc_completion_queue_destroy(s->workers[i].cq);
	}
	free(s->workers);
}
