/*
 * Private to session*.c:
 *
 *	session.c         the connection, calls, back-off
 *	session_upload.c  an update on its way out, over cuts
 *	session_fetch.c   a model on its way in, over cuts and restarts
 */
#ifndef HANSA_CLIENT_SESSION_PARTS_H
#define HANSA_CLIENT_SESSION_PARTS_H

#include "base/rng.h"
#include "client/backoff.h"
#include "client/session.h"

struct session {
	const struct credential *cred; /* borrowed */
	struct rpc_client *client;
	struct backoff backoff; /* a success resets it, and so does a transfer that has got further */
	struct rng rng;
};

/* Wait, or give up: ERR_OK means try once more. The client makes one fresh attempt to connect per call. */
MUST_CHECK enum err session_recover(struct session *s, enum err err);

/* Shown on a terminal: "sending 12.0 of 46.8 MB". Of short transfers nothing is. */
void session_show(const char *what, uint64_t done, uint64_t size);
void session_show_end(uint64_t size);

#endif
