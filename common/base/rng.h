/*
 * Reproducible pseudo-random numbers for learning and simulation: xoshiro256** seeded by splitmix64 (Blackman & Vigna
 * 2018). Never for secrets: those come from crypto/random.h.
 */
#ifndef HANSA_BASE_RNG_H
#define HANSA_BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

struct rng {
	uint64_t s[4];
	double spare; /* second normal of a Box-Muller pair */
	int has_spare;
};

void rng_seed(struct rng *r, uint64_t seed);
/* A stream of its own for (seed, label): same inputs, same stream, e.g. rng_stream(&r, seed, "dropout", round). */
void rng_stream(struct rng *r, uint64_t seed, const char *label, uint64_t index);
uint64_t rng_u64(struct rng *r);
uint64_t rng_below(struct rng *r, uint64_t n); /* uniform in [0, n), without bias; n > 0 */
double rng_uniform(struct rng *r);             /* [0, 1) */
double rng_normal(struct rng *r);              /* mean 0, variance 1 */
void rng_shuffle(struct rng *r, uint32_t *v, size_t n);

#endif
