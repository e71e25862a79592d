/*
 * Rounds of the engine: how they open, close, fail, stop, and what they come to.
 */
#include "coordinator/stage.h"

#include "coordinator/engine_parts.h"
#include "coordinator/spool.h"

#include <math.h>
#include <pthread.h>

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

static void all_of_the_cohort_closes_a_round(void **state)
{
	(void)state;
	uint64_t job = stage_start(&stage, "quorum: 3\n");
	stage_report(&stage, "a", job, 1);
	stage_report(&stage, "b", job, 1);
	stage_settle(&stage);
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_OPEN);
	stage_report(&stage, "c", job, 1);
	stage_settle(&stage);
	struct round_row first = stage_round(&stage, job, 1), second = stage_round(&stage, job, 2);
	assert_int_equal(first.state.phase, ROUND_COMMITTED);
	assert_int_equal(first.state.accepted, 3);
	assert_int_equal(first.bytes_up, 3 * manifest_update_bytes(stage.manifest));
	assert_false(digest_is_zero(&first.seal));
	assert_true(digest_equal(&first.base, &stage.source));
	assert_int_equal(second.state.phase, ROUND_OPEN);
	assert_true(digest_equal(&second.base, &first.model));
	assert_true(store_has(stage.store, &first.model, NULL));
}

static void the_last_round_ends_the_job(void **state)
{
	(void)state;
	uint64_t job = stage_start(&stage, "");
	for (uint32_t round = 1; round <= 2; round++) {
		assert_int_equal(stage_job(&stage, job).state, WIRE_JOB_RUNNING);
		for (const char *who = "abc"; *who != '\0'; who++)
			stage_report(&stage, (const char[]){*who, '\0'}, job, round);
		stage_settle(&stage);
	}
	struct job_row j = stage_job(&stage, job);
	struct round_row last = stage_round(&stage, job, 2);
	assert_int_equal(j.state, WIRE_JOB_DONE);
	assert_int_equal(j.committed, 2);
	assert_int_equal(j.ended_ms, stage_wall);
	assert_true(digest_equal(&j.model, &last.model));
	char spool[PATH_SIZE];
	assert_int_equal(count_files(path_join(spool, stage.dir, "spool"), ""), 0);
}

/* The model that a job of two rounds ends with, for an order of arrival. */
static struct digest result_of(const char *order)
{
	struct stage s;
	stage_make(&s);
	uint64_t job = stage_start(&s, "");
	for (uint32_t round = 1; round <= 2; round++) {
		for (const char *who = order; *who != '\0'; who++)
			stage_report(&s, (const char[]){*who, '\0'}, job, round);
		stage_settle(&s);
	}
	struct job_row j = stage_job(&s, job);
	assert_int_equal(j.state, WIRE_JOB_DONE);
	stage_drop(&s);
	return j.model;
}

static void the_order_of_arrival_changes_nothing(void **state)
{
	(void)state;
	static const char *const orders[] = {"acb", "bac", "bca", "cab", "cba"};
	struct digest expected = result_of("abc");
	for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
		stage_pass(12345); /* nor does the time of day */
		struct digest got = result_of(orders[i]);
		assert_true(digest_equal(&got, &expected));
	}
}

static void the_models_file_says_where_it_comes_from(void **state)
{
	(void)state;
	uint64_t job = stage_start(&stage, "rounds: 1\nname: lineage\n");
	for (const char *who = "abc"; *who != '\0'; who++)
		stage_report(&stage, (const char[]){*who, '\0'}, job, 1);
	stage_settle(&stage);
	struct job_row j = stage_job(&stage, job);
	char path[PATH_SIZE], source[DIGEST_TEXT_SIZE];
	struct file_map map;
	struct safetensors *st;
	assert_ok(file_map(store_path(stage.store, &j.model, path), &map));
	assert_ok(safetensors_parse(path, map.content, &st));
	assert_string_equal(safetensors_meta(st, "hansa.federation"), "test");
	assert_string_equal(safetensors_meta(st, "hansa.job"), "lineage");
	assert_string_equal(safetensors_meta(st, "hansa.round"), "1");
	assert_string_equal(safetensors_meta(st, "hansa.parent"), digest_format(&stage.source, source));
	safetensors_free(st);
	file_unmap(&map);
}

