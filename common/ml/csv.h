/*
 * CSV and TSV (RFC 4180 quoting; separator ',' ';' or tab, found from the header line; decimal point). The first line
 * names the columns; lines starting with '#' before it are comments. A byte-order mark is passed over, lines end with
 * LF or CRLF, empty lines stand only at the end. Limits (ERR_LIMIT): 1 GiB, 4096 columns, 1 MiB a line, 2^26 cells.
 * Errors: ERR_MALFORMED "file:line: ...".
 */
#ifndef HANSA_ML_CSV_H
#define HANSA_ML_CSV_H

#include "base/err.h"
#include "base/mem.h"

enum { CSV_COLUMNS_MAX = 4096, CSV_LINE_MAX = 1 << 20, CSV_CELLS_MAX = 1 << 26 };
#define CSV_FILE_MAX ((size_t)1 << 30)

struct csv {
	size_t n_rows, n_columns;
	char **names;    /* owned: n_columns; the texts belong to `text` */
	char **cells;    /* owned: n_rows * n_columns, row-major; text, unquoted; the texts belong to `text` */
	unsigned *lines; /* owned: n_rows: line in the file */
	char *file;      /* owned */
	char *text;      /* owned: the file's content, cut into cells in place */
};

MUST_CHECK enum err csv_parse(const char *name, struct bytes content, struct csv **ret_csv);
MUST_CHECK enum err csv_load(const char *path, struct csv **ret_csv);
void csv_free(struct csv *c);
int csv_column(const struct csv *c, const char *name); /* -1 when absent */
/* The cell as a finite number; ERR_MALFORMED "file:line: column: 'x' is not a number". */
MUST_CHECK enum err csv_number(const struct csv *c, size_t row, size_t column, double *ret_value);

#endif
