#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "client/plant.h"
#include "temp.h"

#include <string.h>

static char dir[PATH_SIZE], path[PATH_SIZE];

static enum err load(const char *text, struct plant_config *ret_config)
{
	temp_write(dir, "plant.yaml", text, strlen(text));
	return plant_load(path_join(path, dir, "plant.yaml"), ret_config);
}

static void paths_are_relative_to_the_file(void **state)
{
	(void)state;
	struct plant_config c;
	char expected[PATH_SIZE];
	assert_int_equal(load("data: {path: recordings}\nstate: /var/lib/hansa\n", &c), ERR_OK);
	assert_string_equal(c.data.path, path_join(expected, dir, "recordings"));
	assert_string_equal(c.state, "/var/lib/hansa");
	assert_string_equal(c.identity, path_join(expected, dir, "identity"));
	assert_null(c.model);
	plant_free(&c);
}

static void metrics_are_shared_only_when_named(void **state)
{
	(void)state;
	struct plant_config c;
	assert_int_equal(load("data: {path: x}\nshare: []\n", &c), ERR_OK);
	for (size_t i = 0; plant_metrics[i] != NULL; i++)
		assert_false(plant_shares(&c, plant_metrics[i]));
	plant_free(&c);
	assert_int_equal(load("data: {path: x}\nshare: [accuracy]\n", &c), ERR_OK);
	assert_true(plant_shares(&c, "accuracy"));
	assert_false(plant_shares(&c, "loss"));
	plant_free(&c);
}

static void mistakes_are_named(void **state)
{
	(void)state;
	static const struct {
		const char *text, *says;
	} cases[] = {
		{"data: {path: x}\nshare: [names]\n", "no metric is called 'names'"},
		{"state: x\n", "data"},
		{"data: {path: x}\nlearning: 1\n", "plant.yaml:2"},
		{"data: {path: x, labls: 3}\n", "plant.yaml:1"},
		{"data: {path: x}\ntrain: {lr: -1}\n", "plant.yaml:2"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct plant_config c;
		assert_int_equal(load(cases[i].text, &c), ERR_CONFIG);
		if (strstr(err_text(), cases[i].says) == NULL)
			fail_msg("case %zu says: %s", i, err_text());
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(paths_are_relative_to_the_file),
		cmocka_unit_test(metrics_are_shared_only_when_named),
		cmocka_unit_test(mistakes_are_named),
	};
	temp_make(dir);
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	temp_remove(dir);
	return failed;
}
