#include "swarm/transfer.h"

#include "base/clock.h"
#include "swarm/tally.h"

#include <inttypes.h>

enum { PACED_PIECE = 32 << 10, NAP_MS = 20 };

enum err transfer_offset(struct rpc_client *c, uint64_t job, uint32_t round, const struct digest *digest, uint64_t size,
			 uint64_t *ret_offset)
{
	struct wire_upload_offset_request asked = {.job = job, .round = round, .digest = *digest, .size = size};
	struct wire_upload_offset_reply given;
	struct buf request, reply = {0};
	buf_init(&request, 256);
	enum err err = wire_upload_offset_request_pack(&asked, &request);
	if (err == ERR_OK)
		err = rpc_client_call(c, METHOD_UPLOAD_OFFSET, buf_bytes(&request), 0, &reply);
	if (err == ERR_OK)
		err = wire_upload_offset_reply_unpack(buf_bytes(&reply), &given);
	if (err == ERR_OK)
		*ret_offset = given.offset;
	buf_deinit(&request);
	buf_deinit(&reply);
	return err;
}

/* A connection slower than its machine: after `done` bytes since `begun_ms`. */
static enum err pace(double rate, int64_t begun_ms, uint64_t done, const atomic_bool *stop)
{
	if (rate <= 0)
		return ERR_OK;
	int64_t due_ms = begun_ms + (int64_t)((double)done / rate * 1000);
	while (!atomic_load(stop) && clock_monotonic_ms() < due_ms) {
		int64_t left = due_ms - clock_monotonic_ms();
		clock_sleep_ms(left < NAP_MS ? left : NAP_MS);
	}
	return atomic_load(stop) ? err_set(ERR_CANCELLED, "stopped") : ERR_OK;
}

/* ---- up ---- */

static enum err stall(struct transfer_upload *u)
{
	int64_t until = clock_monotonic_ms() + u->stall_ms;
	u->stall_at = UINT64_MAX;
	while (!atomic_load(u->stop) && clock_monotonic_ms() < until)
		clock_sleep_ms(NAP_MS);
	return atomic_load(u->stop) ? err_set(ERR_CANCELLED, "stopped") : ERR_OK;
}

static enum err next_piece(void *arg, struct bytes *ret_piece)
{
	struct transfer_upload *u = arg;
	size_t max = u->rate > 0 ? PACED_PIECE : WIRE_CHUNK_SIZE;
	if (atomic_load(u->stop))
		return err_set(ERR_CANCELLED, "stopped");
	TRY(pace(u->rate, u->begun_ms, u->at - u->begun_at, u->stop));
	if (u->at >= u->stall_at)
		TRY(stall(u));
	if (u->at >= u->cut_at) {
		u->was_cut = true;
		return err_set(ERR_UNAVAILABLE, "cut on purpose at %" PRIu64, u->at);
	}
	if (u->cut_at - u->at < max)
		max = (size_t)(u->cut_at - u->at);
	struct bytes piece = content_piece(u->content, (size_t)u->at, max);
	if (piece.n == 0) {
		u->sent_ms = tally_now();
		return ERR_END;
	}
	u->at += piece.n;
	*ret_piece = piece;
	return ERR_OK;
}

enum err transfer_upload(struct rpc_client *c, const struct wire_head *head, struct transfer_upload *u,
			 struct wire_receipt *ret_receipt)
{
	struct buf reply = {0};
	u->begun_ms = clock_monotonic_ms();
	u->begun_at = u->at;
	u->sent_ms = tally_now();
	enum err err = rpc_client_upload(c, METHOD_UPLOAD_UPDATE, head, next_piece, u, &reply);
	if (err == ERR_OK)
		err = wire_receipt_unpack(buf_bytes(&reply), ret_receipt);
	buf_deinit(&reply);
	return err;
}

/* ---- down ---- */

static enum err fetch_head(void *arg, const struct wire_head *head)
{
	const struct transfer_fetch *f = arg;
	if (head->size != f->size || head->offset != f->at || !digest_equal(&head->digest, &f->digest))
		return err_set(ERR_CORRUPT, "the coordinator sends another model than was asked for");
	return ERR_OK;
}

static enum err fetch_data(void *arg, const struct bytes *pieces, size_t n)
{
	struct transfer_fetch *f = arg;
	for (size_t i = 0; i < n; i++) {
		if (pieces[i].n > f->size - f->at)
			return err_set(ERR_CORRUPT, "the coordinator sends more than it said");
		digest_add(f->digester, pieces[i].p, pieces[i].n);
		f->at += pieces[i].n;
	}
	return pace(f->rate, f->begun_ms, f->at - f->begun_at, f->stop);
}

enum err transfer_fetch(struct rpc_client *c, struct transfer_fetch *f)
{
	struct wire_fetch_request request = {.digest = f->digest, .offset = f->at};
	struct rpc_sink sink = {.head = fetch_head, .data = fetch_data, .arg = f};
	struct buf packed;
	if (f->digester == NULL)
		f->digester = digest_begin();
	f->begun_ms = clock_monotonic_ms();
	f->begun_at = f->at;
	buf_init(&packed, 256);
	enum err err = wire_fetch_request_pack(&request, &packed);
	if (err == ERR_OK)
		err = rpc_client_download(c, METHOD_FETCH, buf_bytes(&packed), &sink);
	buf_deinit(&packed);
	TRY(err);
	struct digest got = digest_end(f->digester);
	f->digester = NULL;
	if (f->at != f->size || !digest_equal(&got, &f->digest))
		return err_set(ERR_CORRUPT, "a base does not have the digest that it was announced with");
	return ERR_OK;
}

void transfer_fetch_end(struct transfer_fetch *f)
{
	digest_free(f->digester);
	f->digester = NULL;
}
