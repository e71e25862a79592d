/*
 * The trace is one line per thing that happens. All lines go into the hash; the last ones are kept for the report of a violation. The lines
 * of the program's log stand among them but are not hashed: they hold what is not a function of the seed (paths). For that the simulator
 * brings its own base/log.h.
 */
#include "sim/sim.h"

#include "base/log.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { LINES = 80, LINE_SIZE = 240, NAMES_MAX = 256 };

static struct {
	const struct sim *sim;
	bool verbose;
	uint64_t hash, n;
	char lines[LINES][LINE_SIZE];
} trace;

static struct {
	const char *name;
	uint64_t n;
} covered[NAMES_MAX];
static size_t n_covered;

void trace_begin(struct sim *s, bool verbose)
{
	trace.sim = s;
	trace.verbose = verbose;
	trace.hash = UINT64_C(0xcbf29ce484222325);
	trace.n = 0;
}

static char *next_line(void)
{
	char *line = trace.lines[trace.n++ % LINES];
	int64_t now = trace.sim != NULL ? trace.sim->now : 0;
	snprintf(line, LINE_SIZE, "%6" PRId64 ".%03" PRId64 " ", now / 1000, now % 1000);
	return line;
}

static void line_done(const char *line)
{
	if (trace.verbose)
		printf("%s\n", line);
}

void sim_say(struct sim *s, const char *fmt, ...)
{
	char *line = next_line();
	size_t head = strlen(line);
	va_list ap;
	(void)s;
	va_start(ap, fmt);
	vsnprintf(line + head, LINE_SIZE - head, fmt, ap);
	va_end(ap);
	for (const char *c = line; *c != '\0'; c++)
		trace.hash = (trace.hash ^ (unsigned char)*c) * UINT64_C(0x100000001b3);
	trace.hash = (trace.hash ^ '\n') * UINT64_C(0x100000001b3);
	line_done(line);
}

void log_set_level(enum log_level level)
{
	(void)level;
}

void log_progress_shown(bool shown)
{
	(void)shown;
}

void log_at(enum log_level level, const char *module, const char *fmt, ...)
{
	if (level > LOG_LEVEL_INFO)
		return;
	char *line = next_line();
	size_t head = strlen(line);
	head += (size_t)snprintf(line + head, LINE_SIZE - head, "    %.20s: ", module);
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(line + head, LINE_SIZE - head, fmt, ap);
	va_end(ap);
	line_done(line);
}

uint64_t trace_hash(void)
{
	return trace.hash;
}

void trace_print(void)
{
	uint64_t first = trace.n > LINES ? trace.n - LINES : 0;
	for (uint64_t i = first; i < trace.n; i++)
		printf("%s\n", trace.lines[i % LINES]);
}

/* ---- what has been covered ---- */

static uint64_t *counter(const char *name)
{
	size_t i = 0;
	while (i < n_covered && covered[i].name != name && strcmp(covered[i].name, name) != 0)
		i++;
	if (i == n_covered) {
		ENSURE(n_covered < NAMES_MAX);
		covered[n_covered++].name = name;
	}
	return &covered[i].n;
}

void cover(const char *name)
{
	++*counter(name);
}

void cover_expect(const char *name)
{
	*counter(name) += 0;
}

void cover_print(void)
{
	for (size_t i = 0; i < n_covered; i++)
		printf("  %10" PRIu64 " %s\n", covered[i].n, covered[i].name);
}

bool cover_missing(void)
{
	bool missing = false;
	for (size_t i = 0; i < n_covered; i++) {
		if (covered[i].n == 0) {
			printf("never happened: %s\n", covered[i].name);
			missing = true;
		}
	}
	return missing;
}
