/*
 * Time. The pure parts of the project take times as arguments; only shells call these.
 */
#ifndef HANSA_BASE_CLOCK_H
#define HANSA_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

int64_t clock_wall_ms(void);      /* Unix time, milliseconds */
int64_t clock_monotonic_ms(void); /* never goes back; for intervals */
void clock_sleep_ms(int64_t ms);  /* ends early when a signal was handled, so a loop can ask signals_stop_asked() */

#define CLOCK_TEXT_SIZE 32
/* RFC 3339 UTC with milliseconds; returns `out`. */
const char *clock_format(int64_t wall_ms, char out[CLOCK_TEXT_SIZE]);

#endif
