#include "base/rng.h"

#include "base/err.h"

#include <math.h>

static uint64_t splitmix64(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static uint64_t rotl(uint64_t x, int k)
{
	return (x << k) | (x >> (64 - k));
}

void rng_seed(struct rng *r, uint64_t seed)
{
	*r = (struct rng){0};
	for (int i = 0; i < 4; i++)
		r->s[i] = splitmix64(&seed);
}

void rng_stream(struct rng *r, uint64_t seed, const char *label, uint64_t index)
{
	/* FNV-1a over the label; every input goes through splitmix64 before the next is mixed in, so none can undo
	 * another. */
	uint64_t hash = UINT64_C(0xcbf29ce484222325);
	for (const char *c = label; *c != '\0'; c++)
		hash = (hash ^ (unsigned char)*c) * UINT64_C(0x100000001b3);
	uint64_t state = seed;
	state = splitmix64(&state) ^ hash;
	state = splitmix64(&state) ^ index;
	rng_seed(r, splitmix64(&state));
}

uint64_t rng_u64(struct rng *r)
{
	uint64_t *s = r->s;
	uint64_t result = rotl(s[1] * 5, 7) * 9;
	uint64_t t = s[1] << 17;
	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = rotl(s[3], 45);
	return result;
}

uint64_t rng_below(struct rng *r, uint64_t n)
{
	ENSURE(n > 0);
	/* The lowest 2^64 mod n values are drawn again: what remains is a multiple of n. */
	uint64_t skip = (0 - n) % n;
	uint64_t x;
	do {
		x = rng_u64(r);
	} while (x < skip);
	return x % n;
}

double rng_uniform(struct rng *r)
{
	return (double)(rng_u64(r) >> 11) * 0x1p-53;
}

double rng_normal(struct rng *r)
{
	static const double two_pi = 6.283185307179586476925286766559;
	if (r->has_spare) {
		r->has_spare = 0;
		return r->spare;
	}
	double radius = sqrt(-2.0 * log(1.0 - rng_uniform(r))); /* 1 - u is never 0 */
	double angle = two_pi * rng_uniform(r);
	r->spare = radius * sin(angle);
	r->has_spare = 1;
	return radius * cos(angle);
}

void rng_shuffle(struct rng *r, uint32_t *v, size_t n)
{
	for (size_t i = n; i > 1; i--) {
		size_t j = rng_below(r, i);
		uint32_t swap = v[i - 1];
		v[i - 1] = v[j];
		v[j] = swap;
	}
}
