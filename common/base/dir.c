/*
 * Directories and names. A directory entry is durable only after an fsync of the directory that holds it, so every
 * function here that makes one syncs its parent.
 */
#include "base/file_parts.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { ENTRIES_MAX = 1 << 20 };

const char *path_join(char out[PATH_SIZE], const char *dir, const char *name)
{
	char joined[PATH_SIZE]; /* `dir` may be `out` */
	size_t n = strlen(dir);
	const char *slash = n > 0 && dir[n - 1] == '/' ? "" : "/";
	int len = snprintf(joined, sizeof joined, "%s%s%s", dir, slash, name);
	ENSURE(len >= 0 && len < PATH_SIZE);
	return memcpy(out, joined, (size_t)len + 1);
}

char *path_parent(const char *path)
{
	size_t n = strlen(path);
	while (n > 1 && path[n - 1] == '/')
		n--;
	while (n > 0 && path[n - 1] != '/')
		n--;
	if (n == 0)
		return mem_str(".");
	while (n > 1 && path[n - 1] == '/')
		n--;
	return mem_printf("%.*s", (int)n, path);
}

enum err dir_sync(const char *path)
{
	TRY(fault_ask(FILE_OP_DIRSYNC, path));
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return err_errno("%s: cannot open directory", path);
	uint64_t begin = fault_sync_begin();
	int rc = fsync(fd);
	fault_sync_end(begin);
	/* EINVAL: a file system without directory syncing; there is no more that can be done. */
	enum err e = rc == 0 || errno == EINVAL ? ERR_OK : err_errno("%s: cannot sync directory", path);
	close(fd);
	return e;
}

static enum err make_one(const char *path, mode_t mode)
{
	TRY(fault_ask(FILE_OP_MKDIR, path));
	if (mkdir(path, mode) != 0 && errno != EEXIST)
		return err_errno("%s: cannot make directory", path);
	struct stat st;
	if (stat(path, &st) != 0)
		return err_errno("%s", path);
	if (!S_ISDIR(st.st_mode))
		return err_set(ERR_IO, "%s: is in the way of a directory", path);
	char *parent = path_parent(path);
	enum err e = dir_sync(parent);
	free(parent);
	return e;
}

/* A directory that we may not read counts as empty. */
static bool is_empty(const char *path)
{
	DIR *d = opendir(path);
	if (d == NULL)
		return true;
	size_t n = 0;
	while (n <= 2 && readdir(d) != NULL)
		n++;
	closedir(d);
	return n <= 2; /* "." and ".." */
}

/*
 * A directory that exists may not be durable: whoever made it may have died before its parent was synced. That one can
 * only be empty, because nobody puts anything into a directory before dir_make() has returned, and then the parent is
 * synced. So a directory with something in it, which is what every start but the first meets, costs no sync.
 */
static enum err make_durable(const char *path, const char *parent)
{
	if (!is_empty(path))
		return ERR_OK;
	enum err e = dir_sync(parent);
	/* A parent that we may not read is not ours. */
	return e == ERR_IO && errno == EACCES ? ERR_OK : e;
}

enum err dir_make(const char *path, mode_t mode)
{
	struct stat st;
	bool exists = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
	char *parent = path_parent(path);
	enum err e = ERR_OK;
	if (exists)
		e = make_durable(path, parent);
	else if (strcmp(parent, path) != 0)
		e = dir_make(parent, mode);
	free(parent);
	if (e == ERR_OK && !exists)
		e = make_one(path, mode);
	return e;
}

enum err dir_free(const char *path, uint64_t *ret_bytes)
{
	struct statvfs fs;
	if (statvfs(path, &fs) != 0)
		return err_errno("%s: cannot ask for free space", path);
	*ret_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	return ERR_OK;
}

static int name_order(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

struct names {
	char **v; /* owned */
	size_t n, cap;
};

static enum err read_names(DIR *d, const char *path, struct names *names)
{
	for (;;) {
		errno = 0;
		const struct dirent *entry = readdir(d);
		if (entry == NULL)
			return errno == 0 ? ERR_OK : err_errno("%s: cannot read directory", path);
		const char *name = entry->d_name;
		if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
		    strncmp(name, FILE_TEMPORARY_PREFIX, strlen(FILE_TEMPORARY_PREFIX)) == 0)
			continue;
		if (names->n == ENTRIES_MAX)
			return err_set(ERR_LIMIT, "%s: more than %d entries", path, ENTRIES_MAX);
		if (names->n == names->cap) {
			names->cap = names->cap == 0 ? 16 : names->cap * 2;
			names->v = mem_grow(names->v, names->cap, sizeof *names->v);
		}
		names->v[names->n++] = mem_str(name);
	}
}

enum err dir_each(const char *path, dir_fn fn, void *arg)
{
	DIR *d = opendir(path);
	if (d == NULL)
		return err_errno("%s: cannot open directory", path);
	struct names names = {0};
	enum err e = read_names(d, path, &names);
	closedir(d);
	if (names.n > 0)
		qsort(names.v, names.n, sizeof *names.v, name_order);
	for (size_t i = 0; i < names.n; i++) {
		if (e == ERR_OK)
			e = fn(arg, names.v[i]);
		free(names.v[i]);
	}
	free(names.v);
	return e;
}

enum err dir_lock(const char *path)
{
	char *name = mem_printf("%s/.lock", path);
	int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	enum err e = fd < 0 ? err_errno("%s: cannot lock", name) : ERR_OK;
	free(name);
	TRY(e);
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		return ERR_OK; /* `fd` stays open: the kernel drops the lock with the process, however it ends */
	e = errno == EWOULDBLOCK ? err_set(ERR_STATE, "%s: in use by another process", path)
				 : err_errno("%s: cannot lock", path);
	close(fd);
	return e;
}
