/*
 * What a plant may do. Streams look at the roster again with every piece: a revoked plant does not finish what it has begun.
 */
#include "base/clock.h"
#include "base/log.h"
#include "coordinator/retention.h"
#include "coordinator/service.h"
#include "coordinator/trouble.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

void service_next_task(void *ctx, const struct peer *peer, struct bytes request, struct rpc_ticket *ticket)
{
	struct service *s = ctx;
	struct wire_task_request asked;
	enum err err = wire_task_request_unpack(request, &asked);
	if (err != ERR_OK)
		rpc_ticket_answer(ticket, err, bytes_of(NULL, 0));
	else
		engine_task(s->engine, peer->id.name, &asked, service_answer, ticket);
}

/* ---- models ---- */

/* A model on its way out: gRPC holds it, too, and lets go of it in its own time. */
struct sending {
	struct store *store;
	struct store_model *model;
	atomic_size_t refs;
};

static void sending_drop(void *arg)
{
	struct sending *out = arg;
	if (atomic_fetch_sub(&out->refs, 1) > 1)
		return;
	store_release(out->store, out->model);
	free(out);
}

static enum err send_content(struct service *s, const struct peer *peer, const struct wire_fetch_request *asked,
			     struct sending *sending, struct rpc_stream *out)
{
	struct bytes content = store_content(sending->model);
	struct wire_head head = {.size = content.n, .offset = asked->offset, .digest = asked->digest};
	if (asked->offset > content.n)
		return err_set(ERR_LIMIT, "offset %" PRIu64 " is behind the end of a model of %zu bytes", asked->offset,
			       content.n);
	TRY(rpc_stream_send_head(out, &head));
	for (size_t at = (size_t)asked->offset; at < content.n;) {
		size_t n = content.n - at < WIRE_CHUNK_SIZE ? content.n - at : WIRE_CHUNK_SIZE;
		TRY(registry_check(s->federation->registry, &peer->id, &peer->key, clock_wall_ms()));
		atomic_fetch_add(&sending->refs, 1);
		TRY(rpc_stream_send_shared(out, content.p + at, n, sending_drop, sending));
		if (peer->id.role == ROLE_PLANT)
			engine_sent(s->engine, peer->id.name, &asked->digest, n);
		at += n;
	}
	return ERR_OK;
}

/* A model that belongs to a job is in the store, or it has gone, or it is lost and the plant cannot help it. */
static enum err may_fetch(struct service *s, const struct peer *peer, const struct digest *model)
{
	static const char looking[] = "looking for a model";
	char text[DIGEST_TEXT_SIZE];
	if (peer->id.role == ROLE_PLANT)
		TRY(trouble_hide(db_job_owns(s->federation->db, peer->id.name, model), looking, TROUBLE_READ));
	if (store_has(s->federation->store, model, NULL))
		return ERR_OK;
	TRY(trouble_hide(retention_explain(s->federation->db, model), looking, TROUBLE_READ));
	return peer->id.role == ROLE_PLANT
		       ? ERR_OK
		       : err_set(ERR_NOT_FOUND, "this coordinator has no model %s", digest_format(model, text));
}

enum err service_fetch(void *ctx, const struct peer *peer, struct bytes request, struct rpc_stream *out)
{
	struct service *s = ctx;
	struct wire_fetch_request asked;
	struct store_model *model;
	TRY(wire_fetch_request_unpack(request, &asked));
	TRY(may_fetch(s, peer, &asked.digest));
	TRY(trouble_hide_file(store_acquire(s->federation->store, &asked.digest, &model), "fetching a model",
			      TROUBLE_READ));
	struct sending *sending = mem_new(sizeof *sending);
	sending->store = s->federation->store;
	sending->model = model;
	atomic_init(&sending->refs, 1);
	enum err err = send_content(s, peer, &asked, sending, out);
	sending_drop(sending);
	return err;
}

/* ---- updates ---- */

static enum err receive(struct service *s, const struct peer *peer, struct rpc_stream *in, struct upload *u)
{
	for (;;) {
		const struct bytes *pieces;
		size_t n;
		enum err err = rpc_stream_next(in, &pieces, &n);
		if (err == ERR_END)
			return registry_check(s->federation->registry, &peer->id, &peer->key, clock_wall_ms());
		TRY(err);
		TRY(registry_check(s->federation->registry, &peer->id, &peer->key, clock_wall_ms()));
		TRY(engine_upload_add(u, pieces, n));
	}
}

/* A stream that was cut, or ended by us for want of room or time, goes on another time; one that was refused does not. */
static bool may_go_on(enum err err)
{
	return err == ERR_UNAVAILABLE || err == ERR_DEADLINE || err == ERR_CANCELLED;
}

static void give_up(struct upload *u, enum err err)
{
	char *text = mem_str(err_text());
	if (may_go_on(err))
		engine_upload_suspend(u);
	else
		engine_upload_abort(u);
	err_set(err, "%s", text);
	free(text);
}

enum err service_upload(void *ctx, const struct peer *peer, struct rpc_stream *in, struct buf *reply)
{
	struct service *s = ctx;
	struct wire_head head;
	struct wire_receipt receipt;
	struct upload *u;
	TRY(rpc_stream_head(in, &head));
	enum err err = engine_upload_begin(s->engine, peer->id.name, &head, &u, &receipt);
	if (err == ERR_OK && u != NULL) {
		err = receive(s, peer, in, u);
		if (err == ERR_OK)
			err = engine_upload_commit(u, &receipt);
		else
			give_up(u, err);
	}
	if (err != ERR_OK) {
		log_warn("round", "refused job=%" PRIu64 " round=%" PRIu32 " plant=%s: %s: %s", head.update.job,
			 head.update.round, peer->id.name, err_name(err), err_text());
		return err;
	}
	return wire_receipt_pack(&receipt, reply);
}

enum err service_upload_offset(void *ctx, const struct peer *peer, struct bytes request, struct buf *reply)
{
	struct service *s = ctx;
	struct wire_upload_offset_request asked;
	struct wire_upload_offset_reply answer;
	TRY(wire_upload_offset_request_unpack(request, &asked));
	engine_upload_offset(s->engine, peer->id.name, &asked, &answer);
	return wire_upload_offset_reply_pack(&answer, reply);
}

enum err service_report(void *ctx, const struct peer *peer, struct bytes request, struct buf *reply)
{
	struct service *s = ctx;
	struct wire_report report;
	(void)reply; /* an empty message */
	TRY(wire_report_unpack(request, &report));
	return engine_report(s->engine, peer->id.name, &report);
}
