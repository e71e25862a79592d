/*
 * What is there after the power loss: first every change of a name is decided, all changes that concern one file
 * together, then the contents; then the directory is emptied and built anew.
 */
#include "support/crashdisk_parts.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SECTOR = 512 };

/* A name that is not durable as it is now. */
struct change {
	const struct entry *before, *now; /* one of them may be NULL */
	size_t group;                     /* index of the first change that goes with this one */
	bool made;
};

struct decision {
	struct crashdisk *c;
	struct change *v; /* owned */
	size_t n;
};

enum { NO_CHANGE = SIZE_MAX };

/* The next name of two sorted listings; each output is NULL where the name is missing. */
static bool next_name(const struct listing *before, const struct listing *now, size_t *i, size_t *k,
		      const struct entry **ret_before, const struct entry **ret_now)
{
	const struct entry *a = *i < before->n ? &before->v[*i] : NULL, *b = *k < now->n ? &now->v[*k] : NULL;
	int order = a == NULL ? 1 : b == NULL ? -1 : strcmp(a->name, b->name);
	*ret_before = order <= 0 ? a : NULL;
	*ret_now = order >= 0 ? b : NULL;
	*i += *ret_before != NULL;
	*k += *ret_now != NULL;
	return a != NULL || b != NULL;
}

static size_t root_of(const struct decision *d, size_t i)
{
	while (d->v[i].group != i)
		i = d->v[i].group;
	return i;
}

static void unite(struct decision *d, size_t a, size_t b)
{
	a = root_of(d, a);
	b = root_of(d, b);
	d->v[a > b ? a : b].group = a > b ? b : a;
}

static const char *below(char out[PATH_SIZE], const char *path, const char *name)
{
	if (path[0] != '\0')
		return path_join(out, path, name);
	ENSURE(strlen(name) < PATH_SIZE);
	return strcpy(out, name);
}

/* `parent`: the change that made this directory. What is in it goes with it. */
static void collect(struct decision *d, const char *path, size_t parent)
{
	struct folder *f = crashdisk_folder(d->c, path);
	const struct entry *before, *now;
	crashdisk_listing_free(&f->present);
	f->present = crashdisk_list(d->c, path);
	for (size_t i = 0, k = 0; next_name(&f->durable, &f->present, &i, &k, &before, &now);) {
		size_t here = NO_CHANGE;
		if (before == NULL || now == NULL || before->node != now->node) {
			here = d->n++;
			d->v = mem_grow(d->v, d->n, sizeof *d->v);
			d->v[here] = (struct change){.before = before, .now = now, .group = here};
			if (parent != NO_CHANGE)
				unite(d, here, parent);
		}
		char path_below[PATH_SIZE];
		if (now != NULL && now->node == NULL)
			collect(d, below(path_below, path, now->name), here);
	}
}

static bool touches(const struct change *a, const struct node *node)
{
	return node != NULL &&
	       ((a->before != NULL && a->before->node == node) || (a->now != NULL && a->now->node == node));
}

static void decide(struct decision *d)
{
	for (size_t i = 0; i < d->n; i++) {
		for (size_t k = 0; k < i; k++) {
			const struct change *a = &d->v[i], *b = &d->v[k];
			if ((b->before != NULL && touches(a, b->before->node)) ||
			    (b->now != NULL && touches(a, b->now->node)))
				unite(d, i, k);
		}
	}
	for (size_t i = 0; i < d->n; i++) {
		size_t root = root_of(d, i);
		if (root != i)
			d->v[i].made = d->v[root].made;
		else if (d->c->mode == CRASHDISK_MIXED)
			d->v[i].made = rng_below(&d->c->rng, 2) == 1;
		else
			d->v[i].made = d->c->mode == CRASHDISK_KEEP;
	}
}

static const struct entry *outcome(const struct decision *d, const struct entry *before, const struct entry *now)
{
	for (size_t i = 0; i < d->n; i++) {
		if (d->v[i].before == before && d->v[i].now == now)
			return d->v[i].made ? now : before;
	}
	return now != NULL ? now : before; /* of a directory that is gone, which was not looked into */
}

