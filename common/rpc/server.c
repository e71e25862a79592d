/*
 * A server from start to stop. gRPC's sockets make progress only while some thread waits in one of its queues: the
 * parking's thread does so for the whole life of the server, also when every worker is busy with a handler.
 *
 * What a stream may send ahead, LOOKAHEAD, is what it may cost before it has a worker: four streams of a connection wait
 * in gRPC's queue at most. While a handler waits for a message the window grows by what is missing of it, so a quick
 * stream is not slowed down.
 */
#include "base/clock.h"
#include "base/log.h"
#include "rpc/credentials.h"
#include "rpc/library.h"
#include "rpc/pace.h"
#include "rpc/payload.h"
#include "rpc/peer.h"
#include "rpc/server_parts.h"
#include "rpc/status.h"

#include <stdlib.h>
#include <string.h>

enum {
	REPLY_MS = 30 * 1000,        /* a peer has this long to take a reply, and what its size asks for */
	NOBODY_REPLY_MS = 10 * 1000, /* ... when we do not know it */
	LOOKAHEAD = 256 << 10,       /* read of a stream before its handler asks, whether or not it has a worker yet */
	AGE_MS = 60 * 60 * 1000,     /* of a connection; then a new handshake */
	NOBODY_AGE_MS = 2 * 60 * 1000,
	SHUTDOWN_POLL_MS = 10,
	WORKERS_MAX = 1024,
	PARKED_LIMIT = 1000000,
	MEMORY_BASE = 256 << 20,
	MEMORY_PER_PARKED = 256 << 10,
	MEMORY_PER_WORKER = 8 << 20
};

bool server_offers(const struct rpc_server *s, enum method_id method)
{
	const struct rpc_handler *h = &s->handlers[method];
	switch (methods[method].kind) {
	case METHOD_UNARY:
		return h->unary != NULL;
	case METHOD_PARKED:
		return h->parked != NULL;
	case METHOD_UPLOAD:
		return h->upload != NULL;
	case METHOD_DOWNLOAD:
		return h->download != NULL;
	}
	return false;
}

enum err server_admit(struct rpc_server *s, grpc_call *call, const struct method *method, struct peer *ret_peer)
{
	enum err e = peer_read(call, s->cache, s->config.federation, clock_wall_ms(), ret_peer);
	if (e == ERR_OK && (method->roles & ret_peer->id.role) == 0)
		e = err_set(ERR_DENIED, "role %s may not call %s", role_name(ret_peer->id.role), method->path);
	if (e == ERR_OK && s->config.authorize != NULL)
		e = s->config.authorize(s->config.ctx, ret_peer);
	if (e != ERR_OK)
		atomic_fetch_add(&s->refused, 1);
	return e;
}

void server_log_error(const struct rpc_server *s, const struct method *method, const struct peer *peer, enum err e)
{
	char who[PEER_TEXT_SIZE];
	enum log_level level = LOG_LEVEL_DEBUG;
	if (!status_is_public(e))
		level = LOG_LEVEL_ERROR;
	else if (e == ERR_UNAUTHENTIC || e == ERR_DENIED)
		level = LOG_LEVEL_INFO;
	log_at(level, s->config.name, "%s from %s: %s: %s", method->path, peer_format(peer, who), err_name(e),
	       err_text());
}

gpr_timespec server_time(int64_t monotonic_ms)
{
	int64_t left = monotonic_ms - clock_monotonic_ms();
	return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(left > 0 ? left : 0, GPR_TIMESPAN));
}

int64_t server_deadline(gpr_timespec deadline, int64_t limit_ms)
{
	gpr_timespec left =
		gpr_time_sub(gpr_convert_clock_type(deadline, GPR_CLOCK_MONOTONIC), gpr_now(GPR_CLOCK_MONOTONIC));
	int64_t left_ms = gpr_time_to_millis(left);
	return clock_monotonic_ms() + (left_ms < limit_ms ? left_ms : limit_ms);
}

int64_t server_reply_until(const struct peer *peer, size_t n)
{
	bool nobody = peer->id.role == ROLE_NONE || peer->id.role == ROLE_NOBODY;
	return clock_monotonic_ms() + (nobody ? NOBODY_REPLY_MS : REPLY_MS) + pace_time_ms(n);
}

size_t server_unary_threads(size_t workers)
{
	return workers / 4 > 0 ? workers / 4 : 1;
}

size_t server_streams(size_t workers)
{
	return workers > 1 ? workers - server_unary_threads(workers) : 1;
}

/* Of the methods that are offered: the longest that a call may still run when its connection has reached its age, and the
 * largest message. */
