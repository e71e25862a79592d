/*
 * Every unpacker of the wire protocol; the first byte chooses. What is accepted must pack, and unpack to the same again.
 */
#include "rpc/wire.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { OUT_MAX = 16 << 20 };

/* What the second round gives must be the first one's bytes: nothing is lost, nothing is made up. */
static void same(struct buf *first, struct buf *second)
{
	if (first->n != second->n || (first->n > 0 && memcmp(first->p, second->p, first->n) != 0))
		abort();
	buf_deinit(first);
	buf_deinit(second);
}

#define ROUND(name, type, free_it)                                                                                     \
	static void round_##name(struct bytes message)                                                                 \
	{                                                                                                              \
		struct type a, b;                                                                                      \
		struct buf first, second;                                                                              \
		if (wire_##name##_unpack(message, &a) != ERR_OK)                                                       \
			return;                                                                                        \
		buf_init(&first, OUT_MAX);                                                                             \
		buf_init(&second, OUT_MAX);                                                                            \
		if (wire_##name##_pack(&a, &first) != ERR_OK || wire_##name##_unpack(buf_bytes(&first), &b) != ERR_OK) \
			abort();                                                                                       \
		if (wire_##name##_pack(&b, &second) != ERR_OK)                                                         \
			abort();                                                                                       \
		same(&first, &second);                                                                                 \
		free_it(&a);                                                                                           \
		free_it(&b);                                                                                           \
	}

static void owns_nothing(const void *m)
{
	(void)m;
}

ROUND(enroll_request, wire_enroll_request, owns_nothing)
ROUND(enroll_reply, wire_enroll_reply, wire_enroll_reply_free)
ROUND(task_request, wire_task_request, owns_nothing)
ROUND(task, wire_task, wire_task_free)
ROUND(fetch_request, wire_fetch_request, owns_nothing)
ROUND(receipt, wire_receipt, owns_nothing)
ROUND(report, wire_report, owns_nothing)
ROUND(invite_request, wire_invite_request, owns_nothing)
ROUND(invite_reply, wire_invite_reply, owns_nothing)
ROUND(revoke_request, wire_revoke_request, owns_nothing)
ROUND(members, wire_members, wire_members_free)
ROUND(publish_reply, wire_publish_reply, owns_nothing)
ROUND(start_job, wire_start_job, wire_start_job_free)
ROUND(job_ref, wire_job_ref, owns_nothing)
ROUND(jobs, wire_jobs, wire_jobs_free)
ROUND(rounds, wire_rounds, wire_rounds_free)
ROUND(watch_request, wire_watch_request, owns_nothing)
ROUND(watch_reply, wire_watch_reply, wire_watch_reply_free)

static void round_part(struct bytes message)
{
	struct wire_head head, quick, again;
	struct bytes data = {0}, none = {0}, view = {0};
	bool has_head = false, is_head = false;
	struct bytes begin = {message.p, message.n < WIRE_PART_PREFIX_MAX ? message.n : WIRE_PART_PREFIX_MAX};
	size_t prefix = wire_data_prefix_parse(begin, message.n);
	size_t front = wire_part_prefix_parse(begin, message.n, &view);
	enum err e = wire_part_unpack(message, &head, &has_head, &data);
	/* The fast paths and the parser agree; an empty stretch of data is left to the reader of the stream. */
	if (prefix > 0 && (e != ERR_OK || has_head || data.n != message.n - prefix || data.p != message.p + prefix))
		abort();
	if (prefix > 0 && front > 0)
		abort();
	if (front > 0 && (wire_head_unpack(view, &quick) == ERR_OK) != (e == ERR_OK))
		abort();
	if (e != ERR_OK)
		return;
	if (data.n > WIRE_CHUNK_SIZE)
		abort();
	if (data.n > 0 && (data.p < message.p || data.p + data.n > message.p + message.n))
		abort();
	if (front > 0 && (!has_head || data.n != message.n - front || (data.n > 0 && data.p != message.p + front)))
		abort();
	if (!has_head)
		return;
	struct buf first, second;
	buf_init(&first, OUT_MAX);
	buf_init(&second, OUT_MAX);
	if (wire_head_pack(&head, &first) != ERR_OK ||
	    wire_part_unpack(buf_bytes(&first), &again, &is_head, &none) != ERR_OK || !is_head || none.n != 0)
		abort();
	if (wire_head_pack(front > 0 ? &quick : &again, &second) != ERR_OK)
		abort();
	same(&first, &second);
}

static void (*const rounds[])(struct bytes) = {
	round_part,           round_enroll_request, round_enroll_reply,  round_task_request,   round_task,
	round_fetch_request,  round_receipt,        round_report,        round_invite_request, round_invite_reply,
	round_revoke_request, round_members,        round_publish_reply, round_start_job,      round_job_ref,
	round_jobs,           round_rounds,         round_watch_request, round_watch_reply,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	rounds[data[0] % (sizeof rounds / sizeof rounds[0])]((struct bytes){data + 1, size - 1});
	return 0;
}