/* Old and new content, sector by sector; the essay is in crashdisk.h. */
static struct bytes blend(struct rng *r, struct bytes old, struct bytes new, size_t low)
{
	static const uint8_t zeros[SECTOR];
	enum { SIZE_OLD, SIZE_NEW, SIZE_BETWEEN, SIZES = 4 };
	enum { NEW_FIRST, NEW_ANYWHERE, NEW_ALL, PATTERNS };
	uint64_t which = rng_below(r, SIZES), pattern = rng_below(r, PATTERNS);
	size_t size = which == SIZE_OLD ? old.n : new.n;
	if (which >= SIZE_BETWEEN)
		size = low + (size_t)rng_below(r, new.n - low + 1);
	size_t sectors = (size + SECTOR - 1) / SECTOR;
	size_t first_old = pattern == NEW_FIRST ? (size_t)rng_below(r, sectors + 1) : sectors;
	size_t torn = (size_t)rng_below(r, sectors + 1), torn_at = (size_t)rng_below(r, SECTOR);
	uint8_t *out = mem_new(size + 1);
	for (size_t s = 0; s < sectors; s++) {
		size_t at = s * SECTOR, n = size - at < SECTOR ? size - at : SECTOR;
		size_t n_old = old.n <= at ? 0 : old.n - at < n ? old.n - at : n;
		size_t n_new = new.n <= at ? 0 : new.n - at < n ? new.n - at : n;
		bool is_new = pattern == NEW_ANYWHERE ? rng_below(r, 2) == 1 : s < first_old;
		if (s == torn && n_new > torn_at)
			n_new = torn_at;
		else if (!is_new)
			n_new = 0;
		memcpy(out + at, zeros, n);
		if (n_old > 0)
			memcpy(out + at, old.p + at, n_old);
		if (n_new > 0)
			memcpy(out + at, new.p + at, n_new);
	}
	return bytes_of(out, size);
}

static void write_file(struct crashdisk *c, struct node *node, const char *full)
{
	struct stat st;
	if (node->restored != NULL) {
		ENSURE(link(node->restored, full) == 0);
		return;
	}
	struct bytes present = crashdisk_content(node), mixed = bytes_of(NULL, 0);
	size_t low = node->low < present.n ? node->low : present.n;
	if (c->mode == CRASHDISK_MIXED)
		mixed = blend(&c->rng, node->durable, present, low);
	struct bytes content = c->mode == CRASHDISK_KEEP ? present : c->mode == CRASHDISK_DROP ? node->durable : mixed;
	ENSURE(stat(node->shadow, &st) == 0);
	int fd = open(full, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	ENSURE(fd >= 0 && fchmod(fd, st.st_mode & 07777) == 0);
	for (size_t done = 0; done < content.n;) {
		ssize_t got = write(fd, content.p + done, content.n - done);
		ENSURE(got > 0);
		done += (size_t)got;
	}
	ENSURE(close(fd) == 0);
	node->restored = mem_str(full);
	crashdisk_free_bytes(&present);
	crashdisk_free_bytes(&mixed);
}

static void build(const struct decision *d, const char *path)
{
	char path_below[PATH_SIZE], full[PATH_SIZE];
	const struct folder *f = crashdisk_folder(d->c, path);
	const struct entry *before, *now;
	for (size_t i = 0, k = 0; next_name(&f->durable, &f->present, &i, &k, &before, &now);) {
		const struct entry *e = outcome(d, before, now);
		if (e == NULL)
			continue;
		crashdisk_full(d->c, below(path_below, path, e->name), full);
		if (e->node != NULL) {
			write_file(d->c, e->node, full);
			continue;
		}
		ENSURE(mkdir(full, 0700) == 0);
		build(d, path_below);
		ENSURE(chmod(full, e->mode) == 0);
	}
}

static int empty_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	return at->level == 0 ? 0 : remove(path);
}

void crashdisk_restore(struct crashdisk *c)
{
	pthread_mutex_lock(&c->lock);
	struct decision d = {.c = c};
	collect(&d, "", NO_CHANGE);
	decide(&d);
	ENSURE(nftw(c->dir, empty_one, 16, FTW_DEPTH | FTW_PHYS) == 0);
	build(&d, "");
	free(d.v);
	crashdisk_begin(c);
	c->count = c->last = 0;
	c->dead = false;
	pthread_mutex_unlock(&c->lock);
}
