#include "base/buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CAP_MIN = 64 };

void buf_init(struct buf *b, size_t max)
{
	/* The terminating zero and doubling must never overflow. */
	*b = (struct buf){.max = max < PTRDIFF_MAX - 1 ? max : PTRDIFF_MAX - 1};
}

void buf_deinit(struct buf *b)
{
	free(b->p);
	*b = (struct buf){0};
}

void buf_reset(struct buf *b)
{
	b->n = 0;
	if (b->p != NULL)
		b->p[0] = '\0';
}

enum err buf_reserve(struct buf *b, size_t n)
{
	if (n > b->max - b->n)
		return err_set(ERR_LIMIT, "buffer of at most %zu bytes is full", b->max);
	size_t need = b->n + n + 1;
	if (need <= b->cap)
		return ERR_OK;
	size_t cap = b->cap < CAP_MIN ? CAP_MIN : b->cap * 2;
	if (cap < need)
		cap = need;
	if (cap > b->max + 1)
		cap = b->max + 1;
	b->p = mem_grow(b->p, cap, 1);
	b->p[b->n] = '\0';
	b->cap = cap;
	return ERR_OK;
}

enum err buf_append(struct buf *b, const void *p, size_t n)
{
	TRY(buf_reserve(b, n));
	if (n > 0)
		memcpy(b->p + b->n, p, n);
	b->n += n;
	b->p[b->n] = '\0';
	return ERR_OK;
}

enum err buf_vprintf(struct buf *b, const char *fmt, va_list ap)
{
	va_list again;
	va_copy(again, ap);
	int n = vsnprintf(NULL, 0, fmt, ap);
	enum err e = n < 0 ? err_set(ERR_INTERNAL, "cannot format text") : buf_reserve(b, (size_t)n);
	if (e == ERR_OK) {
		vsnprintf((char *)b->p + b->n, (size_t)n + 1, fmt, again);
		b->n += (size_t)n;
	}
	va_end(again);
	return e;
}

enum err buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	enum err e = buf_vprintf(b, fmt, ap);
	va_end(ap);
	return e;
}

struct bytes buf_bytes(const struct buf *b)
{
	return (struct bytes){b->p, b->n};
}

const char *buf_str(const struct buf *b)
{
	return b->p != NULL ? (const char *)b->p : "";
}
