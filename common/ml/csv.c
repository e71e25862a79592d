/*
 * CSV by RFC 4180. The content is copied once; cells are cut out of the copy in place, by writing zeros over their ends
 * and moving quoted text to the left over its quotes. Whatever the RFC leaves open is refused rather than guessed:
 * quotes in unquoted cells, lines with another number of cells than the header, single carriage returns.
 */
#include "ml/csv.h"

#include "base/file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct parser {
	struct csv *csv;
	char *p, *end; /* *end is a zero of ours */
	char *record;  /* where the present line began */
	unsigned line;
	char separator;
	size_t cells_cap, rows_cap;
};

static enum err fail(const struct parser *s, unsigned line, const char *what)
{
	return err_set(ERR_MALFORMED, "%s:%u: %s", s->csv->file, line, what);
}

/* Length of the line end at p: 0 when there is none. */
static size_t newline_at(const struct parser *s, const char *p)
{
	if (p < s->end && *p == '\n')
		return 1;
	return p + 1 < s->end && p[0] == '\r' && p[1] == '\n' ? 2 : 0;
}

static char *cell_plain(struct parser *s)
{
	while (s->p < s->end && *s->p != s->separator && *s->p != '\n' && *s->p != '\r' && *s->p != '"')
		s->p++;
	return s->p;
}

/* Returns the end of the unquoted text, NULL when the closing quote is missing. */
static char *cell_quoted(struct parser *s)
{
	char *w = s->p++;
	while (s->p < s->end) {
		if (*s->p == '"') {
			if (s->p[1] != '"') {
				s->p++;
				return w;
			}
			s->p++;
		}
		s->line += *s->p == '\n';
		*w++ = *s->p++;
	}
	return NULL;
}

/* One cell and the separator or line end after it. */
static enum err cell_read(struct parser *s, char **ret_cell, bool *ret_last)
{
	unsigned line = s->line;
	char *cell = s->p;
	bool quoted = s->p < s->end && *s->p == '"';
	char *w = quoted ? cell_quoted(s) : cell_plain(s);
	if (w == NULL)
		return fail(s, line, "a quoted cell has no closing quote");
	bool last = true;
	size_t newline = newline_at(s, s->p);
	if (s->p < s->end && *s->p == s->separator) {
		s->p++;
		last = false;
	} else if (newline > 0) {
		s->p += newline;
		s->line++;
	} else if (s->p < s->end) {
		if (*s->p == '\r')
			return fail(s, s->line, "a carriage return without a line feed");
		return fail(s, s->line, quoted ? "text after a closing quote" : "a quote inside an unquoted cell");
	}
	if ((size_t)(s->p - s->record) > CSV_LINE_MAX)
		return err_set(ERR_LIMIT, "%s:%u: a line of more than %d bytes", s->csv->file, line, CSV_LINE_MAX);
	*w = 0;
	*ret_cell = cell;
	*ret_last = last;
	return ERR_OK;
}

/* The separator that stands most often in the header line, outside quotes; a file of one column has none. */
static char find_separator(const struct parser *s)
{
	static const char candidates[] = {',', ';', '\t'};
	size_t count[sizeof candidates] = {0};
	bool quoted = false;
	for (const char *p = s->p; p < s->end && (quoted || *p != '\n'); p++) {
		quoted ^= *p == '"';
		for (size_t i = 0; i < sizeof candidates; i++)
			count[i] += !quoted && *p == candidates[i];
	}
	size_t best = 0;
	for (size_t i = 1; i < sizeof candidates; i++)
		best = count[i] > count[best] ? i : best;
	return candidates[best];
}

static enum err read_names(struct parser *s)
{
	struct csv *c = s->csv;
	while (s->p < s->end && *s->p == '#') {
		char *newline = memchr(s->p, '\n', (size_t)(s->end - s->p));
		s->line += newline != NULL;
		s->p = newline == NULL ? s->end : newline + 1;
	}
	if (s->p == s->end || newline_at(s, s->p) > 0)
		return fail(s, s->line, "the line with the names of the columns is missing");
	s->separator = find_separator(s);
	s->record = s->p;
	unsigned line = s->line;
	for (bool last = false; !last;) {
		char *cell;
		TRY(cell_read(s, &cell, &last));
		if (c->n_columns == CSV_COLUMNS_MAX)
			return err_set(ERR_LIMIT, "%s:%u: more than %d columns", c->file, line, CSV_COLUMNS_MAX);
		if (csv_column(c, cell) >= 0)
			return err_set(ERR_MALFORMED, "%s:%u: two columns are named '%s'", c->file, line, cell);
		c->names = mem_grow(c->names, c->n_columns + 1, sizeof *c->names);
		c->names[c->n_columns++] = cell;
	}
	return ERR_OK;
}

