#include "coordinator/fixture.h"

#include "coordinator/store.h"

#include <pthread.h>

static char *dir;
static struct store *store;
static const char content[] = "these bytes stand for a model";
static struct digest digest;

static int setup(void **state)
{
	(void)state;
	dir = scratch_make();
	assert_ok(store_open(dir, &store));
	digest = digest_of(bytes_of(content, sizeof content));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	bad_disk_remove();
	store_close(store);
	scratch_remove(dir);
	return 0;
}

static const char *folder(void)
{
	static char path[PATH_SIZE];
	return path_join(path, dir, "models");
}

/* A model in the making. */
static const char *make(const char *name, const void *p, size_t n)
{
	static char path[PATH_SIZE];
	assert_ok(file_replace(store_temp_path(store, name, path), bytes_of(p, n), 0600));
	return path;
}

static enum err adopt(const char *path, const struct digest *expected, struct digest *ret_digest)
{
	uint64_t size = 0;
	enum err e = store_adopt(store, path, expected, ret_digest, &size);
	assert_true(e != ERR_OK || size == sizeof content);
	return e;
}

static void a_model_is_kept_by_its_content(void **state)
{
	(void)state;
	struct digest got;
	uint64_t size = 0;
	char path[PATH_SIZE];
	assert_false(store_has(store, &digest, &size));
	const char *temp = make("job-1-2", content, sizeof content);
	assert_ok(adopt(temp, NULL, &got));
	assert_true(digest_equal(&got, &digest));
	assert_false(file_exists(temp));
	assert_true(store_has(store, &digest, &size));
	assert_int_equal(size, sizeof content);
	assert_true(store_has(store, &digest, NULL));
	assert_ok(digest_file(store_path(store, &digest, path), &got, NULL));
	assert_true(digest_equal(&got, &digest));
	/* Once more: the same. */
	temp = make("job-1-3", content, sizeof content);
	assert_ok(adopt(temp, &digest, &got));
	assert_false(file_exists(temp));
	assert_int_equal(count_files(folder(), ""), 1);
	/* It is there after a restart. */
	store_close(store);
	assert_ok(store_open(dir, &store));
	assert_true(store_has(store, &digest, NULL));
}

static void another_content_is_refused(void **state)
{
	(void)state;
	struct digest other = digest, got = {{0}};
	other.b[0] ^= 1;
	const char *temp = make("a", content, sizeof content);
	assert_fails(adopt(temp, &other, &got), ERR_CORRUPT, "instead of");
	assert_true(digest_is_zero(&got));
	assert_false(store_has(store, &other, NULL));
	assert_int_equal(count_files(folder(), ""), 0);
	char path[PATH_SIZE];
	assert_fails(adopt(store_temp_path(store, "absent", path), NULL, &got), ERR_NOT_FOUND, "absent");
	assert_int_equal(count_files(folder(), ""), 0);
}

static void leftovers_go_at_the_start(void **state)
{
	(void)state;
	char path[PATH_SIZE];
	make("left", content, 3);
	make("job-1.part", content, 3); /* aggregate.c writes beside the name it is given */
	assert_ok(file_replace(path_join(path, folder(), "README"), bytes_str("x"), 0600));
	assert_int_equal(count_files(folder(), ""), 3);
	store_close(store);
	assert_ok(store_open(dir, &store));
	assert_int_equal(count_files(folder(), ""), 1);
	assert_true(file_exists(path));
}

static void bytes_are_durable_before_the_name(void **state)
{
	(void)state;
	struct disk_tape tape;
	struct digest got;
	const char *temp = make("new", content, sizeof content);
	disk_tape_insert(&tape);
	assert_ok(adopt(temp, NULL, &got));
	assert_string_equal(tape.ops, "SRd");
}