static void most(const struct rpc_server *s, int *ret_grace_ms, int *ret_message)
{
	int64_t grace_ms = 0;
	size_t message = 0;
	for (int i = 0; i < METHOD_COUNT; i++) {
		if (!server_offers(s, (enum method_id)i))
			continue;
		grace_ms = methods[i].deadline_ms > grace_ms ? methods[i].deadline_ms : grace_ms;
		message = methods[i].request_max > message ? methods[i].request_max : message;
	}
	*ret_grace_ms = (int)grace_ms;
	*ret_message = (int)message;
}

static grpc_server *grpc_new(const struct rpc_server *s)
{
	const struct rpc_server_config *config = &s->config;
	int grace_ms, message_max;
	most(s, &grace_ms, &message_max);
	const struct {
		char key[64];
		int value;
	} numbers[] = {
		{GRPC_ARG_ALLOW_REUSEPORT, 0}, /* on by default: two coordinators would share a port silently */
		{GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, message_max},
		{GRPC_ARG_MAX_SEND_MESSAGE_LENGTH, PAYLOAD_MAX},
		{GRPC_ARG_MAX_CONCURRENT_STREAMS,
		 4}, /* calls that no worker has asked for wait without bound otherwise */
		{GRPC_ARG_MAX_METADATA_SIZE, 8 << 10},
		{GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, 10000},
		{GRPC_ARG_MAX_CONNECTION_IDLE_MS, 5 * 60 * 1000},
		{GRPC_ARG_MAX_CONNECTION_AGE_MS, config->client_certificates ? AGE_MS : NOBODY_AGE_MS},
		{GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, grace_ms},
		{GRPC_ARG_HTTP2_BDP_PROBE, 0},
		{GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, LOOKAHEAD},
		{GRPC_ARG_KEEPALIVE_TIME_MS, 30000},
		{GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 15000},
		{GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0},
		{GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 15000}, /* clients ping every 30 s */
		{GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0},
		{GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0},
		{GRPC_ARG_ENABLE_CHANNELZ, 0},
	};
	enum { NUMBERS = sizeof numbers / sizeof numbers[0] };
	char keys[NUMBERS][sizeof numbers[0].key];
	grpc_arg v[NUMBERS + 1];
	for (size_t i = 0; i < NUMBERS; i++) {
		memcpy(keys[i], numbers[i].key, sizeof keys[i]);
		v[i] = (grpc_arg){.type = GRPC_ARG_INTEGER, .key = keys[i], .value.integer = numbers[i].value};
	}
	grpc_resource_quota *quota = grpc_resource_quota_create(config->name);
	grpc_resource_quota_resize(quota, MEMORY_BASE + MEMORY_PER_PARKED * config->parked_max +
						  MEMORY_PER_WORKER * config->workers);
	static char quota_key[] = GRPC_ARG_RESOURCE_QUOTA;
	v[NUMBERS] = (grpc_arg){.type = GRPC_ARG_POINTER, .key = quota_key};
	v[NUMBERS].value.pointer.p = quota;
	v[NUMBERS].value.pointer.vtable = grpc_resource_quota_arg_vtable();
	grpc_channel_args args = {.num_args = NUMBERS + 1, .args = v};
	grpc_server *grpc = grpc_server_create(&args, NULL);
	grpc_resource_quota_unref(quota);
	return grpc;
}

/* HOST:PORT and nothing else: gRPC would also take sockets in the file system. */
static enum err check_listen(const char *listen)
{
	const char *colon = strrchr(listen, ':');
	bool ok = colon != NULL && colon > listen && colon[1] != '\0' &&
		  strspn(colon + 1, "0123456789") == strlen(colon + 1) && strlen(colon + 1) <= 5;
	for (const char *p = listen; ok && p < colon; p++)
		ok = *p != '/' && (*p != ':' || listen[0] == '[');
	if (!ok || strtol(colon + 1, NULL, 10) > 65535)
		return err_set(ERR_CONFIG, "cannot listen on \"%s\": HOST:PORT is wanted", listen);
	return ERR_OK;
}

static enum err bind_port(struct rpc_server *s, const struct rpc_server_config *config)
{
	struct credentials_pem pem = {.key = config->key_pem, .cert = config->cert_pem};
	if (config->client_certificates)
		pem.ca = config->ca_pem;
	grpc_server_credentials *creds;
	TRY(check_listen(config->listen));
	TRY(credentials_server(&pem, config->client_certificates, &creds));
	s->port = grpc_server_add_http2_port(s->grpc, config->listen, creds);
	grpc_server_credentials_release(creds);
	if (s->port == 0)
		return err_set(ERR_IO, "cannot listen on %s: in use, or not an address of this machine",
			       config->listen);
	return ERR_OK;
}

