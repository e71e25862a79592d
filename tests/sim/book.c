/*
 * The oracle's record: what it has seen become durable. It is filled from acknowledgements and from the database (look.c) and never asks the
 * engine.
 */
#include "sim/sim.h"

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

bool book_carries(const struct book_job *j)
{
	return j->config.late == JOB_LATE_CARRY;
}

const struct book_update *book_made(const struct book_job *j, uint32_t made, uint32_t who, uint32_t *ret_round)
{
	for (uint32_t k = made > 0 ? made : 1; k <= j->round; k++) {
		const struct book_update *u = &j->rounds[k].updates[who];
		if (!u->counted || u->base_round != made)
			continue;
		if (ret_round != NULL)
			*ret_round = k;
		return u;
	}
	return NULL;
}

uint32_t book_newer(const struct book_job *j, uint32_t number)
{
	uint32_t n = 0;
	for (uint32_t k = number + 1; k <= j->round; k++)
		n += j->rounds[k].phase == ROUND_COMMITTED;
	return n;
}

bool book_keeps_updates(const struct book_job *j, uint32_t number)
{
	enum round_phase phase = j->rounds[number].phase;
	if (phase < ROUND_COMMITTED)
		return j->state == WIRE_JOB_RUNNING;
	return phase == ROUND_COMMITTED && book_newer(j, number) < job_keep_updates(&j->config);
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

/* The cohort is the beginning of a shuffle (Fisher and Yates, from the end) of the job's enrolled plants. */
void book_draw(struct sim *s, const struct book_job *j, uint32_t number, bool *ret_invited)
{
	uint32_t *urn = mem_array(s->n_plants, sizeof *urn), n = 0;
	struct rng r;
	for (uint32_t i = 0; i < s->n_plants; i++) {
		ret_invited[i] = false;
		if (j->cohort[i] && s->plants[i].enrolled)
			urn[n++] = i;
	}
	uint32_t asked = j->config.cohort == 0 || j->config.cohort >= n ? n : (uint32_t)j->config.cohort;
	rng_stream(&r, (uint64_t)j->config.seed, "cohort", number);
	for (uint32_t last = n; asked < n && last > 1; last--) {
		uint32_t k = (uint32_t)rng_below(&r, last), drawn = urn[k];
		urn[k] = urn[last - 1];
		urn[last - 1] = drawn;
	}
	for (uint32_t i = 0; i < asked; i++)
		ret_invited[urn[i]] = true;
	if (asked < n)
		cover("a round that asks some of the job's plants");
	free(urn);
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
	book_draw(s, j, number, r->invited);
	for (uint32_t i = 0; i < s->n_plants; i++)
		r->cohort += r->invited[i];
	r->goal = j->config.goal != 0 && j->config.goal < r->cohort ? (uint32_t)j->config.goal : r->cohort;
	r->grace_ms = j->config.grace;
}

/* In the present round, whichever it was made in. */
void book_count(struct sim *s, const struct stream *t)
{
	struct book_job *j = book_job(s, t->head.update.job);
	struct book_round *r = &j->rounds[j->round];
	struct book_update *u = &r->updates[t->who];
	if (u->counted || book_made(j, t->head.update.round, t->who, NULL) != NULL) {
		sim_violated(s, "none counts twice", "%s, job %llu round %lu", s->plants[t->who].name,
			     (unsigned long long)j->id, (unsigned long)j->round);
		return;
	}
	*u = (struct book_update){.counted = true,
				  .base_round = t->head.update.round,
				  .digest = t->head.digest,
				  .samples = t->head.update.samples,
				  .time_ms = sim_wall(s),
				  .content = mem_new(t->n_got),
				  .n = t->n_got};
	memcpy(u->content, t->got, t->n_got);
	r->counted++;
}

struct book_update book_discount(struct sim *s, const struct stream *t)
{
	struct book_job *j = book_job(s, t->head.update.job);
	struct book_round *r = &j->rounds[j->round];
	struct book_update u = r->updates[t->who];
	r->updates[t->who] = (struct book_update){0};
	r->counted--;
	return u;
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
