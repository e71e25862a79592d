/*
 * A whole job on a disk that loses power or refuses, and what must hold whatever the disk does.
 *
 * A script says what plants and operators want, step by step; each wants it until it is done, as the real ones do: a plant sends again
 * until it has a receipt, from the offset that is there, an operator who got no answer looks and asks again. So a step may be cut off
 * anywhere and begun again, and the end is the same.
 *
 * What is known for sure is kept beside: receipts, with the round that each update counted in, and seals, as soon as the database has
 * shown them. sweep_check() compares them with what is there, and what is there with itself. sweep_describe() is the whole outcome as
 * text, without what may differ (times, places in a batch): a disturbed job must come to the text of the undisturbed one.
 */
#ifndef HANSA_TESTS_COORDINATOR_SWEEP_H
#define HANSA_TESTS_COORDINATOR_SWEEP_H

#include "coordinator/stage.h"

#include "coordinator/db_schema.h"
#include "coordinator/engine_parts.h"
#include "support/crashdisk.h"

#include <sys/stat.h>

enum { SWEEP_PLANTS = 4, SWEEP_ROUNDS = 8, SWEEP_TRIES = 12 };

enum sweep_act {
	SWEEP_START,  /* the job */
	SWEEP_SEND,   /* each of `who`: the update of `round`, until it has a receipt */
	SWEEP_CUT,    /* `who` brings the first half of it only */
	SWEEP_CLOSE,  /* until `round` is over */
	SWEEP_PASS,   /* the deadline and the grace */
	SWEEP_STOP,   /* until the job is stopped */
	SWEEP_RESUME, /* until it runs again */
};

struct sweep_step {
	enum sweep_act act;
	const char *who;
	uint32_t round;
};

struct sweep_script {
	const char *name, *job; /* YAML as in stage_try_start() */
	bool large;             /* each update in a file of its own */
	uint32_t keep_updates;  /* what the job says */
	bool keep_models;       /* all of them */
	struct sweep_step steps[24];
};

/* An update that a plant has a receipt for. */
struct sweep_receipt {
	bool given;
	struct digest digest;
	uint32_t counts; /* the round that it counts in */
};

struct sweep {
	struct stage stage;
	const struct sweep_script *script;
	size_t at; /* step */
	uint64_t job;
	struct sweep_receipt receipts[SWEEP_PLANTS][SWEEP_ROUNDS + 1];
	struct digest seals[SWEEP_ROUNDS + 1];
	unsigned troubles; /* failures of the present step */
};

/* ---- the folder ---- */

static inline enum err sweep_copy_one(void *arg, const char *name)
{
	const char *const *dirs = arg; /* from, to */
	char from[PATH_SIZE], to[PATH_SIZE];
	struct stat st;
	const char *below[] = {path_join(from, dirs[0], name), path_join(to, dirs[1], name)};
	assert_int_equal(stat(from, &st), 0);
	if (!S_ISDIR(st.st_mode))
		return file_copy(from, to, 0600);
	TRY(dir_make(to, 0700));
	return dir_each(from, sweep_copy_one, below);
}

static inline char *sweep_scratch(void)
{
	char path[PATH_SIZE];
	crashdisk_make_scratch(path);
	return mem_str(path);
}

/* A federation with the plants a to d that nobody works on: where every run begins. */
static inline void sweep_template(struct stage *s)
{
	stage_make_in(s, sweep_scratch());
	stage_enrol(s, "d");
	stage_close(s);
}

static inline void sweep_template_drop(struct stage *s)
{
	model_free(s->model);
	manifest_free(s->manifest);
	scratch_remove(s->dir);
}

/* Not open yet. */
static inline void sweep_begin(struct sweep *w, const struct sweep_script *script, const struct stage *template)
{
	*w = (struct sweep){.stage = *template, .script = script};
	w->stage.dir = sweep_scratch();
	assert_ok(dir_each(template->dir, sweep_copy_one, (const char *[]){template->dir, w->stage.dir}));
	stage_spool = (struct spool_config){.small_max = script->large ? 1 : 0};
}

static inline void sweep_end(struct sweep *w)
{
	stage_close(&w->stage);
	scratch_remove(w->stage.dir);
	stage_spool = (struct spool_config){0};
}

/* ---- steps; each may be done again ---- */

static inline enum err sweep_not_yet(const char *what)
{
	return err_set(ERR_UNAVAILABLE, "not yet: %s", what);
}

