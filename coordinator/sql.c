/*
 * Statements live as long as the connection, in a table by the address of their text: the texts are literals of the db
 * files, some dozens.
 *
 * The mutex is recursive because a query inside a transaction takes it again. It is held across the sync of a commit:
 * there is one writer, and whoever must not wait (the engine under its lock) does not come here.
 */
#include "coordinator/sql.h"

#include "base/file.h"
#include "coordinator/sql_vfs.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { QUERIES_MAX = 128, BUSY_MS = 5000 };

struct query {
	struct sql *sql;
	const char *text;   /* borrowed: the key */
	sqlite3_stmt *stmt; /* owned */
	int bound;          /* parameters so far */
	bool busy, done;
	enum err err;
	char *err_text; /* owned */
};

struct sql {
	sqlite3 *db;
	char *path; /* owned */
	pthread_mutex_t lock;
	struct query queries[QUERIES_MAX];
	size_t n_queries;
	struct query failed; /* stands for a statement that could not be prepared */
	bool in_transaction;
};

static enum err code_of(int rc)
{
	switch (rc & 0xff) {
	case SQLITE_OK:
	case SQLITE_ROW:
	case SQLITE_DONE:
		return ERR_OK;
	case SQLITE_CONSTRAINT:
		return ERR_DUPLICATE;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
	case SQLITE_MISMATCH:
		return ERR_CORRUPT;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return ERR_STATE;
	case SQLITE_FULL:
	case SQLITE_IOERR:
	case SQLITE_CANTOPEN:
	case SQLITE_READONLY:
	case SQLITE_PERM:
		return ERR_IO;
	default:
		return ERR_INTERNAL;
	}
}

static enum err fail(const struct sql *s, int rc)
{
	if (s->db == NULL)
		return err_set(code_of(rc), "%s: %s", s->path, sqlite3_errstr(rc));
	/* "disk I/O error" says nothing that somebody could act on; what the system said does. */
	int number = (rc & 0xff) == SQLITE_IOERR || (rc & 0xff) == SQLITE_CANTOPEN ? sql_vfs_errno() : 0;
	if (number == 0)
		return err_set(code_of(rc), "%s: %s", s->path, sqlite3_errmsg(s->db));
	char why[128];
	return err_set(code_of(rc), "%s: %s: %s", s->path, sqlite3_errmsg(s->db), strerror_r(number, why, sizeof why));
}

enum err sql_run(struct sql *s, const char *text)
{
	pthread_mutex_lock(&s->lock);
	int rc = sqlite3_exec(s->db, text, NULL, NULL, NULL);
	enum err err = rc == SQLITE_OK ? ERR_OK : fail(s, rc);
	pthread_mutex_unlock(&s->lock);
	return err;
}

static enum err set_up(struct sql *s)
{
	/* SQLite would make it readable for all; what it makes beside it takes this mode over. */
	if (!file_exists(s->path))
		TRY(file_replace(s->path, bytes_of("", 0), 0600));
	const char *vfs = sql_vfs_name();
	if (vfs == NULL)
		return err_set(ERR_IO, "%s: this SQLite library cannot use files of the system", s->path);
	int rc =
		sqlite3_open_v2(s->path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, vfs);
	if (rc != SQLITE_OK)
		return fail(s, rc);
	sqlite3_busy_timeout(s->db, BUSY_MS);
	sqlite3_extended_result_codes(s->db, 1);
	TRY(sql_run(s, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA "
		       "trusted_schema = OFF"));
	/* A file system that cannot do WAL leaves the old mode without an error. */
	struct query *q = sql_query(s, "PRAGMA journal_mode");
	bool wal = sql_next(q) && strcmp(sql_text(q, 0), "wal") == 0;
	TRY(sql_end(q));
	return wal ? ERR_OK
		   : err_set(ERR_IO, "%s: this file system does not allow write-ahead logging; use a local disk",
			     s->path);
}

enum err sql_open(const char *path, struct sql **ret_sql)
{
	struct sql *s = mem_new(sizeof *s);
	pthread_mutexattr_t attributes;
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&s->lock, &attributes);
	pthread_mutexattr_destroy(&attributes);
	s->path = mem_str(path);
	enum err err = set_up(s);
	if (err != ERR_OK) {
		sql_close(s);
		return err;
	}
	*ret_sql = s;
	return ERR_OK;
}

void sql_close(struct sql *s)
{
	if (s == NULL)
		return;
	for (size_t i = 0; i < s->n_queries; i++) {
		ENSURE(!s->queries[i].busy);
		sqlite3_finalize(s->queries[i].stmt);
	}
	sqlite3_close(s->db);
	pthread_mutex_destroy(&s->lock);
	free(s->path);
	free(s);
}

