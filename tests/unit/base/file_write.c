/*
 * Writing in pieces, anywhere, and as a draft; what refusals say; syncs counted.
 */
#include "base/fixture.h"

#include "base/rng.h"
#include "support/crashdisk.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

static char *dir;

static int setup(void **state)
{
	(void)state;
	dir = scratch_make();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	file_set_hook(NULL, NULL);
	scratch_remove(dir);
	return 0;
}

static const char *at(const char *name)
{
	static char paths[4][PATH_SIZE];
	static unsigned next;
	return path_join(paths[next++ % 4], dir, name);
}

static struct file *create(const char *name)
{
	struct file *f = NULL;
	assert_int_equal(file_create(at(name), 0644, &f), ERR_OK);
	return f;
}

static void assert_bytes(const char *name, const uint8_t *p, size_t n)
{
	struct buf b;
	assert_int_equal(file_read(at(name), 1 << 24, &b), ERR_OK);
	assert_int_equal(b.n, n);
	if (n > 0)
		assert_memory_equal(b.p, p, n);
	buf_deinit(&b);
}

/* Bytes that are all different from their neighbours, and pieces of them, some empty. */
enum { PIECES = 150, TOTAL_MAX = PIECES * 40 };

static uint8_t source[TOTAL_MAX];

static size_t make_pieces(struct bytes pieces[PIECES], size_t n, uint64_t seed)
{
	struct rng r;
	size_t total = 0;
	rng_seed(&r, seed);
	for (size_t i = 0; i < TOTAL_MAX; i++)
		source[i] = (uint8_t)(i * 7 + i / 256);
	for (size_t i = 0; i < n; i++) {
		size_t size = (size_t)rng_below(&r, 40);
		pieces[i] = size == 0 ? bytes_of(NULL, 0) : bytes_of(source + total, size);
		total += size;
	}
	return total;
}

/* The hook lets `budget` bytes through, over all writes, then fails; it counts calls. */
struct budget {
	size_t left, calls;
	int number;
};

static enum err spend(void *arg, enum file_op op, const char *path, size_t n, size_t *ret_short)
{
	struct budget *b = arg;
	(void)path;
	if (op != FILE_OP_WRITE)
		return ERR_OK;
	b->calls++;
	if (n <= b->left) {
		b->left -= n;
		return ERR_OK;
	}
	*ret_short = b->left;
	b->left = 0;
	errno = b->number;
	return ERR_IO;
}

static void test_pieces_in_one_go(void **state)
{
	(void)state;
	static const size_t counts[] = {0, 1, 2, 63, 64, 65, 128, 129, PIECES};
	struct bytes pieces[PIECES];
	for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
		size_t total = make_pieces(pieces, counts[i], i);
		struct budget b = {.left = SIZE_MAX};
		struct file *f = create("v");
		file_set_hook(spend, &b);
		assert_int_equal(file_writev(f, pieces, counts[i]), ERR_OK);
		file_set_hook(NULL, NULL);
		assert_int_equal(file_offset(f), total);
		/* One question for 64 pieces at most: that is one call of the system. */
		assert_int_equal(b.calls, (counts[i] + 63) / 64);
		assert_int_equal(file_writev(f, &(struct bytes){source, 3}, 1), ERR_OK);
		assert_int_equal(file_offset(f), total + 3);
		assert_int_equal(file_truncate(f, total), ERR_OK);
		file_close(f);
		assert_bytes("v", source, total);
	}
}

/* Wherever it stops, in a piece, between two, between two calls: what got through is a beginning, and the offset says it. */
static void test_pieces_stop_anywhere(void **state)
{
	(void)state;
	struct bytes pieces[PIECES];
	size_t total = make_pieces(pieces, PIECES, 5);
	for (size_t stop = 0; stop < total; stop += 13) {
		struct budget b = {.left = stop, .number = ENOSPC};
		struct file *f = create("v");
		assert_int_equal(file_write(f, "ab", 2), ERR_OK);
		file_set_hook(spend, &b);
		assert_int_equal(file_writev(f, pieces, PIECES), ERR_IO);
		assert_non_null(strstr(err_text(), "No space left on device"));
		file_set_hook(NULL, NULL);
		assert_int_equal(file_offset(f), stop + 2);
		struct buf got;
		assert_int_equal(file_read(at("v"), TOTAL_MAX, &got), ERR_OK);
		assert_int_equal(got.n, stop + 2);
		assert_memory_equal(got.p + 2, source, stop);
		buf_deinit(&got);
		/* Cut back and sent again, it is whole. */
		assert_int_equal(file_truncate(f, 0), ERR_OK);
		assert_int_equal(file_writev(f, pieces, PIECES), ERR_OK);
		file_close(f);
		assert_bytes("v", source, total);
	}
}

