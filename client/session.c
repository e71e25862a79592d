#include "client/session_parts.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/signals.h"
#include "base/table.h"
#include "crypto/random.h"

#include <stdlib.h>
#include <string.h>

enum {
	BACKOFF_FIRST_MS = 500,
	BACKOFF_FIRST_ANSWERED_MS = 200, /* the coordinator is there and will take it soon: between two rounds, say */
	BACKOFF_MAX_MS = 30000,
	NAP_MS = 100
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

/* What did not come from the coordinator, but from the way to it, begins with its address (rpc/status.h). */
static bool is_answer(const struct session *s)
{
	size_t n = strlen(s->cred->address);
	return strncmp(err_text(), s->cred->address, n) != 0 || err_text()[n] != ':';
}

enum err session_recover(struct session *s, enum err err)
{
	if (signals_stop_asked())
		return err_set(ERR_CANCELLED, "stopped");
	if (!err_is_transient(err) && !is_remote_trouble(err))
		return err;
	bool answered = is_answer(s);
	s->backoff.first_ms = answered && err == ERR_UNAVAILABLE ? BACKOFF_FIRST_ANSWERED_MS : BACKOFF_FIRST_MS;
	int64_t wait_ms = backoff_next(&s->backoff, &s->rng);
	log_warn("join", "%s%s%s; trying again in %.1f s", answered ? s->cred->address : "", answered ? ": " : "",
		 err_text(), (double)wait_ms / 1000);
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
		TRY(session_recover(s, err));
	}
}

void session_get_bytes(const struct session *s, uint64_t *ret_sent, uint64_t *ret_received)
{
	rpc_client_get_bytes(s->client, ret_sent, ret_received);
}

enum { SHOWN_FROM = 1 << 20 };

void session_show(const char *what, uint64_t done, uint64_t size)
{
	if (size >= SHOWN_FROM)
		progress("%s %.1f of %.1f MB", what, (double)done / 1e6, (double)size / 1e6);
}

void session_show_end(uint64_t size)
{
	if (size >= SHOWN_FROM)
		progress("%s", "");
}
