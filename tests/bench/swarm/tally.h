/*
 * What the swarm saw, counted by all its plants. Times are wall clock in milliseconds with fractions, so that they can
 * be set beside the coordinator's, which runs on the same machine or has the same time. thread: any.
 */
#ifndef HANSA_SWARM_TALLY_H
#define HANSA_SWARM_TALLY_H

#include "base/json.h"
#include "rpc/wire.h"
#include "swarm/mischief.h"

struct tally;

/* `receipts_path` (may be NULL): each receipt is appended as one line of JSON, whole even if the process is killed. When
 * all `plants` have been told of a round, the log says so. */
MUST_CHECK enum err tally_open(const char *receipts_path, size_t plants, struct tally **ret_tally);
void tally_close(struct tally *t);

double tally_now(void);

void tally_told(struct tally *t, uint64_t job, uint32_t round);        /* a plant was told to train in this round */
void tally_base(struct tally *t, bool inside, uint64_t bytes);         /* a base came, inside the task or fetched */
void tally_refused(struct tally *t, enum mischief why, enum err code); /* for good; NONE: an honest update */
void tally_retry(struct tally *t, enum err code);                      /* will be tried again */
void tally_cut(struct tally *t);
void tally_hangup(struct tally *t);
void tally_resumed(struct tally *t, uint64_t offset); /* an upload goes on there, > 0 */
void tally_wrongly_accepted(struct tally *t, enum mischief why);
void tally_connected(struct tally *t);
void tally_job_end(struct tally *t);

struct tally_upload {
	const char *plant;
	double begin_ms, sent_ms, end_ms; /* the call; the last byte handed over; the receipt */
	uint64_t bytes;
	const struct wire_receipt *receipt;
};
void tally_accepted(struct tally *t, const struct tally_upload *u);

void tally_bytes(struct tally *t, uint64_t sent, uint64_t received); /* of one connection that is gone */

size_t tally_count_connected(struct tally *t);
uint64_t tally_count_wrong(struct tally *t);
/* The report; the caller frees. */
struct json *tally_report(struct tally *t);

#endif
