/*
 * Errors: one code per thing a caller can do about it, and a text that says what happened.
 *
 * Every function that can fail returns `enum err`; ERR_OK is 0. The text belongs to the calling thread and is set where
 * the cause is known; a caller may prefix it once with err_add(). Nobody both logs and returns: the last one to hold an
 * error logs it. Outputs (named `ret_...`) are only written on success.
 */
#ifndef HANSA_BASE_ERR_H
#define HANSA_BASE_ERR_H

#include <stdbool.h>
#include <stddef.h>

#define MUST_CHECK             __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))

enum err {
	ERR_OK = 0,
	ERR_IO,          /* the operating system refused: disk, file, socket */
	ERR_CORRUPT,     /* our own stored bytes are not what we wrote */
	ERR_CONFIG,      /* a configuration file or value is wrong */
	ERR_USAGE,       /* the command line is wrong */
	ERR_MALFORMED,   /* foreign bytes do not parse */
	ERR_UNAUTHENTIC, /* the peer is not who it claims to be */
	ERR_DENIED,      /* the peer may not do this */
	ERR_NOT_FOUND,   /* no such object */
	ERR_STATE,       /* not possible in the present state */
	ERR_STALE,       /* refers to a past round or base */
	ERR_DUPLICATE,   /* exists already, with other content */
	ERR_LIMIT,       /* over a named limit */
	ERR_SHAPE,       /* tensors do not fit together */
	ERR_NUMERIC,     /* NaN, infinity or out of range */
	ERR_CRYPTO,      /* a cryptographic operation failed */
	ERR_UNAVAILABLE, /* the peer cannot be reached; try again */
	ERR_DEADLINE,    /* took too long; try again */
	ERR_CANCELLED,   /* stopped on request */
	ERR_END,         /* clean end of a stream or file */
	ERR_INTERNAL,    /* a broken promise of our own */
	ERR_COUNT
};

/* Record `code` and a text for this thread; returns `code`. The text is cut at 1023 bytes. */
enum err err_set(enum err code, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Prefix the present text with "what: " and return `code` unchanged. */
enum err err_add(enum err code, const char *fmt, ...) PRINTF_LIKE(2, 3);

/*
 * Like err_set() with ": strerror(errno)" appended; ERR_IO unless errno says better (absent: ERR_NOT_FOUND; refused,
 * reset or unreachable: ERR_UNAVAILABLE; timed out: ERR_DEADLINE). errno is kept.
 */
enum err err_errno(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* The text of this thread's last error; never NULL. */
const char *err_text(void);

/* "io", "corrupt", ...: stable lower-case names, used on the wire and in JSON. */
const char *err_name(enum err code);

/* The inverse of err_name(); ERR_INTERNAL for an unknown name. */
enum err err_from_name(const char *name, size_t n);

/* May the same call succeed later without anything being changed? */
bool err_is_transient(enum err code);

/* Return the error of `expr`, if it is one. The only control-flow macro of the project. */
#define TRY(expr)                                                                                                      \
	do {                                                                                                           \
		enum err try_err_ = (expr);                                                                            \
		if (try_err_ != ERR_OK)                                                                                \
			return try_err_;                                                                               \
	} while (0)

/* Assertion against programmer errors; stays on in release builds. */
#define ENSURE(cond) ((cond) ? (void)0 : err_die(__FILE__, __LINE__, #cond))
_Noreturn void err_die(const char *file, int line, const char *cond);

#endif
