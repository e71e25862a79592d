/*
 * The one door to files. Whatever must survive a crash is written here, and the seam at the bottom lets a test make any
 * operation fail, write short, or "crash" (every later operation fails too, and nothing is cleaned up).
 *
 * Durable replace: temporary file in the same directory, write, sync, rename, sync of the directory.
 * Durable append: write at the end, fdatasync; a file that got shorter or longer than what was acknowledged is cut by
 * its reader.
 *
 * Errors: ERR_NOT_FOUND when the file or its directory is absent, ERR_IO for everything else that the system refuses,
 * among it anything that is no regular file. Modes are subject to the umask.
 */
#ifndef HANSA_BASE_FILE_H
#define HANSA_BASE_FILE_H

#include "base/buf.h"

#include <stdint.h>
#include <sys/types.h>

/* The whole file into a buffer of at most `max` bytes, initialised here; ERR_LIMIT when the file is larger. */
MUST_CHECK enum err file_read(const char *path, size_t max, struct buf *ret_content);

/*
 * Every reader sees the old content or the new one, whole; on failure it is the old one, unless only the last step (the
 * sync of the directory) failed. thread: any; several writers of a file take turns.
 */
MUST_CHECK enum err file_replace(const char *path, struct bytes content, mode_t mode);
MUST_CHECK enum err file_copy(const char *from, const char *to, mode_t mode); /* replaces `to` */
/* The same without the bytes: `to` becomes another name of `from`, which is durable and is never written to again, only replaced. Where the
 * file system has no such names it is a copy with `from`'s mode. */
MUST_CHECK enum err file_link(const char *from, const char *to);

/*
 * The same piece by piece, for what is too large to be in memory twice. From begin to end other writers of the file
 * wait, so a thread begins no second one of the same file. End with ERR_OK puts it in place; with an error (of a write,
 * or of what was to be written) it is dropped and that error returned with its text. The draft is freed in any case.
 * thread: one at a time.
 */
struct file_draft;
MUST_CHECK enum err file_draft_begin(const char *path, mode_t mode, struct file_draft **ret_draft);
MUST_CHECK enum err file_draft_write(struct file_draft *d, const void *p, size_t n);
MUST_CHECK enum err file_draft_end(struct file_draft *d, enum err e);

/* A temporary is called this + the name of its file. One that a crash left behind goes with the next replacement. */
#define FILE_TEMPORARY_PREFIX ".tmp-"

MUST_CHECK enum err file_size(const char *path, uint64_t *ret_size);
MUST_CHECK enum err file_time(const char *path, int64_t *ret_ns); /* when it was last written, since 1970 */
bool file_exists(const char *path);                               /* whatever it is */
MUST_CHECK enum err file_remove(const char *path);                /* absent is fine; the directory is synced */
MUST_CHECK enum err file_discard(const char *path); /* the same without the sync: it may come back after a crash */
MUST_CHECK enum err file_rename(const char *from, const char *to); /* same file system; both directories synced */

/* ERR_DENIED unless a regular file of the effective user (or root) that nobody else may read, write or execute. */
MUST_CHECK enum err file_check_private(const char *path);

/* Makes missing parents too, each durable; an existing directory is fine. Nothing is put into it before this returns. */
MUST_CHECK enum err dir_make(const char *path, mode_t mode);

/* What may still be written to the file system that the directory is on. */
MUST_CHECK enum err dir_free(const char *path, uint64_t *ret_bytes);

/* The entries of the directory are durable. */
MUST_CHECK enum err dir_sync(const char *path);

/* Calls fn for every name, sorted by bytes; ".", ".." and temporaries are left out. The first error of fn ends it. */
typedef enum err (*dir_fn)(void *arg, const char *name);
MUST_CHECK enum err dir_each(const char *path, dir_fn fn, void *arg);

/* Only one process may hold a directory: ERR_STATE when another one does. Held until exit. */
MUST_CHECK enum err dir_lock(const char *path);

