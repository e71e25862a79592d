/*
 * A growing byte buffer with a ceiling that is fixed when it is made, so that no input can make it grow without bound.
 * Appending past the ceiling fails with ERR_LIMIT and leaves the content as it was. `p` is always zero-terminated after
 * the first append, so text can be used as a string.
 */
#ifndef HANSA_BASE_BUF_H
#define HANSA_BASE_BUF_H

#include "base/err.h"
#include "base/mem.h"

#include <stdarg.h>

struct buf {
	uint8_t *p; /* owned */
	size_t n;   /* bytes used */
	size_t cap; /* bytes allocated */
	size_t max; /* ceiling of n */
};

void buf_init(struct buf *b, size_t max);
void buf_deinit(struct buf *b); /* frees; safe twice */
void buf_reset(struct buf *b);  /* empty, memory kept */

MUST_CHECK enum err buf_append(struct buf *b, const void *p, size_t n);
MUST_CHECK enum err buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
MUST_CHECK enum err buf_vprintf(struct buf *b, const char *fmt, va_list ap) PRINTF_LIKE(2, 0);
MUST_CHECK enum err buf_reserve(struct buf *b, size_t n); /* room for n more bytes at p + n */

struct bytes buf_bytes(const struct buf *b);
const char *buf_str(const struct buf *b); /* "" when empty */

#endif
