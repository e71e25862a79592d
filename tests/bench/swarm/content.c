#include "swarm/content.h"

#include "update/fixed.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* |q| below this: with the usual scale of 2^24 a change of at most 1/32, and no norm of a large model that alarms. */
enum { VALUE_BITS = 20 };

struct shared {
	uint8_t *p; /* owned */
	size_t n;
	struct shared *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct shared *all;

static void fill(uint8_t *out, size_t elements, struct rng *rng)
{
	for (size_t i = 0; i < elements; i += 2) {
		uint64_t u = rng_u64(rng);
		int32_t q[2] = {(int32_t)(u >> (64 - VALUE_BITS)) - (1 << (VALUE_BITS - 1)),
				(int32_t)(u & ((1 << VALUE_BITS) - 1)) - (1 << (VALUE_BITS - 1))};
		size_t n = elements - i < 2 ? 1 : 2;
		fixed_order(q, n);
		memcpy(out + i * sizeof q[0], q, n * sizeof q[0]);
	}
}

/* At least n bytes. Smaller ones that plants may still hold are kept. */
static struct bytes shared_bytes(size_t n)
{
	pthread_mutex_lock(&lock);
	struct shared *s = all;
	while (s != NULL && s->n < n)
		s = s->next;
	if (s == NULL) {
		struct rng rng;
		rng_seed(&rng, n);
		s = mem_new(sizeof *s);
		s->n = n;
		s->p = mem_array(n, 1);
		fill(s->p, n / sizeof(int32_t), &rng);
		s->next = all;
		all = s;
	}
	struct bytes b = bytes_of(s->p, n);
	pthread_mutex_unlock(&lock);
	return b;
}

void content_free_shared(void)
{
	for (struct shared *s = all, *next; s != NULL; s = next) {
		next = s->next;
		free(s->p);
		free(s);
	}
	all = NULL;
}

static struct bytes own(const struct content *c)
{
	return bytes_of(c->own, c->n - c->rest.n);
}

static void finish(struct content *c)
{
	if (c->whole != NULL) {
		memcpy(c->whole, own(c).p, own(c).n);
		if (c->rest.n > 0)
			memcpy(c->whole + own(c).n, c->rest.p, c->rest.n);
	}
	struct digester *d = digest_begin();
	digest_add(d, own(c).p, own(c).n);
	digest_add(d, c->rest.p, c->rest.n);
	c->digest = digest_end(d);
}

void content_make(struct content *c, size_t elements, struct rng *rng)
{
	c->n = elements * sizeof(int32_t);
	size_t n_own = c->n < sizeof c->own ? c->n : sizeof c->own;
	c->rest = c->n > n_own ? shared_bytes(c->n - n_own) : bytes_of(NULL, 0);
	fill(c->own, n_own / sizeof(int32_t), rng);
	content_free(c);
	if (c->n <= CONTENT_WHOLE_MAX)
		c->whole = mem_array(c->n, 1);
	finish(c);
}

void content_free(struct content *c)
{
	free(c->whole);
	c->whole = NULL;
}

void content_spoil(struct content *c, struct rng *rng)
{
	int32_t q = INT32_MAX - (int32_t)rng_below(rng, FIXED_MAX - 1);
	size_t at = (size_t)rng_below(rng, own(c).n / sizeof q) * sizeof q;
	fixed_order(&q, 1);
	memcpy(c->own + at, &q, sizeof q);
	finish(c);
}

struct bytes content_piece(const struct content *c, size_t at, size_t max)
{
	struct bytes b = c->whole != NULL ? bytes_of(c->whole, c->n) : own(c);
	if (c->whole == NULL && at >= b.n) {
		at -= b.n;
		b = c->rest;
	}
	if (at >= b.n)
		return bytes_of(NULL, 0);
	return bytes_of(b.p + at, b.n - at < max ? b.n - at : max);
}
