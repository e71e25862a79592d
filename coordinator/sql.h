/*
 * The door to SQLite: one connection behind one mutex, statements prepared once, errors that stick.
 *
 *	struct query *q = sql_query(s, "SELECT name FROM member WHERE role = ?");
 *	sql_bind_text(q, "plant");
 *	while (sql_next(q))
 *		use(sql_text(q, 0));
 *	TRY(sql_end(q));
 *
 * From sql_query() to sql_end() the connection belongs to the calling thread; a transaction keeps it from sql_begin()
 *to its end. The first error of a query sticks: every later call on it does nothing, and sql_end() returns it.
 */
#ifndef HANSA_COORDINATOR_SQL_H
#define HANSA_COORDINATOR_SQL_H

#include "base/err.h"
#include "base/mem.h"

struct sql;   /* thread: any */
struct query; /* thread: the one that made it */

/* WAL, synchronous=FULL, foreign keys. ERR_CORRUPT for a file that is not a database. */
MUST_CHECK enum err sql_open(const char *path, struct sql **ret_sql);
void sql_close(struct sql *s); /* NULL is fine */

/* `text` lives as long as the connection (a literal): the statement is kept under its address. */
struct query *sql_query(struct sql *s, const char *text);
/* Parameters from left to right. Texts and bytes are copied; NULL and zero-sized bytes without address are NULL. */
void sql_bind_int(struct query *q, int64_t v);
void sql_bind_real(struct query *q, double v);
void sql_bind_text(struct query *q, const char *v);
void sql_bind_bytes(struct query *q, struct bytes v);
bool sql_next(struct query *q); /* a row is there */
/* Columns of the present row, from 0; views are valid until the next sql_next(). A NULL is 0, "" or no bytes. */
int64_t sql_int(struct query *q, int column);
double sql_real(struct query *q, int column);
const char *sql_text(struct query *q, int column);
struct bytes sql_bytes(struct query *q, int column);
/* A stored value does not make sense: the query fails with ERR_CORRUPT and this text. */
void sql_spoil(struct query *q, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Runs what is left, ends the query. ERR_DUPLICATE: a constraint; ERR_IO, ERR_CORRUPT, ERR_STATE (another program holds
 * the file). */
MUST_CHECK enum err sql_end(struct query *q);
int64_t sql_changes(const struct sql *s); /* rows changed by the last statement; inside a transaction */
int64_t sql_last_id(const struct sql *s); /* of the last insertion; inside a transaction */

/* Statements without parameters, separated by semicolons. */
MUST_CHECK enum err sql_run(struct sql *s, const char *text);

/* A transaction, not nested: sql_end_transaction(s, err) commits when `err` is ERR_OK, else rolls back and returns
 * `err` with its text. */
MUST_CHECK enum err sql_begin(struct sql *s);
MUST_CHECK enum err sql_end_transaction(struct sql *s, enum err err);

#endif
