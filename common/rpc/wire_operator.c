/*
 * The messages of the Operator service.
 */
#include "rpc/wire_codec.h"

const char *wire_job_state_name(enum wire_job_state s)
{
	static const char *const names[WIRE_JOB_STATE_COUNT] = {"running", "done", "stopped", "failed"};
	return (unsigned)s < WIRE_JOB_STATE_COUNT ? names[s] : "unknown";
}

static const struct wire_field invite_request_fields[] = {
	{FIELD_TEXT(NAME, InviteRequest, name, wire_invite_request, name), .required = true},
	{FIELD(ROLE, InviteRequest, role, wire_invite_request, role)},
	{FIELD(U64, InviteRequest, valid_ms, wire_invite_request, valid_ms)},
};
static const struct wire_shape invite_request = {SHAPE(invite_request, wire_invite_request, invite_request_fields)};
WIRE_DEFINE(invite_request, wire_invite_request, &invite_request)

static const struct wire_field invite_reply_fields[] = {
	{FIELD_TEXT(TEXT, InviteReply, code, wire_invite_reply, code), .required = true},
	{FIELD(U64, InviteReply, expires_ms, wire_invite_reply, expires_ms)},
};
static const struct wire_shape invite_reply = {SHAPE(invite_reply, wire_invite_reply, invite_reply_fields)};
WIRE_DEFINE(invite_reply, wire_invite_reply, &invite_reply)

static const struct wire_field revoke_request_fields[] = {
	{FIELD_TEXT(NAME, RevokeRequest, name, wire_revoke_request, name), .required = true},
	{FIELD(ROLE, RevokeRequest, role, wire_revoke_request, role)},
};
static const struct wire_shape revoke_request = {SHAPE(revoke_request, wire_revoke_request, revoke_request_fields)};
WIRE_DEFINE(revoke_request, wire_revoke_request, &revoke_request)

static const struct wire_field member_fields[] = {
	{FIELD_TEXT(NAME, Member, name, wire_member, name), .required = true},
	{FIELD(ROLE, Member, role, wire_member, role)},
	{FIELD_TEXT(NAME, Member, state, wire_member, state), .required = true},
	{FIELD(U64, Member, expires_ms, wire_member, expires_ms)},
	{FIELD(U64, Member, seen_ms, wire_member, seen_ms)},
	{FIELD_TEXT(NAME, Member, software, wire_member, software)},
};
static const struct wire_shape member = {SHAPE(member, wire_member, member_fields)};
static const struct wire_field members_fields[] = {
	{FIELD_MANY(MANY, ListPlantsReply, members, wire_members, v, n), .max = WIRE_LIST_MAX, .sub = &member},
};
static const struct wire_shape members = {SHAPE(list_plants_reply, wire_members, members_fields)};
WIRE_DEFINE(members, wire_members, &members)
WIRE_DEFINE_FREE(members, wire_members, &members)

static const struct wire_field publish_reply_fields[] = {
	{FIELD(DIGEST, PublishReply, digest, wire_publish_reply, digest), .required = true},
	{FIELD(U64, PublishReply, size, wire_publish_reply, size)},
};
static const struct wire_shape publish_reply = {SHAPE(publish_reply, wire_publish_reply, publish_reply_fields)};
WIRE_DEFINE(publish_reply, wire_publish_reply, &publish_reply)

static const struct wire_field start_job_fields[] = {
	{FIELD(BLOB, StartJobRequest, config, wire_start_job, config), .max = WIRE_CONFIG_MAX, .required = true},
	{FIELD(DIGEST, StartJobRequest, source_digest, wire_start_job, source), .required = true},
};
static const struct wire_shape start_job = {SHAPE(start_job_request, wire_start_job, start_job_fields)};
WIRE_DEFINE(start_job, wire_start_job, &start_job)
WIRE_DEFINE_FREE(start_job, wire_start_job, &start_job)

/* StartJobReply, StopJobRequest, ListJobsRequest and ListRoundsRequest have the same one field; any of them serves. */
static const struct wire_field job_ref_fields[] = {
	{FIELD(U64, StopJobRequest, job, wire_job_ref, job)},
};
static const struct wire_shape job_ref = {SHAPE(stop_job_request, wire_job_ref, job_ref_fields)};
WIRE_DEFINE(job_ref, wire_job_ref, &job_ref)

static const struct wire_field job_fields[] = {
	{FIELD(U64, Job, job, wire_job, job)},
	{FIELD_TEXT(NAME, Job, name, wire_job, name), .required = true},
	{FIELD(ENUM, Job, state, wire_job, state), .max = WIRE_JOB_STATE_COUNT},
	{FIELD(U32, Job, round, wire_job, round)},
	{FIELD(U32, Job, rounds, wire_job, rounds)},
	{FIELD(BLOB, Job, config, wire_job, config), .max = WIRE_CONFIG_MAX},
	{FIELD(DIGEST, Job, source_digest, wire_job, source)},
	{FIELD(DIGEST, Job, model_digest, wire_job, model)},
	{FIELD(U64, Job, model_size, wire_job, model_size)},
	{FIELD(U64, Job, created_ms, wire_job, created_ms)},
	{FIELD(U64, Job, ended_ms, wire_job, ended_ms)},
	{FIELD_TEXT(TEXT, Job, reason, wire_job, reason)},
	{FIELD_TEXT(TEXT, Job, trouble, wire_job, trouble)},
};
static const struct wire_shape job = {SHAPE(job, wire_job, job_fields)};
static const struct wire_field jobs_fields[] = {
	{FIELD_MANY(MANY, ListJobsReply, jobs, wire_jobs, v, n), .max = WIRE_LIST_MAX, .sub = &job},
};
static const struct wire_shape jobs = {SHAPE(list_jobs_reply, wire_jobs, jobs_fields)};
WIRE_DEFINE(jobs, wire_jobs, &jobs)
WIRE_DEFINE_FREE(jobs, wire_jobs, &jobs)

