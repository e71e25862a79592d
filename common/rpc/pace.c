#include "rpc/pace.h"

#include "base/err.h"

_Static_assert((int64_t)PACE_MESSAGE_SIZE * 1000 <= (int64_t)PACE_PATIENCE_MS * PACE_RATE,
	       "a message outlasts patience");

enum { PATIENCE_LIMIT_MS = 24 * 3600 * 1000 }; /* nothing can overflow */

struct pace pace_begin(int64_t patience_ms)
{
	ENSURE(patience_ms > 0 && patience_ms <= PATIENCE_LIMIT_MS);
	return (struct pace){.full = patience_ms * PACE_RATE, .left = patience_ms * PACE_RATE};
}

int64_t pace_left_ms(const struct pace *p)
{
	return p->left / PACE_RATE;
}

static int64_t lesser(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

void pace_count(struct pace *p, int64_t waited_ms, size_t bytes)
{
	int64_t waited = waited_ms > 0 ? lesser(waited_ms, 2 * (int64_t)PATIENCE_LIMIT_MS) : 0;
	int64_t came = bytes < INT32_MAX ? (int64_t)bytes : INT32_MAX;
	p->left = lesser(p->left - waited * PACE_RATE + came * 1000, p->full);
	if (p->left < 0)
		p->left = 0;
}

int64_t pace_time_ms(size_t bytes)
{
	int64_t n = bytes < INT32_MAX ? (int64_t)bytes : INT32_MAX;
	return n * 1000 / PACE_RATE;
}
