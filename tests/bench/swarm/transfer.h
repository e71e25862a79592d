/*
 * A base on its way down, an update on its way up: with pacing, and with what is done wrong on the way.
 */
#ifndef HANSA_SWARM_TRANSFER_H
#define HANSA_SWARM_TRANSFER_H

#include "rpc/client.h"
#include "swarm/content.h"

#include <stdatomic.h>

/* How many bytes of this update the coordinator has; ERR_NOT_FOUND from coordinators that do not know the question. */
MUST_CHECK enum err transfer_offset(struct rpc_client *c, uint64_t job, uint32_t round, const struct digest *digest,
				    uint64_t size, uint64_t *ret_offset);

struct transfer_upload {
	const struct content *content; /* borrowed */
	uint64_t at;                   /* begins at the head's offset */
	double rate;                   /* bytes a second; 0: as fast as it goes */
	const atomic_bool *stop;
	uint64_t cut_at, stall_at; /* bytes; UINT64_MAX: never */
	int64_t stall_ms;
	/* found out */
	bool was_cut;
	double sent_ms;    /* when the last byte was handed over, tally_now() */
	int64_t begun_ms;  /* monotonic */
	uint64_t begun_at; /* of `at` */
};
MUST_CHECK enum err transfer_upload(struct rpc_client *c, const struct wire_head *head, struct transfer_upload *u,
				    struct wire_receipt *ret_receipt);

/* A download that goes on where it was cut: call again with the same struct. The content is checked and thrown away. */
struct transfer_fetch {
	struct digest digest;
	uint64_t size;
	double rate;
	const atomic_bool *stop;
	uint64_t at;               /* bytes that have come */
	struct digester *digester; /* owned */
	int64_t begun_ms;
	uint64_t begun_at;
};
/* ERR_CORRUPT when it is not what was asked for. */
MUST_CHECK enum err transfer_fetch(struct rpc_client *c, struct transfer_fetch *f);
void transfer_fetch_end(struct transfer_fetch *f); /* always, once */

#endif
