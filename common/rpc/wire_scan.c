#include "rpc/wire_scan.h"

enum { VARINT_MAX = 10 };

size_t wire_scan_varint(struct bytes in, uint64_t *ret_value)
{
	uint64_t value = 0;
	for (size_t i = 0; i < in.n && i < VARINT_MAX; i++) {
		uint64_t bits = in.p[i] & 0x7f;
		if (i == VARINT_MAX - 1 && bits > 1)
			return 0;
		value |= bits << (7 * i);
		if ((in.p[i] & 0x80) == 0) {
			*ret_value = value;
			return i + 1;
		}
	}
	return 0;
}

static struct bytes after(struct bytes b, size_t n)
{
	return (struct bytes){b.p + n, b.n - n};
}

static enum err cut(void)
{
	return err_set(ERR_MALFORMED, "message is cut off or not protobuf");
}

enum err wire_scan_next(struct wire_scan *s)
{
	if (s->rest.n == 0)
		return ERR_END;
	uint64_t tag, value;
	size_t n = wire_scan_varint(s->rest, &tag);
	if (n == 0 || tag >> 3 == 0 || tag > UINT32_MAX)
		return cut();
	struct bytes rest = after(s->rest, n);
	struct bytes body = {0};
	switch (tag & 7) {
	case WIRE_TYPE_VARINT:
		n = wire_scan_varint(rest, &value);
		if (n == 0)
			return cut();
		break;
	case WIRE_TYPE_FIXED64:
		n = 8;
		break;
	case WIRE_TYPE_FIXED32:
		n = 4;
		break;
	case WIRE_TYPE_BYTES:
		n = wire_scan_varint(rest, &value);
		if (n == 0 || value > rest.n - n)
			return cut();
		rest = after(rest, n);
		n = (size_t)value;
		body = (struct bytes){rest.p, n};
		break;
	default:
		return err_set(ERR_MALFORMED, "message has a field of the unknown kind %u", (unsigned)(tag & 7));
	}
	if (n > rest.n)
		return cut();
	s->rest = after(rest, n);
	s->number = (uint32_t)(tag >> 3);
	s->type = (unsigned)(tag & 7);
	s->body = body;
	return ERR_OK;
}

enum err wire_scan_bytes(struct bytes message, uint32_t number, struct bytes *ret_body)
{
	struct wire_scan s = {.rest = message};
	struct bytes found = {0};
	enum err e;
	for (e = wire_scan_next(&s); e == ERR_OK; e = wire_scan_next(&s)) {
		if (s.number == number && s.type == WIRE_TYPE_BYTES)
			found = s.body;
	}
	if (e != ERR_END)
		return e;
	*ret_body = found;
	return ERR_OK;
}
