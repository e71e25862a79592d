/*
 * Trouble of our own (disk, database, a lost file) in a call that serves somebody else: the log gets what happened, the caller an
 * ERR_UNAVAILABLE without our paths in it. Nothing that the caller could change would help; trying again later may.
 */
#ifndef HANSA_COORDINATOR_TROUBLE_H
#define HANSA_COORDINATOR_TROUBLE_H

#include "base/err.h"

#define TROUBLE_STORE "the coordinator cannot store it now; try again"
#define TROUBLE_READ  "the coordinator cannot read what it has stored; try again"

/* ERR_IO, ERR_CORRUPT, ERR_CRYPTO, ERR_STATE and ERR_INTERNAL become ERR_UNAVAILABLE with the text `told`, after the present text was
 * logged as "WHAT: text". Everything else is the caller's own and stays. For what a database says. */
MUST_CHECK enum err trouble_hide(enum err err, const char *what, const char *told);
/* Also ERR_NOT_FOUND. For files that nobody but us has named. */
MUST_CHECK enum err trouble_hide_file(enum err err, const char *what, const char *told);

#endif
