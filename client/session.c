#include "client/session.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/signals.h"
#include "client/backoff.h"
#include "crypto/random.h"

#include <stdlib.h>

enum { BACKOFF_FIRST_MS = 500, BACKOFF_MAX_MS = 30000, NAP_MS = 100 };

struct session {
	const struct credential *cred;
	struct rpc_client *client;
	struct backoff backoff;
	struct rng rng;
};

enum err session_open(const struct credential *cred, struct session **ret_session)
{
	if (cred->address == NULL)
		return err_set(ERR_CONFIG, "%s/peer.yaml: the coordinator's address is missing", cred->dir);
	struct rpc_client_config config = {
		.address = cred->address,
		.ca_pem = buf_bytes(&cred->ca_pem),
		.key_pem = buf_bytes(&cred->key_pem),
		.cert_pem = buf_bytes(&cred->cert_pem),
		.federation = cred->id.federation,
		.stop_asked = signals_stop_asked,
	};
	struct rpc_client *client;
	TRY(rpc_client_new(&config, &client));
	struct session *s = mem_new(sizeof *s);
	s->client = client;
	s->cred = cred;
	s->backoff = (struct backoff){.first_ms = BACKOFF_FIRST_MS, .max_ms = BACKOFF_MAX_MS};
	rng_seed(&s->rng, random_u64());
	*ret_session = s;
	return ERR_OK;
}

void session_close(struct session *s)
{
	if (s == NULL)
		return;
	rpc_client_free(s->client);
	free(s);
}

/* Trouble of the coordinator's own (its disk is full, ...): somebody will mend it there, nothing is wrong here. */
static bool is_remote_trouble(enum err err)
{
	return err == ERR_IO || err == ERR_CRYPTO || err == ERR_INTERNAL;
}

enum err session_nap(int64_t ms)
{
	for (int64_t slept = 0; slept < ms; slept += NAP_MS) {
		clock_sleep_ms(ms - slept < NAP_MS ? ms - slept : NAP_MS);
		if (signals_stop_asked())
			return err_set(ERR_CANCELLED, "stopped");
	}
	return ERR_OK;
}

/* Wait, or give up: ERR_OK means try once more. The client makes one fresh attempt to connect per call. */
static enum err recover(struct session *s, enum err err)
{
	if (signals_stop_asked())
		return err_set(ERR_CANCELLED, "stopped");
	if (!err_is_transient(err) && !is_remote_trouble(err))
		return err;
	int64_t wait_ms = backoff_next(&s->backoff, &s->rng);
	log_warn("join", "%s: %s; trying again in %.1f s", s->cred->address, err_text(), (double)wait_ms / 1000);
	return session_nap(wait_ms);
}

enum err session_call(struct session *s, enum method_id method, struct bytes request, struct buf *ret_reply)
{
	for (;;) {
		enum err err = rpc_client_call(s->client, method, request, 0, ret_reply);
		if (err == ERR_OK) {
			backoff_reset(&s->backoff);
			return ERR_OK;
		}
		TRY(recover(s, err));
	}
}

struct memory_source {
	struct bytes rest;
};

static enum err next_piece(void *arg, struct bytes *ret_piece)
{
	struct memory_source *source = arg;
	if (source->rest.n == 0)
		return ERR_END;
	size_t n = source->rest.n < WIRE_CHUNK_SIZE ? source->rest.n : WIRE_CHUNK_SIZE;
	*ret_piece = bytes_of(source->rest.p, n);
	source->rest = bytes_of(source->rest.p + n, source->rest.n - n);
	return ERR_OK;
}

enum err session_upload(struct session *s, enum method_id method, const struct wire_head *head, struct bytes content,
			struct buf *ret_reply)
{
	for (;;) {
		struct memory_source source = {content};
		enum err err = rpc_client_upload(s->client, method, head, next_piece, &source, ret_reply);
		if (err == ERR_OK) {
			backoff_reset(&s->backoff);
			return ERR_OK;
		}
		TRY(recover(s, err));
	}
}

/* This end's own disk: whatever it says, trying again or asking another question does not help. */
static enum err disk(bool *failed, enum err err)
{
	if (err == ERR_OK)
		return ERR_OK;
	*failed = true;
	return err_set(ERR_IO, "%s", err_text());
}

struct fetch_sink {
	struct file *file;
	bool disk_failed;
	struct digester *digester;
	uint64_t size;
	const struct digest *digest;
};

static enum err fetch_head(void *arg, const struct wire_head *head)
{
	struct fetch_sink *sink = arg;
	if (head->size != sink->size || head->offset != 0 || !digest_equal(&head->digest, sink->digest))
		return err_set(ERR_CORRUPT, "the coordinator sends another model than was asked for");
	return ERR_OK;
}

static enum err fetch_data(void *arg, struct bytes piece)
{
	struct fetch_sink *sink = arg;
	if (file_offset(sink->file) + piece.n > sink->size)
		return err_set(ERR_CORRUPT, "the coordinator sends more than it said");
	digest_add(sink->digester, piece.p, piece.n);
	return disk(&sink->disk_failed, file_write(sink->file, piece.p, piece.n));
}

static enum err fetch_once(struct session *s, const struct digest *digest, uint64_t size, const char *temp,
			   bool *ret_disk_failed)
{
	struct wire_fetch_request request = {.digest = *digest};
	struct fetch_sink state = {.size = size, .digest = digest};
	struct rpc_sink sink = {.head = fetch_head, .data = fetch_data, .arg = &state};
	struct buf packed;
	buf_init(&packed, 256);
	state.digester = digest_begin();
	enum err err = disk(&state.disk_failed, file_create(temp, 0600, &state.file));
	if (err == ERR_OK)
		err = wire_fetch_request_pack(&request, &packed);
	if (err == ERR_OK)
		err = rpc_client_download(s->client, METHOD_FETCH, buf_bytes(&packed), &sink);
	if (err == ERR_OK) {
		struct digest got = digest_end(state.digester);
		state.digester = NULL;
		if (file_offset(state.file) != size || !digest_equal(&got, digest))
			err = err_set(ERR_CORRUPT, "a received model does not have the digest it was announced with");
	}
	if (err == ERR_OK)
		err = disk(&state.disk_failed, file_sync(state.file));
	digest_free(state.digester);
	file_close(state.file);
	buf_deinit(&packed);
	*ret_disk_failed = state.disk_failed;
	return err;
}

enum err session_fetch(struct session *s, const struct digest *digest, uint64_t size, const char *path)
{
	char *temp = mem_printf("%s.part", path);
	bool disk_failed = false;
	enum err err;
	for (;;) {
		err = fetch_once(s, digest, size, temp, &disk_failed);
		if (err == ERR_OK || disk_failed)
			break;
		err = recover(s, err);
		if (err != ERR_OK)
			break;
	}
	if (err == ERR_OK) {
		backoff_reset(&s->backoff);
		err = disk(&disk_failed, file_rename(temp, path));
	}
	free(temp);
	return err;
}

void session_get_bytes(const struct session *s, uint64_t *ret_sent, uint64_t *ret_received)
{
	rpc_client_get_bytes(s->client, ret_sent, ret_received);
}
