/*
 * Who may hold a worker for a stream. There are as many places as workers for streams; who finds none free waits, the
 * first come first. While somebody waits, a stream that has held its place for long and brought little (hold.h) is ended
 * with a text that says so: it goes on at its offset later.
 *
 * A peer has one stream at a time. The one before may still be in its last moments when its peer begins the next, so the
 * newcomer waits for it a moment. A stream that has waited for its peer for some seconds may belong to a connection that
 * is gone without this side knowing: when its peer comes back it is cancelled, and the newcomer waits for it to end.
 */
#ifndef HANSA_RPC_GATE_H
#define HANSA_RPC_GATE_H

#include "crypto/identity.h"
#include "rpc/hold.h"

struct gate;

struct gate_pass {
	struct identity id;
	/* Ends the stream, telling its peer `why`. thread: any, called with the gate's lock held: must not block or call
	 * the gate. */
	void (*cancel)(void *arg, const char *why);
	void *arg;
	/* The rest is the gate's, under its lock. */
	enum gate_state { GATE_OUTSIDE, GATE_OWN, GATE_PLACE, GATE_STREAM, GATE_ENDING } state;
	const char *why; /* cancelled with this text; NULL: not cancelled */
	struct hold hold;
	struct gate_pass *next;
};

/* room_ms: how long a slow stream keeps its place while others wait; 0: HOLD_MS. */
struct gate *gate_new(size_t places, int64_t room_ms);
void gate_free(struct gate *g);

/* Fill in id, cancel and arg. ERR_UNAVAILABLE: a stream of the same peer is running, the same call may succeed later.
 * `pass` must live until gate_leave(). */
MUST_CHECK enum err gate_enter(struct gate *g, struct gate_pass *pass);
/* Around every wait for the peer. */
void gate_wait(struct gate *g, struct gate_pass *pass);
void gate_progress(struct gate *g, struct gate_pass *pass, size_t bytes);
const char *gate_why(struct gate *g, const struct gate_pass *pass); /* a text that lives for ever, or NULL */
/* All data has passed, only the last words are missing: the peer may begin its next stream. */
void gate_stream_end(struct gate *g, struct gate_pass *pass);
void gate_leave(struct gate *g, struct gate_pass *pass);

size_t gate_waiting(struct gate *g); /* how many wait for a place */

#endif
