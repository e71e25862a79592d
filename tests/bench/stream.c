/*
 * The limit of the transport: how many bytes a second does a bare gRPC C core stream move on this machine, with our TLS
 * policy and certificates and nothing of Hansa around it? Both ends are here, as in the benchmark of whole rounds that
 * is held against it. What is received is thrown away; what is sent lies still in memory.
 *
 * The ends are processes of their own, made before gRPC starts. A barrier in shared memory starts and ends each
 * measurement; handshakes are over by then.
 */
#include "base/clock.h"
#include "base/file.h"
#include "base/text.h"
#include "certs/ca.h"
#include "crypto/tls.h"
#include "rpc/client.h"
#include "rpc/credentials.h"
#include "rpc/payload.h"

#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CLIENTS_MAX = 64, RUNS_MAX = 31, SIZES = 2, DIRECTIONS = 2, GIVE_UP_S = 300 };
static const size_t sizes[SIZES] = {256 << 10, 1 << 20};
static const char *const paths[DIRECTIONS] = {"/bench/up", "/bench/down"};
static const char federation[] = "bench.example";

struct args {
	int64_t clients, runs;
	double mb; /* of a connection, in one direction */
	bool processes, json;
};

struct side {
	struct buf key, cert;
};

struct bench {
	const struct args *args;
	struct buf ca;
	struct side server, client;
	pthread_barrier_t *barrier; /* shared by the processes */
	int port;
};

static pid_t children[CLIENTS_MAX + 1];
static size_t n_children;
static uint8_t content[1 << 20]; /* not zeros: made once, before the processes part */

static _Noreturn void die(const char *why)
{
	fprintf(stderr, "bench-stream: %s\n", why);
	for (size_t i = 0; i < n_children; i++)
		kill(children[i], SIGKILL);
	_exit(1);
}

static void must(enum err err)
{
	if (err != ERR_OK)
		die(err_text());
}

static double seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- both ends ---- */

static gpr_timespec never(void)
{
	return gpr_inf_future(GPR_CLOCK_MONOTONIC);
}

static bool batch(grpc_call *call, grpc_completion_queue *cq, const grpc_op *ops, size_t n)
{
	void *tag = (void *)(uintptr_t)ops;
	if (grpc_call_start_batch(call, ops, n, tag, NULL) != GRPC_CALL_OK)
		die("a batch was refused");
	return grpc_completion_queue_pluck(cq, tag, never(), NULL).success != 0;
}

static bool send_message(grpc_call *call, grpc_completion_queue *cq, size_t n)
{
	grpc_slice slice = grpc_slice_from_static_buffer(content, n);
	grpc_byte_buffer *message = grpc_raw_byte_buffer_create(&slice, 1);
	grpc_op op = {.op = GRPC_OP_SEND_MESSAGE};
	op.data.send_message.send_message = message;
	bool sent = batch(call, cq, &op, 1);
	grpc_byte_buffer_destroy(message);
	return sent;
}

/* Bytes of the next message; 0: the end. */
static size_t take_message(grpc_call *call, grpc_completion_queue *cq)
{
	grpc_byte_buffer *message = NULL;
	grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};
	op.data.recv_message.recv_message = &message;
	(void)batch(call, cq, &op, 1);
	size_t n = message != NULL ? grpc_byte_buffer_length(message) : 0;
	if (message != NULL)
		grpc_byte_buffer_destroy(message);
	return n;
}

static grpc_channel_args channel_args(grpc_arg *v, size_t n)
{
	/* What common/rpc sets and what matters for speed. */
	static char limit[] = GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, probe[] = GRPC_ARG_HTTP2_BDP_PROBE,
		    ahead[] = GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, pool[] = GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL;
	const grpc_arg args[] = {
		{.type = GRPC_ARG_INTEGER, .key = limit, .value.integer = PAYLOAD_MAX},
		{.type = GRPC_ARG_INTEGER, .key = probe, .value.integer = 0},
		{.type = GRPC_ARG_INTEGER, .key = ahead, .value.integer = 1 << 20},
		{.type = GRPC_ARG_INTEGER, .key = pool, .value.integer = 1},
	};
	ENSURE(n == sizeof args / sizeof args[0]);
	memcpy(v, args, sizeof args);
	return (grpc_channel_args){.num_args = n, .args = v};
}

