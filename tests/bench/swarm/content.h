/*
 * The content of an update: random int32 fixed-point values of small magnitude. The first values are the plant's own,
 * new for every update; what follows is shared by all plants of the process, so that a thousand plants with a large
 * model need the memory of one. A small content stands in one stretch as well, as a plant's does: it goes out in one message. thread: a content belongs to one; the shared part is made by whoever needs it first.
 */
#ifndef HANSA_SWARM_CONTENT_H
#define HANSA_SWARM_CONTENT_H

#include "base/mem.h"
#include "base/rng.h"
#include "crypto/digest.h"

enum { CONTENT_OWN_SIZE = 4096, CONTENT_WHOLE_MAX = 256 << 10 };

struct content {
	uint8_t own[CONTENT_OWN_SIZE];
	struct bytes rest; /* shared, borrowed */
	uint8_t *whole;    /* owned; of a small one, own and rest; NULL */
	size_t n;          /* bytes in all */
	struct digest digest;
};

/* `elements` values; everything but the first CONTENT_OWN_SIZE bytes is shared. `c` may hold an earlier one, or zeros. */
void content_make(struct content *c, size_t elements, struct rng *rng);
/* One value out of range, for FIXED_MAX; the digest fits. */
void content_spoil(struct content *c, struct rng *rng);
void content_free(struct content *c); /* safe on a zeroed one */
/* What stands from `at` on, in one stretch of at most `max` bytes; empty at the end. */
struct bytes content_piece(const struct content *c, size_t at, size_t max);
/* When no plant runs any more. */
void content_free_shared(void);

#endif
