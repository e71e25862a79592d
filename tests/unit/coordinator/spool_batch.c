/*
 * Small updates, which share a file; and how much room there is for all.
 */
#include "coordinator/spool_fixture.h"

#include <pthread.h>

static const struct spool_config small = {0};
enum { MANY = 5 };

static struct bytes contents[MANY];
static char names[MANY][16];

static int setup_small(void **state)
{
	setup(state);
	for (size_t i = 0; i < MANY; i++) {
		contents[i] = update_of(m, base, 100 + i);
		snprintf(names[i], sizeof names[i], "p%zu", i);
	}
	reopen(&small, known_none);
	return 0;
}

static int teardown_small(void **state)
{
	for (size_t i = 0; i < MANY; i++)
		update_free(&contents[i]);
	return teardown(state);
}

/* Update i, complete and checked, in memory. */
static struct spool_entry *finished(size_t i)
{
	struct spool_entry *e = NULL;
	double norm = 0;
	struct digest d = digest_of(contents[i]);
	struct spool_key k = {.job = 3, .round = 7, .plant = names[i]};
	assert_ok(begin_with(&k, contents[i], &d, 0, 100, &e));
	assert_ok(spool_add(e, &(struct bytes){contents[i].p + 100, contents[i].n - 100}, 1));
	assert_ok(spool_finish(e, &norm));
	assert_true(spool_is_small(e));
	return e;
}

static void assert_in_batch(uint32_t round, size_t i, int64_t place)
{
	char path[PATH_SIZE];
	struct buf b;
	assert_ok(file_read(spool_batch_path(spool, 3, round, path), 1 << 20, &b));
	assert_true(place >= 0 && (size_t)place + contents[i].n <= b.n);
	assert_memory_equal(b.p + place, contents[i].p, contents[i].n);
	buf_deinit(&b);
}

static enum err append(uint32_t round, size_t first, size_t n, int64_t *places)
{
	struct spool_entry *entries[MANY] = {NULL};
	for (size_t i = 0; i < n; i++)
		entries[i] = finished(first + i);
	enum err err = spool_append(spool, 3, round, entries, n, places);
	for (size_t i = 0; i < n; i++)
		spool_free(entries[i]);
	return err;
}

static void a_group_has_one_sync(void **state)
{
	(void)state;
	struct disk_tape tape;
	int64_t places[MANY];
	char path[PATH_SIZE], expected[PATH_SIZE];
	uint64_t size;
	disk_tape_insert(&tape);
	assert_ok(append(7, 0, 3, places));
	assert_string_equal(tape.ops, "CWSd"); /* receiving has not touched the disk */
	disk_tape_insert(&tape);
	assert_ok(append(7, 3, 2, places + 3));
	assert_string_equal(tape.ops, "WS");
	bad_disk_remove();
	for (size_t i = 0; i < MANY; i++)
		assert_in_batch(7, i, places[i]);
	assert_int_equal(places[3] % 4096, 0); /* a group shares no page with another */
	assert_true(places[3] > places[2]);
	assert_string_equal(spool_batch_path(spool, 3, 7, path), path_join(expected, folder(), "3-7.batch"));
	assert_int_equal(count_files(folder(), ""), 1);
	assert_ok(file_size(path, &size));
	assert_int_equal(spool_bytes(spool), size);
	/* After a restart it grows on. */
	reopen(&small, known_all);
	assert_int_equal(spool_bytes(spool), size);
	int64_t again;
	assert_ok(append(7, 0, 1, &again));
	assert_true((uint64_t)again >= size);
	for (size_t i = 0; i < MANY; i++)
		assert_in_batch(7, i, places[i]);
	spool_remove_batch(spool, 3, 7);
	spool_remove_batch(spool, 3, 7);
	assert_empty();
}

static void nothing_of_a_cut_one_stays(void **state)
{
	(void)state;
	struct spool_entry *e = NULL;
	struct digest d = digest_of(contents[0]);
	struct spool_key k = {.job = 3, .round = 7, .plant = names[0]};
	assert_ok(begin_with(&k, contents[0], &d, 0, 100, &e));
	assert_int_equal(spool_received(spool, &k, &d, contents[0].n), 0);
	assert_int_equal(spool_bytes(spool), contents[0].n); /* promised */
	spool_suspend(e);
	assert_empty();
	assert_fails(spool_begin(spool, &k, m, 0, contents[0].n, &d, 100, &e), ERR_UNAVAILABLE, "from its beginning");
	assert_empty();
	spool_free(finished(0)); /* complete, but its round was closed meanwhile */
	assert_empty();
}

