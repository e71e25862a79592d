/*
 * Calls that wait: who is told what, when, and exactly once.
 */
#include "coordinator/stage.h"

static struct stage stage;

static int setup(void **state)
{
	(void)state;
	stage_make(&stage);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	stage_drop(&stage);
	return 0;
}

static void run_rounds(uint64_t job, uint32_t from, uint32_t to)
{
	for (uint32_t round = from; round <= to; round++) {
		for (const char *who = "abc"; *who != '\0'; who++)
			stage_report(&stage, (const char[]){*who, '\0'}, job, round);
		stage_settle(&stage);
	}
}

static void those_who_wait_hear_of_a_new_job(void **state)
{
	(void)state;
	struct stage_call a, b, stranger;
	stage_ask(&stage, "a", 0, &a);
	stage_ask(&stage, "b", 0, &b);
	stage_ask(&stage, "x", 0, &stranger);
	stage_settle(&stage);
	assert_int_equal(a.answers + b.answers + stranger.answers, 0);
	stage_pass(1000);
	uint64_t job = stage_start(&stage, "");
	assert_int_equal(a.answers, 1);
	assert_int_equal(b.answers, 1);
	assert_int_equal(stranger.answers, 0);
	assert_non_null(a.packed);
	assert_ptr_equal(a.packed, b.packed); /* packed once, and once in memory */
	assert_int_equal(a.task.kind, WIRE_TASK_TRAIN);
	assert_int_equal(a.task.job, job);
	assert_int_equal(a.task.round, 1);
	assert_int_equal(a.task.rounds, 2);
	assert_string_equal(a.task.job_name, "test");
	assert_int_equal(a.task.deadline_in_ms, 60000);
	assert_true(digest_equal(&a.task.base, &stage.source));
	assert_true(digest_equal(&a.task.source, &stage.source));
	assert_true(a.task.base_size > 0 && a.task.base_size == a.task.source_size);
	/* Who comes later is answered at once, with the time that is left. */
	stage_pass(5000);
	struct stage_call c;
	stage_ask(&stage, "c", 0, &c);
	assert_int_equal(c.answers, 1);
	assert_int_equal(c.task.deadline_in_ms, 55000);
}

static void the_texts_are_those_of_the_job(void **state)
{
	(void)state;
	struct stage_call a;
	uint64_t job = stage_start(&stage, "");
	struct digest hash = stage_job(&stage, job).config_hash;
	stage_ask(&stage, "a", 0, &a);
	assert_true(digest_equal(&a.config, &hash));
	assert_true(digest_equal(&a.manifest, &stage.manifest->digest));
	assert_ok(engine_job_stop(stage.engine, job));
	stage_settle(&stage);
	stage_ask(&stage, "a", 0, &a);
	stage_settle(&stage);
	assert_int_equal(a.task.kind, WIRE_TASK_FINISHED);
	assert_true(digest_equal(&a.config, &hash));
	assert_true(digest_equal(&a.manifest, &stage.manifest->digest));
}

static void a_plant_that_has_reported_waits_for_the_next_round(void **state)
{
	(void)state;
	struct stage_call a;
	uint64_t job = stage_start(&stage, "");
	stage_report(&stage, "a", job, 1);
	stage_ask(&stage, "a", 0, &a);
	stage_settle(&stage);
	assert_int_equal(a.answers, 0);
	stage_report(&stage, "b", job, 1);
	stage_report(&stage, "c", job, 1);
	stage_settle(&stage);
	assert_int_equal(a.answers, 1);
	assert_int_equal(a.task.kind, WIRE_TASK_TRAIN);
	assert_int_equal(a.task.round, 2);
	struct round_row first = stage_round(&stage, job, 1);
	assert_true(digest_equal(&a.task.base, &first.model));
	assert_int_equal(a.task.base_size, first.model_size);
}

