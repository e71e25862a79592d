/*
 * Replacing a file: a temporary is written beside it and renamed, so a reader sees the old content or the new, at every
 * moment and after every crash.
 *
 * The temporary's name is fixed by the file's name, so one that a crash left behind is found and removed by the next
 * replacement instead of filling the disk. Two writers of the same file take turns by flock() on the temporary; who
 * holds the lock checks that the name still means the file it has locked, because the previous holder has renamed or
 * removed it.
 */
#include "base/file_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum { COPY_BLOCK = 1 << 16 };

struct file_draft {
	char *path;      /* owned: what it will replace */
	char *temporary; /* owned: where it is written */
	int fd;          /* holds the lock */
	uint64_t offset;
};

static char *temporary_path(const char *path)
{
	char *parent = path_parent(path);
	const char *slash = strrchr(path, '/');
	char *tmp = mem_printf("%s/" FILE_TEMPORARY_PREFIX "%s", parent, slash != NULL ? slash + 1 : path);
	free(parent);
	return tmp;
}

/* Lock an open file, and see whether `path` still means it: the holder before us has renamed or removed it. */
static enum err lock_named(int fd, const char *path, bool *ret_there)
{
	struct stat opened, named;
	while (flock(fd, LOCK_EX) != 0) {
		if (errno != EINTR)
			return err_errno("%s: cannot lock", path);
	}
	if (fstat(fd, &opened) != 0)
		return err_errno("%s", path);
	*ret_there = lstat(path, &named) == 0 && opened.st_ino == named.st_ino && opened.st_dev == named.st_dev;
	return ERR_OK;
}

/* Remove what a crash left behind, after its writer, if it still lives, has finished. */
static enum err remove_leftover(const char *path)
{
	int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? ERR_OK : err_errno("%s: is in the way; cannot open it", path);
	bool there = false;
	enum err e = lock_named(fd, path, &there);
	if (e == ERR_OK && there && unlink(path) != 0)
		e = err_errno("%s: is in the way; cannot remove it", path);
	close(fd);
	return e;
}

