#include "coordinator/fixture.h"

#include "base/log.h"
#include "coordinator/retention.h"

#include <pthread.h>

enum { JOBS = 8 };

static char *dir;
static struct db *db;
static struct store *store;
static struct retention *retention;
static struct retention_keep keeps[JOBS]; /* by job */
static struct buf removed;                /* "ROUND-PLANT " or "ROUND-batch " for each update that was to go */
static bool keep_fails;

static enum err keep_of(void *arg, uint64_t job, struct retention_keep *ret_keep)
{
	(void)arg;
	assert_true(job < JOBS);
	*ret_keep = keeps[job];
	return keep_fails ? err_set(ERR_CORRUPT, "no such thing") : ERR_OK;
}

static void remove_update(void *arg, uint64_t job, uint32_t round, const char *plant)
{
	(void)arg, (void)job;
	assert_ok(buf_printf(&removed, "%lu-%s ", (unsigned long)round, plant != NULL ? plant : "batch"));
}

static const char *what_went(void)
{
	static char text[4096];
	snprintf(text, sizeof text, "%.*s", (int)removed.n, (const char *)removed.p);
	buf_reset(&removed);
	return text;
}

static int setup(void **state)
{
	(void)state;
	char path[PATH_SIZE];
	dir = scratch_make();
	log_set_level(LOG_LEVEL_ERROR);
	keep_fails = false;
	for (size_t i = 0; i < JOBS; i++)
		keeps[i] = (struct retention_keep){.updates = 0, .models = UINT32_MAX};
	buf_init(&removed, 4096);
	assert_ok(db_open(path_join(path, dir, "hansa.db"), &db));
	assert_ok(store_open(dir, &store));
	retention = retention_new(
		&(struct retention_config){.db = db, .store = store, .keep = keep_of, .remove_update = remove_update});
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	bad_disk_remove();
	retention_free(retention);
	store_close(store);
	db_close(db);
	buf_deinit(&removed);
	scratch_remove(dir);
	return 0;
}

/* A model in the store, of its own for each name. */
static struct digest publish(const char *name)
{
	char path[PATH_SIZE];
	struct digest d;
	uint64_t size;
	assert_ok(file_replace(store_temp_path(store, "new", path), bytes_str(name), 0600));
	assert_ok(store_adopt(store, path, NULL, &d, &size));
	return d;
}

static struct digest named(const char *name)
{
	return digest_of(bytes_str(name));
}

static struct digest result_of(uint64_t job, uint32_t round)
{
	char name[32];
	snprintf(name, sizeof name, "%llu-%lu", (unsigned long long)job, (unsigned long)round);
	return named(name);
}

static bool has(uint64_t job, uint32_t round)
{
	struct digest d = result_of(job, round);
	return store_has(store, &d, NULL);
}

/* Which results of rounds 1 .. n are there: "1 3 ". */
static const char *results(uint64_t job, uint32_t n)
{
	static char text[256];
	size_t at = 0;
	text[0] = '\0';
	for (uint32_t i = 1; i <= n; i++)
		at += (size_t)snprintf(text + at, sizeof text - at, has(job, i) ? "%lu " : "", (unsigned long)i);
	return text;
}

static struct round_row round_of(uint64_t job, uint32_t number, const struct digest *base)
{
	struct round_row r = {.job = job, .base = *base, .base_size = 1};
	r.state =
		(struct round){.number = number, .cohort = 3, .goal = 3, .quorum = 1, .opened_ms = 1, .deadline_ms = 2};
	buf_init(&r.cohort, 100);
	assert_ok(buf_printf(&r.cohort, "a\nb\nc\n"));
	return r;
}

