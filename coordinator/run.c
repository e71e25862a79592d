#include "coordinator/run.h"

#include "base/log.h"
#include "base/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The names of a cohort, one after another. */
static bool next_name(struct bytes *cohort, char out[WIRE_NAME_SIZE])
{
	const uint8_t *end = cohort->n > 0 ? memchr(cohort->p, '\n', cohort->n) : NULL;
	size_t n = end != NULL ? (size_t)(end - cohort->p) : 0;
	if (end == NULL || n >= WIRE_NAME_SIZE)
		return false;
	memcpy(out, cohort->p, n);
	out[n] = '\0';
	*cohort = bytes_of(end + 1, cohort->n - n - 1);
	return true;
}

static void seat_all(struct run *r, struct bytes cohort)
{
	size_t lines = 0;
	for (size_t i = 0; i < cohort.n; i++)
		lines += cohort.p[i] == '\n';
	r->seats = mem_array(lines, sizeof *r->seats);
	while (r->n_seats < lines && next_name(&cohort, r->seats[r->n_seats].plant))
		r->n_seats++;
}

struct run *run_new(const struct job_row *j, struct plan *plan, struct bytes cohort)
{
	struct run *r = mem_new(sizeof *r);
	r->id = j->id;
	snprintf(r->name, sizeof r->name, "%s", j->name);
	r->plan = plan_share(plan);
	r->source = j->source;
	r->source_size = j->source_size;
	r->created_ms = j->created_ms;
	r->model = j->model;
	r->model_size = j->model_size;
	r->model_round = j->model_round;
	r->committed = j->committed;
	r->failures = j->failures;
	r->ends = j->ends;
	r->users = 1;
	r->version = 1;
	if (run_carries(r))
		r->past = mem_array((size_t)plan->config.late_max + 1, sizeof *r->past);
	seat_all(r, cohort);
	return r;
}

void run_free(struct run *r)
{
	if (r == NULL)
		return;
	plan_release(r->plan);
	blob_release(r->base_copy);
	free(r->past);
	free(r->seats);
	free(r);
}

struct seat *run_seat(const struct run *r, const char *plant)
{
	size_t low = 0, high = r->n_seats;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int order = strcmp(plant, r->seats[middle].plant);
		if (order == 0)
			return &r->seats[middle];
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return NULL;
}

/* ---- bases, late updates ---- */

bool run_carries(const struct run *r)
{
	return r->plan->config.late == JOB_LATE_CARRY;
}

static struct run_base *past_place(const struct run *r, uint32_t round)
{
	return &r->past[round % ((uint32_t)r->plan->config.late_max + 1)];
}

static void remember_base(struct run *r, uint32_t round, const struct digest *base)
{
	if (r->past != NULL)
		*past_place(r, round) = (struct run_base){.round = round, .base = *base};
}

const struct digest *run_base(const struct run *r, uint32_t round)
{
	if (round == r->round.number)
		return &r->base;
	const struct run_base *b = r->past != NULL ? past_place(r, round) : NULL;
	return b != NULL && round != 0 && b->round == round ? &b->base : NULL;
}

uint32_t run_flowing(const struct run *r, int64_t monotonic_ms, int64_t *wait_ms)
{
	uint32_t n = 0;
	for (size_t i = 0; i < r->n_seats; i++) {
		const struct seat *s = &r->seats[i];
		int64_t left = s->working ? RUN_FLOW_MS : s->progress_ms + RUN_FLOW_MS - monotonic_ms;
		bool ours = s->upload_round == r->round.number || run_carries(r);
		if (!s->uploading || !s->invited || s->accepted || !ours || left <= 0)
			continue;
		*wait_ms = left < *wait_ms ? left : *wait_ms;
		n++;
	}
	return n;
}

void run_open_round(struct run *r, const struct round_row *row, struct blob *base_copy)
{
	char name[WIRE_NAME_SIZE];
	struct bytes cohort = buf_bytes(&row->cohort);
	for (size_t i = 0; i < r->n_seats; i++) {
		struct seat *s = &r->seats[i];
		s->invited = s->accepted = false; /* `uploading` ends with its stream, whichever round that is for */
	}
	while (next_name(&cohort, name)) {
		struct seat *s = run_seat(r, name);
		if (s != NULL)
			s->invited = true;
	}
	r->round = row->state;
	r->base = row->base;
	r->base_size = row->base_size;
	remember_base(r, row->state.number, &row->base);
	blob_release(r->base_copy);
	r->base_copy = base_copy;
	r->next_model = row->model;
	r->next_model_size = row->model_size;
	r->bytes_up = row->bytes_up;
	r->bytes_down = row->bytes_down;
	r->closing = false;
	r->todo = ROUND_NOTHING;
	r->failed_tries = 0;
	r->retry_at_ms = 0;
	r->trouble[0] = '\0';
}

