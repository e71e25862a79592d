/*
 * The text lives in a thread-local array, so recording an error never allocates and never fails. Texts are formatted
 * into a second array first: an argument may well be err_text() itself.
 */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_SIZE = 1024 };

static _Thread_local char text[TEXT_SIZE];

static const char *const names[ERR_COUNT] = {
	[ERR_OK] = "ok",
	[ERR_IO] = "io",
	[ERR_CORRUPT] = "corrupt",
	[ERR_CONFIG] = "config",
	[ERR_USAGE] = "usage",
	[ERR_MALFORMED] = "malformed",
	[ERR_UNAUTHENTIC] = "unauthentic",
	[ERR_DENIED] = "denied",
	[ERR_NOT_FOUND] = "not_found",
	[ERR_STATE] = "state",
	[ERR_STALE] = "stale",
	[ERR_DUPLICATE] = "duplicate",
	[ERR_LIMIT] = "limit",
	[ERR_SHAPE] = "shape",
	[ERR_NUMERIC] = "numeric",
	[ERR_CRYPTO] = "crypto",
	[ERR_UNAVAILABLE] = "unavailable",
	[ERR_DEADLINE] = "deadline",
	[ERR_CANCELLED] = "cancelled",
	[ERR_END] = "end",
	[ERR_INTERNAL] = "internal",
};

/* What the operating system says that a caller can act on; everything else is ERR_IO. */
static const struct {
	int number;
	enum err code;
} from_errno[] = {
	{ENOENT, ERR_NOT_FOUND},       {ETIMEDOUT, ERR_DEADLINE},       {ECONNREFUSED, ERR_UNAVAILABLE},
	{ECONNRESET, ERR_UNAVAILABLE}, {EHOSTUNREACH, ERR_UNAVAILABLE}, {ENETUNREACH, ERR_UNAVAILABLE},
};

enum err err_set(enum err code, const char *fmt, ...)
{
	char next[TEXT_SIZE];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(next, sizeof next, fmt, ap);
	va_end(ap);
	memcpy(text, next, strlen(next) + 1);
	return code;
}

enum err err_add(enum err code, const char *fmt, ...)
{
	char prefix[TEXT_SIZE];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(prefix, sizeof prefix, fmt, ap);
	va_end(ap);
	return err_set(code, "%s: %s", prefix, text);
}

enum err err_errno(const char *fmt, ...)
{
	int number = errno;
	char what[TEXT_SIZE], why[128];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(what, sizeof what, fmt, ap);
	va_end(ap);
	enum err code = ERR_IO;
	for (size_t i = 0; i < sizeof from_errno / sizeof from_errno[0]; i++) {
		if (from_errno[i].number == number)
			code = from_errno[i].code;
	}
	err_set(code, "%s: %s", what, strerror_r(number, why, sizeof why));
	errno = number;
	return code;
}

const char *err_text(void)
{
	return text;
}

const char *err_name(enum err code)
{
	return code < ERR_COUNT ? names[code] : names[ERR_INTERNAL];
}

enum err err_from_name(const char *name, size_t n)
{
	for (unsigned i = 0; i < ERR_COUNT; i++) {
		if (strlen(names[i]) == n && memcmp(names[i], name, n) == 0)
			return (enum err)i;
	}
	return ERR_INTERNAL;
}

bool err_is_transient(enum err code)
{
	return code == ERR_UNAVAILABLE || code == ERR_DEADLINE;
}

void err_die(const char *file, int line, const char *cond)
{
	fprintf(stderr, "fatal: %s:%d: broken promise: %s\n", file, line, cond);
	abort();
}
