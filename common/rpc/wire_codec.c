/*
 * protobuf-c allocates while it unpacks, and a few bytes of a message can ask for a hundred of memory. Its allocator
 * therefore has a quota in proportion to the message; over it, unpacking fails and nothing stays behind. Texts are
 * `bytes` in the protocol, so that nothing is lost behind an embedded zero before it is checked here.
 */
#include "rpc/wire_codec.h"

#include "base/text.h"
#include "rpc/wire_scan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
	QUOTA_BASE = 64 << 10,
	QUOTA_PER_BYTE = 32, /* the densest honest reply (10 000 jobs, 50 000 contributions) takes about 20 */
	QUOTA_MAX = 48 << 20,
	ALLOC_COST = 16, /* what malloc() adds */
};

struct quota {
	size_t left;
};

static void *quota_alloc(void *arg, size_t n)
{
	struct quota *q = arg;
	if (n > q->left || q->left - n < ALLOC_COST)
		return NULL;
	q->left -= n + ALLOC_COST;
	return malloc(n > 0 ? n : 1);
}

static void quota_free(void *arg, void *p)
{
	(void)arg;
	free(p);
}

static const void *at_const(const void *base, size_t offset)
{
	return (const uint8_t *)base + offset;
}

static void *at(void *base, size_t offset)
{
	return (uint8_t *)base + offset;
}

/* ---- packing: the generated structs point into ours; what they need beside that is taken from a list freed at the end
 * ---- */

struct scratch {
	void **v;
	size_t n, cap;
};

static void *scratch_new(struct scratch *s, size_t count, size_t size)
{
	if (s->n == s->cap) {
		s->cap = s->cap == 0 ? 8 : s->cap * 2;
		s->v = mem_grow(s->v, s->cap, sizeof *s->v);
	}
	s->v[s->n] = mem_array(count, size);
	return s->v[s->n++];
}

static void scratch_free(struct scratch *s)
{
	for (size_t i = 0; i < s->n; i++)
		free(s->v[i]);
	free(s->v);
}

/* protobuf-c takes pointers to what it will only read as non-const. */
static ProtobufCBinaryData binary(const void *p, size_t n)
{
	union {
		const void *in;
		uint8_t *out;
	} cast = {.in = p};
	return (ProtobufCBinaryData){.len = n, .data = n > 0 ? cast.out : NULL};
}

static enum err fill(const struct wire_shape *shape, const void *own, void *pb, struct scratch *scratch);

static enum err fill_list(const struct wire_field *f, const void *own, void *pb, struct scratch *scratch)
{
	size_t n = *(const size_t *)at_const(own, f->own_count);
	const uint8_t *v =
		f->kind == WIRE_MANY ? *(const uint8_t *const *)at_const(own, f->own) : at_const(own, f->own);
	if (n > f->max)
		return err_set(ERR_LIMIT, "%s: %zu are too many (at most %zu)", f->name, n, f->max);
	if (n == 0)
		return ERR_OK;
	size_t size = f->sub->pb->sizeof_message;
	uint8_t *messages = scratch_new(scratch, n, size);
	void **list = scratch_new(scratch, n, sizeof *list);
	for (size_t i = 0; i < n; i++) {
		list[i] = messages + i * size;
		TRY(fill(f->sub, v + i * f->sub->own_size, list[i], scratch));
	}
	*(size_t *)at(pb, f->pb_count) = n;
	*(void ***)at(pb, f->pb) = list;
	return ERR_OK;
}

