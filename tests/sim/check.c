/*
 * The invariants. The oracle looks at the database through a connection of its own, so it sees what is committed and nothing else, whenever
 * that has changed; every change must be a step that the protocol knows, with the values that the oracle computes for itself.
 */
#include "sim/sim.h"

#include "coordinator/db_schema.h"
#include "coordinator/engine_parts.h"
#include "ml/safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILES_EVERY = 128, LEARN_MS = 300000 };

void check_error(struct sim *s, const char *invariant, const char *what, enum err got, errors right)
{
	static const char *const names[ERR_COUNT] = {
		[ERR_MALFORMED] = "refused: malformed",
		[ERR_DENIED] = "refused: denied",
		[ERR_NOT_FOUND] = "refused: not found",
		[ERR_STALE] = "refused: stale",
		[ERR_DUPLICATE] = "refused: duplicate",
		[ERR_LIMIT] = "refused: limit",
		[ERR_SHAPE] = "refused: shape",
		[ERR_NUMERIC] = "refused: numeric",
		[ERR_UNAVAILABLE] = "refused: unavailable",
	};
	for (size_t i = 0; i < ERR_COUNT; i++) {
		if (names[i] != NULL)
			cover_expect(names[i]);
	}
	if (names[got] != NULL)
		cover(names[got]);
	/* The disk has failed under this call. */
	if (got == ERR_UNAVAILABLE && host_failed(s))
		return;
	if ((right & ONLY(got)) != 0)
		return;
	const char *text = got != ERR_OK ? err_text() : "";
	for (size_t i = 0; i < ERR_COUNT; i++) {
		if ((right & ONLY(i)) != 0)
			sim_violated(s, invariant, "%s: %s (%s) instead of %s", what, err_name(got), text,
				     err_name((enum err)i));
	}
}

/* ---- what the database says ---- */

struct job_view {
	uint64_t id;
	enum wire_job_state state;
	uint32_t round, committed, failures, counted;
	struct digest model;
	enum round_phase phase;
};
struct round_view {
	enum round_phase phase;
	struct digest base, seal, model;
	uint32_t plants, quorum, counted;
	int64_t opened_ms, deadline_ms;
	struct buf cohort; /* owned */
};

static bool looked(struct sim *s, struct query *q)
{
	if (sql_end(q) == ERR_OK)
		return true;
	sim_violated(s, "the database can be read", "%s", err_text());
	return false;
}

static enum wire_job_state state_of(const char *text)
{
	int state = WIRE_JOB_STATE_COUNT - 1;
	while (state > 0 && strcmp(wire_job_state_name((enum wire_job_state)state), text) != 0)
		state--;
	return (enum wire_job_state)state;
}

static enum round_phase phase_of(struct sim *s, const char *text)
{
	enum round_phase phase = ROUND_ABANDONED;
	if (round_phase_parse(text, &phase) != ERR_OK)
		sim_violated(s, "the database can be read", "%s", err_text());
	return phase;
}

static size_t view_jobs(struct sim *s, struct job_view out[SIM_JOBS_MAX + 1])
{
	size_t n = 0;
	struct query *q =
		sql_query(s->host.eye,
			  "SELECT j.id, j.state, j.round, j.committed, j.failures, j.model, r.phase, (SELECT count(*) "
			  "FROM contribution c WHERE c.job = j.id AND c.round = j.round) "
			  "FROM job j JOIN round r ON r.job = j.id AND r.number = j.round ORDER BY j.id");
	while (sql_next(q) && n <= SIM_JOBS_MAX) {
		out[n++] = (struct job_view){
			.id = (uint64_t)sql_int(q, 0),
			.state = state_of(sql_text(q, 1)),
			.round = (uint32_t)sql_int(q, 2),
			.committed = (uint32_t)sql_int(q, 3),
			.failures = (uint32_t)sql_int(q, 4),
			.model = db_digest(q, 5),
			.phase = phase_of(s, sql_text(q, 6)),
			.counted = (uint32_t)sql_int(q, 7),
		};
	}
	return looked(s, q) ? n : 0;
}

