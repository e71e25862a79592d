/*
 * A client that does not play by the rules, written against gRPC itself: what reaches the handlers, and what comes back.
 */
#include "rpc/fixture.h"

#include "rpc/credentials.h"
#include "rpc/payload.h"

#include <grpc/compression.h>
#include <pthread.h>
#include <stdatomic.h>

/* ---- the server under test ---- */

struct seen {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int begun, ended; /* handlers of streams */
	int clean;        /* those that saw the end of the stream */
	enum err end;     /* how the last upload ended for its handler */
	uint64_t bytes;   /* its data */
	int pieces;
	bool hold; /* handlers wait until this is false */
	int unary;
};

static struct seen seen = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void seen_reset(void)
{
	pthread_mutex_lock(&seen.lock);
	seen.begun = seen.ended = seen.pieces = seen.unary = seen.clean = 0;
	seen.end = ERR_OK;
	seen.bytes = 0;
	seen.hold = false;
	pthread_mutex_unlock(&seen.lock);
}

/* Wait until this many uploads have begun and ended. */
static void seen_wait(int begun, int ended)
{
	pthread_mutex_lock(&seen.lock);
	while (seen.begun < begun || seen.ended < ended)
		pthread_cond_wait(&seen.changed, &seen.lock);
	pthread_mutex_unlock(&seen.lock);
}

static void seen_wait_pieces(int pieces)
{
	pthread_mutex_lock(&seen.lock);
	while (seen.pieces < pieces)
		pthread_cond_wait(&seen.changed, &seen.lock);
	pthread_mutex_unlock(&seen.lock);
}

static struct seen seen_now(void)
{
	pthread_mutex_lock(&seen.lock);
	struct seen now = seen;
	pthread_mutex_unlock(&seen.lock);
	return now;
}

static void hold(bool on)
{
	pthread_mutex_lock(&seen.lock);
	seen.hold = on;
	pthread_cond_broadcast(&seen.changed);
	pthread_mutex_unlock(&seen.lock);
}

static void wait_while_held(void)
{
	while (seen.hold)
		pthread_cond_wait(&seen.changed, &seen.lock);
}

static enum err read_all(struct rpc_stream *in)
{
	const struct bytes *data;
	size_t n;
	for (;;) {
		TRY(rpc_stream_next(in, &data, &n));
		pthread_mutex_lock(&seen.lock);
		for (size_t i = 0; i < n; i++)
			seen.bytes += data[i].n;
		seen.pieces++;
		pthread_cond_broadcast(&seen.changed);
		pthread_mutex_unlock(&seen.lock);
	}
}

static enum err take_upload(void *ctx, const struct peer *peer, struct rpc_stream *in, struct buf *reply)
{
	(void)ctx;
	(void)peer;
	struct wire_head head;
	pthread_mutex_lock(&seen.lock);
	seen.begun++;
	pthread_cond_broadcast(&seen.changed);
	wait_while_held();
	pthread_mutex_unlock(&seen.lock);
	enum err e = rpc_stream_head(in, &head);
	if (e == ERR_OK)
		e = read_all(in);
	pthread_mutex_lock(&seen.lock);
	seen.ended++;
	seen.clean += e == ERR_END;
	seen.end = e;
	pthread_cond_broadcast(&seen.changed);
	pthread_mutex_unlock(&seen.lock);
	if (e != ERR_END)
		return e;
	struct wire_receipt r = {.digest = head.digest};
	return wire_receipt_pack(&r, reply);
}

static enum err echo(void *ctx, const struct peer *peer, struct bytes request, struct buf *reply)
{
	(void)ctx;
	(void)peer;
	pthread_mutex_lock(&seen.lock);
	seen.unary++;
	wait_while_held();
	pthread_mutex_unlock(&seen.lock);
	return buf_append(reply, request.p, request.n);
}

static void answer_now(void *ctx, const struct peer *peer, struct bytes request, struct rpc_ticket *t)
{
	(void)ctx;
	(void)peer;
	pthread_mutex_lock(&seen.lock);
	seen.unary++;
	pthread_mutex_unlock(&seen.lock);
	rpc_ticket_answer(t, ERR_OK, request);
}

static bool never_gone(void *ctx, struct rpc_ticket *t)
{
	(void)ctx;
	(void)t;
	return false;
}

static atomic_int lent, given_back;

static void give_back(void *arg)
{
	(void)arg;
	atomic_fetch_add(&given_back, 1);
}

static enum err give_endlessly(void *ctx, const struct peer *peer, struct bytes request, struct rpc_stream *out)
{
	(void)ctx;
	(void)peer;
	(void)request;
	static const uint8_t zeros[WIRE_CHUNK_SIZE];
	struct wire_head head = {.size = 1ull << 40, .digest = {{1}}};
	pthread_mutex_lock(&seen.lock);
	seen.begun++;
	pthread_cond_broadcast(&seen.changed);
	pthread_mutex_unlock(&seen.lock);
	enum err e = rpc_stream_send_head(out, &head);
	while (e == ERR_OK) {
		atomic_fetch_add(&lent, 1);
		e = rpc_stream_send_shared(out, zeros, sizeof zeros, give_back, NULL);
	}
	pthread_mutex_lock(&seen.lock);
	seen.ended++;
	seen.end = e;
	pthread_cond_broadcast(&seen.changed);
	pthread_mutex_unlock(&seen.lock);
	return e;
}

static const struct rpc_handler handlers[METHOD_COUNT] = {
	[METHOD_REPORT] = {.unary = echo},
	[METHOD_ENROLL] = {.unary = echo},
	[METHOD_REVOKE] = {.unary = echo},
	[METHOD_FETCH] = {.download = give_endlessly},
	[METHOD_UPLOAD_UPDATE] = {.upload = take_upload},
	[METHOD_NEXT_TASK] = {.parked = answer_now},
};

