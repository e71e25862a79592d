#include "base/fixture.h"

#include "base/cli.h"

struct join_args {
	const char *config;
	bool json;
	int64_t rounds;
	double rate;
	bool quiet;
};

/* What the last run saw. */
static struct join_args seen;
static char seen_words[200];
static size_t runs;
static enum err run_result;

static enum err run_join(const void *args, const char *const *words, size_t n_words)
{
	const struct join_args *a = args;
	seen = *a;
	runs++;
	seen_words[0] = '\0';
	for (size_t i = 0; i < n_words; i++)
		strcat(strcat(seen_words, words[i]), "|");
	printf("output\n");
	return run_result == ERR_OK ? ERR_OK : err_set(run_result, "it\nfailed");
}

static enum err run_bare(const void *args, const char *const *words, size_t n_words)
{
	(void)args;
	(void)words;
	runs++;
	return n_words == 0 ? ERR_OK : ERR_INTERNAL;
}

/* A failure whose text nobody set. */
static enum err run_silent(const void *args, const char *const *words, size_t n_words)
{
	(void)args;
	(void)words;
	(void)n_words;
	return ERR_DEADLINE;
}

static const struct cli_option join_options[] = {
	{"config", 'c', CLI_STRING, offsetof(struct join_args, config), "FILE", "plant configuration (YAML)",
	 .required = true},
	{"json", 'j', CLI_FLAG, offsetof(struct join_args, json), NULL, "print JSON"},
	{"rounds", 'r', CLI_INT, offsetof(struct join_args, rounds), "N", "rounds to take part in", .min = 1,
	 .max = 50},
	{"rate", 0, CLI_REAL, offsetof(struct join_args, rate), "X", "learning rate"},
	{"quiet", 'q', CLI_FLAG, offsetof(struct join_args, quiet), NULL, "say nothing"},
	{0},
};

static const struct cli_command commands[] = {
	{"join", "[NAME...]", "take part in rounds", "Runs until stopped.\n\n  hansa join -c plant.yaml", join_options,
	 sizeof(struct join_args), 0, 3, run_join},
	{"enroll", "JOIN-CODE", "make a key", NULL, NULL, 0, 1, 1, run_silent},
	{"job start", "FILE", "start a job", NULL, NULL, 0, 0, 0, run_bare},
	{"job list", "", "list jobs", NULL, NULL, 0, 0, 0, run_bare},
	{"plants", "", "list plants", NULL, NULL, 0, 0, 0, run_bare},
	{0},
};

static const struct cli_program program = {"hansa", "federated transfer learning", "1.2.3", commands};

struct result {
	int code;
	char *out, *err; /* owned */
};

/* Run a command line; words separated by one space each. */
static struct result call(const char *line)
{
	char *copy = mem_str(line), *argv[32] = {copy};
	int argc = 0;
	for (char *word = strtok(copy, " "); word != NULL; word = strtok(NULL, " "))
		argv[argc++] = word;
	memset(&seen, 0, sizeof seen);
	runs = 0;
	struct capture out = capture_begin(STDOUT_FILENO), err = capture_begin(STDERR_FILENO);
	struct result r = {.code = cli_main(&program, argc, argv)};
	r.err = capture_end(&err);
	r.out = capture_end(&out);
	/* The argument struct borrows from argv, which goes now. */
	seen.config = seen.config == NULL ? NULL : strcmp(seen.config, "f.yaml") == 0 ? "f.yaml" : "other";
	free(copy);
	return r;
}

static void done(struct result *r)
{
	free(r->out);
	free(r->err);
}

static void assert_joined(const char *line, struct join_args expected, const char *words)
{
	struct result r = call(line);
	if (r.code != 0)
		fail_msg("%s: %s", line, r.err);
	assert_string_equal(r.out, "output\n");
	assert_string_equal(r.err, "");
	assert_int_equal(runs, 1);
	assert_string_equal(seen.config, expected.config);
	assert_int_equal(seen.json, expected.json);
	assert_int_equal(seen.quiet, expected.quiet);
	assert_int_equal(seen.rounds, expected.rounds);
	assert_true(seen.rate == expected.rate);
	assert_string_equal(seen_words, words);
	done(&r);
}

