/*
 * Private to db*.c: the connection, and reading of columns that have one form.
 */
#ifndef HANSA_COORDINATOR_DB_SCHEMA_H
#define HANSA_COORDINATOR_DB_SCHEMA_H

#include "coordinator/db.h"
#include "coordinator/sql.h"

struct db {
	struct sql *sql; /* owned */
};

void db_bind_digest(struct query *q, const struct digest *d); /* zero: NULL */
/* Spoil the query when the column does not hold what it must. */
struct digest db_digest(struct query *q, int column); /* NULL: zero */
enum role db_role(struct query *q, int column);
void db_text(struct query *q, int column, char *out, size_t size);
uint64_t db_count(struct query *q, int column, uint64_t max);
void db_buf(struct query *q, int column, size_t max, struct buf *ret_content); /* buf_init's it */

/* How many rows a one-number query without parameters finds. */
MUST_CHECK enum err db_ask_number(struct db *db, const char *text, int64_t *ret_number);

enum { DB_COHORT_MAX = 4096 * WIRE_NAME_SIZE }; /* bytes: FIXED_PLANTS_MAX names */

/* Parts of a transaction that jobs and rounds share. */
MUST_CHECK enum err db_write_round(struct db *db, uint64_t job, const struct round_row *r); /* a new, open one */
MUST_CHECK enum err db_write_job_end(struct db *db, uint64_t id, enum wire_job_state state, const char *reason,
				     int64_t now_ms);

/* An array that grows while rows are read. */
#define DB_GROW(array, n)                                                                                              \
	((n) == 0 || ((n) & ((n)-1)) == 0 ? mem_grow((array), (n) == 0 ? 1 : 2 * (n), sizeof *(array)) : (array))

#endif