static struct rpc_server *server(void)
{
	struct rpc_server *s;
	struct rpc_server_config config = fixture_server_config(handlers, NULL);
	config.gone = never_gone;
	seen_reset();
	assert_ok(rpc_server_start(&config, &s));
	return s;
}

/* ---- the client: one call, step by step ---- */

struct raw {
	grpc_channel *channel;
	grpc_completion_queue *cq;
	grpc_call *call;
	struct credentials_check *check;
	grpc_metadata_array initial, trailing;
	grpc_status_code status;
	grpc_slice details;
};

static struct raw raw_open(const struct rpc_server *s, const struct fixture_id *id, const char *path,
			   int64_t deadline_ms, int compression)
{
	struct raw r = {.details = grpc_empty_slice()};
	struct credentials_pem pem = {buf_bytes(&id->key), buf_bytes(&id->cert), buf_bytes(&fixture.ca.pem)};
	grpc_channel_credentials *creds;
	char target[64], key[] = GRPC_COMPRESSION_CHANNEL_DEFAULT_ALGORITHM,
			 pool[] = GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL;
	assert_ok(credentials_client(&pem, FEDERATION, &r.check, &creds));
	snprintf(target, sizeof target, "127.0.0.1:%d", rpc_server_port(s));
	grpc_arg v[2] = {{.type = GRPC_ARG_INTEGER, .key = key, .value.integer = compression},
			 {.type = GRPC_ARG_INTEGER, .key = pool, .value.integer = 1}};
	grpc_channel_args args = {.num_args = 2, .args = v};
	r.channel = grpc_channel_create(target, creds, &args);
	grpc_channel_credentials_release(creds);
	r.cq = grpc_completion_queue_create_for_pluck(NULL);
	grpc_slice method = grpc_slice_from_copied_string(path);
	r.call = grpc_channel_create_call(
		r.channel, NULL, GRPC_PROPAGATE_DEFAULTS, r.cq, method, NULL,
		gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(deadline_ms, GPR_TIMESPAN)), NULL);
	grpc_slice_unref(method);
	grpc_metadata_array_init(&r.initial);
	grpc_metadata_array_init(&r.trailing);
	return r;
}

static bool raw_do(struct raw *r, grpc_op op)
{
	int tag;
	assert_int_equal(grpc_call_start_batch(r->call, &op, 1, &tag, NULL), GRPC_CALL_OK);
	return grpc_completion_queue_pluck(r->cq, &tag, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL).success != 0;
}

static bool raw_begin(struct raw *r)
{
	return raw_do(r, (grpc_op){.op = GRPC_OP_SEND_INITIAL_METADATA});
}

static bool raw_send(struct raw *r, struct bytes head, struct bytes body)
{
	grpc_byte_buffer *message = payload_new(head, body);
	grpc_op op = {.op = GRPC_OP_SEND_MESSAGE};
	op.data.send_message.send_message = message;
	bool sent = raw_do(r, op);
	grpc_byte_buffer_destroy(message);
	return sent;
}

static bool raw_close(struct raw *r)
{
	return raw_do(r, (grpc_op){.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT});
}

/* Takes what is still there and the status, and ends everything. */
static grpc_status_code raw_end(struct raw *r, char *text, size_t size)
{
	grpc_op op = {.op = GRPC_OP_RECV_STATUS_ON_CLIENT};
	op.data.recv_status_on_client.trailing_metadata = &r->trailing;
	op.data.recv_status_on_client.status = &r->status;
	op.data.recv_status_on_client.status_details = &r->details;
	grpc_op initial = {.op = GRPC_OP_RECV_INITIAL_METADATA};
	initial.data.recv_initial_metadata.recv_initial_metadata = &r->initial;
	grpc_byte_buffer *reply = NULL;
	grpc_op receive = {.op = GRPC_OP_RECV_MESSAGE};
	receive.data.recv_message.recv_message = &reply;
	(void)raw_do(r, initial);
	do {
		reply = NULL;
		(void)raw_do(r, receive);
		if (reply != NULL)
			grpc_byte_buffer_destroy(reply);
	} while (reply != NULL);
	(void)raw_do(r, op);
	snprintf(text, size, "%.*s", (int)GRPC_SLICE_LENGTH(r->details),
		 (const char *)GRPC_SLICE_START_PTR(r->details));
	grpc_slice_unref(r->details);
	grpc_metadata_array_destroy(&r->initial);
	grpc_metadata_array_destroy(&r->trailing);
	grpc_call_unref(r->call);
	grpc_channel_destroy(r->channel);
	credentials_check_free(r->check);
	grpc_completion_queue_shutdown(r->cq);
	grpc_completion_queue_destroy(r->cq);
	return r->status;
}

static struct bytes nothing(void)
{
	return (struct bytes){0};
}

static bool raw_send_head(struct raw *r)
{
	struct buf head;
	struct wire_head h = {.size = 100 << 20, .digest = {{1}}};
	buf_init(&head, 10000);
	assert_ok(wire_head_pack(&h, &head));
	bool sent = raw_send(r, buf_bytes(&head), nothing());
	buf_deinit(&head);
	return sent;
}

static bool raw_send_data(struct raw *r, size_t n)
{
	static const uint8_t zeros[WIRE_CHUNK_SIZE];
	uint8_t prefix[WIRE_DATA_PREFIX_MAX];
	size_t k = wire_data_prefix(n, prefix);
	return raw_send(r, bytes_of(prefix, k), bytes_of(zeros, n));
}

static struct raw raw_upload(const struct rpc_server *s, int64_t deadline_ms)
{
	struct raw r = raw_open(s, &fixture.plant, methods[METHOD_UPLOAD_UPDATE].path, deadline_ms, GRPC_COMPRESS_NONE);
	assert_true(raw_begin(&r));
	return r;
}

enum { LONG = 60000, PATIENCE_MS = 4000 };

/* ---- scenarios ---- */

