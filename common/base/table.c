#include "base/table.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { COLUMNS_MAX = 32, ROW_MAX = 1 << 16, PROGRESS_MS = 100, PROGRESS_SIZE = 512 };

struct table {
	size_t columns;
	bool right[COLUMNS_MAX];
	size_t width[COLUMNS_MAX]; /* in code points */
	char **cells;              /* owned; rows x columns, the first row is the header */
	size_t rows, cap;
};

static size_t width_of(const char *s)
{
	size_t width = 0;
	for (size_t i = 0, n = strlen(s); i < n; width++) {
		size_t len = text_utf8_next(s + i, n - i);
		i += len > 0 ? len : 1;
	}
	return width;
}

/* Cut `text` into cells; the last column takes what is left, so a '|' in its text does no harm. */
static void add_row(struct table *t, char *text)
{
	if (t->rows == t->cap) {
		t->cap = t->cap == 0 ? 16 : t->cap * 2;
		t->cells = mem_grow(t->cells, t->cap * t->columns, sizeof *t->cells);
	}
	for (char *c = text; *c != '\0'; c++) {
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
	}
	char **row = t->cells + t->rows++ * t->columns;
	for (size_t i = 0; i < t->columns; i++) {
		char *bar = i + 1 < t->columns ? strchr(text, '|') : NULL;
		if (bar != NULL)
			*bar = '\0';
		row[i] = mem_str(text);
		size_t width = width_of(text);
		if (width > t->width[i])
			t->width[i] = width;
		text = bar != NULL ? bar + 1 : text + strlen(text);
	}
}

struct table *table_new(const char *header)
{
	struct table *t = mem_new(sizeof *t);
	char *names = mem_str(header), *out = names;
	t->columns = 1;
	t->right[0] = header[0] == '>';
	for (const char *c = header; *c != '\0'; c++) {
		if (*c == '|') {
			ENSURE(t->columns < COLUMNS_MAX);
			t->right[t->columns++] = c[1] == '>';
		}
		bool first = c == header || c[-1] == '|';
		if (!first || *c != '>')
			*out++ = *c;
	}
	*out = '\0';
	add_row(t, names);
	free(names);
	return t;
}

void table_row(struct table *t, const char *fmt, ...)
{
	struct buf text;
	va_list ap;
	buf_init(&text, ROW_MAX);
	va_start(ap, fmt);
	if (buf_vprintf(&text, fmt, ap) != ERR_OK)
		ENSURE(buf_append(&text, "?", 1) == ERR_OK); /* absurdly long: still a row */
	va_end(ap);
	add_row(t, (char *)text.p);
	buf_deinit(&text);
}

enum err table_write(const struct table *t, struct buf *out)
{
	for (size_t r = 0; r < t->rows; r++) {
		size_t owed = 0; /* spaces before the next text: none are left at the end of a line */
		for (size_t i = 0; i < t->columns; i++) {
			const char *cell = t->cells[r * t->columns + i];
			size_t pad = t->width[i] - width_of(cell);
			if (t->right[i])
				owed += pad;
			if (cell[0] != '\0') {
				TRY(buf_printf(out, "%*s%s", (int)owed, "", cell));
				owed = 0;
			}
			owed += 2 + (t->right[i] ? 0 : pad);
		}
		TRY(buf_append(out, "\n", 1));
	}
	return ERR_OK;
}

void table_free(struct table *t)
{
	if (t == NULL)
		return;
	for (size_t i = 0; i < t->rows * t->columns; i++)
		free(t->cells[i]);
	free(t->cells);
	free(t);
}

/* A line that wraps could not be taken back. */
static size_t cut_to_width(const char *line, size_t columns)
{
	size_t i = 0, n = strlen(line);
	for (size_t width = 0; i < n && width + 1 < columns; width++) {
		size_t len = text_utf8_next(line + i, n - i);
		i += len > 0 ? len : 1;
	}
	return i;
}

void progress(const char *fmt, ...)
{
	static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	static int64_t last_ms;
	static bool shown;
	if (!isatty(STDERR_FILENO))
		return;
	char line[PROGRESS_SIZE];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(line, sizeof line, fmt, ap);
	va_end(ap);
	struct winsize size = {0};
	size_t columns = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
	pthread_mutex_lock(&mutex);
	int64_t now_ms = clock_monotonic_ms();
	if (line[0] == '\0' && shown) {
		log_progress_shown(false);
		fputs("\r\033[K", stderr);
		shown = false;
		last_ms = 0;
	} else if (line[0] != '\0' && (!shown || now_ms - last_ms >= PROGRESS_MS)) {
		fprintf(stderr, "\r\033[K%.*s", (int)cut_to_width(line, columns), line);
		log_progress_shown(true);
		shown = true;
		last_ms = now_ms;
	}
	fflush(stderr);
	pthread_mutex_unlock(&mutex);
}