/* The system itself writes a part only: the rest is tried, and its refusal told. */
static void test_pieces_on_a_full_disk(void **state)
{
	(void)state;
	struct rlimit before, tight;
	struct bytes pieces[PIECES];
	size_t total = make_pieces(pieces, PIECES, 6), limit = total / 3;
	struct file *f = create("v");
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	signal(SIGXFSZ, SIG_IGN);
	tight = before;
	tight.rlim_cur = limit;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
	enum err e = file_writev(f, pieces, PIECES);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_int_equal(e, ERR_IO);
	assert_int_equal(file_offset(f), limit);
	file_close(f);
	assert_bytes("v", source, limit);
}

static void test_write_at(void **state)
{
	(void)state;
	struct file *f = create("p");
	assert_int_equal(file_write(f, "0123456789", 10), ERR_OK);
	assert_int_equal(file_write_at(f, 4, "xy", 2), ERR_OK);
	assert_int_equal(file_write_at(f, 9, "Zgrown", 6), ERR_OK);
	assert_int_equal(file_write_at(f, 0, NULL, 0), ERR_OK);
	assert_int_equal(file_offset(f), 10);
	assert_bytes("p", (const uint8_t *)"0123xy678Zgrown", 15);
	/* Past the end: the hole is zeros. */
	assert_int_equal(file_write_at(f, 17, "!", 1), ERR_OK);
	assert_bytes("p", (const uint8_t *)"0123xy678Zgrown\0\0!", 18);
	assert_int_equal(file_write_at(f, UINT64_MAX, "x", 1), ERR_LIMIT);
	assert_int_equal(file_write_at(f, INT64_MAX, "x", 1), ERR_LIMIT);
	struct budget b = {.left = 1, .number = EROFS};
	file_set_hook(spend, &b);
	assert_int_equal(file_write_at(f, 0, "abc", 3), ERR_IO);
	assert_non_null(strstr(err_text(), "Read-only file system"));
	file_set_hook(NULL, NULL);
	assert_bytes("p", (const uint8_t *)"a123xy678Zgrown\0\0!", 18);
	file_flush(f);
	assert_int_equal(file_sync(f), ERR_OK);
	file_close(f);
}

enum { WRITERS = 8, STRETCH = 1 << 16, BLOCK = 1000 };

struct writer {
	struct file *f;
	size_t index;
	enum err e;
};

/* Every WRITERS-th block is this writer's. */
static void *write_stretches(void *arg)
{
	struct writer *w = arg;
	uint8_t block[BLOCK];
	memset(block, (int)w->index + 1, sizeof block);
	for (size_t from = w->index * BLOCK; from < STRETCH && w->e == ERR_OK; from += WRITERS * BLOCK) {
		size_t n = STRETCH - from < BLOCK ? STRETCH - from : BLOCK;
		w->e = file_write_at(w->f, from, block, n);
		file_flush(w->f);
	}
	return NULL;
}

static void test_many_threads_write_at(void **state)
{
	(void)state;
	struct file *f = create("p");
	pthread_t threads[WRITERS];
	struct writer writers[WRITERS];
	for (size_t i = 0; i < WRITERS; i++) {
		writers[i] = (struct writer){.f = f, .index = i};
		assert_int_equal(pthread_create(&threads[i], NULL, write_stretches, &writers[i]), 0);
	}
	for (size_t i = 0; i < WRITERS; i++) {
		assert_int_equal(pthread_join(threads[i], NULL), 0);
		assert_int_equal(writers[i].e, ERR_OK);
	}
	assert_int_equal(file_sync_content(f), ERR_OK);
	file_close(f);
	uint8_t *expected = mem_new(STRETCH);
	for (size_t i = 0; i < STRETCH; i++)
		expected[i] = (uint8_t)(i / BLOCK % WRITERS + 1);
	assert_bytes("p", expected, STRETCH);
	free(expected);
}

