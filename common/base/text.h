/*
 * Texts that stand for numbers, and UTF-8. Shared by the configuration, the command line, JSON and tables.
 */
#ifndef HANSA_BASE_TEXT_H
#define HANSA_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The whole string must be a decimal number: no spaces, no hexadecimal, no "inf" or "nan"; false if not, or out of
 * range. */
bool text_to_int(const char *s, int64_t *ret_v);
bool text_to_real(const char *s, double *ret_v);

#define TEXT_REAL_SIZE 32
/* The shortest of %.15g, %.16g, %.17g that reads back as the same finite double; returns `out`. */
const char *text_real(double v, char out[TEXT_REAL_SIZE]);

/* Length of the UTF-8 sequence (RFC 3629: shortest form, no surrogates) that `p` starts with; 0 when it is none. n > 0.
 */
size_t text_utf8_next(const char *p, size_t n);
bool text_is_utf8(const char *p, size_t n);

/* The nearest of several names, for "did you mean": offer them all, then look at `best`. */
struct text_guess {
	const char *word; /* what was written */
	const char *best; /* the nearest name offered so far; NULL when none is near enough to be meant */
	size_t distance;  /* of `best`: insertions, deletions, changes, swapped neighbours */
};
void text_guess_offer(struct text_guess *g, const char *name);

#endif
