/*
 * Looks for samples in what a plant sent. Usage: e2e-tapscan-tool TAP-FILE PLANT-CONFIG MODEL
 *
 * TAP-FILE holds every byte of every message that the client handed to gRPC (test builds). Any four consecutive values of the plant's
 * recordings in it, as float32 or float64, raw or normalised as the model sees them, are a leak: exit 1. Runs of equal
 * values are passed over: they say nothing.
 */
#include "base/file.h"
#include "client/plant.h"
#include "ml/npy.h"
#include "ml/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RUN = 4, TAP_MAX = 256 << 20 };

/* An open-addressing set of the 64-bit hashes of all byte strings of one length in the tap. */
struct seen {
	uint64_t *slots;
	size_t mask;
	size_t width;
};

static uint64_t hash_bytes(const uint8_t *p, size_t n)
{
	uint64_t h = 1469598103934665603u;
	for (size_t i = 0; i < n; i++)
		h = (h ^ p[i]) * 1099511628211u;
	return h == 0 ? 1 : h;
}

static struct seen seen_of(struct bytes tap, size_t width)
{
	struct seen s = {.width = width, .mask = 1};
	while (s.mask < 2 * tap.n + 2)
		s.mask *= 2;
	s.slots = mem_array(s.mask, sizeof *s.slots);
	s.mask--;
	for (size_t i = 0; i + width <= tap.n; i++) {
		uint64_t h = hash_bytes(tap.p + i, width);
		size_t at = h & s.mask;
		while (s.slots[at] != 0 && s.slots[at] != h)
			at = (at + 1) & s.mask;
		s.slots[at] = h;
	}
	return s;
}

static bool seen_has(const struct seen *s, const void *p)
{
	uint64_t h = hash_bytes(p, s->width);
	for (size_t at = h & s->mask; s->slots[at] != 0; at = (at + 1) & s->mask)
		if (s->slots[at] == h)
			return true;
	return false;
}

static size_t searched, leaks;

static void scan(const char *what, const float *v, size_t n, const struct seen *as32, const struct seen *as64)
{
	for (size_t i = 0; i + RUN <= n; i++) {
		double wide[RUN];
		for (size_t k = 0; k < RUN; k++)
			wide[k] = (double)v[i + k];
		if (v[i] == v[i + 1] && v[i] == v[i + 2] && v[i] == v[i + 3])
			continue;
		searched++;
		if (seen_has(as32, v + i) || seen_has(as64, wide)) {
			if (leaks++ < 5)
				printf("LEAK: %s, values %zu to %zu\n", what, i, i + RUN - 1);
		}
	}
}

struct folder {
	const char *dir;
	const struct seen *as32, *as64;
};

static enum err scan_file(void *arg, const char *name)
{
	const struct folder *f = arg;
	char path[PATH_SIZE];
	struct shape shape;
	float *values;
	size_t count;
	if (strlen(name) < 4 || strcmp(name + strlen(name) - 4, ".npy") != 0)
		return ERR_OK;
	TRY(npy_load(path_join(path, f->dir, name), &shape, &values));
	enum err err = shape_count(&shape, &count);
	if (err == ERR_OK)
		scan(path, values, count, f->as32, f->as64);
	free(values);
	return err;
}

static enum err run(char **argv)
{
	struct buf tap;
	struct plant_config config;
	struct model *m;
	struct reader_split split;
	TRY(file_read(argv[1], TAP_MAX, &tap));
	TRY(plant_load(argv[2], &config));
	TRY(safetensors_load(argv[3], &m));
	TRY(reader_load(&config.data, m, &split));
	struct seen as32 = seen_of(buf_bytes(&tap), RUN * sizeof(float)),
		    as64 = seen_of(buf_bytes(&tap), RUN * sizeof(double));
	struct folder folder = {config.data.path, &as32, &as64};
	TRY(dir_each(config.data.path, scan_file, &folder));
	scan("training set", split.train->x, split.train->n * split.train->width, &as32, &as64);
	scan("held-out set", split.heldout->x, split.heldout->n * split.heldout->width, &as32, &as64);
	printf("%zu bytes sent, %zu stretches of data searched for, %zu found\n", tap.n, searched, leaks);
	free(as32.slots);
	free(as64.slots);
	reader_split_free(&split);
	model_free(m);
	plant_free(&config);
	buf_deinit(&tap);
	return ERR_OK;
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	if (run(argv) != ERR_OK) {
		fprintf(stderr, "%s\n", err_text());
		return 3;
	}
	return leaks == 0 ? 0 : 1;
}