struct order {
	char ops[32];
	size_t n, fail_at; /* 1 is the first; 0: none */
};

static enum err record(void *arg, enum file_op op, const char *path, size_t n, size_t *ret_short)
{
	struct order *o = arg;
	(void)path;
	(void)n;
	(void)ret_short;
	assert_true(o->n + 1 < sizeof o->ops);
	o->ops[o->n++] = "CWSRXDTM"[op];
	return o->n == o->fail_at ? ERR_IO : ERR_OK;
}

static void test_sync_content_leaves_the_name_alone(void **state)
{
	(void)state;
	struct order o = {.fail_at = 3};
	struct file *f = create("s");
	assert_int_equal(file_write(f, "x", 1), ERR_OK);
	file_set_hook(record, &o);
	assert_int_equal(file_sync_content(f), ERR_OK);
	file_flush(f);                          /* only advice: nobody is asked */
	assert_int_equal(file_sync(f), ERR_IO); /* the content again, and now the directory, which is refused */
	assert_string_equal(o.ops, "SSD");
	assert_int_equal(file_sync(f), ERR_OK);
	assert_string_equal(o.ops, "SSDSD");
	/* As with file_sync(): what a failed sync has lost is lost. */
	o.fail_at = 6;
	assert_int_equal(file_sync_content(f), ERR_IO);
	assert_int_equal(file_sync_content(f), ERR_IO);
	assert_int_equal(file_write_at(f, 0, "y", 1), ERR_IO);
	assert_int_equal(file_writev(f, &(struct bytes){source, 1}, 1), ERR_IO);
	assert_string_equal(o.ops, "SSDSDS");
	file_close(f);
}

static void test_discard(void **state)
{
	(void)state;
	struct order o = {.fail_at = 3};
	file_close(create("d"));
	file_set_hook(record, &o);
	assert_int_equal(file_discard(at("d")), ERR_OK);
	assert_int_equal(file_discard(at("d")), ERR_OK);
	assert_string_equal(o.ops, "XX");
	assert_int_equal(file_discard(at("d")), ERR_IO);
	file_set_hook(NULL, NULL);
	assert_false(file_exists(at("d")));
	assert_int_equal(file_discard(dir), ERR_IO);
	assert_int_equal(file_discard(at("none/d")), ERR_OK);
}

static enum err write_draft(const char *name, const char *text)
{
	struct file_draft *d;
	TRY(file_draft_begin(at(name), 0640, &d));
	enum err e = ERR_OK;
	for (; e == ERR_OK && *text != '\0'; text++)
		e = file_draft_write(d, text, 1);
	return file_draft_end(d, e);
}

static void assert_text(const char *name, const char *text)
{
	assert_bytes(name, (const uint8_t *)text, strlen(text));
}

