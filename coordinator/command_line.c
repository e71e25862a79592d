#include "coordinator/commands.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

/* The latest result. */
static char **kept, *kept_option;

/* The value of `option` at argv[*at], in the same word or the next; NULL: another word. */
static const char *value_at(int argc, char **argv, const char *option, int *at)
{
	size_t n = strlen(option);
	if (strncmp(argv[*at], option, n) != 0)
		return NULL;
	if (argv[*at][n] == '=')
		return argv[*at] + n + 1;
	if (argv[*at][n] != '\0' || *at + 1 >= argc)
		return NULL;
	return argv[++*at];
}

char **command_line(int argc, char **argv, const char *option, int *ret_argc)
{
	free(kept);
	free(kept_option);
	char **out = mem_array((size_t)argc + 2, sizeof *out);
	char *joined = NULL;
	int n = 0;
	bool ended = false;
	for (int i = 0; i < argc; i++) {
		ended = ended || strcmp(argv[i], "--") == 0;
		const char *value = i > 0 && !ended ? value_at(argc, argv, option, &i) : NULL;
		if (value == NULL) {
			out[n++] = argv[i];
			continue;
		}
		char *longer = joined == NULL ? mem_printf("%s=%s", option, value) : mem_printf("%s,%s", joined, value);
		free(joined);
		joined = longer;
	}
	/* Right behind the program's name, where it is an option whatever the command is. */
	if (joined != NULL) {
		memmove(out + 2, out + 1, (size_t)(n - 1) * sizeof *out);
		out[1] = joined;
		n++;
	}
	kept = out;
	kept_option = joined;
	*ret_argc = n;
	return out;
}
