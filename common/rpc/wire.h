/*
 * Messages: plain structs, each with its pack and unpack. The door to protobuf-c; the protocol itself is
 * proto/hansa.proto.
 *
 * Unpacking checks every length, text (UTF-8, no control characters, no zero), digest and enumeration: ERR_MALFORMED
 * "field: what". What unpacking allocates is freed by the matching _free; a struct without one owns nothing. Packing
 * appends to `out`.
 */
#ifndef HANSA_RPC_WIRE_H
#define HANSA_RPC_WIRE_H

#include "base/buf.h"
#include "crypto/digest.h"
#include "crypto/identity.h"

enum {
	WIRE_NAME_SIZE = 64, /* plants, jobs, metrics: [a-z0-9-_. A-Z], 1 to 63 */
	WIRE_ADDRESS_SIZE = 200,
	WIRE_CONFIG_MAX = 256 << 10,
	WIRE_MANIFEST_MAX = 1 << 20,
	WIRE_CSR_MAX = 8 << 10,
	WIRE_PEM_MAX = 32 << 10,
	WIRE_METRICS_MAX = 16,
	WIRE_LIST_MAX = 10000,       /* members, jobs, rounds in one reply */
	WIRE_CHUNK_SIZE = 1 << 20,   /* data of one Part */
	WIRE_INLINE_MAX = 256 << 10, /* of a base model in a Task */
	WIRE_SECRET_SIZE = 16,
	WIRE_REASON_SIZE = 256, /* texts of at most 255 bytes */
};

struct wire_metric {
	char name[WIRE_NAME_SIZE];
	double value; /* finite */
};
struct wire_metrics {
	size_t n;
	struct wire_metric v[WIRE_METRICS_MAX];
};

struct wire_enroll_request {
	uint8_t secret[WIRE_SECRET_SIZE];
	struct bytes csr; /* borrowed from the packed message when unpacked */
};
struct wire_enroll_reply {
	struct buf certificate, ca;
	char address[WIRE_ADDRESS_SIZE];
};

struct wire_task_request {
	uint64_t finished_job;
	char software[WIRE_NAME_SIZE];
	uint64_t skip_job;      /* no WIRE_TASK_TRAIN of this job; 0: none. Its end is still told */
	uint32_t skip_round;    /* only of this round of it; 0: of any */
	uint32_t finished_ends; /* how many ends of finished_job have been seen; 0: it does not say */
};
enum wire_task_kind { WIRE_TASK_WAIT, WIRE_TASK_TRAIN, WIRE_TASK_FINISHED, WIRE_TASK_KIND_COUNT };
enum wire_job_state { WIRE_JOB_RUNNING, WIRE_JOB_DONE, WIRE_JOB_STOPPED, WIRE_JOB_FAILED, WIRE_JOB_STATE_COUNT };
const char *wire_job_state_name(enum wire_job_state s); /* "running", "done", "stopped", "failed" */
struct wire_task {
	enum wire_task_kind kind;
	uint32_t wait_ms;
	uint64_t job;
	char job_name[WIRE_NAME_SIZE];
	uint32_t round, rounds;
	struct buf config, manifest; /* owned */
	struct digest base, source;
	uint64_t base_size, source_size;
	uint64_t deadline_in_ms;
	enum wire_job_state job_state;
	uint32_t job_ends; /* how often the job has ended, with this end; 0: never, or an older coordinator */
	struct buf
		base_content; /* owned; TRAIN: the base itself, of at most WIRE_INLINE_MAX bytes; empty: to be fetched */
};

struct wire_fetch_request {
	struct digest digest;
	uint64_t offset;
};

struct wire_update_head {
	uint64_t job;
	uint32_t round;
	struct digest base, manifest;
	uint64_t samples;
	struct wire_metrics metrics;
};
struct wire_head {
	uint64_t size, offset;
	struct digest digest;
	bool has_update;
	struct wire_update_head update;
};
struct wire_receipt {
	uint64_t job, time_ms;
	uint32_t round;
	struct digest digest;
	bool repeated;
};
struct wire_upload_offset_request {
	uint64_t job, size;
	uint32_t round;
	struct digest digest; /* of the update */
};
struct wire_upload_offset_reply {
	uint64_t offset;
};
struct wire_report {
	uint64_t job;
	uint32_t round;
	struct digest model;
	struct wire_metrics metrics;
	bool taken;
};

