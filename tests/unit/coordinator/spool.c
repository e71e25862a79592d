/*
 * Large updates, each in a file of its own: what is refused, what is durable when, cut streams that go on.
 */
#include "coordinator/spool_fixture.h"

#include "base/rng.h"

static void an_update_comes_in(void **state)
{
	(void)state;
	double norm, want;
	struct update_check c;
	char path[PATH_SIZE], expected[PATH_SIZE];
	update_check_init(&c, m, 0);
	assert_ok(update_check_feed(&c, update));
	assert_ok(update_check_end(&c, &want));
	static const size_t pieces[] = {1, 3, 64, 1 << 20};
	for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
		assert_ok(receive(&key, update, &digest, 0, pieces[i], &norm));
		assert_true(norm == want);
		assert_spooled(&key, update);
		assert_int_equal(count_files(folder(), ""), 1);
		assert_int_equal(spool_bytes(spool), update.n);
		spool_remove(spool, &key);
		spool_remove(spool, &key);
		assert_empty();
	}
	assert_string_equal(spool_path(spool, &key, path), path_join(expected, folder(), "3-7-north-1.update"));
}

/* The stretches of a message, as the transport gives them, however many. */
static void a_message_comes_in_pieces(void **state)
{
	(void)state;
	struct spool_entry *e = NULL;
	struct bytes pieces[200];
	double norm = 0;
	size_t n = 0;
	for (size_t at = 0; at < update.n; n++) {
		size_t left = update.n - at, k = n == 199 ? left : n % 7 < left ? n % 7 : left;
		pieces[n] = bytes_of(update.p + at, k);
		at += k;
	}
	assert_ok(spool_begin(spool, &key, m, 0, update.n, &digest, 0, &e));
	assert_false(spool_is_small(e));
	assert_ok(spool_add(e, pieces, 0));
	assert_ok(spool_add(e, pieces, n));
	assert_ok(spool_finish(e, &norm));
	spool_free(e);
	assert_spooled(&key, update);
}

static void wrong_updates_leave_nothing(void **state)
{
	(void)state;
	double norm = -1;
	struct digest other = digest;
	other.b[31] ^= 1;
	struct bytes nan = update_of(m, base, 2), longer = bytes_of(update.p, update.n + 4),
		     shorter = bytes_of(update.p, update.n - 4), more = bytes_of(update.p, 4);
	uint8_t *p = mem_array(nan.n, 1);
	memcpy(p, nan.p, nan.n);
	memcpy(p + 40, "\x00\x00\xc0\x7f", 4);
	for (int small = 0; small <= 1; small++) {
		struct spool_entry *e = NULL;
		reopen(&(struct spool_config){.small_max = small ? 0 : 1}, known_none);
		assert_fails(receive(&key, update, &other, 0, 64, &norm), ERR_MALFORMED, "SHA-256");
		assert_fails(receive(&key, bytes_of(p, nan.n), &digest, 0, 64, &norm), ERR_NUMERIC, "conv1.weight[10]");
		assert_fails(receive(&key, update, &digest, 1e-3, 64, &norm), ERR_LIMIT, "norm_max");
		assert_fails(receive(&key, longer, &digest, 0, 64, &norm), ERR_SHAPE, "bytes");
		assert_fails(receive(&key, shorter, &digest, 0, 64, &norm), ERR_SHAPE, "bytes");
		assert_true(norm == -1);
		assert_empty();
		/* Announced right, sent wrong. */
		assert_ok(spool_begin(spool, &key, m, 0, update.n, &digest, 0, &e));
		assert_ok(spool_add(e, &shorter, 1));
		assert_fails(spool_finish(e, &norm), ERR_SHAPE, "");
		spool_suspend(e);
		assert_empty();
		assert_ok(spool_begin(spool, &key, m, 0, update.n, &digest, 0, &e));
		assert_ok(spool_add(e, &update, 1));
		assert_fails(spool_add(e, &more, 1), ERR_SHAPE, "longer");
		spool_suspend(e); /* a stream that is refused leaves nothing, also when it is cut at that moment */
		assert_empty();
		/* Not even by a part of a value, in the same message or in the next. */
		for (size_t beyond = 1; beyond < 4; beyond++) {
			const struct bytes pieces[] = {update, bytes_of(update.p, beyond)};
			assert_ok(spool_begin(spool, &key, m, 0, update.n, &digest, 0, &e));
			assert_fails(spool_add(e, pieces, 2), ERR_SHAPE, "longer");
			spool_suspend(e);
			assert_ok(spool_begin(spool, &key, m, 0, update.n, &digest, 0, &e));
			assert_ok(spool_add(e, pieces, 1));
			assert_fails(spool_add(e, &pieces[1], 1), ERR_SHAPE, "longer");
			spool_suspend(e);
			assert_empty();
		}
		assert_ok(spool_begin(spool, &key, m, 0, update.n, &digest, 0, &e));
		spool_abort(e);
		assert_ok(spool_begin(spool, &key, m, 0, update.n, &digest, 0, &e));
		spool_suspend(e);
		spool_abort(NULL);
		spool_suspend(NULL);
		assert_empty();
	}
	free(p);
	update_free(&nan);
}

