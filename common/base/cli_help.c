#include "base/cli_help.h"

#include "base/mem.h"
#include "base/text.h"

#include <stdlib.h>
#include <string.h>

static const struct cli_option help_option = {.name = "help", .help = "show this text"};

static char *option_text(const struct cli_option *o)
{
	const char *value = o->type == CLI_FLAG ? "" : o->value != NULL ? o->value : "VALUE";
	char letter[] = {'-', o->letter, ',', ' ', '\0'};
	return mem_printf("%s--%s%s%s", o->letter != '\0' ? letter : "    ", o->name, value[0] != '\0' ? " " : "",
			  value);
}

static size_t option_width(const struct cli_option *o)
{
	char *text = option_text(o);
	size_t width = strlen(text);
	free(text);
	return width;
}

static void print_option(const struct cli_option *o, size_t width, FILE *out)
{
	char *text = option_text(o);
	fprintf(out, "  %-*s  %s", (int)width, text, o->help != NULL ? o->help : "");
	free(text);
	if (o->min != 0 || o->max != 0) {
		char low[TEXT_REAL_SIZE], high[TEXT_REAL_SIZE];
		fprintf(out, " (%s to %s)", text_real(o->min, low), text_real(o->max, high));
	}
	fprintf(out, "%s\n", o->required ? " (required)" : "");
}

static void print_usage(const struct cli_program *program, const struct cli_command *command, FILE *out)
{
	bool optional = false;
	fprintf(out, "Usage: %s %s", program->name, command->name);
	for (const struct cli_option *o = cli_options(command); o->name != NULL; o++) {
		if (o->required)
			fprintf(out, " --%s %s", o->name, o->value != NULL ? o->value : "VALUE");
		else
			optional = true;
	}
	if (optional)
		fprintf(out, " [OPTIONS]");
	if (command->arguments != NULL && command->arguments[0] != '\0')
		fprintf(out, " %s", command->arguments);
	fprintf(out, "\n");
}

void cli_help_command(const struct cli_program *program, const struct cli_command *command, FILE *out)
{
	const struct cli_option *options = cli_options(command);
	size_t width = option_width(&help_option);
	for (const struct cli_option *o = options; o->name != NULL; o++) {
		size_t own = option_width(o);
		if (own > width)
			width = own;
	}
	print_usage(program, command, out);
	fprintf(out, "\n%s\n", command->summary);
	if (command->help != NULL) {
		size_t n = strlen(command->help);
		fprintf(out, "\n%s%s", command->help, n > 0 && command->help[n - 1] == '\n' ? "" : "\n");
	}
	fprintf(out, "\nOptions:\n");
	for (const struct cli_option *o = options; o->name != NULL; o++)
		print_option(o, width, out);
	print_option(&help_option, width, out);
}

static bool is_in_group(const struct cli_command *command, const char *word)
{
	size_t n = strlen(word);
	return strncmp(command->name, word, n) == 0 && command->name[n] == ' ';
}

bool cli_help_has_group(const struct cli_program *program, const char *word)
{
	for (const struct cli_command *c = program->commands; c->name != NULL; c++) {
		if (is_in_group(c, word))
			return true;
	}
	return false;
}

char *cli_help_group(const struct cli_program *program, const char *word)
{
	char *names = mem_str("");
	for (const struct cli_command *c = program->commands; c->name != NULL; c++) {
		if (!is_in_group(c, word))
			continue;
		char *longer = mem_printf("%s%s%s", names, names[0] != '\0' ? ", " : "", c->name + strlen(word) + 1);
		free(names);
		names = longer;
	}
	return names;
}

static char *command_text(const struct cli_command *c)
{
	const char *arguments = c->arguments != NULL ? c->arguments : "";
	return mem_printf("%s%s%s", c->name, arguments[0] != '\0' ? " " : "", arguments);
}

void cli_help_program(const struct cli_program *program, const char *group, FILE *out)
{
	size_t width = 0;
	bool grouped = group != NULL && cli_help_has_group(program, group);
	for (const struct cli_command *c = program->commands; c->name != NULL; c++) {
		char *text = command_text(c);
		if (strlen(text) > width)
			width = strlen(text);
		free(text);
	}
	fprintf(out, "%s: %s\n\nUsage: %s COMMAND [OPTIONS]\n\nCommands:\n", program->name, program->summary,
		program->name);
	for (const struct cli_command *c = program->commands; c->name != NULL; c++) {
		if (grouped && !is_in_group(c, group) && strcmp(c->name, group) != 0)
			continue;
		char *text = command_text(c);
		fprintf(out, "  %-*s  %s\n", (int)width, text, c->summary);
		free(text);
	}
	fprintf(out, "\n'%s COMMAND --help' tells more about a command; '%s --version' prints the version.\n",
		program->name, program->name);
}
