/*
 * Everything is passed on to the file of the real VFS, which lies behind ours in the memory that SQLite gives. Only
 * five calls do more than that: open, write, truncate, sync, delete.
 *
 * SQLite reads the errno of a failure some calls later, when others have long gone over it; so it is kept per thread at
 * the moment of the failure, of every call.
 */
#include "coordinator/sql_vfs.h"

#include "base/fault.h"

#include <errno.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { METHODS_VERSION = 3, DURABLE = SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_WAL };

struct vfs_file {
	sqlite3_file base;
	const char *path;   /* SQLite's, until it is closed */
	bool entry_pending; /* a new journal: the real VFS syncs the directory with its first sync */
	sqlite3_file real[];
};

static sqlite3_vfs *real_vfs;
static sqlite3_vfs our_vfs;
static _Thread_local int last_errno;

static int note(int rc)
{
	/* These two say how things are; nothing has failed. */
	if (rc == SQLITE_IOERR_SHORT_READ || rc == SQLITE_IOERR_DELETE_NOENT)
		return rc;
	int kind = rc & 0xff;
	if (kind == SQLITE_IOERR || kind == SQLITE_CANTOPEN || kind == SQLITE_FULL)
		last_errno = errno;
	return rc;
}

static sqlite3_file *real_of(sqlite3_file *f)
{
	return ((struct vfs_file *)f)->real;
}

/* The hook has refused, and has set errno. */
static int refused(int rc)
{
	if (rc == SQLITE_IOERR_WRITE && (errno == ENOSPC || errno == EDQUOT))
		rc = SQLITE_FULL;
	return note(rc);
}

static char *parent_of(const char *path)
{
	/* SQLite makes every name absolute. */
	const char *slash = strrchr(path, '/');
	return slash == NULL   ? mem_str(".")
	       : slash == path ? mem_str("/")
			       : mem_printf("%.*s", (int)(slash - path), path);
}

static int x_close(sqlite3_file *f)
{
	int rc = real_of(f)->pMethods->xClose(real_of(f));
	f->pMethods = NULL;
	return note(rc);
}

static int x_read(sqlite3_file *f, void *p, int n, sqlite3_int64 offset)
{
	return note(real_of(f)->pMethods->xRead(real_of(f), p, n, offset));
}

static int x_write(sqlite3_file *f, const void *p, int n, sqlite3_int64 offset)
{
	struct vfs_file *v = (struct vfs_file *)f;
	size_t allowed;
	if (fault_ask_write(v->path, (size_t)n, &allowed) == ERR_OK)
		return note(v->real->pMethods->xWrite(v->real, p, n, offset));
	int number = errno;
	int rc = allowed > 0 ? v->real->pMethods->xWrite(v->real, p, (int)allowed, offset) : SQLITE_OK;
	if (rc != SQLITE_OK)
		return note(rc);
	errno = number;
	return refused(SQLITE_IOERR_WRITE);
}

static int x_truncate(sqlite3_file *f, sqlite3_int64 size)
{
	struct vfs_file *v = (struct vfs_file *)f;
	if (fault_ask(FILE_OP_TRUNCATE, v->path) != ERR_OK)
		return refused(SQLITE_IOERR_TRUNCATE);
	return note(v->real->pMethods->xTruncate(v->real, size));
}

static int x_sync(sqlite3_file *f, int flags)
{
	struct vfs_file *v = (struct vfs_file *)f;
	if (fault_ask(FILE_OP_SYNC, v->path) != ERR_OK)
		return refused(SQLITE_IOERR_FSYNC);
	uint64_t begin = fault_sync_begin();
	int rc = note(v->real->pMethods->xSync(v->real, flags));
	fault_sync_end(begin);
	if (rc != SQLITE_OK || !v->entry_pending)
		return rc;
	/* The content came first, then the name: a crash between the two leaves a synced file that nobody finds. */
	char *parent = parent_of(v->path);
	rc = fault_ask(FILE_OP_DIRSYNC, parent) == ERR_OK ? SQLITE_OK : refused(SQLITE_IOERR_DIR_FSYNC);
	free(parent);
	v->entry_pending = rc != SQLITE_OK;
	return rc;
}

