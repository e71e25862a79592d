/*
 * Private to the wire files: a message as a table. Each row ties a field of the generated struct to one of ours and
 * says what it may hold; the same rows pack, unpack (with every check) and free. Includes the generated header: only
 * wire*.c may include this.
 */
#ifndef HANSA_RPC_WIRE_CODEC_H
#define HANSA_RPC_WIRE_CODEC_H

#include "base/buf.h"
#include "rpc/wire.h"

#include <hansa.pb-c.h>
#include <stddef.h>

enum wire_kind {
	WIRE_U32,
	WIRE_U64,
	WIRE_BOOL,
	WIRE_REAL,   /* finite */
	WIRE_ENUM,   /* 0 to max - 1 */
	WIRE_ROLE,   /* enum role; its name on the wire */
	WIRE_NAME,   /* char[max]: letters, digits, space, dot, dash, underscore */
	WIRE_TEXT,   /* char[max]: UTF-8 without control characters */
	WIRE_FIXED,  /* uint8_t[max], exactly */
	WIRE_DIGEST, /* struct digest; absent is zero */
	WIRE_BLOB,   /* struct buf of at most max bytes, owned */
	WIRE_VIEW,   /* struct bytes of at most max bytes, into the packed message; outermost level only */
	WIRE_ONE,  /* a message; own_count: offset of the bool that says whether it is there; required: always there, no
		      bool */
	WIRE_FEW,  /* at most max messages in an array inside our struct; own_count: offset of their number (size_t) */
	WIRE_MANY, /* at most max messages in an owned array; own_count likewise */
};

struct wire_shape;

struct wire_field {
	const char *name; /* as in the protocol; for messages of errors */
	enum wire_kind kind;
	size_t pb, own;             /* offsets of the value */
	size_t pb_count, own_count; /* offsets of number or presence; WIRE_FEW, WIRE_MANY, WIRE_ONE */
	size_t max;
	bool required; /* absent or empty is ERR_MALFORMED */
	const struct wire_shape *sub;
};

struct wire_shape {
	const ProtobufCMessageDescriptor *pb;
	size_t own_size;
	const struct wire_field *fields;
	size_t n_fields;
	enum err (*check)(const void *own); /* what no single field can say; may be NULL */
};

/* Rows: {FIELD(U64, Task, job, wire_task, job)}, {FIELD_TEXT(NAME, Task, job_name, wire_task, job_name), .required =
 * true} */
#define FIELD(kind_, pb_type, pb_field, own_type, own_field)                                                           \
	.name = #pb_field, .kind = WIRE_##kind_, .pb = offsetof(Hansa__V1__##pb_type, pb_field),                       \
	.own = offsetof(struct own_type, own_field)
#define FIELD_TEXT(kind_, pb_type, pb_field, own_type, own_field)                                                      \
	FIELD(kind_, pb_type, pb_field, own_type, own_field), .max = sizeof(((struct own_type *)0)->own_field)
#define FIELD_MANY(kind_, pb_type, pb_field, own_type, own_field, own_number)                                          \
	FIELD(kind_, pb_type, pb_field, own_type, own_field),                                                          \
		.pb_count = offsetof(Hansa__V1__##pb_type, n_##pb_field),                                              \
		.own_count = offsetof(struct own_type, own_number)
#define FIELD_METRICS(pb_type, own_type)                                                                               \
	FIELD_MANY(FEW, pb_type, metrics, own_type, metrics.v, metrics.n), .max = WIRE_METRICS_MAX,                    \
									   .sub = &wire_metric_shape

/* {SHAPE(task, wire_task, task_fields), .check = task_check} */
#define SHAPE(descriptor, own_type, rows)                                                                              \
	.pb = &hansa__v1__##descriptor##__descriptor, .own_size = sizeof(struct own_type), .fields = rows,             \
	.n_fields = sizeof rows / sizeof rows[0]

/* The functions that wire.h promises for a message. */
#define WIRE_DEFINE(name, type, shape)                                                                                 \
	enum err wire_##name##_pack(const struct type *in, struct buf *out)                                            \
	{                                                                                                              \
		return wire_codec_pack(shape, in, out);                                                                \
	}                                                                                                              \
	enum err wire_##name##_unpack(struct bytes message, struct type *ret_out)                                      \
	{                                                                                                              \
		return wire_codec_unpack(shape, message, ret_out);                                                     \
	}
#define WIRE_DEFINE_FREE(name, type, shape)                                                                            \
	void wire_##name##_free(struct type *m)                                                                        \
	{                                                                                                              \
		wire_codec_free(shape, m);                                                                             \
	}

MUST_CHECK enum err wire_codec_pack(const struct wire_shape *shape, const void *own, struct buf *out);
MUST_CHECK enum err wire_codec_unpack(const struct wire_shape *shape, struct bytes message, void *ret_own);
void wire_codec_free(const struct wire_shape *shape, void *own); /* frees what it owns and zeroes it; safe twice */

extern const struct wire_shape wire_metric_shape;

#endif
