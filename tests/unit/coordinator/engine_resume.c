/*
 * Jobs that go on after they were stopped or failed, and stored jobs of earlier releases.
 */
#include "coordinator/stage.h"

#include "coordinator/engine_parts.h"
#include "coordinator/sql.h"

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

static void report_all(uint64_t job)
{
	for (const char *who = "abc"; *who != '\0'; who++)
		stage_report(&stage, (const char[]){*who, '\0'}, job, stage_job(&stage, job).round);
	stage_settle(&stage);
}

static void stop(uint64_t job)
{
	assert_ok(engine_job_stop(stage.engine, job));
	stage_settle(&stage);
	assert_int_equal(stage_job(&stage, job).state, WIRE_JOB_STOPPED);
}

static void change(const char *statement)
{
	char path[PATH_SIZE];
	struct sql *sql;
	stage_close(&stage);
	assert_ok(sql_open(path_join(path, stage.dir, "hansa.db"), &sql));
	assert_ok(sql_run(sql, statement));
	sql_close(sql);
	stage_open(&stage);
}

/* Stopped at once, or after a round; the coordinator restarted before it is resumed, after it, both, or never. */
static void a_stopped_job_goes_on(void **state)
{
	(void)state;
	for (int variant = 0; variant < 8; variant++) {
		bool with_model = (variant & 1) != 0;
		setup(NULL);
		uint64_t job = stage_start(&stage, "");
		if (with_model)
			report_all(job);
		uint32_t last = stage_job(&stage, job).round;
		stage_report(&stage, "a", job, last); /* of the round that is lost */
		stop(job);
		struct job_row before = stage_job(&stage, job);
		if ((variant & 2) != 0)
			stage_restart(&stage);
		stage_pass(1000);
		assert_ok(engine_job_resume(stage.engine, job));
		if ((variant & 4) != 0)
			stage_restart(&stage);
		struct job_row j = stage_job(&stage, job);
		struct round_row next = stage_round(&stage, job, last + 1);
		assert_int_equal(j.state, WIRE_JOB_RUNNING);
		assert_int_equal(j.ended_ms, 0);
		assert_string_equal(j.reason, "");
		assert_int_equal(j.round, last + 1);
		assert_int_equal(j.committed, with_model);
		assert_true(digest_equal(&j.config_hash, &before.config_hash));
		assert_int_equal(stage_round(&stage, job, last).state.phase, ROUND_ABANDONED);
		assert_true(digest_equal(&next.base, with_model ? &before.model : &stage.source));
		assert_int_equal(next.state.accepted, 0);
		while (stage_job(&stage, job).state == WIRE_JOB_RUNNING)
			report_all(job);
		assert_int_equal(stage_job(&stage, job).state, WIRE_JOB_DONE);
		assert_int_equal(stage_job(&stage, job).committed, 2);
		teardown(NULL);
	}
}

static void a_failed_job_goes_on(void **state)
{
	(void)state;
	uint64_t job = stage_start(&stage, "failures_max: 1\n");
	stage_pass(60000);
	stage_settle(&stage);
	assert_int_equal(stage_job(&stage, job).state, WIRE_JOB_FAILED);
	assert_ok(engine_job_resume(stage.engine, job));
	assert_int_equal(stage_job(&stage, job).failures, 0);
	report_all(job);
	assert_int_equal(stage_job(&stage, job).committed, 1);
}

