/*
 * What the engine may say, from the oracle's record. Where more than one answer is right (a plant that was revoked and enrolled again may
 * still be waited for, or not) the set says so.
 */
#include "sim/sim.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FLOW_MS = 10000 };

/* ---- who is waited for ---- */

/* How many of the present round's plants have been heard, or may be. A revoked plant is waited for only while its update is on its way in; one
 * that has been enrolled again meanwhile may be or not. */
static void count_plants(const struct sim *s, const struct book_job *j, uint32_t *ret_least, uint32_t *ret_most)
{
	const struct book_round *r = &j->rounds[j->round];
	*ret_least = *ret_most = r->counted;
	for (uint32_t i = 0; i < s->n_plants; i++) {
		if (!r->invited[i] || r->updates[i].counted)
			continue;
		*ret_least += !r->excused[i];
		*ret_most += !r->excused[i] || s->plants[i].enrolled || net_uploading(s, i, j->id);
	}
}

/* The goal follows the cohort when that shrinks, and the cohort not below the quorum. */
static uint32_t goal_of(const struct book_round *r, uint32_t plants)
{
	uint32_t cohort = plants > r->quorum ? plants : r->quorum;
	return r->goal < cohort ? r->goal : cohort;
}

bool book_is_full(const struct sim *s, const struct book_job *j, bool *ret_doubt)
{
	const struct book_round *r = &j->rounds[j->round];
	uint32_t least, most;
	count_plants(s, j, &least, &most);
	*ret_doubt = r->counted < goal_of(r, most);
	return r->counted >= goal_of(r, least);
}

bool book_is_lost(const struct sim *s, const struct book_job *j, bool *ret_doubt)
{
	const struct book_round *r = &j->rounds[j->round];
	uint32_t least, most;
	count_plants(s, j, &least, &most);
	*ret_doubt = most >= r->quorum;
	return least < r->quorum;
}

uint32_t book_flowing(const struct sim *s, const struct book_job *j, int64_t *wait_ms)
{
	const struct book_round *r = &j->rounds[j->round];
	uint32_t n = 0;
	for (size_t i = 0; i < s->n_streams; i++) {
		const struct stream *t = s->streams[i];
		int64_t left = t->progress_ms + FLOW_MS - s->now;
		bool ours = t->upload != NULL && t->head.update.job == j->id && net_is_current(s, t) &&
			    (t->head.update.round == j->round || book_carries(j));
		if (!ours || !r->invited[t->who] || r->updates[t->who].counted || left <= 0)
			continue;
		*wait_ms = left < *wait_ms ? left : *wait_ms;
		n++;
	}
	return n;
}

bool book_is_over(const struct sim *s, const struct book_job *j)
{
	const struct book_round *r = &j->rounds[j->round];
	int64_t beyond = doubt_wall(s) - r->deadline_ms, wait_ms = INT64_MAX;
	uint32_t flowing = book_flowing(s, j, &wait_ms);
	return beyond >= 0 && (flowing == 0 || beyond >= r->grace_ms || r->counted + flowing < r->quorum);
}

/* ---- heads ---- */

/* Does the present round take an update? `begun`: one that has begun in time. */
static errors judge_round(const struct sim *s, const struct book_job *j, bool begun)
{
	const struct book_round *r = &j->rounds[j->round];
	errors no = ONLY(book_carries(j) ? ERR_UNAVAILABLE : ERR_STALE);
	bool doubt = false;
	if (r->phase != ROUND_OPEN || sim_wall(s) >= r->deadline_ms + (begun ? r->grace_ms : 0))
		return no;
	if (!book_is_full(s, j, &doubt))
		return ONLY(ERR_OK);
	return doubt ? ONLY(ERR_OK) | no : no;
}

/* Is it of the present round, or of one that may still count in it? */
static bool is_of_age(const struct book_job *j, uint32_t made)
{
	if (j == NULL || j->state != WIRE_JOB_RUNNING || made > j->round || (made < j->round && !book_carries(j)))
		return false;
	return (int64_t)(j->round - made) <= j->config.late_max;
}

