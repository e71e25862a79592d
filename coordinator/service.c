#include "coordinator/service.h"

#include "base/clock.h"

static const struct rpc_handler main_handlers[METHOD_COUNT] = {
	[METHOD_NEXT_TASK] = {.parked = service_next_task},  [METHOD_FETCH] = {.download = service_fetch},
	[METHOD_UPLOAD_UPDATE] = {.upload = service_upload}, [METHOD_UPLOAD_OFFSET] = {.unary = service_upload_offset},
	[METHOD_REPORT] = {.unary = service_report},         [METHOD_INVITE] = {.unary = service_invite},
	[METHOD_REVOKE] = {.unary = service_revoke},         [METHOD_LIST_PLANTS] = {.unary = service_list_plants},
	[METHOD_PUBLISH] = {.upload = service_publish},      [METHOD_START_JOB] = {.unary = service_start_job},
	[METHOD_STOP_JOB] = {.unary = service_stop_job},     [METHOD_RESUME_JOB] = {.unary = service_resume_job},
	[METHOD_LIST_JOBS] = {.unary = service_list_jobs},   [METHOD_LIST_ROUNDS] = {.unary = service_list_rounds},
	[METHOD_WATCH] = {.parked = service_watch},
};

static const struct rpc_handler enrol_handlers[METHOD_COUNT] = {
	[METHOD_ENROLL] = {.unary = service_enroll},
};

const struct rpc_handler *const service_main_handlers = main_handlers, *const service_enrol_handlers = enrol_handlers;

enum err service_authorize(void *ctx, const struct peer *peer)
{
	struct service *s = ctx;
	TRY(registry_check(s->federation->registry, &peer->id, &peer->key, clock_wall_ms()));
	registry_saw(s->federation->registry, peer->id.role, peer->id.name, NULL, clock_wall_ms());
	return ERR_OK;
}

void service_answer(void *ticket, enum err code, struct rpc_reply *reply)
{
	if (code == ERR_OK)
		rpc_ticket_answer_shared(ticket, reply);
	else
		rpc_ticket_answer(ticket, code, bytes_of(NULL, 0));
}

bool service_gone(void *ctx, struct rpc_ticket *ticket)
{
	struct service *s = ctx;
	return engine_forget(s->engine, rpc_ticket_peer(ticket)->id.name, ticket);
}
