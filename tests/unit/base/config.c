#include "base/fixture.h"

#include "base/config.h"
#include "base/file.h"
#include "base/rng.h"

#include <math.h>

struct privacy {
	double clip;
	bool on;
	char *note;
};

struct plant {
	int64_t epochs;
	double learning_rate;
	bool verbose;
	char *model;
	char *title;
	int strategy;
	int64_t deadline_ms;
	struct config_list layers;
	struct privacy privacy;
	int64_t free_int;
	double free_real;
};

enum { FEDAVG, FEDAVGM, FEDADAM, STRATEGIES };

static const char *const strategies[] = {"fedavg", "fedavgm", "fedadam", NULL};

static const struct config_row privacy_rows[] = {
	{"clip", CONFIG_REAL, offsetof(struct privacy, clip), .required = true, .min = 0, .max = 100, .help = "norm"},
	{"on", CONFIG_BOOL, offsetof(struct privacy, on), .def = "true", .help = "use it"},
	{"note", CONFIG_STRING, offsetof(struct privacy, note), .help = "for people"},
	{0},
};

static const struct config_row rows[] = {
	{"epochs", CONFIG_INT, offsetof(struct plant, epochs), .def = "1", .min = 1, .max = 10000,
	 .help = "local epochs"},
	{"learning_rate", CONFIG_REAL, offsetof(struct plant, learning_rate), .def = "0.01", .min = 0, .max = 10,
	 .help = "step size"},
	{"verbose", CONFIG_BOOL, offsetof(struct plant, verbose), .help = "say more"},
	{"model", CONFIG_STRING, offsetof(struct plant, model), .required = true, .help = "model description"},
	{"title", CONFIG_STRING, offsetof(struct plant, title), .def = "no title"},
	{"strategy", CONFIG_ENUM, offsetof(struct plant, strategy), .def = "fedavg", .names = strategies,
	 .help = "rule"},
	{"deadline", CONFIG_SECONDS, offsetof(struct plant, deadline_ms), .def = "10m", .min = 1, .max = 86400,
	 .help = "of a round"},
	{"layers", CONFIG_LIST, offsetof(struct plant, layers), .def = "[fc, 'conv*']", .min = 1, .max = 3,
	 .help = "patterns"},
	{"privacy", CONFIG_SECTION, offsetof(struct plant, privacy), .rows = privacy_rows, .help = "what may leave"},
	{"free_int", CONFIG_INT, offsetof(struct plant, free_int)},
	{"free_real", CONFIG_REAL, offsetof(struct plant, free_real)},
	{0},
};

static enum err read_text(const char *text, struct plant *p)
{
	struct yaml *y;
	memset(p, 0x5a, sizeof *p);
	assert_int_equal(yaml_parse("plant.yaml", bytes_str(text), &y), ERR_OK);
	enum err e = config_read(rows, yaml_root(y), p);
	yaml_free(y);
	return e;
}

static void test_defaults(void **state)
{
	(void)state;
	struct plant p;
	memset(&p, 0x5a, sizeof p);
	assert_int_equal(config_read(rows, NULL, &p), ERR_OK);
	assert_int_equal(p.epochs, 1);
	assert_true(p.learning_rate == 0.01);
	assert_false(p.verbose);
	assert_null(p.model);
	assert_string_equal(p.title, "no title");
	assert_int_equal(p.strategy, FEDAVG);
	assert_int_equal(p.deadline_ms, 600000);
	assert_int_equal(p.layers.n, 2);
	assert_string_equal(p.layers.v[1], "conv*");
	assert_true(p.privacy.on);
	assert_true(p.privacy.clip == 0);
	assert_null(p.privacy.note);
	config_free(rows, &p);
	assert_null(p.title);
	assert_int_equal(p.layers.n, 0);
	config_free(rows, &p);
}

