/*
 * The spool: updates on their way in, and accepted ones until their round is over. Files in DIR/spool:
 *
 *	JOB-ROUND-PLANT.N.part    being received (N: serial number of the reception); content means nothing yet
 *	JOB-ROUND-PLANT.update    complete, digest checked, synced
 *
 * An update becomes .update (rename, directory synced) before its row is written to the database, and it counts
 * only with the row: a file without a row is a leftover and is removed at start.
 */
#ifndef HANSA_COORDINATOR_SPOOL_H
#define HANSA_COORDINATOR_SPOOL_H

#include "base/file.h"
#include "update/update.h"

struct spool_key {
	uint64_t job;
	uint32_t round;
	const char *plant; /* borrowed; a name as in crypto/identity.h */
};

/*
 * One update being received. Digest, check and write in one pass over each piece. thread: one at a time per entry,
 * any number of entries; two entries with the same key do not disturb each other, and the first one to finish wins.
 *
 * spool_begin: ERR_SHAPE when `size` is not that of the manifest, ERR_LIMIT when `plant` is not a plant's name. `m`
 * is borrowed for as long as the entry is fed.
 */
struct spool_entry;
MUST_CHECK enum err spool_begin(const char *dir, const struct spool_key *key, const struct manifest *m, double norm_max,
				uint64_t size, const struct digest *digest, struct spool_entry **ret_entry);
/* What update_check_feed() refuses; ERR_IO. After a failure only spool_abort() is left. */
MUST_CHECK enum err spool_add(struct spool_entry *e, struct bytes piece);
uint64_t spool_received(const struct spool_entry *e); /* bytes so far: where a cut stream goes on */
/* Checks size, digest and norm, syncs, renames. *ret_norm: L2 norm of the trainable tensors. What
 * update_check_end() refuses; ERR_MALFORMED: another digest than announced; ERR_DUPLICATE: there is another .update
 * already (the same one is a success); ERR_IO. On failure nothing of this reception stays; spool_abort() frees. */
MUST_CHECK enum err spool_finish(struct spool_entry *e, double *ret_norm);
void spool_abort(struct spool_entry *e); /* after a failure, or instead of finish; frees; NULL is fine */
void spool_free(struct spool_entry *e);  /* after finish */

const char *spool_path(const char *dir, const struct spool_key *key,
		       char out[PATH_SIZE]); /* of the .update; returns out */
MUST_CHECK enum err spool_remove(const char *dir, const struct spool_key *key);
/* Every .update of the round. What is still being received for it is left to its entry. */
MUST_CHECK enum err spool_remove_round(const char *dir, uint64_t job, uint32_t round);
/* At start, before anything is received: make DIR/spool, remove every .part, and every .update for which `known`
 * says no. Files that are not named like ours are left alone. */
MUST_CHECK enum err spool_sweep(const char *dir, bool (*known)(void *arg, const struct spool_key *key), void *arg);

#endif
