/*
 * The disk that loses power must itself be right: what it forgets and what it keeps, for each kind of operation.
 */
#include "base/fixture.h"

#include "support/crashdisk.h"

#include <pthread.h>
#include <sys/stat.h>

static char *dir;
static struct crashdisk *disk;

static int setup(void **state)
{
	(void)state;
	dir = scratch_make();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	crashdisk_free(disk);
	disk = NULL;
	scratch_remove(dir);
	return 0;
}

static const char *at(const char *name)
{
	static char paths[4][PATH_SIZE];
	static unsigned next;
	return path_join(paths[next++ % 4], dir, name);
}

static void insert(uint64_t seed, uint64_t n, enum crashdisk_mode mode)
{
	crashdisk_free(disk);
	disk = crashdisk_new(dir, seed);
	crashdisk_arm(disk, n, mode);
}

static void put(const char *name, const char *text)
{
	assert_int_equal(file_replace(at(name), bytes_str(text), 0640), ERR_OK);
}

/* "(absent)" or the content; overwritten by the next call. */
static const char *content(const char *name)
{
	static char text[4096];
	struct buf b;
	if (!file_exists(at(name)))
		return "(absent)";
	assert_int_equal(file_read(at(name), sizeof text - 1, &b), ERR_OK);
	snprintf(text, sizeof text, "%s", buf_str(&b));
	buf_deinit(&b);
	return text;
}

static struct file *append(const char *name, const char *text)
{
	struct file *f;
	assert_int_equal(file_append_open(at(name), 0600, &f), ERR_OK);
	assert_int_equal(file_write(f, text, strlen(text)), ERR_OK);
	return f;
}