static void the_end_is_told_once(void **state)
{
	(void)state;
	struct stage_call a, b;
	uint64_t job = stage_start(&stage, "");
	run_rounds(job, 1, 1);
	stage_report(&stage, "a", job, 2);
	stage_ask(&stage, "a", 0, &a);
	stage_report(&stage, "b", job, 2);
	stage_report(&stage, "c", job, 2);
	stage_settle(&stage);
	struct job_row j = stage_job(&stage, job);
	assert_int_equal(a.answers, 1);
	assert_int_equal(a.task.kind, WIRE_TASK_FINISHED);
	assert_int_equal(a.task.job_state, WIRE_JOB_DONE);
	assert_int_equal(a.task.round, 2);
	assert_true(digest_equal(&a.task.base, &j.model));
	assert_int_equal(a.task.base_size, j.model_size);
	/* Who was away hears of it when it comes, also after a restart; who has seen it waits. */
	stage_restart(&stage);
	stage_ask(&stage, "b", 0, &b);
	stage_settle(&stage);
	assert_int_equal(b.answers, 1);
	assert_int_equal(b.task.kind, WIRE_TASK_FINISHED);
	stage_ask(&stage, "b", job, &b);
	stage_settle(&stage);
	assert_int_equal(b.answers, 0);
}

static void a_job_without_a_model_ends_with_its_source(void **state)
{
	(void)state;
	struct stage_call a;
	uint64_t job = stage_start(&stage, "");
	assert_ok(engine_job_stop(stage.engine, job));
	stage_settle(&stage);
	stage_ask(&stage, "a", 0, &a);
	stage_settle(&stage);
	assert_int_equal(a.task.kind, WIRE_TASK_FINISHED);
	assert_int_equal(a.task.job_state, WIRE_JOB_STOPPED);
	assert_int_equal(a.task.round, 0);
	assert_true(digest_equal(&a.task.base, &stage.source));
}

/* A plant says only which end it saw last, so ends come in the order of the jobs. */
static void ends_come_in_order(void **state)
{
	(void)state;
	struct stage_call a;
	uint64_t one = stage_start(&stage, "name: one\nrounds: 1\n"),
		 two = stage_start(&stage, "name: two\nrounds: 1\n");
	stage_report(&stage, "a", one, 1);
	stage_report(&stage, "a", two, 1);
	stage_ask(&stage, "a", 0, &a);
	stage_report(&stage, "b", two, 1);
	stage_report(&stage, "c", two, 1);
	stage_settle(&stage);
	assert_int_equal(stage_job(&stage, two).state, WIRE_JOB_DONE);
	assert_int_equal(a.answers, 0);
	stage_report(&stage, "b", one, 1);
	stage_report(&stage, "c", one, 1);
	stage_settle(&stage);
	assert_int_equal(a.answers, 1);
	assert_int_equal(a.task.job, one);
	stage_ask(&stage, "a", one, &a);
	stage_settle(&stage);
	assert_int_equal(a.answers, 1);
	assert_int_equal(a.task.kind, WIRE_TASK_FINISHED);
	assert_int_equal(a.task.job, two);
}

/* Whoever has just come may have missed the end of an older job, which only the database knows. */
static void an_end_that_was_missed_comes_first(void **state)
{
	(void)state;
	struct stage_call a;
	uint64_t one = stage_start(&stage, "name: one\nrounds: 1\n"),
		 two = stage_start(&stage, "name: two\nrounds: 1\n");
	run_rounds(one, 1, 1);
	assert_int_equal(stage_job(&stage, one).state, WIRE_JOB_DONE);
	for (const char *who = "abc"; *who != '\0'; who++)
		stage_report(&stage, (const char[]){*who, '\0'}, two, 1);
	engine_pump(stage.engine);
	assert_int_equal(stage_round(&stage, two, 1).state.phase, ROUND_SEALED);
	stage_ask(&stage, "a", 0, &a); /* the next step is the end of job two */
	stage_settle(&stage);
	assert_int_equal(stage_job(&stage, two).state, WIRE_JOB_DONE);
	assert_int_equal(a.answers, 1);
	assert_int_equal(a.task.kind, WIRE_TASK_FINISHED);
	assert_int_equal(a.task.job, one);
}

