#include "update/fixture.h"

#include "update/job.h"

static const char text[] =
	"name: bearings\n"
	"source: source.safetensors\n"
	"model: model.yaml\n"
	"rounds: 12\n"
	"quorum: 3\n"
	"deadline: 10m\n"
	"plants: [north, south, east]\n"
	"local: ['bn1.*']\n"
	"clip_norm: 5\n"
	"norm_max: 5\n"
	"train: {epochs: 3, batch: 16, optimizer: sgd, lr: 0.01, momentum: 0.9, freeze: ['conv1.*']}\n"
	"personalise: {epochs: 5}\n";

static enum err read_text(const char *yaml_text, struct job_config *ret_config)
{
	struct yaml *yaml;
	TRY(yaml_parse("job.yaml", bytes_str(yaml_text), &yaml));
	enum err e = config_read(job_rows, yaml_root(yaml), ret_config);
	yaml_free(yaml);
	if (e != ERR_OK)
		return e;
	e = job_check(ret_config);
	if (e != ERR_OK)
		config_free(job_rows, ret_config);
	return e;
}

/* `text` with the first `from` replaced by `to`. */
static enum err read_changed(const char *from, const char *to, struct job_config *ret_config)
{
	const char *at = strstr(text, from);
	assert_non_null(at);
	char *changed = mem_printf("%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
	enum err e = read_text(changed, ret_config);
	free(changed);
	return e;
}

static char *canonical(const struct job_config *c)
{
	struct buf b;
	buf_init(&b, 1 << 20);
	assert_ok(config_canonical(job_wire_rows, c, &b));
	char *copy = mem_str(buf_str(&b));
	buf_deinit(&b);
	return copy;
}

static void a_job_is_read(void **state)
{
	(void)state;
	struct job_config c;
	assert_ok(read_text(text, &c));
	assert_string_equal(c.name, "bearings");
	assert_string_equal(c.source, "source.safetensors");
	assert_string_equal(c.model, "model.yaml");
	assert_int_equal(c.strategy, 0);
	assert_int_equal(c.rounds, 12);
	assert_int_equal(c.quorum, 3);
	assert_int_equal(c.deadline, 600000);
	assert_int_equal(c.plants.n, 3);
	assert_string_equal(c.plants.v[1], "south");
	assert_int_equal(c.local.n, 1);
	assert_true(c.server_rate == 1 && c.clip_norm == 5 && c.norm_max == 5);
	assert_int_equal(c.train.epochs, 3);
	assert_true(c.train.optim.lr == 0.01);
	assert_int_equal(c.personalise.epochs, 5);
	config_free(job_rows, &c);
}

static void what_is_not_said_has_defaults(void **state)
{
	(void)state;
	struct job_config c;
	assert_ok(read_text("name: x\nsource: s\n", &c));
	assert_int_equal(c.rounds, 10);
	assert_int_equal(c.quorum, 2);
	assert_int_equal(c.deadline, 600000);
	assert_int_equal(c.failures_max, 3);
	assert_int_equal(c.plants.n, 0);
	assert_int_equal(c.personalise.epochs, 0);
	assert_true(c.server_rate == 1 && c.clip_norm == 0 && c.norm_max == 0);
	assert_true(c.train.epochs >= 1 && c.train.batch >= 1 && c.train.optim.lr > 0);
	assert_null(c.model);
	config_free(job_rows, &c);
}

static void the_wire_has_all_but_the_paths(void **state)
{
	(void)state;
	struct job_config c, d, plant = {0};
	assert_ok(read_text(text, &c));
	assert_ok(read_changed("source.safetensors", "elsewhere/other.safetensors", &d));
	char *a = canonical(&c), *b = canonical(&d);
	/* Where the operator keeps the files makes no other job. */
	assert_string_equal(a, b);
	assert_null(strstr(a, "safetensors"));
	assert_null(strstr(a, "model.yaml"));
	struct digest x = job_hash(bytes_str(a)), y = digest_of(bytes_str(b));
	assert_true(digest_equal(&x, &y));
	assert_ok(config_from_canonical(job_wire_rows, bytes_str(a), &plant));
	assert_ok(job_check(&plant));
	assert_null(plant.source);
	char *again = canonical(&plant);
	assert_string_equal(a, again);
	config_free(job_rows, &d);
	assert_ok(read_changed("lr: 0.01", "lr: 0.02", &d));
	free(b);
	b = canonical(&d);
	assert_string_not_equal(a, b);
	free(a);
	free(b);
	free(again);
	config_free(job_rows, &c);
	config_free(job_rows, &d);
	config_free(job_wire_rows, &plant);
}

/* Texts of releases that did not know a key are the canonical ones of those that do not use it, and the other way round. */
static void young_keys_stand_there_when_they_are_used(void **state)
{
	(void)state;
	static const struct {
		const char *yaml, *json;
	} cases[] = {
		{"cohort: 3", "\"cohort\":3"},
		{"goal: 3", "\"goal\":3"},
		{"grace: 0s", "\"grace\":0"},
		{"late: carry", "\"late\":\"carry\""},
		{"late_weight: inverse", "\"late_weight\":\"inverse\""},
		{"late_max: 11", "\"late_max\":11"},
		{"keep_updates: all", "\"keep_updates\":\"all\""},
		{"keep_updates: 5", "\"keep_updates\":\"5\""},
		{"keep_models: 1", "\"keep_models\":\"1\""},
	};
	static const char *const defaults =
		"quorum: 3\ncohort: 0\ngoal: 0\ngrace: 30s\nlate: refuse\nlate_weight: sqrt\n"
		"late_max: 10\nkeep_updates: none\nkeep_models: all";
	struct job_config c, back = {0};
	assert_ok(read_text(text, &c));
	char *plain = canonical(&c);
	config_free(job_rows, &c);
	assert_null(strstr(plain, "cohort"));
	assert_null(strstr(plain, "keep_"));
	assert_ok(read_changed("quorum: 3", defaults, &c));
	char *said = canonical(&c);
	assert_string_equal(said, plain);
	assert_int_equal(c.grace, 30000);
	free(said);
	config_free(job_rows, &c);
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		char *line = mem_printf("quorum: 3\n%s", cases[i].yaml);
		assert_ok(read_changed("quorum: 3", line, &c));
		said = canonical(&c);
		assert_non_null(strstr(said, cases[i].json));
		assert_true(strlen(said) == strlen(plain) + strlen(cases[i].json) + 1);
		assert_ok(config_from_canonical(job_wire_rows, bytes_str(said), &back));
		char *again = canonical(&back);
		assert_string_equal(again, said);
		free(again);
		free(said);
		free(line);
		config_free(job_rows, &c);
		config_free(job_wire_rows, &back);
	}
	free(plain);
}