static const struct wire_field contribution_fields[] = {
	{FIELD_TEXT(NAME, Contribution, plant, wire_contribution, plant), .required = true},
	{FIELD(DIGEST, Contribution, digest, wire_contribution, digest), .required = true},
	{FIELD(U64, Contribution, samples, wire_contribution, samples)},
	{FIELD(REAL, Contribution, norm, wire_contribution, norm)},
	{FIELD(U64, Contribution, time_ms, wire_contribution, time_ms)},
	{FIELD_METRICS(Contribution, wire_contribution)},
	{FIELD(U32, Contribution, base_round, wire_contribution, base_round)},
};
static const struct wire_shape contribution = {SHAPE(contribution, wire_contribution, contribution_fields)};
static const struct wire_field report_fields[] = {
	{FIELD_TEXT(NAME, PlantReport, plant, wire_plant_report, plant), .required = true},
	{FIELD(DIGEST, PlantReport, model_digest, wire_plant_report, model), .required = true},
	{FIELD(BOOL, PlantReport, taken, wire_plant_report, taken)},
	{FIELD_METRICS(PlantReport, wire_plant_report)},
	{FIELD(U64, PlantReport, time_ms, wire_plant_report, time_ms)},
};
static const struct wire_shape report_seen = {SHAPE(plant_report, wire_plant_report, report_fields)};
static const struct wire_field round_fields[] = {
	{FIELD(U32, Round, round, wire_round, round)},
	{FIELD_TEXT(NAME, Round, phase, wire_round, phase), .required = true},
	{FIELD(U32, Round, cohort, wire_round, cohort)},
	{FIELD(U32, Round, accepted, wire_round, accepted)},
	{FIELD(U32, Round, goal, wire_round, goal)},
	{FIELD(U64, Round, opened_ms, wire_round, opened_ms)},
	{FIELD(U64, Round, deadline_ms, wire_round, deadline_ms)},
	{FIELD(U64, Round, closed_ms, wire_round, closed_ms)},
	{FIELD(DIGEST, Round, base_digest, wire_round, base)},
	{FIELD(DIGEST, Round, model_digest, wire_round, model)},
	{FIELD(U64, Round, bytes_up, wire_round, bytes_up)},
	{FIELD(U64, Round, bytes_down, wire_round, bytes_down)},
	{FIELD_MANY(MANY, Round, contributions, wire_round, contributions, n_contributions), .max = WIRE_LIST_MAX,
	 .sub = &contribution},
	{FIELD_TEXT(TEXT, Round, reason, wire_round, reason)},
	{FIELD_MANY(MANY, Round, reports, wire_round, reports, n_reports), .max = WIRE_LIST_MAX, .sub = &report_seen},
};
static const struct wire_shape round_shape = {SHAPE(round, wire_round, round_fields)};
static const struct wire_field rounds_fields[] = {
	{FIELD_MANY(MANY, ListRoundsReply, rounds, wire_rounds, v, n), .max = WIRE_LIST_MAX, .sub = &round_shape},
};
static const struct wire_shape rounds = {SHAPE(list_rounds_reply, wire_rounds, rounds_fields)};
WIRE_DEFINE(rounds, wire_rounds, &rounds)
WIRE_DEFINE_FREE(rounds, wire_rounds, &rounds)

static const struct wire_field watch_request_fields[] = {
	{FIELD(U64, WatchRequest, job, wire_watch_request, job)},
	{FIELD(U64, WatchRequest, seen, wire_watch_request, seen)},
};
static const struct wire_shape watch_request = {SHAPE(watch_request, wire_watch_request, watch_request_fields)};
WIRE_DEFINE(watch_request, wire_watch_request, &watch_request)

static const struct wire_field watch_reply_fields[] = {
	{FIELD(U64, WatchReply, version, wire_watch_reply, version)},
	{FIELD(ONE, WatchReply, job, wire_watch_reply, job), .required = true, .sub = &job},
	{FIELD(ONE, WatchReply, round, wire_watch_reply, round),
	 .own_count = offsetof(struct wire_watch_reply, has_round), .sub = &round_shape},
};
static const struct wire_shape watch_reply = {SHAPE(watch_reply, wire_watch_reply, watch_reply_fields)};
WIRE_DEFINE(watch_reply, wire_watch_reply, &watch_reply)
WIRE_DEFINE_FREE(watch_reply, wire_watch_reply, &watch_reply)