/* "a/b"; returns `out`, which may be `dir`; ends the process when it does not fit. */
#define PATH_SIZE 1024
const char *path_join(char out[PATH_SIZE], const char *dir, const char *name);

/* A file that is written piece by piece and made durable at the end of a piece of work. thread: one at a time. */
struct file;
MUST_CHECK enum err file_create(const char *path, mode_t mode, struct file **ret_file); /* truncates */
MUST_CHECK enum err file_append_open(const char *path, mode_t mode, struct file **ret_file);
uint64_t file_offset(const struct file *f); /* bytes in the file, written so far */
void file_close(struct file *f);            /* NULL is fine; does not sync */

/* After a failure a part may be in the file: cut it off again at the last good offset. */
MUST_CHECK enum err file_write(struct file *f, const void *p, size_t n);
MUST_CHECK enum err file_writev(struct file *f, const struct bytes *pieces, size_t n); /* one after another */
/*
 * Anywhere in the file, which may grow; file_offset() does not move, and that is where file_write() and file_truncate()
 * go on: a file is written in one way or the other. thread: any number, on the same file, without a sync meanwhile.
 */
MUST_CHECK enum err file_write_at(struct file *f, uint64_t offset, const void *p, size_t n);
/* Begin to write to disk what has been written, without waiting: a later sync is short. Only advice. */
void file_flush(struct file *f);
MUST_CHECK enum err file_truncate(struct file *f, uint64_t size); /* ERR_STATE when it would grow */

/*
 * All content is durable; the first call after opening syncs the directory too. A failed sync of the content is final:
 * what was not written may be lost, so every later call is ERR_IO until the file is opened again and read back.
 */
MUST_CHECK enum err file_sync(struct file *f);
/* The content only: of a file that gets its lasting name by file_rename(), which syncs the directory. */
MUST_CHECK enum err file_sync_content(struct file *f);

/* Random reads, without copying the file into memory: exactly n bytes, else ERR_CORRUPT. thread: any number, on the same file. */
MUST_CHECK enum err file_open_read(const char *path, struct file **ret_file);
MUST_CHECK enum err file_read_at(struct file *f, uint64_t offset, void *p, size_t n);

/* Read-only mapping of a whole file, which nobody may cut meanwhile. */
struct file_map {
	struct bytes content; /* p is never NULL */
	void *base;           /* for file_unmap() */
};
MUST_CHECK enum err file_map(const char *path, struct file_map *ret_map);
void file_unmap(struct file_map *m);                                   /* safe twice */
void file_map_drop(const struct file_map *m, size_t offset, size_t n); /* these pages are not needed again soon */

/* Syncs of files, directories and databases by this process so far, and the nanoseconds spent in them. thread: any. */
void file_get_sync_stats(uint64_t *ret_count, uint64_t *ret_ns);

/*
 * Fault seam. The hook is asked before each durable operation, in order; it may return ERR_OK (go on), an error (the
 * operation fails with it), or set *ret_short (0 before) to a number of bytes of a write that reach the file before the
 * operation fails, with ERR_IO if it returns ERR_OK. It may set errno (0 before) when it refuses: ENOSPC or EROFS make
 * the text, and what SQLite makes of it, that of a full or read-only disk. A hook that fails everything from its n-th
 * call on is a crash at that point: temporaries stay behind too. NULL takes the hook out. Set it before threads start;
 * it is asked by whichever thread does the operation. SQLite asks it too, for the database, its journal and its
 * write-ahead log (coordinator/sql_vfs.h).
 */
enum file_op {
	FILE_OP_CREATE,
	FILE_OP_WRITE,
	FILE_OP_SYNC,
	FILE_OP_RENAME,
	FILE_OP_REMOVE,
	FILE_OP_DIRSYNC,
	FILE_OP_TRUNCATE,
	FILE_OP_MKDIR
};
typedef enum err (*file_hook)(void *arg, enum file_op op, const char *path, size_t n, size_t *ret_short);
void file_set_hook(file_hook hook, void *arg);

#endif
