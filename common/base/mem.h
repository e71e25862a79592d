/*
 * Memory: small allocations that cannot fail (the process ends with a message), and views.
 *
 * Sizes chosen by a peer, a file or a configuration are compared with a named limit before they get here.
 */
#ifndef HANSA_BASE_MEM_H
#define HANSA_BASE_MEM_H

#include <stddef.h>
#include <stdint.h>

/* A view of bytes; never owns. */
struct bytes {
	const uint8_t *p;
	size_t n;
};

struct bytes bytes_of(const void *p, size_t n);
struct bytes bytes_str(const char *s); /* without the terminating zero */

void *mem_new(size_t n);                            /* zeroed; ends the process when memory is out; free with free() */
void *mem_array(size_t count, size_t size);         /* zeroed, overflow-checked */
void *mem_grow(void *p, size_t count, size_t size); /* realloc, overflow-checked */
void *mem_aligned(size_t n);                        /* 64-byte aligned, zeroed; for numeric blocks; free with free() */
char *mem_str(const char *s);                       /* copy of a string; NULL stays NULL */
char *mem_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/*
 * For a program that needs the same large blocks again and again: from now on freed ones stay with the process, because pages fresh from the
 * system cost more than what is done with them. mem_give_back() when they are not needed for a while. thread: main, before others
 * exist; mem_give_back(): any.
 */
void mem_keep_large(void);
void mem_give_back(void);

/*
 * Lower-case hexadecimal only, so that a digest has one text. hex_encode writes 2*n characters and a zero; hex_decode
 * takes exactly 2*n characters.
 */
void hex_encode(const uint8_t *p, size_t n, char *out);
int hex_decode(const char *s, size_t len, uint8_t *out, size_t n); /* 0, or -1 when not n bytes of hex */

#endif
