/*
 * Newer. The age of a committed round is the number of committed rounds of its job that are newer; abandoned ones do not count. The round
 * that a commit makes too old is therefore the one of age keep_updates (for its updates), and for its result the one of the smallest age
 * that needs it no longer: the result of age a is the base of age a - 1, so the updates of that one, while kept, need it as well.
 *
 *	age          0     1     2     3     4
 *	            R9    R8    R6    R5    R4         R7 was abandoned
 *	updates      *     *                           keep_updates: 2
 *	results      *     *     *                     R6's is the base of R8
 *
 * Whether a model goes is never decided from one job's ages alone: needs_model() asks about every round that has begun with it or made it.
 *
 * Doubt keeps: an error while looking means that the thing is needed.
 */
#include "coordinator/retention.h"

#include "base/log.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>

struct retention {
	struct retention_config config;
	pthread_mutex_t lock; /* held while something is removed, and by those who do not want that */
};

struct retention *retention_new(const struct retention_config *config)
{
	struct retention *r = mem_new(sizeof *r);
	r->config = *config;
	ENSURE(pthread_mutex_init(&r->lock, NULL) == 0);
	return r;
}

void retention_free(struct retention *r)
{
	if (r == NULL)
		return;
	pthread_mutex_destroy(&r->lock);
	free(r);
}

void retention_hold(struct retention *r)
{
	pthread_mutex_lock(&r->lock);
}

void retention_release(struct retention *r)
{
	pthread_mutex_unlock(&r->lock);
}

static bool is_over(enum round_phase phase)
{
	return phase == ROUND_COMMITTED || phase == ROUND_ABANDONED;
}

static enum err keep_of(struct retention *r, uint64_t job, struct retention_keep *ret_keep)
{
	return r->config.keep(r->config.arg, job, ret_keep);
}

/* The smallest age of a round whose result nobody needs for that round's sake. */
static uint32_t result_age(const struct retention_keep *keep)
{
	uint32_t models = keep->models > 0 ? keep->models : 1;
	uint32_t bases = keep->updates == 0 || keep->updates == UINT32_MAX ? keep->updates : keep->updates + 1;
	return models > bases ? models : bases;
}

/* ---- updates ---- */

static enum err keeps_updates(struct retention *r, uint64_t job, uint32_t round, enum round_phase phase,
			      bool *ret_keeps)
{
	struct retention_keep keep;
	uint32_t newer;
	*ret_keeps = false;
	if (!is_over(phase)) {
		struct job_row j;
		TRY(db_job_get(r->config.db, job, &j));
		*ret_keeps = j.state == WIRE_JOB_RUNNING;
		job_row_deinit(&j);
		return ERR_OK;
	}
	if (phase == ROUND_ABANDONED)
		return ERR_OK;
	TRY(keep_of(r, job, &keep));
	TRY(db_keep_newer(r->config.db, job, round, &newer));
	*ret_keeps = newer < keep.updates;
	return ERR_OK;
}

static bool in_doubt(const char *what, uint64_t job, uint32_t round)
{
	log_warn("retention", "keeping %s of job %" PRIu64 " round %" PRIu32 ": %s", what, job, round, err_text());
	return true;
}

bool retention_needs_update(struct retention *r, uint64_t job, uint32_t round, const char *plant)
{
	uint32_t counted;
	enum round_phase phase;
	int64_t place;
	bool keeps = false;
	enum err err = db_keep_counted(r->config.db, job, round, plant, &counted, &phase, &place);
	if (err == ERR_NOT_FOUND)
		return false;
	/* In a batch: then this file is what is left of an attempt. */
	if (err == ERR_OK && place >= 0)
		return false;
	if (err == ERR_OK)
		err = keeps_updates(r, job, counted, phase, &keeps);
	return err == ERR_OK ? keeps : in_doubt("an update", job, round);
}

/* Does a row of the round speak of its batch? */
static enum err has_in_batch(struct retention *r, uint64_t job, uint32_t round, bool *ret_has)
{
	struct update_row *updates;
	size_t n;
	TRY(db_update_list(r->config.db, job, round, &updates, &n));
	bool has = false;
	for (size_t i = 0; i < n; i++)
		has |= updates[i].place >= 0;
	free(updates);
	*ret_has = has;
	return ERR_OK;
}

bool retention_needs_batch(struct retention *r, uint64_t job, uint32_t round)
{
	struct round_row row;
	bool keeps = false;
	enum err err = db_round_get(r->config.db, job, round, &row);
	if (err == ERR_NOT_FOUND)
		return false;
	if (err == ERR_OK) {
		bool has = false;
		err = has_in_batch(r, job, round, &has);
		if (err == ERR_OK && has)
			err = keeps_updates(r, job, round, row.state.phase, &keeps);
		round_row_deinit(&row);
	}
	return err == ERR_OK ? keeps : in_doubt("the updates", job, round);
}

