/*
 * What the tests of `update` and of the coordinator's core share: small models, and assertions on errors.
 */
#ifndef HANSA_TESTS_UPDATE_FIXTURE_H
#define HANSA_TESTS_UPDATE_FIXTURE_H

#include "base/fixture.h"

#include "base/rng.h"
#include "base/yaml.h"
#include "ml/model.h"
#include "update/manifest.h"

#define assert_ok(call)                                                                                                \
	do {                                                                                                           \
		enum err assert_ok_ = (call);                                                                          \
		if (assert_ok_ != ERR_OK)                                                                              \
			fail_msg("%s: %s (%s)", #call, err_text(), err_name(assert_ok_));                              \
	} while (0)

/* `call` fails with `code`, and its text says `part`. */
#define assert_fails(call, code, part)                                                                                 \
	do {                                                                                                           \
		enum err assert_fails_ = (call);                                                                       \
		if (assert_fails_ != (code))                                                                           \
			fail_msg("%s: is '%s' instead of '%s'", #call, err_name(assert_fails_), err_name(code));       \
		if (strstr(err_text(), (part)) == NULL)                                                                \
			fail_msg("%s: '%s' does not say '%s'", #call, err_text(), (part));                             \
	} while (0)

/* conv1 (4,1,5)+4, bn1 4+4, head (3,8)+3; then the statistics of bn1. */
static const char tiny_model[] = "name: tiny\n"
				 "input: [1, 32]\n"
				 "classes: [a, b, c]\n"
				 "layers:\n"
				 "  - {op: conv1d, name: conv1, out: 4, kernel: 5, stride: 2, padding: 2}\n"
				 "  - {op: batchnorm1d, name: bn1}\n"
				 "  - {op: relu}\n"
				 "  - {op: adaptiveavgpool1d, out: 2}\n"
				 "  - {op: flatten}\n"
				 "  - {op: linear, name: head, out: outputs}\n";
enum { TINY_WEIGHTS = 20 + 4 + 4 + 4 + 24 + 3, TINY_STATISTICS = 8, TINY_THETA = TINY_WEIGHTS + TINY_STATISTICS };

static inline struct model *model_make(const char *description, uint64_t seed)
{
	struct yaml *yaml;
	struct model *m;
	assert_ok(yaml_parse("test", bytes_str(description), &yaml));
	assert_ok(model_from_yaml(yaml_root(yaml), &m));
	yaml_free(yaml);
	model_init(m, seed);
	return m;
}

/* A list of up to two patterns; list_free(). */
static inline struct config_list list_of(const char *first, const char *second)
{
	struct config_list list = {.v = mem_array(2, sizeof *list.v)};
	const char *const items[] = {first, second};
	for (size_t i = 0; i < 2; i++) {
		if (items[i] != NULL)
			list.v[list.n++] = mem_str(items[i]);
	}
	return list;
}

static inline void list_free(struct config_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		free(list->v[i]);
	free(list->v);
	*list = (struct config_list){0};
}

static inline struct manifest *manifest_make(const struct model *m, const char *freeze, const char *local)
{
	struct config_list f = list_of(freeze, NULL), l = list_of(local, NULL);
	struct manifest *manifest;
	assert_ok(manifest_build(m, &f, &l, &manifest));
	list_free(&f);
	list_free(&l);
	return manifest;
}

/* Move every parameter by up to `width`, as local training would; variances stay positive. */
static inline void model_move(struct model *m, uint64_t seed, float width)
{
	struct rng r;
	rng_seed(&r, seed);
	for (size_t i = 0; i < m->n_theta; i++)
		m->theta[i] += width * (float)(2 * rng_uniform(&r) - 1);
}

#endif
