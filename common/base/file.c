/*
 * Open files, and everything about a file that needs no temporary; file_replace.c has the rest.
 */
#include "base/file_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COPY_BLOCK = 1 << 16, WRITEV_MAX = 64 };

struct file {
	char *path; /* owned */
	int fd;
	uint64_t offset; /* bytes in the file */
	bool readonly;
	bool entry_durable; /* the directory was synced since it was opened */
	bool broken;        /* a sync failed: the kernel may have dropped what it could not write */
};

enum err file_put_all(int fd, const char *path, uint64_t *offset, const uint8_t *p, size_t n)
{
	while (n > 0) {
		ssize_t got = pwrite(fd, p, n, (off_t)*offset);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return err_errno("%s: cannot write", path);
		p += got;
		n -= (size_t)got;
		*offset += (uint64_t)got;
	}
	return ERR_OK;
}

enum err file_put(int fd, const char *path, uint64_t *offset, const void *p, size_t n)
{
	size_t allowed;
	enum err injected = fault_ask_write(path, n, &allowed);
	TRY(file_put_all(fd, path, offset, p, allowed));
	return injected;
}

enum err file_settle(int fd, const char *path)
{
	TRY(fault_ask(FILE_OP_SYNC, path));
	uint64_t begin = fault_sync_begin();
	int rc = fdatasync(fd);
	fault_sync_end(begin);
	return rc == 0 ? ERR_OK : err_errno("%s: cannot sync", path);
}

enum err file_sync_parent(const char *path)
{
	char *parent = path_parent(path);
	enum err e = dir_sync(parent);
	free(parent);
	return e;
}

enum err file_open_regular(const char *path, int *ret_fd, struct stat *ret_st)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return err_errno("%s: cannot open", path);
	enum err e = fstat(fd, ret_st) != 0 ? err_errno("%s", path) : ERR_OK;
	if (e == ERR_OK && !S_ISREG(ret_st->st_mode))
		e = err_set(ERR_IO, "%s: is not a regular file", path);
	if (e != ERR_OK) {
		close(fd);
		return e;
	}
	*ret_fd = fd;
	return ERR_OK;
}

static enum err read_all(int fd, const char *path, struct buf *b)
{
	for (;;) {
		/* One byte over the limit is asked for, to tell "exactly full" from "more". */
		uint8_t block[COPY_BLOCK];
		ssize_t got = read(fd, block, sizeof block);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return err_errno("%s: cannot read", path);
		if (got == 0)
			return ERR_OK;
		if ((size_t)got > b->max - b->n)
			return err_set(ERR_LIMIT, "%s: larger than %zu bytes", path, b->max);
		TRY(buf_append(b, block, (size_t)got));
	}
}

enum err file_read(const char *path, size_t max, struct buf *ret_content)
{
	int fd = -1;
	struct stat st;
	struct buf b;
	TRY(file_open_regular(path, &fd, &st));
	buf_init(&b, max);
	enum err e = ERR_OK;
	if ((uint64_t)st.st_size > b.max)
		e = err_set(ERR_LIMIT, "%s: larger than %zu bytes", path, b.max);
	if (e == ERR_OK)
		e = buf_reserve(&b, (size_t)st.st_size);
	if (e == ERR_OK)
		e = read_all(fd, path, &b);
	close(fd);
	if (e != ERR_OK) {
		buf_deinit(&b);
		return e;
	}
	*ret_content = b;
	return ERR_OK;
}

enum err file_size(const char *path, uint64_t *ret_size)
{
	struct stat st;
	if (stat(path, &st) != 0)
		return err_errno("%s", path);
	if (!S_ISREG(st.st_mode))
		return err_set(ERR_IO, "%s: is not a regular file", path);
	*ret_size = (uint64_t)st.st_size;
	return ERR_OK;
}

enum err file_time(const char *path, int64_t *ret_ns)
{
	struct stat st;
	if (stat(path, &st) != 0)
		return err_errno("%s", path);
	*ret_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
	return ERR_OK;
}

bool file_exists(const char *path)
{
	struct stat st;
	return stat(path, &st) == 0;
}

enum err file_remove(const char *path)
{
	TRY(fault_ask(FILE_OP_REMOVE, path));
	if (unlink(path) == 0)
		return file_sync_parent(path);
	if (errno != ENOENT)
		return err_errno("%s: cannot remove", path);
	/*
	 * Absent, but perhaps not durably: a process may have died, or its sync may have failed, right after the
	 * unlink, and then the file would be back after the next crash although we said that it is gone. Whoever
	 * does not mind that calls file_discard().
	 */
	enum err e = file_sync_parent(path);
	return e == ERR_NOT_FOUND ? ERR_OK : e;
}

