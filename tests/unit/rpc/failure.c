/*
 * What goes wrong between honest parties: handlers that fail, servers that are away, stop or come back, calls that are given up.
 */
#include "rpc/fixture.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool held;
static int entered, period; /* handlers are held for the period in which they came */

static void enter_and_wait(void)
{
	pthread_mutex_lock(&lock);
	entered++;
	int mine = period;
	pthread_cond_broadcast(&changed);
	while (held && period == mine)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
}

static void hold(bool on)
{
	pthread_mutex_lock(&lock);
	held = on;
	if (on) {
		entered = 0;
		period++;
	}
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

static void wait_entered(int n)
{
	pthread_mutex_lock(&lock);
	while (entered < n)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
}

static enum err slow_echo(void *ctx, const struct peer *peer, struct bytes request, struct buf *reply)
{
	(void)ctx;
	(void)peer;
	enter_and_wait();
	return buf_append(reply, request.p, request.n);
}

static enum err fail_as_asked(void *ctx, const struct peer *peer, struct bytes request, struct buf *reply)
{
	(void)ctx;
	(void)peer;
	(void)reply;
	return err_set((enum err)request.p[0], "the reason is /var/lib: 100%% \xc3\xa4");
}

static enum err fail_silently(void *ctx, const struct peer *peer, struct bytes request, struct buf *reply)
{
	(void)ctx;
	(void)peer;
	(void)request;
	(void)reply;
	return ERR_NOT_FOUND;
}

static enum err reply_too_much(void *ctx, const struct peer *peer, struct bytes request, struct buf *reply)
{
	(void)ctx;
	(void)peer;
	(void)request;
	uint8_t block[4096] = {0};
	for (;;)
		TRY(buf_append(reply, block, sizeof block));
}

/* What the first byte of the request asks for. */
enum { GOOD, EARLY, TOO_MUCH, FAIL_LATE, NO_HEAD, ENDLESS };

static enum err give(void *ctx, const struct peer *peer, struct bytes request, struct rpc_stream *out)
{
	(void)ctx;
	(void)peer;
	static uint8_t data[WIRE_CHUNK_SIZE];
	struct wire_head head = {.size = request.p[0] == ENDLESS ? 1ull << 40 : 2 * sizeof data, .digest = {{1}}};
	if (request.p[0] == NO_HEAD)
		return ERR_OK;
	TRY(rpc_stream_send_head(out, &head));
	TRY(rpc_stream_send(out, data, sizeof data));
	if (request.p[0] == EARLY)
		return ERR_OK;
	if (request.p[0] == FAIL_LATE)
		return err_set(ERR_STALE, "replaced meanwhile");
	TRY(rpc_stream_send(out, data, sizeof data));
	if (request.p[0] == TOO_MUCH)
		TRY(rpc_stream_send(out, data, 1));
	while (request.p[0] == ENDLESS)
		TRY(rpc_stream_send(out, data, sizeof data));
	return ERR_OK;
}

/* Answers after the head, without reading the rest. */
static enum err judge_early(void *ctx, const struct peer *peer, struct rpc_stream *in, struct buf *reply)
{
	(void)ctx;
	(void)peer;
	struct wire_head head;
	TRY(rpc_stream_head(in, &head));
	if (head.update.round == 1)
		return err_set(ERR_STALE, "round 1 is over");
	struct wire_receipt r = {.digest = head.digest, .repeated = true};
	return wire_receipt_pack(&r, reply);
}

static enum err drain(void *ctx, const struct peer *peer, struct rpc_stream *in, struct buf *reply)
{
	(void)ctx;
	(void)peer;
	(void)reply;
	struct wire_head head;
	const struct bytes *data;
	size_t n;
	TRY(rpc_stream_head(in, &head));
	enter_and_wait();
	for (;;)
		TRY(rpc_stream_next(in, &data, &n));
}

static const struct rpc_handler handlers[METHOD_COUNT] = {
	[METHOD_REPORT] = {.unary = slow_echo},     [METHOD_STOP_JOB] = {.unary = fail_as_asked},
	[METHOD_REVOKE] = {.unary = fail_silently}, [METHOD_INVITE] = {.unary = reply_too_much},
	[METHOD_FETCH] = {.download = give},        [METHOD_UPLOAD_UPDATE] = {.upload = judge_early},
	[METHOD_PUBLISH] = {.upload = drain},
};

static struct rpc_server *server_on(const char *listen)
{
	struct rpc_server *s;
	struct rpc_server_config config = fixture_server_config(handlers, NULL);
	config.listen = listen;
	assert_ok(rpc_server_start(&config, &s));
	return s;
}

static enum err call(struct rpc_client *c, enum method_id method, struct bytes request, int64_t deadline_ms)
{
	struct buf reply = {0};
	enum err e = rpc_client_call(c, method, request, deadline_ms, &reply);
	buf_deinit(&reply);
	return e;
}

static void test_handler_errors(void **state)
{
	(void)state;
	struct rpc_server *s = server_on("127.0.0.1:0");
	struct rpc_client *c = fixture_client(s, &fixture.operator);
	static const enum err hidden[] = {ERR_IO, ERR_CORRUPT, ERR_CRYPTO, ERR_INTERNAL, ERR_END};
	log_set_level(LOG_LEVEL_ERROR);
	int quiet = dup(2), null = open("/dev/null", O_WRONLY);
	dup2(null, 2);
	for (int i = 1; i < ERR_COUNT; i++) {
		uint8_t request = (uint8_t)i;
		enum err e = call(c, METHOD_STOP_JOB, bytes_of(&request, 1), 0);
		bool is_hidden = false;
		for (size_t k = 0; k < sizeof hidden / sizeof hidden[0]; k++)
			is_hidden = is_hidden || hidden[k] == e;
		assert_int_equal(e, i);
		assert_int_equal(strstr(err_text(), "/var/lib") == NULL, is_hidden);
		if (!is_hidden)
			assert_string_equal(err_text(), "the reason is /var/lib: 100% \xc3\xa4");
	}
	/* An error without a text does not come with the text of an earlier one (the same worker has had many). */
	for (int i = 0; i < 8; i++) {
		assert_err(ERR_NOT_FOUND, call(c, METHOD_REVOKE, bytes_str("x"), 0));
		assert_null(strstr(err_text(), "reason is"));
	}
	assert_err(ERR_LIMIT, call(c, METHOD_INVITE, bytes_str("x"), 0));
	dup2(quiet, 2);
	close(quiet);
	close(null);
	rpc_client_free(c);
	rpc_server_stop(s, 1000);
}

static void test_request_too_large(void **state)
{
	(void)state;
	struct rpc_server *s = server_on("127.0.0.1:0");
	struct rpc_client *c = fixture_client(s, &fixture.plant);
	size_t n = methods[METHOD_REPORT].request_max;
	uint8_t *p = calloc(1, n + 1);
	assert_err(ERR_LIMIT, call(c, METHOD_REPORT, bytes_of(p, n + 1), 0));
	uint64_t sent, received;
	rpc_client_get_bytes(c, &sent, &received);
	assert_int_equal(sent, 0);
	assert_ok(call(c, METHOD_REPORT, bytes_of(p, n), 0));
	rpc_client_get_bytes(c, &sent, &received);
	assert_int_equal(sent, n);
	assert_int_equal(received, n);
	struct rpc_server_stats stats;
	rpc_server_get_stats(s, &stats);
	assert_int_equal(stats.bytes_in, n);
	assert_int_equal(stats.bytes_out, n);
	free(p);
	rpc_client_free(c);
	rpc_server_stop(s, 1000);
}

/* ---- streams ---- */

static enum err take_head(void *arg, const struct wire_head *head)
{
	(void)arg;
	(void)head;
	return ERR_OK;
}

static enum err take_data(void *arg, const struct bytes *pieces, size_t n)
{
	for (size_t i = 0; i < n; i++)
		*(uint64_t *)arg += pieces[i].n;
	return ERR_OK;
}

static enum err download(struct rpc_client *c, uint8_t how, uint64_t *ret_n)
{
	*ret_n = 0;
	struct rpc_sink sink = {.head = take_head, .data = take_data, .arg = ret_n};
	return rpc_client_download(c, METHOD_FETCH, bytes_of(&how, 1), &sink);
}

static void test_downloads(void **state)
{
	(void)state;
	struct rpc_server *s = server_on("127.0.0.1:0");
	struct rpc_client *c = fixture_client(s, &fixture.plant);
	uint64_t n;
	assert_ok(download(c, GOOD, &n));
	assert_int_equal(n, 2 * WIRE_CHUNK_SIZE);
	assert_err(ERR_MALFORMED, download(c, EARLY, &n));
	assert_int_equal(n, WIRE_CHUNK_SIZE);
	assert_err(ERR_MALFORMED, download(c, TOO_MUCH, &n));
	assert_int_equal(n, 2 * WIRE_CHUNK_SIZE);
	assert_err(ERR_STALE, download(c, FAIL_LATE, &n));
	assert_string_equal(err_text(), "replaced meanwhile");
	assert_err(ERR_MALFORMED, download(c, NO_HEAD, &n));
	assert_ok(download(c, GOOD, &n));
	rpc_client_free(c);
	rpc_server_stop(s, 1000);
}

static enum err zeros(void *arg, struct bytes *ret_piece)
{
	static uint8_t data[WIRE_CHUNK_SIZE];
	uint64_t *left = arg;
	if (*left == 0)
		return ERR_END;
	if (*left == 1)
		return err_set(ERR_CORRUPT, "my file has changed");
	--*left;
	*ret_piece = bytes_of(data, sizeof data);
	return ERR_OK;
}

static void test_uploads_judged_early(void **state)
{
	(void)state;
	struct rpc_server *s = server_on("127.0.0.1:0");
	struct rpc_client *c = fixture_client(s, &fixture.plant);
	for (uint32_t round = 1; round < 3; round++) {
		struct wire_head head = {.size = 1 << 30, .digest = {{1}}, .has_update = true};
		head.update = (struct wire_update_head){.round = round, .base = {{1}}, .manifest = {{1}}};
		uint64_t left = 1025;
		struct buf reply = {0};
		enum err e = rpc_client_upload(c, METHOD_UPLOAD_UPDATE, &head, zeros, &left, &reply);
		if (round == 1) {
			assert_err(ERR_STALE, e);
			assert_string_equal(err_text(), "round 1 is over");
		} else {
			struct wire_receipt r;
			assert_ok(e);
			assert_ok(wire_receipt_unpack(buf_bytes(&reply), &r));
			assert_true(r.repeated);
		}
		/* It was not sent to the end. */
		assert_true(left > 900);
		buf_deinit(&reply);
	}
	/* A source that fails ends the upload with its own error. */
	struct wire_head head = {.size = 1 << 30, .digest = {{1}}};
	struct rpc_client *o = fixture_client(s, &fixture.operator);
	uint64_t left = 3;
	struct buf reply = {0};
	assert_err(ERR_CORRUPT, rpc_client_upload(o, METHOD_PUBLISH, &head, zeros, &left, &reply));
	assert_string_equal(err_text(), "my file has changed");
	rpc_client_free(o);
	rpc_client_free(c);
	rpc_server_stop(s, 1000);
}

/* ---- time ---- */

static void test_deadline(void **state)
{
	(void)state;
	struct rpc_server *s = server_on("127.0.0.1:0");
	struct rpc_client *c = fixture_client(s, &fixture.plant);
	hold(true);
	assert_err(ERR_DEADLINE, call(c, METHOD_REPORT, bytes_str("x"), 200));
	hold(false);
	assert_ok(call(c, METHOD_REPORT, bytes_str("x"), 0));
	rpc_client_free(c);
	rpc_server_stop(s, 1000);
}

struct job {
	pthread_t thread;
	struct rpc_client *c;
	int kind;
	enum err result;
};

static void *job_main(void *arg)
{
	struct job *j = arg;
	uint64_t n = 1 << 20;
	struct buf reply = {0};
	struct wire_head head = {.size = 1ull << 40, .digest = {{1}}};
	if (j->kind == 0)
		j->result = call(j->c, METHOD_REPORT, bytes_str("x"), 0);
	else if (j->kind == 1)
		j->result = download(j->c, ENDLESS, &n);
	else
		j->result = rpc_client_upload(j->c, METHOD_PUBLISH, &head, zeros, &n, &reply);
	buf_deinit(&reply);
	return NULL;
}

static atomic_bool stop;

static bool stop_asked(void)
{
	return atomic_load(&stop);
}

static void test_cancel(void **state)
{
	(void)state;
	struct rpc_server *s = server_on("127.0.0.1:0");
	for (int i = 0; i < 6; i++) {
		char address[64];
		struct job j = {.kind = i % 3};
		snprintf(address, sizeof address, "127.0.0.1:%d", rpc_server_port(s));
		atomic_store(&stop, false);
		struct rpc_client_config config = {
			.address = address,
			.ca_pem = buf_bytes(&fixture.ca.pem),
			.key_pem = buf_bytes(j.kind == 0 ? &fixture.plant.key : &fixture.operator.key),
			.cert_pem = buf_bytes(j.kind == 0 ? &fixture.plant.cert : &fixture.operator.cert),
			.federation = FEDERATION,
			.stop_asked = i < 3 ? NULL : stop_asked};
		assert_ok(rpc_client_new(&config, &j.c));
		hold(true);
		assert_int_equal(pthread_create(&j.thread, NULL, job_main, &j), 0);
		if (j.kind != 1)
			wait_entered(1);
		if (i < 3)
			rpc_client_cancel(j.c);
		else
			atomic_store(&stop, true);
		pthread_join(j.thread, NULL);
		assert_int_equal(j.result, ERR_CANCELLED);
		/* All later calls too. */
		assert_err(ERR_CANCELLED, call(j.c, METHOD_LIST_JOBS, bytes_str("x"), 0));
		hold(false);
		rpc_client_free(j.c);
	}
	rpc_server_stop(s, 1000);
}

/* ---- servers that are away ---- */

static int free_port(void)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof at;
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &n), 0);
	close(fd);
	return ntohs(at.sin_port);
}

