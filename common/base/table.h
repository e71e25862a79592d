/*
 * Tables for people: columns aligned, numbers right, one header line; UTF-8 width is counted in code points.
 */
#ifndef HANSA_BASE_TABLE_H
#define HANSA_BASE_TABLE_H

#include "base/buf.h"

struct table;

/*
 * `header`: column names separated by '|'; a name starting with '>' is right-aligned. The cells of a row are separated
 * by '|' after formatting; the last one takes the rest of the text, so only there a '|' may be part of it.
 */
struct table *table_new(const char *header);
void table_row(struct table *t, const char *fmt, ...) PRINTF_LIKE(2, 3);
MUST_CHECK enum err table_write(const struct table *t, struct buf *out);
void table_free(struct table *t);

/*
 * A progress line on stderr, when that is a terminal and not more than ten times a second; "" ends it with its line
 * cleared. thread: any.
 */
void progress(const char *fmt, ...) PRINTF_LIKE(1, 2);

#endif
