/*
 * Unary calls, uploads and downloads between a client and a server of ours.
 */
#include "rpc/fixture.h"
#include "rpc/pace.h"

#include "base/file.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

/* What the handlers below do, and what they have seen. */
struct world {
	pthread_mutex_t lock;
	struct peer peer;
	uint64_t size;
	enum err stream_end;
};

static enum err echo(void *ctx, const struct peer *peer, struct bytes request, struct buf *reply)
{
	struct world *w = ctx;
	pthread_mutex_lock(&w->lock);
	w->peer = *peer;
	pthread_mutex_unlock(&w->lock);
	return buf_append(reply, request.p, request.n);
}

static enum err take_upload(void *ctx, const struct peer *peer, struct rpc_stream *in, struct buf *reply)
{
	struct world *w = ctx;
	struct wire_head head;
	const struct bytes *data;
	size_t pieces;
	(void)peer;
	TRY(rpc_stream_head(in, &head));
	struct digester *d = digest_begin();
	uint64_t n = 0;
	enum err e;
	while ((e = rpc_stream_next(in, &data, &pieces)) == ERR_OK) {
		assert_in_range(pieces, 1, 256);
		for (size_t i = 0; i < pieces; i++) {
			assert_true(data[i].n > 0);
			digest_add(d, data[i].p, data[i].n);
			n += data[i].n;
		}
	}
	struct digest digest = digest_end(d);
	pthread_mutex_lock(&w->lock);
	w->stream_end = e;
	w->size = n;
	pthread_mutex_unlock(&w->lock);
	if (e != ERR_END)
		return e;
	if (n != head.size || !digest_equal(&digest, &head.digest))
		return err_set(ERR_MALFORMED, "digest");
	struct wire_receipt receipt = {.digest = digest, .job = head.update.job, .round = head.update.round};
	return wire_receipt_pack(&receipt, reply);
}

enum { BIG = 64 << 20, PATTERN = 1 << 20 };

static uint8_t *pattern(void)
{
	static uint8_t p[PATTERN];
	for (size_t i = 0; i < sizeof p; i++)
		p[i] = (uint8_t)(i * 2654435761u >> 13);
	return p;
}

/* What is sent without a copy must be given back, each time once. */
static atomic_int lent, given_back;

static void give_back(void *arg)
{
	atomic_int *times = arg;
	if (atomic_fetch_add(times, 1) != 0)
		abort();
	free(times);
	atomic_fetch_add(&given_back, 1);
}

static enum err give_download(void *ctx, const struct peer *peer, struct bytes request, struct rpc_stream *out)
{
	(void)ctx;
	(void)peer;
	struct wire_fetch_request r;
	TRY(wire_fetch_request_unpack(request, &r));
	if (r.offset > BIG)
		return err_set(ERR_NOT_FOUND, "no such model");
	struct wire_head head = {.size = BIG, .offset = r.offset, .digest = r.digest};
	TRY(rpc_stream_send_head(out, &head));
	for (uint64_t at = r.offset; at < BIG; at += WIRE_CHUNK_SIZE) {
		size_t n = BIG - at < WIRE_CHUNK_SIZE ? BIG - at : WIRE_CHUNK_SIZE;
		/* Both ways in turn. */
		if (at / WIRE_CHUNK_SIZE % 4 == 3) {
			TRY(rpc_stream_send(out, pattern(), n));
			continue;
		}
		atomic_int *times = mem_new(sizeof *times);
		atomic_fetch_add(&lent, 1);
		TRY(rpc_stream_send_shared(out, pattern(), n, give_back, times));
	}
	return ERR_OK;
}

static const struct rpc_handler handlers[METHOD_COUNT] = {
	[METHOD_REPORT] = {.unary = echo},
	[METHOD_UPLOAD_UPDATE] = {.upload = take_upload},
	[METHOD_FETCH] = {.download = give_download},
};

static struct rpc_server *server(struct world *w)
{
	struct rpc_server *s;
	struct rpc_server_config config = fixture_server_config(handlers, w);
	assert_ok(rpc_server_start(&config, &s));
	return s;
}