static bool view_round(struct sim *s, uint64_t job, uint32_t number, struct round_view *out)
{
	struct query *q = sql_query(
		s->host.eye, "SELECT phase, base, seal, model, plants, quorum, opened_ms, deadline_ms, cohort, "
			     "(SELECT count(*) FROM contribution c WHERE c.job = round.job AND c.round = number) "
			     "FROM round WHERE job = ? AND number = ?");
	sql_bind_int(q, (int64_t)job);
	sql_bind_int(q, number);
	bool found = sql_next(q);
	if (found) {
		*out = (struct round_view){
			.phase = phase_of(s, sql_text(q, 0)),
			.base = db_digest(q, 1),
			.seal = db_digest(q, 2),
			.model = db_digest(q, 3),
			.plants = (uint32_t)sql_int(q, 4),
			.quorum = (uint32_t)sql_int(q, 5),
			.opened_ms = sql_int(q, 6),
			.deadline_ms = sql_int(q, 7),
			.counted = (uint32_t)sql_int(q, 9),
		};
		db_buf(q, 8, DB_COHORT_MAX, &out->cohort);
	}
	if (!looked(s, q))
		return false;
	if (!found)
		sim_violated(s, "rounds stay", "job %" PRIu64 " has no round %u", job, number);
	return found;
}

/* Row by row: what counts is what the oracle has seen accepted. */
static void check_rows(struct sim *s, const struct book_job *j, uint32_t number)
{
	const struct book_round *r = &j->rounds[number];
	struct update_row *rows;
	size_t n, k = 0;
	struct db eye = {.sql = s->host.eye};
	if (db_update_list(&eye, j->id, number, &rows, &n) != ERR_OK) {
		sim_violated(s, "the database can be read", "%s", err_text());
		return;
	}
	for (uint32_t who = 0; who < s->n_plants; who++) {
		const struct book_update *u = &r->updates[who];
		if (!u->counted)
			continue;
		const struct update_row *row = k < n ? &rows[k++] : NULL;
		if (row == NULL || strcmp(row->plant, s->plants[who].name) != 0 ||
		    !digest_equal(&row->digest, &u->digest) || row->samples != u->samples || row->size != u->n ||
		    row->time_ms != u->time_ms)
			sim_violated(s, "no acknowledged update is lost", "job %" PRIu64 " round %u: that of %s", j->id,
				     number, s->plants[who].name);
		if (!r->invited[who])
			sim_violated(s, "none counts from outside the cohort", "job %" PRIu64 " round %u: %s", j->id,
				     number, s->plants[who].name);
	}
	if (k != n && s->violated == NULL)
		sim_violated(s, "nothing else counts", "job %" PRIu64 " round %u: %zu rows instead of %zu", j->id,
			     number, n, k);
	free(rows);
}

/* ---- a round goes on ---- */

static void check_seal(struct sim *s, const struct book_job *j, uint32_t number, const struct round_view *v)
{
	const struct book_round *r = &j->rounds[number];
	bool doubt;
	if (r->counted < r->quorum || v->counted < r->quorum)
		sim_violated(s, "a round is sealed with a quorum", "job %" PRIu64 " round %u: %u of %u", j->id, number,
			     v->counted, r->quorum);
	if (!book_is_full(s, j, &doubt) && sim_wall(s) < r->deadline_ms)
		sim_violated(s, "a round is not sealed early",
			     "job %" PRIu64 " round %u: %u updates, %" PRId64 " ms before its deadline", j->id, number,
			     r->counted, r->deadline_ms - sim_wall(s));
	struct digest seal = sums_seal(s, r);
	if (!digest_equal(&seal, &v->seal))
		sim_violated(s, "the seal is of what counts", "job %" PRIu64 " round %u", j->id, number);
	check_rows(s, j, number);
	cover(r->counted < r->cohort ? "a round with some of its plants" : "a round with all of its plants");
}

