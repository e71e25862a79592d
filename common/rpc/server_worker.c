/*
 * Workers: each asks gRPC for a stream on its own queue, serves it from beginning to end in straight lines, and asks for
 * the next one. There is one worker more than streams at a time: it waits at the gate for a place, so the others know that
 * somebody waits; further streams wait in gRPC's own queue, in order, with no more of their data read than the window of
 * a stream. Calls of methods that nobody knows come here as well.
 *
 * Everything that a pending operation points to lives in struct rpc_stream, and no function returns before the operation's
 * tag has come: to give up is to cancel the call and wait on. An upload has ended when all that its head announced has
 * come, or with a clean half-close (a stream that the server's own shutdown cuts looks almost the same, except for
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

enum { REQUEST_MS = 10 * 1000 }; /* a peer has this long to send the request of a download */

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
	int64_t deadline_ms; /* clock_monotonic_ms() */
	struct pace pace;    /* of a stream */
	bool slow;           /* the peer has been cut because it was too slow */
	struct gate_pass pass;
	bool entered;  /* pass is in the gate */
	int cancelled; /* written by gRPC with the answer */
	bool initial_sent;
	enum err ended; /* uploads: ERR_OK, or why nothing more comes */
	bool has_head;
	uint64_t left;        /* bytes that the head has announced and that have not passed */
	grpc_byte_buffer *in; /* where gRPC puts a message */
	struct payload part;
	bool fresh; /* the part's data has not been given out */
};

