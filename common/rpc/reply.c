#include "rpc/reply.h"

#include <stdatomic.h>
#include <stdlib.h>

struct rpc_reply {
	struct buf content;
	atomic_size_t refs;
};

struct rpc_reply *rpc_reply_new(struct buf *content)
{
	struct rpc_reply *r = mem_new(sizeof *r);
	r->content = *content;
	*content = (struct buf){0};
	atomic_init(&r->refs, 1);
	return r;
}

struct rpc_reply *rpc_reply_share(struct rpc_reply *r)
{
	atomic_fetch_add(&r->refs, 1);
	return r;
}

struct bytes rpc_reply_bytes(const struct rpc_reply *r)
{
	return r != NULL ? buf_bytes(&r->content) : bytes_of(NULL, 0);
}

void rpc_reply_release(struct rpc_reply *r)
{
	if (r == NULL || atomic_fetch_sub(&r->refs, 1) > 1)
		return;
	buf_deinit(&r->content);
	free(r);
}
