/*
 * Calls of one message. One thread reads one `next` queue; a call is a ticket in memory and costs no thread while it
 * waits: for its turn at the desk, when it is unary, or for what its handler waits for, when it is parked. gRPC hands a
 * call over when its request is all there, and takes the answer without anybody waiting, so a peer that sends or reads
 * slowly holds a ticket and nothing else. A ticket's life:
 *
 *	asked     gRPC will put the next call of the method into it
 *	admitted  the desk or the handler has it; RECV_CLOSE is pending when the handler may take its time
 *	answered  somebody has started the last batch (the desk, rpc_ticket_answer, or this thread)
 *	done      every tag has come back: freed, by this thread only
 *
 * Answering and hanging up race. The owner of a parked ticket decides, under its own lock: it either takes the ticket out
 * of its books and answers it, or is told by gone() that the peer has left and takes it out then; gone() returning false
 * means "I am answering it", and the ticket stays until that answer's tag has come. Nothing else needs a lock here:
 * tickets belong to this thread except for the one answer.
 *
 * Bounds: a plant waits once (when it calls again, the older call is answered by us, because its connection may have gone
 * without our knowing); a peer has few unary calls that have not ended, also when it does not take the answers; and so
 * has the server in all, which is what counts where peers are not known. A peer that does not take its answer in time is
 * cut.
 */
#include "base/clock.h"
#include "rpc/payload.h"
#include "rpc/server_ticket.h"

#include <stdlib.h>

enum {
	TICK_MS = 1000, /* how often deadlines are looked at; gRPC itself ends calls at the client's deadline */
	BUCKETS = 1024,
	PER_PEER_MAX = 16,       /* waiting calls of one operator */
	UNARY_PER_PEER_MAX = 16, /* unary calls of one peer that have not ended */
	UNARY_BASE = 1024,       /* of all peers, beside one for each that may wait */
	NOBODY_MAX = 64,         /* calls of all peers that have not ended, where they are not known */
};

struct parking {
	grpc_completion_queue *cq; /* owned */
	pthread_t thread;
	bool started;
	void *registered[METHOD_COUNT]; /* gRPC's handles; NULL: not a method of one message that we offer */
	bool idle;                      /* there is no such method; the thread only keeps the sockets going */
	/* The rest belongs to the thread. */
	struct rpc_ticket *first;
	struct rpc_ticket *buckets[BUCKETS]; /* by the peer's key */
	size_t asked, live;                  /* tickets waiting for a call; tickets with a call */
	size_t unary;                        /* admitted unary calls */
	bool stopping;
	_Atomic uint64_t parked; /* calls that a handler has parked */
};

static struct rpc_ticket **bucket_of(struct parking *p, const struct peer *peer)
{
	return &p->buckets[(peer->key.b[0] | peer->key.b[1] << 8) % BUCKETS];
}

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

static void enlist(struct parking *p, struct rpc_ticket *t)
{
	t->next = p->first;
	if (t->next != NULL)
		t->next->prev = t;
	p->first = t;
	p->live++;
	atomic_fetch_add(&t->server->active, 1);
}

static void delist(struct parking *p, struct rpc_ticket *t)
{
	if (t->prev != NULL)
		t->prev->next = t->next;
	else
		p->first = t->next;
	if (t->next != NULL)
		t->next->prev = t->prev;
	p->live--;
	atomic_fetch_sub(&t->server->active, 1);
}

/* Into the bucket of its peer. */
static void enter(struct parking *p, struct rpc_ticket *t)
{
	struct rpc_ticket **bucket = bucket_of(p, &t->peer);
	t->admitted = true;
	t->same = *bucket;
	*bucket = t;
	if (ticket_is_unary(t)) {
		p->unary++;
	} else {
		t->parked = true;
		atomic_fetch_add(&p->parked, 1);
	}
}

