/*
 * The seam below everything durable, for the few who change the disk themselves: file*.c, dir.c, and the door to SQLite.
 * They ask the hook of file.h before each operation, and tell how long a sync took. Everybody else uses file.h.
 * thread: any. Without a hook, asking costs one comparison.
 */
#ifndef HANSA_BASE_FAULT_H
#define HANSA_BASE_FAULT_H

#include "base/file.h"

/* Ask the hook; ERR_OK without one. After an error errno says what a refusal of the system would look like. */
MUST_CHECK enum err fault_ask(enum file_op op, const char *path);

/* The same for a write of n bytes; *ret_allowed of them are to be written before the answer is returned. */
MUST_CHECK enum err fault_ask_write(const char *path, size_t n, size_t *ret_allowed);

/* Around each sync that the system is asked for; what file_get_sync_stats() tells. errno is kept. */
uint64_t fault_sync_begin(void);
void fault_sync_end(uint64_t begin);

#endif
