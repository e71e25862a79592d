#include "coordinator/fixture.h"

#include "coordinator/spool.h"

static char *dir;
static struct model *base;
static struct manifest *m;
static struct bytes update;
static struct digest digest;
static const struct spool_key key = {.job = 3, .round = 7, .plant = "north-1"};

static int setup(void **state)
{
	(void)state;
	dir = scratch_make();
	base = model_make(tiny_model, 1);
	m = manifest_make(base, NULL, NULL);
	update = update_of(m, base, 1);
	digest = digest_of(update);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	bad_disk_remove();
	update_free(&update);
	manifest_free(m);
	model_free(base);
	scratch_remove(dir);
	return 0;
}

static const char *folder(void)
{
	static char path[PATH_SIZE];
	return path_join(path, dir, "spool");
}

/* Receive `content` in pieces of at most `piece` bytes, to the end or the first failure. */
static enum err receive(const struct spool_key *k, struct bytes content, const struct digest *d, double norm_max,
			size_t piece, double *ret_norm)
{
	struct spool_entry *e;
	TRY(spool_begin(dir, k, m, norm_max, content.n, d, &e));
	enum err err = ERR_OK;
	for (size_t at = 0; err == ERR_OK && at < content.n; at += piece)
		err = spool_add(e, bytes_of(content.p + at, content.n - at < piece ? content.n - at : piece));
	if (err == ERR_OK)
		err = spool_finish(e, ret_norm);
	if (err == ERR_OK)
		spool_free(e);
	else
		spool_abort(e);
	return err;
}

static void assert_spooled(const struct spool_key *k, struct bytes content)
{
	char path[PATH_SIZE];
	struct buf b;
	assert_ok(file_read(spool_path(dir, k, path), 1 << 20, &b));
	assert_int_equal(b.n, content.n);
	assert_memory_equal(b.p, content.p, b.n);
	buf_deinit(&b);
}

static void assert_empty(void)
{
	assert_int_equal(count_files(folder(), ""), 0);
}

static void an_update_comes_in(void **state)
{
	(void)state;
	double norm, want;
	struct update_check c;
	update_check_init(&c, m, 0);
	assert_ok(update_check_feed(&c, update));
	assert_ok(update_check_end(&c, &want));
	static const size_t pieces[] = {1, 3, 64, 1 << 20};
	for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
		assert_ok(receive(&key, update, &digest, 0, pieces[i], &norm));
		assert_true(norm == want);
		assert_spooled(&key, update);
		assert_int_equal(count_files(folder(), ""), 1);
		assert_ok(spool_remove(dir, &key));
		assert_ok(spool_remove(dir, &key));
		assert_empty();
	}
	char path[PATH_SIZE], expected[PATH_SIZE];
	assert_string_equal(spool_path(dir, &key, path), path_join(expected, folder(), "3-7-north-1.update"));
}

static void wrong_updates_leave_nothing(void **state)
{
	(void)state;
	double norm = -1;
	struct digest other = digest;
	other.b[31] ^= 1;
	struct bytes nan = update_of(m, base, 2), longer = bytes_of(update.p, update.n + 4),
		     shorter = bytes_of(update.p, update.n - 4);
	uint8_t *p = mem_array(nan.n, 1);
	memcpy(p, nan.p, nan.n);
	memcpy(p + 40, "\x00\x00\xc0\x7f", 4);
	assert_fails(receive(&key, update, &other, 0, 64, &norm), ERR_MALFORMED, "SHA-256");
	assert_fails(receive(&key, bytes_of(p, nan.n), &digest, 0, 64, &norm), ERR_NUMERIC, "conv1.weight[10]");
	assert_fails(receive(&key, update, &digest, 1e-3, 64, &norm), ERR_LIMIT, "norm_max");
	assert_fails(receive(&key, longer, &digest, 0, 64, &norm), ERR_SHAPE, "bytes");
	assert_fails(receive(&key, shorter, &digest, 0, 64, &norm), ERR_SHAPE, "bytes");
	assert_true(norm == -1);
	assert_empty();
	/* Announced right, sent wrong. */
	struct spool_entry *e;
	assert_ok(spool_begin(dir, &key, m, 0, update.n, &digest, &e));
	assert_ok(spool_add(e, shorter));
	assert_int_equal(spool_received(e), shorter.n);
	assert_fails(spool_finish(e, &norm), ERR_SHAPE, "bytes");
	spool_abort(e);
	assert_ok(spool_begin(dir, &key, m, 0, update.n, &digest, &e));
	assert_ok(spool_add(e, update));
	assert_fails(spool_add(e, bytes_of(update.p, 4)), ERR_SHAPE, "longer");
	spool_abort(e);
	assert_ok(spool_begin(dir, &key, m, 0, update.n, &digest, &e));
	spool_abort(e);
	spool_abort(NULL);
	assert_empty();
	/* And after all that it still works. */
	assert_ok(receive(&key, update, &digest, 0, 64, &norm));
	free(p);
	update_free(&nan);
}