static enum err grow(struct parser *s)
{
	struct csv *c = s->csv;
	size_t need = (c->n_rows + 1) * c->n_columns;
	if (need > CSV_CELLS_MAX)
		return err_set(ERR_LIMIT, "%s:%u: more than %d cells", c->file, s->line, CSV_CELLS_MAX);
	if (need > s->cells_cap) {
		s->cells_cap = need < 64 ? 64 : 2 * need;
		c->cells = mem_grow(c->cells, s->cells_cap, sizeof *c->cells);
	}
	if (c->n_rows == s->rows_cap) {
		s->rows_cap = s->rows_cap == 0 ? 16 : 2 * s->rows_cap;
		c->lines = mem_grow(c->lines, s->rows_cap, sizeof *c->lines);
	}
	return ERR_OK;
}

static enum err read_row(struct parser *s)
{
	struct csv *c = s->csv;
	TRY(grow(s));
	unsigned line = s->line;
	s->record = s->p;
	size_t n = 0;
	for (bool last = false; !last; n++) {
		char *cell;
		TRY(cell_read(s, &cell, &last));
		if (n < c->n_columns)
			c->cells[c->n_rows * c->n_columns + n] = cell;
	}
	if (n != c->n_columns)
		return err_set(ERR_MALFORMED, "%s:%u: %zu cells, but the first line names %zu columns", c->file, line,
			       n, c->n_columns);
	c->lines[c->n_rows++] = line;
	return ERR_OK;
}

static enum err read_rows(struct parser *s)
{
	while (s->p < s->end) {
		if (newline_at(s, s->p) > 0) {
			unsigned line = s->line;
			for (size_t n = newline_at(s, s->p); n > 0; n = newline_at(s, s->p))
				s->p += n;
			if (s->p < s->end)
				return fail(s, line, "an empty line");
			break;
		}
		TRY(read_row(s));
	}
	return ERR_OK;
}

static enum err check_zeros(const char *name, struct bytes content)
{
	const uint8_t *zero = content.n > 0 ? memchr(content.p, 0, content.n) : NULL;
	if (zero == NULL)
		return ERR_OK;
	unsigned line = 1;
	for (const uint8_t *p = content.p; p < zero; p++)
		line += *p == '\n';
	return err_set(ERR_MALFORMED, "%s:%u: a zero byte; this is not a text file in ASCII or UTF-8", name, line);
}

enum err csv_parse(const char *name, struct bytes content, struct csv **ret_csv)
{
	if (content.n > CSV_FILE_MAX)
		return err_set(ERR_LIMIT, "%s: %zu bytes; tables are read up to %zu", name, content.n, CSV_FILE_MAX);
	TRY(check_zeros(name, content));
	struct csv *c = mem_new(sizeof *c);
	c->file = mem_str(name);
	c->text = mem_array(content.n + 1, 1);
	if (content.n > 0)
		memcpy(c->text, content.p, content.n);
	struct parser s = {.csv = c, .p = c->text, .end = c->text + content.n, .line = 1};
	if (content.n >= 3 && memcmp(c->text, "\xef\xbb\xbf", 3) == 0)
		s.p += 3;
	enum err e = read_names(&s);
	if (e == ERR_OK)
		e = read_rows(&s);
	if (e != ERR_OK) {
		csv_free(c);
		return e;
	}
	*ret_csv = c;
	return ERR_OK;
}

enum err csv_load(const char *path, struct csv **ret_csv)
{
	struct file_map map;
	TRY(file_map(path, &map));
	enum err e = csv_parse(path, map.content, ret_csv);
	file_unmap(&map);
	return e;
}

void csv_free(struct csv *c)
{
	if (c == NULL)
		return;
	free(c->names);
	free(c->cells);
	free(c->lines);
	free(c->file);
	free(c->text);
	free(c);
}

int csv_column(const struct csv *c, const char *name)
{
	for (size_t i = 0; i < c->n_columns; i++) {
		if (strcmp(c->names[i], name) == 0)
			return (int)i;
	}
	return -1;
}

enum err csv_number(const struct csv *c, size_t row, size_t column, double *ret_value)
{
	ENSURE(row < c->n_rows && column < c->n_columns);
	const char *text = c->cells[row * c->n_columns + column];
	const char *number = text + strspn(text, " ");
	size_t n = strspn(number, "+-.0123456789eE");
	char *end = NULL;
	/* strtod() also knows hexadecimal, "inf" and "nan": only what can stand in a decimal number gets to it. */
	double v = n > 0 && n < 512 ? strtod(number, &end) : NAN;
	if (end != number + n || end[strspn(end, " ")] != 0 || !isfinite(v))
		return err_set(ERR_MALFORMED, "%s:%u: %s: '%.80s' is not a number", c->file, c->lines[row],
			       c->names[column], text);
	*ret_value = v;
	return ERR_OK;
}