static void test_server_away_and_back(void **state)
{
	(void)state;
	char listen[64];
	int port = free_port();
	snprintf(listen, sizeof listen, "127.0.0.1:%d", port);
	struct rpc_client *c = fixture_client_of(port, &fixture.plant, &fixture.ca);
	int64_t start = clock_monotonic_ms();
	for (int i = 0; i < 5; i++)
		assert_err(ERR_UNAVAILABLE, call(c, METHOD_REPORT, bytes_str("x"), 0));
	/* Each of them was a real attempt, and none waited for gRPC's back-off. */
	assert_true(clock_monotonic_ms() - start < 10000);
	for (int i = 0; i < 3; i++) {
		struct rpc_server *s = server_on(listen);
		assert_ok(call(c, METHOD_REPORT, bytes_str("x"), 0));
		assert_ok(call(c, METHOD_REPORT, bytes_str("x"), 0));
		rpc_server_stop(s, 1000);
		/* The connection is found dead, or the port closed. */
		assert_err(ERR_UNAVAILABLE, call(c, METHOD_REPORT, bytes_str("x"), 0));
	}
	rpc_client_free(c);
}

/* The server stops while a client is in a call; short calls get their time. */
static void test_stop_with_grace(void **state)
{
	(void)state;
	struct rpc_server *s = server_on("127.0.0.1:0");
	struct job j = {.kind = 0, .c = fixture_client(s, &fixture.plant)};
	hold(true);
	assert_int_equal(pthread_create(&j.thread, NULL, job_main, &j), 0);
	wait_entered(1);
	struct rpc_client *late = fixture_client(s, &fixture.plant2);
	hold(false);
	rpc_server_stop(s, 10000);
	pthread_join(j.thread, NULL);
	assert_int_equal(j.result, ERR_OK);
	assert_err(ERR_UNAVAILABLE, call(late, METHOD_REPORT, bytes_str("x"), 0));
	rpc_client_free(late);
	rpc_client_free(j.c);
}

static void test_stop_without_grace(void **state)
{
	(void)state;
	for (int kind = 1; kind < 3; kind++) {
		struct rpc_server *s = server_on("127.0.0.1:0");
		struct job j = {.kind = kind, .c = fixture_client(s, &fixture.operator)};
		hold(true);
		hold(false);
		assert_int_equal(pthread_create(&j.thread, NULL, job_main, &j), 0);
		if (kind == 2)
			wait_entered(1);
		rpc_server_stop(s, 0);
		pthread_join(j.thread, NULL);
		assert_int_equal(j.result, ERR_UNAVAILABLE);
		rpc_client_free(j.c);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_handler_errors),
		cmocka_unit_test(test_request_too_large),
		cmocka_unit_test(test_downloads),
		cmocka_unit_test(test_uploads_judged_early),
		cmocka_unit_test(test_deadline),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_server_away_and_back),
		cmocka_unit_test(test_stop_with_grace),
		cmocka_unit_test(test_stop_without_grace),
	};
	return cmocka_run_group_tests(tests, fixture_begin, fixture_end);
}