static uint64_t start(const char *source)
{
	uint64_t id;
	struct job_row j = {
		.state = WIRE_JOB_RUNNING, .source = publish(source), .source_size = 1, .rounds = 99, .round = 1};
	snprintf(j.name, sizeof j.name, "%.30s", source);
	buf_init(&j.config, 10);
	buf_init(&j.manifest, 10);
	assert_ok(buf_printf(&j.config, "{}"));
	assert_ok(buf_printf(&j.manifest, "{}"));
	j.config_hash = digest_of(buf_bytes(&j.config));
	struct round_row first = round_of(0, 1, &j.source);
	assert_ok(db_job_start(db, &j, bytes_str("a\nb\nc\n"), &first, &id));
	round_row_deinit(&first);
	job_row_deinit(&j);
	assert_true(id < JOBS);
	return id;
}

static void report(uint64_t job, uint32_t round, const char *plant, uint32_t base_round, int64_t place)
{
	struct update_row u = {
		.job = job, .round = round, .base_round = base_round, .place = place, .size = 1, .samples = 1};
	snprintf(u.plant, sizeof u.plant, "%.30s", plant);
	u.digest = digest_of(bytes_str(plant));
	assert_ok(db_update_add(db, &u));
}

static void close_as(uint64_t job, uint32_t round, enum round_phase phase, enum wire_job_state state)
{
	struct round_row row;
	assert_ok(db_round_get(db, job, round, &row));
	round_row_deinit(&row);
	struct digest base = row.base;
	if (phase == ROUND_COMMITTED) {
		if (row.state.accepted == 0)
			report(job, round, "c", round, -1);
		char name[32];
		snprintf(name, sizeof name, "%llu-%lu", (unsigned long long)job, (unsigned long)round);
		base = publish(name);
		assert_ok(db_round_seal(db, job, round, &base));
	}
	struct round_row next = round_of(job, round + 1, &base);
	struct round_close c = {.job = job,
				.number = round,
				.phase = phase,
				.model = phase == ROUND_COMMITTED ? base : (struct digest){{0}},
				.model_size = 1,
				.now_ms = 5,
				.next = state == WIRE_JOB_RUNNING ? &next : NULL,
				.state = state,
				.job_reason = ""};
	assert_ok(db_round_close(db, &c));
	round_row_deinit(&next);
	retention_closed(retention, job, round);
}

static void commit(uint64_t job, uint32_t round)
{
	close_as(job, round, ROUND_COMMITTED, WIRE_JOB_RUNNING);
}

static void abandon(uint64_t job, uint32_t round)
{
	close_as(job, round, ROUND_ABANDONED, WIRE_JOB_RUNNING);
}

static void updates_go_with_their_round(void **state)
{
	(void)state;
	uint64_t job = start("source");
	report(job, 1, "a", 1, -1);
	report(job, 1, "b", 1, -1);
	assert_true(retention_needs_update(retention, job, 1, "a"));
	assert_false(retention_needs_update(retention, job, 1, "c"));
	assert_false(retention_needs_update(retention, job, 2, "a"));
	assert_false(retention_needs_update(retention, job + 1, 1, "a"));
	commit(job, 1);
	assert_string_equal(what_went(), "1-a 1-b ");
	assert_false(retention_needs_update(retention, job, 1, "a"));
	/* Small ones share a file; a late one is called by the round that it was made in. */
	report(job, 2, "a", 2, 0);
	report(job, 2, "b", 2, 100);
	report(job, 2, "c", 1, -1);
	assert_true(retention_needs_batch(retention, job, 2));
	assert_true(retention_needs_update(retention, job, 1, "c"));
	assert_false(retention_needs_update(retention, job, 2, "a")); /* it is in the batch */
	commit(job, 2);
	assert_string_equal(what_went(), "1-c 2-batch ");
	assert_false(retention_needs_batch(retention, job, 2));
	assert_false(retention_needs_batch(retention, job, 9));
	assert_false(retention_needs_batch(retention, 7, 1));
	/* All models are kept. */
	assert_string_equal(results(job, 2), "1 2 ");
}