/* ---- the server ---- */

struct worker {
	grpc_server *server;
	grpc_completion_queue *cq;
};

static void serve_call(grpc_call *call, grpc_completion_queue *cq, bool up)
{
	int cancelled;
	grpc_op close = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER};
	close.data.recv_close_on_server.cancelled = &cancelled;
	if (grpc_call_start_batch(call, &close, 1, &cancelled, NULL) != GRPC_CALL_OK)
		die("a batch was refused");
	grpc_op begin = {.op = GRPC_OP_SEND_INITIAL_METADATA};
	(void)batch(call, cq, &begin, 1);
	/* The request's length is the size of a message of the answer; its content says how many. */
	uint32_t asked[2] = {0};
	grpc_byte_buffer *request = NULL;
	grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};
	op.data.recv_message.recv_message = &request;
	(void)batch(call, cq, &op, 1);
	struct buf text = {0};
	if (request != NULL && !up && payload_read(request, sizeof asked, &text) == ERR_OK && text.n == sizeof asked)
		memcpy(asked, text.p, sizeof asked);
	buf_deinit(&text);
	if (request != NULL)
		grpc_byte_buffer_destroy(request);
	while (up && take_message(call, cq) > 0)
		;
	for (uint32_t i = 0; !up && i < asked[1] && asked[0] <= sizeof content; i++)
		(void)send_message(call, cq, asked[0]);
	grpc_slice no_details = grpc_empty_slice();
	grpc_op end = {.op = GRPC_OP_SEND_STATUS_FROM_SERVER};
	end.data.send_status_from_server.status = GRPC_STATUS_OK;
	end.data.send_status_from_server.status_details = &no_details;
	(void)batch(call, cq, &end, 1);
	(void)grpc_completion_queue_pluck(cq, &cancelled, never(), NULL);
	grpc_call_unref(call);
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	for (;;) {
		grpc_call *call = NULL;
		grpc_call_details details;
		grpc_metadata_array metadata;
		grpc_call_details_init(&details);
		grpc_metadata_array_init(&metadata);
		if (grpc_server_request_call(w->server, &call, &details, &metadata, w->cq, w->cq, &call) !=
		    GRPC_CALL_OK)
			die("a call could not be asked for");
		if (grpc_completion_queue_pluck(w->cq, &call, never(), NULL).success == 0)
			return NULL;
		serve_call(call, w->cq, grpc_slice_str_cmp(details.method, paths[0]) == 0);
		grpc_call_details_destroy(&details);
		grpc_metadata_array_destroy(&metadata);
	}
}

static _Noreturn void serve(const struct bench *b, int port_pipe)
{
	struct worker workers[CLIENTS_MAX];
	struct credentials_pem pem = {buf_bytes(&b->server.key), buf_bytes(&b->server.cert), buf_bytes(&b->ca)};
	grpc_server_credentials *creds;
	grpc_arg v[4];
	pthread_t thread;
	rpc_init();
	must(credentials_server(&pem, true, &creds));
	grpc_channel_args args = channel_args(v, 4);
	grpc_server *server = grpc_server_create(&args, NULL);
	for (int64_t i = 0; i < b->args->clients; i++) {
		workers[i] = (struct worker){server, grpc_completion_queue_create_for_pluck(NULL)};
		grpc_server_register_completion_queue(server, workers[i].cq, NULL);
	}
	int port = grpc_server_add_http2_port(server, "127.0.0.1:0", creds);
	grpc_server_start(server);
	for (int64_t i = 0; i < b->args->clients; i++) {
		if (pthread_create(&thread, NULL, worker_main, &workers[i]) != 0)
			die("a thread could not be started");
	}
	if (port == 0 || write(port_pipe, &port, sizeof port) != sizeof port)
		die("the server has no port");
	for (;;)
		pause(); /* until the parent ends it */
}

/* ---- a client ---- */

