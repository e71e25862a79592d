/*
 * The database's jobs, rounds, updates and reports.
 */
#include "coordinator/fixture.h"

#include "coordinator/db.h"
#include "coordinator/sql.h"

#include <pthread.h>
#include <stdatomic.h>

static char *dir;
static struct db *db;
static char path[PATH_SIZE];

static int setup(void **state)
{
	(void)state;
	dir = scratch_make();
	assert_ok(db_open(path_join(path, dir, "hansa.db"), &db));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	db_close(db);
	scratch_remove(dir);
	return 0;
}

static void reopen(void)
{
	db_close(db);
	assert_ok(db_open(path, &db));
}

static struct buf text_of(const char *text)
{
	struct buf b;
	buf_init(&b, 4096);
	assert_ok(buf_printf(&b, "%s", text));
	return b;
}

static struct round_row round_of(uint32_t number)
{
	struct round_row r = {.state = {.number = number,
					.cohort = 2,
					.goal = 2,
					.quorum = 1,
					.opened_ms = 10,
					.deadline_ms = 99,
					.grace_ms = 7},
			      .base = {{3}},
			      .base_size = 30,
			      .cohort = text_of("a\nb\n")};
	return r;
}

static uint64_t start(void)
{
	uint64_t id;
	struct round_row first = round_of(1);
	struct job_row j = {.name = "test",
			    .config = text_of("{}"),
			    .manifest = text_of("[]"),
			    .config_hash = {{1}},
			    .source = {{2}},
			    .source_size = 20,
			    .rounds = 5,
			    .round = 1,
			    .created_ms = 10};
	assert_ok(db_job_start(db, &j, buf_bytes(&first.cohort), &first, &id));
	job_row_deinit(&j);
	round_row_deinit(&first);
	return id;
}

static struct update_row update_row_of(uint64_t job, uint32_t round, const char *plant)
{
	struct update_row u = {.job = job,
			       .round = round,
			       .base_round = round,
			       .place = -1,
			       .size = 40,
			       .digest = {{4}},
			       .samples = 8,
			       .norm = 0.5,
			       .time_ms = 20};
	snprintf(u.plant, sizeof u.plant, "%.60s", plant);
	u.metrics.n = WIRE_METRICS_MAX;
	for (size_t i = 0; i < u.metrics.n; i++) {
		memset(u.metrics.v[i].name, 'a' + (int)i, WIRE_NAME_SIZE - 1);
		u.metrics.v[i].value = 1.0 / (3 + (double)i);
	}
	return u;
}

static void a_job_is_kept_whole(void **state)
{
	(void)state;
	uint64_t id = start();
	struct job_row j;
	struct round_row r;
	struct buf cohort;
	reopen();
	assert_ok(db_job_get(db, id, &j));
	assert_string_equal(j.name, "test");
	assert_string_equal(buf_str(&j.config), "{}");
	assert_string_equal(buf_str(&j.manifest), "[]");
	assert_int_equal(j.state, WIRE_JOB_RUNNING);
	assert_int_equal(j.rounds, 5);
	assert_int_equal(j.round, 1);
	assert_true(digest_is_zero(&j.model));
	job_row_deinit(&j);
	assert_ok(db_job_cohort(db, id, &cohort));
	assert_string_equal(buf_str(&cohort), "a\nb\n");
	buf_deinit(&cohort);
	assert_ok(db_round_get(db, id, 1, &r));
	assert_int_equal(r.state.phase, ROUND_OPEN);
	assert_int_equal(r.state.deadline_ms, 99);
	assert_int_equal(r.state.goal, 2);
	assert_int_equal(r.state.grace_ms, 7);
	assert_string_equal(buf_str(&r.cohort), "a\nb\n");
	round_row_deinit(&r);
	assert_int_equal(db_job_get(db, id + 1, &j), ERR_NOT_FOUND);
	assert_int_equal(db_job_get(db, UINT64_MAX, &j), ERR_NOT_FOUND);
	assert_int_equal(db_round_get(db, id, 2, &r), ERR_NOT_FOUND);
}