errors book_judge_open(struct sim *s, const struct wire_head *head)
{
	const struct book_job *j = book_job(s, head->update.job);
	if (!is_of_age(j, head->update.round))
		return ONLY(ERR_STALE);
	return book_carries(j) ? ONLY(ERR_OK) : judge_round(s, j, true);
}

/* Is the plant's place in the present round free? */
static errors judge_seat(const struct book_job *j, uint32_t who, uint32_t made)
{
	const struct book_round *r = &j->rounds[j->round];
	errors out = ONLY(!j->cohort[who] || made == j->round ? ERR_DENIED : ERR_STALE);
	if (!r->invited[who])
		return out;
	if (r->updates[who].counted)
		return ONLY(ERR_DUPLICATE);
	return r->excused[who] ? ONLY(ERR_OK) | out : ONLY(ERR_OK);
}

/* What is wrong with the head of an update of this job; ERR_OK: nothing. */
static enum err judge_numbers(const struct book_job *j, const struct wire_head *head)
{
	const struct wire_update_head *u = &head->update;
	if (u->round == 0 || !digest_equal(&u->base, &j->rounds[u->round].base))
		return ERR_STALE;
	if (!digest_equal(&u->manifest, &j->manifest->digest) || head->size != 4 * j->manifest->n_travel)
		return ERR_SHAPE;
	if (u->samples < 1 || u->samples > (1 << 20))
		return ERR_LIMIT;
	for (size_t i = 0; i < u->metrics.n; i++) {
		if (!isfinite(u->metrics.v[i].value))
			return ERR_NUMERIC;
	}
	return ERR_OK;
}

/* What an earlier stream has left, up to the offset: is it there, and could it be of an update? */
static errors judge_part(struct sim *s, const struct stream *t)
{
	char path[PATH_SIZE];
	if (t->head.offset == 0)
		return ONLY(ERR_OK);
	bool there = !book_is_small(s, s->book.jobs[t->head.update.job]) && t->n_got == t->head.offset &&
		     book_there(s, t, t->head.offset, path) >= t->head.offset;
	errors right = there && book_judge_piece(s, t, t->n_got) == ONLY(ERR_OK) ? ONLY(ERR_OK) : ONLY(ERR_UNAVAILABLE);
	/* What the spool believes to have and what it has may differ then. */
	return s->host.dirty ? right | ONLY(ERR_UNAVAILABLE) : right;
}

/* An update that does not count, of a running job's present round or of one before it. */
static errors judge_new(struct sim *s, const struct book_job *j, const struct stream *t)
{
	const uint32_t made = t->head.update.round;
	errors right = judge_round(s, j, false);
	if (!(right & ONLY(ERR_OK)))
		return right;
	errors seat = judge_seat(j, t->who, made);
	right = (right & ~ONLY(ERR_OK)) | (seat & ~ONLY(ERR_OK));
	if (!(seat & ONLY(ERR_OK)))
		return right;
	enum err flaw = judge_numbers(j, &t->head);
	bool receiving = net_uploading(s, t->who, j->id) || net_receiving(s, t->who, j->id, made);
	if (flaw == ERR_OK && receiving)
		flaw = ERR_UNAVAILABLE;
	if (flaw == ERR_OK && book_made(j, made, t->who, NULL) != NULL)
		flaw = ERR_DUPLICATE;
	return right | (flaw == ERR_OK ? judge_part(s, t) : ONLY(flaw));
}

errors book_judge(struct sim *s, const struct stream *t, bool *ret_repeats)
{
	const struct wire_head *head = &t->head;
	const struct book_job *j = book_job(s, head->update.job);
	const struct book_update *u = NULL;
	uint32_t where = 0;
	if (j != NULL && head->update.round <= j->round)
		u = book_made(j, head->update.round, t->who, &where);
	*ret_repeats = u != NULL && digest_equal(&u->digest, &head->digest);
	if (!head->has_update || head->offset > head->size)
		return ONLY(ERR_MALFORMED);
	if (j == NULL)
		return ONLY(ERR_NOT_FOUND);
	bool running = j->state == WIRE_JOB_RUNNING, present = running && where == j->round;
	/* What counts is known by its digest, whatever base is claimed for it now. */
	if (*ret_repeats) {
		enum err flaw = running && is_of_age(j, head->update.round) ? judge_numbers(j, head) : ERR_OK;
		return flaw == ERR_OK ? ONLY(ERR_OK)
		       : present      ? ONLY(flaw == ERR_STALE ? ERR_OK : flaw)
				      : ONLY(ERR_OK) | ONLY(flaw);
	}
	if (present) {
		enum err flaw = judge_numbers(j, head);
		return ONLY(flaw != ERR_OK ? flaw : ERR_DUPLICATE);
	}
	return is_of_age(j, head->update.round) ? judge_new(s, j, t) : ONLY(ERR_STALE);
}

