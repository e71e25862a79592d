/*
 * A client and what it is asked to do: calls of one message, uploads and downloads. How a call is made of gRPC's
 * operations is client_call.c's business.
 */
#include "rpc/client.h"

#include "crypto/address.h"
#include "rpc/client_call.h"
#include "rpc/credentials.h"
#include "rpc/pace.h"
#include "rpc/payload.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

void rpc_client_get_bytes(const struct rpc_client *c, uint64_t *ret_sent, uint64_t *ret_received)
{
	*ret_sent = atomic_load(&c->sent);
	*ret_received = atomic_load(&c->received);
}

/* The one message that answers a unary call or an upload, and the end. */
static enum err call_reply(struct client_call *k, struct buf *ret_reply)
{
	struct buf reply = {0};
	if (k->ended ? k->in != NULL : client_call_receive(k)) {
		enum err e = payload_read(k->in, k->method->reply_max, &reply);
		if (e != ERR_OK)
			return client_call_abort(k, err_add(e, "reply"));
	}
	bool answered = k->in != NULL;
	enum err e = client_call_end(k);
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
	TRY(client_call_begin(&k, c, method, deadline_ms));
	client_call_exchange(&k, payload_new(request, (struct bytes){0}));
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
	unsigned along = CALL_FIRST;
	bool open = true;
	enum err e = source_take(source, &piece);
	if (e != ERR_OK && e != ERR_END)
		return e;
	while (open && (along & CALL_LAST) == 0) {
		/* Copied, so that the source may go on and say whether this was the last. */
		grpc_byte_buffer *message = part_new(front, piece);
		if (e == ERR_OK)
			e = source_take(source, &piece);
		if (e != ERR_OK && e != ERR_END) {
			grpc_byte_buffer_destroy(message);
			return e;
		}
		along |= e == ERR_END ? CALL_LAST : 0;
		if (along == (CALL_FIRST | CALL_LAST))
			client_call_exchange(k, message);
		else
			open = client_call_send(k, message, along);
		along &= ~(unsigned)CALL_FIRST;
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
		e = client_call_begin(&k, c, method, 0);
	if (e != ERR_OK) {
		buf_deinit(&front);
		return e;
	}
	e = send_parts(&k, &source, &front);
	buf_deinit(&front);
	if (e != ERR_END)
		return client_call_abort(&k, e);
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
	}
	return p->n > 0 ? sink->data(sink->arg, p->v, p->n) : ERR_OK;
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
	TRY(client_call_begin(&k, c, method, 0));
	bool more = client_call_send(&k, payload_new(request, (struct bytes){0}), CALL_FIRST | CALL_LAST | CALL_REPLY);
	for (; more && e == ERR_OK; more = e == ERR_OK && client_call_receive(&k))
		e = take_part(&k, &part, sink, &has_head, &left);
	payload_close(&part);
	if (e != ERR_OK)
		return client_call_abort(&k, e);
	TRY(client_call_end(&k));
	if (!has_head || left > 0)
		return err_set(ERR_MALFORMED, "download: ended %llu bytes early", (unsigned long long)left);
	return ERR_OK;
}
