/*
 * A disk that loses power at the n-th durable operation, for tests of what is there afterwards.
 *
 *	for (uint64_t n = 1, more = 1; more; n++) {
 *		struct crashdisk *c = crashdisk_new(dir, seed + n);      what is in `dir` now is durable
 *		crashdisk_arm(c, n, CRASHDISK_MIXED);
 *		work(dir);                                               ends with ERR_IO at the n-th operation, or does not
 *		more = crashdisk_dead(c);
 *		crashdisk_restore(c);                                    close databases and files first
 *		check(dir);                                              what a start after the power came back finds
 *		crashdisk_free(c);                                       `dir` may be made anew for the next n
 *	}
 *
 * How it works. It is the hook of base/file.h, so it sees what goes through base and SQLite, before it happens. For
 * every directory it keeps the entries as of the last sync of that directory, for every file (inode) the content as of
 * the last sync of that file; hard links in a shadow directory beside `dir` keep every inode alive, so that a number
 * means one file only. From the n-th operation on everything is refused with ERR_IO: the process is as good as dead. A
 * restore then builds `dir` anew, from durable state and what had been written since.
 *
 * What may be lost or kept (MIXED draws, from the seed; the same seed and the same work give the same bytes):
 * - A name that appeared, changed or vanished since the last sync of its directory: has made it or not. All changes that
 *   concern one file go together: a rename may be lost, but never the file with it. A file's sync does not make its name
 *   durable, and a directory's not the content of its files.
 * - The content of a file since its last sync: each 512-byte sector is the old one or the new one, in any order; one
 *   sector may be torn at any byte; the size is the old one or anything the file had or passed since; what was never
 *   written below the size reads as zeros. A truncation may be lost. In MIXED a part of the n-th operation, if it
 *   is a write, gets through as well.
 *
 * Limits. A sector that was written twice since the last sync is the oldest or the newest (sweep n for those between).
 * Operations past the hook (locks, SQLite's -shm, a test's own) are "since the last sync", and no operation to be
 * counted. Directories are known by their path: they are not renamed. Only regular files and directories are restored, with
 * their modes. A file is found by the name that the operation gives, so writing through a handle after a rename is not
 * seen as durable when it is synced: the content is then lost though a disk would keep it. Several threads may work; an
 * operation that was asked before the n-th one counts as done although it may still be under way. Snapshots open and
 * close files, which drops this process's POSIX locks on them: no second process may work on the same database meanwhile.
 * thread: crashdisk_count() and crashdisk_dead() any, the rest one at a time while nobody works. One at a time exists.
 */
#ifndef HANSA_TESTS_SUPPORT_CRASHDISK_H
#define HANSA_TESTS_SUPPORT_CRASHDISK_H

#include "base/file.h"

enum crashdisk_mode {
	CRASHDISK_DROP,  /* whatever was not synced is gone: a file that never was is empty or absent */
	CRASHDISK_KEEP,  /* whatever was done before the n-th operation has made it */
	CRASHDISK_MIXED, /* some of it */
	CRASHDISK_MODES
};

struct crashdisk;

/*
 * A new scratch directory for a sweep, in memory where the system has such a file system: power is lost by our rules
 * anyway, and real syncs would make most of a sweep's time. The caller removes it.
 */
void crashdisk_make_scratch(char out[PATH_SIZE]);

/* Takes the hook; `dir` is there, its content is durable. Ends the process on errors of the system. */
struct crashdisk *crashdisk_new(const char *dir, uint64_t seed);
void crashdisk_free(struct crashdisk *c); /* gives the hook back; `dir` stays as it is, or may be gone. NULL is fine */

/* The n-th operation below `dir` from now on (1: the next) and all later ones fail; 0: none. Counts from 0 again. */
void crashdisk_arm(struct crashdisk *c, uint64_t n, enum crashdisk_mode mode);
uint64_t crashdisk_count(struct crashdisk *c); /* operations asked for since crashdisk_arm(), refused ones too */
bool crashdisk_dead(struct crashdisk *c);      /* the n-th has come */

/*
 * `dir` is as after the power loss; if it has not come, it comes now. Then the power is back: what is there is durable, and
 * nothing is refused until the next crashdisk_arm(), which may crash what the restart does.
 */
void crashdisk_restore(struct crashdisk *c);

#endif
