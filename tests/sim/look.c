/*
 * The oracle's eye: it looks at the database through a connection of its own, so it sees what is committed and nothing else, whenever that
 * has changed. Every change must be a step that the protocol knows, with the values that the oracle computes for itself; then it enters it
 * into its record.
 */
#include "sim/sim.h"

#include "coordinator/db_schema.h"
#include "ml/safetensors.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct job_view {
	uint64_t id;
	enum wire_job_state state;
	uint32_t round, committed, failures, counted, ends;
	struct digest model;
	enum round_phase phase;
};
struct round_view {
	enum round_phase phase;
	struct digest base, seal, model;
	uint32_t plants, quorum, goal, counted;
	int64_t opened_ms, deadline_ms, grace_ms;
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
			  "FROM contribution c WHERE c.job = j.id AND c.round = j.round), j.ends "
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
			.ends = (uint32_t)sql_int(q, 8),
		};
	}
	return looked(s, q) ? n : 0;
}

static bool view_round(struct sim *s, uint64_t job, uint32_t number, struct round_view *out)
{
	struct query *q = sql_query(
		s->host.eye, "SELECT phase, base, seal, model, plants, quorum, opened_ms, deadline_ms, cohort, "
			     "(SELECT count(*) FROM contribution c WHERE c.job = round.job AND c.round = number), "
			     "goal, grace_ms FROM round WHERE job = ? AND number = ?");
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
			.goal = (uint32_t)sql_int(q, 10),
			.grace_ms = sql_int(q, 11),
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
void look_at_rows(struct sim *s, const struct book_job *j, uint32_t number)
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
		    row->time_ms != u->time_ms || row->base_round != u->base_round)
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
	bool full = book_is_full(s, j, &doubt);
	if (!full && !book_is_over(s, j))
		sim_violated(s, "a round is not sealed early",
			     "job %" PRIu64 " round %u: %u updates of %u, %" PRId64 " ms before its deadline", j->id,
			     number, r->counted, r->goal, r->deadline_ms - doubt_wall(s));
	if (r->counted > r->goal)
		sim_violated(s, "a round closes with its goal", "job %" PRIu64 " round %u: %u of %u", j->id, number,
			     r->counted, r->goal);
	struct digest seal = sums_seal(s, j, number);
	if (!digest_equal(&seal, &v->seal))
		sim_violated(s, "the seal is of what counts", "job %" PRIu64 " round %u", j->id, number);
	look_at_rows(s, j, number);
	cover(r->counted < r->cohort ? "a round with some of its plants" : "a round with all of its plants");
	cover_expect("a round that its goal closes before its cohort has come");
	cover_expect("a round that has waited beyond its deadline");
	if (full && r->goal < r->cohort)
		cover("a round that its goal closes before its cohort has come");
	if (!full && doubt_wall(s) >= r->deadline_ms + 1000)
		cover("a round that has waited beyond its deadline");
}

bool look_at_model(struct sim *s, const struct digest *d, struct model **ret_model)
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
	const float *base = book_model(s, &j->rounds[number].base);
	ENSURE(base != NULL);
	sums_model(s, j, number, base, NULL, expected);
	if (look_at_model(s, &v->model, &made)) {
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
	bool doubt, over = book_is_over(s, j) || book_is_lost(s, j, &doubt);
	bool late = r->phase == ROUND_OPEN && r->counted < r->quorum && over;
	cover_expect("a round that is given up because plants were revoked");
	if (late && !book_is_over(s, j))
		cover("a round that is given up because plants were revoked");
	/* A stopped job does not wait for a disk. */
	bool stopped = j->stop_asked && (r->phase == ROUND_OPEN || s->host.dirty);
	if (!late && !stopped)
		sim_violated(s, "a round is not given up early", "job %" PRIu64 " round %u: %u of %u updates", j->id,
			     number, r->counted, r->quorum);
	j->failures = j->stop_asked ? 0 : j->failures + 1;
	cover("a round that is abandoned");
}

/* AGGREGATED is a matter of memory: round.c. */
static const bool possible[ROUND_PHASE_COUNT][ROUND_PHASE_COUNT] = {
	[ROUND_OPEN] = {[ROUND_OPEN] = true, [ROUND_SEALED] = true, [ROUND_ABANDONED] = true},
	[ROUND_SEALED] = {[ROUND_SEALED] = true, [ROUND_COMMITTED] = true, [ROUND_ABANDONED] = true},
	[ROUND_COMMITTED] = {[ROUND_COMMITTED] = true},
	[ROUND_ABANDONED] = {[ROUND_ABANDONED] = true},
};