enum err file_discard(const char *path)
{
	TRY(fault_ask(FILE_OP_REMOVE, path));
	return unlink(path) == 0 || errno == ENOENT ? ERR_OK : err_errno("%s: cannot remove", path);
}

enum err file_rename(const char *from, const char *to)
{
	TRY(fault_ask(FILE_OP_RENAME, to));
	if (rename(from, to) != 0)
		return err_errno("%s: cannot rename to %s", from, to);
	char *parent_from = path_parent(from), *parent_to = path_parent(to);
	/* The new name first: a crash in between may leave both names, never none. */
	enum err e = dir_sync(parent_to);
	if (e == ERR_OK && strcmp(parent_from, parent_to) != 0)
		e = dir_sync(parent_from);
	free(parent_from);
	free(parent_to);
	return e;
}

enum err file_check_private(const char *path)
{
	struct stat st;
	if (stat(path, &st) != 0)
		return err_errno("%s", path);
	if (!S_ISREG(st.st_mode))
		return err_set(ERR_DENIED, "%s: is not a regular file", path);
	if (st.st_uid != geteuid() && st.st_uid != 0)
		return err_set(ERR_DENIED, "%s: belongs to user %ld; it must belong to the user that runs this", path,
			       (long)st.st_uid);
	if ((st.st_mode & (S_IRWXG | S_IRWXO)) != 0)
		return err_set(ERR_DENIED, "%s: others may read it (mode %03o); run: chmod 600 %s", path,
			       (unsigned)st.st_mode & 0777u, path);
	return ERR_OK;
}

static struct file *file_new(const char *path, int fd, uint64_t offset, bool readonly)
{
	struct file *f = mem_new(sizeof *f);
	*f = (struct file){.path = mem_str(path), .fd = fd, .offset = offset, .readonly = readonly};
	return f;
}

enum err file_create(const char *path, mode_t mode, struct file **ret_file)
{
	TRY(fault_ask(FILE_OP_CREATE, path));
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
	if (fd < 0)
		return err_errno("%s: cannot create", path);
	*ret_file = file_new(path, fd, 0, false);
	return ERR_OK;
}

enum err file_append_open(const char *path, mode_t mode, struct file **ret_file)
{
	if (!file_exists(path))
		TRY(fault_ask(FILE_OP_CREATE, path));
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, mode);
	if (fd < 0)
		return err_errno("%s: cannot open for appending", path);
	struct stat st;
	enum err e = fstat(fd, &st) != 0 ? err_errno("%s", path) : ERR_OK;
	if (e == ERR_OK && !S_ISREG(st.st_mode))
		e = err_set(ERR_IO, "%s: is not a regular file", path);
	if (e != ERR_OK) {
		close(fd);
		return e;
	}
	*ret_file = file_new(path, fd, (uint64_t)st.st_size, false);
	return ERR_OK;
}

static enum err check_writable(const struct file *f)
{
	ENSURE(!f->readonly);
	return f->broken ? err_set(ERR_IO, "%s: an earlier sync failed; open it again", f->path) : ERR_OK;
}

enum err file_write(struct file *f, const void *p, size_t n)
{
	TRY(check_writable(f));
	return file_put(f->fd, f->path, &f->offset, p, n);
}

enum err file_writev(struct file *f, const struct bytes *pieces, size_t n)
{
	TRY(check_writable(f));
	struct iovec v[WRITEV_MAX];
	while (n > 0) {
		size_t k = n < WRITEV_MAX ? n : WRITEV_MAX, total = 0, allowed;
		for (size_t i = 0; i < k; i++) {
			v[i] = (struct iovec){(void *)(uintptr_t)pieces[i].p, pieces[i].n};
			total += pieces[i].n;
		}
		enum err injected = fault_ask_write(f->path, total, &allowed);
		ssize_t got = allowed == total ? pwritev(f->fd, v, (int)k, (off_t)f->offset) : 0;
		if (got < 0 && errno != EINTR)
			return err_errno("%s: cannot write", f->path);
		/* What is missing after a short write, or before an injected fault, goes piece by piece. */
		size_t done = got > 0 ? (size_t)got : 0, at = 0;
		f->offset += done;
		for (size_t i = 0; i < k && at < allowed; at += pieces[i++].n) {
			size_t end = at + pieces[i].n < allowed ? at + pieces[i].n : allowed;
			size_t from = done > at ? done : at;
			if (from < end)
				TRY(file_put_all(f->fd, f->path, &f->offset, pieces[i].p + (from - at), end - from));
		}
		TRY(injected);
		pieces += k;
		n -= k;
	}
	return ERR_OK;
}

