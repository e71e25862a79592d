/*
 * What plants and operators share: metrics, and the parts of streams. See wire_plant.c and wire_operator.c for the
 * rest.
 */
#include "rpc/wire.h"

#include "rpc/wire_codec.h"
#include "rpc/wire_scan.h"

#include <string.h>

static const struct wire_field metric_fields[] = {
	{FIELD_TEXT(NAME, Metric, name, wire_metric, name), .required = true},
	{FIELD(REAL, Metric, value, wire_metric, value)},
};
const struct wire_shape wire_metric_shape = {SHAPE(metric, wire_metric, metric_fields)};

static const struct wire_field update_fields[] = {
	{FIELD(U64, UpdateHead, job, wire_update_head, job)},
	{FIELD(U32, UpdateHead, round, wire_update_head, round)},
	{FIELD(DIGEST, UpdateHead, base_digest, wire_update_head, base), .required = true},
	{FIELD(DIGEST, UpdateHead, manifest_digest, wire_update_head, manifest), .required = true},
	{FIELD(U64, UpdateHead, samples, wire_update_head, samples)},
	{FIELD_METRICS(UpdateHead, wire_update_head)},
};
static const struct wire_shape update_shape = {SHAPE(update_head, wire_update_head, update_fields)};

static enum err head_check(const void *own)
{
	const struct wire_head *h = own;
	if (h->offset > h->size)
		return err_set(ERR_MALFORMED, "offset: behind the end of the object");
	return ERR_OK;
}

static const struct wire_field head_fields[] = {
	{FIELD(U64, Head, size, wire_head, size)},
	{FIELD(DIGEST, Head, digest, wire_head, digest), .required = true},
	{FIELD(U64, Head, offset, wire_head, offset)},
	{FIELD(ONE, Head, update, wire_head, update), .own_count = offsetof(struct wire_head, has_update),
	 .sub = &update_shape},
};
static const struct wire_shape head_shape = {SHAPE(head, wire_head, head_fields), .check = head_check};

/* A Part with a head in it, for packing only. */
struct part {
	bool has_head;
	struct wire_head head;
};
static const struct wire_field part_fields[] = {
	{FIELD(ONE, Part, head, part, head), .own_count = offsetof(struct part, has_head), .sub = &head_shape},
};
static const struct wire_shape part_shape = {SHAPE(part, part, part_fields)};

enum {
	PART_HEAD = 1,
	PART_DATA = 2,
	HEAD_TAG = PART_HEAD << 3 | WIRE_TYPE_BYTES,
	DATA_TAG = PART_DATA << 3 | WIRE_TYPE_BYTES
};

enum err wire_head_pack(const struct wire_head *in, struct buf *out)
{
	struct part part = {.has_head = true, .head = *in};
	return wire_codec_pack(&part_shape, &part, out);
}

enum err wire_head_unpack(struct bytes head, struct wire_head *ret_head)
{
	return wire_codec_unpack(&head_shape, head, ret_head);
}

enum err wire_part_unpack(struct bytes message, struct wire_head *ret_head, bool *ret_has_head, struct bytes *ret_data)
{
	struct wire_scan s = {.rest = message};
	struct bytes head = {0}, data = {0};
	bool has_head = false, has_data = false;
	enum err e;
	for (e = wire_scan_next(&s); e == ERR_OK; e = wire_scan_next(&s)) {
		if (s.type != WIRE_TYPE_BYTES)
			continue;
		if (s.number == PART_HEAD) {
			head = s.body;
			has_head = true;
		} else if (s.number == PART_DATA) {
			data = s.body;
			has_data = true;
		}
	}
	if (e != ERR_END)
		return err_add(e, "Part");
	if (!has_head && !has_data)
		return err_set(ERR_MALFORMED, "Part: has neither a head nor data");
	if (data.n > WIRE_CHUNK_SIZE)
		return err_set(ERR_MALFORMED, "data: %zu bytes are too long (at most %d)", data.n, WIRE_CHUNK_SIZE);
	if (has_head)
		TRY(wire_head_unpack(head, ret_head));
	*ret_data = data;
	*ret_has_head = has_head;
	return ERR_OK;
}

size_t wire_data_prefix(size_t n, uint8_t out[WIRE_DATA_PREFIX_MAX])
{
	ENSURE(n <= WIRE_CHUNK_SIZE);
	size_t k = 0;
	out[k++] = DATA_TAG;
	for (; n >= 0x80; n >>= 7)
		out[k++] = (uint8_t)(n | 0x80);
	out[k++] = (uint8_t)n;
	return k;
}

size_t wire_data_prefix_parse(struct bytes begin, size_t message_n)
{
	uint64_t data_n;
	if (begin.n == 0 || begin.p[0] != DATA_TAG)
		return 0;
	size_t k = wire_scan_varint((struct bytes){begin.p + 1, begin.n - 1}, &data_n);
	if (k == 0 || data_n > WIRE_CHUNK_SIZE || 1 + k + data_n != message_n)
		return 0;
	return 1 + k;
}

size_t wire_part_prefix_parse(struct bytes begin, size_t message_n, struct bytes *ret_head)
{
	uint64_t head_n;
	if (begin.n == 0 || begin.p[0] != HEAD_TAG)
		return 0;
	size_t k = wire_scan_varint((struct bytes){begin.p + 1, begin.n - 1}, &head_n);
	if (k == 0 || head_n > begin.n - 1 - k)
		return 0;
	struct bytes head = {begin.p + 1 + k, (size_t)head_n};
	size_t n = 1 + k + head.n, data = 0;
	if (n < message_n)
		data = wire_data_prefix_parse((struct bytes){begin.p + n, begin.n - n}, message_n - n);
	if (n < message_n && data == 0)
		return 0;
	*ret_head = head;
	return n + data;
}
