/*
 * Waiting calls. One thread reads one `next` queue; a waiting call is a ticket in memory and costs no thread. Its life:
 *
 *	asked     gRPC will put the next call of the method into it
 *	parked    admitted; the handler has it; RECV_CLOSE is pending
 *	answered  somebody has started the last batch (rpc_ticket_answer, or this thread)
 *	done      every tag has come back: freed, by this thread only
 *
 * Answering and hanging up race. The owner of the ticket decides, under its own lock: it either takes the ticket out of
 *its books and answers it, or is told by gone() that the peer has left and takes it out then; gone() returning false
 *means "I am answering it", and the ticket stays until that answer's tag has come. Nothing else needs a lock here:
 *tickets belong to this thread except for the one answer.
 *
 * A plant waits once: when it calls again, the older call is answered by us, because its connection may have gone
 *without our knowing.
 */
#include "base/clock.h"
#include "base/log.h"
#include "rpc/payload.h"
#include "rpc/server_parts.h"
#include "rpc/status.h"

#include <stdlib.h>
#include <string.h>

enum {
	TICK_MS = 1000, /* how often deadlines are looked at; gRPC itself ends calls at the client's deadline */
	BUCKETS = 1024,
	PER_PEER_MAX = 16, /* waiting calls of one operator */
};

enum tag_kind { TAG_NEW, TAG_CLOSE, TAG_ANSWER };

struct tag {
	struct rpc_ticket *ticket;
	enum tag_kind kind;
};

struct rpc_ticket {
	struct rpc_server *server;
	enum method_id method;
	struct peer peer;
	struct tag tag_new, tag_close, tag_answer;
	grpc_call *call;
	gpr_timespec deadline;
	grpc_metadata_array metadata;
	grpc_byte_buffer *request;
	int cancelled;        /* written by gRPC until the close tag has come */
	bool closed, settled; /* the close tag has come; no answer is or will be under way */
	bool parked;          /* handed to the handler */
	atomic_bool answered; /* the answer's batch is being started; makes what it points to visible to this thread */
	grpc_byte_buffer *reply; /* of the answer */
	grpc_slice details;
	int64_t expires_ms;
	struct rpc_ticket *prev, *next; /* all parked calls */
	struct rpc_ticket *same;        /* parked calls in the same bucket */
};

struct parking {
	grpc_completion_queue *cq; /* owned */
	pthread_t thread;
	bool started;
	void *registered[METHOD_COUNT]; /* gRPC's handles; NULL: not a parked method of this server */
	bool idle;                      /* there is no parked method; the thread only keeps the sockets going */
	/* The rest belongs to the thread. */
	struct rpc_ticket *first;
	struct rpc_ticket *buckets[BUCKETS]; /* by the peer's key */
	size_t asked, live;                  /* tickets waiting for a call; tickets with a call */
	bool stopping;
	_Atomic uint64_t parked; /* admitted calls */
};

static struct rpc_ticket **bucket_of(struct parking *p, const struct peer *peer)
{
	return &p->buckets[(peer->key.b[0] | peer->key.b[1] << 8) % BUCKETS];
}

/* ---- answering; thread: any ---- */

static void start_answer(struct rpc_ticket *t, enum err code, const char *text, struct bytes reply)
{
	char message[STATUS_TEXT_SIZE];
	grpc_op ops[3] = {{0}};
	size_t n = 0;
	ops[n++].op = GRPC_OP_SEND_INITIAL_METADATA;
	if (code == ERR_OK) {
		t->reply = payload_new(reply, (struct bytes){0});
		ops[n].op = GRPC_OP_SEND_MESSAGE;
		ops[n++].data.send_message.send_message = t->reply;
		atomic_fetch_add(&t->server->bytes_out, reply.n);
	}
	t->details = grpc_slice_from_copied_string(code == ERR_OK ? "" : status_format(code, text, message));
	ops[n].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
	ops[n].data.send_status_from_server.status = (grpc_status_code)status_code(code);
	ops[n++].data.send_status_from_server.status_details = &t->details;
	/* From the start of the batch on, the ticket may be freed at any moment. */
	ENSURE(!atomic_exchange(&t->answered, true));
	ENSURE(grpc_call_start_batch(t->call, ops, n, &t->tag_answer, NULL) == GRPC_CALL_OK);
}

void rpc_ticket_answer(struct rpc_ticket *t, enum err code, struct bytes reply)
{
	if (code == ERR_OK && reply.n > methods[t->method].reply_max)
		code = err_set(ERR_INTERNAL, "reply of %zu bytes is too large", reply.n);
	if (code != ERR_OK)
		server_log_error(t->server, &methods[t->method], &t->peer, code);
	start_answer(t, code, err_text(), reply);
}

