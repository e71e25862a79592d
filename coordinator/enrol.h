/*
 * Enrolment: an invitation becomes a certificate. The operator's side makes the join code, the plant's side redeems it.
 *
 * To the outside every refusal says the same, ENROL_REFUSED: whoever guesses learns nothing. The reason is logged; at most
 * ENROL_FAILURES_PER_S of them a second, more are refused without looking. Whoever knows a valid secret is never held up by that.
 */
#ifndef HANSA_COORDINATOR_ENROL_H
#define HANSA_COORDINATOR_ENROL_H

#include "coordinator/federation.h"

enum { ENROL_FAILURES_PER_S = 20 };
#define ENROL_REFUSED "the invitation is unknown, used or expired; ask the operator for a new one"

#define ENROL_VALID_DEFAULT_MS (24 * 3600 * INT64_C(1000))
#define ENROL_VALID_MIN_MS     (60 * INT64_C(1000))
#define ENROL_VALID_MAX_MS     (30 * 24 * 3600 * INT64_C(1000))

struct enrol;                                  /* thread: any */
struct enrol *enrol_new(struct federation *f); /* borrowed */
void enrol_free(struct enrol *e);              /* NULL is fine */
/* HOST:PORT as plants dial them; `enrolment` NULL: closed. Until then nobody is invited or enrolled. */
void enrol_set_addresses(struct enrol *e, const char *main, const char *enrolment);

/* A join code for a name. ERR_STATE: enrolment is closed, or the name is enrolled; ERR_LIMIT: how long, how many. valid_ms 0: the default. */
MUST_CHECK enum err enrol_invite(struct enrol *e, enum role role, const char *name, uint64_t valid_ms, int64_t now_ms,
				 struct wire_invite_reply *ret_reply);
/* ERR_DENIED with ENROL_REFUSED, or ERR_LIMIT. The same secret and key get the same answer again until the invitation expires; wire_enroll_reply_free(). `from`: for the log. */
MUST_CHECK enum err enrol_redeem(struct enrol *e, const struct wire_enroll_request *request, const char *from,
				 int64_t now_ms, struct wire_enroll_reply *ret_reply);
#define ENROL_UNWRITTEN                                                                                                \
	"it is refused from now on, but that could not be written and a restart would forget it; revoke it again"
/* ERR_NOT_FOUND; ERR_STATE: the last operator stays; ERR_UNAVAILABLE with ENROL_UNWRITTEN. */
MUST_CHECK enum err enrol_revoke(struct enrol *e, enum role role, const char *name, int64_t now_ms);

#endif
