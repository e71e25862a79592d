/*
 * What systemd is told (sd_notify(3)): one datagram to the socket named by NOTIFY_SOCKET. Nothing happens when there is none.
 * thread: any.
 */
#ifndef HANSA_COORDINATOR_NOTIFY_H
#define HANSA_COORDINATOR_NOTIFY_H

#include <stdint.h>

void notify_ready(void);
/* It may take that long: more than the unit's TimeoutStopSec, if need be. */
void notify_stopping(int64_t within_ms);
void notify_reloading(void); /* notify_ready() follows */
void notify_alive(void);
/* How often notify_alive() is wanted at least (sd_watchdog_enabled(3)); 0: not at all, or not of this process. */
int64_t notify_watchdog_ms(void);

#endif
