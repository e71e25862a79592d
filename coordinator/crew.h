/*
 * Numbered pieces of work, done by several threads that are made for it.
 *
 * Items are taken in order, 0 first. After one has failed no further one is taken, those under way are finished, and the failure of the
 * lowest number is the one that is returned, with its text: which error is told does not depend on the number of threads.
 */
#ifndef HANSA_COORDINATOR_CREW_H
#define HANSA_COORDINATOR_CREW_H

#include "base/err.h"

#include <stddef.h>

enum { CREW_MAX = 64 };

/* worker: 0 .. threads - 1; each has one item at a time. */
typedef enum err (*crew_fn)(void *arg, unsigned worker, size_t item);

/* The calling thread is worker 0: with one thread, none is made. Threads that the system refuses are done without. */
MUST_CHECK enum err crew_run(unsigned threads, size_t n, crew_fn fn, void *arg);

/* CPUs that this process may use, at least 1. */
unsigned crew_cpus(void);

#endif
