/*
 * Whose own tensors go when a job ends, and whose stay.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "client/local.h"
#include "temp.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

static char dir[PATH_SIZE], local_dir[PATH_SIZE];

static const char *path_of(unsigned job, unsigned round, char out[PATH_SIZE])
{
	char name[80];
	snprintf(name, sizeof name, "%u-0123456789abcdef-%u.safetensors", job, round);
	return path_join(out, local_dir, name);
}

/* What a round of a job left at that time. */
static void put(unsigned job, unsigned round, int64_t time)
{
	char path[PATH_SIZE];
	struct timespec times[2] = {{.tv_sec = (time_t)time}, {.tv_sec = (time_t)time}};
	temp_write(local_dir, strrchr(path_of(job, round, path), '/') + 1, "x", 1);
	assert_int_equal(utimensat(AT_FDCWD, path_of(job, round, path), times, 0), 0);
}

static bool is_there(unsigned job, unsigned round)
{
	char path[PATH_SIZE];
	return file_exists(path_of(job, round, path));
}

static void a_job_that_is_done_takes_only_its_own(void **state)
{
	(void)state;
	for (unsigned job = 1; job <= 3; job++) {
		put(job, 1, 100);
		put(job, 2, 200);
	}
	put(20, 1, 100); /* begins like 2 */
	temp_write(local_dir, "2-notes.txt", "x", 1);
	assert_int_equal(local_end(dir, 2, true), ERR_OK);
	assert_true(is_there(1, 1) && is_there(1, 2) && is_there(3, 1) && is_there(3, 2) && is_there(20, 1));
	assert_false(is_there(2, 1) || is_there(2, 2));
	char path[PATH_SIZE];
	assert_true(file_exists(path_join(path, local_dir, "2-notes.txt")));
}

static void a_job_that_is_stopped_keeps_its_own(void **state)
{
	(void)state;
	put(1, 1, 100);
	put(2, 1, 100);
	assert_int_equal(local_end(dir, 1, false), ERR_OK);
	assert_true(is_there(1, 1) && is_there(2, 1));
}

static void others_are_bounded_by_when_they_were_worked_for(void **state)
{
	(void)state;
	put(1, 1, 10); /* the longest-running job of all: */
	put(1, 700, 9000);
	for (unsigned job = 2; job <= 2 * LOCAL_JOBS_MAX; job++) {
		put(job, 1, 1000 + job);
		put(job, 2, 2000 + job);
	}
	put(99, 1, 1); /* the one that ends */
	assert_int_equal(local_end(dir, 99, false), ERR_OK);
	assert_true(is_there(99, 1) && is_there(1, 1) && is_there(1, 700));
	for (unsigned job = 2; job <= 2 * LOCAL_JOBS_MAX; job++) {
		assert_int_equal(is_there(job, 1), job > LOCAL_JOBS_MAX + 1);
		assert_int_equal(is_there(job, 2), job > LOCAL_JOBS_MAX + 1);
	}
	assert_int_equal(local_end(dir, 99, true), ERR_OK);
	assert_false(is_there(99, 1));
	assert_true(is_there(1, 700) && is_there(2 * LOCAL_JOBS_MAX, 2));
}

static void of_the_same_time_the_later_jobs_stay(void **state)
{
	(void)state;
	for (unsigned job = 1; job <= LOCAL_JOBS_MAX + 3; job++)
		put(job, 1, 50);
	assert_int_equal(local_end(dir, 1000, true), ERR_OK);
	for (unsigned job = 1; job <= LOCAL_JOBS_MAX + 3; job++)
		assert_int_equal(is_there(job, 1), job > 3);
}

static void nothing_was_ever_kept(void **state)
{
	(void)state;
	temp_remove(local_dir);
	assert_int_equal(local_end(dir, 1, true), ERR_OK);
	assert_false(file_exists(local_dir));
}

static int fresh(void **state)
{
	(void)state;
	temp_make(dir);
	path_join(local_dir, dir, "local");
	return dir_make(local_dir, 0700) == ERR_OK ? 0 : -1;
}

static int clean(void **state)
{
	(void)state;
	temp_remove(dir);
	return 0;
}

#define SCENARIO(name) cmocka_unit_test_setup_teardown(name, fresh, clean)

int main(void)
{
	const struct CMUnitTest tests[] = {
		SCENARIO(a_job_that_is_done_takes_only_its_own),
		SCENARIO(a_job_that_is_stopped_keeps_its_own),
		SCENARIO(others_are_bounded_by_when_they_were_worked_for),
		SCENARIO(of_the_same_time_the_later_jobs_stay),
		SCENARIO(nothing_was_ever_kept),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