/* Each that counted in the round, where its row says that it is. */
static enum err remove_updates(struct retention *r, uint64_t job, uint32_t round)
{
	struct update_row *updates;
	size_t n;
	TRY(db_update_list(r->config.db, job, round, &updates, &n));
	bool batch = false;
	for (size_t i = 0; i < n; i++) {
		batch |= updates[i].place >= 0;
		if (updates[i].place < 0)
			r->config.remove_update(r->config.arg, job, updates[i].base_round, updates[i].plant);
	}
	if (batch)
		r->config.remove_update(r->config.arg, job, round, NULL);
	free(updates);
	return ERR_OK;
}

/* ---- models ---- */

static enum err needs_for(struct retention *r, const struct db_model_use *use, bool *ret_needs)
{
	struct retention_keep keep;
	uint32_t newer;
	*ret_needs = !is_over(use->phase);
	if (use->phase != ROUND_COMMITTED)
		return ERR_OK;
	TRY(keep_of(r, use->job, &keep));
	TRY(db_keep_newer(r->config.db, use->job, use->round, &newer));
	*ret_needs = newer < keep.updates || (use->made && newer < result_age(&keep));
	return ERR_OK;
}

static enum err needs_model(struct retention *r, const struct digest *d, bool *ret_needs)
{
	struct db_model_use *uses;
	size_t n;
	bool needs;
	TRY(db_keep_uses(r->config.db, d, &needs, &uses, &n));
	needs |= n == 0;
	enum err err = ERR_OK;
	for (size_t i = 0; err == ERR_OK && !needs && i < n; i++)
		err = needs_for(r, &uses[i], &needs);
	free(uses);
	TRY(err);
	*ret_needs = needs;
	return ERR_OK;
}

/* For store_each(): an error does not end it. */
static enum err consider(void *arg, const struct digest *d)
{
	struct retention *r = arg;
	char text[DIGEST_TEXT_SIZE];
	bool needs = true;
	pthread_mutex_lock(&r->lock);
	enum err err = needs_model(r, d, &needs);
	if (err == ERR_OK && !needs)
		err = store_remove(r->config.store, d);
	pthread_mutex_unlock(&r->lock);
	if (err != ERR_OK)
		log_warn("retention", "keeping model %s: %s", digest_format(d, text), err_text());
	else if (!needs)
		log_info("retention", "removed model %s", digest_format(d, text));
	return ERR_OK;
}

static enum err drop_result(struct retention *r, uint64_t job, uint32_t age)
{
	struct digest model;
	uint32_t number;
	if (age == UINT32_MAX)
		return ERR_OK;
	enum err err = db_keep_committed(r->config.db, job, age, &number, &model);
	if (err == ERR_NOT_FOUND)
		return ERR_OK;
	TRY(err);
	return store_has(r->config.store, &model, NULL) ? consider(r, &model) : ERR_OK;
}

/* ---- the two occasions ---- */

static enum err drop_updates(struct retention *r, uint64_t job, uint32_t age)
{
	struct digest model;
	uint32_t number;
	if (age == UINT32_MAX)
		return ERR_OK;
	enum err err = db_keep_committed(r->config.db, job, age, &number, &model);
	if (err == ERR_NOT_FOUND)
		return ERR_OK;
	TRY(err);
	return remove_updates(r, job, number);
}

static enum err committed(struct retention *r, uint64_t job)
{
	struct retention_keep keep;
	TRY(keep_of(r, job, &keep));
	TRY(drop_updates(r, job, keep.updates));
	return drop_result(r, job, result_age(&keep));
}

static enum err closed(struct retention *r, uint64_t job, uint32_t round)
{
	struct round_row row;
	TRY(db_round_get(r->config.db, job, round, &row));
	enum round_phase phase = row.state.phase;
	round_row_deinit(&row);
	return phase == ROUND_COMMITTED ? committed(r, job) : remove_updates(r, job, round);
}

void retention_closed(struct retention *r, uint64_t job, uint32_t round)
{
	if (closed(r, job, round) != ERR_OK)
		log_warn("retention", "after job %" PRIu64 " round %" PRIu32 ": %s; the next start looks again", job,
			 round, err_text());
}

void retention_sweep(struct retention *r)
{
	if (store_each(r->config.store, consider, r) != ERR_OK)
		log_warn("retention", "looking for old models: %s", err_text());
}

enum err retention_explain(struct db *db, const struct digest *model)
{
	char text[DIGEST_TEXT_SIZE];
	struct db_model_use *uses;
	size_t n;
	bool pinned;
	TRY(db_keep_uses(db, model, &pinned, &uses, &n));
	bool gone = n > 0 && !pinned;
	for (size_t i = 0; i < n; i++)
		gone &= is_over(uses[i].phase);
	free(uses);
	return gone ? err_set(ERR_NOT_FOUND,
			      "model %s was removed: keep_models of its job says of how many rounds models are kept",
			      digest_format(model, text))
		    : ERR_OK;
}