static void test_unknown_methods(void **state)
{
	(void)state;
	struct rpc_server *s = server();
	static const char *const paths[] = {"/hansa.v1.Plant/Nothing", "/", "", "/hansa.v1.Operator/ListJobs",
					    "/hansa.v1.Plant/report"};
	char text[200];
	for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
		struct raw r = raw_open(s, &fixture.plant, paths[i], LONG, GRPC_COMPRESS_NONE);
		(void)raw_begin(&r);
		(void)raw_send(&r, bytes_str("x"), nothing());
		assert_int_equal(raw_end(&r, text, sizeof text), GRPC_STATUS_UNIMPLEMENTED);
	}
	assert_int_equal(seen_now().unary, 0);
	rpc_server_stop(s, 1000);
}

static void test_message_sizes(void **state)
{
	(void)state;
	struct rpc_server *s = server();
	uint8_t *large = calloc(1, 3 << 20);
	size_t max = methods[METHOD_REPORT].request_max;
	const struct {
		enum method_id method;
		size_t n;
		grpc_status_code status;
	} cases[] = {
		{METHOD_REPORT, max, GRPC_STATUS_OK},
		{METHOD_REPORT, max + 1, GRPC_STATUS_RESOURCE_EXHAUSTED}, /* the table's limit */
		{METHOD_REPORT, 3 << 20, GRPC_STATUS_RESOURCE_EXHAUSTED}, /* gRPC's own */
		{METHOD_NEXT_TASK, methods[METHOD_NEXT_TASK].request_max, GRPC_STATUS_OK},
		{METHOD_NEXT_TASK, methods[METHOD_NEXT_TASK].request_max + 1, GRPC_STATUS_RESOURCE_EXHAUSTED},
		{METHOD_NEXT_TASK, 3 << 20, GRPC_STATUS_RESOURCE_EXHAUSTED},
	};
	char text[200];
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct raw r = raw_open(s, &fixture.plant, methods[cases[i].method].path, LONG, GRPC_COMPRESS_NONE);
		(void)raw_begin(&r);
		(void)raw_send(&r, bytes_of(large, cases[i].n), nothing());
		(void)raw_close(&r);
		assert_int_equal(raw_end(&r, text, sizeof text), cases[i].status);
	}
	assert_int_equal(seen_now().unary, 2);
	free(large);
	rpc_server_stop(s, 1000);
}

static void test_no_request(void **state)
{
	(void)state;
	struct rpc_server *s = server();
	static const enum method_id ids[] = {METHOD_REPORT, METHOD_NEXT_TASK, METHOD_UPLOAD_UPDATE};
	char text[200];
	for (size_t i = 0; i < 3; i++) {
		struct raw r = raw_open(s, &fixture.plant, methods[ids[i]].path, LONG, GRPC_COMPRESS_NONE);
		assert_true(raw_begin(&r));
		(void)raw_close(&r);
		assert_int_equal(raw_end(&r, text, sizeof text), GRPC_STATUS_INVALID_ARGUMENT);
		assert_memory_equal(text, "malformed: ", 11);
	}
	assert_int_equal(seen_now().unary, 0);
	rpc_server_stop(s, 1000);
}

static void test_bad_streams(void **state)
{
	(void)state;
	struct rpc_server *s = server();
	char text[200];
	for (int i = 0; i < 6; i++) {
		struct raw r = raw_upload(s, LONG);
		switch (i) {
		case 0: /* data without a head */
			(void)raw_send_data(&r, 10);
			break;
		case 1: /* two heads */
			(void)raw_send_head(&r);
			(void)raw_send_head(&r);
			break;
		case 2: /* an empty part */
			(void)raw_send_head(&r);
			(void)raw_send_data(&r, 0);
			break;
		case 3: /* garbage for a head */
			(void)raw_send(&r,
				       bytes_str("\x0a\x05"
						 "abc"),
				       nothing());
			break;
		case 4: /* garbage behind a head */
			(void)raw_send_head(&r);
			(void)raw_send(&r,
				       bytes_str("\x12\x7f"
						 "abc"),
				       nothing());
			break;
		default: /* an empty message behind a head */
			(void)raw_send_head(&r);
			(void)raw_send(&r, nothing(), nothing());
			break;
		}
		assert_int_equal(raw_end(&r, text, sizeof text), GRPC_STATUS_INVALID_ARGUMENT);
		seen_wait(i + 1, i + 1);
		assert_int_equal(seen_now().end, ERR_MALFORMED);
	}
	rpc_server_stop(s, 1000);
}

/* Data in a message with fields of a later version, and data cut into pieces of any size. */
static void test_odd_but_good_streams(void **state)
{
	(void)state;
	struct rpc_server *s = server();
	char text[200];
	struct raw r = raw_upload(s, LONG);
	assert_true(raw_send_head(&r));
	uint64_t sum = 0;
	for (size_t n = 1; n < 400000; n = n * 3 + 1) {
		assert_true(raw_send_data(&r, n));
		assert_true(raw_send(&r,
				     bytes_str("\x12\x03"
					       "abc\x1a\x03new"),
				     nothing()));
		assert_true(raw_send(&r,
				     bytes_str("\x1a\x03new\x12\x03"
					       "abc"),
				     nothing()));
		sum += n + 6;
	}
	assert_true(raw_close(&r));
	assert_int_equal(raw_end(&r, text, sizeof text), GRPC_STATUS_OK);
	assert_int_equal(seen_now().bytes, sum);
	assert_int_equal(seen_now().end, ERR_END);
	rpc_server_stop(s, 1000);
}

static void test_compressed(void **state)
{
	(void)state;
	struct rpc_server *s = server();
	char text[200];
	uint8_t zeros[2000] = {0};
	static const enum method_id ids[] = {METHOD_REPORT, METHOD_NEXT_TASK, METHOD_UPLOAD_UPDATE};
	for (size_t i = 0; i < 3; i++) {
		struct raw r = raw_open(s, &fixture.plant, methods[ids[i]].path, LONG, GRPC_COMPRESS_GZIP);
		(void)raw_begin(&r);
		(void)raw_send(&r, bytes_of(zeros, sizeof zeros), nothing());
		(void)raw_close(&r);
		grpc_status_code status = raw_end(&r, text, sizeof text);
		if (status != GRPC_STATUS_INVALID_ARGUMENT && status != GRPC_STATUS_UNIMPLEMENTED)
			fail_msg("%d: %s", (int)status, text);
	}
	assert_int_equal(seen_now().unary, 0);
	rpc_server_stop(s, 1000);
}

