/*
 * The ledger: many updates become durable with one sync and one transaction, and each is judged alone. What a group looks like is made
 * certain here by holding its leader up: the disk's seam waits until the others stand in the queue.
 */
#include "coordinator/spool_fixture.h"

#include "coordinator/ledger.h"
#include "coordinator/sql.h"

#include <pthread.h>

enum { PLANTS = 16, OF_JOB = 8 };

static struct db *db;
static struct ledger *ledger;
static uint64_t jobs[2];
static char names[PLANTS][16];
static struct bytes contents[PLANTS];

static void start_job(size_t i)
{
	struct digest some = digest_of(bytes_str("x"));
	struct job_row j = {.state = WIRE_JOB_RUNNING,
			    .config_hash = some,
			    .source = some,
			    .source_size = 4,
			    .rounds = 1,
			    .round = 1};
	struct round_row first = {
		.state = {.number = 1, .cohort = OF_JOB, .goal = OF_JOB, .quorum = 1, .opened_ms = 1, .deadline_ms = 2},
		.base = some,
		.base_size = 4};
	struct buf cohort;
	snprintf(j.name, sizeof j.name, "job%zu", i);
	buf_init(&cohort, 1024);
	buf_init(&j.config, 16);
	buf_init(&j.manifest, 16);
	assert_ok(buf_printf(&j.config, "{}"));
	assert_ok(buf_printf(&j.manifest, "{}"));
	for (size_t k = 0; k < OF_JOB; k++)
		assert_ok(buf_printf(&cohort, "%s\n", names[i * OF_JOB + k]));
	buf_init(&first.cohort, 1024);
	assert_ok(buf_append(&first.cohort, cohort.p, cohort.n));
	assert_ok(db_job_start(db, &j, buf_bytes(&cohort), &first, &jobs[i]));
	buf_deinit(&cohort);
	job_row_deinit(&j);
	round_row_deinit(&first);
}

static int setup_ledger(void **state)
{
	char path[PATH_SIZE];
	setup(state);
	reopen(&(struct spool_config){.small_max = 0}, known_none);
	for (size_t i = 0; i < PLANTS; i++) {
		snprintf(names[i], sizeof names[i], "p%02zu", i);
		contents[i] = update_of(m, base, 100 + i);
	}
	assert_ok(db_open(path_join(path, dir, "hansa.db"), &db));
	ledger = ledger_new(db, spool);
	start_job(0);
	start_job(1);
	return 0;
}

static int teardown_ledger(void **state)
{
	bad_disk_remove();
	ledger_free(ledger);
	db_close(db);
	for (size_t i = 0; i < PLANTS; i++)
		update_free(&contents[i]);
	return teardown(state);
}

/* Who brings what, and what came of it. */
struct courier {
	size_t plant;
	bool large;
	uint32_t round;
	struct update_row row;
	enum err err;
	char text[256];
	pthread_t thread;
};

static uint64_t job_of(size_t plant)
{
	return jobs[plant / OF_JOB];
}

static enum err receive_it(struct courier *c, struct spool_entry **ret_entry)
{
	struct bytes content = contents[c->plant];
	struct digest d = digest_of(content);
	struct spool_key k = {.job = job_of(c->plant), .round = c->round, .plant = names[c->plant]};
	double norm = 0;
	TRY(begin_with(&k, content, &d, 0, content.n, ret_entry));
	return spool_finish(*ret_entry, &norm);
}

static void *bring(void *arg)
{
	struct courier *c = arg;
	struct spool_entry *e = NULL;
	c->row = (struct update_row){.job = job_of(c->plant),
				     .round = c->round,
				     .base_round = c->round,
				     .place = -1,
				     .size = contents[c->plant].n,
				     .digest = digest_of(contents[c->plant]),
				     .samples = 1};
	snprintf(c->row.plant, sizeof c->row.plant, "%s", names[c->plant]);
	c->err = receive_it(c, &e);
	if (c->err == ERR_OK)
		c->err = ledger_commit(ledger, &c->row, c->large ? NULL : e);
	if (c->err != ERR_OK)
		snprintf(c->text, sizeof c->text, "%s", err_text());
	spool_abort(e);
	return NULL;
}