static void names_cannot_leave_the_folder(void **state)
{
	(void)state;
	static const char *const names[] = {
		"",  "..",  "a/b", "../../etc/x", "a.b",
		"A", "a b", "-a",  "a-",          "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbccccccccccccccccdddddddddddddddd"};
	struct spool_entry *e = NULL;
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		struct spool_key k = {.job = 1, .round = 1, .plant = names[i]};
		assert_fails(spool_begin(spool, &k, m, 0, update.n, &digest, 0, &e), ERR_LIMIT, "name of a plant");
	}
	struct spool_key longest = {.job = UINT64_MAX,
				    .round = UINT32_MAX,
				    .plant = "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbccccccccccccccccddddddddddddddd"};
	double norm = 0;
	assert_ok(receive(&longest, update, &digest, 0, 64, &norm));
	assert_spooled(&longest, update);
}

static void one_stream_at_a_time(void **state)
{
	(void)state;
	struct bytes other = update_of(m, base, 5);
	struct digest other_digest = digest_of(other);
	struct spool_key elsewhere = key;
	struct spool_entry *a = NULL, *b = NULL;
	double norm = 0;
	elsewhere.round++;
	assert_ok(begin_with(&key, update, &digest, 0, 40, &a));
	assert_fails(spool_begin(spool, &key, m, 0, update.n, &digest, 40, &b), ERR_UNAVAILABLE, "has not ended");
	assert_fails(spool_begin(spool, &key, m, 0, other.n, &other_digest, 0, &b), ERR_UNAVAILABLE, "has not ended");
	assert_int_equal(spool_received(spool, &key, &digest, update.n), 40);
	spool_remove_parts(spool, key.job, key.round); /* not that of a stream */
	assert_ok(spool_begin(spool, &elsewhere, m, 0, update.n, &digest, 0, &b));
	assert_ok(spool_add(b, &update, 1));
	assert_ok(spool_finish(b, &norm));
	spool_free(b);
	assert_ok(spool_add(a, &(struct bytes){update.p + 40, update.n - 40}, 1));
	assert_ok(spool_finish(a, &norm));
	spool_free(a);
	assert_spooled(&key, update);
	/* Other bytes are refused, the same are welcome, and what is there stays there. */
	assert_fails(receive(&key, other, &other_digest, 0, 64, &norm), ERR_DUPLICATE, "already");
	assert_spooled(&key, update);
	struct disk_tape tape;
	disk_tape_insert(&tape);
	assert_ok(receive(&key, update, &digest, 0, 64, &norm));
	assert_string_equal(tape.ops, "CWSXd");
	bad_disk_remove();
	assert_spooled(&key, update);
	assert_int_equal(count_files(folder(), ""), 2);
	assert_int_equal(spool_bytes(spool), 2 * update.n);
	for (size_t at = 0; at < 12; at++) {
		struct bad_disk disk;
		bad_disk_insert(&disk, at, true);
		enum err e = receive(&key, update, &digest, 0, 64, &norm);
		bad_disk_remove();
		assert_int_equal(e != ERR_OK, disk.hit);
		assert_spooled(&key, update);
	}
	update_free(&other);
}

static void bytes_are_durable_before_the_name(void **state)
{
	(void)state;
	struct disk_tape tape;
	double norm = 0;
	disk_tape_insert(&tape);
	assert_ok(receive(&key, update, &digest, 0, 100, &norm));
	assert_string_equal(tape.ops, "CWSRd");
}