/* ---- the end of a stream is believed only when it is one ---- */

static void test_cancelled_upload(void **state)
{
	(void)state;
	struct rpc_server *s = server();
	char text[200];
	for (int i = 0; i < 8; i++) {
		struct raw r = raw_upload(s, LONG);
		if (i % 4 > 0)
			assert_true(raw_send_head(&r));
		for (int k = 1; k < i % 4; k++)
			assert_true(raw_send_data(&r, 70000));
		seen_wait(i + 1, 0);
		grpc_call_cancel(r.call, NULL);
		assert_int_equal(raw_end(&r, text, sizeof text), GRPC_STATUS_CANCELLED);
		seen_wait(i + 1, i + 1);
		assert_int_equal(seen_now().end, ERR_UNAVAILABLE);
	}
	/* Cancelled at any moment: the server may not even have heard of it, but it never takes it for an end. */
	for (int i = 0; i < 40; i++) {
		struct raw r = raw_upload(s, LONG);
		for (int k = 0; k < i % 3; k++)
			(void)(k == 0 ? raw_send_head(&r) : raw_send_data(&r, 100));
		grpc_call_cancel(r.call, NULL);
		assert_int_not_equal(raw_end(&r, text, sizeof text), GRPC_STATUS_OK);
	}
	rpc_server_stop(s, 5000);
	assert_int_equal(seen_now().begun, seen_now().ended);
	assert_int_equal(seen_now().clean, 0);
}

static void test_deadline_of_an_upload(void **state)
{
	(void)state;
	struct rpc_server *s = server();
	char text[200];
	/* Long enough, in the end, for the call to have reached its handler. */
	for (int64_t deadline_ms = 400; seen_now().begun == 0; deadline_ms *= 2) {
		struct raw r = raw_open(s, &fixture.plant, methods[METHOD_UPLOAD_UPDATE].path, deadline_ms,
					GRPC_COMPRESS_NONE);
		if (raw_begin(&r) && raw_send_head(&r))
			(void)raw_send_data(&r, 1000);
		assert_int_equal(raw_end(&r, text, sizeof text), GRPC_STATUS_DEADLINE_EXCEEDED);
	}
	seen_wait(1, 1);
	assert_true(seen_now().end == ERR_DEADLINE || seen_now().end == ERR_UNAVAILABLE);
	rpc_server_stop(s, 1000);
}

/* The server stops in the middle of an upload: for the handler that must not look like its end. */
static void test_shutdown_in_an_upload(void **state)
{
	(void)state;
	char text[200];
	for (int i = 0; i < 10; i++) {
		struct rpc_server *s = server();
		struct raw r = raw_upload(s, LONG);
		assert_true(raw_send_head(&r));
		for (int k = 0; k < i; k++)
			assert_true(raw_send_data(&r, 100000));
		if (i > 0)
			seen_wait_pieces(1);
		else
			seen_wait(1, 0);
		rpc_server_stop(s, 0);
		assert_int_equal(seen_now().ended, 1);
		assert_int_equal(seen_now().end, ERR_UNAVAILABLE);
		assert_int_equal(raw_end(&r, text, sizeof text), GRPC_STATUS_UNAVAILABLE);
	}
}

/* A handler that reads nothing: what is taken from the network meanwhile is bounded. */
static void test_back_pressure(void **state)
{
	(void)state;
	struct rpc_server *s = server();
	char text[200];
	hold(true);
	struct raw r = raw_upload(s, LONG);
	assert_true(raw_send_head(&r));
	seen_wait(1, 0);
	size_t taken = 0;
	int tag;
	static const uint8_t zeros[WIRE_CHUNK_SIZE];
	uint8_t prefix[WIRE_DATA_PREFIX_MAX];
	size_t k = wire_data_prefix(sizeof zeros, prefix);
	grpc_byte_buffer *message = NULL;
	grpc_event event;
	do {
		if (message != NULL)
			grpc_byte_buffer_destroy(message);
		message = payload_new(bytes_of(prefix, k), bytes_of(zeros, sizeof zeros));
		grpc_op op = {.op = GRPC_OP_SEND_MESSAGE};
		op.data.send_message.send_message = message;
		assert_int_equal(grpc_call_start_batch(r.call, &op, 1, &tag, NULL), GRPC_CALL_OK);
		gpr_timespec soon = gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(500, GPR_TIMESPAN));
		event = grpc_completion_queue_pluck(r.cq, &tag, soon, NULL);
		taken += event.type == GRPC_OP_COMPLETE;
		assert_true(taken < 4);
	} while (event.type == GRPC_OP_COMPLETE);
	hold(false);
	assert_true(grpc_completion_queue_pluck(r.cq, &tag, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL).success);
	grpc_byte_buffer_destroy(message);
	assert_true(raw_close(&r));
	assert_int_equal(raw_end(&r, text, sizeof text), GRPC_STATUS_OK);
	assert_int_equal(seen_now().bytes, (taken + 1) * WIRE_CHUNK_SIZE);
	rpc_server_stop(s, 1000);
}

