#include "coordinator/blob.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct blob {
	atomic_uint users;
	uint8_t *p; /* owned */
	size_t n;
};

struct blob *blob_new(struct bytes content)
{
	struct blob *b = mem_new(sizeof *b);
	atomic_init(&b->users, 1);
	b->p = mem_array(content.n, 1);
	b->n = content.n;
	if (content.n > 0)
		memcpy(b->p, content.p, content.n);
	return b;
}

struct bytes blob_bytes(const struct blob *b)
{
	return bytes_of(b->p, b->n);
}

struct blob *blob_share(struct blob *b)
{
	if (b != NULL)
		atomic_fetch_add(&b->users, 1);
	return b;
}

void blob_release(struct blob *b)
{
	if (b == NULL || atomic_fetch_sub(&b->users, 1) > 1)
		return;
	free(b->p);
	free(b);
}
