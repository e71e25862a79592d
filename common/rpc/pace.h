/*
 * How slow a peer may be while a worker waits for it: PACE_RATE bytes a second on average, judged after PACE_PATIENCE_MS.
 *
 * A bucket of waiting time: it begins full with the patience, waiting empties it, and bytes that pass fill it again, never
 * above the patience, so a quick beginning cannot be saved up for a stall later. In any stretch of a stream this end waits
 * at most patience + bytes / PACE_RATE. Only waiting counts: a slow disk at this end is not the peer's fault. Pure.
 */
#ifndef HANSA_RPC_PACE_H
#define HANSA_RPC_PACE_H

#include <stddef.h>
#include <stdint.h>

enum {
	PACE_RATE = 16 << 10, /* bytes a second */
	PACE_PATIENCE_MS = 30 * 1000,
	/* What both ends put into one message. A message counts when all of it has come, so it must fit into the
	 * patience at the least rate: this one takes 16 s. */
	PACE_MESSAGE_SIZE = 256 << 10,
};

struct pace {
	int64_t full, left; /* bytes x milliseconds: waiting for 1 ms takes PACE_RATE, a byte gives 1000 */
};

struct pace pace_begin(int64_t patience_ms);
int64_t pace_left_ms(const struct pace *p); /* how long to wait for the peer now; 0: it is too slow */
void pace_count(struct pace *p, int64_t waited_ms, size_t bytes);
int64_t pace_time_ms(size_t bytes); /* what they take at the least rate */

#endif