static int x_file_size(sqlite3_file *f, sqlite3_int64 *ret_size)
{
	return note(real_of(f)->pMethods->xFileSize(real_of(f), ret_size));
}

static int x_lock(sqlite3_file *f, int level)
{
	return note(real_of(f)->pMethods->xLock(real_of(f), level));
}

static int x_unlock(sqlite3_file *f, int level)
{
	return note(real_of(f)->pMethods->xUnlock(real_of(f), level));
}

static int x_check_reserved_lock(sqlite3_file *f, int *ret_held)
{
	return note(real_of(f)->pMethods->xCheckReservedLock(real_of(f), ret_held));
}

static int x_file_control(sqlite3_file *f, int op, void *arg)
{
	return note(real_of(f)->pMethods->xFileControl(real_of(f), op, arg));
}

static int x_sector_size(sqlite3_file *f)
{
	return real_of(f)->pMethods->xSectorSize(real_of(f));
}

static int x_device_characteristics(sqlite3_file *f)
{
	return real_of(f)->pMethods->xDeviceCharacteristics(real_of(f));
}

static int x_shm_map(sqlite3_file *f, int region, int size, int extend, void volatile **ret_p)
{
	return note(real_of(f)->pMethods->xShmMap(real_of(f), region, size, extend, ret_p));
}

static int x_shm_lock(sqlite3_file *f, int offset, int n, int flags)
{
	return note(real_of(f)->pMethods->xShmLock(real_of(f), offset, n, flags));
}

static void x_shm_barrier(sqlite3_file *f)
{
	real_of(f)->pMethods->xShmBarrier(real_of(f));
}

static int x_shm_unmap(sqlite3_file *f, int remove)
{
	return note(real_of(f)->pMethods->xShmUnmap(real_of(f), remove));
}

static int x_fetch(sqlite3_file *f, sqlite3_int64 offset, int n, void **ret_p)
{
	return note(real_of(f)->pMethods->xFetch(real_of(f), offset, n, ret_p));
}

static int x_unfetch(sqlite3_file *f, sqlite3_int64 offset, void *p)
{
	return note(real_of(f)->pMethods->xUnfetch(real_of(f), offset, p));
}

static const sqlite3_io_methods methods = {
	.iVersion = METHODS_VERSION,
	.xClose = x_close,
	.xRead = x_read,
	.xWrite = x_write,
	.xTruncate = x_truncate,
	.xSync = x_sync,
	.xFileSize = x_file_size,
	.xLock = x_lock,
	.xUnlock = x_unlock,
	.xCheckReservedLock = x_check_reserved_lock,
	.xFileControl = x_file_control,
	.xSectorSize = x_sector_size,
	.xDeviceCharacteristics = x_device_characteristics,
	.xShmMap = x_shm_map,
	.xShmLock = x_shm_lock,
	.xShmBarrier = x_shm_barrier,
	.xShmUnmap = x_shm_unmap,
	.xFetch = x_fetch,
	.xUnfetch = x_unfetch,
};

