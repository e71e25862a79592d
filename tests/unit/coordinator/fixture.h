/*
 * What the tests of the coordinator's core share: a scratch directory, updates, and a disk that fails.
 */
#ifndef HANSA_TESTS_COORDINATOR_FIXTURE_H
#define HANSA_TESTS_COORDINATOR_FIXTURE_H

#include "update/fixture.h"

#include "base/file.h"
#include "update/update.h"

/* The n-th operation fails (0: the first), and with `stays` all after it, as if the machine had stopped there. */
struct bad_disk {
	size_t at, seen;
	bool stays, hit;
	bool spares_database; /* it is on another disk */
};

static inline enum err bad_disk_hook(void *arg, enum file_op op, const char *path, size_t n, size_t *ret_short)
{
	struct bad_disk *d = arg;
	if (d->spares_database && strstr(path, "/hansa.db") != NULL)
		return ERR_OK;
	size_t index = d->seen++;
	if (index < d->at || (index > d->at && !d->stays))
		return ERR_OK;
	d->hit = true;
	if (op == FILE_OP_WRITE)
		*ret_short = n / 2;
	return ERR_IO;
}

static inline void bad_disk_insert(struct bad_disk *d, size_t at, bool stays)
{
	*d = (struct bad_disk){.at = at, .stays = stays};
	file_set_hook(bad_disk_hook, d);
}

static inline void bad_disk_remove(void)
{
	file_set_hook(NULL, NULL);
}

/* What was asked of the disk, in order, one letter each: "CWSdRd"; writes in a row are one. */
struct disk_tape {
	char ops[64];
	size_t n;
};

static inline enum err disk_tape_hook(void *arg, enum file_op op, const char *path, size_t n, size_t *ret_short)
{
	static const char letters[] = {
		[FILE_OP_CREATE] = 'C', [FILE_OP_WRITE] = 'W',   [FILE_OP_SYNC] = 'S',     [FILE_OP_RENAME] = 'R',
		[FILE_OP_REMOVE] = 'X', [FILE_OP_DIRSYNC] = 'd', [FILE_OP_TRUNCATE] = 'T', [FILE_OP_MKDIR] = 'M',
	};
	struct disk_tape *t = arg;
	(void)path;
	(void)n;
	(void)ret_short;
	bool again = op == FILE_OP_WRITE && t->n > 0 && t->ops[t->n - 1] == 'W';
	if (!again && t->n + 1 < sizeof t->ops)
		t->ops[t->n++] = letters[op];
	return ERR_OK;
}

static inline void disk_tape_insert(struct disk_tape *t)
{
	*t = (struct disk_tape){.n = 0};
	file_set_hook(disk_tape_hook, t);
}

/* Names in `dir` that end in `suffix`. */
static inline size_t count_files(const char *dir, const char *suffix)
{
	size_t n = 0;
	DIR *d = opendir(dir);
	if (d == NULL)
		return 0;
	for (const struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
		size_t len = strlen(e->d_name), k = strlen(suffix);
		n += e->d_name[0] != '.' && len >= k && strcmp(e->d_name + len - k, suffix) == 0;
	}
	closedir(d);
	return n;
}

/* The update of a plant that has learned something, of its own for each seed. */
static inline struct bytes update_of(const struct manifest *m, const struct model *base, uint64_t seed)
{
	struct model *local = model_dup(base);
	uint8_t *bytes;
	model_move(local, seed, 0.1f);
	assert_ok(update_make(m, base->theta, local->theta, 0, &bytes, NULL));
	model_free(local);
	return bytes_of(bytes, manifest_update_bytes(m));
}

static inline void update_free(struct bytes *update)
{
	union {
		const uint8_t *view;
		uint8_t *owned;
	} u = {.view = update->p};
	free(u.owned);
	*update = bytes_of(NULL, 0);
}

#endif