static void updates_are_kept_for_some_rounds(void **state)
{
	(void)state;
	uint64_t job = start("source");
	keeps[job].updates = 2;
	report(job, 1, "a", 1, -1);
	commit(job, 1);
	report(job, 2, "a", 2, 0);
	commit(job, 2);
	report(job, 3, "a", 3, -1);
	assert_string_equal(what_went(), "");
	/* Of an abandoned round at once, and it makes nothing older. */
	abandon(job, 3);
	assert_string_equal(what_went(), "3-a ");
	assert_true(retention_needs_update(retention, job, 1, "a"));
	report(job, 4, "a", 4, -1);
	commit(job, 4);
	assert_string_equal(what_went(), "1-a ");
	assert_false(retention_needs_update(retention, job, 1, "a"));
	assert_false(retention_needs_update(retention, job, 3, "a"));
	assert_true(retention_needs_batch(retention, job, 2));
	close_as(job, 5, ROUND_COMMITTED, WIRE_JOB_DONE);
	assert_string_equal(what_went(), "2-batch ");
	assert_false(retention_needs_batch(retention, job, 2));
	/* The job is over, what it keeps stays. */
	assert_true(retention_needs_update(retention, job, 4, "a"));
	keeps[job].updates = UINT32_MAX;
	assert_true(retention_needs_update(retention, job, 1, "a"));
	assert_false(retention_needs_update(retention, job, 3, "a"));
}

static void an_open_round_of_a_job_that_is_over_keeps_nothing(void **state)
{
	(void)state;
	uint64_t job = start("source");
	report(job, 1, "a", 1, -1);
	report(job, 1, "b", 1, 0);
	assert_true(retention_needs_update(retention, job, 1, "a"));
	assert_ok(db_job_end(db, job, WIRE_JOB_FAILED, "broken", 3));
	assert_false(retention_needs_update(retention, job, 1, "a"));
	assert_false(retention_needs_batch(retention, job, 1));
}

static void models_are_kept_for_some_rounds(void **state)
{
	(void)state;
	struct digest source = named("source");
	uint64_t job = start("source");
	keeps[job].models = 2;
	for (uint32_t i = 1; i <= 4; i++)
		commit(job, i);
	assert_string_equal(results(job, 4), "3 4 ");
	abandon(job, 5);
	assert_string_equal(results(job, 4), "3 4 ");
	commit(job, 6);
	assert_string_equal(results(job, 6), "4 6 ");
	/* One: the base of the open round, and the last model. */
	keeps[job].models = 1;
	commit(job, 7);
	assert_string_equal(results(job, 7), "4 7 "); /* 4 left its turn: the next start */
	retention_sweep(retention);
	assert_string_equal(results(job, 7), "7 ");
	close_as(job, 8, ROUND_COMMITTED, WIRE_JOB_DONE);
	assert_string_equal(results(job, 8), "8 ");
	/* None at all is not possible. */
	keeps[job].models = 0;
	retention_sweep(retention);
	assert_string_equal(results(job, 8), "8 ");
	assert_true(store_has(store, &source, NULL));
}

static void kept_updates_keep_base_and_result(void **state)
{
	(void)state;
	uint64_t job = start("source");
	keeps[job] = (struct retention_keep){.updates = 2, .models = 1};
	for (uint32_t i = 1; i <= 6; i++) {
		report(job, i, "a", i, -1);
		commit(job, i);
	}
	assert_string_equal(what_went(), "1-a 2-a 3-a 4-a ");
	assert_string_equal(results(job, 6), "4 5 6 "); /* 4: base of 5 */
	retention_sweep(retention);
	assert_string_equal(results(job, 6), "4 5 6 ");
	keeps[job].updates = UINT32_MAX;
	retention_sweep(retention);
	assert_string_equal(results(job, 6), "4 5 6 ");
}

