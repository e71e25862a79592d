/*
 * What several tests of crypto and certs need: a temporary directory, a federation with a CA, leaves. Times are fixed,
 * so that nothing here depends on the day the tests run.
 */
#ifndef HANSA_TESTS_CRYPTO_FIXTURE_H
#define HANSA_TESTS_CRYPTO_FIXTURE_H

#include "base/file.h"
#include "crypto/cert.h"

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define FIXTURE_NOW_MS INT64_C(1790000000000) /* 2026-09-21T14:13:20Z */
#define DAY_MS         (INT64_C(24) * 3600 * 1000)

#define assert_err(expected, expr) assert_string_equal(err_name(expected), err_name(expr))
#define assert_ok(expr)                                                                                                \
	do {                                                                                                           \
		if ((expr) != ERR_OK)                                                                                  \
			fail_msg("%s: %s", #expr, err_text());                                                         \
	} while (0)

struct tempdir {
	char path[PATH_SIZE];
};

static inline void tempdir_make(struct tempdir *d)
{
	const char *base = getenv("TMPDIR");
	snprintf(d->path, sizeof d->path, "%s/hansa-test-XXXXXX", base == NULL || base[0] == '\0' ? "/tmp" : base);
	assert_non_null(mkdtemp(d->path));
}

static inline int tempdir_unlink(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static inline void tempdir_remove(struct tempdir *d)
{
	assert_int_equal(nftw(d->path, tempdir_unlink, 8, FTW_DEPTH | FTW_PHYS), 0);
}

/* A CA and its key, valid from ten days before `now_ms` to ten years after. */
struct authority {
	struct key *key;
	struct cert *cert;
};

static inline void authority_make(struct authority *a, const char *federation, int64_t now_ms)
{
	assert_ok(key_generate(KEY_P256, &a->key));
	assert_ok(cert_make_ca(a->key, federation, now_ms - 10 * DAY_MS, now_ms + 3650 * DAY_MS, &a->cert));
}

static inline void authority_free(struct authority *a)
{
	cert_free(a->cert);
	key_free(a->key);
}

static inline struct identity identity_of(enum role role, const char *federation, const char *name)
{
	struct identity id;
	assert_ok(identity_make(role, federation, name, &id));
	return id;
}

#endif