/* A part from a time when such an update was large. */
static void a_part_of_a_small_one_goes(void **state)
{
	(void)state;
	struct spool_entry *e = NULL;
	double norm = 0;
	reopen(&large, known_all);
	assert_ok(begin_with(&key, update, &digest, 0, 100, &e));
	spool_suspend(e);
	reopen(&small, known_all);
	assert_int_equal(spool_bytes(spool), 100);
	assert_ok(receive(&key, update, &digest, 0, 1 << 20, &norm));
	assert_empty();
}

static void rounds_and_jobs_have_their_own(void **state)
{
	(void)state;
	int64_t place = -1;
	for (uint64_t job = 1; job <= 80; job++) { /* more than are kept open */
		for (uint32_t round = 1; round <= 2; round++) {
			struct spool_entry *e = finished(job % MANY);
			assert_ok(spool_append(spool, job, round, &e, 1, &place));
			assert_int_equal(place, 0);
			spool_free(e);
		}
	}
	assert_int_equal(count_files(folder(), ".batch"), 160);
	struct spool_entry *e = finished(0);
	assert_ok(spool_append(spool, 3, 1, &e, 1, &place));
	assert_int_equal(place, 4096);
	assert_in_batch(1, 3, 0);
	assert_in_batch(1, 0, place);
	spool_free(e);
	for (uint64_t job = 1; job <= 80; job++) {
		spool_remove_batch(spool, job, 1);
		spool_remove_batch(spool, job, 2);
	}
	assert_empty();
}

/* The disk fails at every operation of a second group: what the first has does not change, and a third is welcome. */
static void a_failing_disk_spoils_its_group_only(void **state)
{
	(void)state;
	for (int stays = 0; stays <= 1; stays++) {
		bool hit = true;
		unsigned failures = 0;
		for (size_t at = 0; hit; at++) {
			struct bad_disk disk;
			int64_t places[MANY] = {-1, -1, -1, -1, -1};
			char path[PATH_SIZE];
			uint64_t size;
			assert_ok(append(7, 0, 2, places));
			if (at % 2 == 1)
				reopen(&small, known_all); /* with a file that is there, and with one that is open */
			bad_disk_insert(&disk, at / 2, stays);
			enum err err = append(7, 2, 2, places + 2);
			hit = disk.hit;
			failures += hit;
			bad_disk_remove();
			assert_int_equal(err, hit ? ERR_IO : ERR_OK);
			assert_int_equal(places[3] < 0, err != ERR_OK);
			assert_ok(append(7, 4, 1, places + 4));
			for (size_t i = 0; i < MANY; i++) {
				if (places[i] >= 0)
					assert_in_batch(7, i, places[i]);
			}
			assert_ok(file_size(spool_batch_path(spool, 3, 7, path), &size));
			assert_int_equal(spool_bytes(spool), size);
			spool_remove_batch(spool, 3, 7);
			assert_empty();
		}
		assert_true(failures >= 4); /* write and sync, each way */
	}
	/* The first group of all. */
	bool hit = true;
	for (size_t at = 0; hit; at++) {
		struct bad_disk disk;
		int64_t place = -1;
		bad_disk_insert(&disk, at, false);
		enum err err = append(7, 0, 1, &place);
		hit = disk.hit;
		bad_disk_remove();
		assert_int_equal(err, hit ? ERR_IO : ERR_OK);
		struct disk_tape tape;
		disk_tape_insert(&tape);
		assert_ok(append(7, 1, 1, &place));
		/* Whatever has failed, the name is durable before anybody is told. */
		assert_true(!hit || strchr(tape.ops, 'd') != NULL);
		bad_disk_remove();
		assert_in_batch(7, 1, place);
		spool_remove_batch(spool, 3, 7);
	}
}

/* ---- room ---- */

