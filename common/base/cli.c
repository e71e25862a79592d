/*
 * The order of work: find the command (the first words that are no options), answer --help and --version wherever they
 * stand, then read everything else against the command's table. What the user did wrong is told in one line that ends
 * with where to read on.
 */
#include "base/cli.h"

#include "base/cli_help.h"
#include "base/mem.h"
#include "base/table.h"
#include "base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXIT_USAGE = 2, EXIT_CANCELLED = 130 };

/* One command line while it is read. */
struct line {
	const struct cli_command *command;
	char **argv;
	int argc;
	void *args;         /* owned; the command's argument struct */
	bool *given;        /* owned; by row of the option table */
	const char **words; /* owned; borrowed texts */
	size_t n_words;
};

static const struct cli_option no_options[] = {{0}};

const struct cli_option *cli_options(const struct cli_command *command)
{
	return command->options != NULL ? command->options : no_options;
}

static bool is_option(const char *arg)
{
	return arg[0] == '-' && arg[1] != '\0';
}

/* How many words of argv, from `at`, are the whole name of the command; 0: not this one. */
static int match_name(const struct cli_command *command, int argc, char **argv, int at)
{
	const char *name = command->name;
	for (int words = 1; at < argc; words++, at++) {
		size_t n = strcspn(name, " ");
		if (strlen(argv[at]) != n || memcmp(argv[at], name, n) != 0)
			return 0;
		if (name[n] == '\0')
			return words;
		name += n + 1;
	}
	return 0;
}

static const struct cli_command *find_command(const struct cli_program *program, int argc, char **argv, int at,
					      int *ret_words)
{
	const struct cli_command *best = NULL;
	int best_words = 0;
	for (const struct cli_command *c = program->commands; c->name != NULL; c++) {
		int words = match_name(c, argc, argv, at);
		if (words > best_words) {
			best = c;
			best_words = words;
		}
	}
	*ret_words = best_words;
	return best;
}

static bool asked(const struct line *line, const char *name, char letter)
{
	for (const struct cli_option *o = line->command != NULL ? cli_options(line->command) : no_options;
	     o->name != NULL; o++) {
		if (strcmp(o->name, name) == 0)
			return false;
		if (o->letter == letter)
			letter = '\0';
	}
	for (int i = 0; i < line->argc && strcmp(line->argv[i], "--") != 0; i++) {
		const char *arg = line->argv[i];
		if (arg[0] == '-' && arg[1] == '-' && strcmp(arg + 2, name) == 0)
			return true;
		if (letter != '\0' && arg[0] == '-' && arg[1] == letter && arg[2] == '\0')
			return true;
	}
	return false;
}

static enum err set_value(struct line *line, const struct cli_option *o, const char *value)
{
	void *field = (char *)line->args + o->offset;
	bool *given = &line->given[o - cli_options(line->command)];
	bool bounded = o->min != 0 || o->max != 0;
	double v = 0;
	int64_t n;
	if (*given)
		return err_set(ERR_USAGE, "--%s is given twice", o->name);
	*given = true;
	switch (o->type) {
	case CLI_FLAG:
		*(bool *)field = true;
		return ERR_OK;
	case CLI_STRING:
		*(const char **)field = value;
		return ERR_OK;
	case CLI_INT:
		if (!text_to_int(value, &n))
			return err_set(ERR_USAGE, "--%s expects a whole number, not '%.60s'", o->name, value);
		*(int64_t *)field = n;
		v = (double)n;
		break;
	case CLI_REAL:
		if (!text_to_real(value, &v))
			return err_set(ERR_USAGE, "--%s expects a number, not '%.60s'", o->name, value);
		*(double *)field = v;
		break;
	}
	char low[TEXT_REAL_SIZE], high[TEXT_REAL_SIZE];
	if (bounded && (v < o->min || v > o->max))
		return err_set(ERR_USAGE, "--%s: %.60s is out of range (%s to %s)", o->name, value,
			       text_real(o->min, low), text_real(o->max, high));
	return ERR_OK;
}

