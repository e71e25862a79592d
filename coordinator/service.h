/*
 * The services: every method of the protocol as a row that decodes, checks, asks the engine or the registry, and encodes. Who may call what
 * stands in rpc/method.h; that the caller is who it says is the server's work and service_authorize()'s.
 */
#ifndef HANSA_COORDINATOR_SERVICE_H
#define HANSA_COORDINATOR_SERVICE_H

#include "coordinator/engine.h"
#include "coordinator/enrol.h"
#include "coordinator/federation.h"
#include "rpc/server.h"

#include <stdatomic.h>

/* What handlers get as `ctx`. All borrowed. */
struct service {
	struct federation *federation;
	struct engine *engine;
	struct enrol *enrol;
	atomic_ulong published; /* serial number of models on their way in */
};

/* METHOD_COUNT rows each. */
extern const struct rpc_handler *const service_main_handlers, *const service_enrol_handlers;
enum err service_authorize(void *ctx, const struct peer *peer);
bool service_gone(void *ctx, struct rpc_ticket *ticket);

/* ---- the parts ---- */

enum err service_enroll(void *ctx, const struct peer *peer, struct bytes request, struct buf *reply);

void service_next_task(void *ctx, const struct peer *peer, struct bytes request, struct rpc_ticket *ticket);
enum err service_fetch(void *ctx, const struct peer *peer, struct bytes request, struct rpc_stream *out);
enum err service_upload(void *ctx, const struct peer *peer, struct rpc_stream *in, struct buf *reply);
enum err service_upload_offset(void *ctx, const struct peer *peer, struct bytes request, struct buf *reply);
enum err service_report(void *ctx, const struct peer *peer, struct bytes request, struct buf *reply);

enum err service_invite(void *ctx, const struct peer *peer, struct bytes request, struct buf *reply);
enum err service_revoke(void *ctx, const struct peer *peer, struct bytes request, struct buf *reply);
enum err service_list_plants(void *ctx, const struct peer *peer, struct bytes request, struct buf *reply);
enum err service_publish(void *ctx, const struct peer *peer, struct rpc_stream *in, struct buf *reply);
enum err service_start_job(void *ctx, const struct peer *peer, struct bytes request, struct buf *reply);
enum err service_stop_job(void *ctx, const struct peer *peer, struct bytes request, struct buf *reply);
enum err service_resume_job(void *ctx, const struct peer *peer, struct bytes request, struct buf *reply);
enum err service_list_jobs(void *ctx, const struct peer *peer, struct bytes request, struct buf *reply);
enum err service_list_rounds(void *ctx, const struct peer *peer, struct bytes request, struct buf *reply);
void service_watch(void *ctx, const struct peer *peer, struct bytes request, struct rpc_ticket *ticket);

/* An answer_fn for tickets. */
void service_answer(void *ticket, enum err code, struct rpc_reply *reply);

#endif
