/*
 * The coordinator as a running whole: a federation, its engine and its two servers. `hansad serve` is this and signals; tests run it in
 * their own process.
 */
#ifndef HANSA_COORDINATOR_DAEMON_H
#define HANSA_COORDINATOR_DAEMON_H

#include "base/err.h"
#include "rpc/wire.h"

struct daemon;

/* Opens the federation of the settings file, resumes its jobs, serves. tls_policy_install() and rpc_init() come before. When this returns,
 * operator/peer.yaml has the address that is really served. */
MUST_CHECK enum err daemon_start(const char *settings_path, struct daemon **ret_daemon);
/* Answers what waits, lets running calls end for `grace_ms`, cuts the rest, stops. What had come of a cut update is kept: it goes on there
 * after the next start. NULL is fine. */
void daemon_stop(struct daemon *d, long grace_ms);
long daemon_drain_ms(const struct daemon *d); /* the grace that the settings ask for */
/* Is it well? Waits where the coordinator hangs. */
MUST_CHECK enum err daemon_check(struct daemon *d);
/* Reads the settings again and takes up what can change while it runs: log_level. ERR_CONFIG, ...: everything stays as it is. */
MUST_CHECK enum err daemon_reload(struct daemon *d, const char *settings_path);
const char *daemon_address(const struct daemon *d);           /* HOST:PORT of the main port */
const char *daemon_enrolment_address(const struct daemon *d); /* "off" when it is closed */

#endif