/* ---- what a plant does not want ---- */

static void ask_without(const char *who, uint64_t skip_job, uint32_t skip_round, struct stage_call *c)
{
	struct wire_task_request request = {.skip_job = skip_job, .skip_round = skip_round, .software = "test 1"};
	*c = (struct stage_call){.answers = 0};
	engine_task(stage.engine, who, &request, stage_answer, c);
}

static void a_job_that_is_skipped_is_not_given_but_its_end_is(void **state)
{
	(void)state;
	struct stage_call first, a;
	uint64_t job = stage_start(&stage, "");
	ask_without("a", job, 0, &first);
	stage_settle(&stage);
	assert_int_equal(first.answers, 0);
	stage_report(&stage, "b", job, 1);
	stage_report(&stage, "c", job, 1);
	stage_pass(60000);
	ask_without("a", job, 0, &a); /* in place of the first one */
	stage_settle(&stage);
	assert_int_equal(stage_job(&stage, job).round, 2);
	assert_int_equal(a.answers, 0);
	assert_ok(engine_job_stop(stage.engine, job));
	stage_settle(&stage);
	assert_int_equal(a.answers, 1);
	assert_int_equal(a.task.kind, WIRE_TASK_FINISHED);
	assert_int_equal(a.task.job, job);
}

static void a_round_that_is_skipped_is_not_given_but_the_next_is(void **state)
{
	(void)state;
	struct stage_call first, a;
	uint64_t job = stage_start(&stage, "");
	ask_without("a", job, 1, &first);
	stage_settle(&stage);
	assert_int_equal(first.answers, 0);
	stage_report(&stage, "b", job, 1);
	stage_report(&stage, "c", job, 1);
	stage_pass(50000);
	ask_without("a", job, 1, &a);
	stage_pass(10000);
	stage_settle(&stage);
	assert_int_equal(a.answers, 1);
	assert_int_equal(a.task.kind, WIRE_TASK_TRAIN);
	assert_int_equal(a.task.round, 2);
}

static void who_skips_a_job_gets_another(void **state)
{
	(void)state;
	struct stage_call a;
	uint64_t one = stage_start(&stage, "name: one\n"), two = stage_start(&stage, "name: two\n");
	ask_without("a", one, 0, &a);
	assert_int_equal(a.answers, 1);
	assert_int_equal(a.task.job, two);
	ask_without("a", two, 0, &a);
	assert_int_equal(a.task.job, one);
}

static void of_two_jobs_the_older_one_first(void **state)
{
	(void)state;
	struct stage_call a;
	uint64_t one = stage_start(&stage, "name: one\n"), two = stage_start(&stage, "name: two\n");
	stage_ask(&stage, "a", 0, &a);
	assert_int_equal(a.task.job, one);
	stage_report(&stage, "a", one, 1);
	stage_ask(&stage, "a", 0, &a);
	assert_int_equal(a.task.job, two);
}

static void nothing_yet_after_the_hold(void **state)
{
	(void)state;
	struct stage_call a, b;
	stage_ask(&stage, "a", 0, &a);
	stage_pass(10000);
	stage_ask(&stage, "b", 0, &b);
	stage_settle(&stage);
	stage_pass(STAGE_HOLD_MS - 10001);
	stage_settle(&stage);
	assert_int_equal(a.answers, 0);
	stage_pass(1);
	stage_settle(&stage);
	assert_int_equal(a.answers, 1);
	assert_int_equal(a.code, ERR_OK);
	assert_int_equal(a.task.kind, WIRE_TASK_WAIT);
	assert_true(a.task.wait_ms < 1000);
	assert_int_equal(b.answers, 0);
}

