#include "rpc/hold.h"

void hold_wait(struct hold *h, int64_t now_ms)
{
	h->since_ms = now_ms;
	h->waiting = true;
}

int64_t hold_silent_ms(const struct hold *h, int64_t now_ms)
{
	return h->waiting && now_ms > h->since_ms ? now_ms - h->since_ms : 0;
}

int64_t hold_waited_ms(const struct hold *h, int64_t now_ms)
{
	return h->waited_ms + hold_silent_ms(h, now_ms);
}

void hold_pass(struct hold *h, int64_t now_ms, size_t bytes)
{
	h->waited_ms = hold_waited_ms(h, now_ms);
	h->waiting = false;
	h->bytes += bytes;
}

static double rate(const struct hold *h, int64_t now_ms)
{
	int64_t waited_ms = hold_waited_ms(h, now_ms);
	return (double)h->bytes * 1000 / (double)(waited_ms > 0 ? waited_ms : 1);
}

bool hold_is_slow(const struct hold *h, int64_t now_ms, int64_t after_ms)
{
	return hold_waited_ms(h, now_ms) >= after_ms && rate(h, now_ms) < HOLD_RATE;
}

bool hold_is_slower(const struct hold *a, const struct hold *b, int64_t now_ms)
{
	return rate(a, now_ms) < rate(b, now_ms);
}