static void assert_counts(const struct courier *c, bool counts)
{
	struct update_row row;
	enum err err = db_update_get(db, job_of(c->plant), 1, names[c->plant], &row);
	assert_int_equal(err, counts ? ERR_OK : ERR_NOT_FOUND);
	if (!counts)
		return;
	char path[PATH_SIZE];
	struct buf b;
	assert_int_equal(row.place, c->row.place);
	assert_ok(file_read(spool_batch_path(spool, row.job, row.round, path), 1 << 24, &b));
	assert_true(row.place >= 0 && (size_t)row.place + row.size <= b.n);
	assert_memory_equal(b.p + row.place, contents[c->plant].p, row.size);
	buf_deinit(&b);
}

/* ---- a leader that is held up ---- */

/* The first operation waits until the others are in the queue; the `fail_at`-th one from then on fails. */
struct gate {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool inside, open;
	size_t seen, fail_at;
	unsigned syncs;
};

/* On another disk: what its failures do is tested by itself. */
static bool is_database(const char *path)
{
	return strstr(path, "/hansa.db") != NULL;
}

static enum err gate_hook(void *arg, enum file_op op, const char *path, size_t n, size_t *ret_short)
{
	struct gate *g = arg;
	(void)n;
	(void)ret_short;
	if (is_database(path))
		return ERR_OK;
	pthread_mutex_lock(&g->lock);
	g->inside = true;
	pthread_cond_broadcast(&g->wake);
	while (!g->open)
		pthread_cond_wait(&g->wake, &g->lock);
	g->syncs += op == FILE_OP_SYNC;
	enum err err = ++g->seen == g->fail_at ? ERR_IO : ERR_OK;
	pthread_mutex_unlock(&g->lock);
	return err;
}

/* couriers[0] alone, held up at its first operation until all others wait behind it. */
static void bring_in_two_groups(struct courier *couriers, size_t n, struct gate *g)
{
	pthread_mutex_init(&g->lock, NULL);
	pthread_cond_init(&g->wake, NULL);
	file_set_hook(gate_hook, g);
	assert_int_equal(pthread_create(&couriers[0].thread, NULL, bring, &couriers[0]), 0);
	pthread_mutex_lock(&g->lock);
	while (!g->inside)
		pthread_cond_wait(&g->wake, &g->lock);
	pthread_mutex_unlock(&g->lock);
	for (size_t i = 1; i < n; i++) {
		assert_int_equal(pthread_create(&couriers[i].thread, NULL, bring, &couriers[i]), 0);
		while (ledger_waiting(ledger) < i)
			sched_yield();
	}
	pthread_mutex_lock(&g->lock);
	g->open = true;
	pthread_cond_broadcast(&g->wake);
	pthread_mutex_unlock(&g->lock);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(pthread_join(couriers[i].thread, NULL), 0);
	file_set_hook(NULL, NULL);
	pthread_mutex_destroy(&g->lock);
	pthread_cond_destroy(&g->wake);
}

static void whoever_waits_is_one_group(void **state)
{
	(void)state;
	struct courier couriers[OF_JOB];
	struct gate gate = {.open = false};
	for (size_t i = 0; i < OF_JOB; i++)
		couriers[i] = (struct courier){.plant = i, .round = 1};
	bring_in_two_groups(couriers, OF_JOB, &gate);
	for (size_t i = 0; i < OF_JOB; i++) {
		assert_int_equal(couriers[i].err, ERR_OK);
		assert_counts(&couriers[i], true);
	}
	assert_int_equal(ledger_groups(ledger), 2);
	assert_int_equal(gate.syncs, 2);
	/* In the order in which they came. */
	for (size_t i = 2; i < OF_JOB; i++)
		assert_true(couriers[i].row.place == couriers[i - 1].row.place + (int64_t)contents[i - 1].n);
}

