/*
 * Command lines by table: a program is a table of commands, a command a table of options; the help texts are made from
 *them.
 *
 *	static const struct cli_option options[] = {
 *		{"config", 'c', CLI_STRING, offsetof(struct args, config), "FILE", "plant configuration (YAML)",
 *.required = true},
 *		{"json", 0, CLI_FLAG, offsetof(struct args, json), NULL, "print JSON"},
 *		{0},
 *	};
 */
#ifndef HANSA_BASE_CLI_H
#define HANSA_BASE_CLI_H

#include "base/err.h"

#include <stdint.h>

enum cli_type {
	CLI_FLAG /* bool */,
	CLI_STRING /* const char *, borrowed from argv */,
	CLI_INT /* int64_t */,
	CLI_REAL /* double */
};

struct cli_option {
	const char *name; /* "config" for --config; NULL ends the table */
	char letter;      /* 'c' for -c; 0: none */
	enum cli_type type;
	size_t offset;     /* into the command's argument struct */
	const char *value; /* name of the value in the help, NULL for flags */
	const char *help;  /* one line */
	bool required;
	double min, max; /* INT, REAL; both 0: no bounds */
};

struct cli_command {
	const char *name;      /* "join", or two words: "job start" */
	const char *arguments; /* positional arguments in the help: "JOIN-CODE"; "" when none; "NAME..." for many */
	const char *summary;   /* one line */
	const char *help;      /* what it does, paragraphs, an example; NULL: none */
	const struct cli_option *options; /* NULL: none; --help is always there */
	size_t args_size; /* size of the argument struct, zeroed before parsing; options absent on the line stay zero */
	size_t positional_min, positional_max;
	/* `words`: the positional arguments. The returned error is printed by cli_main: one line on stderr. */
	enum err (*run)(const void *args, const char *const *words, size_t n_words);
};

struct cli_program {
	const char *name, *summary, *version;
	const struct cli_command *commands; /* name NULL ends */
};

/*
 * Parse, run, print one clear line on stderr on failure. Exit code: 0; 2 for usage; 130 for ERR_CANCELLED; 1 otherwise,
 * also when the output could not be written. Options stand anywhere; before the command only flags and --name=value.
 * --help and --version are answered wherever they stand before "--".
 */
int cli_main(const struct cli_program *program, int argc, char **argv);

#endif