static void test_draft(void **state)
{
	(void)state;
	struct order o = {0};
	struct file_draft *d;
	struct stat st;
	file_set_hook(record, &o);
	assert_int_equal(write_draft("m", "old"), ERR_OK);
	assert_string_equal(o.ops, "CWWWSRD");
	file_set_hook(NULL, NULL);
	assert_text("m", "old");
	assert_int_equal(stat(at("m"), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0640);
	/* Until the end the old one is there; an error of the caller's drops the draft and comes back with its text. */
	assert_int_equal(file_draft_begin(at("m"), 0640, &d), ERR_OK);
	assert_int_equal(file_draft_write(d, "half", 4), ERR_OK);
	assert_true(file_exists(at(".tmp-m")));
	assert_text("m", "old");
	assert_int_equal(file_draft_end(d, err_set(ERR_NUMERIC, "not a number")), ERR_NUMERIC);
	assert_string_equal(err_text(), "not a number");
	assert_false(file_exists(at(".tmp-m")));
	assert_text("m", "old");
	assert_int_equal(file_draft_begin(at("none/m"), 0640, &d), ERR_NOT_FOUND);
	for (size_t n = 1; n <= 7; n++) {
		o = (struct order){.fail_at = n};
		file_set_hook(record, &o);
		assert_int_equal(write_draft("m", "new"), ERR_IO);
		file_set_hook(NULL, NULL);
		assert_false(file_exists(at(".tmp-m")));
		assert_text("m", n < 7 ? "old" : "new");
	}
}

/* Whatever a power loss leaves, the next draft of the same file takes its place. */
static void test_draft_after_power_loss(void **state)
{
	(void)state;
	bool left = false;
	for (int mode = 0; mode < CRASHDISK_MODES; mode++) {
		bool more = true;
		for (uint64_t n = 1; more; n++) {
			assert_int_equal(write_draft("m", "old"), ERR_OK);
			struct crashdisk *disk = crashdisk_new(dir, n);
			crashdisk_arm(disk, n, (enum crashdisk_mode)mode);
			enum err e = write_draft("m", "new");
			more = crashdisk_dead(disk);
			assert_int_equal(e, more ? ERR_IO : ERR_OK);
			crashdisk_restore(disk);
			left = left || file_exists(at(".tmp-m"));
			struct buf b;
			assert_int_equal(file_read(at("m"), 10, &b), ERR_OK);
			assert_true(strcmp(buf_str(&b), "new") == 0 || (more && strcmp(buf_str(&b), "old") == 0));
			buf_deinit(&b);
			assert_int_equal(write_draft("m", "next"), ERR_OK);
			assert_text("m", "next");
			assert_false(file_exists(at(".tmp-m")));
			crashdisk_free(disk);
		}
	}
	assert_true(left);
}

static enum err refuse_without_reason(void *arg, enum file_op op, const char *path, size_t n, size_t *ret_short)
{
	(void)op;
	(void)path;
	(void)n;
	(void)ret_short;
	errno = *(int *)arg;
	return ERR_IO;
}

static void test_refusals_look_like_the_systems(void **state)
{
	(void)state;
	static const struct {
		int number;
		const char *text;
	} cases[] = {{0, "injected fault"}, {ENOSPC, "No space left on device"}, {EROFS, "Read-only file system"}};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		int number = cases[i].number;
		file_set_hook(refuse_without_reason, &number);
		assert_int_equal(file_replace(at("f"), bytes_str("x"), 0600), ERR_IO);
		assert_non_null(strstr(err_text(), cases[i].text));
		assert_non_null(strstr(err_text(), at("f")));
		assert_int_equal(errno, number != 0 ? number : EIO);
		assert_int_equal(dir_make(at("d"), 0700), ERR_IO);
		assert_non_null(strstr(err_text(), cases[i].text));
		file_set_hook(NULL, NULL);
	}
}

static void *sync_some(void *arg)
{
	for (int i = 0; i < 10; i++) {
		if (dir_sync(arg) != ERR_OK)
			return NULL;
	}
	return arg;
}

static void test_syncs_are_counted(void **state)
{
	(void)state;
	uint64_t count, ns, count_after, ns_after;
	struct file *f = create("c");
	file_get_sync_stats(&count, &ns);
	assert_int_equal(file_write(f, "x", 1), ERR_OK);
	assert_int_equal(file_sync(f), ERR_OK); /* content and directory */
	assert_int_equal(file_sync_content(f), ERR_OK);
	assert_int_equal(file_replace(at("r"), bytes_str("x"), 0600), ERR_OK); /* content and directory */
	file_get_sync_stats(&count_after, &ns_after);
	assert_int_equal(count_after - count, 5);
	assert_true(ns_after > ns);
	/* What is refused has not been done. */
	struct order o = {.fail_at = 1};
	file_set_hook(record, &o);
	assert_int_equal(file_sync_content(f), ERR_IO);
	file_set_hook(NULL, NULL);
	file_close(f);
	file_get_sync_stats(&count, &ns);
	assert_int_equal(count, count_after);
	pthread_t threads[4];
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, sync_some, dir), 0);
	for (size_t i = 0; i < 4; i++) {
		void *done;
		assert_int_equal(pthread_join(threads[i], &done), 0);
		assert_ptr_equal(done, dir);
	}
	file_get_sync_stats(&count_after, &ns_after);
	assert_int_equal(count_after - count, 40);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	umask(022);
	const struct CMUnitTest tests[] = {
		TEST(test_pieces_in_one_go),
		TEST(test_pieces_stop_anywhere),
		TEST(test_pieces_on_a_full_disk),
		TEST(test_write_at),
		TEST(test_many_threads_write_at),
		TEST(test_sync_content_leaves_the_name_alone),
		TEST(test_discard),
		TEST(test_draft),
		TEST(test_draft_after_power_loss),
		TEST(test_refusals_look_like_the_systems),
		TEST(test_syncs_are_counted),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