/* Of two jobs, with a plant that comes twice, one whose round is not open, and one whose bytes have their own file. */
static void each_is_judged_alone(void **state)
{
	(void)state;
	struct courier couriers[] = {
		{.plant = 0, .round = 1}, {.plant = 1, .round = 1},          {.plant = OF_JOB, .round = 1},
		{.plant = 2, .round = 9}, {.plant = OF_JOB + 1, .round = 1}, {.plant = 3, .round = 1},
	};
	enum { N = sizeof couriers / sizeof couriers[0] };
	struct update_row before = {.job = jobs[0], .round = 1, .base_round = 1, .place = -1, .size = 4, .samples = 1};
	struct gate gate = {.open = false};
	snprintf(before.plant, sizeof before.plant, "%s", names[3]);
	before.digest = digest_of(contents[3]);
	assert_ok(db_update_add(db, &before));
	bring_in_two_groups(couriers, N, &gate);
	assert_int_equal(ledger_groups(ledger), 2);
	assert_int_equal(gate.syncs, 4); /* the batches of job 1, twice, of job 2, and of the round that is not open */
	for (size_t i = 0; i < N; i++) {
		static const enum err expected[N] = {ERR_OK, ERR_OK, ERR_OK, ERR_STALE, ERR_OK, ERR_DUPLICATE};
		assert_int_equal(couriers[i].err, expected[i]);
		if (expected[i] == ERR_OK)
			assert_counts(&couriers[i], true);
	}
	assert_non_null(strstr(couriers[3].text, "round 9"));
	assert_non_null(strstr(couriers[5].text, names[3]));
	struct round_row row;
	assert_ok(db_round_get(db, jobs[0], 1, &row));
	assert_int_equal(row.state.accepted, 3);
	assert_int_equal(row.bytes_up, 4 + 2 * contents[0].n);
	round_row_deinit(&row);
}

/* The disk fails at each operation in turn: those of that group and batch are refused, the others count, and who comes again counts once. */
static void a_leader_that_fails_takes_nobody_with_it(void **state)
{
	bool failed = true;
	teardown_ledger(state);
	for (size_t at = 1; failed; at++) {
		struct courier couriers[] = {{.plant = 0, .round = 1},
					     {.plant = 1, .round = 1},
					     {.plant = OF_JOB, .round = 1},
					     {.plant = 2, .round = 1}};
		struct gate gate = {.fail_at = at};
		setup_ledger(state);
		bring_in_two_groups(couriers, 4, &gate);
		failed = gate.seen >= at;
		size_t refused = 0;
		for (size_t i = 0; i < 4; i++) {
			assert_true(couriers[i].err == ERR_OK || couriers[i].err == ERR_IO);
			assert_counts(&couriers[i], couriers[i].err == ERR_OK);
			refused += couriers[i].err != ERR_OK;
		}
		assert_int_equal(refused > 0, failed);
		assert_true(refused < 3);
		assert_int_equal(couriers[1].err, couriers[3].err); /* one batch, one group */
		for (size_t i = 0; i < 4; i++) {
			bool counted = couriers[i].err == ERR_OK;
			struct courier again = {.plant = couriers[i].plant, .round = 1};
			bring(&again);
			assert_int_equal(again.err, counted ? ERR_DUPLICATE : ERR_OK);
			assert_counts(counted ? &couriers[i] : &again, true);
		}
		teardown_ledger(state);
	}
	setup_ledger(state);
}

/* The transaction fails, in a way that might have succeeded: all its updates are refused, none of their bytes is touched. */
static void a_failed_transaction_leaves_the_bytes(void **state)
{
	(void)state;
	char path[PATH_SIZE];
	struct sql *sql;
	struct buf b;
	struct courier couriers[3], again[3];
	assert_ok(sql_open(path_join(path, dir, "hansa.db"), &sql));
	assert_ok(sql_run(sql, "CREATE TRIGGER bad BEFORE INSERT ON contribution WHEN NEW.plant = 'p02' "
			       "BEGIN SELECT abs(-9223372036854775808); END"));
	struct gate gate = {.open = false};
	for (size_t i = 0; i < 3; i++)
		couriers[i] = (struct courier){.plant = i, .round = 1};
	bring_in_two_groups(couriers, 3, &gate);
	assert_int_equal(couriers[0].err, ERR_OK);
	assert_int_equal(couriers[1].err, ERR_INTERNAL);
	assert_int_equal(couriers[2].err, ERR_INTERNAL);
	assert_ok(sql_run(sql, "DROP TRIGGER bad"));
	sql_close(sql);
	for (size_t i = 1; i < 3; i++) {
		assert_counts(&couriers[i], false);
		again[i] = (struct courier){.plant = i, .round = 1};
		bring(&again[i]);
		assert_int_equal(again[i].err, ERR_OK);
		assert_counts(&again[i], true);
		assert_true(again[i].row.place > couriers[i].row.place);
	}
	assert_ok(file_read(spool_batch_path(spool, jobs[0], 1, path), 1 << 24, &b));
	for (size_t i = 1; i < 3; i++)
		assert_memory_equal(b.p + couriers[i].row.place, contents[i].p, contents[i].n);
	buf_deinit(&b);
}

