/*
 * The hook: counts, refuses, and remembers at each sync what has become durable by it.
 */
#include "support/crashdisk_parts.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CONTENT_MAX = 1 << 30 };

void crashdisk_full(const struct crashdisk *c, const char *path, char out[PATH_SIZE])
{
	path_join(out, c->dir, path);
}

void crashdisk_free_bytes(struct bytes *b)
{
	union {
		const uint8_t *view;
		uint8_t *owned;
	} u = {.view = b->p};
	free(u.owned);
	*b = bytes_of(NULL, 0);
}

struct bytes crashdisk_content(const struct node *node)
{
	struct buf b;
	ENSURE(file_read(node->shadow, CONTENT_MAX, &b) == ERR_OK);
	return bytes_of(b.p, b.n);
}

void crashdisk_listing_free(struct listing *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->v[i].name);
	free(l->v);
	*l = (struct listing){0};
}

/* NULL when there is no such file. */
static struct node *node_of(struct crashdisk *c, const char *full)
{
	struct stat st;
	if (lstat(full, &st) != 0 || !S_ISREG(st.st_mode))
		return NULL;
	for (size_t i = 0; i < c->n_nodes; i++) {
		if (c->nodes[i]->ino == st.st_ino)
			return c->nodes[i];
	}
	struct node *node = mem_new(sizeof *node);
	*node = (struct node){.ino = st.st_ino,
			      .shadow = mem_printf("%s/%llu", c->shadow, (unsigned long long)st.st_ino)};
	if (link(full, node->shadow) != 0) {
		ENSURE(errno == ENOENT); /* another thread has renamed or removed it just now */
		free(node->shadow);
		free(node);
		return NULL;
	}
	c->nodes = mem_grow(c->nodes, c->n_nodes + 1, sizeof(struct node *));
	c->nodes[c->n_nodes++] = node;
	return node;
}

static void note_size(struct crashdisk *c, const char *full)
{
	struct stat st;
	struct node *node = node_of(c, full);
	if (node != NULL && stat(node->shadow, &st) == 0 && (size_t)st.st_size < node->low)
		node->low = (size_t)st.st_size;
}

