#include "client/backoff.h"

int64_t backoff_next(struct backoff *b, struct rng *r)
{
	int64_t base = b->first_ms;
	for (unsigned i = 0; i < b->tries && base < b->max_ms; i++)
		base *= 2;
	if (base > b->max_ms)
		base = b->max_ms;
	b->tries++;
	return base / 2 + (int64_t)rng_below(r, (uint64_t)(base - base / 2) + 1);
}

void backoff_reset(struct backoff *b)
{
	b->tries = 0;
}