/* ---- without a gate ---- */

static enum err every_seventh(void *arg, enum file_op op, const char *path, size_t n, size_t *ret_short)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	size_t *seen = arg;
	(void)op;
	(void)n;
	(void)ret_short;
	if (is_database(path))
		return ERR_OK;
	pthread_mutex_lock(&lock);
	enum err err = ++*seen % 7 == 0 ? ERR_IO : ERR_OK;
	pthread_mutex_unlock(&lock);
	return err;
}

static void *bring_until_it_counts(void *arg)
{
	struct courier *c = arg;
	do
		bring(c);
	while (c->err == ERR_IO);
	return NULL;
}

static void a_crowd_on_a_bad_disk(void **state)
{
	(void)state;
	struct courier couriers[PLANTS];
	size_t seen = 0;
	file_set_hook(every_seventh, &seen);
	for (size_t i = 0; i < PLANTS; i++) {
		couriers[i] = (struct courier){.plant = i, .round = i % 5 == 4 ? 9 : 1};
		assert_int_equal(pthread_create(&couriers[i].thread, NULL, bring_until_it_counts, &couriers[i]), 0);
	}
	for (size_t i = 0; i < PLANTS; i++)
		assert_int_equal(pthread_join(couriers[i].thread, NULL), 0);
	file_set_hook(NULL, NULL);
	for (size_t i = 0; i < PLANTS; i++) {
		assert_int_equal(couriers[i].err, i % 5 == 4 ? ERR_STALE : ERR_OK);
		assert_counts(&couriers[i], i % 5 != 4);
	}
	assert_int_equal(ledger_waiting(ledger), 0);
}

static void alone_there_is_no_waiting(void **state)
{
	(void)state;
	struct disk_tape tape;
	for (size_t i = 0; i < 3; i++) {
		struct courier c = {.plant = i, .round = 1};
		disk_tape_insert(&tape);
		bring(&c);
		bad_disk_remove();
		assert_int_equal(c.err, ERR_OK);
		assert_string_equal(tape.ops, i == 0 ? "CWSdWS" : "WSWS");
		assert_int_equal(ledger_groups(ledger), i + 1);
	}
}

/* A large one is durable before it comes here. */
static void a_large_one_needs_its_row_only(void **state)
{
	(void)state;
	struct disk_tape tape;
	struct update_row row = {.job = jobs[0], .round = 1, .base_round = 1, .place = -1, .size = 4, .samples = 1};
	struct update_row got;
	row.digest = digest_of(contents[0]);
	snprintf(row.plant, sizeof row.plant, "%s", names[0]);
	disk_tape_insert(&tape);
	assert_ok(ledger_commit(ledger, &row, NULL));
	assert_string_equal(tape.ops, "WS"); /* the row's */
	bad_disk_remove();
	assert_int_equal(row.place, -1);
	assert_ok(db_update_find(db, jobs[0], 1, names[0], &got));
	assert_int_equal(got.place, -1);
	assert_fails(db_update_find(db, jobs[0], 2, names[0], &got), ERR_NOT_FOUND, names[0]);
	assert_fails(ledger_commit(ledger, &row, NULL), ERR_DUPLICATE, "counts already");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(alone_there_is_no_waiting, setup_ledger, teardown_ledger),
		cmocka_unit_test_setup_teardown(a_large_one_needs_its_row_only, setup_ledger, teardown_ledger),
		cmocka_unit_test_setup_teardown(whoever_waits_is_one_group, setup_ledger, teardown_ledger),
		cmocka_unit_test_setup_teardown(each_is_judged_alone, setup_ledger, teardown_ledger),
		cmocka_unit_test_setup_teardown(a_leader_that_fails_takes_nobody_with_it, setup_ledger,
						teardown_ledger),
		cmocka_unit_test_setup_teardown(a_failed_transaction_leaves_the_bytes, setup_ledger, teardown_ledger),
		cmocka_unit_test_setup_teardown(a_crowd_on_a_bad_disk, setup_ledger, teardown_ledger),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