static struct query *find_query(struct sql *s, const char *text)
{
	for (size_t i = 0; i < s->n_queries; i++) {
		if (s->queries[i].text == text)
			return &s->queries[i];
	}
	ENSURE(s->n_queries < QUERIES_MAX);
	struct query *q = &s->queries[s->n_queries];
	*q = (struct query){.sql = s, .text = text};
	int rc = sqlite3_prepare_v3(s->db, text, -1, SQLITE_PREPARE_PERSISTENT, &q->stmt, NULL);
	if (rc == SQLITE_OK) {
		s->n_queries++;
		return q;
	}
	q = &s->failed;
	*q = (struct query){.sql = s, .text = text, .err = fail(s, rc)};
	q->err_text = mem_str(err_text());
	return q;
}

struct query *sql_query(struct sql *s, const char *text)
{
	pthread_mutex_lock(&s->lock);
	struct query *q = find_query(s, text);
	ENSURE(!q->busy);
	q->busy = true;
	q->done = false;
	q->bound = 0;
	return q;
}

static void stick(struct query *q, enum err err)
{
	q->err = err;
	q->err_text = mem_str(err_text());
}

static void check(struct query *q, int rc)
{
	if (q->err == ERR_OK && rc != SQLITE_OK)
		stick(q, fail(q->sql, rc));
}

void sql_bind_int(struct query *q, int64_t v)
{
	if (q->err == ERR_OK)
		check(q, sqlite3_bind_int64(q->stmt, ++q->bound, v));
}

void sql_bind_real(struct query *q, double v)
{
	if (q->err == ERR_OK)
		check(q, sqlite3_bind_double(q->stmt, ++q->bound, v));
}

void sql_bind_text(struct query *q, const char *v)
{
	if (q->err == ERR_OK)
		check(q, sqlite3_bind_text(q->stmt, ++q->bound, v, -1, SQLITE_TRANSIENT));
}

void sql_bind_bytes(struct query *q, struct bytes v)
{
	if (q->err == ERR_OK)
		check(q, sqlite3_bind_blob64(q->stmt, ++q->bound, v.p, v.n, SQLITE_TRANSIENT));
}

bool sql_next(struct query *q)
{
	if (q->err != ERR_OK || q->done)
		return false;
	int rc = sqlite3_step(q->stmt);
	if (rc == SQLITE_ROW)
		return true;
	q->done = true;
	if (rc != SQLITE_DONE)
		stick(q, fail(q->sql, rc));
	return false;
}

int64_t sql_int(struct query *q, int column)
{
	return sqlite3_column_int64(q->stmt, column);
}

double sql_real(struct query *q, int column)
{
	return sqlite3_column_double(q->stmt, column);
}

const char *sql_text(struct query *q, int column)
{
	const unsigned char *text = sqlite3_column_text(q->stmt, column);
	return text != NULL ? (const char *)text : "";
}

struct bytes sql_bytes(struct query *q, int column)
{
	const void *p = sqlite3_column_blob(q->stmt, column);
	return bytes_of(p, (size_t)sqlite3_column_bytes(q->stmt, column));
}

void sql_spoil(struct query *q, const char *fmt, ...)
{
	if (q->err != ERR_OK)
		return;
	char what[256];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(what, sizeof what, fmt, ap);
	va_end(ap);
	stick(q, err_set(ERR_CORRUPT, "%s: %s", q->sql->path, what));
}

enum err sql_end(struct query *q)
{
	struct sql *s = q->sql;
	while (sql_next(q))
		;
	if (q->stmt != NULL) {
		sqlite3_reset(q->stmt);
		sqlite3_clear_bindings(q->stmt);
	}
	enum err err = q->err;
	if (err != ERR_OK)
		err_set(err, "%s", q->err_text);
	free(q->err_text);
	q->err_text = NULL;
	q->err = ERR_OK;
	q->busy = false;
	pthread_mutex_unlock(&s->lock);
	return err;
}

int64_t sql_changes(const struct sql *s)
{
	return sqlite3_changes64(s->db);
}

int64_t sql_last_id(const struct sql *s)
{
	return sqlite3_last_insert_rowid(s->db);
}

enum err sql_begin(struct sql *s)
{
	pthread_mutex_lock(&s->lock);
	ENSURE(!s->in_transaction);
	enum err err = sql_run(s, "BEGIN IMMEDIATE");
	s->in_transaction = err == ERR_OK;
	if (err != ERR_OK)
		pthread_mutex_unlock(&s->lock);
	return err;
}

enum err sql_end_transaction(struct sql *s, enum err err)
{
	ENSURE(s->in_transaction);
	if (err == ERR_OK)
		err = sql_run(s, "COMMIT");
	if (err != ERR_OK) {
		char *text = mem_str(err_text());
		/* Some failures roll back by themselves; there is nothing to undo then. */
		if (!sqlite3_get_autocommit(s->db) && sql_run(s, "ROLLBACK") != ERR_OK)
			ENSURE(sqlite3_get_autocommit(s->db));
		err_set(err, "%s", text);
		free(text);
	}
	s->in_transaction = false;
	pthread_mutex_unlock(&s->lock);
	return err;
}