static enum err fill_field(const struct wire_field *f, const void *own, void *pb, struct scratch *scratch)
{
	const void *from = at_const(own, f->own);
	void *to = at(pb, f->pb);
	switch (f->kind) {
	case WIRE_U32:
		*(uint32_t *)to = *(const uint32_t *)from;
		return ERR_OK;
	case WIRE_U64:
		*(uint64_t *)to = *(const uint64_t *)from;
		return ERR_OK;
	case WIRE_BOOL:
		*(protobuf_c_boolean *)to = *(const bool *)from;
		return ERR_OK;
	case WIRE_REAL:
		*(double *)to = *(const double *)from;
		return ERR_OK;
	case WIRE_ENUM:
		*(int *)to = *(const int *)from;
		return ERR_OK;
	case WIRE_ROLE: {
		const char *name = role_name(*(const enum role *)from);
		*(ProtobufCBinaryData *)to = binary(name, strlen(name));
		return ERR_OK;
	}
	case WIRE_NAME:
	case WIRE_TEXT:
		*(ProtobufCBinaryData *)to = binary(from, strnlen(from, f->max));
		return ERR_OK;
	case WIRE_FIXED:
		*(ProtobufCBinaryData *)to = binary(from, f->max);
		return ERR_OK;
	case WIRE_DIGEST: {
		const struct digest *d = from;
		*(ProtobufCBinaryData *)to = binary(d->b, digest_is_zero(d) ? 0 : DIGEST_SIZE);
		return ERR_OK;
	}
	case WIRE_BLOB: {
		const struct buf *b = from;
		*(ProtobufCBinaryData *)to = binary(b->p, b->n);
		return b->n <= f->max ? ERR_OK
				      : err_set(ERR_LIMIT, "%s: %zu bytes (at most %zu)", f->name, b->n, f->max);
	}
	case WIRE_VIEW: {
		const struct bytes *b = from;
		*(ProtobufCBinaryData *)to = binary(b->p, b->n);
		return b->n <= f->max ? ERR_OK
				      : err_set(ERR_LIMIT, "%s: %zu bytes (at most %zu)", f->name, b->n, f->max);
	}
	case WIRE_ONE:
		if (!f->required && !*(const bool *)at_const(own, f->own_count))
			return ERR_OK;
		*(void **)to = scratch_new(scratch, 1, f->sub->pb->sizeof_message);
		return fill(f->sub, from, *(void **)to, scratch);
	case WIRE_FEW:
	case WIRE_MANY:
		return fill_list(f, own, pb, scratch);
	}
	return err_set(ERR_INTERNAL, "%s: no such kind of field", f->name);
}

static enum err fill(const struct wire_shape *shape, const void *own, void *pb, struct scratch *scratch)
{
	shape->pb->message_init(pb);
	for (size_t i = 0; i < shape->n_fields; i++)
		TRY(fill_field(&shape->fields[i], own, pb, scratch));
	return ERR_OK;
}

enum err wire_codec_pack(const struct wire_shape *shape, const void *own, struct buf *out)
{
	struct scratch scratch = {0};
	ProtobufCMessage *pb = scratch_new(&scratch, 1, shape->pb->sizeof_message);
	size_t n;
	enum err e = fill(shape, own, pb, &scratch);
	if (e != ERR_OK)
		goto out;
	n = protobuf_c_message_get_packed_size(pb);
	e = buf_reserve(out, n);
	if (e != ERR_OK) {
		err_add(e, "%s of %zu bytes", shape->pb->short_name, n);
		goto out;
	}
	ENSURE(protobuf_c_message_pack(pb, out->p + out->n) == n);
	out->n += n;
	out->p[out->n] = '\0';
out:
	scratch_free(&scratch);
	return e;
}

/* ---- unpacking ---- */

static enum err malformed(const struct wire_field *f, const char *what)
{
	return err_set(ERR_MALFORMED, "%s: %s", f->name, what);
}

static bool is_name_char(uint8_t c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
	       c == '.' || c == ' ';
}

static bool is_name(struct bytes t)
{
	for (size_t i = 0; i < t.n; i++) {
		if (!is_name_char(t.p[i]))
			return false;
	}
	return true;
}

/* UTF-8 without C0, DEL and C1 (which is 0xc2 followed by 0x80 to 0x9f). */
static bool is_text(struct bytes t)
{
	for (size_t i = 0; i < t.n; i++) {
		if (t.p[i] < 0x20 || t.p[i] == 0x7f)
			return false;
		if (t.p[i] == 0xc2 && i + 1 < t.n && t.p[i + 1] < 0xa0)
			return false;
	}
	return text_is_utf8((const char *)t.p, t.n);
}

