/*
 * What a start finds: jobs that were cut off, that were tampered with, that have lost something. (That power may go at any moment, and the
 * disk refuse, is in sweep.c and sweep_errors.c; restarts anywhere in property.c.)
 */
#include "coordinator/stage.h"

#include "coordinator/sql.h"

static struct stage stage;

static int setup(void **state)
{
	(void)state;
	stage_make(&stage);
	return 0;
}

/* Every update in a file of its own, as large ones are. */
static int setup_large(void **state)
{
	stage_spool.small_max = 1;
	return setup(state);
}

static int teardown(void **state)
{
	(void)state;
	stage_drop(&stage);
	stage_spool = (struct spool_config){0};
	return 0;
}

/* Send what is missing in the present round; plants send again until they have a receipt. */
static void send_missing(uint64_t job)
{
	uint32_t round = stage_job(&stage, job).round;
	for (const char *who = "abc"; *who != '\0'; who++) {
		const char name[] = {*who, '\0'};
		struct update_row row;
		struct wire_receipt receipt;
		for (int tries = 0; db_update_get(stage.db, job, round, name, &row) == ERR_NOT_FOUND && tries < 10;
		     tries++) {
			if (stage_try_report(&stage, name, job, round, &receipt) == ERR_STALE)
				return; /* sealed meanwhile */
		}
	}
}

/* A sealed round waits for a disk as long as it takes, unless the job is stopped. */
static void a_stop_does_not_wait_for_a_dead_disk(void **state)
{
	(void)state;
	struct bad_disk disk;
	uint64_t job = stage_start(&stage, "quorum: 3\n");
	send_missing(job);
	engine_pump(stage.engine);
	bad_disk_insert(&disk, 0, true);
	disk.spares_database = true; /* where the stop is recorded */
	for (int step = 0; step < 20; step++) {
		engine_pump(stage.engine);
		stage_monotonic += 100000;
	}
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_SEALED);
	assert_ok(engine_job_stop(stage.engine, job));
	engine_pump(stage.engine);
	bad_disk_remove();
	assert_int_equal(stage_job(&stage, job).state, WIRE_JOB_STOPPED);
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_ABANDONED);
}

static void spoil(const char *statement)
{
	char path[PATH_SIZE];
	struct sql *sql;
	stage_close(&stage);
	assert_ok(sql_open(path_join(path, stage.dir, "hansa.db"), &sql));
	assert_ok(sql_run(sql, statement));
	sql_close(sql);
	stage_open(&stage);
}

/* What does not hold together fails with a reason; the other job goes on. */
static void check_spoilt(const char *statement, const char *reason)
{
	setup(NULL);
	uint64_t one = stage_start(&stage, "name: one\n"), two = stage_start(&stage, "name: two\nrounds: 1\n");
	stage_report(&stage, "a", one, 1);
	spoil(statement);
	struct job_row j = stage_job(&stage, one);
	assert_int_equal(j.state, WIRE_JOB_FAILED);
	if (strstr(j.reason, reason) == NULL)
		fail_msg("'%s' does not say '%s'", j.reason, reason);
	for (const char *who = "abc"; *who != '\0'; who++)
		stage_report(&stage, (const char[]){*who, '\0'}, two, 1);
	stage_settle(&stage);
	assert_int_equal(stage_job(&stage, two).state, WIRE_JOB_DONE);
	teardown(NULL);
}

static void what_was_tampered_with_does_not_go_on(void **state)
{
	(void)state;
	check_spoilt("UPDATE job SET config = CAST(replace(CAST(config AS TEXT), '\"quorum\":2', '\"quorum\":1') AS "
		     "BLOB) WHERE id = 1",
		     "hash");
	check_spoilt("UPDATE job SET config_hash = zeroblob(32) WHERE id = 1", "hash");
	check_spoilt("UPDATE job SET manifest = CAST('{}' AS BLOB) WHERE id = 1", "manifest");
	check_spoilt("UPDATE job SET source = randomblob(32) WHERE id = 1", "source model");
	check_spoilt("UPDATE round SET base = randomblob(32) WHERE job = 1", "base model");
	check_spoilt("UPDATE round SET phase = 'sealed', seal = randomblob(32) WHERE job = 1", "quorum");
	check_spoilt("UPDATE round SET phase = 'committed' WHERE job = 1", "quorum");
	check_spoilt("UPDATE round SET phase = 'abandoned' WHERE job = 1", "no other follows");
	check_spoilt("UPDATE contribution SET plant = 'zz' WHERE job = 1", "not in its cohort");
	check_spoilt("DELETE FROM cohort WHERE job = 1 AND plant = 'b'", "not in the job");
	check_spoilt("PRAGMA foreign_keys = OFF; UPDATE job SET round = 9 WHERE id = 1", "last round");
}