static void test_forms(void **state)
{
	(void)state;
	struct join_args plain = {.config = "f.yaml"};
	assert_joined("hansa join --config f.yaml", plain, "");
	assert_joined("hansa join --config=f.yaml", plain, "");
	assert_joined("hansa join -c f.yaml", plain, "");
	assert_joined("hansa join -cf.yaml", plain, "");
	assert_joined("hansa --config=f.yaml join", plain, "");
	assert_joined("hansa join -c f.yaml a - b", plain, "a|-|b|");
	assert_joined("hansa join a -c f.yaml b", plain, "a|b|");
	assert_joined("hansa join -c f.yaml -- --json -x", plain, "--json|-x|");
	assert_joined("hansa join -c f.yaml -- --help", plain, "--help|");
	assert_joined("hansa join a join b -c f.yaml", plain, "a|join|b|");
	struct join_args all = {.config = "f.yaml", .json = true, .rounds = 7, .rate = -1.5, .quiet = true};
	assert_joined("hansa join -jq -r 7 --rate -1.5 -c f.yaml", all, "");
	assert_joined("hansa --json -q join --rounds=7 --rate=-15e-1 -c f.yaml", all, "");
	assert_joined("hansa join -qjr7 --rate -1.5 x -c f.yaml", all, "x|");
	/* An option's value may look like an option. */
	struct result r = call("hansa join -c --json");
	assert_int_equal(r.code, 0);
	assert_string_equal(seen.config, "other");
	assert_false(seen.json);
	done(&r);
}

static void test_two_words(void **state)
{
	(void)state;
	struct result r = call("hansa job list");
	assert_int_equal(r.code, 0);
	assert_int_equal(runs, 1);
	done(&r);
}

static void test_usage_errors(void **state)
{
	(void)state;
	static const struct {
		const char *line, *err;
	} cases[] = {
		{"hansa join --confg f.yaml",
		 "hansa join: unknown option '--confg' (did you mean '--config'?) (see 'hansa join --help')\n"},
		{"hansa join --confg=f.yaml",
		 "hansa join: unknown option '--confg' (did you mean '--config'?) (see 'hansa join --help')\n"},
		{"hansa join --zzz", "hansa join: unknown option '--zzz' (see 'hansa join --help')\n"},
		{"hansa join -z", "hansa join: unknown option '-z' (see 'hansa join --help')\n"},
		{"hansa join -jz", "hansa join: unknown option '-z' (see 'hansa join --help')\n"},
		{"hansa join -5", "hansa join: unknown option '-5' (see 'hansa join --help')\n"},
		{"hansa join --=x", "hansa join: unknown option '--' (see 'hansa join --help')\n"},
		{"hansa join", "hansa join: --config FILE is required (see 'hansa join --help')\n"},
		{"hansa join --config", "hansa join: --config needs a value (FILE) (see 'hansa join --help')\n"},
		{"hansa join -jc", "hansa join: --config needs a value (FILE) (see 'hansa join --help')\n"},
		{"hansa join -c a --config b", "hansa join: --config is given twice (see 'hansa join --help')\n"},
		{"hansa join -c a -jj", "hansa join: --json is given twice (see 'hansa join --help')\n"},
		{"hansa join -c a --json=1", "hansa join: --json takes no value (see 'hansa join --help')\n"},
		{"hansa join -c a -r x",
		 "hansa join: --rounds expects a whole number, not 'x' (see 'hansa join --help')\n"},
		{"hansa join -c a -r 1.5",
		 "hansa join: --rounds expects a whole number, not '1.5' (see 'hansa join --help')\n"},
		{"hansa join -c a --rounds=",
		 "hansa join: --rounds expects a whole number, not '' (see 'hansa join --help')\n"},
		{"hansa join -c a -r 0",
		 "hansa join: --rounds: 0 is out of range (1 to 50) (see 'hansa join --help')\n"},
		{"hansa join -c a -r 51",
		 "hansa join: --rounds: 51 is out of range (1 to 50) (see 'hansa join --help')\n"},
		{"hansa join -c a --rate nan",
		 "hansa join: --rate expects a number, not 'nan' (see 'hansa join --help')\n"},
		{"hansa join -c a 1 2 3 4", "hansa join: unexpected argument '4' (see 'hansa join --help')\n"},
		{"hansa enroll", "hansa enroll: JOIN-CODE is missing (see 'hansa enroll --help')\n"},
		{"hansa enroll a b", "hansa enroll: unexpected argument 'b' (see 'hansa enroll --help')\n"},
		{"hansa enroll --hlep",
		 "hansa enroll: unknown option '--hlep' (did you mean '--help'?) (see 'hansa enroll "
		 "--help')\n"},
		{"hansa jion", "hansa: unknown command 'jion' (did you mean 'join'?) (see 'hansa --help')\n"},
		{"hansa x", "hansa: unknown command 'x' (see 'hansa --help')\n"},
		{"hansa job", "hansa: 'job' is followed by one of: start, list (see 'hansa --help')\n"},
		{"hansa job stop", "hansa: 'job' is followed by one of: start, list (see 'hansa --help')\n"},
		{"hansa --config f.yaml join",
		 "hansa: 'f.yaml' is not a command; options with a value stand behind the "
		 "command (see 'hansa --help')\n"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct result r = call(cases[i].line);
		assert_int_equal(r.code, 2);
		assert_string_equal(r.err, cases[i].err);
		assert_string_equal(r.out, "");
		assert_int_equal(runs, 0);
		done(&r);
	}
}

static void test_no_command(void **state)
{
	(void)state;
	static const char *const lines[] = {"hansa", "hansa --", "hansa --json"};
	for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
		struct result r = call(lines[i]);
		assert_int_equal(r.code, 2);
		assert_non_null(strstr(r.err, "Usage: hansa COMMAND"));
		assert_string_equal(r.out, "");
		done(&r);
	}
}