static bool read_model(struct sim *s, const struct digest *d, struct model **ret_model)
{
	char path[PATH_SIZE];
	struct digest got;
	store_path(s->host.store, d, path);
	if (digest_file(path, &got, NULL) == ERR_OK && digest_equal(&got, d) &&
	    safetensors_load(path, ret_model) == ERR_OK)
		return true;
	sim_violated(s, "a model is durable before its name is", "%s: %s", path, err_text());
	return false;
}

static void check_model(struct sim *s, struct book_job *j, uint32_t number, const struct round_view *v)
{
	size_t n = j->manifest->n_theta;
	float *expected = mem_array(n, sizeof *expected);
	struct model *made;
	sums_model(s, j, &j->rounds[number], expected);
	if (read_model(s, &v->model, &made)) {
		if (made->n_theta != n || memcmp(made->theta, expected, n * sizeof *expected) != 0)
			sim_violated(s, "the model is that of the sealed updates", "job %" PRIu64 " round %u", j->id,
				     number);
		model_free(made);
		book_add_model(s, &v->model, expected);
	}
	free(expected);
}

static void check_abandoned(struct sim *s, struct book_job *j, uint32_t number)
{
	const struct book_round *r = &j->rounds[number];
	bool late = r->phase == ROUND_OPEN && sim_wall(s) >= r->deadline_ms && r->counted < r->quorum;
	/* A stopped job does not wait for a disk. */
	bool stopped = j->stop_asked && (r->phase == ROUND_OPEN || s->host.dirty);
	if (!late && !stopped)
		sim_violated(s, "a round is not given up early", "job %" PRIu64 " round %u: %u of %u updates", j->id,
			     number, r->counted, r->quorum);
	j->failures = j->stop_asked ? 0 : j->failures + 1;
	cover("a round that is abandoned");
}

static const bool possible[ROUND_PHASE_COUNT][ROUND_PHASE_COUNT] = {
	[ROUND_OPEN] = {[ROUND_OPEN] = true, [ROUND_SEALED] = true, [ROUND_ABANDONED] = true},
	[ROUND_SEALED] = {[ROUND_SEALED] = true, [ROUND_AGGREGATED] = true, [ROUND_ABANDONED] = true},
	[ROUND_AGGREGATED] = {[ROUND_AGGREGATED] = true, [ROUND_COMMITTED] = true},
	[ROUND_COMMITTED] = {[ROUND_COMMITTED] = true},
	[ROUND_ABANDONED] = {[ROUND_ABANDONED] = true},
};

static void advance(struct sim *s, struct book_job *j, uint32_t number, const struct round_view *v)
{
	struct book_round *r = &j->rounds[number];
	if (!possible[r->phase][v->phase])
		sim_violated(s, "phases go forward, one by one", "job %" PRIu64 " round %u: %s, then %s", j->id, number,
			     round_phase_name(r->phase), round_phase_name(v->phase));
	if (v->counted != r->counted)
		sim_violated(s, "what counts is what was accepted", "job %" PRIu64 " round %u: %u rows instead of %u",
			     j->id, number, v->counted, r->counted);
	if (r->phase >= ROUND_SEALED && !digest_equal(&v->seal, &r->seal))
		sim_violated(s, "a sealed set does not change", "job %" PRIu64 " round %u", j->id, number);
	if (v->phase == r->phase || s->violated != NULL)
		return;
	sim_say(s, "job %" PRIu64 " round %u: %s with %u of %u", j->id, number, round_phase_name(v->phase), r->counted,
		r->cohort);
	cover(round_phase_name(v->phase));
	chaos_ambush(s, j->id);
	if (v->phase == ROUND_SEALED)
		check_seal(s, j, number, v);
	else if (v->phase == ROUND_AGGREGATED)
		check_model(s, j, number, v);
	else if (v->phase == ROUND_ABANDONED)
		check_abandoned(s, j, number);
	if (v->phase == ROUND_COMMITTED) {
		j->committed++;
		j->failures = 0;
	}
	r->phase = v->phase;
	r->seal = v->seal;
	r->model = v->model;
}

