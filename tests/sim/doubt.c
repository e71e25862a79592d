/*
 * A commit that fails may have happened: its last sync failed, but the bytes are there, and the next start finds them in the write-ahead log
 * - unless another transaction has been written over them meanwhile. So of all that has failed only the last can come back, and only at a
 * start. It comes back as it was decided then: what the oracle compares it with is the time of the failure, not that of the start.
 */
#include "sim/sim.h"

#include <stdlib.h>

void doubt_step(struct sim *s)
{
	if (!host_disk_failed(s))
		return;
	s->doubt.is = true;
	s->doubt.wall_ms = sim_wall(s);
}

void doubt_clear(struct sim *s)
{
	free(s->doubt.update.content);
	if (s->doubt.starts)
		buf_deinit(&s->doubt.start.config);
	s->doubt = (struct doubt){0};
}

void doubt_update(struct sim *s, uint64_t job, uint32_t round, uint32_t who, struct book_update update)
{
	doubt_clear(s);
	s->doubt.job = job;
	s->doubt.round = round;
	s->doubt.who = who;
	s->doubt.update = update;
}

void doubt_start(struct sim *s, const struct wire_start_job *request)
{
	doubt_clear(s);
	s->doubt.starts = true;
	s->doubt.start.source = request->source;
	buf_init(&s->doubt.start.config, WIRE_CONFIG_MAX);
	ENSURE(buf_append(&s->doubt.start.config, request->config.p, request->config.n) == ERR_OK);
}

bool doubt_take_update(struct sim *s, uint64_t job, uint32_t round)
{
	struct doubt *d = &s->doubt;
	struct book_round *r = book_round(s, job, round);
	if (!s->host.opening || d->job != job || d->round != round || r == NULL || r->updates[d->who].counted)
		return false;
	r->updates[d->who] = d->update;
	r->counted++;
	d->update = (struct book_update){0};
	d->job = 0;
	cover("an update that counts although its commit failed");
	return true;
}

const struct wire_start_job *doubt_take_start(struct sim *s)
{
	return s->host.opening && s->doubt.starts ? &s->doubt.start : NULL;
}

bool doubt_resumes(const struct sim *s, uint64_t job)
{
	return s->resuming == job || (s->host.opening && s->doubt.resumes == job);
}

int64_t doubt_wall(const struct sim *s)
{
	return s->host.opening && s->doubt.is ? s->doubt.wall_ms : sim_wall(s);
}