/* One upload at a time for a plant; others are not in its way. */
static void test_two_uploads(void **state)
{
	(void)state;
	struct rpc_server *s = server();
	char text[200];
	struct raw first = raw_upload(s, LONG);
	assert_true(raw_send_head(&first));
	seen_wait(1, 0);
	struct raw second = raw_upload(s, LONG);
	assert_int_equal(raw_end(&second, text, sizeof text), GRPC_STATUS_UNAVAILABLE);
	assert_string_equal(text,
			    "unavailable: another upload or download of yours is running; try again when it has ended");
	struct raw other = raw_open(s, &fixture.plant2, methods[METHOD_UPLOAD_UPDATE].path, LONG, GRPC_COMPRESS_NONE);
	assert_true(raw_begin(&other) && raw_send_head(&other) && raw_close(&other));
	assert_int_equal(raw_end(&other, text, sizeof text), GRPC_STATUS_OK);
	assert_true(raw_close(&first));
	assert_int_equal(raw_end(&first, text, sizeof text), GRPC_STATUS_OK);
	rpc_server_stop(s, 1000);
}

/* ---- slow peers ---- */

static struct rpc_server *server_of(size_t workers, int64_t patience_ms)
{
	struct rpc_server *s;
	struct rpc_server_config config = fixture_server_config(handlers, NULL);
	config.gone = never_gone;
	config.workers = workers;
	config.patience_ms = patience_ms;
	seen_reset();
	assert_ok(rpc_server_start(&config, &s));
	return s;
}

static enum err unary(struct rpc_client *c, enum method_id method)
{
	struct buf reply = {0};
	enum err e = rpc_client_call(c, method, bytes_str("x"), LONG, &reply);
	buf_deinit(&reply);
	return e;
}

static void *stop_main(void *arg)
{
	rpc_server_stop(arg, 0);
	return NULL;
}

/* Many peers of the same rights, each with a certificate of its own. */
enum { CROWD = 12 };
static struct fixture_id crowd[CROWD];

static void crowd_make(void)
{
	for (size_t i = 0; i < CROWD; i++) {
		char name[20];
		snprintf(name, sizeof name, "crowd-%zu", i);
		fixture_id_make(&crowd[i], &fixture.ca, ROLE_PLANT, name, NULL);
	}
}

static void crowd_free(void)
{
	for (size_t i = 0; i < CROWD; i++)
		fixture_id_free(&crowd[i]);
}

static struct raw raw_upload_of(const struct rpc_server *s, const struct fixture_id *id)
{
	struct raw r = raw_open(s, id, methods[METHOD_UPLOAD_UPDATE].path, LONG, GRPC_COMPRESS_NONE);
	assert_true(raw_begin(&r) && raw_send_head(&r));
	return r;
}

/* Every worker has a stalled upload: calls of one message are answered all the same. Further uploads wait, and all of them
 * succeed when there is room again. */
static void test_more_streams_than_workers(void **state)
{
	(void)state;
	struct rpc_server *s = server_of(4, 0);
	char text[200];
	struct raw r[CROWD];
	crowd_make();
	for (size_t i = 0; i < CROWD; i++) {
		r[i] = raw_upload_of(s, &crowd[i]);
		if (i < 3)
			seen_wait((int)i + 1, 0);
	}
	struct rpc_client *plant = fixture_client(s, &fixture.plant), *anna = fixture_client(s, &fixture.operator);
	for (int i = 0; i < 10; i++) {
		assert_ok(unary(plant, METHOD_REPORT));
		assert_ok(unary(anna, METHOD_REVOKE));
	}
	assert_int_equal(seen_now().unary, 20);
	assert_int_equal(seen_now().begun, 3);
	for (size_t i = 0; i < CROWD; i++) {
		assert_true(raw_send_data(&r[i], 1000) && raw_close(&r[i]));
		assert_int_equal(raw_end(&r[i], text, sizeof text), GRPC_STATUS_OK);
	}
	assert_int_equal(seen_now().clean, CROWD);
	assert_int_equal(seen_now().bytes, CROWD * 1000);
	rpc_client_free(plant);
	rpc_client_free(anna);
	rpc_server_stop(s, 1000);
	crowd_free();
}

/* What is taken of a stream that has no worker is its window, however much its peer would like to send. */
static void test_waiting_stream_is_small(void **state)
{
	(void)state;
	struct rpc_server *s = server_of(2, 0);
	char text[200];
	enum { WAITING = 3, EACH = 64 << 10, AT_MOST = 512 << 10 };
	struct raw r[WAITING];
	crowd_make();
	/* One runs, one waits at the gate, one in gRPC's queue. */
	for (size_t i = 0; i < WAITING; i++) {
		r[i] = raw_upload_of(s, &crowd[i]);
		if (i == 0)
			seen_wait(1, 0);
	}
	static const uint8_t zeros[EACH];
	uint8_t prefix[WIRE_DATA_PREFIX_MAX];
	size_t k = wire_data_prefix(EACH, prefix), taken = 0;
	int tag;
	grpc_byte_buffer *message = NULL;
	grpc_event event;
	do {
		if (message != NULL)
			grpc_byte_buffer_destroy(message);
		message = payload_new(bytes_of(prefix, k), bytes_of(zeros, EACH));
		grpc_op op = {.op = GRPC_OP_SEND_MESSAGE};
		op.data.send_message.send_message = message;
		assert_int_equal(grpc_call_start_batch(r[WAITING - 1].call, &op, 1, &tag, NULL), GRPC_CALL_OK);
		gpr_timespec soon = gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(300, GPR_TIMESPAN));
		event = grpc_completion_queue_pluck(r[WAITING - 1].cq, &tag, soon, NULL);
		taken += event.type == GRPC_OP_COMPLETE ? EACH : 0;
		assert_true(taken <= AT_MOST);
	} while (event.type == GRPC_OP_COMPLETE);
	for (size_t i = 0; i < WAITING; i++) {
		if (i == WAITING - 1)
			assert_true(
				grpc_completion_queue_pluck(r[i].cq, &tag, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL)
					.success);
		assert_true(raw_close(&r[i]));
		assert_int_equal(raw_end(&r[i], text, sizeof text), GRPC_STATUS_OK);
	}
	grpc_byte_buffer_destroy(message);
	assert_int_equal(seen_now().bytes, taken + EACH);
	rpc_server_stop(s, 1000);
	crowd_free();
}

