/*
 * Messages as gRPC holds them: byte buffers made of slices. A 1 MiB message arrives as more than a hundred slices.
 */
#ifndef HANSA_RPC_PAYLOAD_H
#define HANSA_RPC_PAYLOAD_H

#include "base/buf.h"
#include "rpc/wire.h"

#include <grpc/byte_buffer.h>

/* What gRPC is told to accept and to send at most, at both ends; the table of methods has closer limits. */
enum { PAYLOAD_MAX = 2 << 20 };

/* A message of `head` followed by `body`, both copied: what is sent may be on its way long after the caller has gone
 * on. */
grpc_byte_buffer *payload_new(struct bytes head, struct bytes body);

/* The whole message in one piece; buf_init's. ERR_MALFORMED when compressed, ERR_LIMIT over `max`. Does not free
 * `message`. */
MUST_CHECK enum err payload_read(grpc_byte_buffer *message, size_t max, struct buf *ret_content);

/* A message of `head`, copied, followed by `body` where it lies: at `p` until `destroy(arg)` is called, which happens when
 * gRPC has let go of it: once, on any thread, perhaps long after the message itself has been freed. */
grpc_byte_buffer *payload_shared(struct bytes head, struct bytes body, void (*destroy)(void *arg), void *arg);

/*
 * A Part as it comes, without copying: a head, when there is one, and the stretches of data. payload_open takes the
 * message in every case; the views live until payload_close. A message in more stretches than PAYLOAD_PIECES_MAX, which
 * no sender of ours makes, or with fields of a later version of the protocol, is copied into one.
 */
enum { PAYLOAD_PIECES_MAX = 256 };
struct payload {
	grpc_byte_buffer *message; /* owned; NULL: closed */
	bool has_head;
	size_t n; /* stretches of data; none of them is empty */
	struct bytes v[PAYLOAD_PIECES_MAX];
	struct buf whole; /* a message that had to be copied */
};

/* *ret_head is written when there is one. ERR_MALFORMED, ERR_LIMIT. */
MUST_CHECK enum err payload_open(struct payload *p, grpc_byte_buffer *message, size_t max, struct wire_head *ret_head);
void payload_close(struct payload *p); /* safe twice, and on a zeroed one */

#endif