static int x_open(sqlite3_vfs *vfs, const char *path, sqlite3_file *f, int flags, int *ret_flags)
{
	(void)vfs;
	/* What is not durable gets the real methods: we are not there at all. */
	if (path == NULL || (flags & DURABLE) == 0)
		return note(real_vfs->xOpen(real_vfs, path, f, flags, ret_flags));
	struct vfs_file *v = (struct vfs_file *)f;
	*v = (struct vfs_file){.path = path};
	bool is_new = (flags & SQLITE_OPEN_CREATE) != 0 && access(path, F_OK) != 0;
	if (is_new && fault_ask(FILE_OP_CREATE, path) != ERR_OK)
		return refused(SQLITE_CANTOPEN);
	v->real->pMethods = NULL;
	int rc = real_vfs->xOpen(real_vfs, path, v->real, flags, ret_flags);
	if (rc == SQLITE_OK && v->real->pMethods->iVersion < METHODS_VERSION) {
		v->real->pMethods->xClose(v->real);
		return SQLITE_CANTOPEN;
	}
	/* As SQLite has it: xClose is called whenever there are methods, even after a failure. */
	v->entry_pending = is_new && (flags & SQLITE_OPEN_MAIN_DB) == 0;
	v->base.pMethods = v->real->pMethods != NULL ? &methods : NULL;
	return note(rc);
}

static int x_delete(sqlite3_vfs *vfs, const char *path, int sync_directory)
{
	(void)vfs;
	if (fault_ask(FILE_OP_REMOVE, path) != ERR_OK)
		return refused(SQLITE_IOERR_DELETE);
	int rc = note(real_vfs->xDelete(real_vfs, path, 0));
	if (rc != SQLITE_OK || !sync_directory)
		return rc;
	char *parent = parent_of(path);
	rc = dir_sync(parent) == ERR_OK ? SQLITE_OK : note(SQLITE_IOERR_DIR_FSYNC);
	free(parent);
	return rc;
}

static int x_access(sqlite3_vfs *vfs, const char *path, int flags, int *ret_yes)
{
	(void)vfs;
	return note(real_vfs->xAccess(real_vfs, path, flags, ret_yes));
}

static int x_full_pathname(sqlite3_vfs *vfs, const char *path, int n, char *out)
{
	(void)vfs;
	return note(real_vfs->xFullPathname(real_vfs, path, n, out));
}

static int x_randomness(sqlite3_vfs *vfs, int n, char *out)
{
	(void)vfs;
	return real_vfs->xRandomness(real_vfs, n, out);
}

static int x_sleep(sqlite3_vfs *vfs, int us)
{
	(void)vfs;
	return real_vfs->xSleep(real_vfs, us);
}

static int x_current_time(sqlite3_vfs *vfs, double *ret_day)
{
	(void)vfs;
	return real_vfs->xCurrentTime(real_vfs, ret_day);
}

static int x_get_last_error(sqlite3_vfs *vfs, int n, char *out)
{
	(void)vfs;
	(void)n;
	(void)out;
	return last_errno;
}

static int x_current_time_int64(sqlite3_vfs *vfs, sqlite3_int64 *ret_ms)
{
	(void)vfs;
	return real_vfs->xCurrentTimeInt64(real_vfs, ret_ms);
}

/* Extensions that are loaded at run time are not for us: SQLite does without the xDl... calls. */
static void make(void)
{
	if (sqlite3_initialize() != SQLITE_OK)
		return;
	sqlite3_vfs *real = sqlite3_vfs_find(NULL);
	if (real == NULL || real->iVersion < 2)
		return;
	real_vfs = real;
	our_vfs = (sqlite3_vfs){
		.iVersion = 2,
		.szOsFile = (int)sizeof(struct vfs_file) + real->szOsFile,
		.mxPathname = real->mxPathname,
		.zName = "hansa",
		.xOpen = x_open,
		.xDelete = x_delete,
		.xAccess = x_access,
		.xFullPathname = x_full_pathname,
		.xRandomness = x_randomness,
		.xSleep = x_sleep,
		.xCurrentTime = x_current_time,
		.xGetLastError = x_get_last_error,
		.xCurrentTimeInt64 = x_current_time_int64,
	};
	if (sqlite3_vfs_register(&our_vfs, 0) != SQLITE_OK)
		our_vfs.zName = NULL;
}

int sql_vfs_errno(void)
{
	return last_errno;
}

const char *sql_vfs_name(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, make);
	return our_vfs.zName;
}