static void the_seal_decides(void **state)
{
	(void)state;
	uint64_t job = stage_start(&stage, "quorum: 3\n");
	send_missing(job);
	engine_pump(stage.engine);
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_SEALED);
	spoil("UPDATE contribution SET samples = 999 WHERE plant = 'b'");
	assert_int_equal(stage_job(&stage, job).state, WIRE_JOB_FAILED);
	assert_non_null(strstr(stage_job(&stage, job).reason, "sealed"));
}

/* What an earlier release left when it was stopped between the model and its commit; the model's file is gone: it is made again. */
static void a_lost_result_is_made_again(void **state)
{
	(void)state;
	uint64_t job = stage_start(&stage, "quorum: 3\nrounds: 1\n");
	send_missing(job);
	engine_pump(stage.engine);
	spoil("UPDATE round SET phase = 'aggregated', model = randomblob(32), model_size = 9");
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_AGGREGATED);
	stage_settle(&stage);
	struct job_row j = stage_job(&stage, job);
	struct round_row row = stage_round(&stage, job, 1);
	assert_int_equal(j.state, WIRE_JOB_DONE);
	assert_true(digest_equal(&j.model, &row.model));
	assert_true(store_has(stage.store, &row.model, NULL));
	assert_true(row.model_size > 9 && j.model_size == row.model_size);
}

/* The same with the file: it is committed as it is, without the updates. */
static void a_result_of_an_earlier_release_is_committed(void **state)
{
	(void)state;
	uint64_t job = stage_start(&stage, "quorum: 3\nrounds: 1\n");
	send_missing(job);
	stage_settle(&stage);
	struct digest model = stage_job(&stage, job).model;
	spoil("UPDATE round SET phase = 'aggregated', closed_ms = 0; "
	      "UPDATE job SET state = 'running', model = NULL, model_round = 0, committed = 0, ended_ms = 0");
	stage_settle(&stage);
	struct job_row j = stage_job(&stage, job);
	assert_int_equal(j.state, WIRE_JOB_DONE);
	assert_int_equal(j.committed, 1);
	assert_true(digest_equal(&j.model, &model));
}

/* A value that could be, but is not the one that was sent. Who has checked the bytes a moment ago does not hash them again; after a restart, or
 * after ten minutes, they come from the disk. */
static void what_may_have_left_memory_is_hashed_again(void **state)
{
	(void)state;
	static const struct {
		int64_t ms;
		bool restart;
		enum round_phase phase;
	} cases[] = {{599999, false, ROUND_COMMITTED}, {600000, false, ROUND_ABANDONED}, {0, true, ROUND_ABANDONED}};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		char path[PATH_SIZE];
		struct file_map map;
		struct buf other;
		setup_large(NULL);
		uint64_t job = stage_start(&stage, "quorum: 3\ndeadline: 1h\n");
		stage_report(&stage, "a", job, 1);
		stage_pass(cases[i].ms);
		stage_report(&stage, "b", job, 1);
		stage_report(&stage, "c", job, 1);
		assert_ok(file_map(stage_path(&stage, &(struct spool_key){job, 1, "a"}, path), &map));
		buf_init(&other, 1 << 20);
		assert_ok(buf_append(&other, map.content.p, map.content.n));
		file_unmap(&map);
		other.p[0] ^= 1;
		assert_ok(file_replace(path, buf_bytes(&other), 0600));
		buf_deinit(&other);
		if (cases[i].restart)
			stage_restart(&stage);
		stage_settle(&stage);
		assert_int_equal(stage_round(&stage, job, 1).state.phase, cases[i].phase);
		teardown(NULL);
	}
}

/* What the end of a round asks of the disk: two commits (WS), and the model is written, synced and named once in between; nothing is read
 * back or synced again, and what is removed is not waited for. */
static void the_end_of_a_round_costs_few_syncs(void **state)
{
	(void)state;
	struct disk_tape tape;
	uint64_t job = stage_start(&stage, "quorum: 3\n");
	send_missing(job);
	disk_tape_insert(&tape);
	stage_settle(&stage);
	bad_disk_remove();
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_COMMITTED);
	assert_string_equal(tape.ops, "WSCWSRdWSX");
}