static enum err take_text(const struct wire_field *f, struct bytes t, char *to)
{
	if (t.n >= f->max)
		return err_set(ERR_MALFORMED, "%s: %zu bytes are too long (at most %zu)", f->name, t.n, f->max - 1);
	if (t.n == 0)
		return f->required ? malformed(f, "missing") : ERR_OK;
	if (f->kind == WIRE_NAME ? !is_name(t) : !is_text(t))
		return malformed(f, "has characters that are not allowed here");
	memcpy(to, t.p, t.n);
	return ERR_OK;
}

static enum err take_role(const struct wire_field *f, struct bytes t, enum role *to)
{
	char text[16];
	if (t.n == 0 || t.n >= sizeof text || !is_name(t))
		return malformed(f, "is not a role");
	memcpy(text, t.p, t.n);
	text[t.n] = '\0';
	return role_parse(text, to) == ERR_OK ? ERR_OK : malformed(f, "is not a role");
}

static enum err take_bytes(const struct wire_field *f, struct bytes b, void *to)
{
	switch (f->kind) {
	case WIRE_ROLE:
		return take_role(f, b, to);
	case WIRE_NAME:
	case WIRE_TEXT:
		return take_text(f, b, to);
	case WIRE_FIXED:
		if (b.n != f->max)
			return err_set(ERR_MALFORMED, "%s: %zu bytes instead of %zu", f->name, b.n, f->max);
		memcpy(to, b.p, b.n);
		return ERR_OK;
	case WIRE_DIGEST:
		if (b.n == 0 && !f->required)
			return ERR_OK;
		if (digest_from(b, to) != ERR_OK)
			return malformed(f, "is not a digest of 32 bytes");
		/* Zero is how we say "none"; no content has it for a digest. */
		return f->required && digest_is_zero(to) ? malformed(f, "missing") : ERR_OK;
	default:
		break;
	}
	if (b.n > f->max)
		return err_set(ERR_MALFORMED, "%s: %zu bytes are too long (at most %zu)", f->name, b.n, f->max);
	if (b.n == 0 && f->required)
		return malformed(f, "missing");
	if (f->kind == WIRE_VIEW) {
		*(struct bytes *)to = b;
		return ERR_OK;
	}
	buf_init(to, f->max);
	return buf_append(to, b.p, b.n);
}

static enum err take(const struct wire_shape *shape, struct bytes message, const void *pb, void *own);

static enum err take_list(const struct wire_field *f, const void *pb, void *own)
{
	size_t n = *(const size_t *)at_const(pb, f->pb_count);
	const void *const *list = *(const void *const *const *)at_const(pb, f->pb);
	if (n > f->max)
		return err_set(ERR_MALFORMED, "%s: %zu are too many (at most %zu)", f->name, n, f->max);
	uint8_t *v = at(own, f->own);
	if (f->kind == WIRE_MANY) {
		if (n == 0)
			return ERR_OK;
		v = mem_array(n, f->sub->own_size);
		*(void **)at(own, f->own) = v;
	}
	/* Counted first: should an item fail, what the items own is freed through the count. */
	*(size_t *)at(own, f->own_count) = n;
	for (size_t i = 0; i < n; i++) {
		enum err e = take(f->sub, (struct bytes){0}, list[i], v + i * f->sub->own_size);
		if (e != ERR_OK)
			return err_add(e, "%s %zu", f->name, i + 1);
	}
	return ERR_OK;
}

static enum err take_one(const struct wire_field *f, const void *pb, void *own)
{
	const void *message = *(const void *const *)at_const(pb, f->pb);
	if (message == NULL)
		return f->required ? malformed(f, "missing") : ERR_OK;
	if (!f->required)
		*(bool *)at(own, f->own_count) = true;
	enum err e = take(f->sub, (struct bytes){0}, message, at(own, f->own));
	return e == ERR_OK ? e : err_add(e, "%s", f->name);
}

