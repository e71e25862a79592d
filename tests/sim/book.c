/*
 * The oracle's record: what it has seen become durable, and from it what the engine may say. It is filled from acknowledgements and from the
 * database (check.c) and never asks the engine.
 *
 * Where more than one answer is right (a plant that was revoked may still be waited for, or not) the set says so.
 */
#include "sim/sim.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct book_job *book_job(struct sim *s, uint64_t id)
{
	return id >= 1 && id <= s->book.n_jobs ? s->book.jobs[id] : NULL;
}

struct book_round *book_round(struct sim *s, uint64_t job, uint32_t number)
{
	struct book_job *j = book_job(s, job);
	return j != NULL && number >= 1 && number <= j->round ? &j->rounds[number] : NULL;
}

const float *book_model(const struct sim *s, const struct digest *d)
{
	for (size_t i = s->book.n_models; i > 0; i--) {
		if (digest_equal(&s->book.models[i - 1].digest, d))
			return s->book.models[i - 1].theta;
	}
	return NULL;
}

void book_add_model(struct sim *s, const struct digest *d, const float *theta)
{
	struct book *b = &s->book;
	if (book_model(s, d) != NULL)
		return;
	size_t n = b->source->n_theta * sizeof *theta;
	b->models = mem_grow(b->models, b->n_models + 1, sizeof *b->models);
	b->models[b->n_models] = (struct book_model){.digest = *d, .theta = mem_new(n)};
	memcpy(b->models[b->n_models++].theta, theta, n);
}

void book_start(struct sim *s, uint64_t id, const struct wire_start_job *request)
{
	struct book_job *j = mem_new(sizeof *j);
	ENSURE(id == s->book.n_jobs + 1 && id <= SIM_JOBS_MAX);
	s->book.jobs[++s->book.n_jobs] = j;
	j->id = id;
	j->source = request->source;
	j->state = WIRE_JOB_RUNNING;
	j->cohort = mem_array(s->n_plants, sizeof *j->cohort);
	ENSURE(config_from_canonical(job_wire_rows, buf_bytes(&request->config), &j->config) == ERR_OK);
	const float *theta = book_model(s, &j->source);
	memcpy(s->book.source->theta, theta, s->book.source->n_theta * sizeof *theta);
	ENSURE(manifest_build(s->book.source, &j->config.train.freeze, &j->config.local, &j->manifest) == ERR_OK);
	for (uint32_t i = 0; i < s->n_plants; i++) {
		bool named = j->config.plants.n == 0;
		for (size_t k = 0; k < j->config.plants.n && !named; k++)
			named = strcmp(j->config.plants.v[k], s->plants[i].name) == 0;
		j->cohort[i] = named && s->plants[i].enrolled;
	}
}

void book_open_round(struct sim *s, struct book_job *j, uint32_t number)
{
	ENSURE(number <= SIM_ROUNDS_MAX);
	struct book_round *r = &j->rounds[number];
	j->round = number;
	r->phase = ROUND_OPEN;
	r->invited = mem_array(s->n_plants, sizeof *r->invited);
	r->excused = mem_array(s->n_plants, sizeof *r->excused);
	r->updates = mem_array(s->n_plants, sizeof *r->updates);
	for (uint32_t i = 0; i < s->n_plants; i++) {
		r->invited[i] = j->cohort[i] && s->plants[i].enrolled;
		r->cohort += r->invited[i];
	}
}

void book_count(struct sim *s, const struct stream *t)
{
	struct book_round *r = book_round(s, t->head.update.job, t->head.update.round);
	struct book_update *u = r != NULL ? &r->updates[t->who] : NULL;
	if (u == NULL || u->counted) {
		sim_violated(s, "none counts twice", "%s, job %llu round %lu", s->plants[t->who].name,
			     (unsigned long long)t->head.update.job, (unsigned long)t->head.update.round);
		return;
	}
	*u = (struct book_update){.counted = true,
				  .digest = t->head.digest,
				  .samples = t->head.update.samples,
				  .time_ms = sim_wall(s),
				  .content = mem_new(t->n),
				  .n = t->n};
	memcpy(u->content, t->content, t->n);
	r->counted++;
}

void book_discount(struct sim *s, const struct stream *t)
{
	struct book_round *r = book_round(s, t->head.update.job, t->head.update.round);
	free(r->updates[t->who].content);
	r->updates[t->who] = (struct book_update){0};
	r->counted--;
}

void book_revoked(struct sim *s, uint32_t who)
{
	for (size_t i = 1; i <= s->book.n_jobs; i++) {
		struct book_job *j = s->book.jobs[i];
		if (j->state == WIRE_JOB_RUNNING && j->rounds[j->round].phase == ROUND_OPEN)
			j->rounds[j->round].excused[who] = true;
	}
}

static void round_drop(struct sim *s, struct book_round *r)
{
	for (uint32_t i = 0; i < s->n_plants && r->updates != NULL; i++)
		free(r->updates[i].content);
	free(r->updates);
	free(r->invited);
	free(r->excused);
}

void book_drop(struct sim *s)
{
	struct book *b = &s->book;
	for (size_t i = 1; i <= b->n_jobs; i++) {
		struct book_job *j = b->jobs[i];
		for (uint32_t k = 1; k <= j->round; k++)
			round_drop(s, &j->rounds[k]);
		config_free(job_wire_rows, &j->config);
		manifest_free(j->manifest);
		free(j->cohort);
		free(j);
	}
	for (size_t i = 0; i < b->n_models; i++)
		free(b->models[i].theta);
	free(b->models);
	model_free(b->source);
}