/*
 * The disk fails at every operation in turn, once or for good. Whatever happens: an .update is complete, and there is one exactly when finish
 * said so.
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
			reopen(&large, known_none);
			assert_empty();
		}
		assert_true(failures >= 5); /* create, writes, sync, rename, dirsync */
	}
}

/* ---- going on ---- */

static void a_cut_update_goes_on(void **state)
{
	(void)state;
	for (int restart = 0; restart <= 1; restart++) {
		for (size_t cut = 1; cut <= update.n; cut += cut < update.n - 7 ? 7 : 1) {
			struct spool_entry *e = NULL;
			double norm, want;
			assert_ok(receive(&key, update, &digest, 0, 1 << 20, &want));
			spool_remove(spool, &key);
			assert_ok(begin_with(&key, update, &digest, 0, cut, &e));
			spool_suspend(e);
			assert_int_equal(spool_bytes(spool), cut);
			if (restart)
				reopen(&large, known_all);
			assert_int_equal(spool_bytes(spool), cut);
			assert_int_equal(spool_received(spool, &key, &digest, update.n), cut);
			assert_ok(begin_with(&key, update, &digest, cut, update.n, &e));
			assert_ok(spool_finish(e, &norm));
			spool_free(e);
			assert_true(norm == want);
			assert_spooled(&key, update);
			assert_int_equal(count_files(folder(), ""), 1);
			spool_remove(spool, &key);
			assert_empty();
		}
	}
}

static void an_offset_is_judged(void **state)
{
	(void)state;
	struct spool_entry *e = NULL;
	struct bytes other = update_of(m, base, 5);
	struct digest other_digest = digest_of(other);
	double norm = 0;
	assert_ok(begin_with(&key, update, &digest, 0, 200, &e));
	spool_suspend(e);
	/* More than is there: the plant has to ask again, and nothing is lost by that. */
	assert_fails(spool_begin(spool, &key, m, 0, update.n, &digest, 204, &e), ERR_UNAVAILABLE, "200 bytes");
	assert_fails(spool_begin(spool, &key, m, 0, other.n, &other_digest, 4, &e), ERR_UNAVAILABLE, "0 bytes");
	assert_int_equal(spool_received(spool, &key, &digest, update.n), 200);
	assert_int_equal(spool_received(spool, &key, &other_digest, other.n), 0);
	assert_int_equal(spool_received(spool, &key, &digest, 196), 0);
	assert_int_equal(spool_received(spool, &(struct spool_key){3, 8, "north-1"}, &digest, update.n), 0);
	/* Less: what is behind it is cut off. */
	assert_ok(begin_with(&key, update, &digest, 100, 104, &e));
	spool_suspend(e);
	assert_int_equal(spool_received(spool, &key, &digest, update.n), 104);
	assert_int_equal(spool_bytes(spool), 104);
	assert_ok(begin_with(&key, update, &digest, 0, 8, &e));
	spool_suspend(e);
	assert_int_equal(spool_received(spool, &key, &digest, update.n), 8);
	/* Other bytes: the plant has learned anew, one part per key. */
	assert_ok(begin_with(&key, other, &other_digest, 0, 12, &e));
	spool_suspend(e);
	assert_int_equal(spool_received(spool, &key, &digest, update.n), 0);
	assert_int_equal(spool_received(spool, &key, &other_digest, other.n), 12);
	assert_int_equal(count_files(folder(), ""), 1);
	assert_int_equal(spool_bytes(spool), 12);
	assert_ok(begin_with(&key, other, &other_digest, 12, other.n, &e));
	assert_ok(spool_finish(e, &norm));
	spool_free(e);
	assert_spooled(&key, other);
	update_free(&other);
}

static void spoil_part(size_t at, uint8_t with, bool cut)
{
	char name[80], path[PATH_SIZE], text[DIGEST_TEXT_SIZE];
	struct buf b;
	snprintf(name, sizeof name, "3-7-north-1.%.16s.part", digest_format(&digest, text));
	assert_ok(file_read(path_join(path, folder(), name), 1 << 20, &b));
	assert_true(at < b.n);
	b.p[at] = with;
	assert_ok(file_replace(path, bytes_of(b.p, cut ? at : b.n), 0600));
	buf_deinit(&b);
}