struct digest run_seal(const struct run *r)
{
	struct digester *d = digest_begin();
	for (size_t i = 0; i < r->n_seats; i++) {
		const struct seat *s = &r->seats[i];
		char text[DIGEST_TEXT_SIZE];
		if (!s->accepted)
			continue;
		char late[16] = "";
		if (s->base_round != r->round.number)
			snprintf(late, sizeof late, " %lu", (unsigned long)s->base_round);
		char *line = mem_printf("%s %s %llu%s\n", s->plant, digest_format(&s->digest, text),
					(unsigned long long)s->samples, late);
		digest_add(d, line, strlen(line));
		free(line);
	}
	return digest_end(d);
}

/* ---- loading ---- */

static bool has_bytes(const struct spool *spool, const struct update_row *u)
{
	char path[PATH_SIZE];
	uint64_t size;
	const struct spool_key key = {.job = u->job, .round = u->base_round, .plant = u->plant};
	if (u->place < 0)
		return file_size(spool_path(spool, &key, path), &size) == ERR_OK && size == u->size;
	return file_size(spool_batch_path(spool, u->job, u->round, path), &size) == ERR_OK &&
	       (uint64_t)u->place <= size && u->size <= size - (uint64_t)u->place;
}

/* A row without its bytes: left by a damaged disk. What there is in their place is swept when all is loaded. */
static enum err strike_off(struct db *db, struct run *r, const struct update_row *u)
{
	log_warn("round", "job=%llu round=%lu: the update of %s is not in the spool; it has to be sent again",
		 (unsigned long long)u->job, (unsigned long)u->round, u->plant);
	TRY(db_update_drop(db, u));
	r->round.accepted--;
	r->bytes_up -= u->size;
	return ERR_OK;
}

static enum err seat_updates(struct db *db, const struct spool *spool, struct run *r)
{
	struct update_row *updates;
	size_t n;
	enum err err = ERR_OK;
	TRY(db_update_list(db, r->id, r->round.number, &updates, &n));
	for (size_t i = 0; err == ERR_OK && i < n; i++) {
		const struct update_row *u = &updates[i];
		struct seat *s = run_seat(r, u->plant);
		if (s == NULL || !s->invited) {
			err = err_set(ERR_CORRUPT, "round %lu has an update of %s, which is not in its cohort",
				      (unsigned long)r->round.number, u->plant);
			break;
		}
		if (r->round.phase == ROUND_OPEN && !has_bytes(spool, u)) {
			err = strike_off(db, r, u);
			continue;
		}
		s->accepted = true;
		s->digest = u->digest;
		s->samples = u->samples;
		s->time_ms = u->time_ms;
		s->base_round = u->base_round;
		s->place = u->place;
		s->verified = false;
	}
	free(updates);
	return err;
}

static enum err check_round(const struct run *r, const struct round_row *row)
{
	size_t invited = 0;
	for (size_t i = 0; i < r->n_seats; i++)
		invited += r->seats[i].invited;
	if (invited != row->state.cohort)
		return err_set(ERR_CORRUPT, "round %lu was opened for plants that are not in the job",
			       (unsigned long)row->state.number);
	if (row->state.phase == ROUND_COMMITTED || row->state.phase == ROUND_ABANDONED)
		return err_set(ERR_CORRUPT, "round %lu is over and no other follows", (unsigned long)row->state.number);
	struct digest seal = run_seal(r);
	if (row->state.phase != ROUND_OPEN && !digest_equal(&seal, &row->seal))
		return err_set(ERR_CORRUPT, "round %lu: the updates are not those that were sealed",
			       (unsigned long)row->state.number);
	return ERR_OK;
}

static enum err load_round(struct db *db, const struct spool *spool, struct run *r, uint32_t number)
{
	struct round_row row;
	enum err err = db_round_get(db, r->id, number, &row);
	if (err == ERR_NOT_FOUND)
		return err_add(ERR_CORRUPT, "its last round");
	TRY(err);
	run_open_round(r, &row, NULL);
	err = seat_updates(db, spool, r);
	if (err == ERR_OK)
		err = check_round(r, &row);
	round_row_deinit(&row);
	return err;
}

/* Of the rounds before the last that a late update may be made from. */
static enum err load_bases(struct db *db, struct run *r, uint32_t last)
{
	uint32_t n = r->past != NULL ? (uint32_t)r->plan->config.late_max : 0;
	for (uint32_t round = last > n ? last - n : 1; n > 0 && round <= last; round++) {
		struct round_row row;
		enum err err = db_round_get(db, r->id, round, &row);
		if (err == ERR_NOT_FOUND)
			return err_add(ERR_CORRUPT, "an earlier round");
		TRY(err);
		remember_base(r, round, &row.base);
		round_row_deinit(&row);
	}
	return ERR_OK;
}