static void the_deadline_closes_with_a_quorum(void **state)
{
	(void)state;
	struct wire_receipt receipt;
	uint64_t job = stage_start(&stage, "");
	stage_report(&stage, "a", job, 1);
	stage_report(&stage, "c", job, 1);
	stage_pass(59999);
	stage_settle(&stage);
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_OPEN);
	stage_pass(1);
	assert_fails(stage_try_report(&stage, "b", job, 1, &receipt), ERR_STALE, "deadline");
	stage_settle(&stage);
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_COMMITTED);
	assert_int_equal(stage_round(&stage, job, 1).state.accepted, 2);
	assert_int_equal(stage_round(&stage, job, 2).state.cohort, 3);
	assert_fails(stage_try_report(&stage, "b", job, 1, &receipt), ERR_STALE, "not open");
}

static void the_engine_says_when_it_wants_to_be_asked_again(void **state)
{
	(void)state;
	stage_settle(&stage);
	int64_t idle = engine_pump(stage.engine);
	uint64_t job = stage_start(&stage, "deadline: 5s\n");
	assert_int_equal(engine_pump(stage.engine), 5000);
	stage_pass(1500);
	assert_int_equal(engine_pump(stage.engine), 3500);
	assert_ok(engine_job_stop(stage.engine, job));
	stage_settle(&stage);
	assert_int_equal(engine_pump(stage.engine), idle);
}

static void without_a_quorum_a_round_is_opened_again(void **state)
{
	(void)state;
	uint64_t job = stage_start(&stage, "");
	stage_report(&stage, "a", job, 1);
	stage_pass(60000);
	stage_settle(&stage);
	struct round_row first = stage_round(&stage, job, 1), second = stage_round(&stage, job, 2);
	assert_int_equal(first.state.phase, ROUND_ABANDONED);
	assert_non_null(strstr(first.reason, "1 of 3"));
	assert_true(digest_equal(&second.base, &first.base));
	assert_int_equal(stage_job(&stage, job).failures, 1);
	/* One that works makes good for it: the job still commits as many rounds as it wants. */
	for (uint32_t round = 2; round <= 3; round++) {
		assert_int_equal(stage_job(&stage, job).state, WIRE_JOB_RUNNING);
		stage_report(&stage, "a", job, round);
		stage_report(&stage, "b", job, round);
		stage_pass(60000);
		stage_settle(&stage);
		assert_int_equal(stage_job(&stage, job).failures, 0);
	}
	assert_int_equal(stage_job(&stage, job).state, WIRE_JOB_DONE);
	assert_int_equal(stage_job(&stage, job).round, 3);
}

static void a_job_fails_after_too_many_of_them(void **state)
{
	(void)state;
	uint64_t job = stage_start(&stage, "failures_max: 2\n");
	for (int i = 0; i < 2; i++) {
		assert_int_equal(stage_job(&stage, job).state, WIRE_JOB_RUNNING);
		stage_pass(60000);
		stage_settle(&stage);
	}
	struct job_row j = stage_job(&stage, job);
	assert_int_equal(j.state, WIRE_JOB_FAILED);
	assert_true(digest_is_zero(&j.model));
	assert_non_null(strstr(j.reason, "0 of 3"));
}

static void a_spoilt_spool_gives_the_round_up(void **state)
{
	(void)state;
	char path[PATH_SIZE];
	uint64_t job = stage_start(&stage, "");
	for (const char *who = "abc"; *who != '\0'; who++)
		stage_report(&stage, (const char[]){*who, '\0'}, job, 1);
	struct file *f;
	assert_ok(file_append_open(path_join(path, stage.dir, "spool/1-1.batch"), 0600, &f));
	assert_ok(file_truncate(f, 8));
	file_close(f);
	stage_settle(&stage);
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_ABANDONED);
	assert_non_null(strstr(stage_round(&stage, job, 1).reason, "aggregation failed"));
	struct round_row second = stage_round(&stage, job, 2);
	assert_int_equal(second.state.phase, ROUND_OPEN);
	assert_true(digest_equal(&second.base, &stage.source));
}

static void an_open_round_is_stopped_at_once(void **state)
{
	(void)state;
	uint64_t job = stage_start(&stage, "");
	stage_report(&stage, "a", job, 1);
	assert_ok(engine_job_stop(stage.engine, job));
	stage_settle(&stage);
	assert_int_equal(stage_job(&stage, job).state, WIRE_JOB_STOPPED);
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_ABANDONED);
	assert_fails(engine_job_stop(stage.engine, job), ERR_STATE, "ended (stopped)");
	assert_fails(engine_job_stop(stage.engine, job + 1), ERR_NOT_FOUND, "no job");
}