/* Streams that have no worker yet when the server stops: their peers may try again, their handlers never run. */
static void test_stop_with_waiting_streams(void **state)
{
	(void)state;
	struct rpc_server *s = server_of(2, 0);
	char text[200];
	struct raw r[CROWD];
	crowd_make();
	for (size_t i = 0; i < CROWD; i++) {
		r[i] = raw_upload_of(s, &crowd[i]);
		if (i == 0)
			seen_wait(1, 0);
	}
	rpc_server_stop(s, 0);
	assert_int_equal(seen_now().begun, seen_now().ended);
	assert_int_equal(seen_now().clean, 0);
	for (size_t i = 0; i < CROWD; i++) {
		grpc_status_code status = raw_end(&r[i], text, sizeof text);
		if (status != GRPC_STATUS_UNAVAILABLE && status != GRPC_STATUS_CANCELLED)
			fail_msg("stream %zu: %d: %s", i, (int)status, text);
	}
	crowd_free();
}

/* All workers are held by streams that bring nothing, one way or another: each newcomer gets the place of one of them. */
static void test_slow_streams_make_room(void **state)
{
	(void)state;
	struct rpc_server *s;
	struct rpc_server_config config = fixture_server_config(handlers, NULL);
	config.gone = never_gone;
	config.workers = 4;
	config.room_ms = 300;
	seen_reset();
	assert_ok(rpc_server_start(&config, &s));
	static const char says[] =
		"unavailable: others are waiting and your connection is slow; go on at your offset later";
	char text[200];
	/* One sends nothing, one has sent something and stalls, one takes nothing. */
	struct raw slow[3] = {raw_upload_of(s, &fixture.plant), raw_upload_of(s, &fixture.plant2),
			      raw_open(s, &fixture.operator, methods[METHOD_FETCH].path, LONG, GRPC_COMPRESS_NONE)};
	assert_true(raw_send_data(&slow[1], 1000));
	assert_true(raw_begin(&slow[2]) && raw_send(&slow[2], bytes_str("x"), nothing()) && raw_close(&slow[2]));
	seen_wait(3, 0);
	/* Nobody waits: they may be slow. */
	clock_sleep_ms(2 * config.room_ms);
	assert_int_equal(seen_now().ended, 0);
	crowd_make();
	struct raw r[3];
	for (int i = 0; i < 3; i++) {
		r[i] = raw_upload_of(s, &crowd[i]);
		/* The newcomers may become slow in their turn: who makes room is the slowest. */
		seen_wait(4 + i, 1 + i);
	}
	assert_int_equal(seen_now().end, ERR_UNAVAILABLE);
	for (int i = 0; i < 3; i++) {
		(void)raw_close(&r[i]);
		grpc_status_code status = raw_end(&r[i], text, sizeof text);
		assert_true(status == GRPC_STATUS_OK || (status == GRPC_STATUS_UNAVAILABLE && strcmp(text, says) == 0));
	}
	int cut = 0;
	for (int i = 0; i < 3; i++) {
		if (i < 2)
			(void)raw_close(&slow[i]);
		else
			grpc_call_cancel(slow[i].call, NULL);
		cut += raw_end(&slow[i], text, sizeof text) == GRPC_STATUS_UNAVAILABLE && strcmp(text, says) == 0;
	}
	assert_true(cut >= 1);
	rpc_server_stop(s, 1000);
	crowd_free();
}

/* A peer's calls of one message are few at a time, however many connections it has; others do not notice. And answers
 * that nobody takes hold no thread. */
static void test_unary_flood(void **state)
{
	(void)state;
	struct rpc_server *s = server_of(4, 0);
	char text[200];
	enum { MANY = 40, TAKEN = 16 };
	struct raw r[MANY];
	hold(true);
	/* One connection has room for four of them. */
	for (size_t i = 0; i < MANY; i++) {
		r[i] = raw_open(s, &fixture.plant, methods[METHOD_REPORT].path, LONG, GRPC_COMPRESS_NONE);
		assert_true(raw_begin(&r[i]) && raw_send(&r[i], bytes_str("x"), nothing()) && raw_close(&r[i]));
	}
	/* Those over the bound are answered while the others wait for the one thread. */
	struct rpc_server_stats stats;
	do {
		clock_sleep_ms(5);
		rpc_server_get_stats(s, &stats);
	} while (stats.calls < MANY);
	hold(false);
	struct rpc_client *other = fixture_client(s, &fixture.plant2);
	assert_ok(unary(other, METHOD_REPORT));
	rpc_client_free(other);
	int ok = 0, busy = 0;
	for (size_t i = 0; i < MANY; i++) {
		grpc_status_code status = raw_end(&r[i], text, sizeof text);
		ok += status == GRPC_STATUS_OK;
		busy += status == GRPC_STATUS_UNAVAILABLE && strstr(text, "calls of yours are being answered") != NULL;
	}
	assert_int_equal(ok, TAKEN);
	assert_int_equal(busy, MANY - TAKEN);
	rpc_server_stop(s, 1000);
}