enum err run_take_up(struct db *db, const struct job_row *j, struct run **ret_run)
{
	struct plan *plan = NULL;
	struct buf cohort = {0};
	TRY(plan_load(buf_bytes(&j->config), &j->config_hash, buf_bytes(&j->manifest), &plan));
	enum err err = db_job_cohort(db, j->id, &cohort);
	if (err != ERR_OK) {
		plan_release(plan);
		return err;
	}
	struct run *r = run_new(j, plan, buf_bytes(&cohort));
	plan_release(plan);
	buf_deinit(&cohort);
	r->round.number = j->round;
	err = load_bases(db, r, j->round);
	if (err != ERR_OK) {
		run_free(r);
		return err;
	}
	*ret_run = r;
	return ERR_OK;
}

enum err run_load(struct db *db, const struct spool *spool, uint64_t id, struct run **ret_run)
{
	struct job_row j;
	struct run *r = NULL;
	TRY(db_job_get(db, id, &j));
	enum err err = run_take_up(db, &j, &r);
	if (err == ERR_OK)
		err = load_round(db, spool, r, j.round);
	job_row_deinit(&j);
	if (err != ERR_OK) {
		run_free(r);
		return err;
	}
	*ret_run = r;
	return ERR_OK;
}

/* ---- going on ---- */

static int by_number(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;
	return (*x > *y) - (*x < *y);
}

/* Of n seats those that are asked in round `number`, in order. The first k of a shuffle: each set of k is as likely as any other. */
static size_t draw(const struct job_config *c, uint32_t number, uint32_t *seats, size_t n)
{
	struct rng rng;
	if (c->cohort == 0 || (size_t)c->cohort >= n)
		return n;
	rng_stream(&rng, (uint64_t)c->seed, "cohort", number);
	rng_shuffle(&rng, seats, n);
	qsort(seats, (size_t)c->cohort, sizeof *seats, by_number);
	return (size_t)c->cohort;
}

static enum err choose_plants(const struct run *r, struct registry *registry, struct round_row *row)
{
	uint32_t *seats = mem_array(r->n_seats, sizeof *seats);
	size_t n = 0;
	enum err err = ERR_OK;
	for (size_t i = 0; i < r->n_seats; i++) {
		if (registry_is_enrolled(registry, ROLE_PLANT, r->seats[i].plant))
			seats[n++] = (uint32_t)i;
	}
	n = draw(&r->plan->config, row->state.number, seats, n);
	for (size_t i = 0; err == ERR_OK && i < n; i++)
		err = buf_printf(&row->cohort, "%s\n", r->seats[seats[i]].plant);
	free(seats);
	row->state.cohort = (uint32_t)n;
	return err;
}

enum err run_next_round(const struct run *r, struct registry *registry, const struct digest *base, uint64_t base_size,
			int64_t now_ms, struct round_row *ret_round)
{
	const struct job_config *c = &r->plan->config;
	struct round_row row = {
		.job = r->id,
		.state = {.number = r->round.number + 1,
			  .quorum = (uint32_t)c->quorum,
			  .opened_ms = now_ms,
			  .deadline_ms = now_ms + c->deadline,
			  .grace_ms = c->grace},
		.base = *base,
		.base_size = base_size,
	};
	buf_init(&row.cohort, r->n_seats * WIRE_NAME_SIZE);
	enum err err = choose_plants(r, registry, &row);
	if (err == ERR_OK && row.state.cohort < row.state.quorum)
		err = err_set(ERR_STATE, "only %lu of the job's plants are still enrolled; the quorum is %lu",
			      (unsigned long)row.state.cohort, (unsigned long)row.state.quorum);
	if (err != ERR_OK) {
		round_row_deinit(&row);
		return err;
	}
	bool smaller = c->goal != 0 && c->goal < (int64_t)row.state.cohort;
	row.state.goal = smaller ? (uint32_t)c->goal : row.state.cohort;
	*ret_round = row;
	return ERR_OK;
}

void run_show(const struct run *r, struct wire_job *ret_job, struct wire_round *ret_round)
{
	*ret_job = (struct wire_job){
		.job = r->id,
		.state = WIRE_JOB_RUNNING,
		.round = r->round.number,
		.rounds = (uint32_t)r->plan->config.rounds,
		.source = r->source,
		.model = r->model,
		.model_size = r->model_size,
		.created_ms = (uint64_t)r->created_ms,
	};
	snprintf(ret_job->name, sizeof ret_job->name, "%s", r->name);
	memcpy(ret_job->trouble, r->trouble, sizeof ret_job->trouble);
	*ret_round = (struct wire_round){
		.round = r->round.number,
		.cohort = r->round.cohort,
		.goal = r->round.goal,
		.accepted = r->round.accepted,
		.opened_ms = (uint64_t)r->round.opened_ms,
		.deadline_ms = (uint64_t)r->round.deadline_ms,
		.bytes_up = r->bytes_up,
		.bytes_down = r->bytes_down,
		.base = r->base,
		.model = r->next_model,
	};
	snprintf(ret_round->phase, sizeof ret_round->phase, "%s", round_phase_name(r->round.phase));
}