static void what_is_kept_is_a_number_of_rounds(void **state)
{
	(void)state;
	static const struct {
		const char *yaml;
		uint32_t updates, models;
	} cases[] = {
		{"rounds: 12", 0, JOB_KEEP_ALL},
		{"keep_updates: all\nkeep_models: 3", JOB_KEEP_ALL, 3},
		{"keep_updates: 100000\nkeep_models: 100000", 100000, 100000},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct job_config c;
		assert_ok(read_changed("rounds: 12", cases[i].yaml, &c));
		assert_int_equal(job_keep_updates(&c), cases[i].updates);
		assert_int_equal(job_keep_models(&c), cases[i].models);
		config_free(job_rows, &c);
	}
}

static void what_cannot_be_is_told(void **state)
{
	(void)state;
	static const struct {
		const char *from, *to, *says;
	} cases[] = {
		{"name: bearings", "name: ''", "name"},
		{"name: bearings", "name: ' x'", "name"},
		{"name: bearings", "name: 'x '", "name"},
		{"name: bearings", "name: a/b", "name"},
		{"name: bearings", "name: \"a\\nb\"", "name"},
		{"name: bearings\n", "", "name"},
		{"name: bearings", "name: aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbccccccccccccccccdddddddddddddddd", "name"},
		{"source: source.safetensors\n", "", "source"},
		{"rounds: 12", "rounds: 0", "rounds"},
		{"quorum: 3", "quorum: 0", "quorum"},
		{"quorum: 3", "quorum: 4", "quorum: 4 updates cannot come from 3 plants"},
		{"quorum: 3", "quorum: 4097", "quorum"},
		{"quorum: 3", "qourum: 3", "quorum"},
		{"quorum: 3", "quorum: 3\ncohort: 2", "quorum: 3 is more than cohort 2"},
		{"quorum: 3", "quorum: 3\ngoal: 2", "quorum: 3 is more than goal 2"},
		{"quorum: 3", "quorum: 2\ngoal: 3\ncohort: 2", "goal: 3 is more than cohort 2"},
		{"quorum: 3", "quorum: 2\ngoal: 4", "goal: 4 updates cannot come from 3 plants"},
		{"quorum: 3", "quorum: 2\ncohort: 4", "cohort: 4 updates cannot come from 3 plants"},
		{"quorum: 3", "cohort: 4097", "cohort"},
		{"quorum: 3", "goal: -1", "goal"},
		{"quorum: 3", "grace: 2d", "grace"},
		{"quorum: 3", "late: maybe", "late"},
		{"quorum: 3", "late_weight: none", "late_weight"},
		{"quorum: 3", "late_max: 0", "late_max"},
		{"quorum: 3", "late_max: 1001", "late_max"},
		{"quorum: 3", "keep_updates: 0", "keep_updates: none, all, or a number"},
		{"quorum: 3", "keep_updates: 05", "keep_updates"},
		{"quorum: 3", "keep_updates: '-1'", "keep_updates"},
		{"quorum: 3", "keep_updates: 100001", "keep_updates"},
		{"quorum: 3", "keep_updates: 99999999999999999999", "keep_updates"},
		{"quorum: 3", "keep_models: none", "keep_models: all, or a number"},
		{"quorum: 3", "keep_models: ''", "keep_models"},
		{"quorum: 3", "keep_models: 1x", "keep_models"},
		{"deadline: 10m", "deadline: 0s", "deadline"},
		{"deadline: 10m", "deadline: 10", "deadline"},
		{"[north, south, east]", "[north, south, north]", "'north' stands there twice"},
		{"[north, south, east]", "[north, South, east]", "'South' is not a plant's name"},
		{"[north, south, east]", "[north, '../x', east]", "'../x' is not a plant's name"},
		{"[north, south, east]", "[north, '', east]", "not a plant's name"},
		{"norm_max: 5", "norm_max: 4", "norm_max: 4 would refuse"},
		{"clip_norm: 5", "clip_norm: -1", "clip_norm"},
		{"clip_norm: 5", "server_rate: 0", "server_rate"},
		{"clip_norm: 5", "strategy: fedsgd", "strategy"},
		{"clip_norm: 5", "seed: -1", "seed"},
		{"{epochs: 5}", "{epochs: -1}", "epochs"},
		{"{epochs: 5}", "{batch: 5}", "batch"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct job_config c;
		assert_fails(read_changed(cases[i].from, cases[i].to, &c), ERR_CONFIG, cases[i].says);
	}
	struct job_config c = {0};
	assert_fails(job_check(&c), ERR_CONFIG, "name");
}

static void names_may_be_as_on_the_wire(void **state)
{
	(void)state;
	static const char *const names[] = {"a", "A b", "bearings_2026.11-x", "0",
					    "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbccccccccccccccccddddddddddddddd"};
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		struct job_config c;
		char *line = mem_printf("name: '%s'", names[i]);
		assert_ok(read_changed("name: bearings", line, &c));
		assert_string_equal(c.name, names[i]);
		config_free(job_rows, &c);
		free(line);
	}
}