static void leave(struct parking *p, struct rpc_ticket *t)
{
	struct rpc_ticket **at = bucket_of(p, &t->peer);
	while (*at != t)
		at = &(*at)->same;
	*at = t->same;
	if (ticket_is_unary(t))
		p->unary--;
	else
		atomic_fetch_sub(&p->parked, 1);
	t->admitted = t->parked = false;
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
	if (t->admitted)
		leave(p, t);
	delist(p, t);
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

static enum err check_parked(struct parking *p, struct rpc_ticket *t)
{
	size_t n, max = t->server->config.parked_max;
	struct rpc_ticket *old = older(p, t, &n);
	if (n > 0 && t->peer.id.role == ROLE_PLANT) {
		if (owner_forgets(old))
			ticket_answer(old, ERR_UNAVAILABLE, "a later call of yours took the place of this one", NULL);
	} else if (n >= PER_PEER_MAX) {
		return err_set(ERR_LIMIT, "%zu calls of yours are waiting; end one of them first", n);
	}
	if (atomic_load(&p->parked) >= max)
		return err_set(ERR_UNAVAILABLE, "%zu calls are waiting, more are not allowed now", max);
	return ERR_OK;
}

/* An answer that has not been taken counts as well. */
static enum err check_unary(struct parking *p, const struct rpc_ticket *t)
{
	size_t n = 0, max = UNARY_BASE + t->server->config.parked_max;
	if (p->unary >= max)
		return err_set(ERR_UNAVAILABLE, "%zu calls are being answered; try again in a moment", p->unary);
	if (t->peer.id.role == ROLE_NOBODY)
		return ERR_OK;
	for (struct rpc_ticket *o = *bucket_of(p, &t->peer); o != NULL; o = o->same)
		n += ticket_is_unary(o) && identity_equal(&o->peer.id, &t->peer.id);
	if (n >= UNARY_PER_PEER_MAX)
		return err_set(ERR_UNAVAILABLE, "%zu calls of yours are being answered; try again when one has ended",
			       n);
	return ERR_OK;
}

static enum err admit(struct rpc_ticket *t)
{
	const struct method *m = &methods[t->method];
	struct parking *p = t->server->parking;
	TRY(server_admit(t->server, t->call, m, &t->peer));
	if (t->request == NULL)
		return err_set(ERR_MALFORMED, "the request is missing");
	atomic_fetch_add(&t->server->bytes_in, grpc_byte_buffer_length(t->request));
	TRY(ticket_is_unary(t) ? check_unary(p, t) : check_parked(p, t));
	t->expires_ms = server_deadline(t->deadline, m->deadline_ms);
	return ERR_OK;
}

static enum err admit_parked(struct rpc_ticket *t, struct buf *ret_request)
{
	TRY(admit(t));
	TRY(payload_read(t->request, methods[t->method].request_max, ret_request));
	grpc_byte_buffer_destroy(t->request);
	t->request = NULL;
	return ERR_OK;
}

static void refuse(struct rpc_ticket *t, enum err e)
{
	server_log_error(t->server, &methods[t->method], &t->peer, e);
	ticket_answer(t, e, err_text(), NULL);
}

static void begin_unary(struct rpc_ticket *t)
{
	t->closed = true; /* comes with the answer */
	enum err e = admit(t);
	if (e != ERR_OK) {
		refuse(t, e);
		return;
	}
	enter(t->server->parking, t);
	desk_put(t->server, t);
}

static void begin_parked(struct rpc_ticket *t)
{
	struct rpc_server *s = t->server;
	struct buf request = {0};
	grpc_op op = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER};
	op.data.recv_close_on_server.cancelled = &t->cancelled;
	ENSURE(grpc_call_start_batch(t->call, &op, 1, &t->tag_close, NULL) == GRPC_CALL_OK);
	enum err e = admit_parked(t, &request);
	if (e != ERR_OK) {
		refuse(t, e);
		return;
	}
	enter(s->parking, t);
	/* The handler may answer at once; the ticket still lives until this thread has read the tags. */
	s->handlers[t->method].parked(s->config.ctx, &t->peer, buf_bytes(&request), t);
	buf_deinit(&request);
}

static void on_new(struct rpc_ticket *t, bool ok)
{
	struct rpc_server *s = t->server;
	struct parking *p = s->parking;
	p->asked--;
	if (!ok) {
		p->stopping = true;
		ticket_free(t);
		return;
	}
	ask(s, t->method);
	atomic_fetch_add(&s->calls, 1);
	/* Whom we do not know we do not even answer in many words. */
	if (s->cache == NULL && p->live >= NOBODY_MAX) {
		atomic_fetch_add(&s->refused, 1);
		grpc_call_cancel_with_status(t->call, GRPC_STATUS_UNAVAILABLE,
					     "unavailable: too many calls; try again in a moment", NULL);
		ticket_free(t);
		return;
	}
	enlist(p, t);
	if (ticket_is_unary(t))
		begin_unary(t);
	else
		begin_parked(t);
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

/* Calls whose client gave no deadline, or a later one than the table allows; and answers that nobody takes. */
static void expire(struct rpc_server *s)
{
	int64_t now = clock_monotonic_ms();
	for (struct rpc_ticket *t = s->parking->first; t != NULL; t = t->next) {
		if (atomic_load(&t->answered)) {
			if (t->reply_until_ms <= now)
				grpc_call_cancel(t->call, NULL);
		} else if (t->expires_ms <= now && owner_forgets(t)) {
			ticket_answer(t, ERR_DEADLINE, "waited too long", NULL);
		}
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

void parking_new(struct rpc_server *s)
{
	struct parking *p = mem_new(sizeof *p);
	s->parking = p;
	p->idle = true;
	p->cq = grpc_completion_queue_create_for_next(NULL);
	grpc_server_register_completion_queue(s->grpc, p->cq, NULL);
	for (int m = 0; m < METHOD_COUNT; m++) {
		bool one_message = methods[m].kind == METHOD_UNARY || methods[m].kind == METHOD_PARKED;
		if (!one_message || !server_offers(s, (enum method_id)m))
			continue;
		p->registered[m] = grpc_server_register_method(s->grpc, methods[m].path, NULL,
							       GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER, 0);
		ENSURE(p->registered[m] != NULL);
		p->idle = false;
	}
}

enum err parking_start(struct rpc_server *s)
{
	struct parking *p = s->parking;
	for (int m = 0; m < METHOD_COUNT; m++) {
		if (p->registered[m] != NULL)
			ask(s, (enum method_id)m);
	}
	if (pthread_create(&p->thread, NULL, parking_main, s) != 0)
		return err_set(ERR_IO, "cannot start the thread for calls of one message");
	p->started = true;
	return ERR_OK;
}

void parking_free(struct rpc_server *s)
{
	struct parking *p = s->parking;
	if (p == NULL)
		return;
	/* With such methods the thread closes the queue itself, when the last ticket has gone. */
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