/* ---- parts ---- */

bool book_is_small(const struct sim *s, const struct book_job *j)
{
	return 4 * j->manifest->n_travel <= s->host.small_max;
}

/* `ending`: what the name ends with, after the plant's. */
static const char *name_file(const struct sim *s, const struct stream *t, const char *ending, char out[PATH_SIZE])
{
	char folder[PATH_SIZE];
	char *name = mem_printf("%" PRIu64 "-%" PRIu32 "-%s.%s", t->head.update.job, t->head.update.round,
				s->plants[t->who].name, ending);
	path_join(out, host_spool(s, folder), name);
	free(name);
	return out;
}

/* An .update of which no row speaks, with this very content: writing its row has failed. What a row speaks of is no beginning of anything. */
static bool is_whole(struct sim *s, const struct stream *t, char ret_path[PATH_SIZE])
{
	struct digest got;
	uint64_t size = 0;
	const struct book_job *j = book_job(s, t->head.update.job);
	if (j == NULL || book_made(j, t->head.update.round, t->who, NULL) != NULL ||
	    !file_exists(name_file(s, t, "update", ret_path)))
		return false;
	return digest_file(ret_path, &got, &size) == ERR_OK && digest_equal(&got, &t->head.digest) &&
	       size == t->head.size;
}

uint64_t book_there(struct sim *s, const struct stream *t, uint64_t offset, char ret_path[PATH_SIZE])
{
	char hex[DIGEST_TEXT_SIZE], ending[32];
	uint64_t size = 0;
	host_quiet(s, true);
	bool whole = offset == t->head.size && is_whole(s, t, ret_path);
	if (!whole) {
		snprintf(ending, sizeof ending, "%.16s.part", digest_format(&t->head.digest, hex));
		name_file(s, t, ending, ret_path);
	}
	if (file_exists(ret_path) && file_size(ret_path, &size) != ERR_OK)
		size = 0;
	host_quiet(s, false);
	return size;
}

uint64_t book_offset(struct sim *s, const struct stream *t, bool *ret_sure)
{
	const struct book_job *j = book_job(s, t->head.update.job);
	char path[PATH_SIZE];
	errors open = book_judge_open(s, &t->head);
	*ret_sure = true;
	if (!(open & ONLY(ERR_OK)))
		return 0;
	const struct book_round *r = &j->rounds[j->round];
	if (!r->invited[t->who] || r->updates[t->who].counted || book_is_small(s, j))
		return 0;
	/* The whole, if there is one, goes before the part. */
	uint64_t there = book_there(s, t, t->head.size, path);
	*ret_sure = open == ONLY(ERR_OK) && !r->excused[t->who] && !s->host.dirty;
	return there <= t->head.size ? there : 0;
}

/* ---- content ---- */

/* Of what has gone on from an offset nobody knows whose fault it is. */
static errors blame(const struct stream *t, enum err err)
{
	return ONLY(t->head.offset > 0 ? ERR_UNAVAILABLE : err);
}

errors book_judge_piece(const struct sim *s, const struct stream *t, size_t n)
{
	const struct manifest *m = s->book.jobs[t->head.update.job]->manifest;
	size_t from = (t->n_got - n) / 4, to = t->n_got / 4;
	for (size_t i = from; i < to; i++) {
		int32_t v;
		uint32_t bits = 0;
		for (int k = 3; k >= 0; k--)
			bits = bits << 8 | t->got[4 * i + (size_t)k];
		memcpy(&v, &bits, sizeof v);
		if (i >= m->n_travel)
			break;
		if (v > (1 << 30) || v < -(1 << 30))
			return blame(t, ERR_NUMERIC);
	}
	if (t->n_got > 4 * m->n_travel)
		return blame(t, ERR_SHAPE);
	return ONLY(ERR_OK);
}

