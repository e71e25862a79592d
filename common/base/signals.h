/*
 * Ctrl-C and SIGTERM as a question: long work asks signals_stop_asked() between steps and ends cleanly with
 * ERR_CANCELLED.
 */
#ifndef HANSA_BASE_SIGNALS_H
#define HANSA_BASE_SIGNALS_H

#include <stdbool.h>

/* SIGINT and SIGTERM set a flag; a second one ends the process at once. SIGPIPE is ignored. Before threads. */
void signals_catch(void);
bool signals_stop_asked(void);
/*
 * For daemons with threads: block SIGINT, SIGTERM and SIGHUP in this and all later threads (those that are there already,
 * a library's, pass them on), and wait for one (returns its number). SIGPIPE is ignored. SIGINT and SIGTERM also make signals_stop_asked() true.
 */
void signals_block(void);
int signals_wait(void);

#endif
