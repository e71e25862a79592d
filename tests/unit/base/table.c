#include "base/fixture.h"

#include "base/clock.h"
#include "base/table.h"

#include <sys/ioctl.h>
#include <termios.h>

static void assert_table(struct table *t, const char *text)
{
	struct buf out;
	buf_init(&out, 10000);
	assert_int_equal(table_write(t, &out), ERR_OK);
	assert_string_equal(buf_str(&out), text);
	buf_deinit(&out);
	table_free(t);
}

static void test_columns(void **state)
{
	(void)state;
	struct table *t = table_new("PLANT|>SAMPLES|STATE|>ACC");
	table_row(t, "%s|%d|%s|%.3f", "lübeck", 12, "open", 0.5);
	table_row(t, "%s|%d|%s|%.3f", "wismar-werft", 123456, "x", 0.98);
	assert_table(t, "PLANT         SAMPLES  STATE    ACC\n"
			"lübeck             12  open   0.500\n"
			"wismar-werft   123456  x      0.980\n");
}

static void test_odd_rows(void **state)
{
	(void)state;
	struct table *t = table_new("A|>B|C");
	table_row(t, "%s", "only");
	table_row(t, "%s", "x||a|b");
	table_row(t, "%s", "x|1|line\nbreak\033[2J");
	table_row(t, "%s", "");
	assert_table(t, "A     B  C\n"
			"only\n"
			"x        a|b\n"
			"x     1  line?break?[2J\n"
			"\n");
	assert_table(table_new("ONE"), "ONE\n");
	table_free(NULL);
}

static void test_limits(void **state)
{
	(void)state;
	struct table *t = table_new("A");
	char *big = mem_new(100001);
	memset(big, 'x', 100000);
	table_row(t, "%s", big);
	free(big);
	struct buf out;
	buf_init(&out, 2);
	assert_int_equal(table_write(t, &out), ERR_LIMIT);
	buf_deinit(&out);
	assert_table(t, "A\n?\n");
}

static void test_progress_is_silent_in_files(void **state)
{
	(void)state;
	struct capture c = capture_begin(STDERR_FILENO);
	progress("%d of %d", 1, 2);
	progress("%s", "");
	char *text = capture_end(&c);
	assert_string_equal(text, "");
	free(text);
}

/* A terminal of our own as stderr. */
struct terminal {
	int master, saved;
};

static struct terminal terminal_begin(unsigned short columns)
{
	struct terminal t = {.master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK)};
	assert_true(t.master >= 0 && grantpt(t.master) == 0 && unlockpt(t.master) == 0);
	char name[100];
	assert_int_equal(ptsname_r(t.master, name, sizeof name), 0);
	int slave = open(name, O_RDWR | O_NOCTTY);
	assert_true(slave >= 0);
	struct termios mode;
	assert_int_equal(tcgetattr(slave, &mode), 0);
	cfmakeraw(&mode);
	assert_int_equal(tcsetattr(slave, TCSANOW, &mode), 0);
	struct winsize size = {.ws_col = columns, .ws_row = 24};
	assert_int_equal(ioctl(slave, TIOCSWINSZ, &size), 0);
	fflush(stderr);
	t.saved = dup(STDERR_FILENO);
	assert_true(t.saved >= 0 && dup2(slave, STDERR_FILENO) == STDERR_FILENO);
	close(slave);
	return t;
}

static char *terminal_end(struct terminal *t)
{
	fflush(stderr);
	char *text = mem_new(4001);
	size_t n = 0;
	for (ssize_t got = 1; got > 0 && n<4000; n += got> 0 ? (size_t)got : 0)
		got = read(t->master, text + n, 4000 - n);
	assert_int_equal(dup2(t->saved, STDERR_FILENO), STDERR_FILENO);
	close(t->saved);
	close(t->master);
	return text;
}

static void test_progress_on_a_terminal(void **state)
{
	(void)state;
	struct terminal t = terminal_begin(10);
	progress("%s", ""); /* nothing to end yet */
	progress("%s", "round 1");
	progress("%s", "");
	progress("%s", "ähnlich viel zu lang");
	progress("%s", "");
	char *text = terminal_end(&t);
	assert_string_equal(text, "\r\033[Kround 1\r\033[K\r\033[Kähnlich v\r\033[K");
	free(text);
}

static void test_progress_is_limited(void **state)
{
	(void)state;
	struct terminal t = terminal_begin(80);
	int64_t start_ms = clock_monotonic_ms();
	for (int i = 0; i < 5000; i++)
		progress("%s", "x");
	int64_t spent_ms = clock_monotonic_ms() - start_ms;
	char *text = terminal_end(&t);
	int64_t shown = 0;
	for (const char *c = text; *c != '\0'; c++)
		shown += *c == 'x';
	assert_true(shown >= 1 && shown <= spent_ms / 100 + 1);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_columns),
		cmocka_unit_test(test_odd_rows),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_progress_is_silent_in_files),
		cmocka_unit_test(test_progress_on_a_terminal),
		cmocka_unit_test(test_progress_is_limited),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
