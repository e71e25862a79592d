/*
 * The program's log: one line on stderr per event, `2026-11-23T19:50:00.123Z info  round: opened job=1 round=3`.
 * thread: any. Lines are written with one write(2), so they never mix.
 */
#ifndef HANSA_BASE_LOG_H
#define HANSA_BASE_LOG_H

#include "base/err.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG, LOG_LEVEL_COUNT };

void log_set_level(enum log_level level); /* default: info */
void log_at(enum log_level level, const char *module, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* A progress line without a newline stands on stderr: the next log line clears it first. For table.c. */
void log_progress_shown(bool shown);

#define log_error(module, ...) log_at(LOG_LEVEL_ERROR, module, __VA_ARGS__)
#define log_warn(module, ...)  log_at(LOG_LEVEL_WARN, module, __VA_ARGS__)
#define log_info(module, ...)  log_at(LOG_LEVEL_INFO, module, __VA_ARGS__)
#define log_debug(module, ...) log_at(LOG_LEVEL_DEBUG, module, __VA_ARGS__)

#endif