struct connection {
	grpc_channel *channel;
	grpc_completion_queue *cq;
};

struct stream {
	grpc_call *call;
	grpc_metadata_array initial, trailing;
	grpc_status_code status;
	grpc_slice details;
};

static void stream_begin(const struct connection *c, const char *path, struct stream *s)
{
	s->call = grpc_channel_create_call(c->channel, NULL, GRPC_PROPAGATE_DEFAULTS, c->cq,
					   grpc_slice_from_static_string(path), NULL, never(), NULL);
	grpc_metadata_array_init(&s->initial);
	grpc_metadata_array_init(&s->trailing);
	s->details = grpc_empty_slice();
	grpc_op status = {.op = GRPC_OP_RECV_STATUS_ON_CLIENT};
	status.data.recv_status_on_client.trailing_metadata = &s->trailing;
	status.data.recv_status_on_client.status = &s->status;
	status.data.recv_status_on_client.status_details = &s->details;
	if (grpc_call_start_batch(s->call, &status, 1, s, NULL) != GRPC_CALL_OK)
		die("a batch was refused");
	grpc_op ops[2] = {{.op = GRPC_OP_SEND_INITIAL_METADATA}, {.op = GRPC_OP_RECV_INITIAL_METADATA}};
	ops[1].data.recv_initial_metadata.recv_initial_metadata = &s->initial;
	(void)batch(s->call, c->cq, ops, 2);
}

static void stream_end(const struct connection *c, struct stream *s)
{
	(void)grpc_completion_queue_pluck(c->cq, s, never(), NULL);
	if (s->status != GRPC_STATUS_OK)
		die("a stream did not end well");
	grpc_metadata_array_destroy(&s->initial);
	grpc_metadata_array_destroy(&s->trailing);
	grpc_slice_unref(s->details);
	grpc_call_unref(s->call);
}

static void send_close(const struct connection *c, const struct stream *s)
{
	grpc_op op = {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT};
	(void)batch(s->call, c->cq, &op, 1);
}

static void upload(const struct connection *c, size_t size, size_t count)
{
	struct stream s;
	stream_begin(c, paths[0], &s);
	for (size_t i = 0; i < count; i++)
		if (!send_message(s.call, c->cq, size))
			break;
	send_close(c, &s);
	stream_end(c, &s);
}

static void download(const struct connection *c, size_t size, size_t count)
{
	struct stream s;
	uint32_t asked[2] = {(uint32_t)size, (uint32_t)count};
	size_t got = 0, n;
	stream_begin(c, paths[1], &s);
	grpc_slice slice = grpc_slice_from_copied_buffer((const char *)asked, sizeof asked);
	grpc_byte_buffer *request = grpc_raw_byte_buffer_create(&slice, 1);
	grpc_slice_unref(slice);
	grpc_op op = {.op = GRPC_OP_SEND_MESSAGE};
	op.data.send_message.send_message = request;
	(void)batch(s.call, c->cq, &op, 1);
	grpc_byte_buffer_destroy(request);
	send_close(c, &s);
	while ((n = take_message(s.call, c->cq)) > 0)
		got += n;
	stream_end(c, &s);
	if (got != size * count)
		die("a download did not bring what was asked for");
}

static size_t messages(const struct args *args, size_t size)
{
	return (size_t)(args->mb * 1e6 / (double)size + 0.5);
}

static void *client_main(void *arg)
{
	const struct bench *b = arg;
	struct credentials_pem pem = {buf_bytes(&b->client.key), buf_bytes(&b->client.cert), buf_bytes(&b->ca)};
	struct credentials_check *check;
	grpc_channel_credentials *creds;
	grpc_arg v[4];
	char address[32];
	must(credentials_client(&pem, federation, &check, &creds));
	snprintf(address, sizeof address, "127.0.0.1:%d", b->port);
	grpc_channel_args args = channel_args(v, 4);
	struct connection c = {grpc_channel_create(address, creds, &args),
			       grpc_completion_queue_create_for_pluck(NULL)};
	download(&c, 0, 0);
	for (int64_t run = 0; run < b->args->runs; run++) {
		for (int k = 0; k < SIZES * DIRECTIONS; k++) {
			size_t size = sizes[k / DIRECTIONS];
			pthread_barrier_wait(b->barrier);
			(k % DIRECTIONS == 0 ? upload : download)(&c, size, messages(b->args, size));
			pthread_barrier_wait(b->barrier);
		}
	}
	grpc_channel_destroy(c.channel);
	grpc_channel_credentials_release(creds);
	credentials_check_free(check);
	grpc_completion_queue_shutdown(c.cq);
	grpc_completion_queue_destroy(c.cq);
	return NULL;
}