/* Where peers are not known, all of them together have so many calls that have not ended. */
static void test_flood_by_nobody(void **state)
{
	(void)state;
	enum { MANY = 80, TAKEN = 64 };
	struct rpc_server *s;
	struct rpc_server_config config = fixture_server_config(handlers, NULL);
	config.gone = never_gone;
	config.client_certificates = false;
	config.workers = 2;
	seen_reset();
	assert_ok(rpc_server_start(&config, &s));
	char text[200];
	struct raw r[MANY];
	hold(true);
	for (size_t i = 0; i < MANY; i++) {
		r[i] = raw_open(s, &fixture.plant, methods[METHOD_ENROLL].path, LONG, GRPC_COMPRESS_NONE);
		assert_true(raw_begin(&r[i]) && raw_send(&r[i], bytes_str("x"), nothing()));
	}
	struct rpc_server_stats stats;
	do {
		clock_sleep_ms(5);
		rpc_server_get_stats(s, &stats);
	} while (stats.calls < MANY);
	hold(false);
	int ok = 0, busy = 0;
	for (size_t i = 0; i < MANY; i++) {
		grpc_status_code status = raw_end(&r[i], text, sizeof text);
		ok += status == GRPC_STATUS_OK;
		busy += status == GRPC_STATUS_UNAVAILABLE && strstr(text, "too many calls") != NULL;
	}
	assert_int_equal(ok, TAKEN);
	assert_int_equal(busy, MANY - TAKEN);
	assert_int_equal(seen_now().unary, TAKEN);
	/* And then there is room again. */
	struct raw again = raw_open(s, &fixture.plant, methods[METHOD_ENROLL].path, LONG, GRPC_COMPRESS_NONE);
	assert_true(raw_begin(&again) && raw_send(&again, bytes_str("x"), nothing()) && raw_close(&again));
	assert_int_equal(raw_end(&again, text, sizeof text), GRPC_STATUS_OK);
	rpc_server_stop(s, 1000);
}

/* Requests that are never finished, from more calls than there are threads. */
static void test_unfinished_requests(void **state)
{
	(void)state;
	struct rpc_server *s = server_of(4, 0);
	char text[200];
	struct raw r[CROWD];
	crowd_make();
	for (size_t i = 0; i < CROWD; i++) {
		r[i] = raw_open(s, &crowd[i], methods[METHOD_REPORT].path, LONG, GRPC_COMPRESS_NONE);
		assert_true(raw_begin(&r[i]));
	}
	struct rpc_client *plant = fixture_client(s, &fixture.plant);
	for (int i = 0; i < 5; i++)
		assert_ok(unary(plant, METHOD_REPORT));
	assert_int_equal(seen_now().unary, 5);
	/* Late, but whole. */
	for (size_t i = 0; i < CROWD; i++) {
		assert_true(raw_send(&r[i], bytes_str("x"), nothing()) && raw_close(&r[i]));
		assert_int_equal(raw_end(&r[i], text, sizeof text), GRPC_STATUS_OK);
	}
	rpc_client_free(plant);
	rpc_server_stop(s, 1000);
	crowd_free();
}

/* Calls that wait for their turn when the grace is over are not run any more. */
static void test_stop_with_queued_calls(void **state)
{
	(void)state;
	struct rpc_server *s = server_of(4, 0);
	char text[200];
	struct raw r[CROWD];
	struct stopping {
		pthread_t thread;
		struct rpc_server *server;
	} stopping = {.server = s};
	crowd_make();
	hold(true);
	for (size_t i = 0; i < CROWD; i++) {
		r[i] = raw_open(s, &crowd[i], methods[METHOD_REPORT].path, LONG, GRPC_COMPRESS_NONE);
		assert_true(raw_begin(&r[i]) && raw_send(&r[i], bytes_str("x"), nothing()) && raw_close(&r[i]));
	}
	struct rpc_server_stats stats;
	do {
		clock_sleep_ms(5);
		rpc_server_get_stats(s, &stats);
	} while (stats.calls < CROWD);
	while (seen_now().unary == 0)
		clock_sleep_ms(5);
	assert_int_equal(pthread_create(&stopping.thread, NULL, stop_main, stopping.server), 0);
	/* The peers are told before the handler has ended. */
	for (size_t i = 0; i < CROWD; i++)
		assert_int_equal(raw_end(&r[i], text, sizeof text), GRPC_STATUS_UNAVAILABLE);
	hold(false);
	pthread_join(stopping.thread, NULL);
	assert_int_equal(seen_now().unary, 1);
	crowd_free();
}

/* A head and the first data in one message: the whole upload, and the beginning of one. */
static void test_head_with_data(void **state)
{
	(void)state;
	struct rpc_server *s = server_of(4, 0);
	char text[200];
	static const uint8_t zeros[300000];
	for (int i = 0; i < 5; i++) {
		static const size_t sizes[] = {1, 100, 5000, 100000, 300000};
		uint8_t prefix[WIRE_DATA_PREFIX_MAX];
		struct buf head;
		struct wire_head h = {.size = sizes[i] + 10, .offset = 10, .digest = {{1}}};
		seen_reset();
		buf_init(&head, 10000);
		assert_ok(wire_head_pack(&h, &head));
		assert_ok(buf_append(&head, prefix, wire_data_prefix(sizes[i], prefix)));
		struct raw r = raw_upload(s, LONG);
		/* All that was announced has come: no half-close is waited for. */
		assert_true(raw_send(&r, buf_bytes(&head), bytes_of(zeros, sizes[i])));
		assert_int_equal(raw_end(&r, text, sizeof text), GRPC_STATUS_OK);
		assert_int_equal(seen_now().bytes, sizes[i]);
		assert_int_equal(seen_now().pieces, 1);
		assert_int_equal(seen_now().clean, 1);
		buf_deinit(&head);
	}
	/* More follows; more than was announced is for the handler to see, when it comes in one message. */
	for (int over = 0; over < 2; over++) {
		struct buf head;
		struct wire_head h = {.size = 1000, .digest = {{1}}};
		seen_reset();
		buf_init(&head, 10000);
		assert_ok(wire_head_pack(&h, &head));
		assert_ok(buf_append(&head,
				     "\x12\x03"
				     "abc",
				     5));
		struct raw r = raw_upload(s, LONG);
		assert_true(raw_send(&r, buf_bytes(&head), nothing()));
		assert_true(raw_send_data(&r, (size_t)(997 + over)));
		assert_int_equal(raw_end(&r, text, sizeof text), GRPC_STATUS_OK);
		assert_int_equal(seen_now().bytes, 1000 + over);
		assert_int_equal(seen_now().pieces, 2);
		buf_deinit(&head);
	}
	rpc_server_stop(s, 1000);
}