static void a_full_spool_lets_nobody_in(void **state)
{
	(void)state;
	struct spool_entry *e = NULL, *other = NULL;
	struct spool_key second = {3, 7, "p1"}, third = {3, 7, "p2"};
	double norm = 0;
	for (uint64_t small_max = 0; small_max <= 1; small_max++) {
		struct spool_config config = {.bytes_max = 2 * update.n + 100, .small_max = small_max};
		reopen(&config, known_none);
		/* What is promised counts, not what has come. */
		assert_ok(begin_with(&key, update, &digest, 0, 10, &e));
		assert_ok(begin_with(&second, update, &digest, 0, 10, &other));
		assert_int_equal(spool_bytes(spool), 2 * update.n);
		struct spool_entry *none;
		assert_fails(spool_begin(spool, &third, m, 0, update.n, &digest, 0, &none), ERR_UNAVAILABLE,
			     "the spool is full");
		spool_suspend(other);
		assert_ok(receive(&third, update, &digest, 0, 64, &norm));
		spool_abort(e);
		spool_remove(spool, &third);
		spool_remove_parts(spool, 3, 7);
		assert_empty();
	}
	/* A part that goes on has its own bytes already. */
	struct spool_config config = {.bytes_max = update.n, .small_max = 1};
	reopen(&config, known_none);
	assert_ok(begin_with(&key, update, &digest, 0, 100, &e));
	spool_suspend(e);
	assert_fails(spool_begin(spool, &second, m, 0, update.n, &digest, 0, &e), ERR_UNAVAILABLE, "the spool is full");
	assert_ok(begin_with(&key, update, &digest, 100, update.n, &e));
	assert_ok(spool_finish(e, &norm));
	spool_free(e);
	assert_spooled(&key, update);
	assert_ok(spool_check_room(spool, 1, update.n));
	assert_fails(spool_check_room(spool, 2, update.n), ERR_LIMIT, "2 updates of 268 bytes");
	assert_int_equal(spool_check_room(spool, UINT64_MAX, UINT64_MAX), ERR_LIMIT);
	/* Found again after a restart. */
	reopen(&config, known_all);
	assert_fails(spool_begin(spool, &second, m, 0, update.n, &digest, 0, &e), ERR_UNAVAILABLE, "the spool is full");
}

static void the_disk_is_not_filled_up(void **state)
{
	(void)state;
	struct spool_entry *e = NULL;
	double norm = 0;
	struct spool_config config = {.free_min = (uint64_t)1 << 60, .small_max = 1};
	reopen(&config, known_none);
	assert_fails(spool_begin(spool, &key, m, 0, update.n, &digest, 0, &e), ERR_UNAVAILABLE, "disk_free_min");
	assert_empty();
	config.free_min = 1;
	reopen(&config, known_none);
	assert_ok(receive(&key, update, &digest, 0, 64, &norm));
}

/* ---- many at once ---- */

static void *bring(void *arg)
{
	const char *plant = arg;
	size_t who = (size_t)(plant[1] - '0');
	struct digest d = digest_of(contents[who]);
	for (uint32_t round = 1; round <= 20; round++) {
		struct spool_key k = {.job = 3, .round = round, .plant = plant};
		struct spool_entry *e = NULL;
		int64_t place = -1;
		double norm = 0;
		if (begin_with(&k, contents[who], &d, 0, 100, &e) != ERR_OK)
			return NULL;
		(round % 3 == 0 ? spool_suspend : spool_abort)(e);
		uint64_t at = spool_received(spool, &k, &d, contents[who].n);
		if (begin_with(&k, contents[who], &d, at, contents[who].n, &e) != ERR_OK ||
		    spool_finish(e, &norm) != ERR_OK)
			return NULL;
		if (spool_is_small(e) && spool_append(spool, 3, round, &e, 1, &place) != ERR_OK)
			return NULL;
		spool_free(e);
		spool_remove(spool, &k);
	}
	return arg;
}

static void many_at_once(void **state)
{
	(void)state;
	for (uint64_t small_max = 0; small_max <= 1; small_max++) {
		pthread_t threads[MANY];
		reopen(&(struct spool_config){.small_max = small_max, .free_min = 1}, known_none);
		for (size_t i = 0; i < MANY; i++)
			assert_int_equal(pthread_create(&threads[i], NULL, bring, names[i]), 0);
		for (size_t i = 0; i < MANY; i++) {
			void *done;
			assert_int_equal(pthread_join(threads[i], &done), 0);
			assert_non_null(done);
		}
		for (uint32_t round = 1; round <= 20; round++)
			spool_remove_batch(spool, 3, round);
		assert_empty();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_group_has_one_sync, setup_small, teardown_small),
		cmocka_unit_test_setup_teardown(nothing_of_a_cut_one_stays, setup_small, teardown_small),
		cmocka_unit_test_setup_teardown(a_part_of_a_small_one_goes, setup_small, teardown_small),
		cmocka_unit_test_setup_teardown(rounds_and_jobs_have_their_own, setup_small, teardown_small),
		cmocka_unit_test_setup_teardown(a_failing_disk_spoils_its_group_only, setup_small, teardown_small),
		cmocka_unit_test_setup_teardown(a_full_spool_lets_nobody_in, setup_small, teardown_small),
		cmocka_unit_test_setup_teardown(the_disk_is_not_filled_up, setup_small, teardown_small),
		cmocka_unit_test_setup_teardown(many_at_once, setup_small, teardown_small),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
