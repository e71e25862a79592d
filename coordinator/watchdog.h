/*
 * A thread that says at regular times that this process is well, if it is: silence makes systemd start it anew. A check
 * that never returns is silence, too.
 */
#ifndef HANSA_COORDINATOR_WATCHDOG_H
#define HANSA_COORDINATOR_WATCHDOG_H

#include "base/err.h"

#include <stdint.h>

struct watchdog;
/* Every `interval_ms`, and at once: when check(arg) is ERR_OK, tell(). What it says otherwise is logged. */
MUST_CHECK enum err watchdog_start(int64_t interval_ms, enum err (*check)(void *arg), void *arg, void (*tell)(void),
				   struct watchdog **ret_watchdog);
void watchdog_stop(struct watchdog *w); /* NULL is fine */

#endif
