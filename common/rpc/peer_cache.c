#include "rpc/peer_cache.h"

#include "crypto/cert.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { WAYS = 4, SETS = PEER_CACHE_SIZE / WAYS };

struct entry {
	struct digest pem; /* zero: empty */
	struct peer_facts facts;
};

struct peer_cache {
	pthread_mutex_t lock;
	uint64_t parsed;
	uint8_t oldest[SETS]; /* the way that goes next */
	struct entry sets[SETS][WAYS];
};

struct peer_cache *peer_cache_new(void)
{
	struct peer_cache *c = mem_new(sizeof *c);
	pthread_mutex_init(&c->lock, NULL);
	return c;
}

void peer_cache_free(struct peer_cache *c)
{
	if (c == NULL)
		return;
	pthread_mutex_destroy(&c->lock);
	free(c);
}

static size_t set_of(const struct digest *d)
{
	return (d->b[0] | (size_t)d->b[1] << 8) % SETS;
}

static bool find(struct peer_cache *c, const struct digest *pem, struct peer_facts *ret_facts)
{
	const struct entry *v = c->sets[set_of(pem)];
	for (size_t i = 0; i < WAYS; i++) {
		if (digest_equal(&v[i].pem, pem)) {
			*ret_facts = v[i].facts;
			return true;
		}
	}
	return false;
}

static enum err parse(struct bytes pem, struct peer_facts *ret_facts)
{
	struct cert *cert;
	struct peer_facts facts;
	TRY(cert_parse(pem, &cert));
	enum err e = cert_identity(cert, &facts.id);
	facts.key = cert_key_digest(cert);
	facts.not_after_ms = cert_not_after_ms(cert);
	cert_free(cert);
	TRY(e);
	*ret_facts = facts;
	return ERR_OK;
}

enum err peer_cache_read(struct peer_cache *c, struct bytes pem, struct peer_facts *ret_facts)
{
	struct peer_facts facts;
	struct digest digest = digest_of(pem);
	pthread_mutex_lock(&c->lock);
	bool found = find(c, &digest, &facts);
	c->parsed += !found;
	pthread_mutex_unlock(&c->lock);
	if (!found) {
		TRY(parse(pem, &facts));
		pthread_mutex_lock(&c->lock);
		/* Another thread may have been here; twice does no harm, but takes a place. */
		struct peer_facts same;
		if (!find(c, &digest, &same)) {
			size_t set = set_of(&digest);
			c->sets[set][c->oldest[set]] = (struct entry){digest, facts};
			c->oldest[set] = (uint8_t)((c->oldest[set] + 1) % WAYS);
		}
		pthread_mutex_unlock(&c->lock);
	}
	*ret_facts = facts;
	return ERR_OK;
}

uint64_t peer_cache_parsed(struct peer_cache *c)
{
	pthread_mutex_lock(&c->lock);
	uint64_t n = c->parsed;
	pthread_mutex_unlock(&c->lock);
	return n;
}

enum err peer_facts_check(const struct peer_facts *facts, const char *federation, int64_t now_ms)
{
	if (strcmp(facts->id.federation, federation) != 0)
		return err_set(ERR_UNAUTHENTIC, "your certificate is of the federation %s, this is %s",
			       facts->id.federation, federation);
	/* The handshake has checked this, but a connection can outlive a certificate. */
	if (now_ms >= facts->not_after_ms)
		return err_set(ERR_UNAUTHENTIC, "your certificate has expired");
	return ERR_OK;
}