static void what_another_job_needs_stays(void **state)
{
	(void)state;
	uint64_t one = start("source");
	keeps[one].models = 1;
	commit(one, 1);
	uint64_t two = start("1-1"); /* another job's model as a source */
	assert_int_equal(two, one + 1);
	commit(one, 2);
	commit(one, 3);
	assert_string_equal(results(one, 3), "1 3 ");
	retention_sweep(retention);
	assert_string_equal(results(one, 3), "1 3 ");
	/* Two jobs that have made the same model: gone only when neither keeps it. */
	struct digest same = result_of(one, 3);
	uint64_t three = start("other");
	struct round_close c = {.job = three,
				.number = 1,
				.phase = ROUND_COMMITTED,
				.model = same,
				.model_size = 1,
				.now_ms = 5,
				.state = WIRE_JOB_RUNNING};
	assert_ok(db_round_seal(db, three, 1, &same));
	struct round_row next = round_of(three, 2, &same);
	c.next = &next;
	assert_ok(db_round_close(db, &c));
	round_row_deinit(&next);
	commit(one, 4);
	assert_string_equal(results(one, 4), "1 3 4 ");
	commit(three, 2);
	assert_string_equal(results(one, 4), "1 3 4 "); /* `three` keeps all */
	keeps[three].models = 1;
	commit(three, 3);
	retention_sweep(retention);
	assert_string_equal(results(one, 4), "1 4 ");
	assert_string_equal(results(three, 3), "3 ");
}

static void what_nobody_has_trained_stays(void **state)
{
	(void)state;
	struct digest d = publish("published");
	uint64_t job = start("source");
	keeps[job].models = 1;
	commit(job, 1);
	commit(job, 2);
	retention_sweep(retention);
	assert_true(store_has(store, &d, NULL));
	assert_string_equal(results(job, 2), "2 ");
}

/* A job that cannot go on now may do so later. */
static void an_unfinished_round_keeps_its_models(void **state)
{
	(void)state;
	uint64_t job = start("source");
	keeps[job].models = 1;
	commit(job, 1);
	struct digest made = publish("1-2");
	assert_ok(db_round_seal(db, job, 2, &made));
	retention_sweep(retention);
	assert_string_equal(results(job, 2), "1 2 ");
	assert_ok(db_job_end(db, job, WIRE_JOB_FAILED, "broken", 3));
	retention_sweep(retention);
	assert_string_equal(results(job, 2), "1 2 ");
}

static void what_a_crash_left_goes_at_the_next_start(void **state)
{
	(void)state;
	uint64_t job = start("source");
	commit(job, 1);
	commit(job, 2);
	commit(job, 3);
	keeps[job].models = 1;
	struct bad_disk disk;
	bad_disk_insert(&disk, 0, true); /* nothing can be removed */
	retention_sweep(retention);
	bad_disk_remove();
	assert_true(disk.hit);
	assert_string_equal(results(job, 3), "1 2 3 ");
	retention_sweep(retention);
	assert_string_equal(results(job, 3), "3 ");
}

static void doubt_keeps(void **state)
{
	(void)state;
	uint64_t job = start("source");
	keeps[job] = (struct retention_keep){.updates = 0, .models = 1};
	report(job, 1, "a", 1, -1);
	report(job, 1, "b", 1, 0);
	keep_fails = true;
	commit(job, 1);
	commit(job, 2);
	retention_sweep(retention);
	assert_string_equal(what_went(), "");
	assert_string_equal(results(job, 2), "1 2 ");
	assert_true(retention_needs_update(retention, job, 1, "a"));
	assert_true(retention_needs_batch(retention, job, 1));
	keep_fails = false;
	assert_false(retention_needs_update(retention, job, 1, "a"));
	retention_sweep(retention);
	assert_string_equal(results(job, 2), "2 ");
}

static void who_asks_for_a_removed_model_is_told(void **state)
{
	(void)state;
	uint64_t job = start("source");
	keeps[job].models = 1;
	for (uint32_t i = 1; i <= 3; i++)
		commit(job, i);
	assert_string_equal(results(job, 3), "3 ");
	struct digest d = result_of(job, 2);
	assert_fails(retention_explain(db, &d), ERR_NOT_FOUND, "keep_models");
	/* These cannot have been removed. */
	d = result_of(job, 3); /* base of the open round, last model */
	assert_ok(retention_explain(db, &d));
	d = named("source");
	assert_ok(retention_explain(db, &d));
	d = named("never heard of");
	assert_ok(retention_explain(db, &d));
}

struct race {
	struct digest model;
	bool there;
};

