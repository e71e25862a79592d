/*
 * systemd's readiness protocol (sd_notify(3)): one datagram to the socket named by NOTIFY_SOCKET. Nothing happens when there is none.
 */
#ifndef HANSA_COORDINATOR_NOTIFY_H
#define HANSA_COORDINATOR_NOTIFY_H

void notify_ready(void);
void notify_stopping(void);

#endif