static void a_failing_disk_never_shows_half_a_model(void **state)
{
	(void)state;
	for (int stays = 0; stays <= 1; stays++) {
		bool hit = true;
		unsigned failures = 0;
		for (size_t at = 0; hit; at++) {
			struct bad_disk disk;
			struct digest got;
			const char *temp = make("new", content, sizeof content);
			bad_disk_insert(&disk, at, stays);
			enum err e = adopt(temp, NULL, &got);
			hit = disk.hit;
			bad_disk_remove();
			char path[PATH_SIZE];
			if (store_has(store, &digest, NULL)) {
				assert_ok(digest_file(store_path(store, &digest, path), &got, NULL));
				assert_true(digest_equal(&got, &digest));
			}
			assert_true(e != ERR_OK || store_has(store, &digest, NULL));
			assert_int_equal(e != ERR_OK, hit);
			assert_true(stays || !file_exists(temp));
			failures += hit;
			store_close(store);
			assert_ok(store_open(dir, &store));
			assert_int_equal(count_files(folder(), ".part"), 0);
			assert_ok(file_remove(store_path(store, &digest, path)));
			assert_int_equal(count_files(folder(), ""), 0);
		}
		assert_true(failures >= 3); /* sync, rename, dirsync */
	}
}

/* Its writer has digested and synced it: no further sync of the content, and no pass over it. */
static void what_its_writer_vouches_for_only_gets_its_name(void **state)
{
	(void)state;
	struct disk_tape tape;
	const char *temp = make("new", content, sizeof content);
	disk_tape_insert(&tape);
	assert_ok(store_take(store, temp, &digest));
	assert_string_equal(tape.ops, "Rd");
	assert_true(store_has(store, &digest, NULL));
	assert_false(file_exists(temp));
	char path[PATH_SIZE];
	assert_fails(store_take(store, store_temp_path(store, "absent", path), &digest), ERR_NOT_FOUND, "absent");
	/* A rename that the disk refuses leaves neither name. */
	struct bad_disk disk;
	assert_ok(store_remove(store, &digest));
	temp = make("again", content, sizeof content);
	bad_disk_insert(&disk, 0, false);
	assert_int_equal(store_take(store, temp, &digest), ERR_IO);
	bad_disk_remove();
	assert_false(file_exists(temp));
	assert_false(store_has(store, &digest, NULL));
}

static void a_removed_model_is_read_to_its_end(void **state)
{
	(void)state;
	struct digest got;
	struct store_model *m, *none;
	struct disk_tape tape;
	assert_ok(adopt(make("a", content, sizeof content), NULL, &got));
	assert_ok(store_acquire(store, &digest, &m));
	disk_tape_insert(&tape);
	assert_ok(store_remove(store, &digest));
	assert_string_equal(tape.ops, "X");
	bad_disk_remove();
	assert_false(store_has(store, &digest, NULL));
	assert_memory_equal(store_content(m).p, content, sizeof content);
	store_release(store, m);
	assert_fails(store_acquire(store, &digest, &none), ERR_NOT_FOUND, "safetensors");
	assert_ok(store_remove(store, &digest)); /* absent is fine */
	struct bad_disk disk;
	bad_disk_insert(&disk, 0, false);
	assert_int_equal(store_remove(store, &digest), ERR_IO);
}

struct seen {
	struct digest last;
	size_t n;
	enum err fails;
};

static enum err see(void *arg, const struct digest *d)
{
	struct seen *s = arg;
	assert_true(s->n == 0 || memcmp(s->last.b, d->b, DIGEST_SIZE) < 0);
	s->last = *d;
	s->n++;
	return s->fails == ERR_OK ? store_remove(store, d) : err_set(s->fails, "enough");
}

