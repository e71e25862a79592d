/*
 * The desk: unary calls that have been admitted, in the order in which they came, and the threads that run their handlers.
 * A thread takes a call whose request is all there, runs the handler, starts the answer and takes the next: however slowly
 * a peer sends or reads, it waits for none. How many may queue up is the parking's business.
 */
#include "base/clock.h"
#include "rpc/payload.h"
#include "rpc/server_ticket.h"

#include <stdlib.h>

struct desk {
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct rpc_ticket *first, **end;
	bool stopping;
	pthread_t *threads; /* owned */
	size_t started;
};

static enum err run(struct rpc_ticket *t, struct buf *reply)
{
	struct rpc_server *s = t->server;
	struct buf request = {0};
	if (atomic_load(&s->cut))
		return err_set(ERR_UNAVAILABLE, "the server stops");
	if (clock_monotonic_ms() >= t->expires_ms)
		return err_set(ERR_DEADLINE, "waited too long for its turn");
	TRY(payload_read(t->request, methods[t->method].request_max, &request));
	grpc_byte_buffer_destroy(t->request);
	t->request = NULL;
	/* A handler that fails without a text must not send the text of some earlier error to the peer. */
	err_set(ERR_OK, "%s", "");
	enum err e = s->handlers[t->method].unary(s->config.ctx, &t->peer, buf_bytes(&request), reply);
	buf_deinit(&request);
	return e;
}

static struct rpc_ticket *take(struct desk *d)
{
	pthread_mutex_lock(&d->lock);
	while (d->first == NULL && !d->stopping)
		pthread_cond_wait(&d->more, &d->lock);
	struct rpc_ticket *t = d->first;
	if (t != NULL) {
		d->first = t->behind;
		if (d->first == NULL)
			d->end = &d->first;
	}
	pthread_mutex_unlock(&d->lock);
	return t;
}

static void *desk_main(void *arg)
{
	struct rpc_server *s = arg;
	struct rpc_ticket *t;
	while ((t = take(s->desk)) != NULL) {
		struct buf reply;
		buf_init(&reply, methods[t->method].reply_max);
		enum err e = run(t, &reply);
		rpc_ticket_answer(t, e, buf_bytes(&reply));
		buf_deinit(&reply);
	}
	return NULL;
}

void desk_put(struct rpc_server *s, struct rpc_ticket *t)
{
	struct desk *d = s->desk;
	t->behind = NULL;
	pthread_mutex_lock(&d->lock);
	*d->end = t;
	d->end = &t->behind;
	pthread_cond_signal(&d->more);
	pthread_mutex_unlock(&d->lock);
}

void desk_new(struct rpc_server *s)
{
	struct desk *d = mem_new(sizeof *d);
	pthread_mutex_init(&d->lock, NULL);
	pthread_cond_init(&d->more, NULL);
	d->end = &d->first;
	d->threads = mem_array(server_unary_threads(s->config.workers), sizeof *d->threads);
	s->desk = d;
}

enum err desk_start(struct rpc_server *s)
{
	struct desk *d = s->desk;
	for (size_t n = server_unary_threads(s->config.workers); d->started < n; d->started++) {
		if (pthread_create(&d->threads[d->started], NULL, desk_main, s) != 0)
			return err_set(ERR_IO, "cannot start thread %zu of %zu for calls", d->started + 1, n);
	}
	return ERR_OK;
}

void desk_free(struct rpc_server *s)
{
	struct desk *d = s->desk;
	if (d == NULL)
		return;
	pthread_mutex_lock(&d->lock);
	d->stopping = true;
	pthread_cond_broadcast(&d->more);
	pthread_mutex_unlock(&d->lock);
	for (size_t i = 0; i < d->started; i++)
		pthread_join(d->threads[i], NULL);
	ENSURE(d->first == NULL);
	pthread_cond_destroy(&d->more);
	pthread_mutex_destroy(&d->lock);
	free(d->threads);
	free(d);
}