static void what_cannot_go_on_is_left_as_it_is(void **state)
{
	(void)state;
	char path[PATH_SIZE];
	uint64_t done = stage_start(&stage, "name: done\nrounds: 1\n"), running = stage_start(&stage, "name: again\n"),
		 stopped;
	report_all(done);
	assert_fails(engine_job_resume(stage.engine, done), ERR_STATE, "is done");
	assert_fails(engine_job_resume(stage.engine, running), ERR_STATE, "is running");
	assert_fails(engine_job_resume(stage.engine, 77), ERR_NOT_FOUND, "no job 77");
	assert_fails(engine_job_resume(stage.engine, UINT64_MAX), ERR_NOT_FOUND, "no job");
	stop(running);
	stopped = running;
	running = stage_start(&stage, "name: again\n");
	assert_fails(engine_job_resume(stage.engine, stopped), ERR_STATE, "a job named again is running");
	stop(running);
	/* Its plants, its models, its configuration. */
	assert_ok(db_member_revoke(stage.db, ROLE_PLANT, "a", stage_wall));
	assert_ok(db_member_revoke(stage.db, ROLE_PLANT, "b", stage_wall));
	assert_ok(registry_reload(stage.registry));
	assert_fails(engine_job_resume(stage.engine, stopped), ERR_STATE, "still enrolled");
	stage_enrol(&stage, "a");
	assert_ok(file_rename(store_path(stage.store, &stage.source, path),
			      path_join((char[PATH_SIZE]){0}, stage.dir, "aside")));
	assert_fails(engine_job_resume(stage.engine, stopped), ERR_NOT_FOUND, "source model");
	assert_ok(file_rename(path_join((char[PATH_SIZE]){0}, stage.dir, "aside"), path));
	change("UPDATE job SET config_hash = zeroblob(32) WHERE id = 2");
	assert_fails(engine_job_resume(stage.engine, stopped), ERR_CORRUPT, "hash");
	assert_int_equal(stage_job(&stage, stopped).state, WIRE_JOB_STOPPED);
	assert_int_equal(stage_job(&stage, stopped).round, 1);
	/* None of that has kept the place. */
	assert_ok(engine_job_resume(stage.engine, running));
	stop(running);
	engine_drain(stage.engine);
	assert_fails(engine_job_resume(stage.engine, running), ERR_UNAVAILABLE, "stopping");
}

/* A job that could not be taken up after a restart has a round that never ended. */
static void a_round_that_never_ended_is_abandoned(void **state)
{
	(void)state;
	uint64_t job = stage_start(&stage, "");
	stage_report(&stage, "a", job, 1);
	change("UPDATE contribution SET plant = 'zz'");
	assert_int_equal(stage_job(&stage, job).state, WIRE_JOB_FAILED);
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_OPEN);
	assert_ok(engine_job_resume(stage.engine, job));
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_ABANDONED);
	report_all(job);
	assert_int_equal(stage_job(&stage, job).committed, 1);
}

static void watchers_and_plants_see_it_go_on(void **state)
{
	(void)state;
	struct stage_call watch, a, b;
	uint64_t job = stage_start(&stage, "rounds: 1\n");
	stop(job);
	stage_watch(&stage, job, 0, &watch);
	stage_settle(&stage);
	assert_int_equal(watch.watch.job.state, WIRE_JOB_STOPPED);
	uint64_t seen = watch.watch.version;
	/* It has heard of the end, and waits. */
	stage_ask(&stage, "a", job, &a);
	stage_settle(&stage);
	assert_int_equal(a.answers, 0);
	assert_ok(engine_job_resume(stage.engine, job));
	assert_int_equal(a.answers, 1);
	assert_int_equal(a.task.kind, WIRE_TASK_TRAIN);
	assert_int_equal(a.task.job, job);
	assert_int_equal(a.task.round, 2);
	stage_watch(&stage, job, seen, &watch);
	assert_int_equal(watch.answers, 1);
	assert_int_equal(watch.watch.job.state, WIRE_JOB_RUNNING);
	assert_true(watch.watch.version > seen);
	/* Its second end is told to those who have taken it up again, and to those who have not heard of the first. */
	stage_report(&stage, "a", job, 2);
	stage_ask(&stage, "a", job - 1, &a);
	stage_report(&stage, "b", job, 2);
	stage_ask(&stage, "b", 0, &b);
	stage_report(&stage, "c", job, 2);
	stage_settle(&stage);
	assert_int_equal(stage_job(&stage, job).state, WIRE_JOB_DONE);
	assert_int_equal(a.task.kind, WIRE_TASK_FINISHED);
	assert_int_equal(b.task.kind, WIRE_TASK_FINISHED);
}

static void ask_after(const char *who, uint64_t finished, uint32_t ends, struct stage_call *c)
{
	struct wire_task_request request = {.finished_job = finished, .finished_ends = ends};
	*c = (struct stage_call){.answers = 0};
	engine_task(stage.engine, who, &request, stage_answer, c);
	stage_settle(&stage);
}