static void all_models_are_found_and_nothing_else(void **state)
{
	(void)state;
	struct seen seen = {.fails = ERR_STATE};
	char path[PATH_SIZE], name[80];
	for (char c = 'a'; c < 'f'; c++) {
		char text[sizeof content];
		struct digest got;
		memset(text, c, sizeof text);
		assert_ok(adopt(make("m", text, sizeof text), NULL, &got));
	}
	make("part", content, sizeof content);
	assert_ok(file_replace(path_join(path, folder(), "README"), bytes_str("x"), 0600));
	snprintf(name, sizeof name, "%064d.safetensorz", 0);
	assert_ok(file_replace(path_join(path, folder(), name), bytes_str("x"), 0600));
	snprintf(name, sizeof name, "%063dZ.safetensors", 0);
	assert_ok(file_replace(path_join(path, folder(), name), bytes_str("x"), 0600));
	assert_fails(store_each(store, see, &seen), ERR_STATE, "enough");
	assert_int_equal(seen.n, 1);
	seen = (struct seen){.n = 0};
	assert_ok(store_each(store, see, &seen));
	assert_int_equal(seen.n, 5);
	assert_int_equal(count_files(folder(), ""), 4);
}

static void readers_share_a_mapping(void **state)
{
	(void)state;
	struct digest got, absent = {{1}};
	struct store_model *a, *b, *none;
	assert_ok(adopt(make("a", content, sizeof content), NULL, &got));
	assert_ok(store_acquire(store, &digest, &a));
	assert_ok(store_acquire(store, &digest, &b));
	assert_ptr_equal(a, b);
	assert_int_equal(store_content(a).n, sizeof content);
	assert_memory_equal(store_content(a).p, content, sizeof content);
	store_release(store, a);
	/* The other one still reads, also when the file is replaced meanwhile. */
	assert_ok(adopt(make("again", content, sizeof content), NULL, &got));
	assert_memory_equal(store_content(b).p, content, sizeof content);
	store_release(store, b);
	store_release(store, NULL);
	assert_fails(store_acquire(store, &absent, &none), ERR_NOT_FOUND, "01000000");
}

enum { READERS = 4, TURNS = 300, MODELS = 3 };

static struct digest digests[MODELS];

static void *read_on(void *arg)
{
	struct rng r;
	rng_seed(&r, (uint64_t)(uintptr_t)arg);
	size_t wrong = 0;
	for (unsigned i = 0; i < TURNS; i++) {
		struct store_model *m;
		size_t k = rng_below(&r, MODELS);
		if (store_acquire(store, &digests[k], &m) != ERR_OK)
			return (void *)1;
		wrong += store_content(m).p[0] != (uint8_t)('0' + k);
		store_release(store, m);
	}
	return wrong > 0 ? (void *)1 : NULL;
}

static void threads_read_together(void **state)
{
	(void)state;
	pthread_t threads[READERS];
	for (size_t k = 0; k < MODELS; k++) {
		char text[sizeof content];
		memcpy(text, content, sizeof content);
		text[0] = (char)('0' + k);
		assert_ok(adopt(make("m", text, sizeof text), NULL, &digests[k]));
	}
	for (uintptr_t i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, read_on, (void *)i), 0);
	for (size_t i = 0; i < READERS; i++) {
		void *wrong;
		assert_int_equal(pthread_join(threads[i], &wrong), 0);
		assert_null(wrong);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_model_is_kept_by_its_content, setup, teardown),
		cmocka_unit_test_setup_teardown(another_content_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(leftovers_go_at_the_start, setup, teardown),
		cmocka_unit_test_setup_teardown(bytes_are_durable_before_the_name, setup, teardown),
		cmocka_unit_test_setup_teardown(a_failing_disk_never_shows_half_a_model, setup, teardown),
		cmocka_unit_test_setup_teardown(what_its_writer_vouches_for_only_gets_its_name, setup, teardown),
		cmocka_unit_test_setup_teardown(a_removed_model_is_read_to_its_end, setup, teardown),
		cmocka_unit_test_setup_teardown(all_models_are_found_and_nothing_else, setup, teardown),
		cmocka_unit_test_setup_teardown(readers_share_a_mapping, setup, teardown),
		cmocka_unit_test_setup_teardown(threads_read_together, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
