/*
 * What is kept: every file of the spool has a reason to be there, everything that is needed is there, and from the files on disk each round
 * whose updates are kept can be calculated again, to the bit. The rules are those of coordinator/retention.h, counted from the oracle's record.
 */
#include "sim/sim.h"

#include "coordinator/db_schema.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the spool: nothing too much ---- */

static const struct book_job *job_of(struct sim *s, uint64_t id, uint32_t round)
{
	const struct book_job *j = book_job(s, id);
	return j != NULL && round >= 1 && round <= j->round ? j : NULL;
}

/* What was cut off stays until nothing can come of it any more. */
static bool may_stay_part(struct sim *s, const struct book_job *j, uint32_t made, uint32_t who)
{
	if (net_receiving(s, who, j->id, made))
		return true;
	if (j->state != WIRE_JOB_RUNNING || book_made(j, made, who, NULL) != NULL)
		return false;
	return book_carries(j) ? j->round - made <= (uint64_t)j->config.late_max : j->round == made;
}

/* Does an update of this plant that was made, or one of all that count in the round, need the file? -1: in a batch. */
static bool may_stay_update(const struct book_job *j, uint32_t made, uint32_t who)
{
	uint32_t where;
	return book_made(j, made, who, &where) != NULL && book_keeps_updates(j, where);
}

static enum err look_at_file(void *arg, const char *name)
{
	struct sim *s = arg;
	unsigned long long id = 0;
	unsigned long round = 0;
	char plant[64] = "", folder[PATH_SIZE], path[PATH_SIZE];
	uint32_t who = 0;
	bool batch = strstr(name, ".batch") != NULL, part = strstr(name, ".part") != NULL, right = false;
	if (sscanf(name, "%llu-%lu-%63[^.]", &id, &round, plant) < (batch ? 2 : 3)) {
		sim_violated(s, "the spool holds updates", "%s", name);
		return ERR_OK;
	}
	while (!batch && who < s->n_plants && strcmp(s->plants[who].name, plant) != 0)
		who++;
	const struct book_job *j = who < s->n_plants ? job_of(s, id, (uint32_t)round) : NULL;
	if (j != NULL && batch)
		right = j->rounds[round].counted > 0 && book_keeps_updates(j, (uint32_t)round);
	else if (j != NULL && part)
		right = may_stay_part(s, j, (uint32_t)round, who);
	else if (j != NULL)
		right = may_stay_update(j, (uint32_t)round, who);
	/* What the sweep before the first look has removed was listed before. */
	if (!right && file_exists(path_join(path, host_spool(s, folder), name)))
		sim_violated(s, "nothing stays in the spool that is not needed", "%s", name);
	return ERR_OK;
}

/* Where the disk has failed files may have stayed, until the next start. */
void check_spool(struct sim *s)
{
	char folder[PATH_SIZE];
	if (!s->host.dirty && dir_each(host_spool(s, folder), look_at_file, s) != ERR_OK)
		sim_violated(s, "the spool can be read", "%s", err_text());
}

/* ---- the spool: a plant leaves one thing behind in a job ---- */

struct left {
	struct sim *s;
	uint32_t who;
	uint64_t job;
};

static enum err look_at_left(void *arg, const char *name)
{
	struct left *l = arg;
	struct sim *s = l->s;
	unsigned long long id = 0;
	unsigned long round = 0;
	char plant[64] = "";
	bool counts = strstr(name, ".part") == NULL;
	if (sscanf(name, "%llu-%lu-%63[^.]", &id, &round, plant) < 3 || id != l->job ||
	    strcmp(plant, s->plants[l->who].name) != 0)
		return ERR_OK;
	const struct book_job *j = job_of(s, id, (uint32_t)round);
	if (counts)
		counts = j != NULL && book_made(j, (uint32_t)round, l->who, NULL) != NULL;
	if (!counts && !net_receiving(s, l->who, l->job, (uint32_t)round))
		sim_violated(s, "a plant that begins another update gives up what it left behind", "%s", name);
	return ERR_OK;
}

void check_left(struct sim *s, uint32_t who, uint64_t job)
{
	char folder[PATH_SIZE];
	struct left l = {.s = s, .who = who, .job = job};
	if (s->host.dirty)
		return;
	host_quiet(s, true);
	if (dir_each(host_spool(s, folder), look_at_left, &l) != ERR_OK)
		sim_violated(s, "the spool can be read", "%s", err_text());
	host_quiet(s, false);
}

/* ---- the spool: nothing too little ---- */

/* An update's bytes as its row says where they are; NULL: not there. free(). */
static uint8_t *read_update(struct sim *s, const struct update_row *row)
{
	char folder[PATH_SIZE], path[PATH_SIZE];
	struct file *f;
	char *name = row->place >= 0
			     ? mem_printf("%" PRIu64 "-%" PRIu32 ".batch", row->job, row->round)
			     : mem_printf("%" PRIu64 "-%" PRIu32 "-%s.update", row->job, row->base_round, row->plant);
	path_join(path, host_spool(s, folder), name);
	free(name);
	if (file_open_read(path, &f) != ERR_OK)
		return NULL;
	uint8_t *content = mem_new((size_t)row->size);
	if (file_read_at(f, row->place >= 0 ? (uint64_t)row->place : 0, content, (size_t)row->size) != ERR_OK) {
		free(content);
		content = NULL;
	}
	file_close(f);
	return content;
}