/* What a crash of the machine may do to a part whose end was never synced. */
static void a_damaged_part_is_not_trusted(void **state)
{
	(void)state;
	struct spool_entry *e = NULL;
	double norm = 0;
	for (int restart = 0; restart <= 1; restart++) {
		/* A value that could be one: only the digest tells. */
		assert_ok(begin_with(&key, update, &digest, 0, 200, &e));
		spool_suspend(e);
		spoil_part(192, update.p[192] ^ 1, false);
		if (restart)
			reopen(&large, known_all);
		assert_ok(begin_with(&key, update, &digest, 200, update.n, &e));
		assert_fails(spool_finish(e, &norm), ERR_UNAVAILABLE, "from its beginning");
		spool_suspend(e);
		assert_empty();
		/* A value that none can have. */
		assert_ok(begin_with(&key, update, &digest, 0, 200, &e));
		spool_suspend(e);
		spoil_part(195, 0x7f, false);
		if (restart)
			reopen(&large, known_all);
		assert_fails(spool_begin(spool, &key, m, 0, update.n, &digest, 200, &e), ERR_UNAVAILABLE,
			     "from its beginning");
		assert_empty();
		/* Half a value that becomes none that can be with what follows. */
		assert_ok(begin_with(&key, update, &digest, 0, 195, &e));
		spool_suspend(e);
		assert_ok(spool_begin(spool, &key, m, 0, update.n, &digest, 195, &e));
		assert_fails(spool_add(e, &(struct bytes){(const uint8_t *)"\x7f", 1}, 1), ERR_UNAVAILABLE,
			     "from its beginning");
		spool_suspend(e);
		assert_empty();
		/* Its end is lost. */
		assert_ok(begin_with(&key, update, &digest, 0, 200, &e));
		spool_suspend(e);
		spoil_part(60, 0, true);
		if (restart) {
			reopen(&large, known_all);
			assert_int_equal(spool_received(spool, &key, &digest, update.n), 60);
			assert_ok(begin_with(&key, update, &digest, 60, 64, &e));
			spool_abort(e);
		} else {
			assert_fails(spool_begin(spool, &key, m, 0, update.n, &digest, 200, &e), ERR_UNAVAILABLE,
				     "from its beginning");
		}
		assert_empty();
	}
	/* The plant's own fault stays its own when it went on: the bytes are those that it announced. */
	assert_ok(spool_begin(spool, &key, m, 1e-3, update.n, &digest, 0, &e));
	assert_ok(spool_add(e, &(struct bytes){update.p, 200}, 1));
	spool_suspend(e);
	assert_ok(spool_begin(spool, &key, m, 1e-3, update.n, &digest, 200, &e));
	assert_ok(spool_add(e, &(struct bytes){update.p + 200, update.n - 200}, 1));
	assert_fails(spool_finish(e, &norm), ERR_LIMIT, "norm_max");
	spool_abort(e);
	assert_empty();
}

/* A full disk in the middle: what had come stays, and goes on when there is room. A failed sync does not leave a part to believe in. */
static void a_full_disk_passes(void **state)
{
	(void)state;
	struct spool_entry *e = NULL;
	struct bad_disk disk;
	double norm = 0;
	assert_ok(begin_with(&key, update, &digest, 0, 200, &e));
	bad_disk_insert(&disk, 0, true);
	assert_fails(spool_add(e, &(struct bytes){update.p + 200, update.n - 200}, 1), ERR_IO, "");
	spool_suspend(e);
	bad_disk_remove();
	uint64_t there = spool_received(spool, &key, &digest, update.n);
	assert_true(there >= 200 && there < update.n);
	assert_ok(begin_with(&key, update, &digest, there, update.n, &e));
	bad_disk_insert(&disk, 0, false);
	assert_fails(spool_finish(e, &norm), ERR_IO, "sync");
	bad_disk_remove();
	spool_suspend(e);
	assert_empty();
}

/* ---- a property: cut and resumed at random, right and wrong, with restarts; in the end there is the update, once, or nothing ---- */

struct journey {
	struct rng rng;
	struct bytes contents[2];
	struct digest digests[2];
	unsigned resumed, refused;
};

static size_t below(struct journey *j, size_t n)
{
	return (size_t)rng_below(&j->rng, n);
}