static void names_cannot_leave_the_folder(void **state)
{
	(void)state;
	static const char *const names[] = {
		"",  "..",  "a/b", "../../etc/x", "a.b",
		"A", "a b", "-a",  "a-",          "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbccccccccccccccccdddddddddddddddd"};
	struct spool_entry *e;
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		struct spool_key k = {.job = 1, .round = 1, .plant = names[i]};
		assert_fails(spool_begin(dir, &k, m, 0, update.n, &digest, &e), ERR_LIMIT, "name of a plant");
	}
	struct spool_key longest = {.job = UINT64_MAX,
				    .round = UINT32_MAX,
				    .plant = "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbccccccccccccccccddddddddddddddd"};
	double norm;
	assert_ok(receive(&longest, update, &digest, 0, 64, &norm));
	assert_spooled(&longest, update);
}

static void the_first_to_finish_wins(void **state)
{
	(void)state;
	struct bytes other = update_of(m, base, 5);
	struct digest other_digest = digest_of(other);
	struct spool_entry *a, *b;
	double norm;
	assert_ok(spool_begin(dir, &key, m, 0, update.n, &digest, &a));
	assert_ok(spool_begin(dir, &key, m, 0, other.n, &other_digest, &b));
	/* Interleaved, as two connections of one plant would be. */
	for (size_t at = 0; at < update.n; at += 4) {
		assert_ok(spool_add(b, bytes_of(other.p + at, 4)));
		assert_ok(spool_add(a, bytes_of(update.p + at, 4)));
	}
	assert_ok(spool_finish(b, &norm));
	assert_fails(spool_finish(a, &norm), ERR_DUPLICATE, "already");
	assert_spooled(&key, other);
	spool_abort(a);
	spool_free(b);
	assert_spooled(&key, other);
	assert_int_equal(count_files(folder(), ""), 1);
	/* The same update once more is no duplicate, and what is there stays there. */
	struct disk_tape tape;
	disk_tape_insert(&tape);
	assert_ok(receive(&key, other, &other_digest, 0, 64, &norm));
	assert_string_equal(tape.ops, "CWSdXd");
	bad_disk_remove();
	assert_spooled(&key, other);
	assert_int_equal(count_files(folder(), ""), 1);
	for (size_t at = 0; at < 12; at++) {
		struct bad_disk disk;
		bad_disk_insert(&disk, at, true);
		enum err e = receive(&key, other, &other_digest, 0, 64, &norm);
		bad_disk_remove();
		assert_int_equal(e != ERR_OK, disk.hit);
		assert_spooled(&key, other);
	}
	update_free(&other);
}

static void bytes_are_durable_before_the_name(void **state)
{
	(void)state;
	struct disk_tape tape;
	double norm;
	assert_ok(spool_sweep(dir, NULL, NULL));
	disk_tape_insert(&tape);
	assert_ok(receive(&key, update, &digest, 0, 100, &norm));
	assert_string_equal(tape.ops, "CWSdRd");
}

static bool known_none(void *arg, const struct spool_key *k)
{
	(void)arg;
	(void)k;
	return false;
}

/*
 * The disk fails at every operation in turn, once or for good. Whatever happens: an .update is complete, and there is
 * one exactly when finish said so.
 */
