#include "base/clock.h"

#include "base/err.h"

#include <stdio.h>
#include <time.h>

/* 0000-01-01T00:00:00.000Z and 9999-12-31T23:59:59.999Z: what RFC 3339 can write. */
static const int64_t TEXT_MS_MIN = INT64_C(-62167219200000);
static const int64_t TEXT_MS_MAX = INT64_C(253402300799999);

static int64_t now_ms(clockid_t id)
{
	struct timespec now;
	ENSURE(clock_gettime(id, &now) == 0);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t clock_wall_ms(void)
{
	return now_ms(CLOCK_REALTIME);
}

int64_t clock_monotonic_ms(void)
{
	return now_ms(CLOCK_MONOTONIC);
}

void clock_sleep_ms(int64_t ms)
{
	if (ms <= 0)
		return;
	struct timespec span = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
	nanosleep(&span, NULL);
}

const char *clock_format(int64_t wall_ms, char out[CLOCK_TEXT_SIZE])
{
	if (wall_ms < TEXT_MS_MIN)
		wall_ms = TEXT_MS_MIN;
	if (wall_ms > TEXT_MS_MAX)
		wall_ms = TEXT_MS_MAX;
	int64_t ms = wall_ms % 1000;
	if (ms < 0)
		ms += 1000;
	time_t seconds = (time_t)((wall_ms - ms) / 1000);
	struct tm utc;
	ENSURE(gmtime_r(&seconds, &utc) != NULL);
	/* The remainders are no-ops that let the compiler see that the text fits. */
	snprintf(out, CLOCK_TEXT_SIZE, "%04u-%02u-%02uT%02u:%02u:%02u.%03uZ", (unsigned)(utc.tm_year + 1900) % 10000u,
		 (unsigned)(utc.tm_mon + 1) % 100u, (unsigned)utc.tm_mday % 100u, (unsigned)utc.tm_hour % 100u,
		 (unsigned)utc.tm_min % 100u, (unsigned)utc.tm_sec % 100u, (unsigned)ms % 1000u);
	return out;
}