static void look_at_round(struct sim *s, struct book_job *j, uint32_t number)
{
	struct round_view v;
	if (!view_round(s, j->id, number, &v))
		return;
	advance(s, j, number, &v);
	buf_deinit(&v.cohort);
}

static void check_cohort(struct sim *s, const struct book_job *j, uint32_t number, const struct round_view *v)
{
	const struct book_round *r = &j->rounds[number];
	struct buf expected;
	buf_init(&expected, DB_COHORT_MAX);
	for (uint32_t i = 0; i < s->n_plants; i++) {
		if (r->invited[i])
			ENSURE(buf_printf(&expected, "%s\n", s->plants[i].name) == ERR_OK);
	}
	if (v->plants != r->cohort || v->cohort.n != expected.n ||
	    memcmp(buf_str(&v->cohort), buf_str(&expected), expected.n) != 0)
		sim_violated(s, "the cohort is the job's enrolled plants", "job %" PRIu64 " round %u: %u instead of %u",
			     j->id, number, v->plants, r->cohort);
	buf_deinit(&expected);
}

static void open_round(struct sim *s, struct book_job *j, uint32_t number)
{
	struct round_view v;
	if (!view_round(s, j->id, number, &v))
		return;
	const struct book_round *old = number > 1 ? &j->rounds[number - 1] : NULL;
	const struct digest *base = old == NULL ? &j->source : old->phase == ROUND_COMMITTED ? &old->model : &old->base;
	if (!digest_equal(&v.base, base))
		sim_violated(s, "a round begins where the last one ended", "job %" PRIu64 " round %u", j->id, number);
	if (v.quorum != (uint32_t)j->config.quorum || v.deadline_ms - v.opened_ms != j->config.deadline ||
	    v.opened_ms != sim_wall(s))
		sim_violated(s, "a round is as its job says", "job %" PRIu64 " round %u", j->id, number);
	if (j->stop_asked || j->failures >= j->config.failures_max || j->committed >= j->config.rounds)
		sim_violated(s, "a job that is over opens no round", "job %" PRIu64 " round %u", j->id, number);
	book_open_round(s, j, number);
	struct book_round *r = &j->rounds[number];
	r->base = v.base;
	r->quorum = v.quorum;
	r->opened_ms = v.opened_ms;
	r->deadline_ms = v.deadline_ms;
	sim_say(s, "job %" PRIu64 " round %u: open for %u plants, quorum %u", j->id, number, r->cohort, r->quorum);
	check_cohort(s, j, number, &v);
	advance(s, j, number, &v);
	buf_deinit(&v.cohort);
}

static uint32_t job_enrolled(const struct sim *s, const struct book_job *j)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < s->n_plants; i++)
		n += j->cohort[i] && s->plants[i].enrolled;
	return n;
}

static void end_job(struct sim *s, struct book_job *j, enum wire_job_state state)
{
	bool right = false;
	if (state == WIRE_JOB_DONE)
		right = j->committed == (uint32_t)j->config.rounds;
	else if (state == WIRE_JOB_STOPPED)
		right = j->stop_asked;
	else if (state == WIRE_JOB_FAILED)
		right = j->failures >= j->config.failures_max || job_enrolled(s, j) < j->config.quorum;
	if (!right || j->rounds[j->round].phase < ROUND_COMMITTED)
		sim_violated(s, "a job ends for a reason",
			     "job %" PRIu64 ": %s with %u rounds committed, %u failed, %s", j->id,
			     wire_job_state_name(state), j->committed, j->failures,
			     round_phase_name(j->rounds[j->round].phase));
	sim_say(s, "job %" PRIu64 ": %s", j->id, wire_job_state_name(state));
	cover(wire_job_state_name(state));
	j->state = state;
}

