/*
 * The spool: updates on their way in, and accepted ones for as long as they are needed. Files in DIR/spool:
 *
 *	JOB-ROUND-PLANT.DIGEST16.part    being received, or cut off; DIGEST16: the first 16 hex digits of what it is to become.
 *	                                 Its content is believed only when the whole has the whole digest
 *	JOB-ROUND-PLANT.update           complete, digest checked, synced. ROUND: the one whose base it was made from
 *	JOB-ROUND.batch                  small updates one after another. ROUND: the one that they count in; the rows say where
 *	                                 each begins
 *
 * What counts is said by the rows of the database alone: bytes without a row are leftovers. spool.c says why nothing is lost.
 *
 * thread: any, except where it says otherwise.
 */
#ifndef HANSA_COORDINATOR_SPOOL_H
#define HANSA_COORDINATOR_SPOOL_H

#include "base/file.h"
#include "update/update.h"

enum { SPOOL_SMALL_MAX = 256 << 10 }; /* bytes of an update that is received into memory and shares a file */

/* How every refusal for want of room begins. */
#define SPOOL_FULL "the spool is full"

struct spool_config {
	uint64_t bytes_max; /* of all files, and of what is promised to updates on their way in; 0: no limit */
	uint64_t free_min;  /* that stay free on the file system; 0: not asked */
	uint64_t small_max; /* 0: SPOOL_SMALL_MAX; for tests */
};

/* The identity of an update: a plant makes at most one from the base of a round. */
struct spool_key {
	uint64_t job;
	uint32_t round;    /* whose base it was made from */
	const char *plant; /* borrowed; a name as in crypto/identity.h */
};

enum spool_kind { SPOOL_PART, SPOOL_UPDATE, SPOOL_BATCH };
struct spool_name {
	enum spool_kind kind;
	uint64_t job;
	uint32_t round;    /* of a batch the one that it counts in, otherwise whose base it was made from */
	const char *plant; /* NULL: a batch */
};

struct spool;
MUST_CHECK enum err spool_open(const char *dir, const struct spool_config *config, struct spool **ret_spool);
void spool_close(struct spool *s); /* after the last entry has ended; NULL is fine */
/* At start, before anything is received: removes every file of ours for which `known` says no, and finds out what the others take.
 * Files that are not named like ours are left alone. */
MUST_CHECK enum err spool_sweep(struct spool *s, bool (*known)(void *arg, const struct spool_name *name), void *arg);
uint64_t spool_bytes(struct spool *s); /* what is compared with bytes_max */
/* Would `n` updates of `bytes` fit, if the spool were empty? ERR_LIMIT. */
MUST_CHECK enum err spool_check_room(const struct spool *s, uint64_t n, uint64_t bytes);

/* ---- receiving ---- */

/* How much of this very update is there: where the next stream of it may begin, at its end when it only lacks its row. 0 for one that would
 * be small. */
uint64_t spool_received(struct spool *s, const struct spool_key *key, const struct digest *digest, uint64_t size);

/*
 * One update being received. thread: one at a time per entry, any number of entries; one entry at a time per key.
 *
 * spool_begin: `offset` is where the pieces begin, at most spool_received(); what lies before it is read back and checked, what lies
 * behind it is cut off. What else the plant left behind uncounted in this job goes. `m` is borrowed until the entry ends. ERR_SHAPE when `size` is not that of the manifest, ERR_LIMIT when `plant`
 * is not a plant's name; ERR_UNAVAILABLE: an earlier stream of the key has not ended, there is not as much as `offset`, what is there is
 * not as it was sent (it is gone then), or the spool or the disk is full; ERR_IO.
 */
struct spool_entry;
MUST_CHECK enum err spool_begin(struct spool *s, const struct spool_key *key, const struct manifest *m, double norm_max,
				uint64_t size, const struct digest *digest, uint64_t offset,
				struct spool_entry **ret_entry);
/* The pieces of one message, in order. What update_check_feed() refuses; ERR_IO. After a failure the entry can only be suspended or
 * aborted. When it had gone on from an offset, a refusal may be our disk's fault: ERR_UNAVAILABLE then, and nothing of it stays. */
MUST_CHECK enum err spool_add(struct spool_entry *e, const struct bytes *pieces, size_t n);
/* Checks size, digest and norm; a large one is synced and gets its name. *ret_norm: L2 norm of the trainable tensors. What
 * update_check_end() refuses; ERR_MALFORMED: another digest than announced (ERR_UNAVAILABLE when it had gone on from an offset);
 * ERR_DUPLICATE: there is another .update of this key (the same one is a success); ERR_IO. After a failure nothing of this reception
 * stays, except the entry. */
MUST_CHECK enum err spool_finish(struct spool_entry *e, double *ret_norm);
bool spool_is_small(
	const struct spool_entry *e); /* it has no file of its own, and is durable only after spool_append() */
/* The ends; each frees the entry. */
void spool_suspend(
	struct spool_entry *e); /* what has been received stays, if it is large and was not refused. NULL is fine */
void spool_abort(struct spool_entry *e); /* it goes, unless a row may speak of it. NULL is fine */
void spool_doubt(
	struct spool_entry *e);         /* after spool_finish(): writing its row has failed, so a row may speak of it */
void spool_free(struct spool_entry *e); /* after spool_finish(): a row speaks of it */

/* Small ones, finished: durable, one sync for all, when it returns ERR_OK. ret_places[i]: where entry i begins in the batch. thread: any;
 * callers take turns. */
MUST_CHECK enum err spool_append(struct spool *s, uint64_t job, uint32_t round, struct spool_entry *const *entries,
				 size_t n, int64_t *ret_places);

/* ---- files ---- */

const char *spool_path(const struct spool *s, const struct spool_key *key, char out[PATH_SIZE]); /* returns out */
const char *spool_batch_path(const struct spool *s, uint64_t job, uint32_t round, char out[PATH_SIZE]);
/* Best effort, not synced: what comes back after a crash is swept. They log what fails. */
void spool_remove(struct spool *s, const struct spool_key *key);
void spool_remove_batch(struct spool *s, uint64_t job, uint32_t round);
/* What was cut off, or is whole and was not counted, and is of this round or an earlier one of the job. What is being received is left to its
 * entry. */
void spool_remove_parts(struct spool *s, uint64_t job, uint32_t round);

#endif