static void ids_are_never_given_again(void **state)
{
	(void)state;
	uint64_t first = start();
	struct sql *s;
	assert_ok(sql_open(path, &s));
	assert_ok(sql_run(s, "DELETE FROM cohort; DELETE FROM round; DELETE FROM job"));
	sql_close(s);
	assert_true(start() > first);
}

static void updates_count_once_and_while_open(void **state)
{
	(void)state;
	uint64_t id = start();
	struct update_row a = update_row_of(id, 1, "a"), got, *list;
	struct round_row r;
	size_t n;
	assert_ok(db_update_add(db, &a));
	assert_int_equal(db_update_add(db, &a), ERR_DUPLICATE);
	struct update_row elsewhere = update_row_of(id, 2, "a");
	assert_fails(db_update_add(db, &elsewhere), ERR_STALE, "not open");
	assert_ok(db_update_get(db, id, 1, "a", &got));
	assert_memory_equal(&got.metrics, &a.metrics, sizeof got.metrics);
	assert_true(got.norm == 0.5 && got.samples == 8);
	assert_ok(db_round_get(db, id, 1, &r));
	assert_int_equal(r.state.accepted, 1);
	assert_int_equal(r.bytes_up, 40);
	round_row_deinit(&r);
	assert_ok(db_round_seal(db, id, 1, &(struct digest){{8}}));
	struct update_row b = update_row_of(id, 1, "b");
	assert_int_equal(db_update_add(db, &b), ERR_STALE);
	assert_ok(db_update_list(db, id, 1, &list, &n));
	assert_int_equal(n, 1);
	free(list);
	assert_int_equal(db_update_get(db, id, 1, "b", &got), ERR_NOT_FOUND);
}

static void rounds_go_their_way_and_no_other(void **state)
{
	(void)state;
	uint64_t id = start();
	struct digest model = {{6}};
	struct update_row a = update_row_of(id, 1, "a");
	struct round_row next = round_of(2), r;
	struct job_row j;
	struct round_close c = {.job = id,
				.number = 1,
				.phase = ROUND_COMMITTED,
				.model = model,
				.model_size = 60,
				.now_ms = 50,
				.next = &next,
				.state = WIRE_JOB_RUNNING};
	assert_ok(db_update_add(db, &a));
	assert_int_equal(db_round_close(db, &c), ERR_INTERNAL);
	assert_ok(db_round_seal(db, id, 1, &(struct digest){{8}}));
	assert_int_equal(db_round_seal(db, id, 1, &(struct digest){{8}}), ERR_INTERNAL);
	assert_ok(db_round_close(db, &c));
	assert_int_equal(db_round_close(db, &c), ERR_INTERNAL);
	assert_ok(db_job_get(db, id, &j));
	assert_true(digest_equal(&j.model, &model));
	assert_int_equal(j.model_round, 1);
	assert_int_equal(j.committed, 1);
	assert_int_equal(j.round, 2);
	job_row_deinit(&j);
	assert_ok(db_round_get(db, id, 1, &r));
	assert_int_equal(r.state.phase, ROUND_COMMITTED);
	assert_int_equal(r.closed_ms, 50);
	assert_true(digest_equal(&r.model, &model));
	assert_int_equal(r.model_size, 60);
	round_row_deinit(&r);
	/* The end of the job: nothing moves any more. */
	c = (struct round_close){.job = id,
				 .number = 2,
				 .phase = ROUND_ABANDONED,
				 .reason = "why",
				 .now_ms = 70,
				 .state = WIRE_JOB_FAILED,
				 .job_reason = "that is why"};
	assert_ok(db_round_close(db, &c));
	assert_ok(db_job_get(db, id, &j));
	assert_int_equal(j.state, WIRE_JOB_FAILED);
	assert_string_equal(j.reason, "that is why");
	assert_int_equal(j.ended_ms, 70);
	assert_int_equal(j.committed, 1);
	job_row_deinit(&j);
	assert_int_equal(db_job_end(db, id, WIRE_JOB_STOPPED, "late", 80), ERR_STATE);
	round_row_deinit(&next);
}