static void look_at_job(struct sim *s, const struct job_view *v)
{
	if (v->id > s->book.n_jobs) {
		if (s->starting == NULL || v->id != s->book.n_jobs + 1) {
			sim_violated(s, "jobs come from operators", "job %" PRIu64, v->id);
			return;
		}
		book_start(s, v->id, s->starting);
	}
	struct book_job *j = s->book.jobs[v->id];
	while (s->violated == NULL && j->round < v->round) {
		if (j->round > 0)
			look_at_round(s, j, j->round);
		if (j->round > 0 && j->rounds[j->round].phase < ROUND_COMMITTED)
			sim_violated(s, "one round after another", "job %" PRIu64 " round %u", j->id, j->round);
		if (s->violated == NULL)
			open_round(s, j, j->round + 1);
	}
	if (s->violated != NULL)
		return;
	if (v->phase != j->rounds[j->round].phase || v->counted != j->rounds[j->round].counted)
		look_at_round(s, j, j->round);
	if (s->violated == NULL && v->state != j->state)
		end_job(s, j, v->state);
	const struct book_round *last = &j->rounds[j->round];
	bool current = last->phase != ROUND_COMMITTED || digest_equal(&v->model, &last->model);
	if (s->violated == NULL && (v->committed != j->committed || v->failures != j->failures || !current))
		sim_violated(s, "a job counts its rounds", "job %" PRIu64 ": %u committed, %u failed instead of %u, %u",
			     j->id, v->committed, v->failures, j->committed, j->failures);
}

void check_database(struct sim *s)
{
	struct job_view views[SIM_JOBS_MAX + 1];
	struct query *q = sql_query(s->host.eye, "PRAGMA data_version");
	int64_t version = sql_next(q) ? sql_int(q, 0) : 0;
	if (!looked(s, q) || version == s->host.data_version)
		return;
	s->host.data_version = version;
	size_t n = view_jobs(s, views);
	for (size_t i = 0; i < n && s->violated == NULL; i++)
		look_at_job(s, &views[i]);
	if (s->violated == NULL && n != s->book.n_jobs)
		sim_violated(s, "jobs stay", "%zu instead of %zu", n, s->book.n_jobs);
}

/* ---- the spool ---- */

struct spool_look {
	struct sim *s;
	size_t parts;
};

static enum err look_at_file(void *arg, const char *name)
{
	struct spool_look *look = arg;
	struct sim *s = look->s;
	unsigned long long job = 0;
	unsigned long round = 0;
	char plant[64] = "";
	if (strstr(name, ".part") != NULL) {
		look->parts++;
		return ERR_OK;
	}
	if (sscanf(name, "%llu-%lu-%63[^.]", &job, &round, plant) != 3) {
		sim_violated(s, "the spool holds updates", "%s", name);
		return ERR_OK;
	}
	const struct book_job *j = book_job(s, job);
	uint32_t who = 0;
	while (who < s->n_plants && strcmp(s->plants[who].name, plant) != 0)
		who++;
	bool present = j != NULL && j->state == WIRE_JOB_RUNNING && j->round == round && who < s->n_plants;
	if (!present || !j->rounds[round].updates[who].counted)
		sim_violated(s, "nothing stays in the spool that does not count", "%s", name);
	return ERR_OK;
}

/* Where the disk has failed files may have stayed, until the next start. */
static void check_files(struct sim *s)
{
	char path[PATH_SIZE];
	struct spool_look look = {.s = s};
	if (s->host.dirty)
		return;
	if (dir_each(path_join(path, s->host.dir, "spool"), look_at_file, &look) != ERR_OK)
		sim_violated(s, "the spool can be read", "%s", err_text());
	if (look.parts > net_open_uploads(s))
		sim_violated(s, "nothing stays in the spool that does not count", "%zu parts of %zu uploads",
			     look.parts, net_open_uploads(s));
}

/* ---- memory ---- */