static void test_read(void **state)
{
	(void)state;
	struct plant p;
	assert_int_equal(read_text("epochs: 10000\n"
				   "learning_rate: 1e-3\n"
				   "verbose: true\n"
				   "model: 5\n"
				   "title: ''\n"
				   "strategy: fedadam\n"
				   "deadline: 90s\n"
				   "layers: one\n"
				   "free_int: -9223372036854775808\n"
				   "free_real: -1e300\n"
				   "privacy:\n"
				   "  clip: 1\n"
				   "  on: false\n"
				   "  note: 'null'\n",
				   &p),
			 ERR_OK);
	assert_int_equal(p.epochs, 10000);
	assert_true(p.learning_rate == 1e-3);
	assert_true(p.verbose);
	assert_string_equal(p.model, "5");
	assert_string_equal(p.title, "");
	assert_int_equal(p.strategy, FEDADAM);
	assert_int_equal(p.deadline_ms, 90000);
	assert_int_equal(p.layers.n, 1);
	assert_string_equal(p.layers.v[0], "one");
	assert_true(p.free_int == INT64_MIN && p.free_real == -1e300);
	assert_true(p.privacy.clip == 1 && !p.privacy.on);
	assert_string_equal(p.privacy.note, "null");
	config_free(rows, &p);
	assert_int_equal(read_text("model: m\nlayers: ['1', 2]\n", &p), ERR_OK);
	assert_string_equal(p.layers.v[1], "2");
	config_free(rows, &p);
}

static void test_times(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		int64_t ms;
	} cases[] = {{"1000ms", 1000}, {"1s", 1000},      {"86400s", 86400000},
		     {"10m", 600000},  {"24h", 86400000}, {"1d", 86400000}};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct plant p;
		char *text = mem_printf("model: m\ndeadline: %s\n", cases[i].text);
		assert_int_equal(read_text(text, &p), ERR_OK);
		assert_int_equal(p.deadline_ms, cases[i].ms);
		config_free(rows, &p);
		free(text);
	}
}

