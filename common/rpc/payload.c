/*
 * Data parts of an upload are not gathered: after the few bytes of protobuf before the data, each slice is handed on
 * where it lies. Anything else (a head, or a part with fields of a later version of the protocol) is copied into one
 * piece and parsed as usual.
 *
 * Sending copies, once. The data could be sent from where it lies, but then the sender would have to wait until the
 * last reference to it is gone, which is when the socket has taken it: a peer that reads nothing could hold a worker
 * past every deadline.
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
	grpc_byte_buffer_reader reader;
	if (!grpc_byte_buffer_reader_init(&reader, message))
		return err_set(ERR_MALFORMED, "message cannot be read");
	buf_init(ret_content, max);
	enum err e = buf_reserve(ret_content, grpc_byte_buffer_length(message));
	grpc_slice *s;
	while (e == ERR_OK && grpc_byte_buffer_reader_peek(&reader, &s)) {
		struct bytes b = view(s);
		e = buf_append(ret_content, b.p, b.n);
	}
	grpc_byte_buffer_reader_destroy(&reader);
	if (e != ERR_OK)
		buf_deinit(ret_content);
	return e;
}

/* The first bytes of the message, however they are cut. */
static size_t begin(grpc_byte_buffer *message, uint8_t out[WIRE_DATA_PREFIX_MAX])
{
	grpc_byte_buffer_reader reader;
	grpc_slice *s;
	size_t n = 0;
	if (!grpc_byte_buffer_reader_init(&reader, message))
		return 0;
	while (n < WIRE_DATA_PREFIX_MAX && grpc_byte_buffer_reader_peek(&reader, &s)) {
		struct bytes b = view(s);
		for (size_t i = 0; i < b.n && n < WIRE_DATA_PREFIX_MAX; i++)
			out[n++] = b.p[i];
	}
	grpc_byte_buffer_reader_destroy(&reader);
	return n;
}

enum err payload_open(struct payload *p, grpc_byte_buffer *message, size_t max, struct wire_head *ret_head,
		      bool *ret_is_head)
{
	uint8_t first[WIRE_DATA_PREFIX_MAX];
	*p = (struct payload){.message = message};
	bool is_head = false;
	enum err e = check(message, max);
	if (e == ERR_OK)
		p->skip = wire_data_prefix_parse((struct bytes){first, begin(message, first)},
						 grpc_byte_buffer_length(message));
	if (e == ERR_OK && p->skip == 0)
		e = payload_read(message, max, &p->whole);
	if (e == ERR_OK && p->skip == 0)
		e = wire_part_unpack(buf_bytes(&p->whole), ret_head, &is_head, &p->data);
	if (e == ERR_OK && !grpc_byte_buffer_reader_init(&p->reader, message))
		e = err_set(ERR_MALFORMED, "message cannot be read");
	if (e != ERR_OK) {
		grpc_byte_buffer_destroy(message);
		buf_deinit(&p->whole);
		*p = (struct payload){0};
		return e;
	}
	*ret_is_head = is_head;
	return ERR_OK;
}

bool payload_next(struct payload *p, struct bytes *ret_data)
{
	if (p->message == NULL)
		return false;
	if (p->skip == 0 && p->whole.p != NULL) {
		struct bytes data = p->data;
		p->data = (struct bytes){0};
		*ret_data = data;
		return data.n > 0;
	}
	grpc_slice *s;
	while (grpc_byte_buffer_reader_peek(&p->reader, &s)) {
		struct bytes b = view(s);
		size_t skip = p->skip < b.n ? p->skip : b.n;
		p->skip -= skip;
		if (b.n > skip) {
			*ret_data = (struct bytes){b.p + skip, b.n - skip};
			return true;
		}
	}
	return false;
}

void payload_close(struct payload *p)
{
	if (p->message != NULL) {
		grpc_byte_buffer_reader_destroy(&p->reader);
		grpc_byte_buffer_destroy(p->message);
		buf_deinit(&p->whole);
	}
	*p = (struct payload){0};
}