static inline enum err sweep_start(struct sweep *w)
{
	struct job_row *jobs;
	size_t n;
	assert_ok(db_job_list(w->stage.db, &jobs, &n));
	assert_true(n <= 1);
	if (n == 1)
		w->job = jobs[0].id;
	free(jobs);
	return n == 1 ? ERR_OK : stage_try_start(&w->stage, w->script->job, &w->job);
}

/* One stream, from where an earlier one ended; `half`: it is cut in the middle. */
static inline enum err sweep_stream(struct sweep *w, const char *who, uint32_t round, bool half)
{
	struct bytes update = stage_update(&w->stage, who, round);
	struct wire_head head = stage_head(&w->stage, w->job, round, who, update);
	const struct wire_upload_offset_request request = {
		.job = w->job, .round = round, .size = head.size, .digest = head.digest};
	struct wire_upload_offset_reply reply;
	struct wire_receipt receipt;
	struct update_row row;
	struct upload *u = NULL;
	engine_upload_offset(w->stage.engine, who, &request, &reply);
	head.offset = reply.offset;
	size_t end = half ? update.n / 2 / 4 * 4 : update.n, at = (size_t)head.offset;
	enum err err = engine_upload_begin(w->stage.engine, who, &head, &u, &receipt);
	while (err == ERR_OK && u != NULL && at < end) {
		size_t n = end - at < 100 ? end - at : 100;
		err = stage_add(u, bytes_of(update.p + at, n));
		at += n;
	}
	if (u != NULL && (err != ERR_OK || half))
		engine_upload_suspend(u);
	else if (u != NULL)
		err = engine_upload_commit(u, &receipt);
	if (err == ERR_OK && !half) {
		assert_ok(db_update_find(w->stage.db, w->job, round, who, &row));
		w->receipts[who[0] - 'a'][round] = (struct sweep_receipt){true, head.digest, row.round};
	}
	update_free(&update);
	return err;
}

static inline enum err sweep_send(struct sweep *w, const struct sweep_step *s)
{
	for (const char *p = s->who; *p != '\0'; p++) {
		const char who[] = {*p, '\0'};
		if (s->act == SWEEP_CUT || !w->receipts[*p - 'a'][s->round].given)
			TRY(sweep_stream(w, who, s->round, s->act == SWEEP_CUT));
	}
	return ERR_OK;
}

static inline enum err sweep_close(struct sweep *w, const struct sweep_step *s)
{
	for (int i = 0; i < 4; i++) {
		enum round_phase phase = stage_round(&w->stage, w->job, s->round).state.phase;
		if (phase == ROUND_COMMITTED || phase == ROUND_ABANDONED)
			return ERR_OK;
		engine_pump(w->stage.engine);
	}
	return sweep_not_yet("the round is open");
}

static inline enum err sweep_stop(struct sweep *w)
{
	if (stage_job(&w->stage, w->job).state == WIRE_JOB_STOPPED)
		return ERR_OK;
	TRY(engine_job_stop(w->stage.engine, w->job));
	engine_pump(w->stage.engine);
	return stage_job(&w->stage, w->job).state == WIRE_JOB_STOPPED ? ERR_OK : sweep_not_yet("the job runs");
}

static inline enum err sweep_step_once(struct sweep *w)
{
	const struct sweep_step *s = &w->script->steps[w->at];
	switch (s->act) {
	case SWEEP_START:
		return sweep_start(w);
	case SWEEP_SEND:
	case SWEEP_CUT:
		return sweep_send(w, s);
	case SWEEP_CLOSE:
		return sweep_close(w, s);
	case SWEEP_PASS:
		stage_pass(90000);
		return ERR_OK;
	case SWEEP_STOP:
		return sweep_stop(w);
	case SWEEP_RESUME:
		break;
	}
	return stage_job(&w->stage, w->job).state == WIRE_JOB_RUNNING ? ERR_OK
								      : engine_job_resume(w->stage.engine, w->job);
}

static inline bool sweep_is_over(const struct sweep *w)
{
	return w->script->steps[w->at].who == NULL;
}

/* ---- what must hold ---- */

static inline void sweep_check_database(struct sweep *w)
{
	struct query *q = sql_query(w->stage.db->sql, "PRAGMA integrity_check");
	assert_true(sql_next(q));
	assert_string_equal(sql_text(q, 0), "ok");
	assert_ok(sql_end(q));
	q = sql_query(w->stage.db->sql, "PRAGMA foreign_key_check");
	assert_false(sql_next(q));
	assert_ok(sql_end(q));
}

static inline void sweep_check_model(struct sweep *w, const struct digest *d)
{
	char path[PATH_SIZE];
	struct digest got;
	assert_ok(digest_file(store_path(w->stage.store, d, path), &got, NULL));
	assert_true(digest_equal(&got, d));
}