static void late_updates_count_once(void **state)
{
	(void)state;
	uint64_t id = start();
	struct round_row next = round_of(2);
	struct update_row a = update_row_of(id, 1, "a"), b = update_row_of(id, 2, "b"), got;
	struct round_close c = {.job = id,
				.number = 1,
				.phase = ROUND_ABANDONED,
				.reason = "",
				.now_ms = 50,
				.next = &next,
				.state = WIRE_JOB_RUNNING};
	assert_ok(db_update_add(db, &a));
	assert_ok(db_round_close(db, &c));
	/* Made in round 1, counts in round 2. */
	b.base_round = 1;
	assert_ok(db_update_add(db, &b));
	assert_ok(db_update_find(db, id, 1, "b", &got));
	assert_int_equal(got.round, 2);
	assert_int_equal(got.base_round, 1);
	assert_ok(db_update_get(db, id, 2, "b", &got));
	assert_int_equal(got.base_round, 1);
	assert_int_equal(db_update_find(db, id, 2, "b", &got), ERR_NOT_FOUND);
	/* One of each plant in a round, and one of each plant from a base. */
	b.base_round = 2;
	assert_int_equal(db_update_add(db, &b), ERR_DUPLICATE);
	a = update_row_of(id, 2, "a");
	a.base_round = 1;
	assert_int_equal(db_update_add(db, &a), ERR_DUPLICATE);
	a.base_round = 2;
	assert_ok(db_update_add(db, &a));
	round_row_deinit(&next);
}

static void a_job_is_resumed_once(void **state)
{
	(void)state;
	uint64_t id = start();
	struct round_row next = round_of(2), r;
	struct job_row j;
	assert_int_equal(db_job_resume(db, id, &next), ERR_STATE);
	assert_ok(db_job_end(db, id, WIRE_JOB_FAILED, "why", 80));
	assert_ok(db_job_resume(db, id, &next));
	assert_int_equal(db_job_resume(db, id, &next), ERR_STATE);
	reopen();
	assert_ok(db_job_get(db, id, &j));
	assert_int_equal(j.state, WIRE_JOB_RUNNING);
	assert_int_equal(j.round, 2);
	assert_int_equal(j.ended_ms, 0);
	assert_string_equal(j.reason, "");
	job_row_deinit(&j);
	/* The round that it ended in. */
	assert_ok(db_round_get(db, id, 1, &r));
	assert_int_equal(r.state.phase, ROUND_ABANDONED);
	assert_int_equal(r.closed_ms, 10);
	round_row_deinit(&r);
	assert_ok(db_job_end(db, id, WIRE_JOB_DONE, NULL, 90));
	round_row_deinit(&next);
	next = round_of(3);
	assert_int_equal(db_job_resume(db, id, &next), ERR_STATE);
	assert_int_equal(db_round_get(db, id, 3, &r), ERR_NOT_FOUND);
	assert_int_equal(db_job_resume(db, 99, &next), ERR_STATE);
	round_row_deinit(&next);
}

static void whose_models_are_whose(void **state)
{
	(void)state;
	uint64_t id = start(), found;
	enum wire_job_state state_of;
	assert_ok(db_job_owns(db, "a", &(struct digest){{2}}));
	assert_ok(db_job_owns(db, "b", &(struct digest){{3}}));
	assert_int_equal(db_job_owns(db, "a", &(struct digest){{99}}), ERR_NOT_FOUND);
	assert_int_equal(db_job_owns(db, "c", &(struct digest){{2}}), ERR_NOT_FOUND);
	assert_ok(db_job_after(db, "a", 0, 0, &found, &state_of));
	assert_int_equal(found, id);
	assert_int_equal(state_of, WIRE_JOB_RUNNING);
	/* It runs, however often it has ended before. */
	assert_ok(db_job_after(db, "a", id, UINT32_MAX, &found, &state_of));
	assert_int_equal(state_of, WIRE_JOB_RUNNING);
	assert_int_equal(db_job_after(db, "c", 0, 0, &found, &state_of), ERR_NOT_FOUND);
	assert_int_equal(db_job_after(db, "a", UINT64_MAX, 0, &found, &state_of), ERR_NOT_FOUND);
	assert_ok(db_job_has(db, "a", id));
	assert_int_equal(db_job_has(db, "c", id), ERR_NOT_FOUND);
	assert_int_equal(db_job_has(db, "a", UINT64_MAX), ERR_NOT_FOUND);
}

