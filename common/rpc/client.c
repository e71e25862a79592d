/*
 * One channel, one pluck queue, one call at a time. Whatever a pending operation points to lives in struct client_call,
 * and no function returns before every tag it started has come back: giving up means cancelling the call and then
 * waiting for the tags as usual.
 *
 * Every batch of operations is a wait, and waiting is what a short call costs. So a call of one message, and an upload
 * that fits into one, is a single batch; and an upload is one piece behind its source, so that its last message takes the
 * end along.
 *
 * gRPC keeps a failed channel in its own back-off, in which calls fail without anything being tried. Retrying is our
 * caller's business, so a channel that has failed is thrown away: every call after a failure makes one fresh attempt
 * and reports what happened to that one.
 */
#include "rpc/client.h"

#include "base/clock.h"
#include "base/log.h"
#include "crypto/address.h"
#include "rpc/credentials.h"
#include "rpc/pace.h"
#include "rpc/payload.h"
#include "rpc/status.h"

#include <fcntl.h>
#include <grpc/support/alloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CANCEL_POLL_MS = 50, REASON_SIZE = 512 };

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

/* Both ends: what stops a message, how much is read ahead of a slow handler (core's own probing would let it grow
 * without bound), and how often a silent connection is tested; server.c allows pings this often. */
static grpc_channel *channel_new(const struct rpc_client *c)
{
	static char agent_key[] = GRPC_ARG_PRIMARY_USER_AGENT_STRING, agent[] = "hansa/" HANSA_VERSION;
	static const struct {
		char key[48];
		int value;
	} numbers[] = {
		{GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, PAYLOAD_MAX},
		{GRPC_ARG_MAX_SEND_MESSAGE_LENGTH, PAYLOAD_MAX},
		{GRPC_ARG_HTTP2_BDP_PROBE, 0},
		{GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 1 << 20},
		{GRPC_ARG_KEEPALIVE_TIME_MS, 30000},
		{GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 15000},
		{GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0},
		{GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 10000}, /* also the time limit of one attempt to connect */
		{GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1},
		{GRPC_ARG_ENABLE_RETRIES, 0},
		{GRPC_ARG_ENABLE_HTTP_PROXY, 0},
		{GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1},
		{GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0},
		{GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0},
		{GRPC_ARG_ENABLE_CHANNELZ, 0},
	};
	enum { NUMBERS = sizeof numbers / sizeof numbers[0] };
	char keys[NUMBERS][48];
	grpc_arg v[NUMBERS + 1];
	for (size_t i = 0; i < NUMBERS; i++) {
		memcpy(keys[i], numbers[i].key, sizeof keys[i]);
		v[i] = (grpc_arg){.type = GRPC_ARG_INTEGER, .key = keys[i], .value.integer = numbers[i].value};
	}
	v[NUMBERS] = (grpc_arg){.type = GRPC_ARG_STRING, .key = agent_key, .value.string = agent};
	grpc_channel_args args = {.num_args = NUMBERS + 1, .args = v};
	return grpc_channel_create(c->address, c->creds, &args);
}