/* The value of an option that has none in its own word: the next one, wherever it begins. */
static enum err next_value(struct line *line, int *at, const struct cli_option *o, const char **ret_value)
{
	if (*at + 1 >= line->argc)
		return err_set(ERR_USAGE, "--%s needs a value (%s)", o->name, o->value != NULL ? o->value : "VALUE");
	*ret_value = line->argv[++*at];
	return ERR_OK;
}

static enum err unknown_option(const struct line *line, const char *arg, size_t name_length)
{
	char *name = mem_printf("%.*s", (int)name_length, arg);
	struct text_guess guess = {.word = name + 2};
	text_guess_offer(&guess, "help");
	for (const struct cli_option *o = cli_options(line->command); o->name != NULL; o++)
		text_guess_offer(&guess, o->name);
	if (name[1] == '-' && guess.best != NULL)
		err_set(ERR_USAGE, "unknown option '%.60s' (did you mean '--%s'?)", name, guess.best);
	else
		err_set(ERR_USAGE, "unknown option '%.60s'", name);
	free(name);
	return ERR_USAGE;
}

static enum err read_long(struct line *line, int *at)
{
	const char *arg = line->argv[*at], *value = strchr(arg, '=');
	size_t n = value != NULL ? (size_t)(value - arg) : strlen(arg);
	const struct cli_option *o = cli_options(line->command);
	while (o->name != NULL && (strlen(o->name) != n - 2 || memcmp(o->name, arg + 2, n - 2) != 0))
		o++;
	if (o->name == NULL)
		return unknown_option(line, arg, n);
	if (value != NULL && o->type == CLI_FLAG)
		return err_set(ERR_USAGE, "--%s takes no value", o->name);
	if (value != NULL)
		value++;
	else if (o->type != CLI_FLAG)
		TRY(next_value(line, at, o, &value));
	return set_value(line, o, value);
}

/* "-c FILE", "-cFILE", and several flags in one word. */
static enum err read_letters(struct line *line, int *at)
{
	for (const char *letter = line->argv[*at] + 1; *letter != '\0'; letter++) {
		const struct cli_option *o = cli_options(line->command);
		while (o->name != NULL && o->letter != *letter)
			o++;
		if (o->name == NULL)
			return err_set(ERR_USAGE, "unknown option '-%c'", *letter);
		if (o->type == CLI_FLAG) {
			TRY(set_value(line, o, NULL));
			continue;
		}
		const char *value = letter + 1;
		if (*value == '\0')
			TRY(next_value(line, at, o, &value));
		return set_value(line, o, value);
	}
	return ERR_OK;
}

static enum err check_complete(const struct line *line)
{
	const struct cli_command *c = line->command;
	const struct cli_option *options = cli_options(c);
	for (size_t i = 0; options[i].name != NULL; i++) {
		if (options[i].required && !line->given[i])
			return err_set(ERR_USAGE, "--%s %s is required", options[i].name,
				       options[i].value != NULL ? options[i].value : "VALUE");
	}
	if (line->n_words < c->positional_min)
		return err_set(ERR_USAGE, "%s is missing", c->arguments);
	if (line->n_words > c->positional_max)
		return err_set(ERR_USAGE, "unexpected argument '%.60s'", line->words[c->positional_max]);
	return ERR_OK;
}

static enum err read_line(struct line *line)
{
	bool options_ended = false;
	for (int i = 0; i < line->argc; i++) {
		const char *arg = line->argv[i];
		if (options_ended || !is_option(arg))
			line->words[line->n_words++] = arg;
		else if (strcmp(arg, "--") == 0)
			options_ended = true;
		else if (arg[1] == '-')
			TRY(read_long(line, &i));
		else
			TRY(read_letters(line, &i));
	}
	return check_complete(line);
}

/* One line on stderr, whatever the text holds: it may quote the user or a peer. */
static void say_line(const char *who, const char *tail)
{
	char *line = mem_printf("%s: %s%s", who, err_text(), tail);
	for (char *c = line; *c != '\0'; c++) {
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = ' ';
	}
	progress("%s", "");
	fprintf(stderr, "%s\n", line);
	free(line);
}

static int say_usage(const struct cli_program *program, const struct cli_command *command)
{
	char *who = command != NULL ? mem_printf("%s %s", program->name, command->name) : mem_str(program->name);
	char *tail = mem_printf(" (see '%s --help')", who);
	say_line(who, tail);
	free(who);
	free(tail);
	return EXIT_USAGE;
}

