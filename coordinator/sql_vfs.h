/*
 * The layer between SQLite and the system: the default VFS of unix, with the seam of base/fault.h before everything
 * durable that happens to the database, its write-ahead log and its rollback journal: creation, writes, truncation,
 * syncs (of the directory too), removal. So a test that fails or "crashes" the disk reaches the database as well as the
 * files, and the syncs of SQLite are counted with the others. The -shm file is not durable, and temporary files are not
 * either: they pass.
 *
 * What the hook refuses comes out as SQLite would see it: SQLITE_FULL for a write with ENOSPC, otherwise the
 * SQLITE_IOERR_... of the operation, or SQLITE_CANTOPEN for a creation.
 */
#ifndef HANSA_COORDINATOR_SQL_VFS_H
#define HANSA_COORDINATOR_SQL_VFS_H

/* The name to open databases with; registered at the first call. NULL when this SQLite has no VFS like unix'. thread: any. */
const char *sql_vfs_name(void);

/* Why the last failed operation of this thread failed, the system's or the hook's; SQLite itself loses it at times. */
int sql_vfs_errno(void);

#endif
