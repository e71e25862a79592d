/*
 * A folder of its own for a test, removed with everything in it.
 */
#ifndef HANSA_TEST_TEMP_H
#define HANSA_TEST_TEMP_H

#include "base/file.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>

static inline int temp_remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	return remove(path);
}

static inline void temp_make(char out[PATH_SIZE])
{
	const char *base = getenv("TMPDIR");
	path_join(out, base != NULL ? base : "/tmp", "hansa-test-XXXXXX");
	ENSURE(mkdtemp(out) != NULL);
}

static inline void temp_remove(const char *dir)
{
	nftw(dir, temp_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static inline void temp_write(const char *dir, const char *name, const void *p, size_t n)
{
	char path[PATH_SIZE];
	FILE *f = fopen(path_join(path, dir, name), "wb");
	ENSURE(f != NULL && fwrite(p, 1, n, f) == n && fclose(f) == 0);
}

#endif
