/*
 * Data is not gathered: after the few bytes of protobuf before it, each slice is handed on where it lies. Anything else
 * (a part with fields of a later version of the protocol, or one in very many slices) is copied into one piece and parsed
 * as usual.
 *
 * Sending copies, once, unless the data is shared: the last reference to what is sent goes when the socket has taken it,
 * and a sender that waited for that could be held past every deadline by a peer that reads nothing. So what is shared has
 * an owner who is told, and nobody waits.
 */
#include "rpc/payload.h"

#include <grpc/slice.h>
#include <string.h>

grpc_byte_buffer *payload_new(struct bytes head, struct bytes body)
{
	grpc_slice slice = grpc_slice_malloc(head.n + body.n);
	uint8_t *p = GRPC_SLICE_START_PTR(slice);
	if (head.n > 0)
		memcpy(p, head.p, head.n);
	if (body.n > 0)
		memcpy(p + head.n, body.p, body.n);
	grpc_byte_buffer *message = grpc_raw_byte_buffer_create(&slice, 1);
	grpc_slice_unref(slice);
	return message;
}

grpc_byte_buffer *payload_shared(struct bytes head, struct bytes body, void (*destroy)(void *arg), void *arg)
{
	void *p = (void *)(uintptr_t)body.p; /* only read */
	grpc_slice slices[2];
	size_t n = 0;
	if (head.n > 0)
		slices[n++] = grpc_slice_from_copied_buffer((const char *)head.p, head.n);
	slices[n++] = grpc_slice_new_with_user_data(p, body.n, destroy, arg);
	grpc_byte_buffer *message = grpc_raw_byte_buffer_create(slices, n);
	while (n > 0)
		grpc_slice_unref(slices[--n]);
	return message;
}

/* Compression is switched off at both ends; a message that claims to be compressed could grow without bound. */
static enum err check(grpc_byte_buffer *message, size_t max)
{
	if (message->type != GRPC_BB_RAW || message->data.raw.compression != GRPC_COMPRESS_NONE)
		return err_set(ERR_MALFORMED, "compressed messages are not accepted");
	size_t n = grpc_byte_buffer_length(message);
	if (n > max)
		return err_set(ERR_LIMIT, "message of %zu bytes is too large (at most %zu)", n, max);
	return ERR_OK;
}

static struct bytes view(const grpc_slice *s)
{
	return (struct bytes){GRPC_SLICE_START_PTR(*s), GRPC_SLICE_LENGTH(*s)};
}

enum err payload_read(grpc_byte_buffer *message, size_t max, struct buf *ret_content)
{
	TRY(check(message, max));
	const grpc_slice_buffer *b = &message->data.raw.slice_buffer;
	buf_init(ret_content, max);
	enum err e = buf_reserve(ret_content, grpc_byte_buffer_length(message));
	for (size_t i = 0; e == ERR_OK && i < b->count; i++) {
		struct bytes s = view(&b->slices[i]);
		e = buf_append(ret_content, s.p, s.n);
	}
	if (e != ERR_OK)
		buf_deinit(ret_content);
	return e;
}

/* The first `max` bytes of the message, however they are cut. */
static size_t begin(const grpc_byte_buffer *message, uint8_t *out, size_t max)
{
	const grpc_slice_buffer *b = &message->data.raw.slice_buffer;
	size_t n = 0;
	for (size_t i = 0; i < b->count && n < max; i++) {
		struct bytes s = view(&b->slices[i]);
		size_t k = s.n < max - n ? s.n : max - n;
		if (k > 0)
			memcpy(out + n, s.p, k);
		n += k;
	}
	return n;
}

/* The stretches behind the first `skip` bytes; false when there are too many. */
static bool take_pieces(struct payload *p, size_t skip)
{
	const grpc_slice_buffer *b = &p->message->data.raw.slice_buffer;
	p->n = 0;
	for (size_t i = 0; i < b->count; i++) {
		struct bytes s = view(&b->slices[i]);
		size_t k = skip < s.n ? skip : s.n;
		skip -= k;
		if (s.n == k)
			continue;
		if (p->n == PAYLOAD_PIECES_MAX)
			return false;
		p->v[p->n++] = (struct bytes){s.p + k, s.n - k};
	}
	return true;
}

/* The usual shapes, data or a head with data behind it, are taken as they lie; false: the whole has to be looked at. */
static enum err take_part(struct payload *p, struct wire_head *ret_head, bool *ret_taken)
{
	uint8_t first[WIRE_PART_PREFIX_MAX];
	size_t message_n = grpc_byte_buffer_length(p->message);
	size_t n = begin(p->message, first, WIRE_DATA_PREFIX_MAX);
	size_t skip = wire_data_prefix_parse((struct bytes){first, n}, message_n);
	*ret_taken = false;
	if (skip == 0) {
		struct bytes head;
		n = begin(p->message, first, sizeof first);
		skip = wire_part_prefix_parse((struct bytes){first, n}, message_n, &head);
		if (skip == 0)
			return ERR_OK;
		TRY(wire_head_unpack(head, ret_head));
		p->has_head = true;
	}
	*ret_taken = take_pieces(p, skip);
	return ERR_OK;
}

static enum err take_whole(struct payload *p, size_t max, struct wire_head *ret_head)
{
	struct bytes data = {0};
	TRY(payload_read(p->message, max, &p->whole));
	TRY(wire_part_unpack(buf_bytes(&p->whole), ret_head, &p->has_head, &data));
	p->v[0] = data;
	p->n = data.n > 0;
	return ERR_OK;
}

enum err payload_open(struct payload *p, grpc_byte_buffer *message, size_t max, struct wire_head *ret_head)
{
	struct wire_head head;
	bool taken = false;
	p->message = message;
	p->has_head = false;
	p->n = 0;
	p->whole = (struct buf){0};
	enum err e = check(message, max);
	if (e == ERR_OK)
		e = take_part(p, &head, &taken);
	if (e == ERR_OK && !taken)
		e = take_whole(p, max, &head);
	if (e != ERR_OK) {
		payload_close(p);
		return e;
	}
	if (p->has_head)
		*ret_head = head;
	return ERR_OK;
}

void payload_close(struct payload *p)
{
	if (p->message != NULL)
		grpc_byte_buffer_destroy(p->message);
	buf_deinit(&p->whole);
	p->message = NULL;
	p->n = 0;
}