static void leftovers_in_the_spool_go(void **state)
{
	(void)state;
	char dir[PATH_SIZE], path[PATH_SIZE];
	bool large = stage_spool.small_max == 1;
	uint64_t job = stage_start(&stage, "");
	stage_report(&stage, "a", job, 1);
	path_join(dir, stage.dir, "spool");
	assert_ok(file_replace(path_join(path, dir, "1-1-b.update"), bytes_str("no row"), 0600));
	assert_ok(file_replace(path_join(path, dir, "1-2-a.update"), bytes_str("no row from that base"), 0600));
	assert_ok(file_replace(path_join(path, dir, "9-1-a.update"), bytes_str("no job"), 0600));
	assert_ok(file_replace(path_join(path, dir, "1-1-c.3.part"), bytes_str("half, of an earlier release"), 0600));
	assert_ok(file_replace(path_join(path, dir, "1-2.batch"), bytes_str("no round"), 0600));
	assert_ok(file_replace(path_join(path, dir, large ? "1-1.batch" : "1-1-a.update"), bytes_str("no row there"),
			       0600));
	stage_restart(&stage);
	assert_int_equal(count_files(dir, ""), 1);
	assert_true(file_exists(path_join(path, dir, large ? "1-1-a.update" : "1-1.batch")));
}

/* A row without its bytes cannot be combined; while the round is open, the plant can send again. */
static void a_lost_update_is_asked_for_again(void **state)
{
	(void)state;
	char path[PATH_SIZE];
	bool large = stage_spool.small_max == 1;
	uint64_t job = stage_start(&stage, "quorum: 3\nrounds: 1\n");
	struct update_row b;
	struct file *f;
	for (const char *who = "cba"; *who != '\0'; who++)
		stage_report(&stage, (const char[]){*who, '\0'}, job, 1);
	uint64_t bytes = stage_round(&stage, job, 1).bytes_up;
	assert_ok(db_update_get(stage.db, job, 1, "b", &b));
	if (large) {
		assert_ok(file_remove(path_join(path, stage.dir, "spool/1-1-a.update")));
		assert_ok(file_replace(path_join(path, stage.dir, "spool/1-1-b.update"), bytes_str("cut short"), 0600));
	} else {
		assert_ok(file_append_open(path_join(path, stage.dir, "spool/1-1.batch"), 0600, &f));
		assert_ok(file_truncate(f, (uint64_t)b.place + b.size - 1));
		file_close(f);
	}
	stage_restart(&stage);
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_OPEN);
	assert_int_equal(stage_round(&stage, job, 1).state.accepted, 1);
	assert_int_equal(stage_round(&stage, job, 1).bytes_up, bytes / 3);
	assert_true(stage_report(&stage, "c", job, 1).repeated);
	assert_false(stage_report(&stage, "a", job, 1).repeated);
	assert_false(stage_report(&stage, "b", job, 1).repeated);
	stage_settle(&stage);
	assert_int_equal(stage_job(&stage, job).state, WIRE_JOB_DONE);
	assert_int_equal(stage_round(&stage, job, 1).state.accepted, 3);
}

static void a_deadline_goes_on_while_nobody_serves(void **state)
{
	(void)state;
	uint64_t job = stage_start(&stage, "");
	stage_report(&stage, "a", job, 1);
	stage_report(&stage, "b", job, 1);
	stage_close(&stage);
	stage_pass(60000);
	stage_open(&stage);
	stage_settle(&stage);
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_COMMITTED);
	assert_int_equal(stage_round(&stage, job, 1).state.accepted, 2);
}

static void a_plant_revoked_before_the_restart_is_not_waited_for(void **state)
{
	(void)state;
	uint64_t job = stage_start(&stage, "");
	stage_report(&stage, "a", job, 1);
	stage_report(&stage, "b", job, 1);
	assert_ok(db_member_revoke(stage.db, ROLE_PLANT, "c", stage_wall));
	stage_restart(&stage);
	stage_settle(&stage);
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_COMMITTED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_stop_does_not_wait_for_a_dead_disk, setup, teardown),
		cmocka_unit_test(what_was_tampered_with_does_not_go_on),
		cmocka_unit_test_setup_teardown(the_seal_decides, setup, teardown),
		cmocka_unit_test_setup_teardown(a_lost_result_is_made_again, setup, teardown),
		cmocka_unit_test_setup_teardown(a_result_of_an_earlier_release_is_committed, setup, teardown),
		cmocka_unit_test(what_may_have_left_memory_is_hashed_again),
		cmocka_unit_test_setup_teardown(the_end_of_a_round_costs_few_syncs, setup, teardown),
		cmocka_unit_test_setup_teardown(leftovers_in_the_spool_go, setup, teardown),
		cmocka_unit_test_setup_teardown(leftovers_in_the_spool_go, setup_large, teardown),
		cmocka_unit_test_setup_teardown(a_lost_update_is_asked_for_again, setup, teardown),
		cmocka_unit_test_setup_teardown(a_lost_update_is_asked_for_again, setup_large, teardown),
		cmocka_unit_test_setup_teardown(a_deadline_goes_on_while_nobody_serves, setup, teardown),
		cmocka_unit_test_setup_teardown(a_plant_revoked_before_the_restart_is_not_waited_for, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
