/*
 * What the tests of `base` share: temporary directories, the text a program prints, and calls that must end the
 * process.
 */
#ifndef HANSA_TESTS_BASE_FIXTURE_H
#define HANSA_TESTS_BASE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/buf.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static inline char *scratch_make(void)
{
	const char *base = getenv("TMPDIR");
	char *path = mem_printf("%s/hansa-test-XXXXXX", base != NULL ? base : "/tmp");
	assert_non_null(mkdtemp(path));
	return path;
}

static inline void scratch_remove(char *path)
{
	DIR *d = opendir(path);
	assert_non_null(d);
	for (const struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		char *name = mem_printf("%s/%s", path, e->d_name);
		if (unlink(name) != 0)
			scratch_remove(mem_str(name));
		free(name);
	}
	closedir(d);
	assert_int_equal(rmdir(path), 0);
	free(path);
}

/* Everything written to a file descriptor between capture_begin() and capture_end(). */
struct capture {
	int fd, saved;
	FILE *file;
};

static inline struct capture capture_begin(int fd)
{
	struct capture c = {.fd = fd, .file = tmpfile()};
	assert_non_null(c.file);
	fflush(NULL);
	c.saved = dup(fd);
	assert_true(c.saved >= 0 && dup2(fileno(c.file), fd) == fd);
	return c;
}

static inline char *capture_end(struct capture *c)
{
	fflush(NULL);
	assert_int_equal(dup2(c->saved, c->fd), c->fd);
	close(c->saved);
	long n = fseek(c->file, 0, SEEK_END) == 0 ? ftell(c->file) : -1;
	assert_true(n >= 0);
	rewind(c->file);
	char *text = mem_new((size_t)n + 1);
	assert_int_equal(fread(text, 1, (size_t)n, c->file), n);
	fclose(c->file);
	return text;
}

/* Run `fn` in a child process without output; its wait status. */
static inline int status_of(void (*fn)(void))
{
	fflush(NULL);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		int null = open("/dev/null", O_WRONLY);
		dup2(null, STDERR_FILENO);
		fn();
		_exit(0);
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

/* The sanitizers may turn an abort into an exit code: what matters is that the call did not come back. */
static inline void assert_dies(void (*fn)(void))
{
	int status = status_of(fn);
	assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

#endif