enum err file_write_at(struct file *f, uint64_t offset, const void *p, size_t n)
{
	TRY(check_writable(f));
	if (offset > INT64_MAX || n > INT64_MAX - offset)
		return err_set(ERR_LIMIT, "%s: no byte %llu", f->path, (unsigned long long)offset);
	return file_put(f->fd, f->path, &offset, p, n);
}

void file_flush(struct file *f)
{
	/* Only advice. */
	(void)sync_file_range(f->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

enum err file_sync_content(struct file *f)
{
	TRY(check_writable(f));
	enum err e = file_settle(f->fd, f->path);
	f->broken = e != ERR_OK;
	return e;
}

enum err file_sync(struct file *f)
{
	enum err e = file_sync_content(f);
	if (e == ERR_OK && !f->entry_durable) {
		e = file_sync_parent(f->path);
		f->entry_durable = e == ERR_OK;
	}
	return e;
}

enum err file_truncate(struct file *f, uint64_t size)
{
	TRY(check_writable(f));
	if (size > f->offset)
		return err_set(ERR_STATE, "%s: cannot be cut at %llu: it has %llu bytes", f->path,
			       (unsigned long long)size, (unsigned long long)f->offset);
	TRY(fault_ask(FILE_OP_TRUNCATE, f->path));
	if (ftruncate(f->fd, (off_t)size) != 0)
		return err_errno("%s: cannot truncate", f->path);
	f->offset = size;
	return ERR_OK;
}

uint64_t file_offset(const struct file *f)
{
	return f->offset;
}

void file_close(struct file *f)
{
	if (f == NULL)
		return;
	close(f->fd);
	free(f->path);
	free(f);
}

enum err file_open_read(const char *path, struct file **ret_file)
{
	int fd = -1;
	struct stat st;
	TRY(file_open_regular(path, &fd, &st));
	*ret_file = file_new(path, fd, (uint64_t)st.st_size, true);
	return ERR_OK;
}

enum err file_read_at(struct file *f, uint64_t offset, void *p, size_t n)
{
	if (offset > INT64_MAX || n > INT64_MAX - offset)
		return err_set(ERR_CORRUPT, "%s: no byte %llu", f->path, (unsigned long long)offset);
	uint8_t *out = p;
	while (n > 0) {
		ssize_t got = pread(f->fd, out, n, (off_t)offset);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return err_errno("%s: cannot read", f->path);
		if (got == 0)
			return err_set(ERR_CORRUPT, "%s: ends at byte %llu, %zu bytes too early", f->path,
				       (unsigned long long)offset, n);
		out += got;
		n -= (size_t)got;
		offset += (uint64_t)got;
	}
	return ERR_OK;
}

enum err file_map(const char *path, struct file_map *ret_map)
{
	static const uint8_t nothing[1];
	int fd = -1;
	struct stat st;
	TRY(file_open_regular(path, &fd, &st));
	size_t n = (size_t)st.st_size;
	void *base = NULL;
	enum err e = ERR_OK;
	if (n > 0) {
		base = mmap(NULL, n, PROT_READ, MAP_SHARED, fd, 0);
		if (base == MAP_FAILED)
			e = err_errno("%s: cannot map", path);
	}
	close(fd);
	if (e != ERR_OK)
		return e;
	*ret_map = (struct file_map){.content = bytes_of(base != NULL ? base : nothing, n), .base = base};
	return ERR_OK;
}

void file_unmap(struct file_map *m)
{
	if (m->base != NULL)
		munmap(m->base, m->content.n);
	*m = (struct file_map){0};
}

void file_map_drop(const struct file_map *m, size_t offset, size_t n)
{
	if (m->base == NULL || n == 0)
		return;
	ENSURE(offset <= m->content.n && n <= m->content.n - offset);
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t start = offset / page * page;
	/* Only advice: a page that is needed after all is read again. */
	madvise((uint8_t *)m->base + start, offset + n - start, MADV_DONTNEED);
}
