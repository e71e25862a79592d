/*
 * An upload goes on where the coordinator's copy ends: it is asked after every cut, and before a large update is begun,
 * because this program may have died in the middle of that very update. What is there is not believed: the coordinator
 * reads it back through the digest, and when the whole does not have it, everything is sent once more.
 *
 * Only what has arrived counts as progress. A coordinator that answers questions and takes nothing (its disk is full)
 * is asked less and less often.
 */
#include "client/session_parts.h"

#include "base/log.h"

#include <inttypes.h>

enum { ASK_FIRST = 1 << 20 /* larger updates may be there in part before the first try */ };

struct upload {
	struct session *session;
	enum method_id method;
	struct wire_head head; /* its offset is where the next try begins */
	struct bytes content;
	size_t at;         /* what has been handed over in this try */
	uint64_t furthest; /* what has arrived in any */
	bool asks;         /* there may be something to go on from */
	bool again;        /* it is sent once more from the beginning, because what went before did not fit */
};

static enum err next_piece(void *arg, struct bytes *ret_piece)
{
	struct upload *u = arg;
	size_t left = u->content.n - u->at, n = left < WIRE_CHUNK_SIZE ? left : WIRE_CHUNK_SIZE;
	session_show("sending", u->at, u->content.n);
	if (n == 0)
		return ERR_END;
	*ret_piece = bytes_of(u->content.p + u->at, n);
	u->at += n;
	return ERR_OK;
}

/* An older coordinator has no answer: then nothing is there. */
static enum err ask(struct upload *u, uint64_t *ret_offset)
{
	struct wire_upload_offset_request request = {.job = u->head.update.job,
						     .round = u->head.update.round,
						     .size = u->head.size,
						     .digest = u->head.digest};
	struct wire_upload_offset_reply answer = {0};
	struct buf packed, reply = {0};
	buf_init(&packed, 256);
	enum err err = wire_upload_offset_request_pack(&request, &packed);
	if (err == ERR_OK)
		err = rpc_client_call(u->session->client, METHOD_UPLOAD_OFFSET, buf_bytes(&packed), 0, &reply);
	if (err == ERR_OK)
		err = wire_upload_offset_reply_unpack(buf_bytes(&reply), &answer);
	buf_deinit(&packed);
	buf_deinit(&reply);
	if (err != ERR_OK && err != ERR_NOT_FOUND)
		return err;
	*ret_offset = answer.offset <= u->head.size ? answer.offset : 0;
	return ERR_OK;
}

static enum err try_once(struct upload *u, struct buf *ret_reply)
{
	uint64_t offset = 0;
	u->head.offset = 0;
	if (u->asks)
		TRY(ask(u, &offset));
	if (offset > u->furthest) {
		u->furthest = offset;
		backoff_reset(&u->session->backoff);
	}
	if (offset > 0)
		log_info("join", "the coordinator has %" PRIu64 " of %" PRIu64 " bytes of this update; going on there",
			 offset, u->head.size);
	u->asks = true;
	u->head.offset = offset;
	u->at = (size_t)offset;
	enum err err = rpc_client_upload(u->session->client, u->method, &u->head, next_piece, u, ret_reply);
	session_show_end(u->content.n);
	return err;
}

/* May what the coordinator had of it be to blame, rather than the update? */
static bool is_of_content(enum err err)
{
	return err == ERR_MALFORMED || err == ERR_CORRUPT || err == ERR_LIMIT || err == ERR_NUMERIC ||
	       err == ERR_SHAPE || err == ERR_STATE;
}

enum err session_upload(struct session *s, enum method_id method, const struct wire_head *head, struct bytes content,
			struct buf *ret_reply)
{
	struct upload u = {
		.session = s, .method = method, .head = *head, .content = content, .asks = content.n > ASK_FIRST};
	ENSURE(head->has_update && head->offset == 0 && head->size == content.n);
	for (;;) {
		enum err err = try_once(&u, ret_reply);
		if (err == ERR_OK) {
			backoff_reset(&s->backoff);
			return ERR_OK;
		}
		if (u.head.offset > 0 && !u.again && is_of_content(err)) {
			log_warn("join", "%s: %s; sending the whole update again", s->cred->address, err_text());
			u.again = true;
			u.asks = false;
		} else {
			TRY(session_recover(s, err));
		}
	}
}