/* One attempt; d->fd stays -1 when somebody else was faster. */
static enum err try_begin(struct file_draft *d, mode_t mode)
{
	bool there = false;
	int fd = open(d->temporary, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	if (fd < 0)
		return errno == EEXIST ? remove_leftover(d->temporary) : err_errno("%s: cannot create", d->temporary);
	enum err e = lock_named(fd, d->temporary, &there);
	if (e == ERR_OK && there)
		d->fd = fd;
	else
		close(fd);
	return e;
}

static void draft_free(struct file_draft *d)
{
	free(d->temporary);
	free(d->path);
	free(d);
}

enum err file_draft_begin(const char *path, mode_t mode, struct file_draft **ret_draft)
{
	TRY(fault_ask(FILE_OP_CREATE, path));
	struct file_draft *d = mem_new(sizeof *d);
	*d = (struct file_draft){.path = mem_str(path), .temporary = temporary_path(path), .fd = -1};
	enum err e = ERR_OK;
	while (e == ERR_OK && d->fd < 0)
		e = try_begin(d, mode);
	if (e != ERR_OK) {
		draft_free(d);
		return e;
	}
	*ret_draft = d;
	return ERR_OK;
}

enum err file_draft_write(struct file_draft *d, const void *p, size_t n)
{
	return file_put(d->fd, d->temporary, &d->offset, p, n);
}

enum err file_draft_end(struct file_draft *d, enum err e)
{
	if (e == ERR_OK)
		e = file_settle(d->fd, d->temporary);
	if (e == ERR_OK)
		e = fault_ask(FILE_OP_RENAME, d->path);
	if (e == ERR_OK && rename(d->temporary, d->path) != 0)
		e = err_errno("%s: cannot rename to %s", d->temporary, d->path);
	if (e == ERR_OK) {
		e = file_sync_parent(d->path);
	} else {
		/* The hook may refuse this too (a "crash"); the first error is the one to tell. */
		char *why = mem_str(err_text());
		if (fault_ask(FILE_OP_REMOVE, d->temporary) == ERR_OK)
			unlink(d->temporary);
		err_set(e, "%s", why);
		free(why);
	}
	close(d->fd);
	draft_free(d);
	return e;
}

enum err file_replace(const char *path, struct bytes content, mode_t mode)
{
	struct file_draft *d = NULL;
	TRY(file_draft_begin(path, mode, &d));
	return file_draft_end(d, file_draft_write(d, content.p, content.n));
}

static enum err copy_content(int fd, const char *from, struct file_draft *to)
{
	uint8_t block[COPY_BLOCK];
	for (;;) {
		ssize_t got = read(fd, block, sizeof block);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return err_errno("%s: cannot read", from);
		if (got == 0)
			return ERR_OK;
		TRY(file_draft_write(to, block, (size_t)got));
	}
}

enum err file_copy(const char *from, const char *to, mode_t mode)
{
	int fd = -1;
	struct stat st;
	struct file_draft *d = NULL;
	TRY(file_open_regular(from, &fd, &st));
	enum err e = file_draft_begin(to, mode, &d);
	if (e == ERR_OK)
		e = file_draft_end(d, copy_content(fd, from, d));
	close(fd);
	return e;
}

/* ---- another name ---- */

enum how { LINKED, AGAIN, COPIED };

/* The name that is too many is taken away again; the first error is the one to tell. */
static enum err drop_name(const char *temporary, enum err e)
{
	char *why = mem_str(err_text());
	if (fault_ask(FILE_OP_REMOVE, temporary) == ERR_OK)
		unlink(temporary);
	err_set(e, "%s", why);
	free(why);
	return e;
}

/* `opened`: `from`, which we have locked, so that whoever finds the temporary waits for us as for any writer of `to`. */
static enum err link_locked(const struct stat *opened, const char *from, const char *to, const char *temporary,
			    enum how *ret_how)
{
	struct stat present;
	*ret_how = LINKED;
	/* rename() would leave two names of one file as they are. */
	if (lstat(to, &present) == 0 && present.st_ino == opened->st_ino && present.st_dev == opened->st_dev)
		return file_sync_parent(to);
	if (link(from, temporary) != 0) {
		/* FAT knows no links, some network file systems refuse them, the names may be on two file systems. */
		*ret_how = errno == EEXIST ? AGAIN : COPIED;
		return ERR_OK;
	}
	enum err e = fault_ask(FILE_OP_RENAME, to);
	if (e == ERR_OK && rename(temporary, to) != 0)
		e = err_errno("%s: cannot rename to %s", temporary, to);
	return e == ERR_OK ? file_sync_parent(to) : drop_name(temporary, e);
}

static enum err try_link(const char *from, const char *to, const char *temporary, enum how *ret_how, mode_t *ret_mode)
{
	struct stat st;
	int fd = -1;
	bool there = false;
	enum how how = AGAIN; /* `from` has been replaced between open() and flock() */
	TRY(file_open_regular(from, &fd, &st));
	enum err e = ERR_OK;
	if (lock_named(fd, from, &there) != ERR_OK)
		how = COPIED; /* a file system without locks for readers */
	else if (there)
		e = link_locked(&st, from, to, temporary, &how);
	close(fd);
	/* Only now: what is in the way may be a name of this very file, of a crash between link() and rename(). */
	if (e == ERR_OK && there && how == AGAIN)
		e = remove_leftover(temporary);
	*ret_how = how;
	*ret_mode = st.st_mode & (S_IRWXU | S_IRWXG | S_IRWXO);
	return e;
}

enum err file_link(const char *from, const char *to)
{
	enum how how = AGAIN;
	mode_t mode = 0;
	TRY(fault_ask(FILE_OP_CREATE, to));
	char *temporary = temporary_path(to);
	enum err e = ERR_OK;
	while (e == ERR_OK && how == AGAIN)
		e = try_link(from, to, temporary, &how, &mode);
	free(temporary);
	return e == ERR_OK && how == COPIED ? file_copy(from, to, mode) : e;
}