const struct peer *rpc_ticket_peer(const struct rpc_ticket *t)
{
	return &t->peer;
}

/* ---- the thread ---- */

static void ask(struct rpc_server *s, enum method_id method)
{
	struct parking *p = s->parking;
	struct rpc_ticket *t = mem_new(sizeof *t);
	t->server = s;
	t->method = method;
	t->tag_new = (struct tag){t, TAG_NEW};
	t->tag_close = (struct tag){t, TAG_CLOSE};
	t->tag_answer = (struct tag){t, TAG_ANSWER};
	t->details = grpc_empty_slice();
	grpc_metadata_array_init(&t->metadata);
	grpc_call_error asked =
		grpc_server_request_registered_call(s->grpc, p->registered[method], &t->call, &t->deadline,
						    &t->metadata, &t->request, p->cq, p->cq, &t->tag_new);
	ENSURE(asked == GRPC_CALL_OK);
	p->asked++;
}

static void ticket_free(struct rpc_ticket *t)
{
	if (t->reply != NULL)
		grpc_byte_buffer_destroy(t->reply);
	if (t->request != NULL)
		grpc_byte_buffer_destroy(t->request);
	grpc_slice_unref(t->details);
	grpc_metadata_array_destroy(&t->metadata);
	if (t->call != NULL)
		grpc_call_unref(t->call);
	free(t);
}

static void enlist(struct parking *p, struct rpc_ticket *t)
{
	struct rpc_ticket **bucket = bucket_of(p, &t->peer);
	t->parked = true;
	t->next = p->first;
	if (t->next != NULL)
		t->next->prev = t;
	p->first = t;
	t->same = *bucket;
	*bucket = t;
	atomic_fetch_add(&p->parked, 1);
}

static void delist(struct parking *p, struct rpc_ticket *t)
{
	struct rpc_ticket **at = bucket_of(p, &t->peer);
	while (*at != t)
		at = &(*at)->same;
	*at = t->same;
	if (t->prev != NULL)
		t->prev->next = t->next;
	else
		p->first = t->next;
	if (t->next != NULL)
		t->next->prev = t->prev;
	t->parked = false;
	atomic_fetch_sub(&p->parked, 1);
}

static bool owner_forgets(struct rpc_ticket *t)
{
	const struct rpc_server_config *c = &t->server->config;
	return t->parked && !atomic_load(&t->answered) && c->gone(c->ctx, t);
}

/* Free the ticket when nothing can come for it any more. */
static void settle(struct rpc_ticket *t)
{
	struct parking *p = t->server->parking;
	if (!t->closed || !t->settled)
		return;
	if (t->parked)
		delist(p, t);
	p->live--;
	atomic_fetch_sub(&t->server->active, 1);
	ticket_free(t);
}

static struct rpc_ticket *older(struct parking *p, const struct rpc_ticket *t, size_t *ret_n)
{
	struct rpc_ticket *found = NULL;
	size_t n = 0;
	for (struct rpc_ticket *o = *bucket_of(p, &t->peer); o != NULL; o = o->same) {
		if (o->method != t->method || !identity_equal(&o->peer.id, &t->peer.id) || atomic_load(&o->answered))
			continue;
		found = o;
		n++;
	}
	*ret_n = n;
	return found;
}

static enum err make_room(struct parking *p, struct rpc_ticket *t)
{
	size_t n, max = t->server->config.parked_max;
	struct rpc_ticket *old = older(p, t, &n);
	if (n > 0 && t->peer.id.role == ROLE_PLANT) {
		if (owner_forgets(old))
			start_answer(old, ERR_UNAVAILABLE, "a later call of yours took the place of this one",
				     (struct bytes){0});
	} else if (n >= PER_PEER_MAX) {
		return err_set(ERR_LIMIT, "%zu calls of yours are waiting; end one of them first", n);
	}
	if (atomic_load(&p->parked) >= max)
		return err_set(ERR_UNAVAILABLE, "%zu calls are waiting, more are not allowed now", max);
	return ERR_OK;
}

static enum err admit(struct rpc_ticket *t, struct buf *ret_request)
{
	const struct method *m = &methods[t->method];
	struct parking *p = t->server->parking;
	TRY(server_admit(t->server, t->call, m, &t->peer));
	if (t->request == NULL)
		return err_set(ERR_MALFORMED, "the request is missing");
	atomic_fetch_add(&t->server->bytes_in, grpc_byte_buffer_length(t->request));
	TRY(make_room(p, t));
	TRY(payload_read(t->request, m->request_max, ret_request));
	grpc_byte_buffer_destroy(t->request);
	t->request = NULL;
	t->expires_ms = server_deadline(t->deadline, m->deadline_ms);
	enlist(p, t);
	return ERR_OK;
}

