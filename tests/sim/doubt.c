/*
 * A commit that fails may have happened: its last sync failed, but the bytes are there, and the next start finds them in the write-ahead log
 * - unless another transaction has been written over them meanwhile, which one that fails at its first write is not. So any of those that
 * have failed can come back, one of them, and only at a start. It comes back as it was decided then: what the oracle compares it with is the
 * time of the failure, not that of the start.
 */
#include "sim/sim.h"

#include "coordinator/db_schema.h"

#include <stdlib.h>
#include <string.h>

void doubt_step(struct sim *s)
{
	if (!host_disk_failed(s))
		return;
	s->doubt.is = true;
	s->doubt.wall_ms = sim_wall(s);
}

void doubt_clear(struct sim *s)
{
	for (size_t i = 0; i < s->doubt.n_updates; i++)
		free(s->doubt.updates[i].update.content);
	if (s->doubt.starts)
		buf_deinit(&s->doubt.start.config);
	s->doubt = (struct doubt){0};
}

void doubt_update(struct sim *s, uint64_t job, uint32_t round, uint32_t who, struct book_update update)
{
	struct doubt *d = &s->doubt;
	if (d->n_updates == SIM_DOUBTS_MAX) {
		free(d->updates[0].update.content);
		memmove(d->updates, d->updates + 1, --d->n_updates * sizeof *d->updates);
	}
	d->updates[d->n_updates++] = (struct doubt_update){.job = job, .round = round, .who = who, .update = update};
}

void doubt_start(struct sim *s, const struct wire_start_job *request)
{
	if (s->doubt.starts)
		buf_deinit(&s->doubt.start.config);
	s->doubt.starts = true;
	s->doubt.start.source = request->source;
	buf_init(&s->doubt.start.config, WIRE_CONFIG_MAX);
	ENSURE(buf_append(&s->doubt.start.config, request->config.p, request->config.n) == ERR_OK);
}

/* Has this one come back? */
static bool is_there(struct sim *s, const struct doubt_update *d)
{
	struct update_row row;
	struct db eye = {.sql = s->host.eye};
	return db_update_get(&eye, d->job, d->round, s->plants[d->who].name, &row) == ERR_OK &&
	       digest_equal(&row.digest, &d->update.digest) && row.time_ms == d->update.time_ms;
}

bool doubt_take_update(struct sim *s, uint64_t job, uint32_t round)
{
	struct book_round *r = book_round(s, job, round);
	for (size_t i = s->doubt.n_updates; s->host.opening && r != NULL && i-- > 0;) {
		struct doubt_update *d = &s->doubt.updates[i];
		if (d->job != job || d->round != round || d->update.content == NULL || r->updates[d->who].counted ||
		    !is_there(s, d))
			continue;
		r->updates[d->who] = d->update;
		r->counted++;
		d->update = (struct book_update){0};
		d->job = 0;
		cover("an update that counts although its commit failed");
		return true;
	}
	return false;
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
