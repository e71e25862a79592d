/*
 * Runs a fuzz target without libFuzzer: first every seed file as it is, then a fixed number of deterministic mutations of them
 * (bit flips, byte sets, cuts, doubled stretches, splices of two seeds). HANSA_FUZZ_RUNS overrides the number.
 */
#include "base/file.h"
#include "base/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SEED_MAX = 64, INPUT_MAX = 1 << 16, RUNS = 20000 };

static struct buf seeds[SEED_MAX];
static size_t n_seeds;

static enum err seed_add(void *arg, const char *name)
{
	char path[PATH_SIZE];
	if (n_seeds == SEED_MAX)
		return ERR_OK;
	TRY(file_read(path_join(path, arg, name), INPUT_MAX, &seeds[n_seeds]));
	n_seeds++;
	return ERR_OK;
}

static size_t mutate(struct rng *r, uint8_t *p, size_t n)
{
	size_t edits = 1 + rng_below(r, 8);
	for (size_t e = 0; e < edits; e++) {
		size_t at = n == 0 ? 0 : rng_below(r, n);
		switch (rng_below(r, 5)) {
		case 0:
			if (n > 0)
				p[at] ^= (uint8_t)(1u << rng_below(r, 8));
			break;
		case 1:
			if (n > 0)
				p[at] = (uint8_t)rng_u64(r);
			break;
		case 2:
			n = at;
			break;
		case 3: {
			size_t len = n == 0 ? 0 : 1 + rng_below(r, n - at);
			if (n + len <= INPUT_MAX) {
				memmove(p + at + len, p + at, n - at);
				n += len;
			}
			break;
		}
		default: {
			const struct buf *other = &seeds[rng_below(r, n_seeds)];
			size_t len = other->n < n - at ? other->n : n - at;
			if (len > 0)
				memcpy(p + at, other->p, len);
			break;
		}
		}
	}
	return n;
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: %s SEED-DIRECTORY\n", argv[0]);
		return 2;
	}
	if (dir_each(argv[1], seed_add, argv[1]) != ERR_OK) {
		fprintf(stderr, "%s\n", err_text());
		return 1;
	}
	if (n_seeds == 0) {
		fprintf(stderr, "%s: no seeds\n", argv[1]);
		return 1;
	}
	const char *runs_text = getenv("HANSA_FUZZ_RUNS");
	long runs = runs_text != NULL ? strtol(runs_text, NULL, 10) : RUNS;
	struct rng r;
	rng_seed(&r, 1);
	for (size_t i = 0; i < n_seeds; i++)
		LLVMFuzzerTestOneInput(seeds[i].p, seeds[i].n);
	for (long i = 0; i < runs; i++) {
		const struct buf *seed = &seeds[rng_below(&r, n_seeds)];
		uint8_t *input = malloc(INPUT_MAX);
		if (input == NULL)
			return 1;
		if (seed->n > 0)
			memcpy(input, seed->p, seed->n);
		size_t n = mutate(&r, input, seed->n);
		/* An exact-size copy, so that the address sanitizer sees the first byte read past the end. */
		uint8_t *exact = malloc(n > 0 ? n : 1);
		if (exact == NULL)
			return 1;
		memcpy(exact, input, n);
		LLVMFuzzerTestOneInput(exact, n);
		free(exact);
		free(input);
	}
	for (size_t i = 0; i < n_seeds; i++)
		buf_deinit(&seeds[i]);
	printf("%zu seeds, %ld mutations\n", n_seeds, runs);
	return 0;
}