static void test_content_that_was_not_synced_is_lost(void **state)
{
	(void)state;
	put("a", "one ");
	insert(1, 0, CRASHDISK_DROP);
	struct file *f = append("a", "two ");
	assert_int_equal(file_sync(f), ERR_OK);
	assert_int_equal(file_write(f, "three", 5), ERR_OK);
	assert_int_equal(file_write_at(f, 0, "ONE", 3), ERR_OK);
	file_close(f);
	assert_string_equal(content("a"), "ONE two three");
	crashdisk_restore(disk);
	assert_string_equal(content("a"), "one two ");
	struct stat st;
	assert_int_equal(stat(at("a"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	/* What the restore has left is durable in its turn. */
	f = append("a", "more");
	file_close(f);
	crashdisk_restore(disk);
	assert_string_equal(content("a"), "one two ");
}

static void test_truncation_that_was_not_synced_is_undone(void **state)
{
	(void)state;
	put("a", "0123456789");
	insert(1, 0, CRASHDISK_DROP);
	struct file *f = append("a", "");
	assert_int_equal(file_truncate(f, 4), ERR_OK);
	crashdisk_restore(disk);
	file_close(f);
	assert_string_equal(content("a"), "0123456789");
	f = append("a", "");
	assert_int_equal(file_truncate(f, 4), ERR_OK);
	assert_int_equal(file_sync(f), ERR_OK);
	file_close(f);
	crashdisk_restore(disk);
	assert_string_equal(content("a"), "0123");
	/* Made anew without a sync: what was there before is still there. */
	assert_int_equal(file_create(at("a"), 0600, &f), ERR_OK);
	file_close(f);
	crashdisk_restore(disk);
	assert_string_equal(content("a"), "0123");
}

static void test_names(void **state)
{
	(void)state;
	put("old", "old");
	put("gone", "gone");
	put("lost", "lost");
	insert(1, 0, CRASHDISK_DROP);
	/* The content is synced, its name is not. */
	struct file *f = append("new", "new");
	assert_int_equal(file_sync_content(f), ERR_OK);
	file_close(f);
	assert_int_equal(rename(at("old"), at("renamed")), 0);
	assert_int_equal(file_discard(at("lost")), ERR_OK);
	crashdisk_restore(disk);
	assert_string_equal(content("new"), "(absent)");
	assert_string_equal(content("old"), "old");
	assert_string_equal(content("renamed"), "(absent)");
	assert_string_equal(content("lost"), "lost");
	/* With a sync of the directory it is all there; a file without a sync of its own is empty. */
	f = append("new", "new");
	file_close(f);
	assert_int_equal(file_rename(at("old"), at("renamed")), ERR_OK);
	assert_int_equal(file_remove(at("gone")), ERR_OK);
	crashdisk_restore(disk);
	assert_string_equal(content("new"), "");
	assert_string_equal(content("old"), "(absent)");
	assert_string_equal(content("renamed"), "old");
	assert_string_equal(content("gone"), "(absent)");
	/* A new file under an old name, whose inode may not be taken for the old one's. */
	assert_int_equal(file_discard(at("renamed")), ERR_OK);
	f = append("renamed", "other");
	assert_int_equal(file_sync_content(f), ERR_OK);
	file_close(f);
	crashdisk_restore(disk);
	assert_string_equal(content("renamed"), "old");
}

static void test_rename_stopped_before_its_directory_is_synced(void **state)
{
	(void)state;
	for (int mode = 0; mode < CRASHDISK_MODES; mode++) {
		put("a", "first");
		put("b", "second");
		insert(1, 2, (enum crashdisk_mode)mode);
		assert_int_equal(file_rename(at("a"), at("b")), ERR_IO);
		assert_true(crashdisk_dead(disk));
		crashdisk_restore(disk);
		bool made = strcmp(content("b"), "first") == 0;
		assert_string_equal(content("a"), made ? "(absent)" : "first");
		assert_string_equal(content("b"), made ? "first" : "second");
		assert_true(mode == CRASHDISK_MIXED || made == (mode == CRASHDISK_KEEP));
	}
}

static void test_directories(void **state)
{
	(void)state;
	insert(1, 2, CRASHDISK_DROP);
	assert_int_equal(dir_make(at("d"), 0750), ERR_IO);
	crashdisk_restore(disk);
	assert_false(file_exists(at("d")));
	assert_int_equal(dir_make(at("d/e"), 0750), ERR_OK);
	put("d/e/f", "deep");
	assert_int_equal(mkdir(at("d/late"), 0700), 0);
	crashdisk_restore(disk);
	assert_string_equal(content("d/e/f"), "deep");
	assert_false(file_exists(at("d/late")));
	struct stat st;
	assert_int_equal(stat(at("d"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0750);
	/* From one directory to another: the file is in one of them, at each point. */
	for (int mode = 0; mode < CRASHDISK_MODES; mode++) {
		for (uint64_t n = 1; n <= 4; n++) {
			put("d/x", "x");
			assert_int_equal(file_remove(at("d/e/x")), ERR_OK);
			insert(n, n, (enum crashdisk_mode)mode);
			assert_int_equal(file_rename(at("d/x"), at("d/e/x")), n <= 3 ? ERR_IO : ERR_OK);
			crashdisk_restore(disk);
			bool from = strcmp(content("d/x"), "x") == 0, to = strcmp(content("d/e/x"), "x") == 0;
			assert_true(from || to);
			assert_true(n != 1 || !to);
			assert_true(n != 3 || to);
			assert_true(n != 4 || !from);
		}
	}
}

static void test_dead_is_dead(void **state)
{
	(void)state;
	struct file *f;
	put("a", "a");
	put("kept", "kept");
	insert(1, 3, CRASHDISK_KEEP);
	f = append("a", "b");
	assert_int_equal(file_write(f, "c", 1), ERR_OK);
	assert_int_equal(crashdisk_count(disk), 2);
	assert_false(crashdisk_dead(disk));
	assert_int_equal(file_write(f, "d", 1), ERR_IO);
	assert_true(crashdisk_dead(disk));
	assert_int_equal(file_sync(f), ERR_IO);
	assert_int_equal(file_remove(at("kept")), ERR_IO);
	assert_int_equal(dir_make(at("new"), 0700), ERR_IO);
	assert_int_equal(file_replace(at("kept"), bytes_str("new"), 0600), ERR_IO);
	assert_true(crashdisk_count(disk) >= 7);
	/* Elsewhere is another disk. */
	char *other = scratch_make();
	char path[PATH_SIZE];
	assert_int_equal(file_replace(path_join(path, other, "x"), bytes_str("x"), 0600), ERR_OK);
	scratch_remove(other);
	file_close(f);
	crashdisk_restore(disk);
	assert_string_equal(content("a"), "abc");
	assert_string_equal(content("kept"), "kept");
	assert_false(file_exists(at("new")));
	put("kept", "again");
	assert_string_equal(content("kept"), "again");
}

/* What a replacement interrupted anywhere leaves: the old or the new, whole; and once it has returned, the new. */
static void test_replace_sweep(void **state)
{
	(void)state;
	bool seen_old = false, seen_new = false;
	for (int mode = 0; mode < CRASHDISK_MODES; mode++) {
		bool more = true;
		for (uint64_t n = 1; more; n++) {
			put("r", "old");
			insert(n, n, (enum crashdisk_mode)mode);
			enum err e = file_replace(at("r"), bytes_str("the new"), 0644);
			more = crashdisk_dead(disk);
			assert_int_equal(e, more ? ERR_IO : ERR_OK);
			crashdisk_restore(disk);
			bool is_new = strcmp(content("r"), "the new") == 0;
			assert_true(is_new || (more && strcmp(content("r"), "old") == 0));
			seen_new = seen_new || (more && is_new);
			seen_old = seen_old || !is_new;
		}
	}
	assert_true(seen_old && seen_new);
}

enum { SECTOR = 512, SIZE = 20 * SECTOR + 100 };

/* A file of 'o' synced, overwritten with 'n' and made longer; the content after a restore with this seed. */
static struct buf torn(uint64_t seed)
{
	struct buf b;
	uint8_t block[SIZE];
	struct file *f;
	insert(seed, 0, CRASHDISK_MIXED);
	assert_int_equal(file_create(at("t"), 0600, &f), ERR_OK);
	memset(block, 'o', sizeof block);
	assert_int_equal(file_write(f, block, sizeof block / 2), ERR_OK);
	assert_int_equal(file_sync(f), ERR_OK);
	memset(block, 'n', sizeof block);
	assert_int_equal(file_write_at(f, 0, block, sizeof block), ERR_OK);
	crashdisk_restore(disk);
	file_close(f);
	assert_int_equal(file_read(at("t"), SIZE, &b), ERR_OK);
	assert_int_equal(file_remove(at("t")), ERR_OK);
	return b;
}

static void test_torn_writes(void **state)
{
	(void)state;
	bool shorter = false, longer = false, mixed = false, all_new = false, inside = false;
	for (uint64_t seed = 0; seed < 60; seed++) {
		struct buf b = torn(seed), again = torn(seed);
		/* The same seed and the same work: the same bytes. */
		assert_int_equal(b.n, again.n);
		assert_memory_equal(b.p, again.p, b.n);
		assert_true(b.n >= SIZE / 2 && b.n <= SIZE);
		size_t old = 0, new = 0, steps = 0, off = 0;
		for (size_t i = 0; i < b.n; i++) {
			old += b.p[i] == 'o';
			new += b.p[i] == 'n';
			assert_true(b.p[i] == 'n' || b.p[i] == (i < SIZE / 2 ? 'o' : 0));
			/* Inside a sector the new comes first, and one sector only is torn; where the old content
			 * ended is no tear. */
			if (i % SECTOR != 0 && i != SIZE / 2 && b.p[i] != b.p[i - 1]) {
				steps++;
				off = i;
				assert_true(b.p[i - 1] == 'n');
			}
		}
		assert_true(steps <= 1);
		inside = inside || off > 0;
		shorter = shorter || b.n == SIZE / 2;
		longer = longer || b.n > SIZE / 2;
		mixed = mixed || (old > 0 && new > 0);
		all_new = all_new || new == b.n;
		buf_deinit(&b);
		buf_deinit(&again);
	}
	assert_true(shorter && longer && mixed && all_new && inside);
}

/* Synced bytes are never harmed, not by a truncation beside them either. */
static void test_synced_bytes_stay(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 40; seed++) {
		struct buf b;
		struct file *f;
		uint8_t block[5000];
		memset(block, 's', sizeof block);
		insert(seed, 0, CRASHDISK_MIXED);
		assert_int_equal(file_create(at("s"), 0600, &f), ERR_OK);
		assert_int_equal(file_write(f, block, sizeof block), ERR_OK);
		assert_int_equal(file_sync(f), ERR_OK);
		memset(block, 'u', sizeof block);
		assert_int_equal(file_truncate(f, 4000), ERR_OK);
		assert_int_equal(file_write(f, block, 2000), ERR_OK);
		crashdisk_restore(disk);
		file_close(f);
		assert_int_equal(file_read(at("s"), SIZE, &b), ERR_OK);
		assert_true(b.n >= 4000 && b.n <= 6000);
		for (size_t i = 0; i < b.n; i++)
			assert_true(i < 4000 ? b.p[i] == 's' : b.p[i] == 'u' || b.p[i] == 's' || b.p[i] == 0);
		buf_deinit(&b);
	}
}

/* In MIXED a part of the write at which the power goes gets through; in the others nothing. */
static void test_the_last_write(void **state)
{
	(void)state;
	size_t parts = 0;
	for (uint64_t seed = 0; seed < 20; seed++) {
		for (int mode = 0; mode < CRASHDISK_MODES; mode++) {
			struct file *f;
			char block[3000];
			memset(block, 'w', sizeof block);
			put("w", "");
			insert(seed, 1, (enum crashdisk_mode)mode);
			assert_int_equal(file_append_open(at("w"), 0600, &f), ERR_OK);
			assert_int_equal(file_write(f, block, sizeof block), ERR_IO);
			assert_true(mode == CRASHDISK_MIXED || file_offset(f) == 0);
			parts += file_offset(f) > 0;
			crashdisk_restore(disk);
			file_close(f);
			uint64_t size;
			assert_int_equal(file_size(at("w"), &size), ERR_OK);
			assert_true(size < sizeof block && (mode == CRASHDISK_MIXED || size == 0));
		}
	}
	assert_true(parts > 10);
}

enum { THREADS = 4, LINE = 600 };

struct appender {
	char path[PATH_SIZE];
	size_t synced; /* bytes that were promised */
};

static void *append_until_dead(void *arg)
{
	struct appender *a = arg;
	struct file *f = NULL;
	char line[LINE];
	memset(line, 'l', sizeof line);
	enum err e = file_create(a->path, 0600, &f);
	while (e == ERR_OK) {
		e = file_write(f, line, sizeof line);
		if (e == ERR_OK)
			e = file_sync(f);
		if (e == ERR_OK)
			a->synced += sizeof line;
	}
	file_close(f);
	return NULL;
}

/* Several at once: what was promised to each is there. */
static void test_threads(void **state)
{
	(void)state;
	for (uint64_t n = 1; n < 100; n += 9) {
		pthread_t threads[THREADS];
		struct appender a[THREADS] = {0};
		insert(n, n, (enum crashdisk_mode)(n % CRASHDISK_MODES));
		for (size_t i = 0; i < THREADS; i++) {
			char name[] = {(char)('0' + i), '\0'};
			path_join(a[i].path, dir, name);
			assert_int_equal(pthread_create(&threads[i], NULL, append_until_dead, &a[i]), 0);
		}
		for (size_t i = 0; i < THREADS; i++)
			assert_int_equal(pthread_join(threads[i], NULL), 0);
		assert_true(crashdisk_dead(disk) && crashdisk_count(disk) >= n + THREADS - 1);
		crashdisk_restore(disk);
		for (size_t i = 0; i < THREADS; i++) {
			struct buf b = {0};
			if (a[i].synced > 0)
				assert_int_equal(file_read(a[i].path, 1 << 20, &b), ERR_OK);
			assert_true(b.n >= a[i].synced);
			for (size_t k = 0; k < a[i].synced; k++)
				assert_int_equal(b.p[k], 'l');
			buf_deinit(&b);
			assert_int_equal(file_remove(a[i].path), ERR_OK);
		}
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	umask(022);
	const struct CMUnitTest tests[] = {
		TEST(test_content_that_was_not_synced_is_lost),
		TEST(test_truncation_that_was_not_synced_is_undone),
		TEST(test_names),
		TEST(test_rename_stopped_before_its_directory_is_synced),
		TEST(test_directories),
		TEST(test_dead_is_dead),
		TEST(test_replace_sweep),
		TEST(test_torn_writes),
		TEST(test_synced_bytes_stay),
		TEST(test_the_last_write),
		TEST(test_threads),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