static errors judge_content(struct sim *s, const struct book_job *j, const struct stream *t)
{
	struct digest digest = digest_of(bytes_of(t->got, t->n_got));
	bool same = digest_equal(&digest, &t->head.digest);
	if (t->n_got != 4 * j->manifest->n_travel)
		return same ? ONLY(ERR_SHAPE) : blame(t, ERR_SHAPE);
	long double norm = sums_norm(j->manifest, t->got), most = (long double)j->config.norm_max;
	errors right = same ? ONLY(ERR_OK) : blame(t, ERR_MALFORMED);
	errors beyond = same ? ONLY(ERR_LIMIT) : blame(t, ERR_LIMIT);
	/* What the disk did earlier may have left another update of this plant under its name. */
	if (s->host.dirty)
		right |= ONLY(ERR_DUPLICATE);
	if (most > 0 && norm > most * (1 + 1e-9L))
		return beyond;
	return most > 0 && norm > most * (1 - 1e-9L) ? right | beyond : right;
}

errors book_judge_end(struct sim *s, const struct stream *t)
{
	const struct book_job *j = book_job(s, t->head.update.job);
	errors open = net_is_current(s, t) ? book_judge_open(s, &t->head) : ONLY(ERR_STALE);
	if (!(open & ONLY(ERR_OK)))
		return open;
	errors right = open & ~ONLY(ERR_OK), round = judge_round(s, j, true);
	/* It waits for the next round, as it is. */
	right |= round & ONLY(ERR_UNAVAILABLE);
	if (!(round & ~ONLY(ERR_UNAVAILABLE)))
		return right;
	errors content = judge_content(s, j, t);
	right |= content & ~ONLY(ERR_OK);
	if (!(content & ONLY(ERR_OK)))
		return right;
	errors seat = judge_seat(j, t->who, t->head.update.round);
	return right | (round & ~ONLY(ERR_OK)) | seat;
}

/* ---- reports, tasks ---- */

/* Is it a model of a job that the plant is in? */
static bool owns(struct sim *s, uint32_t who, const struct digest *d)
{
	for (size_t i = 1; i <= s->book.n_jobs; i++) {
		const struct book_job *j = s->book.jobs[i];
		if (!j->cohort[who])
			continue;
		if (digest_equal(&j->source, d))
			return true;
		for (uint32_t k = 1; k <= j->round; k++) {
			if (digest_equal(&j->rounds[k].base, d) || digest_equal(&j->rounds[k].model, d))
				return true;
		}
	}
	return false;
}

errors book_judge_report(struct sim *s, const struct report *r)
{
	const struct book_job *j = book_job(s, r->report.job);
	if (j == NULL || !j->cohort[r->who])
		return ONLY(ERR_NOT_FOUND);
	if (r->report.round > j->round)
		return ONLY(ERR_STALE);
	return owns(s, r->who, &r->report.model) ? ONLY(ERR_OK) : ONLY(ERR_NOT_FOUND);
}

bool book_has_task(const struct sim *s, const struct book_job *j, uint32_t who, bool firmly)
{
	const struct book_round *r = &j->rounds[j->round];
	bool open = j->state == WIRE_JOB_RUNNING && r->phase == ROUND_OPEN && !j->stop_asked;
	return open && r->invited[who] && !r->updates[who].counted && sim_wall(s) < r->deadline_ms &&
	       !(firmly && r->excused[who]);
}

const struct book_job *book_job_after(const struct sim *s, uint32_t who, uint64_t seen, uint32_t ends)
{
	for (uint64_t id = seen > 0 ? seen : 1; id <= s->book.n_jobs; id++) {
		const struct book_job *j = s->book.jobs[id];
		bool news = id > seen || j->state == WIRE_JOB_RUNNING || j->ends > ends;
		if (j->cohort[who] && news)
			return j;
	}
	return NULL;
}

bool book_knows_ends(const struct sim *s, uint32_t who)
{
	const struct plant *p = &s->plants[who];
	return book_job_after(s, who, p->finished_job, p->is_old ? UINT32_MAX : p->finished_ends) == NULL;
}