static void a_sealed_round_is_committed_before_the_stop(void **state)
{
	(void)state;
	uint64_t job = stage_start(&stage, "rounds: 5\n");
	for (const char *who = "abc"; *who != '\0'; who++)
		stage_report(&stage, (const char[]){*who, '\0'}, job, 1);
	engine_pump(stage.engine);
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_SEALED);
	assert_ok(engine_job_stop(stage.engine, job));
	stage_settle(&stage);
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_COMMITTED);
	struct job_row j = stage_job(&stage, job);
	assert_int_equal(j.state, WIRE_JOB_STOPPED);
	assert_int_equal(j.committed, 1);
	assert_int_equal(j.round, 1);
}

static void the_cohort_may_be_named(void **state)
{
	(void)state;
	struct wire_receipt receipt;
	uint64_t job = stage_start(&stage, "plants: [c, a]\nrounds: 1\n");
	assert_int_equal(stage_round(&stage, job, 1).state.cohort, 2);
	assert_fails(stage_try_report(&stage, "b", job, 1, &receipt), ERR_DENIED, "not in the cohort");
	stage_report(&stage, "c", job, 1);
	stage_report(&stage, "a", job, 1);
	stage_settle(&stage);
	assert_int_equal(stage_job(&stage, job).state, WIRE_JOB_DONE);
}

static void what_cannot_work_is_not_started(void **state)
{
	(void)state;
	uint64_t job;
	static const struct {
		const char *text;
		enum err code;
		const char *part;
	} cases[] = {
		{"quorum: 4\n", ERR_CONFIG, "3 plants that are enrolled"},
		{"plants: [a, nobody]\n", ERR_CONFIG, "nobody is not enrolled"},
		{"plants: [a, a]\n", ERR_CONFIG, "twice"},
		{"local: ['*']\n", ERR_CONFIG, ""},
		{"train: {freeze: [no.such.tensor]}\n", ERR_CONFIG, "no.such.tensor"},
		{"name: ''\n", ERR_CONFIG, "name"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		assert_fails(stage_try_start(&stage, cases[i].text, &job), cases[i].code, cases[i].part);
	struct digest known = stage.source;
	stage.source = digest_of(bytes_str("no model"));
	assert_fails(stage_try_start(&stage, "", &job), ERR_NOT_FOUND, "published");
	stage.source = known;
	stage_start(&stage, "");
	assert_fails(stage_try_start(&stage, "", &job), ERR_STATE, "is running");
	stage_start(&stage, "name: other\n");
}

static void a_source_that_is_not_finite_is_not_started(void **state)
{
	(void)state;
	uint64_t job, size;
	char temp[PATH_SIZE];
	stage.model->theta[3] = NAN;
	assert_ok(safetensors_save(store_temp_path(stage.store, "bad", temp), stage.model, NULL));
	assert_ok(store_adopt(stage.store, temp, NULL, &stage.source, &size));
	assert_int_equal(stage_try_start(&stage, "", &job), ERR_NUMERIC);
}

static void only_the_canonical_configuration_is_taken(void **state)
{
	(void)state;
	uint64_t job;
	struct wire_start_job request = {.source = stage.source};
	buf_init(&request.config, WIRE_CONFIG_MAX);
	assert_ok(buf_printf(&request.config, "{\"name\":\"short\",\"quorum\":2}"));
	assert_fails(engine_job_start(stage.engine, &request, &job), ERR_MALFORMED, "canonical");
	buf_reset(&request.config);
	assert_ok(buf_printf(&request.config, "not JSON"));
	assert_int_equal(engine_job_start(stage.engine, &request, &job), ERR_MALFORMED);
	wire_start_job_free(&request);
}

static void only_so_many_jobs_run_at_a_time(void **state)
{
	(void)state;
	uint64_t job;
	char text[64];
	for (int i = 0; i < ENGINE_JOBS_MAX; i++) {
		snprintf(text, sizeof text, "name: job%d\n", i);
		stage_start(&stage, text);
	}
	assert_fails(stage_try_start(&stage, "name: more\n", &job), ERR_LIMIT, "jobs are running");
	assert_ok(engine_job_stop(stage.engine, 7));
	stage_settle(&stage);
	stage_start(&stage, "name: more\n");
}

static void a_revoked_plant_is_not_waited_for(void **state)
{
	(void)state;
	uint64_t job = stage_start(&stage, "rounds: 3\n");
	stage_report(&stage, "a", job, 1);
	stage_report(&stage, "b", job, 1);
	stage_settle(&stage);
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_OPEN);
	assert_ok(db_member_revoke(stage.db, ROLE_PLANT, "c", stage_wall));
	assert_ok(registry_reload(stage.registry));
	engine_revoked(stage.engine, "c");
	stage_settle(&stage);
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_COMMITTED);
	assert_int_equal(stage_round(&stage, job, 2).state.cohort, 2);
	/* Two of two are the quorum: without one more of them the job cannot go on, and says so. */
	assert_ok(db_member_revoke(stage.db, ROLE_PLANT, "b", stage_wall));
	assert_ok(registry_reload(stage.registry));
	engine_revoked(stage.engine, "b");
	stage_report(&stage, "a", job, 2);
	stage_pass(60000);
	stage_settle(&stage);
	assert_int_equal(stage_job(&stage, job).state, WIRE_JOB_FAILED);
	assert_non_null(strstr(stage_job(&stage, job).reason, "still enrolled"));
}

