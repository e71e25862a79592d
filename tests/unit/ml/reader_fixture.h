/*
 * For the tests of readers: models that a reader looks at, and configurations from a few lines of YAML.
 */
#ifndef HANSA_TEST_ML_READER_FIXTURE_H
#define HANSA_TEST_ML_READER_FIXTURE_H

#include "ml/reader.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char name_a[] = "A", name_b[] = "B", name_c[] = "C";
static char *names[] = {name_a, name_b, name_c};

/* Readers look at a model's input and classes only. */
static inline struct model model_of(struct shape input, size_t n_classes)
{
	return (struct model){
		.input = input, .n_outputs = n_classes > 0 ? n_classes : 1, .classes = {.v = names, .n = n_classes}};
}

static inline struct model windows_of(size_t channels, size_t length, size_t n_classes)
{
	return model_of((struct shape){.n = 2, .d = {channels, length}}, n_classes);
}

/* A configuration from YAML text; the caller frees it. */
static inline struct reader_config config_of(const char *path, const char *more)
{
	struct reader_config c;
	struct yaml *y;
	char *text = mem_printf("path: %s\nnormalize: none\n%s\n", path, more);
	if (strstr(more, "normalize") != NULL) {
		free(text);
		text = mem_printf("path: %s\n%s\n", path, more);
	}
	if (yaml_parse("test", bytes_str(text), &y) != ERR_OK || config_read(reader_rows, yaml_root(y), &c) != ERR_OK)
		fail_msg("%s", err_text());
	yaml_free(y);
	free(text);
	return c;
}

static inline enum err load(const char *path, const char *more, const struct model *m, struct reader_split *s)
{
	struct reader_config c = config_of(path, more);
	enum err e = reader_load(&c, m, s);
	config_free(reader_rows, &c);
	return e;
}

static inline void load_ok(const char *path, const char *more, const struct model *m, struct reader_split *s)
{
	if (load(path, more, m, s) != ERR_OK)
		fail_msg("%s: %s", more, err_text());
}

static inline void refused(const char *path, const char *more, const struct model *m, enum err want, const char *says)
{
	struct reader_split s;
	assert_int_equal(load(path, more, m, &s), want);
	if (strstr(err_text(), says) == NULL)
		fail_msg("%s: \"%s\" does not say \"%s\"", more, err_text(), says);
}

#endif