struct wire_invite_request {
	char name[WIRE_NAME_SIZE];
	enum role role;
	uint64_t valid_ms;
};
struct wire_invite_reply {
	char code[600];
	uint64_t expires_ms;
};
struct wire_revoke_request {
	char name[WIRE_NAME_SIZE];
	enum role role;
};
struct wire_member {
	char name[WIRE_NAME_SIZE], state[16], software[WIRE_NAME_SIZE];
	enum role role;
	uint64_t expires_ms, seen_ms;
};
struct wire_members {
	size_t n;
	struct wire_member *v; /* owned */
};
struct wire_publish_reply {
	struct digest digest;
	uint64_t size;
};
struct wire_start_job {
	struct buf config; /* owned */
	struct digest source;
};
struct wire_job_ref { /* StartJobReply, StopJobRequest, ResumeJobRequest, ListJobsRequest, ListRoundsRequest */
	uint64_t job;
};
struct wire_job {
	uint64_t job, model_size, created_ms, ended_ms;
	char name[WIRE_NAME_SIZE];
	enum wire_job_state state;
	uint32_t round, rounds;
	struct buf config; /* owned */
	struct digest source, model;
	char reason[WIRE_REASON_SIZE];  /* why it stopped or failed; "" otherwise */
	char trouble[WIRE_REASON_SIZE]; /* "waiting: ..." when the round of a running job cannot go on; "" otherwise */
};
struct wire_jobs {
	size_t n;
	struct wire_job *v; /* owned */
};
struct wire_contribution {
	char plant[WIRE_NAME_SIZE];
	struct digest digest;
	uint64_t samples, time_ms;
	double norm;
	struct wire_metrics metrics;
	uint32_t base_round; /* the round whose base it was made from; 0 from older coordinators */
};
struct wire_plant_report { /* wire_report, as operators see it */
	char plant[WIRE_NAME_SIZE];
	struct digest model;
	bool taken;
	struct wire_metrics metrics;
	uint64_t time_ms;
};
struct wire_round {
	uint32_t round, cohort, accepted, goal;
	char phase[16];
	uint64_t opened_ms, deadline_ms, closed_ms, bytes_up, bytes_down;
	struct digest base, model; /* zero: none */
	size_t n_contributions;
	struct wire_contribution *contributions; /* owned */
	size_t n_reports;
	struct wire_plant_report *reports; /* owned */
	char reason[WIRE_REASON_SIZE];     /* why it was abandoned; "" otherwise */
};
struct wire_rounds {
	size_t n;
	struct wire_round *v; /* owned */
};
struct wire_watch_request {
	uint64_t job, seen;
};
struct wire_watch_reply {
	uint64_t version;
	struct wire_job job;
	bool has_round;
	struct wire_round round;
};

/* pack(const *in, out) and unpack(bytes, *ret) for every message; _free where something is owned. */
#define WIRE_MESSAGE(name, type)                                                                                       \
	MUST_CHECK enum err wire_##name##_pack(const struct type *in, struct buf *out);                                \
	MUST_CHECK enum err wire_##name##_unpack(struct bytes message, struct type *ret_out)
WIRE_MESSAGE(enroll_request, wire_enroll_request);
WIRE_MESSAGE(enroll_reply, wire_enroll_reply);
WIRE_MESSAGE(task_request, wire_task_request);
WIRE_MESSAGE(task, wire_task);
WIRE_MESSAGE(fetch_request, wire_fetch_request);
WIRE_MESSAGE(receipt, wire_receipt);
WIRE_MESSAGE(upload_offset_request, wire_upload_offset_request);
WIRE_MESSAGE(upload_offset_reply, wire_upload_offset_reply);
WIRE_MESSAGE(report, wire_report);
WIRE_MESSAGE(invite_request, wire_invite_request);
WIRE_MESSAGE(invite_reply, wire_invite_reply);
WIRE_MESSAGE(revoke_request, wire_revoke_request);
WIRE_MESSAGE(members, wire_members);
WIRE_MESSAGE(publish_reply, wire_publish_reply);
WIRE_MESSAGE(start_job, wire_start_job);
WIRE_MESSAGE(job_ref, wire_job_ref);
WIRE_MESSAGE(jobs, wire_jobs);
WIRE_MESSAGE(rounds, wire_rounds);
WIRE_MESSAGE(watch_request, wire_watch_request);
WIRE_MESSAGE(watch_reply, wire_watch_reply);

void wire_enroll_reply_free(struct wire_enroll_reply *m);
void wire_task_free(struct wire_task *m);
void wire_members_free(struct wire_members *m);
void wire_start_job_free(struct wire_start_job *m);
void wire_jobs_free(struct wire_jobs *m);
void wire_rounds_free(struct wire_rounds *m);
void wire_watch_reply_free(struct wire_watch_reply *m);

/* Parts of a stream. A Part is a head, or data, or a head and the first data. Data is not copied: the view points into
 * `message`. *ret_head is written when there is one; *ret_data is empty when there is none. */
MUST_CHECK enum err wire_head_pack(const struct wire_head *in, struct buf *out);     /* a Part; data may follow */
MUST_CHECK enum err wire_head_unpack(struct bytes head, struct wire_head *ret_head); /* the head itself */
MUST_CHECK enum err wire_part_unpack(struct bytes message, struct wire_head *ret_head, bool *ret_has_head,
				     struct bytes *ret_data);
/* What stands before `n` bytes of data in a Part: at most 8 bytes, so data can be sent from where it lies. */
enum { WIRE_DATA_PREFIX_MAX = 8 };
size_t wire_data_prefix(size_t n, uint8_t out[WIRE_DATA_PREFIX_MAX]);
/* The inverse, from the first bytes (8 are enough) of a message of `message_n`: the length of the prefix when all that
 * follows it is data, so that the rest can be taken as it comes; 0 when wire_part_unpack() has to look at the whole
 * message. */
size_t wire_data_prefix_parse(struct bytes begin, size_t message_n);
/* The same for a head, with nothing but data behind it; *ret_head is a view of the head. WIRE_PART_PREFIX_MAX bytes are
 * enough for every head of this version. */
enum { WIRE_PART_PREFIX_MAX = 4 << 10 };
size_t wire_part_prefix_parse(struct bytes begin, size_t message_n, struct bytes *ret_head);

#endif