/* The file that the update is in. */
static inline const char *sweep_path(struct sweep *w, const struct update_row *u, char out[PATH_SIZE])
{
	const struct spool_key key = {.job = u->job, .round = u->base_round, .plant = u->plant};
	return u->place < 0 ? spool_path(w->stage.engine->spool, &key, out)
			    : spool_batch_path(w->stage.engine->spool, u->job, u->round, out);
}

static inline void sweep_check_bytes(struct sweep *w, const struct update_row *u)
{
	char path[PATH_SIZE];
	struct file *f;
	uint8_t *content = mem_new(u->size);
	assert_ok(file_open_read(sweep_path(w, u, path), &f));
	assert_ok(file_read_at(f, u->place < 0 ? 0 : (uint64_t)u->place, content, u->size));
	file_close(f);
	struct digest got = digest_of(bytes_of(content, u->size));
	assert_true(digest_equal(&got, &u->digest));
	free(content);
}

/* Files in the spool that rows speak of; the rest may only be parts. */
struct sweep_spool {
	struct sweep *w;
	struct buf known; /* names, each followed by a line feed */
	uint64_t bytes;
	bool parts; /* of the open round may be there */
};

static inline enum err sweep_check_file(void *arg, const char *name)
{
	struct sweep_spool *s = arg;
	char path[PATH_SIZE], line[300];
	uint64_t size;
	path_join(path, s->w->stage.dir, "spool");
	assert_ok(file_size(path_join(path, path, name), &size));
	s->bytes += size;
	snprintf(line, sizeof line, "\n%s\n", name);
	size_t n = strlen(name);
	bool part = n > 5 && strcmp(name + n - 5, ".part") == 0;
	if (part ? !s->parts : strstr(buf_str(&s->known), line) == NULL)
		fail_msg("%s is in the spool and nobody speaks of it", name);
	return ERR_OK;
}

static inline void sweep_know(struct buf *known, const struct update_row *u)
{
	if (u->place < 0)
		assert_ok(buf_printf(known, "%llu-%lu-%s.update\n", (unsigned long long)u->job,
				     (unsigned long)u->base_round, u->plant));
	else
		assert_ok(buf_printf(known, "%llu-%lu.batch\n", (unsigned long long)u->job, (unsigned long)u->round));
}

/* Its rows, each plant once, with bytes as long as they are needed. */
static inline void sweep_check_round(struct sweep *w, const struct round_row *r, bool needed, struct buf *known)
{
	struct update_row *u;
	size_t n;
	assert_ok(db_update_list(w->stage.db, w->job, r->state.number, &u, &n));
	assert_int_equal(n, r->state.accepted);
	for (size_t i = 0; i < n; i++) {
		assert_true(i == 0 || strcmp(u[i - 1].plant, u[i].plant) < 0);
		if (!needed)
			continue;
		sweep_check_bytes(w, &u[i]);
		sweep_know(known, &u[i]);
	}
	free(u);
	/* A seal never changes. */
	struct digest *seal = &w->seals[r->state.number];
	assert_true(digest_is_zero(seal) || digest_equal(seal, &r->seal));
	*seal = r->seal;
	const struct run *run = engine_find(w->stage.engine, w->job);
	if (r->state.phase == ROUND_OPEN && run != NULL) {
		assert_int_equal(run->round.number, r->state.number);
		assert_int_equal(run->round.accepted, n);
	}
}

static inline void sweep_check_receipts(struct sweep *w)
{
	struct update_row row;
	for (size_t i = 0; i < SWEEP_PLANTS; i++) {
		for (uint32_t round = 1; round <= SWEEP_ROUNDS; round++) {
			const struct sweep_receipt *r = &w->receipts[i][round];
			const char who[] = {(char)('a' + (int)i), '\0'};
			if (!r->given)
				continue;
			assert_ok(db_update_find(w->stage.db, w->job, round, who, &row));
			assert_true(digest_equal(&row.digest, &r->digest));
			assert_int_equal(row.round, r->counts);
		}
	}
}

static inline enum err sweep_check_stored(void *arg, const struct digest *d)
{
	sweep_check_model(arg, d);
	return ERR_OK;
}