static int say_failure(const struct cli_program *program, const struct cli_command *command, enum err e)
{
	if (err_text()[0] == '\0')
		err_set(e, "%s", err_name(e));
	if (e == ERR_USAGE)
		return say_usage(program, command);
	say_line(program->name, "");
	return e == ERR_CANCELLED ? EXIT_CANCELLED : 1;
}

/* Output that did not arrive is a failure too: a full disk behind "> FILE". */
static enum err flush_output(void)
{
	if (fflush(stdout) != 0 || ferror(stdout))
		return err_errno("cannot write the output");
	return ERR_OK;
}

static int run(const struct cli_program *program, const struct cli_command *command, int argc, char **argv)
{
	size_t n_options = 0;
	while (cli_options(command)[n_options].name != NULL)
		n_options++;
	struct line line = {
		.command = command,
		.argv = argv,
		.argc = argc,
		.args = mem_new(command->args_size),
		.given = mem_array(n_options, sizeof *line.given),
		.words = mem_array((size_t)argc, sizeof *line.words),
	};
	int code = 0;
	if (read_line(&line) != ERR_OK) {
		code = say_usage(program, command);
	} else {
		err_set(ERR_OK, "%s", "");
		enum err e = command->run(line.args, line.words, line.n_words);
		progress("%s", "");
		if (e == ERR_OK)
			e = flush_output();
		else
			fflush(stdout);
		if (e != ERR_OK)
			code = say_failure(program, command, e);
	}
	free(line.args);
	free(line.given);
	free(line.words);
	return code;
}

/* No command fits: say what would. */
static int no_command(const struct cli_program *program, int argc, char **argv, int at)
{
	if (at >= argc || strcmp(argv[at], "--") == 0) {
		cli_help_program(program, NULL, stderr);
		return EXIT_USAGE;
	}
	if (cli_help_has_group(program, argv[at])) {
		char *names = cli_help_group(program, argv[at]);
		err_set(ERR_USAGE, "'%s' is followed by one of: %s", argv[at], names);
		free(names);
		return say_usage(program, NULL);
	}
	struct text_guess guess = {.word = argv[at]};
	for (const struct cli_command *c = program->commands; c->name != NULL; c++)
		text_guess_offer(&guess, c->name);
	if (guess.best != NULL)
		err_set(ERR_USAGE, "unknown command '%.60s' (did you mean '%s'?)", argv[at], guess.best);
	else
		err_set(ERR_USAGE, "unknown command '%.60s'", argv[at]);
	return say_usage(program, NULL);
}

int cli_main(const struct cli_program *program, int argc, char **argv)
{
	/* Options before the command: those that need no further word. */
	int at = 1, words = 0;
	while (at < argc && is_option(argv[at]) && strcmp(argv[at], "--") != 0)
		at++;
	const struct cli_command *command = find_command(program, argc, argv, at, &words);
	const struct line line = {.command = command, .argv = argv + 1, .argc = argc > 0 ? argc - 1 : 0};
	if (asked(&line, "help", 'h')) {
		if (command != NULL)
			cli_help_command(program, command, stdout);
		else
			cli_help_program(program, at < argc ? argv[at] : NULL, stdout);
		return flush_output() == ERR_OK ? 0 : say_failure(program, NULL, ERR_IO);
	}
	if (asked(&line, "version", '\0')) {
		printf("%s %s\n", program->name, program->version);
		return flush_output() == ERR_OK ? 0 : say_failure(program, NULL, ERR_IO);
	}
	if (command == NULL && at < argc && at > 1) {
		err_set(ERR_USAGE, "'%.60s' is not a command; options with a value stand behind the command", argv[at]);
		return say_usage(program, NULL);
	}
	if (command == NULL)
		return no_command(program, argc, argv, at);
	/* Everything but the command's own words. */
	char **rest = mem_array((size_t)argc, sizeof *rest);
	int n = 0;
	for (int i = 1; i < argc; i++) {
		if (i < at || i >= at + words)
			rest[n++] = argv[i];
	}
	int code = run(program, command, n, rest);
	free(rest);
	return code;
}
