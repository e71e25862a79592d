/*
 * Private to spool*.c.
 *
 *	spool.c         receiving
 *	spool_room.c    who receives what, and how much room it takes
 *	spool_batch.c   small updates, one after another
 *	spool_files.c   names, sweeping, removing
 */
#ifndef HANSA_COORDINATOR_SPOOL_PARTS_H
#define HANSA_COORDINATOR_SPOOL_PARTS_H

#include "coordinator/spool.h"

#include "crypto/identity.h"

#include <pthread.h>

enum { SPOOL_TAG_SIZE = 17, SPOOL_BATCHES_MAX = 64 };

/* A key that is being received, or of which there is a part, or a whole update that no row is known to speak of. */
struct claim {
	struct claim *next;
	uint64_t job;
	uint32_t round;
	char plant[IDENTITY_PART_SIZE];
	char tag[SPOOL_TAG_SIZE]; /* of the part's name */
	bool active;              /* an entry owns it, and the part; otherwise the part is idle */
	uint64_t size;            /* active: what is promised to it */
	uint64_t bytes;           /* of the part */
	uint64_t file;            /* of the .update that no row is known to speak of; 0: none */
	char file_tag[SPOOL_TAG_SIZE];
	bool doubtful; /* that .update: a transaction that failed may have written its row */
};

/* An open batch. */
struct batch {
	uint64_t job;
	uint32_t round;
	struct file *file; /* owned; NULL: none */
	uint64_t used;     /* the turn it was used last */
};

struct spool {
	char *folder; /* owned; DIR/spool */
	struct spool_config config;

	pthread_mutex_t lock; /* claims and figures; never held across disk work */
	struct claim *claims;
	uint64_t bytes;    /* files, and parts with what is promised to them */
	uint64_t promised; /* not written yet */

	pthread_mutex_t appending; /* the batches; held by the one who appends, also across the sync */
	struct batch batches[SPOOL_BATCHES_MAX];
	uint64_t turn;
};

struct spool_entry {
	struct spool *spool;
	struct claim *claim;
	struct digest digest; /* announced */
	uint64_t size;
	uint8_t *memory; /* owned; small: what has come */
	size_t n_memory;
	struct file *file; /* owned; large; NULL once it is closed */
	char *part_path;   /* owned; large */
	bool part_exists;
	uint64_t flushed; /* bytes whose way to the disk has begun */
	struct update_check check;
	struct digester *digester; /* owned; NULL once it has ended */
	bool resumed;              /* began behind what an earlier stream had brought */
	bool whole;                /* that was all of it: it has the .update's name already */
	bool failed;               /* an add or the end was refused */
	bool spoilt;               /* by its content: nothing of it may stay */
	bool finished;
};

/* ---- spool_room.c ---- */

/* What is to be received under a key. */
struct wanted {
	const struct spool_key *key;
	const char *tag; /* of its digest */
	uint64_t size, offset;
};
/* Makes the key ours, with room for what is missing: what spool_begin() says. The tag becomes the claim's at the caller's hand. *ret_whole:
 * it begins at its end, because all of it is there as an .update. */
MUST_CHECK enum err spool_claim(struct spool *s, const struct wanted *w, struct claim **ret_claim, bool *ret_whole);
void spool_claim_part(struct spool *s, const struct spool_name *name, const char *tag,
		      uint64_t bytes); /* an idle one */
bool spool_has_part(struct spool *s, const struct spool_name *name);
void spool_claim_grow(struct spool *s, struct claim *c, uint64_t bytes); /* so many are in the part now */
void spool_claim_retag(struct spool *s, struct claim *c, const char *tag, uint64_t bytes);
void spool_claim_settle(struct spool *s,
			struct claim *c);                /* nothing is promised to it any more: others have its bytes */
void spool_claim_file(struct spool *s, struct claim *c); /* its part has become its .update */
void spool_claim_unfile(struct spool *s, struct claim *c); /* its .update has gone */
void spool_claim_doubt(struct spool *s, struct claim *c);  /* a row may speak of its .update */
/* The claim is not active any more: it stays when it has a part or an .update, otherwise it is freed. `counted`: its .update is a row's now. */
void spool_claim_end(struct spool *s, struct claim *c, bool part_stays, bool counted);
/* Idle ones of the job up to a round, each now active and the caller's; NULL at the end of the list. `plant`: only those of this plant, and
 * without the doubtful; NULL: of all. */
struct claim *spool_claim_idle(struct spool *s, uint64_t job, uint32_t round, const char *plant);
void spool_count_file(struct spool *s, uint64_t bytes, bool there);

/* ---- spool_files.c ---- */

void spool_tag(const struct digest *d, char out[SPOOL_TAG_SIZE]);
bool spool_is_plant(const char *name); /* a plant's name, and so without anything that leads out of the folder */
const char *spool_file_path(const struct spool *s, const struct claim *c, char out[PATH_SIZE]); /* of its .update */
/* What is idle of the job up to a round goes, as spool_claim_idle() chooses. */
void spool_remove_idle(struct spool *s, uint64_t job, uint32_t round, const char *plant);
const char *spool_part_path(const struct spool *s, const struct claim *c, char out[PATH_SIZE]);
void spool_discard(const char *path); /* best effort; logs; the present error text stays */

/* ---- spool_batch.c ---- */

void spool_close_batches(struct spool *s);

#endif