enum err rpc_client_new(const struct rpc_client_config *config, struct rpc_client **ret_client)
{
	struct address address;
	struct credentials_pem pem = {.key = config->key_pem, .cert = config->cert_pem, .ca = config->ca_pem};
	TRY(address_parse(config->address, &address));
	struct rpc_client *c = mem_new(sizeof *c);
	enum err e = credentials_client(&pem, config->federation, &c->check, &c->creds);
	if (e != ERR_OK) {
		free(c);
		return e;
	}
	c->address = mem_str(config->address);
	c->stop_asked = config->stop_asked;
	c->cq = grpc_completion_queue_create_for_pluck(NULL);
	pthread_mutex_init(&c->lock, NULL);
	c->tap = -1;
#ifdef HANSA_WIRE_TAP
	const char *tap = getenv("HANSA_TAP_FILE");
	if (tap != NULL)
		c->tap = open(tap, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	ENSURE(tap == NULL || c->tap >= 0);
#endif
	*ret_client = c;
	return ERR_OK;
}

void rpc_client_free(struct rpc_client *c)
{
	if (c == NULL)
		return;
	if (c->channel != NULL)
		grpc_channel_destroy(c->channel);
	grpc_channel_credentials_release(c->creds);
	credentials_check_free(c->check);
	grpc_completion_queue_shutdown(c->cq);
	grpc_completion_queue_destroy(c->cq);
	if (c->tap >= 0)
		close(c->tap);
	pthread_mutex_destroy(&c->lock);
	free(c->address);
	free(c);
}

void rpc_client_cancel(struct rpc_client *c)
{
	atomic_store(&c->cancelled, true);
	pthread_mutex_lock(&c->lock);
	if (c->running != NULL)
		grpc_call_cancel(c->running, NULL);
	pthread_mutex_unlock(&c->lock);
}

static void set_running(struct rpc_client *c, grpc_call *call)
{
	pthread_mutex_lock(&c->lock);
	c->running = call;
	pthread_mutex_unlock(&c->lock);
}

void rpc_client_get_bytes(const struct rpc_client *c, uint64_t *ret_sent, uint64_t *ret_received)
{
	*ret_sent = atomic_load(&c->sent);
	*ret_received = atomic_load(&c->received);
}

static bool stop_asked(struct rpc_client *c)
{
	if (c->stop_asked != NULL && c->stop_asked())
		atomic_store(&c->cancelled, true);
	return atomic_load(&c->cancelled);
}

/* Waits for `tag`; on request cancels the call and goes on waiting. Was the operation successful? Only a question has to
 * be asked again and again: rpc_client_cancel() cancels by itself. */
static bool call_wait(struct client_call *k, void *tag)
{
	bool asks = k->c->stop_asked != NULL;
	for (;;) {
		if (asks && stop_asked(k->c)) {
			grpc_call_cancel(k->call, NULL);
			asks = false;
		}
		gpr_timespec until = gpr_inf_future(GPR_CLOCK_MONOTONIC);
		if (asks)
			until = gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
					     gpr_time_from_millis(CANCEL_POLL_MS, GPR_TIMESPAN));
		grpc_event event = grpc_completion_queue_pluck(k->c->cq, tag, until, NULL);
		if (event.type == GRPC_OP_COMPLETE)
			return event.success != 0;
		ENSURE(event.type == GRPC_QUEUE_TIMEOUT);
	}
}

static void call_start(struct client_call *k, const grpc_op *ops, size_t n, void *tag)
{
	ENSURE(grpc_call_start_batch(k->call, ops, n, tag, NULL) == GRPC_CALL_OK);
}

/* A call of which nothing has been sent yet. */
static enum err call_begin(struct client_call *k, struct rpc_client *c, enum method_id method, int64_t deadline_ms)
{
	ENSURE((unsigned)method < METHOD_COUNT);
	*k = (struct client_call){.c = c, .method = &methods[method], .details = grpc_empty_slice()};
	if (stop_asked(c))
		return err_set(ERR_CANCELLED, "stopped on request");
	char forget[REASON_SIZE];
	(void)credentials_check_take(c->check, forget, sizeof forget);
	if (c->channel != NULL &&
	    grpc_channel_check_connectivity_state(c->channel, 0) == GRPC_CHANNEL_TRANSIENT_FAILURE) {
		grpc_channel_destroy(c->channel);
		c->channel = NULL;
	}
	if (c->channel == NULL)
		c->channel = channel_new(c);
	if (deadline_ms <= 0)
		deadline_ms = k->method->deadline_ms;
	k->deadline_ms = clock_monotonic_ms() + deadline_ms;
	gpr_timespec deadline =
		gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(deadline_ms, GPR_TIMESPAN));
	k->call = grpc_channel_create_call(c->channel, NULL, GRPC_PROPAGATE_DEFAULTS, c->cq,
					   grpc_slice_from_static_string(k->method->path), NULL, deadline, NULL);
	grpc_metadata_array_init(&k->initial);
	grpc_metadata_array_init(&k->trailing);
	set_running(c, k->call);
	/* Cancelled before it was running: nobody else will say so. */
	if (atomic_load(&c->cancelled))
		grpc_call_cancel(k->call, NULL);
	return ERR_OK;
}

static grpc_op status_op(struct client_call *k)
{
	grpc_op op = {.op = GRPC_OP_RECV_STATUS_ON_CLIENT};
	op.data.recv_status_on_client.trailing_metadata = &k->trailing;
	op.data.recv_status_on_client.status = &k->status;
	op.data.recv_status_on_client.status_details = &k->details;
	op.data.recv_status_on_client.error_string = &k->error;
	k->started = true;
	return op;
}

