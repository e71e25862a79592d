/*
 * Command lines put into the form that the table reader knows.
 */
#include "base/fixture.h"

#include "coordinator/commands.h"

static void check(const char *option, const char *line, const char *expected)
{
	char *words = mem_str(line), *argv[32], *save, text[256] = "";
	int argc = 0;
	for (char *word = strtok_r(words, " ", &save); word != NULL; word = strtok_r(NULL, " ", &save))
		argv[argc++] = word;
	argv[argc] = NULL;
	char **out = command_line(argc, argv, option, &argc);
	for (int i = 0; i < argc; i++)
		snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", i > 0 ? " " : "", out[i]);
	assert_null(out[argc]);
	assert_string_equal(text, expected);
	free(words);
}

static void options_find_their_place(void **state)
{
	(void)state;
	check("--dir", "ctl plants", "ctl plants");
	check("--dir", "ctl", "ctl");
	check("--dir", "ctl --dir fed plants", "ctl --dir=fed plants");
	check("--dir", "ctl plants --dir fed --json", "ctl --dir=fed plants --json");
	check("--dir", "ctl --dir=fed job start f", "ctl --dir=fed job start f");
	check("--dir", "ctl plants --dir", "ctl plants --dir");
	check("--dir", "ctl plants -- --dir fed", "ctl plants -- --dir fed");
	check("--dir", "ctl --directory fed", "ctl --directory fed");
	check("--host", "d init X --host a --host b --host=c", "d --host=a,b,c init X");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(options_find_their_place),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
