/*
 * A client process that dies in the middle of an upload, and a second one that takes a waiting call with it. The processes
 * are started before gRPC is: it does not survive a fork.
 */
#include "rpc/fixture.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	uint64_t bytes;
	bool upload_ended, parked, gone;
	enum err end;
	struct rpc_ticket *ticket;
} seen = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static enum err take_upload(void *ctx, const struct peer *peer, struct rpc_stream *in, struct buf *reply)
{
	(void)ctx;
	(void)peer;
	(void)reply;
	struct wire_head head;
	const struct bytes *data;
	size_t n;
	TRY(rpc_stream_head(in, &head));
	enum err e = ERR_OK;
	while (e == ERR_OK) {
		e = rpc_stream_next(in, &data, &n);
		pthread_mutex_lock(&seen.lock);
		for (size_t i = 0; e == ERR_OK && i < n; i++)
			seen.bytes += data[i].n;
		seen.end = e;
		seen.upload_ended = e != ERR_OK;
		pthread_cond_broadcast(&seen.changed);
		pthread_mutex_unlock(&seen.lock);
	}
	return e;
}

static void take_ticket(void *ctx, const struct peer *peer, struct bytes request, struct rpc_ticket *t)
{
	(void)ctx;
	(void)peer;
	(void)request;
	pthread_mutex_lock(&seen.lock);
	seen.ticket = t;
	seen.parked = true;
	pthread_cond_broadcast(&seen.changed);
	pthread_mutex_unlock(&seen.lock);
}

static bool ticket_gone(void *ctx, struct rpc_ticket *t)
{
	(void)ctx;
	pthread_mutex_lock(&seen.lock);
	bool mine = seen.ticket == t;
	seen.ticket = NULL;
	seen.gone = true;
	pthread_cond_broadcast(&seen.changed);
	pthread_mutex_unlock(&seen.lock);
	return mine;
}

static enum err endless(void *arg, struct bytes *ret_piece)
{
	(void)arg;
	static const uint8_t zeros[50000];
	*ret_piece = bytes_of(zeros, sizeof zeros);
	return ERR_OK;
}

/* The child: learns the port, then uploads or waits until it is killed. */
static void child_main(int from, bool uploads)
{
	int port;
	if (read(from, &port, sizeof port) != sizeof port)
		_exit(1);
	rpc_init();
	struct rpc_client *c = fixture_client_of(port, uploads ? &fixture.plant : &fixture.plant2, &fixture.ca);
	struct wire_head head = {.size = 1ull << 40, .digest = {{1}}};
	struct buf reply;
	if (uploads)
		(void)!rpc_client_upload(c, METHOD_UPLOAD_UPDATE, &head, endless, NULL, &reply);
	else
		(void)!rpc_client_call(c, METHOD_NEXT_TASK, bytes_str("x"), 0, &reply);
	_exit(1);
}

struct child {
	pid_t pid;
	int to;
};

static struct child children[2];

static int begin(void **state)
{
	(void)state;
	fixture_cast();
	for (int i = 0; i < 2; i++) {
		int ends[2];
		assert_int_equal(pipe(ends), 0);
		children[i].pid = fork();
		assert_true(children[i].pid >= 0);
		if (children[i].pid == 0) {
			close(ends[1]);
			child_main(ends[0], i == 0);
		}
		close(ends[0]);
		children[i].to = ends[1];
	}
	rpc_init();
	return 0;
}

static void kill_child(const struct child *c)
{
	int status;
	assert_int_equal(kill(c->pid, SIGKILL), 0);
	assert_int_equal(waitpid(c->pid, &status, 0), c->pid);
	assert_true(WIFSIGNALED(status));
	close(c->to);
}

static void test_killed(void **state)
{
	(void)state;
	static const struct rpc_handler handlers[METHOD_COUNT] = {
		[METHOD_UPLOAD_UPDATE] = {.upload = take_upload},
		[METHOD_NEXT_TASK] = {.parked = take_ticket},
	};
	struct rpc_server *s;
	struct rpc_server_config config = fixture_server_config(handlers, NULL);
	config.gone = ticket_gone;
	assert_ok(rpc_server_start(&config, &s));
	int port = rpc_server_port(s);
	for (int i = 0; i < 2; i++)
		assert_int_equal(write(children[i].to, &port, sizeof port), sizeof port);

	pthread_mutex_lock(&seen.lock);
	while (seen.bytes < 1000000 || !seen.parked)
		pthread_cond_wait(&seen.changed, &seen.lock);
	assert_false(seen.upload_ended);
	assert_false(seen.gone);
	pthread_mutex_unlock(&seen.lock);

	kill_child(&children[0]);
	kill_child(&children[1]);
	pthread_mutex_lock(&seen.lock);
	while (!seen.upload_ended || !seen.gone)
		pthread_cond_wait(&seen.changed, &seen.lock);
	assert_int_equal(seen.end, ERR_UNAVAILABLE);
	assert_null(seen.ticket);
	pthread_mutex_unlock(&seen.lock);
	rpc_server_stop(s, 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_killed),
	};
	return cmocka_run_group_tests(tests, begin, fixture_end);
}
