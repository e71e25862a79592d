/*
 * A spool in a scratch directory, and an update to receive.
 */
#ifndef HANSA_TESTS_COORDINATOR_SPOOL_FIXTURE_H
#define HANSA_TESTS_COORDINATOR_SPOOL_FIXTURE_H

#include "coordinator/fixture.h"

#include "base/log.h"
#include "coordinator/spool.h"

static char *dir;
static struct spool *spool;
static struct model *base;
static struct manifest *m;
static struct bytes update;
static struct digest digest;
static const struct spool_key key = {.job = 3, .round = 7, .plant = "north-1"};
static const struct spool_config large = {.small_max = 1};

static inline bool known_none(void *arg, const struct spool_name *n)
{
	(void)arg;
	(void)n;
	return false;
}

static inline bool known_all(void *arg, const struct spool_name *n)
{
	(void)arg;
	(void)n;
	return true;
}

/* As after a restart. */
static inline void reopen(const struct spool_config *config, bool (*known)(void *arg, const struct spool_name *n))
{
	spool_close(spool);
	assert_ok(spool_open(dir, config, &spool));
	assert_ok(spool_sweep(spool, known, NULL));
}

static inline int setup(void **state)
{
	(void)state;
	log_set_level(LOG_LEVEL_ERROR);
	dir = scratch_make();
	base = model_make(tiny_model, 1);
	m = manifest_make(base, NULL, NULL);
	update = update_of(m, base, 1);
	digest = digest_of(update);
	spool = NULL;
	reopen(&large, known_none);
	return 0;
}

static inline int teardown(void **state)
{
	(void)state;
	bad_disk_remove();
	spool_close(spool);
	update_free(&update);
	manifest_free(m);
	model_free(base);
	scratch_remove(dir);
	return 0;
}

static inline const char *folder(void)
{
	static char path[PATH_SIZE];
	return path_join(path, dir, "spool");
}

static inline const char *folder_file(const char *name)
{
	static char path[PATH_SIZE];
	return path_join(path, folder(), name);
}

/* A stream that has brought the bytes from `offset` to `end`, in one message. */
static inline enum err begin_with(const struct spool_key *k, struct bytes content, const struct digest *d,
				  uint64_t offset, size_t end, struct spool_entry **ret_entry)
{
	struct spool_entry *e;
	TRY(spool_begin(spool, k, m, 0, content.n, d, offset, &e));
	const struct bytes piece = bytes_of(content.p + offset, end - (size_t)offset);
	enum err err = spool_add(e, &piece, 1);
	if (err != ERR_OK) {
		spool_abort(e);
		return err;
	}
	*ret_entry = e;
	return ERR_OK;
}

/* Receive `content` in messages of at most `n` bytes, to the end or the first failure. */
static inline enum err receive(const struct spool_key *k, struct bytes content, const struct digest *d, double norm_max,
			       size_t n, double *ret_norm)
{
	struct spool_entry *e;
	TRY(spool_begin(spool, k, m, norm_max, content.n, d, 0, &e));
	enum err err = ERR_OK;
	for (size_t at = 0; err == ERR_OK && at < content.n; at += n) {
		const struct bytes piece = bytes_of(content.p + at, content.n - at < n ? content.n - at : n);
		err = spool_add(e, &piece, 1);
	}
	if (err == ERR_OK)
		err = spool_finish(e, ret_norm);
	if (err == ERR_OK)
		spool_free(e);
	else
		spool_abort(e);
	return err;
}

static inline void assert_spooled(const struct spool_key *k, struct bytes content)
{
	char path[PATH_SIZE];
	struct buf b;
	assert_ok(file_read(spool_path(spool, k, path), 1 << 20, &b));
	assert_int_equal(b.n, content.n);
	assert_memory_equal(b.p, content.p, b.n);
	buf_deinit(&b);
}

static inline void assert_empty(void)
{
	assert_int_equal(count_files(folder(), ""), 0);
	assert_int_equal(spool_bytes(spool), 0);
}

#endif