/* Of a call of many messages: the status is asked for first, it comes whatever happens to the rest. */
static void call_watch(struct client_call *k)
{
	grpc_op op = status_op(k);
	call_start(k, &op, 1, &k->status);
}

/* How did it end? Network trouble that is really a refusal to trust the server is told apart. */
static enum err call_verdict(struct client_call *k)
{
	char reason[REASON_SIZE];
	struct bytes details = {GRPC_SLICE_START_PTR(k->details), GRPC_SLICE_LENGTH(k->details)};
	if (k->status == GRPC_STATUS_OK && !k->cut)
		return ERR_OK;
	if (atomic_load(&k->c->cancelled))
		return err_set(ERR_CANCELLED, "stopped on request");
	/* A deadline that passes in the very moment in which the status arrives can take the message before it along. */
	if (k->status == GRPC_STATUS_OK)
		return clock_monotonic_ms() >= k->deadline_ms
			       ? err_set(ERR_DEADLINE, "%s: the answer came too late", k->c->address)
			       : err_set(ERR_UNAVAILABLE, "%s: the answer was lost", k->c->address);
	if (k->status == GRPC_STATUS_UNAVAILABLE) {
		static const char distrust[] = "certificate verify failed";
		if (credentials_check_take(k->c->check, reason, sizeof reason))
			return err_set(ERR_UNAUTHENTIC, "%s: %s", k->c->address, reason);
		if (details.n > 0 && memmem(details.p, details.n, distrust, sizeof distrust - 1) != NULL)
			return err_set(
				ERR_UNAUTHENTIC,
				"%s: the server's certificate is not one of this federation's CA, or not valid now",
				k->c->address);
	}
	return status_parse((int)k->status, details, k->c->address);
}

/* Waits for the end of the call and frees it. */
static enum err call_end(struct client_call *k)
{
	if (k->started && !k->ended)
		(void)call_wait(k, &k->status);
	set_running(k->c, NULL);
	enum err e = call_verdict(k);
	if (k->in != NULL)
		grpc_byte_buffer_destroy(k->in);
	grpc_metadata_array_destroy(&k->initial);
	grpc_metadata_array_destroy(&k->trailing);
	grpc_slice_unref(k->details);
	gpr_free((void *)(uintptr_t)k->error);
	grpc_call_unref(k->call);
	return e;
}

/* Ends a call that failed at this end: the error and its text stay as they are. */
static enum err call_abort(struct client_call *k, enum err e)
{
	char text[1024];
	snprintf(text, sizeof text, "%s", err_text());
	grpc_call_cancel(k->call, NULL);
	(void)call_end(k);
	return err_set(e, "%s", text);
}

static void count_out(struct rpc_client *c, const grpc_byte_buffer *message)
{
	const grpc_slice_buffer *b = &message->data.raw.slice_buffer;
	atomic_fetch_add(&c->sent, b->length);
#ifdef HANSA_WIRE_TAP
	for (size_t i = 0; c->tap >= 0 && i < b->count; i++) {
		const uint8_t *p = GRPC_SLICE_START_PTR(b->slices[i]);
		for (size_t left = GRPC_SLICE_LENGTH(b->slices[i]); left > 0;) {
			ssize_t n = write(c->tap, p, left);
			ENSURE(n > 0);
			p += n;
			left -= (size_t)n;
		}
	}
#endif
}

enum { FIRST = 1, LAST = 2, REPLY = 4 }; /* what goes along with a message */

/* The operations of sending `message` and of what goes along. */
static size_t send_ops(struct client_call *k, grpc_op *ops, grpc_byte_buffer *message, unsigned along)
{
	size_t n = 0;
	if (along & FIRST)
		ops[n++].op = GRPC_OP_SEND_INITIAL_METADATA;
	ops[n].op = GRPC_OP_SEND_MESSAGE;
	ops[n++].data.send_message.send_message = message;
	if (along & LAST)
		ops[n++].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
	count_out(k->c, message);
	return n;
}

static size_t receive_ops(struct client_call *k, grpc_op *ops)
{
	size_t n = 0;
	if (!k->initial_asked) {
		ops[n].op = GRPC_OP_RECV_INITIAL_METADATA;
		ops[n++].data.recv_initial_metadata.recv_initial_metadata = &k->initial;
		k->initial_asked = true;
	}
	k->in = NULL;
	ops[n].op = GRPC_OP_RECV_MESSAGE;
	ops[n++].data.recv_message.recv_message = &k->in;
	return n;
}

