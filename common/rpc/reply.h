/*
 * One reply for many calls: packed once, and once in memory, however long some of the peers take over it. Needs nothing
 * of gRPC. thread: any.
 */
#ifndef HANSA_RPC_REPLY_H
#define HANSA_RPC_REPLY_H

#include "base/buf.h"

struct rpc_reply;
/* Takes the content of `*content`, which is empty then. The caller has one reference. */
struct rpc_reply *rpc_reply_new(struct buf *content);
struct rpc_reply *rpc_reply_share(struct rpc_reply *r);  /* one more */
struct bytes rpc_reply_bytes(const struct rpc_reply *r); /* NULL: none; valid while a reference is held */
void rpc_reply_release(struct rpc_reply *r);             /* NULL is fine */

#endif