/* The roster says that the plant is gone, but the engine has been told while the round was still being opened. */
static void a_round_does_not_open_for_whoever_left_meanwhile(void **state)
{
	(void)state;
	struct run *r;
	struct round_row *rounds;
	size_t n;
	uint64_t job = stage_start(&stage, "");
	assert_ok(run_load(stage.db, stage.engine->spool, job, &r));
	registry_revoke(stage.registry, ROLE_PLANT, "c");
	assert_int_equal(r->round.cohort, 3);
	engine_dismiss_absent(stage.engine, r);
	assert_int_equal(r->round.cohort, 2);
	assert_false(run_seat(r, "c")->invited);
	run_free(r);
	assert_ok(db_round_list(stage.db, job, &rounds, &n));
	assert_int_equal(n, 1);
	free(rounds);
}

/* A base that the disk has damaged would give another model, and nobody would know. */
static void a_damaged_base_gives_no_model(void **state)
{
	(void)state;
	char path[PATH_SIZE];
	struct buf content;
	uint64_t job = stage_start(&stage, "failures_max: 1\n");
	store_path(stage.store, &stage.source, path);
	assert_ok(file_read(path, 1 << 20, &content));
	content.p[content.n - 3] ^= 1;
	assert_ok(file_replace(path, buf_bytes(&content), 0600));
	buf_deinit(&content);
	for (const char *who = "abc"; *who != '\0'; who++)
		stage_report(&stage, (const char[]){*who, '\0'}, job, 1);
	stage_settle(&stage);
	assert_int_equal(stage_job(&stage, job).state, WIRE_JOB_FAILED);
	assert_non_null(strstr(stage_job(&stage, job).reason, "is not the model"));
	struct round_row row = stage_round(&stage, job, 1);
	assert_true(digest_is_zero(&row.model));
}

/* Two operators start a job of one name at the same time: one of them does. */
static void *start_twin(void *arg)
{
	uint64_t job;
	*(enum err *)arg = stage_try_start(&stage, "name: twin\n", &job);
	return NULL;
}

static void one_name_one_job(void **state)
{
	(void)state;
	enum { OPERATORS = 4 };
	pthread_t threads[OPERATORS];
	enum err errors[OPERATORS];
	size_t started = 0, refused = 0;
	for (size_t i = 0; i < OPERATORS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, start_twin, &errors[i]), 0);
	for (size_t i = 0; i < OPERATORS; i++) {
		pthread_join(threads[i], NULL);
		started += errors[i] == ERR_OK;
		refused += errors[i] == ERR_STATE;
	}
	assert_int_equal(started, 1);
	assert_int_equal(refused, OPERATORS - 1);
}