/* Takes the message. With REPLY, the first answer is waited for, into k->in. false: the call has ended, its status says
 * why. */
static bool call_send(struct client_call *k, grpc_byte_buffer *message, unsigned along)
{
	grpc_op ops[5] = {{0}};
	if (!k->started)
		call_watch(k);
	size_t n = send_ops(k, ops, message, along);
	if (along & REPLY)
		n += receive_ops(k, ops + n);
	call_start(k, ops, n, ops);
	bool sent = call_wait(k, ops);
	grpc_byte_buffer_destroy(message);
	if (along & REPLY) {
		k->cut = !sent;
		if (k->in != NULL)
			atomic_fetch_add(&k->c->received, grpc_byte_buffer_length(k->in));
		sent = k->in != NULL;
	}
	return sent;
}

/* The whole call at once: takes and sends the one message, and waits for the reply and the end. */
static void call_exchange(struct client_call *k, grpc_byte_buffer *message)
{
	grpc_op ops[6] = {{0}};
	size_t n = send_ops(k, ops, message, FIRST | LAST);
	n += receive_ops(k, ops + n);
	ops[n++] = status_op(k);
	call_start(k, ops, n, ops);
	(void)call_wait(k, ops);
	grpc_byte_buffer_destroy(message);
	k->ended = true;
	/* A reply that got lost cannot be told from one that was never sent; no server of ours sends none. */
	k->cut = k->in == NULL;
	if (k->in != NULL)
		atomic_fetch_add(&k->c->received, grpc_byte_buffer_length(k->in));
}

/* The next message into k->in; false: there is none, the status says why. */
static bool call_receive(struct client_call *k)
{
	grpc_op ops[2] = {{0}};
	size_t n = receive_ops(k, ops);
	call_start(k, ops, n, ops);
	k->cut = !call_wait(k, ops);
	if (k->in != NULL)
		atomic_fetch_add(&k->c->received, grpc_byte_buffer_length(k->in));
	return k->in != NULL;
}

/* The one message that answers a unary call or an upload, and the end. */
static enum err call_reply(struct client_call *k, struct buf *ret_reply)
{
	struct buf reply = {0};
	if (k->ended ? k->in != NULL : call_receive(k)) {
		enum err e = payload_read(k->in, k->method->reply_max, &reply);
		if (e != ERR_OK)
			return call_abort(k, err_add(e, "reply"));
	}
	bool answered = k->in != NULL;
	enum err e = call_end(k);
	if (e == ERR_OK && !answered)
		e = err_set(ERR_MALFORMED, "the server gave no reply");
	if (e != ERR_OK) {
		buf_deinit(&reply);
		return e;
	}
	*ret_reply = reply;
	return ERR_OK;
}

enum err rpc_client_call(struct rpc_client *c, enum method_id method, struct bytes request, int64_t deadline_ms,
			 struct buf *ret_reply)
{
	struct client_call k;
	ENSURE((unsigned)method < METHOD_COUNT &&
	       (methods[method].kind == METHOD_UNARY || methods[method].kind == METHOD_PARKED));
	if (request.n > methods[method].request_max)
		return err_set(ERR_LIMIT, "request of %zu bytes is too large (at most %zu)", request.n,
			       methods[method].request_max);
	TRY(call_begin(&k, c, method, deadline_ms));
	call_exchange(&k, payload_new(request, (struct bytes){0}));
	return call_reply(&k, ret_reply);
}

/* What an upload sends, in pieces of one message each. */
struct source {
	rpc_source_fn next;
	void *arg;
	struct bytes rest; /* of what `next` has given */
};

static enum err source_take(struct source *s, struct bytes *ret_piece)
{
	while (s->rest.n == 0)
		TRY(s->next(s->arg, &s->rest));
	ENSURE(s->rest.n <= WIRE_CHUNK_SIZE);
	size_t n = s->rest.n < PACE_MESSAGE_SIZE ? s->rest.n : PACE_MESSAGE_SIZE;
	*ret_piece = (struct bytes){s->rest.p, n};
	s->rest = (struct bytes){s->rest.p + n, s->rest.n - n};
	return ERR_OK;
}