static void test_unary(void **state)
{
	(void)state;
	struct world w = {.lock = PTHREAD_MUTEX_INITIALIZER};
	struct rpc_server *s = server(&w);
	struct rpc_client *c = fixture_client(s, &fixture.plant);
	for (size_t i = 0; i < 20; i++) {
		struct buf reply;
		uint8_t request[300];
		random_bytes(request, sizeof request);
		assert_ok(rpc_client_call(c, METHOD_REPORT, bytes_of(request, i), 0, &reply));
		assert_int_equal(reply.n, i);
		assert_memory_equal(reply.p, request, i);
		buf_deinit(&reply);
	}
	rpc_client_free(c);
	rpc_server_stop(s, 1000);
	assert_int_equal(w.peer.id.role, ROLE_PLANT);
	assert_string_equal(w.peer.id.name, "p1");
	struct cert *cert;
	assert_ok(cert_parse(buf_bytes(&fixture.plant.cert), &cert));
	struct digest key = cert_key_digest(cert);
	assert_true(digest_equal(&key, &w.peer.key));
	assert_non_null(strstr(w.peer.from, "127.0.0.1"));
	cert_free(cert);
}

struct source {
	uint64_t left, chunk;
};

static enum err next_piece(void *arg, struct bytes *ret_piece)
{
	struct source *s = arg;
	if (s->left == 0)
		return ERR_END;
	size_t n = s->left < s->chunk ? s->left : s->chunk;
	*ret_piece = bytes_of(pattern(), n);
	s->left -= n;
	return ERR_OK;
}

static struct digest digest_of_source(struct source s)
{
	struct digester *d = digest_begin();
	struct bytes b;
	while (next_piece(&s, &b) == ERR_OK)
		digest_add(d, b.p, b.n);
	return digest_end(d);
}

static void test_upload(void **state)
{
	(void)state;
	struct world w = {.lock = PTHREAD_MUTEX_INITIALIZER};
	struct rpc_server *s = server(&w);
	struct rpc_client *c = fixture_client(s, &fixture.plant);
	static const struct source cases[] = {{BIG, WIRE_CHUNK_SIZE}, {0, 1}, {1, 1}, {100, 7}, {3 << 20, 65537}};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct source source = cases[i];
		struct wire_head head = {.size = source.left, .digest = digest_of_source(source), .has_update = true};
		head.update =
			(struct wire_update_head){.job = 7, .round = 3, .base = head.digest, .manifest = head.digest};
		struct buf reply;
		struct wire_receipt receipt;
		assert_ok(rpc_client_upload(c, METHOD_UPLOAD_UPDATE, &head, next_piece, &source, &reply));
		assert_ok(wire_receipt_unpack(buf_bytes(&reply), &receipt));
		assert_int_equal(receipt.job, 7);
		assert_int_equal(receipt.round, 3);
		assert_true(digest_equal(&receipt.digest, &head.digest));
		pthread_mutex_lock(&w.lock);
		assert_int_equal(w.size, cases[i].left);
		assert_int_equal(w.stream_end, ERR_END);
		pthread_mutex_unlock(&w.lock);
		buf_deinit(&reply);
	}
	rpc_client_free(c);
	rpc_server_stop(s, 1000);
}

struct sink {
	uint64_t n;
	struct wire_head head;
	struct digester *d;
	uint64_t stop_at;
};

static enum err sink_head(void *arg, const struct wire_head *head)
{
	((struct sink *)arg)->head = *head;
	return ERR_OK;
}

static enum err sink_data(void *arg, const struct bytes *pieces, size_t n)
{
	struct sink *s = arg;
	assert_true(n > 0);
	for (size_t i = 0; i < n; i++) {
		digest_add(s->d, pieces[i].p, pieces[i].n);
		s->n += pieces[i].n;
	}
	return s->stop_at > 0 && s->n >= s->stop_at ? err_set(ERR_IO, "disk full") : ERR_OK;
}