/* One stream: returns true when it was completed. */
static bool stream_once(struct journey *j, int which)
{
	struct spool_entry *e = NULL;
	struct bytes content = j->contents[which];
	double norm = 0;
	uint64_t there = spool_received(spool, &key, &j->digests[which], content.n), offset = there;
	if (below(j, 6) == 0)
		offset = below(j, content.n + 1);
	enum err err = spool_begin(spool, &key, m, 0, content.n, &j->digests[which], offset, &e);
	assert_int_equal(err, offset <= there ? ERR_OK : ERR_UNAVAILABLE);
	j->refused += err != ERR_OK;
	if (err != ERR_OK)
		return false;
	j->resumed += offset > 0;
	for (size_t at = (size_t)offset; at < content.n;) {
		size_t n = 1 + below(j, 50);
		n = n < content.n - at ? n : content.n - at;
		assert_ok(spool_add(e, &(struct bytes){content.p + at, n}, 1));
		at += n;
		if (below(j, 4) == 0) {
			(below(j, 10) == 0 ? spool_abort : spool_suspend)(e);
			return false;
		}
	}
	assert_ok(spool_finish(e, &norm));
	spool_free(e);
	return true;
}

static void any_journey_ends_with_the_update(void **state)
{
	(void)state;
	struct journey j = {.contents = {update, update_of(m, base, 9)}};
	for (int i = 0; i < 2; i++)
		j.digests[i] = digest_of(j.contents[i]);
	for (uint64_t seed = 0; seed < 100; seed++) {
		int which = 0;
		rng_seed(&j.rng, seed);
		while (!stream_once(&j, which)) {
			if (below(&j, 8) == 0)
				which = !which; /* it has learned anew */
			if (below(&j, 4) == 0)
				reopen(&large, known_all);
			assert_true(count_files(folder(), "") <= 1);
		}
		assert_spooled(&key, j.contents[which]);
		assert_int_equal(count_files(folder(), ""), 1);
		assert_int_equal(spool_bytes(spool), j.contents[which].n);
		spool_remove(spool, &key);
		assert_empty();
	}
	assert_true(j.resumed > 50 && j.refused > 5);
	update_free(&j.contents[1]);
}

/* ---- sweeping ---- */

static bool known_round(void *arg, const struct spool_name *n)
{
	size_t *asked = arg;
	(*asked)++;
	assert_int_equal(n->plant == NULL, n->kind == SPOOL_BATCH);
	return n->job == 3 && n->round == 7 && (n->plant == NULL || strcmp(n->plant, "north-1") == 0);
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
	static const char *const kept[] = {"3-7-north-1.update", "3-7-north-1.0123456789abcdef.part", "3-7.batch"};
	static const char *const ours[] = {"3-7-north-2.update",
					   "3-8-north-1.update",
					   "4-7-north-1.update",
					   "0-0-x.update",
					   "3-7-north-2.0123456789abcdef.part",
					   "4-7.batch",
					   "3-8.batch",
					   "0-0.batch"};
	/* As earlier releases named them, and what cannot be read: nobody will go on with it. */
	static const char *const parts[] = {"3-7-north-1.0.part", "3-7-north-1.99.part", "x.part",
					    "3-7-north-1.0123456789abcdeF.part", "3-7-north-1.0123456789abcde.part"};
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
					      "3-7.update",
					      ".batch",
					      "3.batch",
					      "3-7-.batch",
					      "3-07.batch",
					      "3-4294967296.batch"};
	for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++)
		put(kept[i]);
	for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++)
		put(ours[i]);
	for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
		put(parts[i]);
	for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++)
		put(foreign[i]);
	assert_ok(spool_sweep(spool, known_round, &asked));
	assert_int_equal(asked, (sizeof kept + sizeof ours) / sizeof ours[0]);
	for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++)
		assert_true(is_there(kept[i]));
	for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++)
		assert_false(is_there(ours[i]));
	for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
		assert_false(is_there(parts[i]));
	for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++)
		assert_true(is_there(foreign[i]));
	assert_int_equal(spool_bytes(spool), 3);
}