/* A job that goes on ends again. */
static void ends_are_counted(void **state)
{
	(void)state;
	struct job_row j;
	uint64_t id = start(), found;
	enum wire_job_state state_of;
	struct round_row next = round_of(2);
	for (uint32_t ends = 1; ends <= 3; ends++) {
		assert_ok(db_job_end(db, id, WIRE_JOB_STOPPED, "", 10));
		assert_ok(db_job_get(db, id, &j));
		assert_int_equal(j.ends, ends);
		job_row_deinit(&j);
		assert_ok(db_job_after(db, "a", id, ends - 1, &found, &state_of));
		assert_int_equal(found, id);
		assert_int_equal(state_of, WIRE_JOB_STOPPED);
		assert_int_equal(db_job_after(db, "a", id, ends, &found, &state_of), ERR_NOT_FOUND);
		next.state.number = ends + 1;
		assert_ok(db_job_resume(db, id, &next));
		assert_ok(db_job_after(db, "a", id, ends, &found, &state_of));
		assert_int_equal(state_of, WIRE_JOB_RUNNING);
	}
	round_row_deinit(&next);
}

static void reports_replace_each_other(void **state)
{
	(void)state;
	struct wire_report report = {.job = start(), .round = 1, .model = {{2}}};
	assert_ok(db_report_put(db, "a", &report, 5));
	report.taken = true;
	assert_ok(db_report_put(db, "a", &report, 6));
	struct sql *s;
	assert_ok(sql_open(path, &s));
	struct query *q = sql_query(s, "SELECT count(*), max(taken), max(time_ms) FROM report");
	assert_true(sql_next(q));
	assert_int_equal(sql_int(q, 0), 1);
	assert_int_equal(sql_int(q, 1), 1);
	assert_int_equal(sql_int(q, 2), 6);
	assert_ok(sql_end(q));
	sql_close(s);
}

static void *add_many(void *arg)
{
	const uint64_t *id = arg;
	char name[16];
	static atomic_int serial;
	for (int i = 0; i < 10; i++) {
		snprintf(name, sizeof name, "p%d", atomic_fetch_add(&serial, 1));
		struct update_row u = update_row_of(*id, 1, name);
		if (db_update_add(db, &u) != ERR_OK)
			return arg;
	}
	return NULL;
}

static void many_threads_write(void **state)
{
	(void)state;
	pthread_t threads[4];
	uint64_t id = start();
	struct update_row *list;
	size_t n;
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, add_many, &id), 0);
	for (int i = 0; i < 4; i++) {
		void *failed;
		assert_int_equal(pthread_join(threads[i], &failed), 0);
		assert_null(failed);
	}
	assert_ok(db_update_list(db, id, 1, &list, &n));
	assert_int_equal(n, 40);
	free(list);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_job_is_kept_whole, setup, teardown),
		cmocka_unit_test_setup_teardown(ids_are_never_given_again, setup, teardown),
		cmocka_unit_test_setup_teardown(updates_count_once_and_while_open, setup, teardown),
		cmocka_unit_test_setup_teardown(rounds_go_their_way_and_no_other, setup, teardown),
		cmocka_unit_test_setup_teardown(late_updates_count_once, setup, teardown),
		cmocka_unit_test_setup_teardown(a_job_is_resumed_once, setup, teardown),
		cmocka_unit_test_setup_teardown(ends_are_counted, setup, teardown),
		cmocka_unit_test_setup_teardown(whose_models_are_whose, setup, teardown),
		cmocka_unit_test_setup_teardown(reports_replace_each_other, setup, teardown),
		cmocka_unit_test_setup_teardown(many_threads_write, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
