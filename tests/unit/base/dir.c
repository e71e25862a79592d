#include "base/fixture.h"

#include "base/file.h"

#include <sys/stat.h>

static char *dir;

static int setup(void **state)
{
	(void)state;
	dir = scratch_make();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	file_set_hook(NULL, NULL);
	scratch_remove(dir);
	return 0;
}

static void test_path_join(void **state)
{
	(void)state;
	char out[PATH_SIZE];
	assert_string_equal(path_join(out, "a", "b"), "a/b");
	assert_string_equal(path_join(out, "a/", "b"), "a/b");
	assert_string_equal(path_join(out, "/", "b"), "/b");
	path_join(out, "a", "b");
	assert_string_equal(path_join(out, out, "c"), "a/b/c");
	char name[PATH_SIZE - 2];
	memset(name, 'n', sizeof name - 1);
	name[sizeof name - 1] = '\0';
	assert_int_equal(strlen(path_join(out, "d", name)), PATH_SIZE - 1);
}

static void join_too_long(void)
{
	char out[PATH_SIZE], name[PATH_SIZE - 1];
	memset(name, 'n', sizeof name - 1);
	name[sizeof name - 1] = '\0';
	path_join(out, "d", name);
}

static void test_path_join_too_long(void **state)
{
	(void)state;
	assert_dies(join_too_long);
}

static void test_make(void **state)
{
	(void)state;
	char path[PATH_SIZE];
	struct stat st;
	path_join(path, dir, "a/b/c/");
	assert_int_equal(dir_make(path, 0750), ERR_OK);
	assert_int_equal(dir_make(path, 0750), ERR_OK);
	assert_int_equal(stat(path, &st), 0);
	assert_true(S_ISDIR(st.st_mode));
	assert_int_equal(st.st_mode & 0777, 0750);
	path_join(path, dir, "file");
	assert_int_equal(file_replace(path, bytes_str("x"), 0644), ERR_OK);
	assert_int_equal(dir_make(path, 0750), ERR_IO);
	path_join(path, path, "below");
	assert_int_equal(dir_make(path, 0750), ERR_IO);
	assert_int_equal(dir_make("/", 0750), ERR_OK);
	assert_int_equal(dir_make(".", 0750), ERR_OK);
}

struct fault {
	size_t calls, fail_from;
};

static enum err fail_from(void *arg, enum file_op op, const char *path, size_t n, size_t *ret_short)
{
	struct fault *f = arg;
	(void)op;
	(void)path;
	(void)n;
	(void)ret_short;
	return ++f->calls >= f->fail_from ? ERR_IO : ERR_OK;
}

static void test_make_fails_at_every_operation(void **state)
{
	(void)state;
	enum err e = ERR_IO;
	for (size_t n = 1; e != ERR_OK; n++) {
		char path[PATH_SIZE], name[32];
		snprintf(name, sizeof name, "n%zu/x/y", n);
		path_join(path, dir, name);
		struct fault f = {.fail_from = n};
		file_set_hook(fail_from, &f);
		e = dir_make(path, 0755);
		file_set_hook(NULL, NULL);
		assert_int_equal(e, f.calls >= n ? ERR_IO : ERR_OK);
		/* The next start completes it. */
		assert_int_equal(dir_make(path, 0755), ERR_OK);
		assert_true(file_exists(path));
	}
}

struct seen {
	char text[200];
	size_t stop_after;
};

static enum err see(void *arg, const char *name)
{
	struct seen *s = arg;
	strcat(strcat(s->text, name), " ");
	return s->stop_after > 0 && --s->stop_after == 0 ? err_set(ERR_CANCELLED, "enough") : ERR_OK;
}

static void test_each(void **state)
{
	(void)state;
	static const char *const names[] = {"b", "a", ".hidden", "B", "10", "9"};
	char path[PATH_SIZE];
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		assert_int_equal(file_replace(path_join(path, dir, names[i]), bytes_str("x"), 0644), ERR_OK);
	int fd = open(path_join(path, dir, FILE_TEMPORARY_PREFIX "a"), O_WRONLY | O_CREAT, 0600);
	assert_true(fd >= 0);
	close(fd);
	struct seen all = {0}, some = {.stop_after = 2};
	assert_int_equal(dir_each(dir, see, &all), ERR_OK);
	assert_string_equal(all.text, ".hidden 10 9 B a b ");
	assert_int_equal(dir_each(dir, see, &some), ERR_CANCELLED);
	assert_string_equal(some.text, ".hidden 10 ");
	assert_int_equal(dir_each(path_join(path, dir, "none"), see, &some), ERR_NOT_FOUND);
	assert_int_equal(dir_each(path_join(path, dir, "a"), see, &some), ERR_IO);
}

static void test_sync(void **state)
{
	(void)state;
	char path[PATH_SIZE];
	assert_int_equal(dir_sync(dir), ERR_OK);
	assert_int_equal(dir_sync(path_join(path, dir, "none")), ERR_NOT_FOUND);
}

static void test_free_space(void **state)
{
	(void)state;
	char path[PATH_SIZE];
	uint64_t bytes = 0;
	assert_int_equal(dir_free(dir, &bytes), ERR_OK);
	assert_true(bytes > 0);
	assert_int_equal(dir_free(path_join(path, dir, "none"), &bytes), ERR_NOT_FOUND);
}

static void lock_and_hold(void)
{
	if (dir_lock(dir) != ERR_OK)
		_exit(7);
}

static void test_lock(void **state)
{
	(void)state;
	/* A process that has ended, however, holds nothing. */
	assert_int_equal(status_of(lock_and_hold), 0);
	assert_int_equal(dir_lock(dir), ERR_OK);
	int status = status_of(lock_and_hold);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
	assert_int_equal(dir_lock(dir), ERR_STATE);
	char path[PATH_SIZE];
	assert_int_equal(dir_lock(path_join(path, dir, "none")), ERR_NOT_FOUND);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	umask(022);
	const struct CMUnitTest tests[] = {
		TEST(test_path_join),  TEST(test_path_join_too_long),
		TEST(test_make),       TEST(test_make_fails_at_every_operation),
		TEST(test_each),       TEST(test_sync),
		TEST(test_free_space), TEST(test_lock),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
