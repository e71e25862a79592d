/*
 * What a worker's waiting for its peer has brought so far: when others wait for a worker, the ones that wait longest for
 * least must make room. A stream can go on at its offset later, so nothing is lost but a new beginning.
 *
 * As with pace.h only waiting for the peer counts, and the present wait counts while it lasts: a stream that has stalled
 * in the middle of a message is judged like one that trickles. Pure.
 */
#ifndef HANSA_RPC_HOLD_H
#define HANSA_RPC_HOLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	HOLD_RATE = 1 << 20, /* bytes a second; slower streams make room */
	HOLD_MS = 10 * 1000, /* after so much waiting */
};

struct hold {
	int64_t waited_ms, since_ms; /* before the present wait; its beginning (monotonic) */
	bool waiting;
	uint64_t bytes;
};

void hold_wait(struct hold *h, int64_t now_ms);               /* begins to wait for the peer */
void hold_pass(struct hold *h, int64_t now_ms, size_t bytes); /* the wait is over; so much has passed */
int64_t hold_waited_ms(const struct hold *h, int64_t now_ms);
int64_t hold_silent_ms(const struct hold *h, int64_t now_ms); /* how long the present wait lasts; 0: there is none */

/* Has it waited for `after_ms` or more, for less than HOLD_RATE? */
bool hold_is_slow(const struct hold *h, int64_t now_ms, int64_t after_ms);
/* Which of two has brought less for its waiting? */
bool hold_is_slower(const struct hold *a, const struct hold *b, int64_t now_ms);

#endif
