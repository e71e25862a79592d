/*
 * The messages of the Enrolment and Plant services.
 */
#include "rpc/wire_codec.h"

static const struct wire_field enroll_request_fields[] = {
	{FIELD(FIXED, EnrollRequest, secret, wire_enroll_request, secret), .max = WIRE_SECRET_SIZE},
	{FIELD(VIEW, EnrollRequest, csr, wire_enroll_request, csr), .max = WIRE_CSR_MAX, .required = true},
};
static const struct wire_shape enroll_request = {SHAPE(enroll_request, wire_enroll_request, enroll_request_fields)};
WIRE_DEFINE(enroll_request, wire_enroll_request, &enroll_request)

static const struct wire_field enroll_reply_fields[] = {
	{FIELD(BLOB, EnrollReply, certificate, wire_enroll_reply, certificate), .max = WIRE_PEM_MAX, .required = true},
	{FIELD(BLOB, EnrollReply, ca, wire_enroll_reply, ca), .max = WIRE_PEM_MAX, .required = true},
	{FIELD_TEXT(TEXT, EnrollReply, address, wire_enroll_reply, address), .required = true},
};
static const struct wire_shape enroll_reply = {SHAPE(enroll_reply, wire_enroll_reply, enroll_reply_fields)};
WIRE_DEFINE(enroll_reply, wire_enroll_reply, &enroll_reply)
WIRE_DEFINE_FREE(enroll_reply, wire_enroll_reply, &enroll_reply)

static const struct wire_field task_request_fields[] = {
	{FIELD(U64, TaskRequest, finished_job, wire_task_request, finished_job)},
	{FIELD_TEXT(NAME, TaskRequest, software, wire_task_request, software)},
	{FIELD(U64, TaskRequest, skip_job, wire_task_request, skip_job)},
	{FIELD(U32, TaskRequest, skip_round, wire_task_request, skip_round)},
	{FIELD(U32, TaskRequest, finished_ends, wire_task_request, finished_ends)},
};
static const struct wire_shape task_request = {SHAPE(task_request, wire_task_request, task_request_fields)};
WIRE_DEFINE(task_request, wire_task_request, &task_request)

static enum err task_check(const void *own)
{
	const struct wire_task *t = own;
	if (t->kind == WIRE_TASK_TRAIN && (digest_is_zero(&t->base) || digest_is_zero(&t->source)))
		return err_set(ERR_MALFORMED, "base_digest and source_digest: missing in a training task");
	return ERR_OK;
}

static const struct wire_field task_fields[] = {
	{FIELD(ENUM, Task, kind, wire_task, kind), .max = WIRE_TASK_KIND_COUNT},
	{FIELD(U32, Task, wait_ms, wire_task, wait_ms)},
	{FIELD(U64, Task, job, wire_task, job)},
	{FIELD_TEXT(NAME, Task, job_name, wire_task, job_name)},
	{FIELD(U32, Task, round, wire_task, round)},
	{FIELD(U32, Task, rounds, wire_task, rounds)},
	{FIELD(BLOB, Task, config, wire_task, config), .max = WIRE_CONFIG_MAX},
	{FIELD(BLOB, Task, manifest, wire_task, manifest), .max = WIRE_MANIFEST_MAX},
	{FIELD(DIGEST, Task, base_digest, wire_task, base)},
	{FIELD(U64, Task, base_size, wire_task, base_size)},
	{FIELD(DIGEST, Task, source_digest, wire_task, source)},
	{FIELD(U64, Task, source_size, wire_task, source_size)},
	{FIELD(U64, Task, deadline_in_ms, wire_task, deadline_in_ms)},
	{FIELD(ENUM, Task, job_state, wire_task, job_state), .max = WIRE_JOB_STATE_COUNT},
	{FIELD(BLOB, Task, base_content, wire_task, base_content), .max = WIRE_INLINE_MAX},
	{FIELD(U32, Task, job_ends, wire_task, job_ends)},
};
static const struct wire_shape task = {SHAPE(task, wire_task, task_fields), .check = task_check};
WIRE_DEFINE(task, wire_task, &task)
WIRE_DEFINE_FREE(task, wire_task, &task)

static const struct wire_field fetch_request_fields[] = {
	{FIELD(DIGEST, FetchRequest, digest, wire_fetch_request, digest), .required = true},
	{FIELD(U64, FetchRequest, offset, wire_fetch_request, offset)},
};
static const struct wire_shape fetch_request = {SHAPE(fetch_request, wire_fetch_request, fetch_request_fields)};
WIRE_DEFINE(fetch_request, wire_fetch_request, &fetch_request)

static const struct wire_field receipt_fields[] = {
	{FIELD(U64, Receipt, job, wire_receipt, job)},
	{FIELD(U32, Receipt, round, wire_receipt, round)},
	{FIELD(DIGEST, Receipt, digest, wire_receipt, digest), .required = true},
	{FIELD(U64, Receipt, time_ms, wire_receipt, time_ms)},
	{FIELD(BOOL, Receipt, repeated, wire_receipt, repeated)},
};
static const struct wire_shape receipt = {SHAPE(receipt, wire_receipt, receipt_fields)};
WIRE_DEFINE(receipt, wire_receipt, &receipt)

static const struct wire_field upload_offset_request_fields[] = {
	{FIELD(U64, UploadOffsetRequest, job, wire_upload_offset_request, job)},
	{FIELD(U32, UploadOffsetRequest, round, wire_upload_offset_request, round)},
	{FIELD(DIGEST, UploadOffsetRequest, digest, wire_upload_offset_request, digest), .required = true},
	{FIELD(U64, UploadOffsetRequest, size, wire_upload_offset_request, size)},
};
static const struct wire_shape upload_offset_request = {
	SHAPE(upload_offset_request, wire_upload_offset_request, upload_offset_request_fields)};
WIRE_DEFINE(upload_offset_request, wire_upload_offset_request, &upload_offset_request)

static const struct wire_field upload_offset_reply_fields[] = {
	{FIELD(U64, UploadOffsetReply, offset, wire_upload_offset_reply, offset)},
};
static const struct wire_shape upload_offset_reply = {
	SHAPE(upload_offset_reply, wire_upload_offset_reply, upload_offset_reply_fields)};
WIRE_DEFINE(upload_offset_reply, wire_upload_offset_reply, &upload_offset_reply)

static const struct wire_field report_fields[] = {
	{FIELD(U64, ReportRequest, job, wire_report, job)},
	{FIELD(U32, ReportRequest, round, wire_report, round)},
	{FIELD(DIGEST, ReportRequest, model_digest, wire_report, model), .required = true},
	{FIELD_METRICS(ReportRequest, wire_report)},
	{FIELD(BOOL, ReportRequest, taken, wire_report, taken)},
};
static const struct wire_shape report = {SHAPE(report_request, wire_report, report_fields)};
WIRE_DEFINE(report, wire_report, &report)
