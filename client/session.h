/*
 * A plant's lasting connection to the coordinator: calls that are repeated with back-off and jitter until they succeed,
 * the answer is final, or the user stops. thread: one at a time.
 *
 * Repeated are network trouble and trouble of the coordinator's own (io, crypto, internal: its disk may be full). So an
 * ERR_IO that comes out of here is this end's own disk.
 */
#ifndef HANSA_CLIENT_SESSION_H
#define HANSA_CLIENT_SESSION_H

#include "certs/credential.h"
#include "rpc/client.h"

struct session;
/* `cred` is borrowed. */
MUST_CHECK enum err session_open(const struct credential *cred, struct session **ret_session);
void session_close(struct session *s);

/* ERR_CANCELLED when the user stops. */
MUST_CHECK enum err session_call(struct session *s, enum method_id method, struct bytes request, struct buf *ret_reply);
/* Upload `content` under `head` (of an update), going on after a cut with what the coordinator does not have yet. */
MUST_CHECK enum err session_upload(struct session *s, enum method_id method, const struct wire_head *head,
				   struct bytes content, struct buf *ret_reply);
/* What a download is called until it is whole: `path` and this. It is kept over cuts and restarts. */
#define SESSION_PART_SUFFIX ".part"
/* Download the object `digest` of `size` bytes into the file `path` (durable; digest checked), going on where the part
 * ends; ERR_CORRUPT when it is not that, ERR_IO when it cannot be written. */
MUST_CHECK enum err session_fetch(struct session *s, const struct digest *digest, uint64_t size, const char *path);
/* Sleep; ERR_CANCELLED when the user stops. */
MUST_CHECK enum err session_nap(int64_t ms);
void session_get_bytes(const struct session *s, uint64_t *ret_sent, uint64_t *ret_received);

#endif