static void test_refused(void **state)
{
	(void)state;
	static const struct {
		const char *text, *message;
	} cases[] = {
		{"model: m\nlerning_rate: 1\n",
		 "plant.yaml:2: unknown key 'lerning_rate' (did you mean 'learning_rate'?)"},
		{"model: m\nzzz: 1\n", "plant.yaml:2: unknown key 'zzz' (known: epochs, learning_rate, "},
		{"\nmodel: m\nepochs: 0\n", "plant.yaml:3: epochs: 0 is out of range (1 to 10000)"},
		{"epochs: 10001\n", "plant.yaml:1: epochs: 10001 is out of range (1 to 10000)"},
		{"epochs: 9223372036854775808\n", "plant.yaml:1: epochs: expected a whole number, found '92"},
		{"epochs: 1.5\n", "plant.yaml:1: epochs: expected a whole number, found '1.5'"},
		{"epochs: '5'\n", "plant.yaml:1: epochs: expected a whole number, found the text \"5\""},
		{"epochs: [1]\n", "plant.yaml:1: epochs: expected a whole number, found a list"},
		{"epochs: {a: 1}\n", "plant.yaml:1: epochs: expected a whole number, found a map"},
		{"epochs:\n", "plant.yaml:1: epochs: has no value"},
		{"epochs: ~\n", "plant.yaml:1: epochs: has no value"},
		{"learning_rate: fast\n", "plant.yaml:1: learning_rate: expected a number, found 'fast'"},
		{"learning_rate: .nan\n", "plant.yaml:1: learning_rate: expected a number"},
		{"learning_rate: nan\n", "plant.yaml:1: learning_rate: expected a number"},
		{"learning_rate: inf\n", "plant.yaml:1: learning_rate: expected a number"},
		{"learning_rate: 10.5\n", "plant.yaml:1: learning_rate: 10.5 is out of range (0 to 10)"},
		{"learning_rate: -1e-300\n", "plant.yaml:1: learning_rate: -1e-300 is out of range (0 to 10)"},
		{"verbose: yes\n", "plant.yaml:1: verbose: expected true or false, found 'yes'"},
		{"verbose: 1\n", "plant.yaml:1: verbose: expected true or false, found '1'"},
		{"model: [a]\n", "plant.yaml:1: model: expected a text, found a list"},
		{"model: null\n", "plant.yaml:1: model: has no value"},
		{"strategy: fedavgn\n",
		 "plant.yaml:1: strategy: 'fedavgn' is not one of fedavg, fedavgm, fedadam (did you mean 'fedavg'?)"},
		{"strategy: q\n", "plant.yaml:1: strategy: 'q' is not one of fedavg, fedavgm, fedadam"},
		{"deadline: 90\n", "plant.yaml:1: deadline: expected a time such as 500ms, 90s, 10m or 2h, found '90'"},
		{"deadline: 90 s\n", "plant.yaml:1: deadline: expected a time"},
		{"deadline: 1.5h\n", "plant.yaml:1: deadline: expected a time"},
		{"deadline: -5s\n", "plant.yaml:1: deadline: expected a time"},
		{"deadline: 5ms\n", "plant.yaml:1: deadline: 5ms is out of range (1s to 86400s)"},
		{"deadline: 9223372036854775807h\n", "plant.yaml:1: deadline: 9223372036854775807h is out of range"},
		{"deadline: 99999999999999999999999999s\n", "plant.yaml:1: deadline: expected a time"},
		{"layers: []\n", "plant.yaml:1: layers: 0 items; allowed are 1 to 3"},
		{"layers: [a, b, c, d]\n", "plant.yaml:1: layers: 4 items; allowed are 1 to 3"},
		{"layers: [a, [b]]\n", "plant.yaml:1: layers: item 2 is not a text"},
		{"layers: [a, ~]\n", "plant.yaml:1: layers: item 2 is not a text"},
		{"layers: {a: b}\n", "plant.yaml:1: layers: expected a list, found a map"},
		{"privacy: 5\n", "plant.yaml:1: privacy: expected a map of keys"},
		{"privacy:\n  clip: 101\n", "plant.yaml:2: clip: 101 is out of range (0 to 100)"},
		{"privacy:\n  clp: 1\n", "plant.yaml:2: unknown key 'clp' (did you mean 'clip'?)"},
		{"title: x\nprivacy:\n  on: true\n", "plant.yaml:3: clip: is required and missing (norm)"},
		{"privacy:\n", "plant.yaml:1: clip: is required and missing (norm)"},
		{"\n\nepochs: 2\n", "plant.yaml:3: model: is required and missing (model description)"},
		{"[1, 2]\n", "plant.yaml:1: expected a map of keys"},
		{"just text\n", "plant.yaml:1: expected a map of keys"},
		{"", "plant.yaml:1: model: is required and missing"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct plant p;
		assert_int_equal(read_text(cases[i].text, &p), ERR_CONFIG);
		if (strncmp(err_text(), cases[i].message, strlen(cases[i].message)) != 0)
			fail_msg("'%s' instead of '%s'", err_text(), cases[i].message);
		assert_null(p.model);
		assert_null(p.title);
		assert_null(p.layers.v);
	}
}

static void test_string_limit(void **state)
{
	(void)state;
	for (size_t n = 4096; n <= 4097; n++) {
		struct plant p;
		char *text = mem_new(n + 10);
		memcpy(text, "model: ", 7);
		memset(text + 7, 'x', n);
		assert_int_equal(read_text(text, &p), n == 4096 ? ERR_OK : ERR_CONFIG);
		if (n > 4096)
			assert_string_equal(err_text(), "plant.yaml:1: model: longer than 4096 bytes");
		config_free(rows, &p);
		free(text);
	}
}

static void test_load(void **state)
{
	(void)state;
	struct plant p;
	char *dir = scratch_make(), path[PATH_SIZE];
	path_join(path, dir, "plant.yaml");
	assert_int_equal(config_load(rows, path, &p), ERR_NOT_FOUND);
	assert_null(p.title);
	assert_int_equal(file_replace(path, bytes_str("model: net.yaml\n"), 0644), ERR_OK);
	assert_int_equal(config_load(rows, path, &p), ERR_OK);
	assert_string_equal(p.model, "net.yaml");
	config_free(rows, &p);
	assert_int_equal(file_replace(path, bytes_str("model: net.yaml\nmodel: x\n"), 0644), ERR_OK);
	assert_int_equal(config_load(rows, path, &p), ERR_CONFIG);
	assert_non_null(strstr(err_text(), ":2: duplicate key 'model'"));
	scratch_remove(dir);
}

static void bad_default(void)
{
	static const struct config_row bad[] = {{"epochs", CONFIG_INT, 0, .def = "0", .min = 1, .max = 5}, {0}};
	int64_t target;
	(void)!config_read(bad, NULL, &target);
}

static void bad_bounds(void)
{
	static const struct config_row bad[] = {{"epochs", CONFIG_INT, 0, .def = "2", .min = 1}, {0}};
	int64_t target;
	(void)!config_read(bad, NULL, &target);
}

static void test_wrong_tables_are_programmer_errors(void **state)
{
	(void)state;
	assert_dies(bad_default);
	assert_dies(bad_bounds);
}

static void test_canonical(void **state)
{
	(void)state;
	struct plant p;
	struct buf out;
	buf_init(&out, 4096);
	assert_int_equal(read_text("model: m\nverbose: true\nlearning_rate: 0.10\nprivacy: {clip: 1e9e}\n", &p),
			 ERR_CONFIG);
	assert_int_equal(read_text("model: m\nverbose: true\nlearning_rate: 0.10\nprivacy: {clip: 12.50}\n", &p),
			 ERR_OK);
	assert_int_equal(config_canonical(rows, &p, &out), ERR_OK);
	assert_string_equal(buf_str(&out), "{\"deadline\":600000,\"epochs\":1,\"free_int\":0,\"free_real\":\"0\","
					   "\"layers\":[\"fc\",\"conv*\"],\"learning_rate\":\"0.1\",\"model\":\"m\","
					   "\"privacy\":{\"clip\":\"12.5\",\"on\":1},\"strategy\":\"fedavg\","
					   "\"title\":\"no title\",\"verbose\":1}");
	buf_reset(&out);
	/* What a program put there itself is checked too. */
	p.free_real = (double)NAN;
	assert_int_equal(config_canonical(rows, &p, &out), ERR_NUMERIC);
	p.free_real = 0;
	p.model[0] = (char)0xff;
	assert_int_equal(config_canonical(rows, &p, &out), ERR_CONFIG);
	p.model[0] = 'm';
	p.layers.v[1][0] = (char)0xff;
	assert_int_equal(config_canonical(rows, &p, &out), ERR_CONFIG);
	assert_int_equal(out.n, 0);
	config_free(rows, &p);
	buf_deinit(&out);
}

static char *random_text(struct rng *r)
{
	static const char *const pieces[] = {"a", "\"", "\\",   "\n",   "\u00fc", "\U0001F6A2",
					     " ", "1",  "\x01", "null", "true",   ":"};
	struct buf b;
	buf_init(&b, 1000);
	for (size_t i = 0, n = rng_below(r, 8); i <= n; i++) {
		const char *piece = i == 0 ? "" : pieces[rng_below(r, sizeof pieces / sizeof pieces[0])];
		assert_int_equal(buf_append(&b, piece, strlen(piece)), ERR_OK);
	}
	return (char *)b.p;
}

static double random_real(struct rng *r)
{
	for (;;) {
		uint64_t bits = rng_u64(r);
		double v;
		memcpy(&v, &bits, sizeof v);
		if (isfinite(v))
			return v;
	}
}

static void randomise(struct rng *r, struct plant *p)
{
	*p = (struct plant){
		.epochs = 1 + (int64_t)rng_below(r, 10000),
		.learning_rate = 10 * rng_uniform(r),
		.verbose = rng_below(r, 2),
		.model = random_text(r),
		.title = random_text(r),
		.strategy = (int)rng_below(r, STRATEGIES),
		.deadline_ms = 1000 + (int64_t)rng_below(r, 86399001),
		.privacy = {100 * rng_uniform(r), rng_below(r, 2), rng_below(r, 2) ? random_text(r) : NULL},
		.free_int = (int64_t)rng_u64(r),
		.free_real = random_real(r),
	};
	p->layers.n = 1 + rng_below(r, 3);
	p->layers.v = mem_array(p->layers.n, sizeof *p->layers.v);
	for (size_t i = 0; i < p->layers.n; i++)
		p->layers.v[i] = random_text(r);
}

static void assert_same_text(const char *a, const char *b)
{
	assert_int_equal(a == NULL, b == NULL);
	if (a != NULL)
		assert_string_equal(a, b);
}

static void assert_same(const struct plant *a, const struct plant *b)
{
	assert_int_equal(a->epochs, b->epochs);
	assert_memory_equal(&a->learning_rate, &b->learning_rate, sizeof a->learning_rate);
	assert_int_equal(a->verbose, b->verbose);
	assert_same_text(a->model, b->model);
	assert_same_text(a->title, b->title);
	assert_int_equal(a->strategy, b->strategy);
	assert_int_equal(a->deadline_ms, b->deadline_ms);
	assert_int_equal(a->layers.n, b->layers.n);
	for (size_t i = 0; i < a->layers.n; i++)
		assert_same_text(a->layers.v[i], b->layers.v[i]);
	assert_memory_equal(&a->privacy.clip, &b->privacy.clip, sizeof a->privacy.clip);
	assert_int_equal(a->privacy.on, b->privacy.on);
	assert_same_text(a->privacy.note, b->privacy.note);
	assert_int_equal(a->free_int, b->free_int);
	assert_memory_equal(&a->free_real, &b->free_real, sizeof a->free_real);
}

static void test_canonical_inverse(void **state)
{
	(void)state;
	struct rng r;
	rng_seed(&r, 11);
	for (int i = 0; i < 3000; i++) {
		struct plant p, back;
		struct buf text, again;
		buf_init(&text, 1 << 16);
		buf_init(&again, 1 << 16);
		randomise(&r, &p);
		memset(&back, 0x5a, sizeof back);
		assert_int_equal(config_canonical(rows, &p, &text), ERR_OK);
		assert_int_equal(config_from_canonical(rows, buf_bytes(&text), &back), ERR_OK);
		assert_same(&p, &back);
		assert_int_equal(config_canonical(rows, &back, &again), ERR_OK);
		assert_string_equal(buf_str(&text), buf_str(&again));
		config_free(rows, &p);
		config_free(rows, &back);
		buf_deinit(&text);
		buf_deinit(&again);
	}
}

static void test_from_canonical_refuses(void **state)
{
	(void)state;
	static const struct {
		const char *text, *message;
	} cases[] = {
		{"", "JSON: "},
		{"[]", "is not a map"},
		{"{\"epochs\":1}", "model: is missing"},
		{"{\"model\":\"m\",\"modl\":1}", "unknown key 'modl'"},
		{"{\"model\":5}", "model: expected a text"},
		{"{\"model\":null}", "model: expected a text"},
		{"{\"model\":\"m\",\"epochs\":0}", "epochs: 0 is out of range"},
		{"{\"model\":\"m\",\"epochs\":\"1\"}", "epochs: expected a whole number"},
		{"{\"model\":\"m\",\"epochs\":1.0}", "epochs: expected a whole number"},
		{"{\"model\":\"m\",\"learning_rate\":1}", "learning_rate: expected a number"},
		{"{\"model\":\"m\",\"learning_rate\":\"nan\"}", "learning_rate: expected a number"},
		{"{\"model\":\"m\",\"learning_rate\":\"11\"}", "learning_rate: 11 is out of range"},
		{"{\"model\":\"m\",\"verbose\":true}", "verbose: expected true or false"},
		{"{\"model\":\"m\",\"verbose\":2}", "verbose: expected true or false"},
		{"{\"model\":\"m\",\"strategy\":\"fedsgd\"}", "strategy: 'fedsgd' is not one of"},
		{"{\"model\":\"m\",\"strategy\":0}", "strategy: expected a name"},
		{"{\"model\":\"m\",\"deadline\":999}", "deadline: 999ms is out of range"},
		{"{\"model\":\"m\",\"deadline\":-1}", "deadline: -1ms is negative"},
		{"{\"model\":\"m\",\"deadline\":\"1s\"}", "deadline: expected a time"},
		{"{\"model\":\"m\",\"layers\":\"a\"}", "layers: expected a list"},
		{"{\"model\":\"m\",\"layers\":[]}", "layers: 0 items"},
		{"{\"model\":\"m\",\"layers\":[\"a\",1]}", "layers: item 2 is not a text"},
		{"{\"model\":\"m\",\"privacy\":1}", "privacy: is not a map"},
		{"{\"model\":\"m\",\"privacy\":{\"clip\":\"1\",\"x\":1}}", "privacy: unknown key 'x'"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct plant p;
		memset(&p, 0x5a, sizeof p);
		assert_int_equal(config_from_canonical(rows, bytes_str(cases[i].text), &p), ERR_MALFORMED);
		if (strncmp(err_text(), cases[i].message, strlen(cases[i].message)) != 0)
			fail_msg("'%s' instead of '%s'", err_text(), cases[i].message);
		assert_null(p.model);
		assert_null(p.title);
		assert_null(p.layers.v);
	}
}

struct limits {
	char *name;
	int64_t count, pause_ms;
	double share;
	struct config_list items;
};

struct nest {
	struct limits always, sometimes;
};

static const struct config_row limit_rows[] = {
	{"name", CONFIG_STRING, offsetof(struct limits, name), .required = true},
	{"count", CONFIG_INT, offsetof(struct limits, count), .required = true, .min = 1, .max = 5},
	{"pause", CONFIG_SECONDS, offsetof(struct limits, pause_ms), .required = true, .min = 1, .max = 5},
	{"share", CONFIG_REAL, offsetof(struct limits, share), .required = true, .min = 1, .max = 5},
	{"items", CONFIG_LIST, offsetof(struct limits, items), .required = true, .min = 1, .max = 5},
	{0},
};

static const struct config_row nest_rows[] = {
	{"always", CONFIG_SECTION, offsetof(struct nest, always), .rows = limit_rows, .required = true},
	{"sometimes", CONFIG_SECTION, offsetof(struct nest, sometimes), .rows = limit_rows},
	{0},
};

#define FULL "{name: x, count: 1, pause: 1s, share: 1, items: [a]}"

static void test_canonical_of_a_section_left_out(void **state)
{
	(void)state;
	static const struct {
		const char *text, *message; /* NULL: accepted */
	} cases[] = {
		{"always: " FULL "\n", NULL},
		{"always: " FULL "\nsometimes: " FULL "\n", NULL},
		{"always: " FULL "\nsometimes: {name: x}\n", "t:2: count: is required"},
		{"sometimes: " FULL "\n", "t:1: always: is required"},
		{"always: {name: x}\n", "t:1: count: is required"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct yaml *y;
		struct nest n, back;
		struct buf text, again;
		assert_int_equal(yaml_parse("t", bytes_str(cases[i].text), &y), ERR_OK);
		enum err e = config_read(nest_rows, yaml_root(y), &n);
		yaml_free(y);
		if (cases[i].message != NULL) {
			assert_int_equal(e, ERR_CONFIG);
			assert_memory_equal(err_text(), cases[i].message, strlen(cases[i].message));
			continue;
		}
		assert_int_equal(e, ERR_OK);
		buf_init(&text, 1000);
		buf_init(&again, 1000);
		assert_int_equal(config_canonical(nest_rows, &n, &text), ERR_OK);
		assert_int_equal(config_from_canonical(nest_rows, buf_bytes(&text), &back), ERR_OK);
		assert_int_equal(back.sometimes.count, n.sometimes.count);
		assert_int_equal(config_canonical(nest_rows, &back, &again), ERR_OK);
		assert_string_equal(buf_str(&text), buf_str(&again));
		config_free(nest_rows, &n);
		config_free(nest_rows, &back);
		buf_deinit(&text);
		buf_deinit(&again);
	}
}

static void test_required_is_never_unset(void **state)
{
	(void)state;
	static const char head[] = "{\"always\":{", tail[] = "},\"sometimes\":{}}";
	static const struct {
		const char *middle;
		enum err e;
	} cases[] = {
		{"\"count\":1,\"items\":[\"a\"],\"name\":\"x\",\"pause\":1000,\"share\":\"1\"", ERR_OK},
		{"\"count\":0,\"items\":[\"a\"],\"name\":\"x\",\"pause\":1000,\"share\":\"1\"", ERR_MALFORMED},
		{"\"count\":1,\"items\":[],\"name\":\"x\",\"pause\":1000,\"share\":\"1\"", ERR_MALFORMED},
		{"\"count\":1,\"items\":[\"a\"],\"pause\":1000,\"share\":\"1\"", ERR_MALFORMED},
		{"\"count\":1,\"items\":[\"a\"],\"name\":\"x\",\"pause\":0,\"share\":\"1\"", ERR_MALFORMED},
		{"\"count\":1,\"items\":[\"a\"],\"name\":\"x\",\"pause\":1000,\"share\":\"0\"", ERR_MALFORMED},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct nest n;
		char *text = mem_printf("%s%s%s", head, cases[i].middle, tail);
		assert_int_equal(config_from_canonical(nest_rows, bytes_str(text), &n), cases[i].e);
		config_free(nest_rows, &n);
		free(text);
	}
}

static void test_from_canonical_of_an_older_release(void **state)
{
	(void)state;
	/* Keys that did not exist then have their defaults. */
	struct plant p;
	assert_int_equal(config_from_canonical(rows, bytes_str("{\"model\":\"m\",\"epochs\":7}"), &p), ERR_OK);
	assert_int_equal(p.epochs, 7);
	assert_int_equal(p.deadline_ms, 600000);
	assert_string_equal(p.title, "no title");
	assert_int_equal(p.layers.n, 2);
	assert_true(p.privacy.on);
	config_free(rows, &p);
}

static void test_describe(void **state)
{
	(void)state;
	struct buf out;
	buf_init(&out, 10000);
	assert_int_equal(config_describe(rows, &out), ERR_OK);
	assert_string_equal(buf_str(&out), "epochs         integer 1 to 10000        1              local epochs\n"
					   "learning_rate  number 0 to 10            0.01           step size\n"
					   "verbose        true or false             -              say more\n"
					   "model          text                      required       model description\n"
					   "title          text                      no title\n"
					   "strategy       fedavg, fedavgm, fedadam  fedavg         rule\n"
					   "deadline       time 1s to 86400s         10m            of a round\n"
					   "layers         list of 1 to 3            [fc, 'conv*']  patterns\n"
					   "privacy:                                                what may leave\n"
					   "  clip         number 0 to 100           required       norm\n"
					   "  on           true or false             true           use it\n"
					   "  note         text                      -              for people\n"
					   "free_int       integer                   -\n"
					   "free_real      number                    -\n");
	buf_deinit(&out);
	buf_init(&out, 100);
	assert_int_equal(config_describe(rows, &out), ERR_LIMIT);
	buf_deinit(&out);
}

enum { COLOUR_RED, COLOUR_BLUE };
static const char *const colours[] = {[COLOUR_RED] = "red", [COLOUR_BLUE] = "blue", NULL};

struct young {
	int64_t n, time;
	double x;
	bool on;
	int colour;
	char *text, *none;
	struct config_list list;
};

static const struct config_row young_rows[] = {
	{"n", CONFIG_INT, offsetof(struct young, n), .def = "5", .max = 9, .young = true},
	{"time", CONFIG_SECONDS, offsetof(struct young, time), .def = "30s", .max = 60, .young = true},
	{"x", CONFIG_REAL, offsetof(struct young, x), .def = "0.5", .max = 1, .young = true},
	{"on", CONFIG_BOOL, offsetof(struct young, on), .def = "true", .young = true},
	{"colour", CONFIG_ENUM, offsetof(struct young, colour), .def = "blue", .names = colours, .young = true},
	{"text", CONFIG_STRING, offsetof(struct young, text), .def = "none", .young = true},
	{"none", CONFIG_STRING, offsetof(struct young, none), .young = true},
	{"list", CONFIG_LIST, offsetof(struct young, list), .young = true},
	{0},
};

/* Keys that an older release did not know stand there only when they are used. */
static void test_young_keys_are_left_out_at_their_default(void **state)
{
	(void)state;
	static const struct {
		const char *yaml, *canonical;
	} cases[] = {
		{"{}", "{}"},
		{"n: 5\ntime: 30s\nx: 0.5\non: true\ncolour: blue\ntext: none\nlist: []", "{}"},
		{"n: 0", "{\"n\":0}"},
		{"time: 0s", "{\"time\":0}"},
		{"x: 0.25", "{\"x\":\"0.25\"}"},
		{"on: false", "{\"on\":0}"},
		{"colour: red", "{\"colour\":\"red\"}"},
		{"text: all", "{\"text\":\"all\"}"},
		{"none: some", "{\"none\":\"some\"}"},
		{"list: [a]", "{\"list\":[\"a\"]}"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct yaml *yaml;
		struct young v, back;
		struct buf text, again;
		buf_init(&text, 4096);
		buf_init(&again, 4096);
		assert_int_equal(yaml_parse("young", bytes_str(cases[i].yaml), &yaml), ERR_OK);
		assert_int_equal(config_read(young_rows, yaml_root(yaml), &v), ERR_OK);
		assert_int_equal(config_canonical(young_rows, &v, &text), ERR_OK);
		assert_string_equal(buf_str(&text), cases[i].canonical);
		assert_int_equal(config_from_canonical(young_rows, buf_bytes(&text), &back), ERR_OK);
		assert_int_equal(config_canonical(young_rows, &back, &again), ERR_OK);
		assert_string_equal(buf_str(&again), buf_str(&text));
		config_free(young_rows, &v);
		config_free(young_rows, &back);
		yaml_free(yaml);
		buf_deinit(&text);
		buf_deinit(&again);
	}
	/* A text of this release that says a default is read all the same. */
	struct young v;
	assert_int_equal(config_from_canonical(young_rows, bytes_str("{\"n\":5}"), &v), ERR_OK);
	assert_int_equal(v.n, 5);
	config_free(young_rows, &v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_read),
		cmocka_unit_test(test_times),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_string_limit),
		cmocka_unit_test(test_load),
		cmocka_unit_test(test_wrong_tables_are_programmer_errors),
		cmocka_unit_test(test_canonical),
		cmocka_unit_test(test_canonical_inverse),
		cmocka_unit_test(test_from_canonical_refuses),
		cmocka_unit_test(test_canonical_of_a_section_left_out),
		cmocka_unit_test(test_required_is_never_unset),
		cmocka_unit_test(test_from_canonical_of_an_older_release),
		cmocka_unit_test(test_young_keys_are_left_out_at_their_default),
		cmocka_unit_test(test_describe),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
