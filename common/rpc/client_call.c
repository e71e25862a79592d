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
#include "rpc/client_call.h"

#include "base/clock.h"
#include "rpc/credentials.h"
#include "rpc/payload.h"
#include "rpc/status.h"

#include <grpc/support/alloc.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { CANCEL_POLL_MS = 50, REASON_SIZE = 512 };

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

static void set_running(struct rpc_client *c, grpc_call *call)
{
	pthread_mutex_lock(&c->lock);
	c->running = call;
	pthread_mutex_unlock(&c->lock);
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
enum err client_call_begin(struct client_call *k, struct rpc_client *c, enum method_id method, int64_t deadline_ms)
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
enum err client_call_end(struct client_call *k)
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
enum err client_call_abort(struct client_call *k, enum err e)
{
	char text[1024];
	snprintf(text, sizeof text, "%s", err_text());
	grpc_call_cancel(k->call, NULL);
	(void)client_call_end(k);
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

/* The operations of sending `message` and of what goes along. */
static size_t send_ops(struct client_call *k, grpc_op *ops, grpc_byte_buffer *message, unsigned along)
{
	size_t n = 0;
	if (along & CALL_FIRST)
		ops[n++].op = GRPC_OP_SEND_INITIAL_METADATA;
	ops[n].op = GRPC_OP_SEND_MESSAGE;
	ops[n++].data.send_message.send_message = message;
	if (along & CALL_LAST)
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

/* Takes the message. With CALL_REPLY, the first answer is waited for, into k->in. false: the call has ended, its status says
 * why. */
bool client_call_send(struct client_call *k, grpc_byte_buffer *message, unsigned along)
{
	grpc_op ops[5] = {{0}};
	if (!k->started)
		call_watch(k);
	size_t n = send_ops(k, ops, message, along);
	if (along & CALL_REPLY)
		n += receive_ops(k, ops + n);
	call_start(k, ops, n, ops);
	bool sent = call_wait(k, ops);
	grpc_byte_buffer_destroy(message);
	if (along & CALL_REPLY) {
		k->cut = !sent;
		if (k->in != NULL)
			atomic_fetch_add(&k->c->received, grpc_byte_buffer_length(k->in));
		sent = k->in != NULL;
	}
	return sent;
}

/* The whole call at once: takes and sends the one message, and waits for the reply and the end. */
void client_call_exchange(struct client_call *k, grpc_byte_buffer *message)
{
	grpc_op ops[6] = {{0}};
	size_t n = send_ops(k, ops, message, CALL_FIRST | CALL_LAST);
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
bool client_call_receive(struct client_call *k)
{
	grpc_op ops[2] = {{0}};
	size_t n = receive_ops(k, ops);
	call_start(k, ops, n, ops);
	k->cut = !call_wait(k, ops);
	if (k->in != NULL)
		atomic_fetch_add(&k->c->received, grpc_byte_buffer_length(k->in));
	return k->in != NULL;
}