static _Noreturn void be_clients(struct bench *b, int64_t n)
{
	pthread_t threads[CLIENTS_MAX];
	rpc_init();
	for (int64_t i = 0; i < n; i++)
		if (pthread_create(&threads[i], NULL, client_main, b) != 0)
			die("a thread could not be started");
	for (int64_t i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	rpc_shutdown();
	_exit(0);
}

/* ---- the parent ---- */

static void on_signal(int signal)
{
	/* Nobody but the parent comes here before the end: a child that is gone would leave the others at the barrier. */
	(void)signal;
	static const char text[] = "bench-stream: an end died or did not get on\n";
	if (write(STDERR_FILENO, text, sizeof text - 1) < 0)
		_exit(2);
	for (size_t i = 0; i < n_children; i++)
		kill(children[i], SIGKILL);
	_exit(1);
}

static pid_t part(void)
{
	fflush(NULL);
	pid_t pid = fork();
	if (pid < 0)
		die("cannot fork");
	if (pid > 0)
		children[n_children++] = pid;
	else
		n_children = 0;
	return pid;
}

static void side_free(struct side *s)
{
	buf_deinit(&s->key);
	buf_deinit(&s->cert);
}

static enum err make_side(const struct ca *ca, enum role role, const char *name, struct side *out)
{
	static const char *const hosts[] = {"127.0.0.1", NULL};
	struct identity id;
	struct key *key;
	struct cert *cert;
	TRY(identity_make(role, federation, name, &id));
	TRY(key_generate(KEY_P256, &key));
	enum err err = ca_issue(ca, key, &id, role == ROLE_COORDINATOR ? hosts : NULL, clock_wall_ms(), &cert);
	if (err == ERR_OK) {
		err = cert_pem(cert, &out->cert);
		cert_free(cert);
	}
	if (err == ERR_OK)
		err = key_pem(key, &out->key);
	key_free(key);
	return err;
}

static enum err make_certificates(struct bench *b)
{
	char dir[] = "/tmp/hansa-bench-XXXXXX", path[PATH_SIZE], inner[PATH_SIZE];
	struct ca *ca = NULL;
	if (mkdtemp(dir) == NULL)
		return err_errno("/tmp: cannot make a directory");
	enum err err = ca_create(dir, federation, clock_wall_ms());
	if (err == ERR_OK)
		err = ca_open(dir, &ca);
	if (err == ERR_OK)
		err = cert_pem(ca_cert(ca), &b->ca);
	if (err == ERR_OK)
		err = make_side(ca, ROLE_COORDINATOR, "", &b->server);
	if (err == ERR_OK)
		err = make_side(ca, ROLE_PLANT, "client", &b->client);
	ca_close(ca);
	path_join(inner, dir, "ca");
	if (file_discard(path_join(path, inner, "key.pem")) == ERR_OK &&
	    file_discard(path_join(path, inner, "cert.pem")) == ERR_OK && rmdir(inner) == 0)
		rmdir(dir);
	return err;
}

static int order(const void *a, const void *b)
{
	const double *x = a, *y = b;
	return (*x > *y) - (*x < *y);
}

static void print(const struct args *args, const char *what, size_t size, double *v)
{
	qsort(v, (size_t)args->runs, sizeof *v, order);
	double median = v[args->runs / 2];
	char metric[96];
	snprintf(metric, sizeof metric, "%s, messages of %zu KiB", what, size >> 10);
	if (args->json)
		printf("{\"bench\":\"stream\",\"metric\":\"%s\",\"value\":%.4g,\"unit\":\"bytes/s\"}\n", metric,
		       median);
	else
		printf("%-14s %-36s %12.4g bytes/s\n", "stream", metric, median);
}

/* A round moves as much up as down, one after the other. */
static void measure(const struct bench *b)
{
	double up[SIZES][RUNS_MAX], down[SIZES][RUNS_MAX], round[SIZES][RUNS_MAX];
	for (int64_t run = 0; run < b->args->runs; run++) {
		double taken[DIRECTIONS] = {0};
		for (int k = 0; k < SIZES * DIRECTIONS; k++) {
			int i = k / DIRECTIONS;
			double bytes = (double)(messages(b->args, sizes[i]) * sizes[i]) * (double)b->args->clients;
			pthread_barrier_wait(b->barrier);
			double begin = seconds();
			pthread_barrier_wait(b->barrier);
			taken[k % DIRECTIONS] = seconds() - begin;
			if (k % DIRECTIONS == 0) {
				up[i][run] = bytes / taken[0];
			} else {
				down[i][run] = bytes / taken[1];
				round[i][run] = 2 * bytes / (taken[0] + taken[1]);
			}
		}
	}
	for (int i = 0; i < SIZES; i++) {
		print(b->args, "up", sizes[i], up[i]);
		print(b->args, "down", sizes[i], down[i]);
		print(b->args, "up and down", sizes[i], round[i]);
	}
}

static void prepare_barrier(struct bench *b)
{
	pthread_barrierattr_t attr;
	b->barrier = mmap(NULL, sizeof *b->barrier, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (b->barrier == MAP_FAILED)
		die("no memory to share");
	pthread_barrierattr_init(&attr);
	pthread_barrierattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_barrier_init(b->barrier, &attr, (unsigned)b->args->clients + 1);
	pthread_barrierattr_destroy(&attr);
}

static void run(const struct args *args)
{
	struct bench b = {.args = args};
	int port[2], status;
	must(make_certificates(&b));
	prepare_barrier(&b);
	if (pipe(port) != 0)
		die("no pipe");
	signal(SIGALRM, on_signal);
	alarm(GIVE_UP_S);
	if (part() == 0)
		serve(&b, port[1]);
	close(port[1]);
	if (read(port[0], &b.port, sizeof b.port) != sizeof b.port)
		die("the server did not start");
	int64_t processes = args->processes ? args->clients : 1;
	for (int64_t i = 0; i < processes; i++)
		if (part() == 0)
			be_clients(&b, args->clients / processes);
	signal(SIGCHLD, on_signal);
	measure(&b);
	signal(SIGCHLD, SIG_DFL);
	kill(children[0], SIGTERM);
	for (size_t i = 0; i < n_children; i++)
		waitpid(children[i], &status, 0);
	buf_deinit(&b.ca);
	side_free(&b.server);
	side_free(&b.client);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"clients", required_argument, NULL, 'c'}, {"mb", required_argument, NULL, 'm'},
		{"runs", required_argument, NULL, 'r'},    {"processes", no_argument, NULL, 'p'},
		{"json", no_argument, NULL, 'j'},          {0}};
	struct args args = {.clients = 16, .runs = 3, .mb = 46.8};
	for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		bool good = c != '?';
		if (c == 'c')
			good = text_to_int(optarg, &args.clients) && args.clients >= 1 && args.clients <= CLIENTS_MAX;
		else if (c == 'm')
			good = text_to_real(optarg, &args.mb) && args.mb >= 1 && args.mb <= 4000;
		else if (c == 'r')
			good = text_to_int(optarg, &args.runs) && args.runs >= 1 && args.runs <= RUNS_MAX;
		else if (c == 'p')
			args.processes = true;
		else if (c == 'j')
			args.json = true;
		if (!good) {
			fprintf(stderr, "usage: bench-stream [--clients 16] [--mb 46.8] [--runs 3] [--processes] "
					"[--json]\n");
			return 2;
		}
	}
	must(tls_policy_install());
	for (size_t i = 0; i < sizeof content; i++)
		content[i] = (uint8_t)(i * 2654435761u >> 13);
	run(&args);
	return 0;
}
