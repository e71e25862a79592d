/*
 * Shared by file*.c and dir.c only: durable operations on a descriptor, each through the seam of fault.h.
 */
#ifndef HANSA_BASE_FILE_PARTS_H
#define HANSA_BASE_FILE_PARTS_H

#include "base/fault.h"

#include <sys/stat.h>

/* n bytes at *offset, which moves with what got through. */
MUST_CHECK enum err file_put(int fd, const char *path, uint64_t *offset, const void *p, size_t n);
MUST_CHECK enum err file_put_all(int fd, const char *path, uint64_t *offset, const uint8_t *p,
				 size_t n);                /* not asked */
MUST_CHECK enum err file_settle(int fd, const char *path); /* content synced */
MUST_CHECK enum err file_sync_parent(const char *path);

/* Open for reading; only regular files, so that nobody waits for a pipe. */
MUST_CHECK enum err file_open_regular(const char *path, int *ret_fd, struct stat *ret_st);

/* "a" of "a/b", "." of "b", "/" of "/b"; free(). */
char *path_parent(const char *path);

#endif