/* The job's rounds, newest first: how many committed ones are newer says what is kept. */
static inline void sweep_check_rounds(struct sweep *w, const struct job_row *j, struct sweep_spool *spool)
{
	struct round_row *rounds;
	size_t n;
	uint32_t newer = 0;
	assert_ok(db_round_list(w->stage.db, w->job, &rounds, &n));
	for (size_t i = n; i-- > 0;) {
		const struct round_row *r = &rounds[i];
		bool committed = r->state.phase == ROUND_COMMITTED,
		     over = committed || r->state.phase == ROUND_ABANDONED;
		bool needed = over ? committed && newer < w->script->keep_updates : j->state == WIRE_JOB_RUNNING;
		sweep_check_round(w, r, needed, &spool->known);
		if (needed || w->script->keep_models)
			sweep_check_model(w, &r->base);
		if (committed && (needed || w->script->keep_models))
			sweep_check_model(w, &r->model);
		newer += committed;
		spool->parts |= r->state.phase == ROUND_OPEN && w->script->large;
	}
	free(rounds);
}

/* Everything; `started`: nothing has been done since a start, so nothing lies about either. */
static inline void sweep_check(struct sweep *w, bool started)
{
	char path[PATH_SIZE];
	struct job_row j = {0};
	struct sweep_spool spool = {.w = w};
	buf_init(&spool.known, 1 << 16);
	assert_ok(buf_printf(&spool.known, "\n"));
	sweep_check_database(w);
	sweep_check_receipts(w);
	assert_ok(store_each(w->stage.store, sweep_check_stored, w));
	sweep_check_model(w, &w->stage.source);
	if (w->job != 0)
		j = stage_job(&w->stage, w->job);
	if (w->job != 0)
		sweep_check_rounds(w, &j, &spool);
	if (!digest_is_zero(&j.model))
		sweep_check_model(w, &j.model);
	if (started) {
		assert_ok(dir_each(path_join(path, w->stage.dir, "spool"), sweep_check_file, &spool));
		assert_int_equal(spool_bytes(w->stage.engine->spool), spool.bytes);
		assert_int_equal(count_files(path_join(path, w->stage.dir, "models"), ".part"), 0);
	}
	buf_deinit(&spool.known);
}

/* ---- the outcome ---- */

static inline const char *sweep_hex(const struct digest *d, char out[DIGEST_TEXT_SIZE])
{
	return digest_is_zero(d) ? "-" : digest_format(d, out);
}

static inline enum err sweep_describe_file(void *arg, const char *name)
{
	return buf_printf(arg, "file %s\n", name);
}

static inline void sweep_describe_round(struct sweep *w, const struct round_row *r, struct buf *out)
{
	struct update_row *u;
	size_t n;
	char base[DIGEST_TEXT_SIZE], model[DIGEST_TEXT_SIZE], seal[DIGEST_TEXT_SIZE];
	assert_ok(buf_printf(out, "round %u %s %u/%u base %s model %s seal %s %s\n", r->state.number,
			     round_phase_name(r->state.phase), r->state.accepted, r->state.cohort,
			     sweep_hex(&r->base, base), sweep_hex(&r->model, model), sweep_hex(&r->seal, seal),
			     r->reason));
	assert_ok(db_update_list(w->stage.db, w->job, r->state.number, &u, &n));
	for (size_t i = 0; i < n; i++)
		assert_ok(buf_printf(out, "  %s of %u %s samples %llu norm %a %s\n", u[i].plant, u[i].base_round,
				     sweep_hex(&u[i].digest, base), (unsigned long long)u[i].samples, u[i].norm,
				     u[i].place < 0 ? "file" : "batch"));
	free(u);
}

/* `out`: buf_init'd here. */
static inline void sweep_describe(struct sweep *w, struct buf *out)
{
	char path[PATH_SIZE], model[DIGEST_TEXT_SIZE];
	struct job_row j = stage_job(&w->stage, w->job);
	struct round_row *rounds;
	size_t n;
	buf_init(out, 1 << 16);
	assert_ok(buf_printf(out, "job %s %u/%u round %u failures %u model %s of %u %s\n", wire_job_state_name(j.state),
			     j.committed, j.rounds, j.round, j.failures, sweep_hex(&j.model, model), j.model_round,
			     j.reason));
	assert_ok(db_round_list(w->stage.db, w->job, &rounds, &n));
	for (size_t i = 0; i < n; i++)
		sweep_describe_round(w, &rounds[i], out);
	free(rounds);
	assert_ok(dir_each(path_join(path, w->stage.dir, "models"), sweep_describe_file, out));
	assert_ok(dir_each(path_join(path, w->stage.dir, "spool"), sweep_describe_file, out));
}

