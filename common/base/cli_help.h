/*
 * The help texts of cli.c, made from its tables.
 */
#ifndef HANSA_BASE_CLI_HELP_H
#define HANSA_BASE_CLI_HELP_H

#include "base/cli.h"

#include <stdio.h>

/* The command's options; an empty table when it has none. */
const struct cli_option *cli_options(const struct cli_command *command);

void cli_help_command(const struct cli_program *program, const struct cli_command *command, FILE *out);
/* All commands, or, when `group` is the first word of some, those. */
void cli_help_program(const struct cli_program *program, const char *group, FILE *out);

/* Is `word` the first of two in a command's name? And the second words: "start, list, show"; free(). */
bool cli_help_has_group(const struct cli_program *program, const char *word);
char *cli_help_group(const struct cli_program *program, const char *word);

#endif
