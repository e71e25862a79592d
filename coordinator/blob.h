/*
 * Bytes that several own, never changed: the small base model of a round, which the round and every answer that carries
 * it hold. The last one frees it. thread: any.
 */
#ifndef HANSA_COORDINATOR_BLOB_H
#define HANSA_COORDINATOR_BLOB_H

#include "base/mem.h"

struct blob;
struct blob *blob_new(struct bytes content); /* a copy */
struct bytes blob_bytes(const struct blob *b);
struct blob *blob_share(struct blob *b); /* NULL is fine: NULL */
void blob_release(struct blob *b);       /* NULL is fine */

#endif