/* ---- what the engine may say ---- */

/* A revoked plant is waited for only while its update is on its way in, and as long as there is no quorum without it. One that has been
 * enrolled again meanwhile may be or not. */
bool book_is_full(const struct sim *s, const struct book_job *j, bool *ret_doubt)
{
	const struct book_round *r = &j->rounds[j->round];
	bool doubt = false;
	for (uint32_t i = 0; i < s->n_plants; i++) {
		if (!r->invited[i] || r->updates[i].counted)
			continue;
		if (!r->excused[i])
			return false;
		doubt |= s->plants[i].enrolled || r->counted < r->quorum || net_uploading(s, i, j->id);
	}
	*ret_doubt = doubt;
	return true;
}

errors book_judge_open(struct sim *s, const struct wire_head *head)
{
	const struct book_job *j = book_job(s, head->update.job);
	bool doubt = false;
	if (j == NULL || j->state != WIRE_JOB_RUNNING || head->update.round != j->round)
		return ONLY(ERR_STALE);
	const struct book_round *r = &j->rounds[j->round];
	if (r->phase != ROUND_OPEN || sim_wall(s) >= r->deadline_ms)
		return ONLY(ERR_STALE);
	if (!book_is_full(s, j, &doubt))
		return ONLY(ERR_OK);
	return doubt ? ONLY(ERR_OK) | ONLY(ERR_STALE) : ONLY(ERR_STALE);
}

/* What is wrong with the head of an update for an open round; ERR_OK: nothing. */
static enum err judge_numbers(const struct book_job *j, const struct book_round *r, const struct wire_head *head)
{
	const struct wire_update_head *u = &head->update;
	if (!digest_equal(&u->base, &r->base))
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

errors book_judge(struct sim *s, uint32_t who, const struct wire_head *head, bool *ret_repeats)
{
	const struct book_job *j = book_job(s, head->update.job);
	const struct book_round *r = book_round(s, head->update.job, head->update.round);
	const struct book_update *u = r != NULL ? &r->updates[who] : NULL;
	*ret_repeats = u != NULL && u->counted && digest_equal(&u->digest, &head->digest);
	if (!head->has_update || head->offset != 0)
		return ONLY(ERR_MALFORMED);
	if (j == NULL)
		return ONLY(ERR_NOT_FOUND);
	bool present = j->state == WIRE_JOB_RUNNING && head->update.round == j->round;
	if (u != NULL && u->counted) {
		enum err flaw = present ? judge_numbers(j, r, head) : ERR_OK;
		/* What counts is known by its digest, whatever base is claimed for it now. */
		if (*ret_repeats)
			return flaw == ERR_STALE ? ONLY(ERR_OK) | ONLY(ERR_STALE) : ONLY(flaw);
		return flaw != ERR_OK ? ONLY(flaw) : present ? ONLY(ERR_DUPLICATE) : ONLY(ERR_STALE);
	}
	errors open = book_judge_open(s, head);
	if (!(open & ONLY(ERR_OK)))
		return open;
	enum err flaw = judge_numbers(j, r, head);
	errors rest = open & ~ONLY(ERR_OK);
	if (!r->invited[who])
		return rest | ONLY(ERR_DENIED);
	if (r->excused[who])
		rest |= ONLY(ERR_DENIED);
	if (flaw == ERR_OK && net_uploading(s, who, j->id))
		flaw = ERR_UNAVAILABLE;
	return rest | ONLY(flaw);
}

errors book_judge_piece(struct sim *s, struct stream *t, size_t n)
{
	const struct manifest *m = book_job(s, t->head.update.job)->manifest;
	size_t from = t->at / 4, to = (t->at + n) / 4;
	for (size_t i = from; i < to; i++) {
		int32_t v;
		uint32_t bits = 0;
		for (int k = 3; k >= 0; k--)
			bits = bits << 8 | t->content[4 * i + (size_t)k];
		memcpy(&v, &bits, sizeof v);
		if (i >= m->n_travel)
			return ONLY(ERR_SHAPE);
		if (v > (1 << 30) || v < -(1 << 30))
			return ONLY(ERR_NUMERIC);
	}
	return ONLY(ERR_OK);
}

errors book_judge_end(struct sim *s, const struct stream *t)
{
	const struct book_job *j = book_job(s, t->head.update.job);
	struct digest digest = digest_of(bytes_of(t->content, t->n));
	if (t->n != 4 * j->manifest->n_travel)
		return ONLY(ERR_SHAPE);
	long double norm = sums_norm(j->manifest, t->content), most = (long double)j->config.norm_max;
	errors right = digest_equal(&digest, &t->head.digest) ? ONLY(ERR_OK) : ONLY(ERR_MALFORMED);
	/* What the disk did earlier may have left another update of this plant under its name. */
	if (s->host.dirty)
		right |= ONLY(ERR_DUPLICATE);
	if (most > 0 && norm > most * (1 + 1e-9L))
		return ONLY(ERR_LIMIT);
	return most > 0 && norm > most * (1 - 1e-9L) ? right | ONLY(ERR_LIMIT) : right;
}

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

const struct book_job *book_job_after(const struct sim *s, uint32_t who, uint64_t seen)
{
	for (uint64_t id = seen + 1; id <= s->book.n_jobs; id++) {
		if (s->book.jobs[id]->cohort[who])
			return s->book.jobs[id];
	}
	return NULL;
}
