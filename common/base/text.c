#include "base/text.h"

#include "base/err.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GUESS_LENGTH_MAX = 63 };

bool text_to_int(const char *s, int64_t *ret_v)
{
	const char *digits = s + (*s == '-' || *s == '+');
	if (*digits == '\0' || strspn(digits, "0123456789") != strlen(digits))
		return false;
	errno = 0;
	long long v = strtoll(s, NULL, 10);
	if (errno != 0)
		return false;
	*ret_v = v;
	return true;
}

bool text_to_real(const char *s, double *ret_v)
{
	/* The alphabet leaves out what strtod() takes besides: spaces, 0x1p3, inf, nan. */
	if (*s == '\0' || strspn(s, "0123456789+-.eE") != strlen(s))
		return false;
	char *end;
	double v = strtod(s, &end);
	if (*end != '\0' || !isfinite(v))
		return false;
	*ret_v = v;
	return true;
}

const char *text_real(double v, char out[TEXT_REAL_SIZE])
{
	ENSURE(isfinite(v));
	for (int digits = 15; digits <= 17; digits++) {
		snprintf(out, TEXT_REAL_SIZE, "%.*g", digits, v);
		if (strtod(out, NULL) == v)
			break;
	}
	return out;
}

size_t text_utf8_next(const char *p, size_t n)
{
	const unsigned char *u = (const unsigned char *)p;
	if (u[0] < 0x80)
		return 1;
	size_t len = u[0] >= 0xf0 ? 4 : u[0] >= 0xe0 ? 3 : 2;
	if (u[0] < 0xc2 || u[0] > 0xf4 || len > n)
		return 0;
	/* The second byte's range rules out overlong forms, surrogates and everything above U+10FFFF. */
	unsigned low = u[0] == 0xe0 ? 0xa0 : u[0] == 0xf0 ? 0x90 : 0x80;
	unsigned high = u[0] == 0xed ? 0x9f : u[0] == 0xf4 ? 0x8f : 0xbf;
	if (u[1] < low || u[1] > high)
		return 0;
	for (size_t i = 2; i < len; i++) {
		if (u[i] < 0x80 || u[i] > 0xbf)
			return 0;
	}
	return len;
}

bool text_is_utf8(const char *p, size_t n)
{
	for (size_t i = 0; i < n;) {
		size_t len = text_utf8_next(p + i, n - i);
		if (len == 0)
			return false;
		i += len;
	}
	return true;
}

static size_t least(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* Optimal string alignment distance, three rows of the table at a time. */
static size_t distance(const char *a, size_t n, const char *b, size_t m)
{
	size_t rows[3][GUESS_LENGTH_MAX + 1];
	for (size_t j = 0; j <= m; j++)
		rows[0][j] = j;
	for (size_t i = 1; i <= n; i++) {
		size_t *now = rows[i % 3], *above = rows[(i + 2) % 3], *above2 = rows[(i + 1) % 3];
		now[0] = i;
		for (size_t j = 1; j <= m; j++) {
			now[j] = least(least(above[j] + 1, now[j - 1] + 1), above[j - 1] + (a[i - 1] != b[j - 1]));
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				now[j] = least(now[j], above2[j - 2] + 1);
		}
	}
	return rows[n % 3][m];
}

void text_guess_offer(struct text_guess *g, const char *name)
{
	size_t n = strlen(g->word), m = strlen(name);
	if (n > GUESS_LENGTH_MAX || m > GUESS_LENGTH_MAX)
		return;
	size_t d = distance(g->word, n, name, m);
	if (d > 1 + m / 4 || d >= m || (g->best != NULL && d >= g->distance))
		return;
	g->best = name;
	g->distance = d;
}