/* The script is done: after one start more all is as it is after an undisturbed run. NULL: this is that one. */
static inline void sweep_finish(struct sweep *w, struct buf *expected, bool first)
{
	struct buf got;
	stage_restart(&w->stage);
	sweep_check(w, true);
	assert_int_equal(stage_job(&w->stage, w->job).state, WIRE_JOB_DONE);
	sweep_describe(w, &got);
	if (first) {
		*expected = got;
		return;
	}
	assert_string_equal(buf_str(&got), buf_str(expected));
	buf_deinit(&got);
}

/* ---- scripts ---- */

/* clang-format off */
static const struct sweep_script sweep_small = {
	.name = "small updates in a batch", .job = "rounds: 3\nquorum: 3\nplants: [a, b, c]\n", .keep_models = true,
	.steps = {{SWEEP_START, "", 0},
		  {SWEEP_SEND, "abc", 1}, {SWEEP_CLOSE, "", 1},
		  {SWEEP_SEND, "cab", 2}, {SWEEP_CLOSE, "", 2},
		  {SWEEP_SEND, "bca", 3}, {SWEEP_CLOSE, "", 3}},
};

static const struct sweep_script sweep_large = {
	.name = "large updates, one cut", .job = "rounds: 2\nquorum: 4\n", .large = true, .keep_models = true,
	.steps = {{SWEEP_START, "", 0},
		  {SWEEP_CUT, "b", 1}, {SWEEP_SEND, "abcd", 1}, {SWEEP_CLOSE, "", 1},
		  {SWEEP_CUT, "ad", 2}, {SWEEP_SEND, "dcba", 2}, {SWEEP_CLOSE, "", 2}},
};

static const struct sweep_script sweep_carry = {
	.name = "late ones carried", .large = true, .keep_models = true,
	.job = "rounds: 3\nquorum: 1\ngoal: 2\nlate: carry\nplants: [a, b, c]\n",
	.steps = {{SWEEP_START, "", 0},
		  {SWEEP_CUT, "c", 1}, {SWEEP_SEND, "ab", 1}, {SWEEP_CLOSE, "", 1},
		  {SWEEP_SEND, "c", 1}, {SWEEP_CUT, "b", 2}, {SWEEP_SEND, "a", 2}, {SWEEP_CLOSE, "", 2},
		  {SWEEP_SEND, "b", 2}, {SWEEP_SEND, "c", 3}, {SWEEP_CLOSE, "", 3}},
};

static const struct sweep_script sweep_keep = {
	.name = "some kept, late ones in a batch", .keep_updates = 1,
	.job = "rounds: 3\nquorum: 1\ngoal: 2\nlate: carry\nkeep_updates: \"1\"\nkeep_models: \"1\"\n",
	.steps = {{SWEEP_START, "", 0},
		  {SWEEP_SEND, "da", 1}, {SWEEP_CLOSE, "", 1},
		  {SWEEP_SEND, "b", 1}, {SWEEP_SEND, "c", 2}, {SWEEP_CLOSE, "", 2},
		  {SWEEP_SEND, "a", 2}, {SWEEP_SEND, "b", 3}, {SWEEP_CLOSE, "", 3}},
};

static const struct sweep_script sweep_resume = {
	.name = "a deadline missed, stopped and resumed", .large = true, .keep_models = true,
	.job = "rounds: 2\nquorum: 3\nplants: [a, b, c]\n",
	.steps = {{SWEEP_START, "", 0},
		  {SWEEP_SEND, "abc", 1}, {SWEEP_CLOSE, "", 1},
		  {SWEEP_SEND, "ab", 2}, {SWEEP_CUT, "c", 2}, {SWEEP_PASS, "", 0}, {SWEEP_CLOSE, "", 2},
		  {SWEEP_SEND, "b", 3}, {SWEEP_CUT, "a", 3}, {SWEEP_STOP, "", 0}, {SWEEP_RESUME, "", 0},
		  {SWEEP_SEND, "cba", 4}, {SWEEP_CLOSE, "", 4}},
};
/* clang-format on */

static const struct sweep_script *const sweep_scripts[] = {&sweep_small, &sweep_large, &sweep_carry, &sweep_keep,
							   &sweep_resume};
enum { SWEEP_SCRIPTS = sizeof sweep_scripts / sizeof *sweep_scripts };

/* One test for each; its state is the script. */
static inline void sweep_tests(struct CMUnitTest tests[SWEEP_SCRIPTS], CMUnitTestFunction fn)
{
	for (size_t i = 0; i < SWEEP_SCRIPTS; i++) {
		union {
			const void *view;
			void *p;
		} script = {.view = sweep_scripts[i]};
		tests[i] =
			(struct CMUnitTest){.name = sweep_scripts[i]->name, .test_func = fn, .initial_state = script.p};
	}
}

#endif