/* A stop holds nobody up: it is told what to wait for. A disk may stay full for as long as it likes. */
static void a_stop_does_not_wait_for_the_present_step(void **state)
{
	(void)state;
	struct bad_disk disk;
	uint64_t job = stage_start(&stage, "quorum: 3\n");
	for (const char *who = "abc"; *who != '\0'; who++)
		stage_report(&stage, (const char[]){*who, '\0'}, job, 1);
	engine_pump(stage.engine); /* sealed */
	bad_disk_insert(&disk, 0, true);
	engine_pump(stage.engine); /* and cannot be aggregated; the clock is held, so it is not tried again */
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_SEALED);
	struct stage_call watch;
	stage_watch(&stage, job, UINT64_MAX, &watch);
	assert_ok(engine_job_stop(stage.engine, job));
	stage_settle(&stage);
	assert_int_equal(stage_job(&stage, job).state, WIRE_JOB_RUNNING);
	assert_int_equal(watch.answers, 0);
	assert_ok(engine_job_stop(stage.engine, job)); /* impatience does no harm */
	bad_disk_remove();
	assert_ok(engine_job_stop(stage.engine, job)); /* tried again at once */
	stage_settle(&stage);
	assert_int_equal(stage_job(&stage, job).state, WIRE_JOB_STOPPED);
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_COMMITTED);
	assert_int_equal(watch.answers, 1);
	assert_fails(engine_job_stop(stage.engine, job), ERR_STATE, "ended (stopped)");
}

static void jobs_do_not_disturb_each_other(void **state)
{
	(void)state;
	uint64_t one = stage_start(&stage, "name: one\nrounds: 1\n"),
		 two = stage_start(&stage, "name: two\nrounds: 1\ndeadline: 90s\n");
	stage_report(&stage, "a", one, 1);
	stage_report(&stage, "a", two, 1);
	stage_report(&stage, "b", two, 1);
	stage_report(&stage, "c", two, 1);
	stage_settle(&stage);
	assert_int_equal(stage_job(&stage, two).state, WIRE_JOB_DONE);
	assert_int_equal(stage_job(&stage, one).state, WIRE_JOB_RUNNING);
	stage_report(&stage, "b", one, 1);
	stage_pass(60000);
	stage_settle(&stage);
	assert_int_equal(stage_job(&stage, one).state, WIRE_JOB_DONE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(all_of_the_cohort_closes_a_round, setup, teardown),
		cmocka_unit_test_setup_teardown(the_last_round_ends_the_job, setup, teardown),
		cmocka_unit_test(the_order_of_arrival_changes_nothing),
		cmocka_unit_test_setup_teardown(the_models_file_says_where_it_comes_from, setup, teardown),
		cmocka_unit_test_setup_teardown(the_deadline_closes_with_a_quorum, setup, teardown),
		cmocka_unit_test_setup_teardown(the_engine_says_when_it_wants_to_be_asked_again, setup, teardown),
		cmocka_unit_test_setup_teardown(without_a_quorum_a_round_is_opened_again, setup, teardown),
		cmocka_unit_test_setup_teardown(a_job_fails_after_too_many_of_them, setup, teardown),
		cmocka_unit_test_setup_teardown(a_spoilt_spool_gives_the_round_up, setup, teardown),
		cmocka_unit_test_setup_teardown(an_open_round_is_stopped_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(a_sealed_round_is_committed_before_the_stop, setup, teardown),
		cmocka_unit_test_setup_teardown(the_cohort_may_be_named, setup, teardown),
		cmocka_unit_test_setup_teardown(what_cannot_work_is_not_started, setup, teardown),
		cmocka_unit_test_setup_teardown(a_source_that_is_not_finite_is_not_started, setup, teardown),
		cmocka_unit_test_setup_teardown(only_the_canonical_configuration_is_taken, setup, teardown),
		cmocka_unit_test_setup_teardown(only_so_many_jobs_run_at_a_time, setup, teardown),
		cmocka_unit_test_setup_teardown(a_revoked_plant_is_not_waited_for, setup, teardown),
		cmocka_unit_test_setup_teardown(a_round_does_not_open_for_whoever_left_meanwhile, setup, teardown),
		cmocka_unit_test_setup_teardown(a_damaged_base_gives_no_model, setup, teardown),
		cmocka_unit_test_setup_teardown(one_name_one_job, setup, teardown),
		cmocka_unit_test_setup_teardown(a_stop_does_not_wait_for_the_present_step, setup, teardown),
		cmocka_unit_test_setup_teardown(jobs_do_not_disturb_each_other, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