static bool read_round(struct sim *s, const struct book_job *j, uint32_t number, uint8_t **contents)
{
	struct update_row *rows;
	size_t n, k = 0;
	struct db eye = {.sql = s->host.eye};
	if (db_update_list(&eye, j->id, number, &rows, &n) != ERR_OK) {
		sim_violated(s, "the database can be read", "%s", err_text());
		return false;
	}
	for (uint32_t who = 0; who < s->n_plants && s->violated == NULL; who++) {
		const struct book_update *u = &j->rounds[number].updates[who];
		if (!u->counted)
			continue;
		/* The rows are those of the record: look_at_rows(). */
		if (k < n)
			contents[who] = read_update(s, &rows[k++]);
		if (contents[who] == NULL || memcmp(contents[who], u->content, u->n) != 0)
			sim_violated(s, "the bytes of an update stay as they were accepted",
				     "job %" PRIu64 " round %u: %s", j->id, number, s->plants[who].name);
	}
	free(rows);
	return s->violated == NULL;
}

/* From nothing but files. */
static void calculate_again(struct sim *s, const struct book_job *j, uint32_t number, uint8_t **contents)
{
	const struct book_round *r = &j->rounds[number];
	struct model *base, *made;
	float *again = mem_array(j->manifest->n_theta, sizeof *again);
	if (look_at_model(s, &r->base, &base)) {
		sums_model(s, j, number, base->theta, contents, again);
		if (look_at_model(s, &r->model, &made)) {
			if (memcmp(made->theta, again, j->manifest->n_theta * sizeof *again) != 0)
				sim_violated(s, "what is kept gives the same model again", "job %" PRIu64 " round %u",
					     j->id, number);
			cover("a round that is calculated again");
			model_free(made);
		}
		model_free(base);
	}
	free(again);
}

static void check_round_kept(struct sim *s, const struct book_job *j, uint32_t number)
{
	uint8_t **contents = mem_array(s->n_plants, sizeof *contents);
	if (read_round(s, j, number, contents) && j->rounds[number].phase == ROUND_COMMITTED)
		calculate_again(s, j, number, contents);
	for (uint32_t i = 0; i < s->n_plants; i++)
		free(contents[i]);
	free(contents);
}

void check_open(struct sim *s)
{
	for (size_t i = 1; i <= s->book.n_jobs && s->violated == NULL; i++) {
		const struct book_job *j = s->book.jobs[i];
		if (j->state == WIRE_JOB_RUNNING && j->rounds[j->round].counted > 0)
			check_round_kept(s, j, j->round);
	}
}

void check_kept(struct sim *s)
{
	cover_expect("a round that is calculated again");
	for (size_t i = 1; i <= s->book.n_jobs; i++) {
		const struct book_job *j = s->book.jobs[i];
		for (uint32_t number = 1; number <= j->round && s->violated == NULL; number++) {
			if (j->rounds[number].counted > 0 && book_keeps_updates(j, number))
				check_round_kept(s, j, number);
		}
	}
}

/* ---- models ---- */

static bool needs_for_round(const struct book_job *j, uint32_t number, const struct digest *d)
{
	const struct book_round *r = &j->rounds[number];
	bool base = digest_equal(&r->base, d), made = r->phase == ROUND_COMMITTED && digest_equal(&r->model, d);
	if (!base && !made)
		return false;
	if (r->phase < ROUND_COMMITTED)
		return true;
	if (r->phase == ROUND_ABANDONED)
		return false;
	return book_keeps_updates(j, number) || (made && book_newer(j, number) < job_keep_models(&j->config));
}

/* The last model of the job, or the source while it has none. */
static const struct digest *current(const struct book_job *j)
{
	for (uint32_t k = j->round; k > 0; k--) {
		if (j->rounds[k].phase == ROUND_COMMITTED)
			return &j->rounds[k].model;
	}
	return &j->source;
}

bool keep_needs_model(struct sim *s, const struct digest *d)
{
	bool published = false;
	for (size_t i = 0; i < SIM_SOURCES; i++)
		published |= digest_equal(&s->book.sources[i], d);
	for (size_t i = 1; i <= s->book.n_jobs; i++) {
		const struct book_job *j = s->book.jobs[i];
		if (digest_equal(&j->source, d) || digest_equal(current(j), d))
			return true;
		for (uint32_t k = 1; k <= j->round; k++) {
			if (needs_for_round(j, k, d))
				return true;
		}
	}
	/* Nobody has begun with it yet. */
	return published;
}

static void check_models(struct sim *s, bool clean)
{
	for (size_t i = 0; i < s->book.n_models && s->violated == NULL; i++) {
		const struct digest *d = &s->book.models[i].digest;
		char text[DIGEST_TEXT_SIZE];
		bool needed = keep_needs_model(s, d), there = store_has(s->host.store, d, NULL);
		digest_format(d, text);
		if (needed && !there)
			sim_violated(s, "models stay as long as they are needed", "%s", text);
		if (clean && !needed && there)
			sim_violated(s, "models go when nobody needs them", "%s", text);
		if (!needed)
			cover("a model that has gone");
	}
}

void check_store(struct sim *s)
{
	cover_expect("a model that has gone");
	check_models(s, false);
}

void check_store_clean(struct sim *s)
{
	check_models(s, !s->host.dirty);
}