static void test_help_of_the_program(void **state)
{
	(void)state;
	static const char *const lines[] = {"hansa --help", "hansa -h", "hansa --help --json", "hansa nonsense --help"};
	for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
		struct result r = call(lines[i]);
		assert_int_equal(r.code, 0);
		assert_string_equal(r.err, "");
		assert_string_equal(r.out,
				    "hansa: federated transfer learning\n\n"
				    "Usage: hansa COMMAND [OPTIONS]\n\n"
				    "Commands:\n"
				    "  join [NAME...]    take part in rounds\n"
				    "  enroll JOIN-CODE  make a key\n"
				    "  job start FILE    start a job\n"
				    "  job list          list jobs\n"
				    "  plants            list plants\n\n"
				    "'hansa COMMAND --help' tells more about a command; 'hansa --version' prints "
				    "the version.\n");
		done(&r);
	}
	struct result r = call("hansa job --help");
	assert_int_equal(r.code, 0);
	assert_non_null(strstr(r.out, "job list"));
	assert_null(strstr(r.out, "enroll"));
	done(&r);
}

static void test_help_of_a_command(void **state)
{
	(void)state;
	static const char *const lines[] = {"hansa join --help", "hansa --help join", "hansa join -c f.yaml --bad -h x",
					    "hansa join --config --help"};
	for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
		struct result r = call(lines[i]);
		assert_int_equal(r.code, 0);
		assert_int_equal(runs, 0);
		assert_string_equal(r.err, "");
		assert_string_equal(r.out, "Usage: hansa join --config FILE [OPTIONS] [NAME...]\n\n"
					   "take part in rounds\n\n"
					   "Runs until stopped.\n\n"
					   "  hansa join -c plant.yaml\n\n"
					   "Options:\n"
					   "  -c, --config FILE  plant configuration (YAML) (required)\n"
					   "  -j, --json         print JSON\n"
					   "  -r, --rounds N     rounds to take part in (1 to 50)\n"
					   "      --rate X       learning rate\n"
					   "  -q, --quiet        say nothing\n"
					   "      --help         show this text\n");
		done(&r);
	}
}

static void test_version(void **state)
{
	(void)state;
	static const char *const lines[] = {"hansa --version", "hansa join --version"};
	for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
		struct result r = call(lines[i]);
		assert_int_equal(r.code, 0);
		assert_string_equal(r.out, "hansa 1.2.3\n");
		assert_string_equal(r.err, "");
		done(&r);
	}
}

static void test_exit_codes(void **state)
{
	(void)state;
	static const struct {
		enum err e;
		int code;
		const char *err;
	} cases[] = {
		{ERR_IO, 1, "hansa: it failed\n"},
		{ERR_CONFIG, 1, "hansa: it failed\n"},
		{ERR_CANCELLED, 130, "hansa: it failed\n"},
		{ERR_USAGE, 2, "hansa join: it failed (see 'hansa join --help')\n"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		run_result = cases[i].e;
		struct result r = call("hansa join -c f.yaml");
		assert_int_equal(r.code, cases[i].code);
		assert_string_equal(r.err, cases[i].err);
		assert_string_equal(r.out, "output\n");
		done(&r);
	}
	run_result = ERR_OK;
	err_set(ERR_IO, "something old");
	struct result r = call("hansa enroll x");
	assert_int_equal(r.code, 1);
	assert_string_equal(r.err, "hansa: deadline\n");
	done(&r);
}

static void full_disk(void)
{
	int full = open("/dev/full", O_WRONLY);
	char *argv[] = {mem_str("hansa"), mem_str("join"), mem_str("-cf.yaml"), NULL};
	dup2(full, STDOUT_FILENO);
	_exit(cli_main(&program, 3, argv) == 1 ? 42 : 0);
}

static void test_output_that_does_not_arrive(void **state)
{
	(void)state;
	int status = status_of(full_disk);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 42);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forms),
		cmocka_unit_test(test_two_words),
		cmocka_unit_test(test_usage_errors),
		cmocka_unit_test(test_no_command),
		cmocka_unit_test(test_help_of_the_program),
		cmocka_unit_test(test_help_of_a_command),
		cmocka_unit_test(test_version),
		cmocka_unit_test(test_exit_codes),
		cmocka_unit_test(test_output_that_does_not_arrive),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