/* Two parts of one key: the removal of one was not durable when the machine stopped. */
static void one_part_per_key_is_kept(void **state)
{
	(void)state;
	put("3-7-north-1.0123456789abcdef.part");
	put("3-7-north-1.1123456789abcdef.part");
	assert_ok(file_replace(folder_file("3-8-north-1.0123456789abcdef.part"), bytes_of("", 0), 0600));
	reopen(&large, known_all);
	assert_int_equal(count_files(folder(), ""), 1);
	assert_int_equal(spool_bytes(spool), 1);
}

/* A stream that has brought all of `content`, which no round takes now. */
static struct spool_entry *whole(struct bytes content, const struct digest *d, uint64_t offset)
{
	struct spool_entry *e = NULL;
	double norm;
	assert_ok(begin_with(&key, content, d, offset, content.n, &e));
	assert_ok(spool_finish(e, &norm));
	return e;
}

static void what_is_whole_waits_for_its_row(void **state)
{
	(void)state;
	struct bytes other = update_of(m, base, 3);
	struct digest other_digest = digest_of(other);
	struct spool_entry *e;
	spool_suspend(whole(update, &digest, 0));
	assert_int_equal(spool_received(spool, &key, &digest, update.n), update.n);
	assert_int_equal(spool_received(spool, &key, &digest, update.n + 4), 0);
	assert_int_equal(spool_received(spool, &key, &other_digest, update.n), 0);
	assert_int_equal(spool_bytes(spool), update.n);
	/* More than all of it. */
	assert_ok(spool_begin(spool, &key, m, 0, update.n, &digest, update.n, &e));
	assert_int_equal(spool_bytes(spool), update.n);
	assert_fails(spool_add(e, &(struct bytes){update.p, 4}, 1), ERR_UNAVAILABLE, "damaged");
	spool_suspend(e);
	assert_empty();
	spool_suspend(whole(update, &digest, 0));
	spool_suspend(whole(update, &digest, update.n));
	spool_free(whole(update, &digest, update.n));
	assert_spooled(&key, update);
	assert_int_equal(spool_bytes(spool), update.n);
	assert_int_equal(spool_received(spool, &key, &digest, update.n), 0);
	spool_remove(spool, &key);
	assert_empty();
	/* Other bytes, or the same from the beginning, take its place; refused or ended, it goes. */
	spool_suspend(whole(update, &digest, 0));
	spool_suspend(whole(other, &other_digest, 0));
	assert_spooled(&key, other);
	spool_suspend(whole(other, &other_digest, 0));
	assert_int_equal(spool_bytes(spool), other.n);
	spool_abort(whole(other, &other_digest, other.n));
	assert_empty();
	spool_suspend(whole(update, &digest, 0));
	spool_remove_parts(spool, key.job, key.round - 1);
	assert_spooled(&key, update);
	spool_remove_parts(spool, key.job, key.round);
	assert_empty();
	update_free(&other);
}

/* A row may come back that speaks of it. */
static void what_may_have_a_row_is_not_replaced(void **state)
{
	(void)state;
	struct bytes other = update_of(m, base, 3);
	struct digest other_digest = digest_of(other);
	struct spool_entry *e = NULL;
	double norm;
	spool_doubt(whole(update, &digest, 0));
	assert_int_equal(spool_received(spool, &key, &digest, update.n), update.n);
	assert_ok(begin_with(&key, other, &other_digest, 0, other.n, &e));
	assert_int_equal(spool_bytes(spool), 2 * update.n);
	assert_fails(spool_finish(e, &norm), ERR_DUPLICATE, "another update");
	spool_abort(e);
	assert_int_equal(spool_bytes(spool), update.n);
	spool_abort(whole(update, &digest, update.n));
	assert_ok(begin_with(&(struct spool_key){key.job, key.round + 1, key.plant}, other, &other_digest, 0, 100, &e));
	spool_abort(e);
	assert_spooled(&key, update);
	spool_doubt(whole(update, &digest, 0));
	assert_spooled(&key, update);
	assert_int_equal(spool_bytes(spool), update.n);
	spool_free(whole(update, &digest, update.n));
	assert_spooled(&key, update);
	assert_int_equal(spool_bytes(spool), update.n);
	spool_remove(spool, &key);
	spool_doubt(whole(update, &digest, 0));
	spool_remove_parts(spool, key.job, key.round);
	assert_empty();
	update_free(&other);
}