static void on_new(struct rpc_ticket *t, bool ok)
{
	struct rpc_server *s = t->server;
	struct parking *p = s->parking;
	struct buf request = {0};
	p->asked--;
	if (!ok) {
		p->stopping = true;
		ticket_free(t);
		return;
	}
	ask(s, t->method);
	p->live++;
	atomic_fetch_add(&s->active, 1);
	atomic_fetch_add(&s->calls, 1);
	grpc_op op = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER};
	op.data.recv_close_on_server.cancelled = &t->cancelled;
	ENSURE(grpc_call_start_batch(t->call, &op, 1, &t->tag_close, NULL) == GRPC_CALL_OK);
	enum err e = admit(t, &request);
	if (e != ERR_OK) {
		server_log_error(s, &methods[t->method], &t->peer, e);
		start_answer(t, e, err_text(), (struct bytes){0});
		return;
	}
	/* The handler may answer at once; the ticket still lives until this thread has read the tags. */
	s->handlers[t->method].parked(s->config.ctx, &t->peer, buf_bytes(&request), t);
	buf_deinit(&request);
}

static void on_tag(const struct tag *tag, bool ok)
{
	struct rpc_ticket *t = tag->ticket;
	switch (tag->kind) {
	case TAG_NEW:
		on_new(t, ok);
		return;
	case TAG_CLOSE:
		t->closed = true;
		if (t->cancelled && owner_forgets(t))
			t->settled = true;
		break;
	case TAG_ANSWER:
		ENSURE(atomic_load(&t->answered));
		t->settled = true;
		break;
	}
	settle(t);
}

/* Calls whose client gave no deadline, or a later one than the table allows. */
static void expire(struct rpc_server *s)
{
	int64_t now = clock_monotonic_ms();
	for (struct rpc_ticket *t = s->parking->first; t != NULL; t = t->next) {
		if (t->expires_ms <= now && owner_forgets(t))
			start_answer(t, ERR_DEADLINE, "waited too long", (struct bytes){0});
	}
}

static void *parking_main(void *arg)
{
	struct rpc_server *s = arg;
	struct parking *p = s->parking;
	int64_t tick_ms = clock_monotonic_ms() + TICK_MS;
	bool shut = false;
	for (;;) {
		grpc_event event = grpc_completion_queue_next(p->cq, server_time(tick_ms), NULL);
		if (event.type == GRPC_QUEUE_SHUTDOWN)
			break;
		if (event.type == GRPC_OP_COMPLETE)
			on_tag(event.tag, event.success != 0);
		if (clock_monotonic_ms() >= tick_ms) {
			expire(s);
			tick_ms = clock_monotonic_ms() + TICK_MS;
		}
		/* An answer may still be started as long as a ticket lives: the queue must stay open for its tag. */
		if (p->stopping && !shut && p->asked == 0 && p->live == 0) {
			grpc_completion_queue_shutdown(p->cq);
			shut = true;
		}
	}
	return NULL;
}

enum err parking_new(struct rpc_server *s)
{
	struct parking *p = mem_new(sizeof *p);
	s->parking = p;
	p->idle = true;
	p->cq = grpc_completion_queue_create_for_next(NULL);
	grpc_server_register_completion_queue(s->grpc, p->cq, NULL);
	for (int m = 0; m < METHOD_COUNT; m++) {
		if (methods[m].kind != METHOD_PARKED || !server_offers(s, (enum method_id)m))
			continue;
		p->registered[m] = grpc_server_register_method(s->grpc, methods[m].path, NULL,
							       GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER, 0);
		ENSURE(p->registered[m] != NULL);
		p->idle = false;
	}
	return ERR_OK;
}

enum err parking_start(struct rpc_server *s)
{
	struct parking *p = s->parking;
	for (int m = 0; m < METHOD_COUNT; m++) {
		if (p->registered[m] != NULL)
			ask(s, (enum method_id)m);
	}
	if (pthread_create(&p->thread, NULL, parking_main, s) != 0)
		return err_set(ERR_IO, "cannot start the thread for waiting calls");
	p->started = true;
	return ERR_OK;
}

void parking_free(struct rpc_server *s)
{
	struct parking *p = s->parking;
	if (p == NULL)
		return;
	/* With parked methods the thread closes the queue itself, when the last ticket has gone. */
	if (p->idle || (!p->started && p->asked == 0))
		grpc_completion_queue_shutdown(p->cq);
	if (p->started)
		pthread_join(p->thread, NULL);
	else
		parking_main(s);
	grpc_completion_queue_destroy(p->cq);
	free(p);
}

uint64_t parking_count(const struct rpc_server *s)
{
	return atomic_load(&s->parking->parked);
}