static void a_newer_call_takes_the_place(void **state)
{
	(void)state;
	struct stage_call old, new;
	stage_ask(&stage, "a", 0, &old);
	stage_ask(&stage, "a", 0, &new);
	assert_int_equal(old.answers, 1);
	assert_int_equal(old.task.kind, WIRE_TASK_WAIT);
	assert_int_equal(new.answers, 0);
	stage_start(&stage, "");
	assert_int_equal(old.answers, 1);
	assert_int_equal(new.answers, 1);
}

static void who_hangs_up_is_forgotten(void **state)
{
	(void)state;
	struct stage_call a, watch;
	stage_ask(&stage, "a", 0, &a);
	assert_false(engine_forget(stage.engine, "b", &a));
	assert_true(engine_forget(stage.engine, "a", &a));
	assert_false(engine_forget(stage.engine, "a", &a));
	uint64_t job = stage_start(&stage, "");
	assert_int_equal(a.answers, 0);
	stage_watch(&stage, job, UINT64_MAX, &watch);
	assert_true(engine_forget(stage.engine, "admin", &watch));
	stage_pass(STAGE_HOLD_MS);
	stage_settle(&stage);
	assert_int_equal(watch.answers, 0);
}

static void a_revoked_plant_is_told_so(void **state)
{
	(void)state;
	struct stage_call a;
	stage_ask(&stage, "a", 0, &a);
	engine_revoked(stage.engine, "a");
	assert_int_equal(a.answers, 1);
	assert_int_equal(a.code, ERR_DENIED);
	assert_non_null(strstr(a.text, "revoked"));
}

static void draining_answers_all(void **state)
{
	(void)state;
	struct stage_call a, b, watch;
	uint64_t job = stage_start(&stage, "");
	stage_report(&stage, "a", job, 1);
	stage_ask(&stage, "a", 0, &a);
	stage_watch(&stage, job, UINT64_MAX, &watch);
	engine_drain(stage.engine);
	assert_int_equal(a.code, ERR_UNAVAILABLE);
	assert_int_equal(watch.code, ERR_UNAVAILABLE);
	stage_ask(&stage, "b", 0, &b);
	assert_int_equal(b.code, ERR_UNAVAILABLE);
	uint64_t late;
	assert_int_equal(stage_try_start(&stage, "name: late\n", &late), ERR_UNAVAILABLE);
	/* What is on its way in may still be finished; it is the next start that closes the round. */
	stage_report(&stage, "b", job, 1);
	stage_report(&stage, "c", job, 1);
	stage_settle(&stage);
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_OPEN);
	assert_int_equal(stage_round(&stage, job, 1).state.accepted, 3);
	stage_restart(&stage);
	stage_settle(&stage);
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_COMMITTED);
}

/* ---- operators ---- */

static void a_watcher_hears_of_each_change(void **state)
{
	(void)state;
	struct stage_call w;
	uint64_t job = stage_start(&stage, "rounds: 1\n");
	stage_watch(&stage, job, 0, &w);
	assert_int_equal(w.answers, 1);
	assert_int_equal(w.watch.round.accepted, 0);
	assert_string_equal(w.watch.round.phase, "open");
	uint64_t seen = w.watch.version;
	stage_watch(&stage, job, seen, &w);
	stage_settle(&stage);
	assert_int_equal(w.answers, 0);
	stage_report(&stage, "b", job, 1);
	assert_int_equal(w.answers, 1);
	assert_int_equal(w.watch.round.accepted, 1);
	assert_int_equal(w.watch.round.cohort, 3);
	assert_true(w.watch.version > seen);
	/* A restart does not make the watcher wait for a version that never comes. */
	stage_pass(10);
	stage_restart(&stage);
	stage_watch(&stage, job, w.watch.version, &w);
	assert_int_equal(w.answers, 1);
	stage_report(&stage, "a", job, 1);
	stage_report(&stage, "c", job, 1);
	stage_watch(&stage, job, UINT64_MAX, &w);
	stage_settle(&stage);
	assert_int_equal(w.answers, 1);
	assert_int_equal(w.watch.job.state, WIRE_JOB_DONE);
	assert_string_equal(w.watch.round.phase, "committed");
	stage_watch(&stage, job, UINT64_MAX, &w);
	stage_settle(&stage);
	assert_int_equal(w.answers, 1);
	assert_int_equal(w.watch.job.state, WIRE_JOB_DONE);
}

