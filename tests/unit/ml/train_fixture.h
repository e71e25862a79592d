/*
 * What the tests of training share: samples and configurations.
 */
#ifndef HANSA_TEST_ML_TRAIN_FIXTURE_H
#define HANSA_TEST_ML_TRAIN_FIXTURE_H

#include "ml/reference.h"

#include "ml/train.h"

/* Sines of three frequencies in noise. */
static inline struct dataset *sines(size_t n, size_t present, uint64_t seed)
{
	struct dataset *d;
	assert_int_equal(dataset_new(n, &(struct shape){2, {1, 32}}, 3, 0, &d), ERR_OK);
	struct rng r;
	rng_seed(&r, seed);
	for (size_t i = 0; i < n; i++) {
		double phase = 6.28 * rng_uniform(&r);
		d->label[i] = (uint32_t)(i % present);
		for (size_t j = 0; j < 32; j++)
			d->x[i * 32 + j] = (float)(sin(phase + (double)((d->label[i] + 1) * j)) + 0.3 * rng_normal(&r));
	}
	return d;
}

static inline struct train_config config_of(const char *text)
{
	struct yaml *yaml;
	struct train_config c;
	assert_int_equal(yaml_parse("train", bytes_str(text), &yaml), ERR_OK);
	if (config_read(train_rows, yaml_root(yaml), &c) != ERR_OK)
		fail_msg("%s", err_text());
	yaml_free(yaml);
	return c;
}

#endif