static void advance(struct sim *s, struct book_job *j, uint32_t number, const struct round_view *v)
{
	struct book_round *r = &j->rounds[number];
	if (!possible[r->phase][v->phase])
		sim_violated(s, "phases go forward, one by one", "job %" PRIu64 " round %u: %s, then %s", j->id, number,
			     round_phase_name(r->phase), round_phase_name(v->phase));
	if (v->counted == r->counted + 1)
		doubt_take_update(s, j->id, number);
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
	else if (v->phase == ROUND_COMMITTED)
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
		sim_violated(s, "the cohort is drawn from the job's enrolled plants",
			     "job %" PRIu64 " round %u: %u instead of %u", j->id, number, v->plants, r->cohort);
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
	    v.opened_ms != doubt_wall(s) || v.grace_ms != j->config.grace)
		sim_violated(s, "a round is as its job says", "job %" PRIu64 " round %u", j->id, number);
	if (j->stop_asked || j->failures >= j->config.failures_max || j->committed >= j->config.rounds)
		sim_violated(s, "a job that is over opens no round", "job %" PRIu64 " round %u", j->id, number);
	book_open_round(s, j, number);
	struct book_round *r = &j->rounds[number];
	if (v.goal != r->goal)
		sim_violated(s, "a round is as its job says", "job %" PRIu64 " round %u: goal %u instead of %u", j->id,
			     number, v.goal, r->goal);
	r->base = v.base;
	r->quorum = v.quorum;
	r->opened_ms = v.opened_ms;
	r->deadline_ms = v.deadline_ms;
	sim_say(s, "job %" PRIu64 " round %u: open for %u plants, quorum %u, goal %u", j->id, number, r->cohort,
		r->quorum, r->goal);
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
	j->ends++;
}

static void resume_job(struct sim *s, struct book_job *j)
{
	if (!doubt_resumes(s, j->id) || j->state == WIRE_JOB_DONE)
		sim_violated(s, "ended jobs stay ended", "job %" PRIu64 " was %s", j->id,
			     wire_job_state_name(j->state));
	sim_say(s, "job %" PRIu64 ": resumed", j->id);
	j->state = WIRE_JOB_RUNNING;
	j->failures = 0;
	j->stop_asked = false;
	j->resumed_ms = s->now;
	j->resumes++;
}

static void look_at_job(struct sim *s, const struct job_view *v)
{
	if (v->id > s->book.n_jobs) {
		const struct wire_start_job *start = s->starting != NULL ? s->starting : doubt_take_start(s);
		if (start == NULL || v->id != s->book.n_jobs + 1) {
			sim_violated(s, "jobs come from operators", "job %" PRIu64, v->id);
			return;
		}
		book_start(s, v->id, start);
	}
	struct book_job *j = s->book.jobs[v->id];
	if (j->state != WIRE_JOB_RUNNING && v->state == WIRE_JOB_RUNNING)
		resume_job(s, j);
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
	if (s->violated == NULL && v->ends != j->ends)
		sim_violated(s, "the ends of a job are counted", "job %" PRIu64 ": %u instead of %u", j->id, v->ends,
			     j->ends);
	if (s->violated == NULL && (v->committed != j->committed || v->failures != j->failures || !current))
		sim_violated(s, "a job counts its rounds", "job %" PRIu64 ": %u committed, %u failed instead of %u, %u",
			     j->id, v->committed, v->failures, j->committed, j->failures);
}

void look_at_database(struct sim *s)
{
	struct job_view views[SIM_JOBS_MAX + 1];
	struct query *q = sql_query(s->host.eye, "PRAGMA data_version");
	int64_t version = sql_next(q) ? sql_int(q, 0) : 0;
	if (!looked(s, q) || version == s->host.data_version)
		return;
	s->host.data_version = version;
	/* What has been written now lies over what had failed before. */
	if (!s->host.opening && !host_disk_failed(s))
		doubt_clear(s);
	size_t n = view_jobs(s, views);
	for (size_t i = 0; i < n && s->violated == NULL; i++)
		look_at_job(s, &views[i]);
	if (s->violated == NULL && n != s->book.n_jobs)
		sim_violated(s, "jobs stay", "%zu instead of %zu", n, s->book.n_jobs);
}