static void a_watchers_hold_ends_too(void **state)
{
	(void)state;
	struct stage_call w, unknown;
	uint64_t job = stage_start(&stage, "deadline: 10m\n");
	stage_watch(&stage, job, UINT64_MAX, &w);
	stage_watch(&stage, job + 1, 0, &unknown);
	stage_settle(&stage);
	assert_int_equal(unknown.answers, 1);
	assert_int_equal(unknown.code, ERR_NOT_FOUND);
	stage_pass(STAGE_HOLD_MS);
	stage_settle(&stage);
	assert_int_equal(w.answers, 1);
	assert_int_equal(w.watch.job.state, WIRE_JOB_RUNNING);
}

static void a_thousand_wait(void **state)
{
	(void)state;
	enum { PLANTS = 1000 };
	struct stage_call *calls = mem_array(PLANTS, sizeof *calls);
	char name[16];
	for (int i = 0; i < PLANTS; i++) {
		snprintf(name, sizeof name, "p%d", i);
		stage_ask(&stage, name, 0, &calls[i]);
	}
	stage_settle(&stage);
	for (int i = 0; i < PLANTS; i += 2) {
		snprintf(name, sizeof name, "p%d", i);
		assert_true(engine_forget(stage.engine, name, &calls[i]));
	}
	stage_pass(STAGE_HOLD_MS);
	stage_settle(&stage);
	for (int i = 0; i < PLANTS; i++)
		assert_int_equal(calls[i].answers, i % 2);
	free(calls);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(those_who_wait_hear_of_a_new_job, setup, teardown),
		cmocka_unit_test_setup_teardown(the_texts_are_those_of_the_job, setup, teardown),
		cmocka_unit_test_setup_teardown(a_plant_that_has_reported_waits_for_the_next_round, setup, teardown),
		cmocka_unit_test_setup_teardown(the_end_is_told_once, setup, teardown),
		cmocka_unit_test_setup_teardown(a_job_without_a_model_ends_with_its_source, setup, teardown),
		cmocka_unit_test_setup_teardown(ends_come_in_order, setup, teardown),
		cmocka_unit_test_setup_teardown(an_end_that_was_missed_comes_first, setup, teardown),
		cmocka_unit_test_setup_teardown(a_job_that_is_skipped_is_not_given_but_its_end_is, setup, teardown),
		cmocka_unit_test_setup_teardown(a_round_that_is_skipped_is_not_given_but_the_next_is, setup, teardown),
		cmocka_unit_test_setup_teardown(who_skips_a_job_gets_another, setup, teardown),
		cmocka_unit_test_setup_teardown(of_two_jobs_the_older_one_first, setup, teardown),
		cmocka_unit_test_setup_teardown(nothing_yet_after_the_hold, setup, teardown),
		cmocka_unit_test_setup_teardown(a_newer_call_takes_the_place, setup, teardown),
		cmocka_unit_test_setup_teardown(who_hangs_up_is_forgotten, setup, teardown),
		cmocka_unit_test_setup_teardown(a_revoked_plant_is_told_so, setup, teardown),
		cmocka_unit_test_setup_teardown(draining_answers_all, setup, teardown),
		cmocka_unit_test_setup_teardown(a_watcher_hears_of_each_change, setup, teardown),
		cmocka_unit_test_setup_teardown(a_watchers_hold_ends_too, setup, teardown),
		cmocka_unit_test_setup_teardown(a_thousand_wait, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