static void *hold_and_look(void *arg)
{
	struct race *race = arg;
	for (unsigned i = 0; i < 200; i++) {
		retention_hold(retention);
		bool before = store_has(store, &race->model, NULL);
		bool after = store_has(store, &race->model, NULL);
		race->there |= before != after;
		retention_release(retention);
	}
	return NULL;
}

static void nothing_goes_while_it_is_held(void **state)
{
	(void)state;
	uint64_t job = start("source");
	keeps[job].models = 1;
	commit(job, 1);
	struct race race = {.model = result_of(job, 1)};
	pthread_t thread;
	assert_int_equal(pthread_create(&thread, NULL, hold_and_look, &race), 0);
	for (uint32_t i = 2; i <= 6; i++)
		commit(job, i);
	pthread_join(thread, NULL);
	assert_false(race.there);
	assert_string_equal(results(job, 6), "6 ");
}

/* Any history and any wishes: exactly what the rules name is there, whether one looks after each round or at the end. */
static void both_occasions_agree(void **state)
{
	(void)state;
	enum { ROUNDS = 12 };
	struct rng r;
	rng_seed(&r, 5);
	for (unsigned turn = 0; turn < 12; turn++) {
		teardown(NULL);
		setup(NULL);
		uint64_t job = start("source");
		keeps[job] = (struct retention_keep){.updates = (uint32_t)rng_below(&r, 4),
						     .models = (uint32_t)rng_below(&r, 5)};
		bool done[ROUNDS + 2] = {false};
		for (uint32_t i = 1; i <= ROUNDS; i++) {
			done[i] = rng_below(&r, 3) > 0;
			report(job, i, "a", i, -1);
			if (done[i])
				commit(job, i);
			else
				abandon(job, i);
		}
		const char *went = what_went();
		uint32_t newer = 0, models = keeps[job].models > 1 ? keeps[job].models : 1;
		for (uint32_t i = ROUNDS; i >= 1; i--) {
			char mine[16];
			bool kept = done[i] && newer < keeps[job].updates;
			bool base = done[i] && keeps[job].updates > 0 && newer <= keeps[job].updates;
			snprintf(mine, sizeof mine, "%lu-a ", (unsigned long)i);
			bool gone = strncmp(went, mine, strlen(mine)) == 0;
			char *inside = mem_printf(" %s", mine);
			gone |= strstr(went, inside) != NULL;
			free(inside);
			assert_int_equal(gone, !kept);
			assert_int_equal(retention_needs_update(retention, job, i, "a"), kept);
			assert_int_equal(has(job, i), done[i] && (newer < models || base));
			newer += done[i];
		}
		char before[256];
		snprintf(before, sizeof before, "%s", results(job, ROUNDS));
		retention_sweep(retention);
		assert_string_equal(results(job, ROUNDS), before);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(updates_go_with_their_round, setup, teardown),
		cmocka_unit_test_setup_teardown(updates_are_kept_for_some_rounds, setup, teardown),
		cmocka_unit_test_setup_teardown(an_open_round_of_a_job_that_is_over_keeps_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(models_are_kept_for_some_rounds, setup, teardown),
		cmocka_unit_test_setup_teardown(kept_updates_keep_base_and_result, setup, teardown),
		cmocka_unit_test_setup_teardown(what_another_job_needs_stays, setup, teardown),
		cmocka_unit_test_setup_teardown(what_nobody_has_trained_stays, setup, teardown),
		cmocka_unit_test_setup_teardown(an_unfinished_round_keeps_its_models, setup, teardown),
		cmocka_unit_test_setup_teardown(what_a_crash_left_goes_at_the_next_start, setup, teardown),
		cmocka_unit_test_setup_teardown(doubt_keeps, setup, teardown),
		cmocka_unit_test_setup_teardown(who_asks_for_a_removed_model_is_told, setup, teardown),
		cmocka_unit_test_setup_teardown(nothing_goes_while_it_is_held, setup, teardown),
		cmocka_unit_test_setup_teardown(both_occasions_agree, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
