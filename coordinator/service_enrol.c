/*
 * The enrolment port: no certificates, one method.
 */
#include "base/clock.h"
#include "coordinator/service.h"
#include "crypto/random.h"

enum err service_enroll(void *ctx, const struct peer *peer, struct bytes request, struct buf *reply)
{
	struct service *s = ctx;
	struct wire_enroll_request asked;
	struct wire_enroll_reply given;
	TRY(wire_enroll_request_unpack(request, &asked));
	enum err err = enrol_redeem(s->enrol, &asked, peer->from, clock_wall_ms(), &given);
	secret_wipe(asked.secret, sizeof asked.secret);
	TRY(err);
	err = wire_enroll_reply_pack(&given, reply);
	wire_enroll_reply_free(&given);
	return err;
}