static void note_sync(struct node *node)
{
	if (node == NULL)
		return;
	crashdisk_free_bytes(&node->durable);
	node->durable = crashdisk_content(node);
	node->low = node->durable.n;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

struct listing crashdisk_list(struct crashdisk *c, const char *path)
{
	char folder[PATH_SIZE], full[PATH_SIZE];
	struct listing l = {0};
	struct stat st;
	crashdisk_full(c, path, folder);
	DIR *d = opendir(folder);
	if (d == NULL)
		return l;
	for (const struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		path_join(full, folder, e->d_name);
		struct node *node = node_of(c, full);
		/* Gone meanwhile, or neither file nor directory. */
		if (node == NULL && (lstat(full, &st) != 0 || !S_ISDIR(st.st_mode)))
			continue;
		l.v = mem_grow(l.v, l.n + 1, sizeof *l.v);
		l.v[l.n++] = (struct entry){
			.name = mem_str(e->d_name), .node = node, .mode = node == NULL ? st.st_mode & 07777 : 0};
	}
	closedir(d);
	if (l.n > 0)
		qsort(l.v, l.n, sizeof *l.v, by_name);
	return l;
}

struct folder *crashdisk_folder(struct crashdisk *c, const char *path)
{
	for (size_t i = 0; i < c->n_folders; i++) {
		if (strcmp(c->folders[i]->path, path) == 0)
			return c->folders[i];
	}
	struct folder *f = mem_new(sizeof *f);
	f->path = mem_str(path);
	c->folders = mem_grow(c->folders, c->n_folders + 1, sizeof(struct folder *));
	c->folders[c->n_folders++] = f;
	return f;
}

static void note_dirsync(struct crashdisk *c, const char *path)
{
	struct folder *f = crashdisk_folder(c, path);
	crashdisk_listing_free(&f->durable);
	f->durable = crashdisk_list(c, path);
}

static void forget(struct crashdisk *c)
{
	for (size_t i = 0; i < c->n_nodes; i++) {
		unlink(c->nodes[i]->shadow);
		crashdisk_free_bytes(&c->nodes[i]->durable);
		free(c->nodes[i]->shadow);
		free(c->nodes[i]->restored);
		free(c->nodes[i]);
	}
	for (size_t i = 0; i < c->n_folders; i++) {
		crashdisk_listing_free(&c->folders[i]->durable);
		crashdisk_listing_free(&c->folders[i]->present);
		free(c->folders[i]->path);
		free(c->folders[i]);
	}
	free(c->nodes);
	free(c->folders);
	c->nodes = NULL;
	c->folders = NULL;
	c->n_nodes = c->n_folders = 0;
}

static void begin_below(struct crashdisk *c, const char *path)
{
	note_dirsync(c, path);
	const struct listing *l = &crashdisk_folder(c, path)->durable;
	for (size_t i = 0; i < l->n; i++) {
		char below[PATH_SIZE];
		if (l->v[i].node != NULL)
			note_sync(l->v[i].node);
		else
			begin_below(c, path[0] == '\0' ? l->v[i].name : path_join(below, path, l->v[i].name));
	}
}

void crashdisk_begin(struct crashdisk *c)
{
	forget(c);
	begin_below(c, "");
}

/* The part of `path` below the root without slashes around it, in `out`; NULL when it is elsewhere. */
static const char *below_root(const struct crashdisk *c, const char *path, char out[PATH_SIZE])
{
	const char *roots[] = {c->dir, c->real_dir};
	for (size_t i = 0; i < 2; i++) {
		size_t n = strlen(roots[i]);
		if (strncmp(path, roots[i], n) != 0 || (path[n] != '/' && path[n] != '\0'))
			continue;
		const char *rest = path + n + strspn(path + n, "/");
		size_t len = strlen(rest);
		while (len > 0 && rest[len - 1] == '/')
			len--;
		ENSURE(len < PATH_SIZE);
		memcpy(out, rest, len);
		out[len] = '\0';
		return out;
	}
	return NULL;
}

static enum err judge(struct crashdisk *c, enum file_op op, const char *path, const char *below, size_t n,
		      size_t *ret_short)
{
	c->count++;
	if (c->dead)
		return ERR_IO;
	if (op == FILE_OP_WRITE || op == FILE_OP_TRUNCATE)
		note_size(c, path);
	if (c->last != 0 && c->count >= c->last) {
		c->dead = true;
		if (op == FILE_OP_WRITE && c->mode == CRASHDISK_MIXED && n > 0)
			*ret_short = (size_t)rng_below(&c->rng, n);
		return ERR_IO;
	}
	if (op == FILE_OP_SYNC)
		note_sync(node_of(c, path));
	if (op == FILE_OP_DIRSYNC)
		note_dirsync(c, below);
	return ERR_OK;
}

static enum err hook(void *arg, enum file_op op, const char *path, size_t n, size_t *ret_short)
{
	struct crashdisk *c = arg;
	char below[PATH_SIZE];
	if (below_root(c, path, below) == NULL)
		return ERR_OK;
	pthread_mutex_lock(&c->lock);
	enum err e = judge(c, op, path, below, n, ret_short);
	pthread_mutex_unlock(&c->lock);
	errno = 0; /* it would be taken for the reason */
	return e;
}

void crashdisk_make_scratch(char out[PATH_SIZE])
{
	static const char name[] = "hansa-test-XXXXXX";
	if (mkdtemp(strcpy(out, "/dev/shm/hansa-test-XXXXXX")) != NULL)
		return;
	const char *base = getenv("TMPDIR");
	path_join(out, base != NULL ? base : "/tmp", name);
	ENSURE(mkdtemp(out) != NULL);
}

struct crashdisk *crashdisk_new(const char *dir, uint64_t seed)
{
	struct crashdisk *c = mem_new(sizeof *c);
	*c = (struct crashdisk){.dir = mem_str(dir)};
	for (size_t n = strlen(dir); n > 1 && c->dir[n - 1] == '/'; n--)
		c->dir[n - 1] = '\0';
	c->real_dir = realpath(dir, NULL);
	ENSURE(c->real_dir != NULL);
	c->shadow = mem_printf("%s.shadow-XXXXXX", c->real_dir);
	ENSURE(mkdtemp(c->shadow) != NULL);
	pthread_mutex_init(&c->lock, NULL);
	rng_seed(&c->rng, seed);
	crashdisk_begin(c);
	file_set_hook(hook, c);
	return c;
}

void crashdisk_free(struct crashdisk *c)
{
	if (c == NULL)
		return;
	file_set_hook(NULL, NULL);
	forget(c);
	ENSURE(rmdir(c->shadow) == 0);
	pthread_mutex_destroy(&c->lock);
	free(c->shadow);
	free(c->real_dir);
	free(c->dir);
	free(c);
}

void crashdisk_arm(struct crashdisk *c, uint64_t n, enum crashdisk_mode mode)
{
	pthread_mutex_lock(&c->lock);
	c->count = 0;
	c->last = n;
	c->mode = mode;
	c->dead = false;
	pthread_mutex_unlock(&c->lock);
}

uint64_t crashdisk_count(struct crashdisk *c)
{
	pthread_mutex_lock(&c->lock);
	uint64_t count = c->count;
	pthread_mutex_unlock(&c->lock);
	return count;
}

bool crashdisk_dead(struct crashdisk *c)
{
	pthread_mutex_lock(&c->lock);
	bool dead = c->dead;
	pthread_mutex_unlock(&c->lock);
	return dead;
}