/* A message in very many stretches. */
static void test_many_stretches(void **state)
{
	(void)state;
	struct rpc_server *s = server_of(4, 0);
	char text[200];
	enum { N = 3000, EACH = 40 };
	static const uint8_t zeros[EACH];
	grpc_slice slices[N];
	uint8_t prefix[WIRE_DATA_PREFIX_MAX];
	slices[0] =
		grpc_slice_from_copied_buffer((const char *)prefix, wire_data_prefix((size_t)(N - 1) * EACH, prefix));
	for (size_t i = 1; i < N; i++)
		slices[i] = grpc_slice_from_copied_buffer((const char *)zeros, EACH);
	grpc_byte_buffer *message = grpc_raw_byte_buffer_create(slices, N);
	struct payload p = {0};
	struct wire_head head;
	assert_ok(payload_open(&p, grpc_byte_buffer_copy(message), 1 << 20, &head));
	assert_false(p.has_head);
	assert_int_equal(p.n, 1);
	assert_int_equal(p.v[0].n, (N - 1) * EACH);
	payload_close(&p);
	struct raw r = raw_upload(s, LONG);
	assert_true(raw_send_head(&r));
	grpc_op op = {.op = GRPC_OP_SEND_MESSAGE};
	op.data.send_message.send_message = message;
	assert_true(raw_do(&r, op));
	assert_true(raw_close(&r));
	assert_int_equal(raw_end(&r, text, sizeof text), GRPC_STATUS_OK);
	assert_int_equal(seen_now().bytes, (N - 1) * EACH);
	for (size_t i = 0; i < N; i++)
		grpc_slice_unref(slices[i]);
	grpc_byte_buffer_destroy(message);
	rpc_server_stop(s, 1000);
}

/* One worker: everything works, one after the other. */
static void test_one_worker(void **state)
{
	(void)state;
	struct rpc_server *s = server_of(1, 0);
	char text[200];
	struct rpc_client *plant = fixture_client(s, &fixture.plant);
	for (int i = 0; i < 3; i++) {
		assert_ok(unary(plant, METHOD_REPORT));
		struct raw r = raw_upload(s, LONG);
		assert_true(raw_send_head(&r) && raw_send_data(&r, 1000) && raw_close(&r));
		assert_int_equal(raw_end(&r, text, sizeof text), GRPC_STATUS_OK);
	}
	rpc_client_free(plant);
	rpc_server_stop(s, 1000);
}

/* A peer that sends nothing, or takes nothing, is cut and told why; it may try again. */
static void test_stalled_streams_are_cut(void **state)
{
	(void)state;
	struct rpc_server *s = server_of(4, 300);
	static const char says[] = "unavailable: your connection is too slow or has stalled; try again";
	char text[200];
	for (int i = 0; i < 3; i++) {
		struct raw r = raw_upload(s, LONG);
		/* The cut may come at any moment. */
		if (i > 0)
			(void)raw_send_head(&r);
		if (i > 1)
			(void)raw_send_data(&r, 1000);
		seen_wait(i + 1, i + 1);
		assert_int_equal(seen_now().end, ERR_UNAVAILABLE);
		assert_int_equal(raw_end(&r, text, sizeof text), GRPC_STATUS_UNAVAILABLE);
		assert_string_equal(text, says);
	}
	for (int i = 0; i < 3; i++) {
		struct raw r = raw_open(s, &fixture.plant, methods[METHOD_FETCH].path, LONG, GRPC_COMPRESS_NONE);
		(void)(raw_begin(&r) && raw_send(&r, bytes_str("x"), nothing()) && raw_close(&r));
		seen_wait(4 + i, 4 + i);
		assert_int_equal(seen_now().end, ERR_UNAVAILABLE);
		assert_int_equal(raw_end(&r, text, sizeof text), GRPC_STATUS_UNAVAILABLE);
		assert_string_equal(text, says);
	}
	rpc_server_stop(s, 1000);
	/* Also by peers that took nothing. */
	assert_true(atomic_load(&lent) > 0);
	assert_int_equal(atomic_load(&lent), atomic_load(&given_back));
}

/* A handler that takes its time is not the peer's fault. */
static void test_slow_handler_is_patient(void **state)
{
	(void)state;
	struct rpc_server *s = server_of(2, PATIENCE_MS);
	char text[200];
	hold(true);
	struct raw r = raw_upload(s, LONG);
	assert_true(raw_send_head(&r) && raw_send_data(&r, 1000) && raw_close(&r));
	seen_wait(1, 0);
	clock_sleep_ms(PATIENCE_MS + PATIENCE_MS / 4);
	hold(false);
	assert_int_equal(raw_end(&r, text, sizeof text), GRPC_STATUS_OK);
	rpc_server_stop(s, 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_unknown_methods),
		cmocka_unit_test(test_message_sizes),
		cmocka_unit_test(test_no_request),
		cmocka_unit_test(test_bad_streams),
		cmocka_unit_test(test_odd_but_good_streams),
		cmocka_unit_test(test_compressed),
		cmocka_unit_test(test_cancelled_upload),
		cmocka_unit_test(test_deadline_of_an_upload),
		cmocka_unit_test(test_shutdown_in_an_upload),
		cmocka_unit_test(test_back_pressure),
		cmocka_unit_test(test_two_uploads),
		cmocka_unit_test(test_more_streams_than_workers),
		cmocka_unit_test(test_waiting_stream_is_small),
		cmocka_unit_test(test_stop_with_waiting_streams),
		cmocka_unit_test(test_slow_streams_make_room),
		cmocka_unit_test(test_unary_flood),
		cmocka_unit_test(test_flood_by_nobody),
		cmocka_unit_test(test_unfinished_requests),
		cmocka_unit_test(test_stop_with_queued_calls),
		cmocka_unit_test(test_head_with_data),
		cmocka_unit_test(test_many_stretches),
		cmocka_unit_test(test_one_worker),
		cmocka_unit_test(test_stalled_streams_are_cut),
		cmocka_unit_test(test_slow_handler_is_patient),
	};
	return cmocka_run_group_tests(tests, fixture_begin, fixture_end);
}