static void check_memory(struct sim *s)
{
	size_t running = 0;
	for (size_t i = 1; i <= s->book.n_jobs; i++)
		running += s->book.jobs[i]->state == WIRE_JOB_RUNNING;
	if (s->host.engine->lobby.n != s->n_open || s->n_open > 2 * (size_t)s->n_plants + 4)
		sim_violated(s, "who waits is who has asked", "%zu in the lobby, %zu calls", s->host.engine->lobby.n,
			     s->n_open);
	if (s->host.engine->n_runs != running)
		sim_violated(s, "what runs is what is running", "%zu runs, %zu jobs", s->host.engine->n_runs, running);
}

/* ---- when nothing is to be done ---- */

static void check_idle_job(struct sim *s, const struct book_job *j, int64_t wait_ms)
{
	const struct book_round *r = &j->rounds[j->round];
	int64_t left = r->deadline_ms - sim_wall(s);
	bool doubt;
	if (r->phase != ROUND_OPEN)
		sim_violated(s, "a sealed round goes on", "job %" PRIu64 " round %u is %s", j->id, j->round,
			     round_phase_name(r->phase));
	else if (left <= 0 || wait_ms > left)
		sim_violated(s, "no round waits beyond its deadline",
			     "job %" PRIu64 " round %u: %" PRId64 " ms left, "
			     "sleeping for %" PRId64,
			     j->id, j->round, left, wait_ms);
	else if (j->stop_asked)
		sim_violated(s, "a stopped job ends", "job %" PRIu64, j->id);
	else if (book_is_full(s, j, &doubt) && !doubt)
		sim_violated(s, "a full round is sealed", "job %" PRIu64 " round %u", j->id, j->round);
}

/* Somebody waits: is there nothing for it? A wall clock that has gone back since may have opened what had been passed over. */
static void check_idle_call(struct sim *s, const struct call *c)
{
	if (s->now - c->since_ms >= SIM_HOLD_MS)
		sim_violated(s, "no call waits too long", "%s: %" PRId64 " ms",
			     c->who == SIM_NOBODY ? "admin" : s->plants[c->who].name, s->now - c->since_ms);
	if (c->who == SIM_NOBODY || c->since_ms <= s->skewed_ms)
		return;
	const struct book_job *next = book_job_after(s, c->who, c->seen);
	if (next != NULL && next->state != WIRE_JOB_RUNNING)
		sim_violated(s, "who waits hears of ends", "%s: job %" PRIu64, s->plants[c->who].name, next->id);
	for (size_t i = 1; i <= s->book.n_jobs; i++) {
		if (book_has_task(s, s->book.jobs[i], c->who, true))
			sim_violated(s, "nobody waits while there is a task", "%s: job %zu", s->plants[c->who].name, i);
	}
}

void check_idle(struct sim *s, int64_t wait_ms)
{
	check_database(s);
	for (size_t i = 1; i <= s->book.n_jobs && !host_retries(s); i++) {
		if (s->book.jobs[i]->state == WIRE_JOB_RUNNING)
			check_idle_job(s, s->book.jobs[i], wait_ms);
	}
	for (size_t i = 0; i < s->n_open; i++)
		check_idle_call(s, s->open[i]);
}

/* ---- answers ---- */

static void check_task(struct sim *s, const struct call *c, const struct wire_task *t)
{
	const struct book_job *j = book_job(s, t->job);
	const char *name = s->plants[c->who].name;
	if (t->kind == WIRE_TASK_TRAIN) {
		const struct book_round *r = j != NULL ? &j->rounds[j->round] : NULL;
		if (j == NULL || !book_has_task(s, j, c->who, false) || t->round != j->round ||
		    !digest_equal(&t->base, &r->base) || !digest_equal(&t->source, &j->source) ||
		    (int64_t)t->deadline_in_ms != r->deadline_ms - sim_wall(s))
			sim_violated(s, "a task is of an open round", "%s: job %" PRIu64 " round %u", name, t->job,
				     t->round);
		cover("a task: train");
	} else if (t->kind == WIRE_TASK_FINISHED) {
		const struct book_job *next = book_job_after(s, c->who, c->seen);
		if (j == NULL || j != next || j->state == WIRE_JOB_RUNNING || j->state != t->job_state)
			sim_violated(s, "ends are told in their order",
				     "%s has seen %" PRIu64 " and is told of %" PRIu64, name, c->seen, t->job);
		cover("a task: finished");
	} else {
		cover("a task: wait");
	}
}

