/*
 * Exponential back-off with jitter: the wait before try n is uniform in [base/2, base], base doubling from
 * first_ms to max_ms. Many plants that lost one coordinator must not come back at the same instant. Pure.
 */
#ifndef HANSA_CLIENT_BACKOFF_H
#define HANSA_CLIENT_BACKOFF_H

#include "base/rng.h"

struct backoff {
	int64_t first_ms, max_ms;
	unsigned tries;
};

/* The next wait. */
int64_t backoff_next(struct backoff *b, struct rng *r);
void backoff_reset(struct backoff *b);

#endif