/* What a message is sent from, where it lies. */
struct shared {
	struct rpc_server *server;
	atomic_size_t refs;
	void (*release)(void *arg);
	void *arg;
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

/* Why did an operation fail? Only our own cuts and the deadline can be told from the many ways of losing a peer. */
static enum err cut(const struct rpc_stream *s, const char *what)
{
	const char *why = s->entered ? gate_why(s->server->gate, &s->pass) : NULL;
	if (why != NULL)
		return err_set(ERR_UNAVAILABLE, "%s: %s", what, why);
	if (s->slow)
		return err_set(ERR_UNAVAILABLE, "%s: %s", what, slow_text);
	if (clock_monotonic_ms() >= s->deadline_ms)
		return err_set(ERR_DEADLINE, "%s: the deadline has passed", what);
	return err_set(ERR_UNAVAILABLE, "%s: the connection was lost or the call cancelled", what);
}

/* Starts operations that pass a message and waits for the peer to do its part. */
static bool pass_message(struct rpc_stream *s, const grpc_op *ops, size_t n, int64_t within_ms, int64_t *ret_waited_ms)
{
	int64_t start_ms = clock_monotonic_ms();
	gate_wait(s->server->gate, &s->pass);
	call_start(s, ops, n, s);
	bool ok = call_wait(s, s, sooner(s->deadline_ms, within_ms));
	*ret_waited_ms = clock_monotonic_ms() - start_ms;
	return ok;
}

/* A message of `n` bytes has passed, or none. */
static void progress(struct rpc_stream *s, int64_t waited_ms, size_t n)
{
	pace_count(&s->pace, waited_ms, n);
	gate_progress(s->server->gate, &s->pass, n);
}

/* The next message into s->in. ERR_END after a clean half-close. */
static enum err receive(struct rpc_stream *s, int64_t within_ms)
{
	grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};
	op.data.recv_message.recv_message = &s->in;
	s->in = NULL;
	int64_t waited_ms;
	bool ok = pass_message(s, &op, 1, within_ms, &waited_ms);
	size_t n = s->in != NULL ? grpc_byte_buffer_length(s->in) : 0;
	progress(s, waited_ms, n);
	if (s->in != NULL) {
		atomic_fetch_add(&s->server->bytes_in, n);
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
	payload_close(&s->part);
	TRY(receive(s, pace_left_ms(&s->pace)));
	grpc_byte_buffer *message = s->in;
	s->in = NULL;
	TRY(payload_open(&s->part, message, s->method->request_max, head));
	if (s->part.has_head == s->has_head)
		return err_set(ERR_MALFORMED, s->has_head ? "upload: a second head" : "upload: data before the head");
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
	if (s->ended == ERR_OK) {
		s->left = ret_head->offset < ret_head->size ? ret_head->size - ret_head->offset : 0;
		s->fresh = s->part.n > 0;
	}
	return s->ended;
}

enum err rpc_stream_next(struct rpc_stream *s, const struct bytes **ret_pieces, size_t *ret_n)
{
	struct wire_head unused;
	ENSURE(s->method->kind == METHOD_UPLOAD && s->has_head);
	if (s->ended == ERR_OK && !s->fresh) {
		s->ended = s->left == 0 ? ERR_END : next_part(s, &unused);
		/* An empty part would be progress without data. */
		if (s->ended == ERR_OK && s->part.n == 0)
			s->ended = err_set(ERR_MALFORMED, "upload: a part without data");
	}
	if (s->ended != ERR_OK)
		return s->ended;
	s->fresh = false;
	for (size_t i = 0; i < s->part.n; i++)
		s->left -= s->part.v[i].n < s->left ? s->part.v[i].n : s->left;
	*ret_pieces = s->part.v;
	*ret_n = s->part.n;
	return ERR_OK;
}

/* Takes the message. `flags`: gRPC's, of a write. */
static enum err send_message(struct rpc_stream *s, grpc_byte_buffer *message, uint32_t flags)
{
	grpc_op ops[2] = {{0}};
	size_t n = 0, size = grpc_byte_buffer_length(message);
	if (!s->initial_sent)
		ops[n++].op = GRPC_OP_SEND_INITIAL_METADATA;
	s->initial_sent = true;
	ops[n].op = GRPC_OP_SEND_MESSAGE;
	ops[n].flags = flags;
	ops[n++].data.send_message.send_message = message;
	int64_t waited_ms;
	bool sent = pass_message(s, ops, n, pace_left_ms(&s->pace), &waited_ms);
	grpc_byte_buffer_destroy(message);
	progress(s, waited_ms, sent ? size : 0);
	if (!sent)
		return cut(s, "sending to the peer");
	atomic_fetch_add(&s->server->bytes_out, size);
	return ERR_OK;
}

enum err rpc_stream_send_head(struct rpc_stream *s, const struct wire_head *head)
{
	struct buf out;
	ENSURE(s->method->kind == METHOD_DOWNLOAD && !s->has_head);
	buf_init(&out, s->method->reply_max);
	enum err e = wire_head_pack(head, &out);
	if (e == ERR_OK)
		e = send_message(s, payload_new(buf_bytes(&out), (struct bytes){0}), 0);
	buf_deinit(&out);
	s->left = head->offset < head->size ? head->size - head->offset : 0;
	s->has_head = true;
	return e;
}

/* The next message's data out of `n` bytes; what stands before it; and the flags to send it with: the last one goes out
 * together with the end. */
static size_t next_size(struct rpc_stream *s, size_t n, uint32_t *ret_flags)
{
	size_t k = n < PACE_MESSAGE_SIZE ? n : PACE_MESSAGE_SIZE;
	s->left -= k < s->left ? k : s->left;
	*ret_flags = s->left == 0 ? GRPC_WRITE_BUFFER_HINT : 0;
	return k;
}

enum err rpc_stream_send(struct rpc_stream *s, const void *p, size_t n)
{
	uint8_t prefix[WIRE_DATA_PREFIX_MAX];
	uint32_t flags;
	ENSURE(s->method->kind == METHOD_DOWNLOAD && s->has_head && n <= WIRE_CHUNK_SIZE);
	for (size_t at = 0; at < n;) {
		size_t k = next_size(s, n - at, &flags);
		struct bytes head = {prefix, wire_data_prefix(k, prefix)};
		TRY(send_message(s, payload_new(head, (struct bytes){(const uint8_t *)p + at, k}), flags));
		at += k;
	}
	return ERR_OK;
}

static void shared_drop(void *arg)
{
	struct shared *h = arg;
	if (atomic_fetch_sub(&h->refs, 1) > 1)
		return;
	struct rpc_server *server = h->server;
	h->release(h->arg);
	free(h);
	/* The server may go when the last of them has gone. */
	atomic_fetch_sub(&server->shared, 1);
}

enum err rpc_stream_send_shared(struct rpc_stream *s, const void *p, size_t n, void (*release)(void *arg), void *arg)
{
	uint8_t prefix[WIRE_DATA_PREFIX_MAX];
	uint32_t flags;
	enum err e = ERR_OK;
	ENSURE(s->method->kind == METHOD_DOWNLOAD && s->has_head && n <= WIRE_CHUNK_SIZE);
	struct shared *h = mem_new(sizeof *h);
	h->server = s->server;
	h->release = release;
	h->arg = arg;
	atomic_init(&h->refs, 1);
	atomic_fetch_add(&s->server->shared, 1);
	for (size_t at = 0; e == ERR_OK && at < n;) {
		size_t k = next_size(s, n - at, &flags);
		struct bytes head = {prefix, wire_data_prefix(k, prefix)}, body = {(const uint8_t *)p + at, k};
		atomic_fetch_add(&h->refs, 1);
		e = send_message(s, payload_shared(head, body, shared_drop, h), flags);
		at += k;
	}
	shared_drop(h);
	return e;
}

/* ---- one call ---- */

/* The one request message of a download. */
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
	if (s->method->kind == METHOD_DOWNLOAD)
		TRY(read_request(s, &request));
	/* A handler that fails without a text must not send the text of some earlier error to the peer. */
	err_set(ERR_OK, "%s", "");
	if (s->method->kind == METHOD_UPLOAD)
		e = h->upload(ctx, &s->peer, s, reply);
	else
		e = h->download(ctx, &s->peer, buf_bytes(&request), s);
	buf_deinit(&request);
	return e;
}