void check_answer(struct sim *s, const struct call *c, const struct answer *a)
{
	check_database(s);
	if (s->violated != NULL)
		return;
	if (a->code == ERR_UNAVAILABLE || (a->code == ERR_DENIED && !a->watches && !s->plants[c->who].enrolled))
		return;
	if (a->watches) {
		const struct book_job *j = book_job(s, c->job);
		if ((j == NULL) != (a->code == ERR_NOT_FOUND) ||
		    (j != NULL && (a->code != ERR_OK || a->watched.job != j->id || a->state != j->state)))
			sim_violated(s, "watchers see what is", "job %" PRIu64 ": %s", c->job, err_name(a->code));
		return;
	}
	if (a->code != ERR_OK)
		sim_violated(s, "who asks for a task gets an answer", "%s: %s", s->plants[c->who].name,
			     err_name(a->code));
	else
		check_task(s, c, &a->task);
}

/* ---- at certain times ---- */

static int64_t time_for(const struct book_job *j)
{
	return (j->config.rounds + 1) * j->config.failures_max * (j->config.deadline + 5000) + 150000;
}

/* Once nothing goes wrong any more, everything comes to an end. */
static void check_life(struct sim *s)
{
	bool running = false;
	for (size_t i = 1; i <= s->book.n_jobs; i++) {
		const struct book_job *j = s->book.jobs[i];
		if (j->state != WIRE_JOB_RUNNING)
			continue;
		running = true;
		if (s->now - s->healed_ms > time_for(j))
			sim_violated(s, "every job ends", "job %" PRIu64 " round %u is %s", j->id, j->round,
				     round_phase_name(j->rounds[j->round].phase));
	}
	if (running || s->ended_ms == 0)
		s->ended_ms = s->now;
	if (s->now - s->ended_ms > LEARN_MS && !sim_over(s))
		sim_violated(s, "every plant hears of every end", "%d s after the last", LEARN_MS / 1000);
}

void check_step(struct sim *s)
{
	if (s->violated == NULL && s->host.up) {
		check_database(s);
		if (s->violated == NULL)
			check_memory(s);
		if (s->violated == NULL && s->steps % FILES_EVERY == 0)
			check_files(s);
	}
	if (s->violated == NULL && s->healed)
		check_life(s);
}

void check_start(struct sim *s)
{
	check_database(s);
	for (size_t i = 1; i <= s->book.n_jobs && s->violated == NULL; i++) {
		struct book_job *j = s->book.jobs[i];
		/* A stop is a call: who made it has no answer, and the next coordinator has not heard of it. */
		if (j->state == WIRE_JOB_RUNNING)
			j->stop_asked = false;
		for (uint32_t number = 1; number <= j->round && s->violated == NULL; number++) {
			if (number == j->round || s->healed)
				check_rows(s, j, number);
		}
	}
	if (s->violated == NULL)
		check_files(s);
}

void check_end(struct sim *s)
{
	char path[PATH_SIZE];
	struct spool_look look = {.s = s};
	if (s->host.up)
		host_crash(s, "for a last look");
	host_start(s);
	for (size_t i = 1; i <= s->book.n_jobs && s->violated == NULL; i++) {
		struct model *m;
		const struct book_job *j = s->book.jobs[i];
		for (uint32_t number = 1; number <= j->round && s->violated == NULL; number++) {
			if (j->rounds[number].phase == ROUND_COMMITTED && read_model(s, &j->rounds[number].model, &m))
				model_free(m);
		}
	}
	if (s->violated == NULL && dir_each(path_join(path, s->host.dir, "spool"), look_at_file, &look) != ERR_OK)
		sim_violated(s, "the spool can be read", "%s", err_text());
}