static void a_failing_disk_never_leaves_half_an_update(void **state)
{
	(void)state;
	for (int stays = 0; stays <= 1; stays++) {
		bool hit = true;
		unsigned failures = 0;
		for (size_t at = 0; hit; at++) {
			struct bad_disk disk;
			double norm = -1;
			bad_disk_insert(&disk, at, stays);
			enum err e = receive(&key, update, &digest, 0, 100, &norm);
			hit = disk.hit;
			bad_disk_remove();
			size_t names = count_files(folder(), ".update");
			if (names == 1)
				assert_spooled(&key, update);
			assert_int_equal(e == ERR_OK, norm >= 0);
			assert_true(e != ERR_OK || names == 1);
			/* Only a disk that fails again while the failure is cleared up leaves the name. */
			assert_true(e == ERR_OK || names == 0 || stays);
			assert_int_equal(e != ERR_OK, hit);
			failures += hit;
			/* The restart, with a database that does not know this update. */
			assert_ok(spool_sweep(dir, known_none, NULL));
			assert_empty();
			assert_int_equal(rmdir(folder()), 0);
		}
		assert_true(failures >= 6); /* mkdir, create, writes, sync, dirsync, rename, dirsync */
	}
}

static bool known_round(void *arg, const struct spool_key *k)
{
	size_t *asked = arg;
	(*asked)++;
	return k->job == 3 && k->round == 7 && strcmp(k->plant, "north-1") == 0;
}

static void put(const char *name)
{
	char path[PATH_SIZE];
	assert_ok(file_replace(path_join(path, folder(), name), bytes_str("x"), 0600));
}

static bool is_there(const char *name)
{
	char path[PATH_SIZE];
	return file_exists(path_join(path, folder(), name));
}

static void a_sweep_keeps_what_is_known(void **state)
{
	(void)state;
	size_t asked = 0;
	assert_ok(spool_sweep(dir, known_round, &asked));
	assert_empty();
	static const char *const ours[] = {"3-7-north-2.update", "3-8-north-1.update", "4-7-north-1.update",
					   "0-0-x.update"};
	static const char *const parts[] = {"3-7-north-1.0.part", "3-7-north-1.99.part", "x.part"};
	static const char *const foreign[] = {"notes.txt",
					      "3-7-north-1.update.bak",
					      "03-7-north-1.update",
					      "3-7-.update",
					      "3-7-North.update",
					      "3-4294967296-a.update",
					      "99999999999999999999-1-a.update",
					      "-3-7-a.update",
					      "3--7-a.update",
					      "+3-7-a.update",
					      ".update",
					      "3-7.update"};
	put("3-7-north-1.update");
	for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++)
		put(ours[i]);
	for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
		put(parts[i]);
	for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++)
		put(foreign[i]);
	assert_ok(spool_sweep(dir, known_round, &asked));
	assert_int_equal(asked, 1 + sizeof ours / sizeof ours[0]);
	assert_true(is_there("3-7-north-1.update"));
	for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++)
		assert_false(is_there(ours[i]));
	for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
		assert_false(is_there(parts[i]));
	for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++)
		assert_true(is_there(foreign[i]));
}

static void a_round_is_removed_as_a_whole(void **state)
{
	(void)state;
	assert_ok(spool_remove_round(dir, 3, 7));
	assert_ok(dir_make(folder(), 0700));
	put("3-7-a.update");
	put("3-7-b.update");
	put("3-7-b.4.part");
	put("3-17-a.update");
	put("13-7-a.update");
	assert_ok(spool_remove_round(dir, 3, 7));
	assert_false(is_there("3-7-a.update"));
	assert_false(is_there("3-7-b.update"));
	assert_true(is_there("3-7-b.4.part"));
	assert_true(is_there("3-17-a.update"));
	assert_true(is_there("13-7-a.update"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(an_update_comes_in, setup, teardown),
		cmocka_unit_test_setup_teardown(wrong_updates_leave_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(names_cannot_leave_the_folder, setup, teardown),
		cmocka_unit_test_setup_teardown(the_first_to_finish_wins, setup, teardown),
		cmocka_unit_test_setup_teardown(bytes_are_durable_before_the_name, setup, teardown),
		cmocka_unit_test_setup_teardown(a_failing_disk_never_leaves_half_an_update, setup, teardown),
		cmocka_unit_test_setup_teardown(a_sweep_keeps_what_is_known, setup, teardown),
		cmocka_unit_test_setup_teardown(a_round_is_removed_as_a_whole, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
