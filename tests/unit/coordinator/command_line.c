/*
 * Command lines put into the form that the table reader knows; and the readiness protocol.
 */
#include "base/fixture.h"

#include "coordinator/commands.h"
#include "coordinator/notify.h"

#include <sys/socket.h>
#include <sys/un.h>

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

static void readiness_is_told(void **state)
{
	(void)state;
	char *dir = scratch_make(), got[32] = "";
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	snprintf(at.sun_path, sizeof at.sun_path, "%.80s/notify", dir);
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
	assert_int_equal(unsetenv("NOTIFY_SOCKET"), 0);
	notify_ready(); /* nobody asked */
	assert_int_equal(setenv("NOTIFY_SOCKET", at.sun_path, 1), 0);
	notify_ready();
	assert_int_equal(recv(fd, got, sizeof got, MSG_DONTWAIT), strlen("READY=1"));
	assert_string_equal(got, "READY=1");
	notify_stopping();
	assert_int_equal(recv(fd, got, sizeof got, MSG_DONTWAIT), strlen("STOPPING=1"));
	close(fd);
	assert_int_equal(unsetenv("NOTIFY_SOCKET"), 0);
	scratch_remove(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(options_find_their_place),
		cmocka_unit_test(readiness_is_told),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
