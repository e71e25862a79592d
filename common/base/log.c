#include "base/log.h"

#include "base/clock.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LINE_SIZE = 2048 };

static const char *const names[LOG_LEVEL_COUNT] = {"error", "warn", "info", "debug"};

static _Atomic int highest = LOG_LEVEL_INFO;
static _Atomic int progress_shown;

void log_set_level(enum log_level level)
{
	atomic_store(&highest, (int)level);
}

void log_progress_shown(bool shown)
{
	atomic_store(&progress_shown, shown);
}

void log_at(enum log_level level, const char *module, const char *fmt, ...)
{
	if ((int)level > atomic_load(&highest))
		return;
	char line[LINE_SIZE], when[CLOCK_TEXT_SIZE];
	int start = atomic_exchange(&progress_shown, 0) ? snprintf(line, sizeof line, "\r\033[K") : 0;
	int head = start + snprintf(line + start, sizeof line - (size_t)start,
				    "%s %-5s %.64s: ", clock_format(clock_wall_ms(), when), names[level], module);
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(line + head, sizeof line - (size_t)head - 1, fmt, ap);
	va_end(ap);
	size_t n = strlen(line);
	/* Texts may hold names that a peer chose: they must not forge lines or steer the terminal. */
	for (size_t i = (size_t)start; i < n; i++) {
		if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
			line[i] = '?';
	}
	line[n] = '\n';
	while (write(STDERR_FILENO, line, n + 1) < 0 && errno == EINTR)
		continue;
}