/* Also to a plant that has heard of the first and was away in between; one that cannot say how many it has heard of is not told for ever. */
static void a_second_end_is_told(void **state)
{
	(void)state;
	struct stage_call a, b, c;
	uint64_t job = stage_start(&stage, "rounds: 1\n");
	stop(job);
	ask_after("a", 0, 0, &a);
	assert_int_equal(a.task.kind, WIRE_TASK_FINISHED);
	assert_int_equal(a.task.job_ends, 1);
	assert_ok(engine_job_resume(stage.engine, job));
	ask_after("b", job, 1, &b);
	assert_int_equal(b.task.kind, WIRE_TASK_TRAIN);
	assert_int_equal(b.task.job_ends, 1);
	stage_report(&stage, "b", job, 2);
	ask_after("b", job, 1, &b);
	stage_report(&stage, "a", job, 2);
	ask_after("a", job, 0, &a); /* an older plant, at the right moment */
	stage_report(&stage, "c", job, 2);
	stage_settle(&stage);
	assert_int_equal(stage_job(&stage, job).ends, 2);
	assert_int_equal(a.answers + b.answers, 2);
	assert_int_equal(a.task.kind, WIRE_TASK_FINISHED);
	assert_int_equal(b.task.kind, WIRE_TASK_FINISHED);
	assert_int_equal(b.task.job_ends, 2);
	for (int restarted = 0; restarted < 2; restarted++) {
		ask_after("c", job, 1, &c);
		assert_int_equal(c.answers, 1);
		assert_int_equal(c.task.kind, WIRE_TASK_FINISHED);
		assert_int_equal(c.task.job_ends, 2);
		ask_after("c", job, 2, &c);
		ask_after("a", job, 0, &a);
		assert_int_equal(a.answers + c.answers, 0);
		engine_drain(stage.engine);
		stage_restart(&stage);
	}
}

/* Whoever knows of the last end is not looked up. */
static void only_those_who_may_have_missed_an_end_are_looked_up(void **state)
{
	(void)state;
	struct stage_call a;
	stage_ask(&stage, "a", 0, &a);
	assert_int_equal(stage.engine->lobby.n_unchecked, 0);
	uint64_t job = stage_start(&stage, "rounds: 1\n");
	report_all(job);
	for (int restarted = 0; restarted < 2; restarted++) {
		stage_ask(&stage, "a", job, &a);
		assert_int_equal(stage.engine->lobby.n_unchecked, 0);
		stage_ask(&stage, "b", 0, &a);
		assert_int_equal(stage.engine->lobby.n_unchecked, 1);
		stage_settle(&stage);
		assert_int_equal(a.task.kind, WIRE_TASK_FINISHED);
		engine_drain(stage.engine);
		stage_restart(&stage);
	}
}

/* The text of a job that an earlier release started is what that release wrote, whether this one would write it so or not. */
static void a_stored_job_of_another_release_goes_on(void **state)
{
	(void)state;
	uint64_t job = stage_start(&stage, "");
	struct job_row j;
	assert_ok(db_job_get(stage.db, job, &j));
	assert_null(strstr(buf_str(&j.config), "\"cohort\""));
	char *text = mem_printf("%s ", buf_str(&j.config)); /* as JSON the same */
	struct digest hash = job_hash(bytes_str(text));
	char hex[DIGEST_TEXT_SIZE];
	char *statement = mem_printf("UPDATE job SET config = CAST('%s' AS BLOB), config_hash = X'%s'", text,
				     digest_format(&hash, hex));
	job_row_deinit(&j);
	change(statement);
	free(statement);
	free(text);
	assert_int_equal(stage_job(&stage, job).state, WIRE_JOB_RUNNING);
	report_all(job);
	stop(job);
	assert_ok(engine_job_resume(stage.engine, job));
	report_all(job);
	assert_int_equal(stage_job(&stage, job).state, WIRE_JOB_DONE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_stopped_job_goes_on),
		cmocka_unit_test_setup_teardown(a_failed_job_goes_on, setup, teardown),
		cmocka_unit_test_setup_teardown(what_cannot_go_on_is_left_as_it_is, setup, teardown),
		cmocka_unit_test_setup_teardown(a_round_that_never_ended_is_abandoned, setup, teardown),
		cmocka_unit_test_setup_teardown(watchers_and_plants_see_it_go_on, setup, teardown),
		cmocka_unit_test_setup_teardown(a_second_end_is_told, setup, teardown),
		cmocka_unit_test_setup_teardown(only_those_who_may_have_missed_an_end_are_looked_up, setup, teardown),
		cmocka_unit_test_setup_teardown(a_stored_job_of_another_release_goes_on, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
