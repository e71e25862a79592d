/*
 * The ledger: where complete updates become durable and countable, many with one sync.
 *
 * Group commit without a thread of its own: whoever comes while nobody writes is the leader of a group of one; whoever comes while somebody
 * writes waits, and the first of those that have waited leads them all. With one caller at a time every update is committed at once.
 */
#ifndef HANSA_COORDINATOR_LEDGER_H
#define HANSA_COORDINATOR_LEDGER_H

#include "coordinator/db.h"
#include "coordinator/spool.h"

struct ledger; /* thread: any */

struct ledger *ledger_new(struct db *db, struct spool *spool); /* both are borrowed */
void ledger_free(struct ledger *l);                            /* after the last ledger_commit(); NULL is fine */

/*
 * Writes the row; `small` is appended to the batch of {row->job, row->round} first, and row->place is set then. NULL: the update has a
 * file of its own, which is durable. The caller keeps the round from being closed meanwhile, and holds no lock that a group might need.
 *
 * ERR_STALE, ERR_DUPLICATE: this row is refused, as db_update_add() says; the others of the group are not touched by that. Every other
 * error may be that of a commit which did happen: the bytes stay where they are, the same update may be sent again.
 */
MUST_CHECK enum err ledger_commit(struct ledger *l, struct update_row *row, struct spool_entry *small);

/* For figures and tests: groups that have been written; updates that wait for the group under way to end. */
uint64_t ledger_groups(struct ledger *l);
size_t ledger_waiting(struct ledger *l);

#endif
