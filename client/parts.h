/*
 * What part this plant has had in each job that this run of the program has met: what it passed over and why, and how
 * many updates it sent. In memory only: after a restart a job is tried once more, for its user may have mended what was
 * in the way. Pure.
 */
#ifndef HANSA_CLIENT_PARTS_H
#define HANSA_CLIENT_PARTS_H

#include "base/err.h"

#include <stdint.h>

enum { PARTS_MAX = 16 /* jobs remembered; of more, those met last */, PART_WHY_SIZE = 512 };

struct part {
	uint64_t job;
	uint32_t passed_round; /* the last round passed over; 0: none */
	bool passed_job;       /* all of its rounds are */
	unsigned sent;
	char why[PART_WHY_SIZE]; /* "" when nothing was passed over */
};
struct parts {
	struct part v[PARTS_MAX]; /* what was passed over last stands last */
	size_t n;
};

/* `round` 0: the whole job. */
void parts_pass(struct parts *p, uint64_t job, uint32_t round, const char *why);
/* It was given although it was to be passed over: tell that one next. */
void parts_again(struct parts *p, uint64_t job);
void parts_sent(struct parts *p, uint64_t job);
bool parts_passed(const struct parts *p, uint64_t job, uint32_t round);
/* What to tell the coordinator; *ret_job 0: nothing. */
void parts_last(const struct parts *p, uint64_t *ret_job, uint32_t *ret_round);
/* Why this plant took no part in the job; NULL: it did, or was never asked to. Valid until the next change. */
const char *parts_missed(const struct parts *p, uint64_t job);
void parts_end(struct parts *p, uint64_t job);

#endif