static void personalising_is_training_with_changes(void **state)
{
	(void)state;
	struct job_config c;
	assert_ok(read_text(text, &c));
	struct train_config t = job_personalise_train(&c);
	assert_int_equal(t.epochs, 5);
	assert_int_equal(t.batch, c.train.batch);
	assert_true(t.optim.lr == c.train.optim.lr && t.optim.momentum == c.train.optim.momentum);
	assert_ptr_equal(t.freeze.v, c.train.freeze.v);
	config_free(job_rows, &c);
	assert_ok(read_changed("{epochs: 5}", "{epochs: 2, lr: 0.5, freeze: ['bn1.*', 'conv1.*']}", &c));
	t = job_personalise_train(&c);
	assert_int_equal(t.epochs, 2);
	assert_true(t.optim.lr == 0.5);
	assert_int_equal(t.freeze.n, 2);
	assert_int_equal(c.train.freeze.n, 1);
	config_free(job_rows, &c);
}

static void seeds_differ_where_they_must(void **state)
{
	(void)state;
	char name[] = "bearings", other[] = "bearings2";
	struct job_config c = {.name = name, .seed = 7};
	uint64_t seeds[] = {
		job_plant_seed(&c, 1, "north"),
		job_plant_seed(&c, 2, "north"),
		job_plant_seed(&c, 1, "south"),
		job_plant_seed(&(struct job_config){.name = other, .seed = 7}, 1, "north"),
		job_plant_seed(&(struct job_config){.name = name, .seed = 8}, 1, "north"),
	};
	for (size_t i = 0; i < sizeof seeds / sizeof seeds[0]; i++) {
		for (size_t k = 0; k < i; k++)
			assert_true(seeds[i] != seeds[k]);
	}
	/* Nothing else counts: neither the rest of the configuration nor where the job runs. */
	c.rounds = 99;
	assert_true(job_plant_seed(&c, 1, "north") == seeds[0]);
	/* The first eight bytes of SHA-256("hansa plant seed\n7\nbearings\n1\nnorth\n"), little-endian. */
	assert_true(seeds[0] == UINT64_C(0x47cca0a0cb8f15e4));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_job_is_read),
		cmocka_unit_test(what_is_not_said_has_defaults),
		cmocka_unit_test(the_wire_has_all_but_the_paths),
		cmocka_unit_test(young_keys_stand_there_when_they_are_used),
		cmocka_unit_test(what_is_kept_is_a_number_of_rounds),
		cmocka_unit_test(what_cannot_be_is_told),
		cmocka_unit_test(names_may_be_as_on_the_wire),
		cmocka_unit_test(personalising_is_training_with_changes),
		cmocka_unit_test(seeds_differ_where_they_must),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