static enum err take_view(const struct wire_shape *shape, const struct wire_field *f, struct bytes message, void *to)
{
	const ProtobufCFieldDescriptor *d = protobuf_c_message_descriptor_get_field_by_name(shape->pb, f->name);
	struct bytes body;
	ENSURE(d != NULL && message.p != NULL);
	TRY(wire_scan_bytes(message, d->id, &body));
	return take_bytes(f, body, to);
}

static enum err take_field(const struct wire_field *f, const void *pb, void *own)
{
	const void *from = at_const(pb, f->pb);
	void *to = at(own, f->own);
	switch (f->kind) {
	case WIRE_U32:
		*(uint32_t *)to = *(const uint32_t *)from;
		return ERR_OK;
	case WIRE_U64:
		*(uint64_t *)to = *(const uint64_t *)from;
		return ERR_OK;
	case WIRE_BOOL:
		*(bool *)to = *(const protobuf_c_boolean *)from != 0;
		return ERR_OK;
	case WIRE_REAL:
		if (!isfinite(*(const double *)from))
			return malformed(f, "is not a finite number");
		*(double *)to = *(const double *)from;
		return ERR_OK;
	case WIRE_ENUM:
		if (*(const int *)from < 0 || (size_t) * (const int *)from >= f->max)
			return err_set(ERR_MALFORMED, "%s: %d is unknown", f->name, *(const int *)from);
		*(int *)to = *(const int *)from;
		return ERR_OK;
	case WIRE_ONE:
		return take_one(f, pb, own);
	case WIRE_FEW:
	case WIRE_MANY:
		return take_list(f, pb, own);
	default: {
		const ProtobufCBinaryData *b = from;
		return take_bytes(f, (struct bytes){b->data, b->len}, to);
	}
	}
}

static enum err take(const struct wire_shape *shape, struct bytes message, const void *pb, void *own)
{
	for (size_t i = 0; i < shape->n_fields; i++) {
		const struct wire_field *f = &shape->fields[i];
		if (f->kind == WIRE_VIEW)
			TRY(take_view(shape, f, message, at(own, f->own)));
		else
			TRY(take_field(f, pb, own));
	}
	return shape->check != NULL ? shape->check(own) : ERR_OK;
}

enum err wire_codec_unpack(const struct wire_shape *shape, struct bytes message, void *ret_own)
{
	static const uint8_t nothing;
	if (message.p == NULL)
		message = (struct bytes){&nothing, 0};
	struct quota quota = {QUOTA_MAX};
	if (message.n < (QUOTA_MAX - QUOTA_BASE) / QUOTA_PER_BYTE)
		quota.left = QUOTA_BASE + QUOTA_PER_BYTE * message.n;
	ProtobufCAllocator allocator = {.alloc = quota_alloc, .free = quota_free, .allocator_data = &quota};
	ProtobufCMessage *pb = protobuf_c_message_unpack(shape->pb, &allocator, message.n, message.p);
	if (pb == NULL)
		return err_set(ERR_MALFORMED, "%s: not a message of this kind, or cut off", shape->pb->short_name);
	void *own = mem_new(shape->own_size);
	enum err e = take(shape, message, pb, own);
	protobuf_c_message_free_unpacked(pb, &allocator);
	if (e == ERR_OK) {
		memcpy(ret_own, own, shape->own_size);
	} else {
		err_add(e, "%s", shape->pb->short_name);
		wire_codec_free(shape, own);
	}
	free(own);
	return e;
}

void wire_codec_free(const struct wire_shape *shape, void *own)
{
	for (size_t i = 0; i < shape->n_fields; i++) {
		const struct wire_field *f = &shape->fields[i];
		void *p = at(own, f->own);
		if (f->kind == WIRE_BLOB) {
			buf_deinit(p);
		} else if (f->kind == WIRE_ONE) {
			wire_codec_free(f->sub, p);
		} else if (f->kind == WIRE_MANY) {
			uint8_t *v = *(uint8_t **)p;
			size_t n = *(size_t *)at(own, f->own_count);
			for (size_t k = 0; k < n; k++)
				wire_codec_free(f->sub, v + k * f->sub->own_size);
			free(v);
		}
	}
	memset(own, 0, shape->own_size);
}
