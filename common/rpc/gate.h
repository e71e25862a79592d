/*
 * Who may hold how many of the workers. A peer that sends or reads slowly, or not at all, must not keep the others out:
 * it has one stream at a time, and half of the workers in all. And however many peers are slow: streams never hold the
 * last of the workers, so that calls of one message are always answered.
 *
 * The call before may still be in its last moments when its peer makes the next one, so one call of a peer may wait a
 * little for its place, as long as the waiting ones fit in among the streams. A stream that has made no progress for some
 * seconds may belong to a connection that is gone without this side knowing: when its peer comes back it is cancelled,
 * and the newcomer waits for it to end.
 */
#ifndef HANSA_RPC_GATE_H
#define HANSA_RPC_GATE_H

#include "crypto/identity.h"

#include <stdint.h>

struct gate;

struct gate_pass {
	struct identity id;
	bool stream;               /* under the gate's lock from gate_enter() on */
	bool waiting;              /* the gate's */
	void (*cancel)(void *arg); /* thread: any, called with the gate's lock held: must not block or call the gate */
	void *arg;
	int64_t progress_ms;    /* monotonic; under the gate's lock */
	struct gate_pass *next; /* the gate's */
};

/* Streams at a time: all workers but a quarter, at least one less than there are; a single worker takes what comes. */
size_t gate_streams_max(size_t workers);

struct gate *gate_new(size_t workers);
void gate_free(struct gate *g);

/* Fill in id, stream, cancel and arg. ERR_UNAVAILABLE: busy, the same call may succeed later. `pass` must live until gate_leave(). */
MUST_CHECK enum err gate_enter(struct gate *g, struct gate_pass *pass);
void gate_progress(struct gate *g, struct gate_pass *pass);
void gate_stream_end(struct gate *g, struct gate_pass *pass); /* all data has passed; only the last words are missing */
void gate_leave(struct gate *g, struct gate_pass *pass);

#endif
