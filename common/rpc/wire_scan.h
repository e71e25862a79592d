/*
 * The outermost fields of a protobuf message, one after another and without copying: for the places where a view into
 * the message is wanted (data of a Part, a signing request) and protobuf-c would copy.
 */
#ifndef HANSA_RPC_WIRE_SCAN_H
#define HANSA_RPC_WIRE_SCAN_H

#include "base/err.h"
#include "base/mem.h"

enum { WIRE_TYPE_VARINT = 0, WIRE_TYPE_FIXED64 = 1, WIRE_TYPE_BYTES = 2, WIRE_TYPE_FIXED32 = 5 };

struct wire_scan {
	struct bytes rest; /* what has not been looked at */
	uint32_t number;   /* of the present field */
	unsigned type;     /* WIRE_TYPE_... */
	struct bytes body; /* WIRE_TYPE_BYTES: its content; else empty */
};

/* Steps to the next field. ERR_END after the last one; ERR_MALFORMED. */
MUST_CHECK enum err wire_scan_next(struct wire_scan *s);

/* The content of bytes field `number`; empty when absent. The last one counts when there are several (protobuf's rule).
 */
MUST_CHECK enum err wire_scan_bytes(struct bytes message, uint32_t number, struct bytes *ret_body);

/* A base-128 number at the head of `in`: how many bytes it takes, or 0 when it is cut, too long or too large. */
size_t wire_scan_varint(struct bytes in, uint64_t *ret_value);

#endif