static void pass_cancel(void *arg, const char *why)
{
	char text[STATUS_TEXT_SIZE];
	status_format(ERR_UNAVAILABLE, why, text);
	grpc_call_cancel_with_status(arg, (grpc_status_code)status_code(ERR_UNAVAILABLE), text, NULL);
}

static enum err serve(struct rpc_stream *s, struct buf *reply)
{
	struct rpc_server *server = s->server;
	TRY(server_admit(server, s->call, s->method, &s->peer));
	s->pass = (struct gate_pass){.id = s->peer.id, .cancel = pass_cancel, .arg = s->call};
	TRY(gate_enter(server->gate, &s->pass));
	s->entered = true;
	enum err e = run_handler(s, &server->handlers[s->method - methods], reply);
	gate_stream_end(server->gate, &s->pass);
	return e;
}

/* The last words to the peer: a reply, or an error. */
static void answer(struct rpc_stream *s, int status, const char *text, const struct buf *reply)
{
	grpc_op ops[4] = {{0}};
	size_t n = 0;
	grpc_byte_buffer *message = NULL;
	grpc_slice details = text[0] != '\0' ? grpc_slice_from_copied_string(text) : grpc_empty_slice();
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
	ops[n].op = GRPC_OP_RECV_CLOSE_ON_SERVER;
	ops[n++].data.recv_close_on_server.cancelled = &s->cancelled;
	/* Who does not take its answer holds a place like any other slow peer. */
	if (s->entered)
		gate_wait(s->server->gate, &s->pass);
	call_start(s, ops, n, ops);
	(void)call_wait(s, ops, server_reply_until(&s->peer, reply != NULL ? reply->n : 0));
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

void workers_new(struct rpc_server *s)
{
	s->n_workers = server_streams(s->config.workers) + 1;
	s->workers = mem_array(s->n_workers, sizeof *s->workers);
	for (size_t i = 0; i < s->n_workers; i++) {
		s->workers[i] = (struct worker){.server = s, .cq = grpc_completion_queue_create_for_pluck(NULL)};
		grpc_server_register_completion_queue(s->grpc, s->workers[i].cq, NULL);
	}
}

enum err workers_start(struct rpc_server *s)
{
	for (size_t i = 0; i < s->n_workers; i++) {
		if (pthread_create(&s->workers[i].thread, NULL, worker_main, &s->workers[i]) != 0)
			return err_set(ERR_IO, "cannot start worker %zu of %zu", i + 1, s->n_workers);
		s->workers[i].started = true;
	}
	return ERR_OK;
}

void workers_free(struct rpc_server *s)
{
	for (size_t i = 0; s->workers != NULL && i < s->n_workers; i++) {
		if (s->workers[i].started)
			pthread_join(s->workers[i].thread, NULL);
		grpc_completion_queue_shutdown(s->workers[i].cq);
		grpc_completion_queue_destroy(s->workers[i].cq);
	}
	free(s->workers);
}
