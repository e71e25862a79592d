/*
 * Messages as gRPC holds them: byte buffers made of slices. A 1 MiB message arrives as more than a hundred slices.
 */
#ifndef HANSA_RPC_PAYLOAD_H
#define HANSA_RPC_PAYLOAD_H

#include "base/buf.h"
#include "rpc/wire.h"

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>

/* What gRPC is told to accept and to send at most, at both ends; the table of methods has closer limits. */
enum { PAYLOAD_MAX = 2 << 20 };

/* A message of `head` followed by `body`, both copied: what is sent may be on its way long after the caller has gone
 * on. */
grpc_byte_buffer *payload_new(struct bytes head, struct bytes body);

/* The whole message in one piece; buf_init's. ERR_MALFORMED when compressed, ERR_LIMIT over `max`. Does not free
 * `message`. */
MUST_CHECK enum err payload_read(grpc_byte_buffer *message, size_t max, struct buf *ret_content);

/*
 * A Part as it comes, slice by slice, without copying. payload_open takes the message in every case; payload_next gives
 * views that live until payload_close. A head is in one piece and comes with open.
 */
struct payload {
	grpc_byte_buffer *message; /* owned; NULL: closed */
	grpc_byte_buffer_reader reader;
	size_t skip;       /* bytes of the prefix still to be passed over */
	struct buf whole;  /* a message that is not a plain data part, in one piece */
	struct bytes data; /* its data, not given out yet */
};

/* ERR_MALFORMED, ERR_LIMIT. */
MUST_CHECK enum err payload_open(struct payload *p, grpc_byte_buffer *message, size_t max, struct wire_head *ret_head,
				 bool *ret_is_head);
/* The next stretch of data; false when there is none. */
bool payload_next(struct payload *p, struct bytes *ret_data);
void payload_close(struct payload *p); /* safe twice, and on a zeroed one */

#endif