static enum err download(struct rpc_client *c, uint64_t offset, struct sink *sink)
{
	struct wire_fetch_request r = {.digest = {{1}}, .offset = offset};
	struct buf request;
	struct rpc_sink to = {.head = sink_head, .data = sink_data, .arg = sink};
	buf_init(&request, 1000);
	assert_ok(wire_fetch_request_pack(&r, &request));
	sink->d = digest_begin();
	enum err e = rpc_client_download(c, METHOD_FETCH, buf_bytes(&request), &to);
	buf_deinit(&request);
	return e;
}

static void test_download(void **state)
{
	(void)state;
	struct world w = {.lock = PTHREAD_MUTEX_INITIALIZER};
	struct rpc_server *s = server(&w);
	struct rpc_client *c = fixture_client(s, &fixture.plant);
	static const uint64_t offsets[] = {0, BIG - 5, BIG, 5 << 20};
	for (size_t i = 0; i < 4; i++) {
		struct sink sink = {0};
		assert_ok(download(c, offsets[i], &sink));
		assert_int_equal(sink.n, BIG - offsets[i]);
		struct digest is = digest_end(sink.d),
			      should = digest_of_source((struct source){BIG - offsets[i], WIRE_CHUNK_SIZE});
		assert_true(digest_equal(&is, &should));
	}
	struct sink sink = {0};
	assert_err(ERR_NOT_FOUND, download(c, BIG + 1, &sink));
	assert_string_equal(err_text(), "no such model");
	digest_free(sink.d);
	/* A sink that fails ends the call with its own error; the next call works. */
	sink = (struct sink){.stop_at = 3 << 20};
	assert_err(ERR_IO, download(c, 0, &sink));
	assert_string_equal(err_text(), "disk full");
	digest_free(sink.d);
	sink = (struct sink){0};
	assert_ok(download(c, BIG - 100, &sink));
	digest_free(sink.d);
	rpc_client_free(c);
	rpc_server_stop(s, 1000);
	assert_true(atomic_load(&lent) > 50);
	assert_int_equal(atomic_load(&lent), atomic_load(&given_back));
}

/* In a test build every byte of every outgoing message is in the file; in a real one there is no such file. */
static void test_tap(void **state)
{
	(void)state;
	char path[] = "/tmp/hansa-tap-XXXXXX";
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(unlink(path), 0);
	setenv("HANSA_TAP_FILE", path, 1);
	struct world w = {.lock = PTHREAD_MUTEX_INITIALIZER};
	struct rpc_server *s = server(&w);
	struct rpc_client *c = fixture_client(s, &fixture.plant);
	unsetenv("HANSA_TAP_FILE");
	struct buf reply;
	struct source source = {3 << 20, 1 << 20};
	struct wire_head head = {.size = source.left, .digest = digest_of_source(source)};
	assert_ok(rpc_client_call(c, METHOD_REPORT, bytes_str("an outgoing message"), 0, &reply));
	buf_deinit(&reply);
	assert_ok(rpc_client_upload(c, METHOD_UPLOAD_UPDATE, &head, next_piece, &source, &reply));
	buf_deinit(&reply);
	uint64_t sent, received;
	rpc_client_get_bytes(c, &sent, &received);
	assert_true(sent > 3 << 20 && sent < (3 << 20) + 1000);
	rpc_client_free(c);
	rpc_server_stop(s, 1000);
#ifdef HANSA_WIRE_TAP
	struct buf tap;
	assert_ok(file_read(path, 16 << 20, &tap));
	assert_int_equal(tap.n, sent);
	assert_memory_equal(tap.p, "an outgoing message", 19);
	assert_non_null(memmem(tap.p, tap.n, head.digest.b, DIGEST_SIZE));
	/* The last message: data travels in pieces of at most PACE_MESSAGE_SIZE. */
	size_t last = PACE_MESSAGE_SIZE;
	assert_memory_equal(tap.p + tap.n - last, pattern() + (1 << 20) - last, last);
	buf_deinit(&tap);
	assert_int_equal(unlink(path), 0);
#else
	assert_false(file_exists(path));
#endif
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_unary),
		cmocka_unit_test(test_upload),
		cmocka_unit_test(test_download),
		cmocka_unit_test(test_tap),
	};
	return cmocka_run_group_tests(tests, fixture_begin, fixture_end);
}