static void check_config(const struct rpc_server_config *config)
{
	bool parks = false;
	for (int i = 0; i < METHOD_COUNT; i++) {
		ENSURE(methods[i].path != NULL && methods[i].roles != 0 && methods[i].deadline_ms > 0);
		ENSURE(methods[i].request_max <= PAYLOAD_MAX && methods[i].reply_max <= PAYLOAD_MAX);
		parks = parks || config->handlers[i].parked != NULL;
	}
	ENSURE(!parks || config->gone != NULL);
	ENSURE(config->name != NULL && config->federation != NULL && config->listen != NULL);
}

enum err rpc_server_start(const struct rpc_server_config *config, struct rpc_server **ret_server)
{
	check_config(config);
	if (config->workers < 1 || config->workers > WORKERS_MAX || config->parked_max > PARKED_LIMIT)
		return err_set(ERR_CONFIG, "a server has 1 to %d workers and at most %d parked calls", WORKERS_MAX,
			       PARKED_LIMIT);
	struct rpc_server *s = mem_new(sizeof *s);
	s->config = *config;
	s->config.name = mem_str(config->name);
	s->config.federation = mem_str(config->federation);
	s->config.listen = NULL;
	s->config.key_pem = s->config.cert_pem = s->config.ca_pem = (struct bytes){0};
	memcpy(s->handlers, config->handlers, sizeof s->handlers);
	s->config.handlers = s->handlers;
	if (config->patience_ms == 0)
		s->config.patience_ms = PACE_PATIENCE_MS;
	library_serves(true);
	s->gate = gate_new(server_streams(config->workers), config->room_ms);
	s->cache = config->client_certificates ? peer_cache_new() : NULL;
	s->grpc = grpc_new(s);
	s->main_cq = grpc_completion_queue_create_for_pluck(NULL);
	grpc_server_register_completion_queue(s->grpc, s->main_cq, NULL);
	workers_new(s);
	desk_new(s);
	parking_new(s);
	enum err e = bind_port(s, config);
	if (e == ERR_OK)
		e = desk_start(s);
	if (e == ERR_OK) {
		grpc_server_start(s->grpc);
		e = parking_start(s);
	}
	if (e == ERR_OK)
		e = workers_start(s);
	if (e != ERR_OK) {
		rpc_server_stop(s, 0);
		return e;
	}
	*ret_server = s;
	return ERR_OK;
}

int rpc_server_port(const struct rpc_server *s)
{
	return s->port;
}

/*
 * gRPC would wait for every connection to be closed by its client, and a plant that is busy training looks at its connection
 * only now and then. What counts are calls: when none is left, or the grace is over, the rest is cut.
 */
static void shut_down(struct rpc_server *s, int64_t until_ms)
{
	bool ended = false, cut = false;
	grpc_server_shutdown_and_notify(s->grpc, s->main_cq, s);
	while (!ended) {
		int64_t now = clock_monotonic_ms();
		if (!cut && (now >= until_ms || atomic_load(&s->active) == 0)) {
			atomic_store(&s->cut, true);
			grpc_server_cancel_all_calls(s->grpc);
			cut = true;
		}
		gpr_timespec wait = cut ? gpr_inf_future(GPR_CLOCK_MONOTONIC) : server_time(now + SHUTDOWN_POLL_MS);
		ended = grpc_completion_queue_pluck(s->main_cq, s, wait, NULL).type == GRPC_OP_COMPLETE;
	}
}

/* What is sent from where it lies belongs to the handlers' owner, who may take it away after us: a connection that is on its
 * way out may still hold it. */
static void wait_for_shared(struct rpc_server *s)
{
	while (atomic_load(&s->shared) > 0)
		(void)grpc_completion_queue_pluck(s->main_cq, &s->shared,
						  server_time(clock_monotonic_ms() + SHUTDOWN_POLL_MS), NULL);
}

void rpc_server_stop(struct rpc_server *s, int64_t grace_in_ms)
{
	if (s == NULL)
		return;
	shut_down(s, clock_monotonic_ms() + grace_in_ms);
	workers_free(s);
	parking_free(s);
	desk_free(s);
	wait_for_shared(s);
	grpc_server_destroy(s->grpc);
	grpc_completion_queue_shutdown(s->main_cq);
	grpc_completion_queue_destroy(s->main_cq);
	gate_free(s->gate);
	peer_cache_free(s->cache);
	library_serves(false);
	/* Copies, made in rpc_server_start(). */
	free((void *)(uintptr_t)s->config.name);
	free((void *)(uintptr_t)s->config.federation);
	free(s);
}

void rpc_server_get_stats(struct rpc_server *s, struct rpc_server_stats *ret_stats)
{
	*ret_stats = (struct rpc_server_stats){
		.calls = atomic_load(&s->calls),
		.refused = atomic_load(&s->refused),
		.parked = parking_count(s),
		.bytes_in = atomic_load(&s->bytes_in),
		.bytes_out = atomic_load(&s->bytes_out),
	};
}