static void a_damaged_whole_one_goes(void **state)
{
	(void)state;
	char path[PATH_SIZE];
	struct spool_entry *e;
	for (int how = 0; how < 3; how++) {
		double norm;
		spool_suspend(whole(update, &digest, 0));
		spool_path(spool, &key, path);
		uint8_t *bad = mem_new(update.n);
		memcpy(bad, update.p, update.n);
		bad[0] ^= 1;
		if (how == 0)
			assert_ok(file_remove(path));
		else
			assert_ok(file_replace(path, bytes_of(bad, update.n - (how == 1 ? 4 : 0)), 0600));
		enum err err = spool_begin(spool, &key, m, 0, update.n, &digest, update.n, &e);
		if (how == 2) {
			assert_ok(err);
			assert_fails(spool_finish(e, &norm), ERR_UNAVAILABLE, "damaged");
			spool_suspend(e);
		}
		assert_int_equal(how == 2 ? ERR_UNAVAILABLE : err, ERR_UNAVAILABLE);
		assert_int_equal(spool_received(spool, &key, &digest, update.n), 0);
		assert_empty();
		free(bad);
	}
}

static void parts_go_with_their_round(void **state)
{
	(void)state;
	put("3-6-a.0123456789abcdef.part");
	put("3-7-b.0123456789abcdef.part");
	put("3-7-c.update");
	put("3-8-a.0123456789abcdef.part");
	put("13-7-a.0123456789abcdef.part");
	reopen(&large, known_all);
	spool_remove_parts(spool, 3, 7);
	assert_false(is_there("3-6-a.0123456789abcdef.part"));
	assert_false(is_there("3-7-b.0123456789abcdef.part"));
	assert_int_equal(count_files(folder(), ""), 3);
	assert_int_equal(spool_bytes(spool), 3);
}

/* Left by a release with another idea of small: who is told that it goes on there would never get further. */
static void a_part_of_what_is_small_now_is_nothing(void **state)
{
	(void)state;
	static const struct spool_config small = {.small_max = SPOOL_SMALL_MAX};
	struct spool_entry *e = NULL;
	double norm;
	assert_ok(begin_with(&key, update, &digest, 0, 100, &e));
	spool_suspend(e);
	assert_int_equal(spool_received(spool, &key, &digest, update.n), 100);
	reopen(&small, known_all);
	assert_int_equal(spool_received(spool, &key, &digest, update.n), 0);
	assert_ok(begin_with(&key, update, &digest, 0, update.n, &e));
	assert_ok(spool_finish(e, &norm));
	spool_free(e);
	assert_empty();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(an_update_comes_in, setup, teardown),
		cmocka_unit_test_setup_teardown(a_message_comes_in_pieces, setup, teardown),
		cmocka_unit_test_setup_teardown(wrong_updates_leave_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(names_cannot_leave_the_folder, setup, teardown),
		cmocka_unit_test_setup_teardown(one_stream_at_a_time, setup, teardown),
		cmocka_unit_test_setup_teardown(bytes_are_durable_before_the_name, setup, teardown),
		cmocka_unit_test_setup_teardown(a_failing_disk_never_leaves_half_an_update, setup, teardown),
		cmocka_unit_test_setup_teardown(a_cut_update_goes_on, setup, teardown),
		cmocka_unit_test_setup_teardown(an_offset_is_judged, setup, teardown),
		cmocka_unit_test_setup_teardown(a_damaged_part_is_not_trusted, setup, teardown),
		cmocka_unit_test_setup_teardown(a_full_disk_passes, setup, teardown),
		cmocka_unit_test_setup_teardown(any_journey_ends_with_the_update, setup, teardown),
		cmocka_unit_test_setup_teardown(a_sweep_keeps_what_is_known, setup, teardown),
		cmocka_unit_test_setup_teardown(one_part_per_key_is_kept, setup, teardown),
		cmocka_unit_test_setup_teardown(a_damaged_whole_one_goes, setup, teardown),
		cmocka_unit_test_setup_teardown(what_may_have_a_row_is_not_replaced, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_whole_waits_for_its_row, setup, teardown),
		cmocka_unit_test_setup_teardown(parts_go_with_their_round, setup, teardown),
		cmocka_unit_test_setup_teardown(a_part_of_what_is_small_now_is_nothing, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
