/*
 * Shared by crashdisk*.c only: what is durable, and what is there.
 */
#ifndef HANSA_TESTS_SUPPORT_CRASHDISK_PARTS_H
#define HANSA_TESTS_SUPPORT_CRASHDISK_PARTS_H

#include "support/crashdisk.h"

#include "base/rng.h"

#include <pthread.h>
#include <sys/stat.h>

/* A file, whatever its names are. */
struct node {
	ino_t ino;
	struct bytes durable; /* owned: content as of the last sync; none yet: no bytes */
	size_t low;           /* the smallest size seen since */
	char *shadow;         /* owned: the name that keeps it alive */
	char *restored;       /* owned: where the restore has put it */
};

struct entry {
	char *name;        /* owned */
	struct node *node; /* NULL: a directory */
	mode_t mode;       /* of a directory */
};

/* Sorted by name. */
struct listing {
	struct entry *v; /* owned */
	size_t n;
};

struct folder {
	char *path; /* owned: below the root, "" is the root */
	struct listing durable, present;
};

struct crashdisk {
	pthread_mutex_t lock;
	char *dir, *real_dir, *shadow; /* owned */
	struct rng rng;
	struct node **nodes; /* owned */
	size_t n_nodes;
	struct folder **folders; /* owned */
	size_t n_folders;
	uint64_t count, last; /* of operations; the one that fails, 0: none */
	enum crashdisk_mode mode;
	bool dead;
};

void crashdisk_full(const struct crashdisk *c, const char *path, char out[PATH_SIZE]);
struct folder *crashdisk_folder(struct crashdisk *c, const char *path); /* made when it is not known */
struct listing crashdisk_list(struct crashdisk *c, const char *path);   /* what is there; every file becomes a node */
void crashdisk_listing_free(struct listing *l);
struct bytes crashdisk_content(const struct node *node); /* what is there, free() */
void crashdisk_free_bytes(struct bytes *b);

/* Everything that is there is durable. */
void crashdisk_begin(struct crashdisk *c);

#endif
