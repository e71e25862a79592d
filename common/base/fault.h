/*
 * Shared by file.c and dir.c only: the fault hook of file.h, and names of parents.
 */
#ifndef HANSA_BASE_FAULT_H
#define HANSA_BASE_FAULT_H

#include "base/file.h"

/* Ask the hook; ERR_OK without one. */
MUST_CHECK enum err fault_ask(enum file_op op, const char *path);

/* The same for a write of n bytes; *ret_allowed of them are to be written before the answer is returned. */
MUST_CHECK enum err fault_ask_write(const char *path, size_t n, size_t *ret_allowed);

/* "a" of "a/b", "." of "b", "/" of "/b"; free(). */
char *path_parent(const char *path);

#endif