/* A Part of data, or of a packed head and what data there is; empties `front`. */
static grpc_byte_buffer *part_new(struct buf *front, struct bytes data)
{
	uint8_t prefix[WIRE_DATA_PREFIX_MAX];
	if (data.n > 0)
		ENSURE(buf_append(front, prefix, wire_data_prefix(data.n, prefix)) == ERR_OK);
	grpc_byte_buffer *message = payload_new(buf_bytes(front), data);
	buf_reset(front);
	return message;
}

/* Sends the head in `front` and what the source gives. ERR_END when all is sent, or the call has ended before. */
static enum err send_parts(struct client_call *k, struct source *source, struct buf *front)
{
	struct bytes piece = {0};
	unsigned along = FIRST;
	bool open = true;
	enum err e = source_take(source, &piece);
	if (e != ERR_OK && e != ERR_END)
		return e;
	while (open && (along & LAST) == 0) {
		/* Copied, so that the source may go on and say whether this was the last. */
		grpc_byte_buffer *message = part_new(front, piece);
		if (e == ERR_OK)
			e = source_take(source, &piece);
		if (e != ERR_OK && e != ERR_END) {
			grpc_byte_buffer_destroy(message);
			return e;
		}
		along |= e == ERR_END ? LAST : 0;
		if (along == (FIRST | LAST))
			call_exchange(k, message);
		else
			open = call_send(k, message, along);
		along &= ~(unsigned)FIRST;
	}
	return ERR_END;
}

enum err rpc_client_upload(struct rpc_client *c, enum method_id method, const struct wire_head *head,
			   rpc_source_fn next, void *arg, struct buf *ret_reply)
{
	struct client_call k;
	struct source source = {.next = next, .arg = arg};
	struct buf front;
	ENSURE((unsigned)method < METHOD_COUNT && methods[method].kind == METHOD_UPLOAD);
	buf_init(&front, methods[method].request_max);
	enum err e = wire_head_pack(head, &front);
	if (e == ERR_OK)
		e = call_begin(&k, c, method, 0);
	if (e != ERR_OK) {
		buf_deinit(&front);
		return e;
	}
	e = send_parts(&k, &source, &front);
	buf_deinit(&front);
	if (e != ERR_END)
		return call_abort(&k, e);
	/* Also when sending failed: the server may have answered before it had seen everything. */
	return call_reply(&k, ret_reply);
}

/* One part of a download. */
static enum err take_part(struct client_call *k, struct payload *p, const struct rpc_sink *sink, bool *has_head,
			  uint64_t *left)
{
	struct wire_head head;
	grpc_byte_buffer *message = k->in;
	k->in = NULL;
	payload_close(p);
	TRY(payload_open(p, message, k->method->reply_max, &head));
	if (p->has_head == *has_head)
		return err_set(ERR_MALFORMED, *has_head ? "download: a second head" : "download: data before the head");
	*has_head = true;
	if (p->has_head) {
		*left = head.offset < head.size ? head.size - head.offset : 0;
		TRY(sink->head(sink->arg, &head));
	}
	for (size_t i = 0; i < p->n; i++) {
		if (p->v[i].n > *left)
			return err_set(ERR_MALFORMED, "download: more data than announced");
		*left -= p->v[i].n;
		TRY(sink->data(sink->arg, p->v[i]));
	}
	return ERR_OK;
}

enum err rpc_client_download(struct rpc_client *c, enum method_id method, struct bytes request,
			     const struct rpc_sink *sink)
{
	struct client_call k;
	struct payload part = {0};
	bool has_head = false;
	uint64_t left = 0;
	enum err e = ERR_OK;
	ENSURE((unsigned)method < METHOD_COUNT && methods[method].kind == METHOD_DOWNLOAD);
	TRY(call_begin(&k, c, method, 0));
	bool more = call_send(&k, payload_new(request, (struct bytes){0}), FIRST | LAST | REPLY);
	for (; more && e == ERR_OK; more = e == ERR_OK && call_receive(&k))
		e = take_part(&k, &part, sink, &has_head, &left);
	payload_close(&part);
	if (e != ERR_OK)
		return call_abort(&k, e);
	TRY(call_end(&k));
	if (!has_head || left > 0)
		return err_set(ERR_MALFORMED, "download: ended %llu bytes early", (unsigned long long)left);
	return ERR_OK;
}
