#include "base/fixture.h"

#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
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

/* A path in the scratch directory; overwritten by the next but three calls. */
static const char *at(const char *name)
{
	static char paths[4][PATH_SIZE];
	static unsigned next;
	return path_join(paths[next++ % 4], dir, name);
}

static void assert_content(const char *name, const char *text)
{
	struct buf b;
	assert_int_equal(file_read(at(name), 1 << 20, &b), ERR_OK);
	assert_string_equal(buf_str(&b), text);
	assert_int_equal(b.n, strlen(text));
	buf_deinit(&b);
}

static void replace(const char *name, const char *text)
{
	assert_int_equal(file_replace(at(name), bytes_str(text), 0644), ERR_OK);
}

/* Number of directory entries as the kernel sees them, "." and ".." left out. */
static size_t raw_entries(void)
{
	size_t n = 0;
	DIR *d = opendir(dir);
	assert_non_null(d);
	while (readdir(d) != NULL)
		n++;
	closedir(d);
	return n - 2;
}

static void test_read(void **state)
{
	(void)state;
	struct buf b = {.n = 77};
	replace("a", "0123456789");
	assert_content("a", "0123456789");
	assert_int_equal(file_read(at("a"), 10, &b), ERR_OK);
	assert_int_equal(b.n, 10);
	buf_deinit(&b);
	b.n = 77;
	assert_int_equal(file_read(at("a"), 9, &b), ERR_LIMIT);
	assert_int_equal(file_read(at("none"), 9, &b), ERR_NOT_FOUND);
	assert_non_null(strstr(err_text(), "none"));
	assert_int_equal(file_read(dir, 9, &b), ERR_IO);
	assert_int_equal(b.n, 77);
	replace("empty", "");
	assert_content("empty", "");
	/* A file without a size of its own is read to its end, and the limit holds. */
	assert_int_equal(file_read("/proc/self/status", 1 << 20, &b), ERR_OK);
	assert_true(b.n > 100);
	buf_deinit(&b);
	assert_int_equal(file_read("/proc/self/status", 10, &b), ERR_LIMIT);
}

static void test_size_and_exists(void **state)
{
	(void)state;
	uint64_t size = 99;
	replace("s", "12345");
	assert_int_equal(file_size(at("s"), &size), ERR_OK);
	assert_int_equal(size, 5);
	assert_int_equal(file_size(at("none"), &size), ERR_NOT_FOUND);
	assert_int_equal(file_size(dir, &size), ERR_IO);
	struct timespec times[2] = {{.tv_sec = 5}, {.tv_sec = 1700000000, .tv_nsec = 123}};
	int64_t ns;
	assert_int_equal(utimensat(AT_FDCWD, at("s"), times, 0), 0);
	assert_int_equal(file_time(at("s"), &ns), ERR_OK);
	assert_int_equal(ns, 1700000000000000123);
	assert_int_equal(file_time(at("none"), &ns), ERR_NOT_FOUND);
	assert_int_equal(size, 5);
	assert_true(file_exists(at("s")));
	assert_true(file_exists(dir));
	assert_false(file_exists(at("none")));
}

static void test_replace_modes_and_targets(void **state)
{
	(void)state;
	struct stat st;
	assert_int_equal(file_replace(at("key"), bytes_str("secret"), 0600), ERR_OK);
	assert_int_equal(stat(at("key"), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(file_replace(at("key"), bytes_str("read only"), 0400), ERR_OK);
	assert_int_equal(file_replace(at("key"), bytes_str("again"), 0400), ERR_OK);
	assert_content("key", "again");
	assert_int_equal(file_replace(at("none/key"), bytes_str("x"), 0600), ERR_NOT_FOUND);
	/* A directory of that name is not overwritten. */
	assert_int_equal(dir_make(at("d"), 0755), ERR_OK);
	assert_int_equal(file_replace(at("d"), bytes_str("x"), 0600), ERR_IO);
	/* Names without a directory are in the present one. */
	char *before = getcwd(NULL, 0);
	assert_int_equal(chdir(dir), 0);
	assert_int_equal(file_replace("plain", bytes_str("here"), 0600), ERR_OK);
	assert_int_equal(chdir(before), 0);
	free(before);
	assert_content("plain", "here");
	assert_int_equal(raw_entries(), 3);
}

/* The hook: counts, records the order, and fails as told. */
struct plan {
	size_t calls;
	size_t fail_at;    /* this operation fails (1 is the first); 0: none */
	bool and_after;    /* and every later one: the process has "crashed" */
	bool kill;         /* really die there */
	size_t write_part; /* bytes of a failing write that get through */
	char order[64];    /* a letter each */
};

static enum err hook(void *arg, enum file_op op, const char *path, size_t n, size_t *ret_short)
{
	struct plan *p = arg;
	assert_non_null(path);
	if (p->calls < sizeof p->order - 1)
		p->order[p->calls] = "CWSRXDTM"[op];
	p->calls++;
	if (p->fail_at == 0 || p->calls < p->fail_at || (p->calls > p->fail_at && !p->and_after))
		return ERR_OK;
	if (p->kill)
		kill(getpid(), SIGKILL);
	if (op == FILE_OP_WRITE)
		*ret_short = p->write_part < n ? p->write_part : n;
	return ERR_IO;
}

static void test_order_of_durable_operations(void **state)
{
	(void)state;
	struct plan p = {0};
	file_set_hook(hook, &p);
	replace("o", "content");
	assert_string_equal(p.order, "CWSRD");
	p = (struct plan){0};
	assert_int_equal(file_rename(at("o"), at("o2")), ERR_OK);
	assert_string_equal(p.order, "RD");
	assert_int_equal(dir_make(at("sub"), 0755), ERR_OK);
	p = (struct plan){0};
	assert_int_equal(file_rename(at("o2"), at("sub/o")), ERR_OK);
	assert_string_equal(p.order, "RDD");
	p = (struct plan){0};
	assert_int_equal(file_remove(at("sub/o")), ERR_OK);
	assert_string_equal(p.order, "XD");
	p = (struct plan){0};
	assert_int_equal(file_remove(at("sub/o")), ERR_OK);
	assert_string_equal(p.order, "XD");
	assert_int_equal(file_remove(at("nowhere/o")), ERR_OK);
	p = (struct plan){0};
	struct file *f;
	assert_int_equal(file_create(at("f"), 0644, &f), ERR_OK);
	assert_int_equal(file_write(f, "ab", 2), ERR_OK);
	assert_int_equal(file_sync(f), ERR_OK);
	assert_int_equal(file_write(f, "cd", 2), ERR_OK);
	assert_int_equal(file_sync(f), ERR_OK);
	assert_int_equal(file_truncate(f, 1), ERR_OK);
	file_close(f);
	assert_string_equal(p.order, "CWSDWST");
	p = (struct plan){0};
	assert_int_equal(dir_make(at("x/y"), 0755), ERR_OK);
	/* x and y, each with its parent. */
	assert_string_equal(p.order, "MDMD");
	p = (struct plan){0};
	/* One that is there and empty may have been left by a crash before its parent was synced. */
	assert_int_equal(dir_make(at("x/y"), 0755), ERR_OK);
	assert_string_equal(p.order, "D");
	p = (struct plan){0};
	assert_int_equal(dir_make(at("x"), 0755), ERR_OK);
	assert_string_equal(p.order, "");
}

static enum err count_entry(void *arg, const char *name)
{
	(void)name;
	(*(size_t *)arg)++;
	return ERR_OK;
}

/* Whatever happened: old or new, whole; nothing else is taken for a file; and the next attempt succeeds and cleans up.
 */
static void check_after_failure(const char *old, const char *new)
{
	struct buf b;
	file_set_hook(NULL, NULL);
	assert_int_equal(file_read(at("r"), 1 << 20, &b), ERR_OK);
	assert_true(strcmp(buf_str(&b), old) == 0 || strcmp(buf_str(&b), new) == 0);
	buf_deinit(&b);
	size_t n = 0;
	assert_int_equal(dir_each(dir, count_entry, &n), ERR_OK);
	assert_int_equal(n, 1);
	replace("r", "after");
	assert_content("r", "after");
	assert_int_equal(raw_entries(), 1);
}

static void test_replace_fails_at_every_operation(void **state)
{
	(void)state;
	for (int crash = 0; crash < 2; crash++) {
		for (size_t part = 0; part <= 7; part++) {
			struct plan p = {0};
			enum err e = ERR_IO;
			for (size_t n = 1; e != ERR_OK; n++) {
				replace("r", "old");
				p = (struct plan){.fail_at = n, .and_after = crash, .write_part = part};
				file_set_hook(hook, &p);
				e = file_replace(at("r"), bytes_str("the new"), 0644);
				file_set_hook(NULL, NULL);
				assert_int_equal(e, p.calls >= n ? ERR_IO : ERR_OK);
				if (e == ERR_OK)
					assert_content("r", "the new");
				else if (!crash)
					assert_int_equal(raw_entries(), 1);
				check_after_failure("old", "the new");
			}
			assert_string_equal(p.order, "CWSRD");
		}
	}
}

static void test_replace_killed_at_every_operation(void **state)
{
	(void)state;
	bool finished = false;
	for (size_t n = 1; !finished; n++) {
		replace("r", "old");
		fflush(NULL);
		pid_t pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			struct plan p = {.fail_at = n, .kill = true};
			file_set_hook(hook, &p);
			_exit(file_replace(at("r"), bytes_str("the new"), 0644) == ERR_OK ? 0 : 1);
		}
		int status;
		assert_int_equal(waitpid(pid, &status, 0), pid);
		finished = WIFEXITED(status);
		assert_true(finished ? WEXITSTATUS(status) == 0 && n == 6 : WTERMSIG(status) == SIGKILL);
		check_after_failure("old", "the new");
	}
}

static enum err refuse_twice_short(void *arg, enum file_op op, const char *path, size_t n, size_t *ret_short)
{
	(void)arg;
	(void)path;
	if (op == FILE_OP_WRITE && n > 2)
		*ret_short = 2; /* ERR_OK with a short count is a failure too */
	return ERR_OK;
}

static void test_hook_short_write_alone(void **state)
{
	(void)state;
	struct file *f;
	assert_int_equal(file_create(at("f"), 0644, &f), ERR_OK);
	file_set_hook(refuse_twice_short, NULL);
	assert_int_equal(file_write(f, "abcdef", 6), ERR_IO);
	assert_non_null(strstr(err_text(), "write"));
	file_set_hook(NULL, NULL);
	assert_int_equal(file_offset(f), 2);
	/* The caller takes the torn piece back and goes on. */
	assert_int_equal(file_truncate(f, 0), ERR_OK);
	assert_int_equal(file_write(f, "xyz", 3), ERR_OK);
	file_close(f);
	assert_content("f", "xyz");
}

static void test_foreign_leftovers(void **state)
{
	(void)state;
	struct stat st;
	/* A leftover with a wide mode must not lend it to the new file. */
	int fd = open(at(".tmp-k"), O_WRONLY | O_CREAT, 0666);
	assert_true(fd >= 0 && write(fd, "stale", 5) == 5 && fchmod(fd, 0666) == 0 && close(fd) == 0);
	assert_int_equal(file_replace(at("k"), bytes_str("k"), 0600), ERR_OK);
	assert_int_equal(stat(at("k"), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_content("k", "k");
	/* A symbolic link in its place is not followed. */
	replace("victim", "unharmed");
	assert_int_equal(symlink("victim", at(".tmp-k")), 0);
	assert_int_not_equal(file_replace(at("k"), bytes_str("evil"), 0600), ERR_OK);
	assert_content("victim", "unharmed");
	assert_content("k", "k");
	/* Nor is a directory removed; the attempt ends with an error, not with waiting. */
	assert_int_equal(unlink(at(".tmp-k")), 0);
	assert_int_equal(mkdir(at(".tmp-k"), 0755), 0);
	assert_int_equal(file_replace(at("k"), bytes_str("x"), 0600), ERR_IO);
	assert_content("k", "k");
}

enum { WRITERS = 3, TURNS = 20 };

static char shared[PATH_SIZE];

static void *write_turns(void *arg)
{
	char text[3000];
	memset(text, *(const char *)arg, sizeof text - 1);
	text[sizeof text - 1] = '\0';
	for (int i = 0; i < TURNS; i++) {
		if (file_replace(shared, bytes_str(text), 0644) != ERR_OK)
			return arg;
	}
	return NULL;
}

static void test_writers_take_turns(void **state)
{
	(void)state;
	static char letters[] = "abc";
	pthread_t threads[WRITERS];
	path_join(shared, dir, "shared");
	for (int i = 0; i < WRITERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, write_turns, &letters[i]), 0);
	for (int i = 0; i < WRITERS; i++) {
		void *failed;
		assert_int_equal(pthread_join(threads[i], &failed), 0);
		assert_null(failed);
	}
	struct buf b;
	assert_int_equal(file_read(at("shared"), 1 << 20, &b), ERR_OK);
	assert_int_equal(b.n, 2999);
	assert_int_equal(strspn(buf_str(&b), (char[]){buf_str(&b)[0], '\0'}), 2999);
	buf_deinit(&b);
	assert_int_equal(raw_entries(), 1);
}

static void test_full_disk(void **state)
{
	(void)state;
	struct rlimit before, tight;
	struct file *f;
	uint8_t block[5000] = {0};
	replace("r", "old");
	assert_int_equal(file_append_open(at("log"), 0644, &f), ERR_OK);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	signal(SIGXFSZ, SIG_IGN);
	tight = before;
	tight.rlim_cur = 3000;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
	enum err replaced = file_replace(at("r"), bytes_of(block, sizeof block), 0644);
	enum err appended = file_write(f, block, sizeof block);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_int_equal(replaced, ERR_IO);
	assert_int_equal(appended, ERR_IO);
	assert_content("r", "old");
	/* The offset says what got through, so that it can be cut off again. */
	assert_int_equal(file_offset(f), 3000);
	assert_int_equal(file_truncate(f, 0), ERR_OK);
	file_close(f);
	assert_int_equal(raw_entries(), 2);
}

static void test_remove_and_rename(void **state)
{
	(void)state;
	replace("a", "one");
	assert_int_equal(file_rename(at("a"), at("b")), ERR_OK);
	assert_content("b", "one");
	assert_int_equal(file_rename(at("a"), at("b")), ERR_NOT_FOUND);
	assert_int_equal(file_remove(at("b")), ERR_OK);
	assert_int_equal(file_remove(at("b")), ERR_OK);
	assert_false(file_exists(at("b")));
	assert_int_equal(file_remove(dir), ERR_IO);
}

static void test_copy(void **state)
{
	(void)state;
	/* More than one block, and every one of them may fail. */
	enum { SIZE = 200000 };
	char *big = mem_new(SIZE + 1);
	for (int i = 0; i < SIZE; i++)
		big[i] = (char)('a' + i % 23);
	replace("big", big);
	replace("to", "old");
	assert_int_equal(file_copy(at("none"), at("to"), 0644), ERR_NOT_FOUND);
	enum err e = ERR_IO;
	struct plan p = {0};
	for (size_t n = 1; e != ERR_OK; n++) {
		p = (struct plan){.fail_at = n, .write_part = 10};
		file_set_hook(hook, &p);
		e = file_copy(at("big"), at("to"), 0600);
		file_set_hook(NULL, NULL);
		if (p.calls < n || p.order[n - 1] == 'D')
			assert_content("to", big);
		else
			assert_content("to", "old");
	}
	assert_string_equal(p.order, "CWWWWSRD");
	free(big);
}

static ino_t inode(const char *name)
{
	struct stat st;
	assert_int_equal(stat(at(name), &st), 0);
	return st.st_ino;
}

static void test_link(void **state)
{
	(void)state;
	replace("from", "new");
	replace("link", "old");
	assert_int_equal(file_link(at("none"), at("link")), ERR_NOT_FOUND);
	assert_content("link", "old");
	/* Every operation may fail, or be the last one before a crash. */
	for (int after = 0; after < 2; after++) {
		enum err e = ERR_IO;
		struct plan p = {0};
		for (size_t n = 1; e != ERR_OK; n++) {
			replace("link", "old");
			p = (struct plan){.fail_at = n, .and_after = after == 1};
			file_set_hook(hook, &p);
			e = file_link(at("from"), at("link"));
			file_set_hook(NULL, NULL);
			assert_content("link", p.calls < n || p.order[n - 1] == 'D' ? "new" : "old");
			assert_content("from", "new");
		}
		assert_string_equal(p.order, "CRD");
		assert_false(file_exists(at(".tmp-link")));
	}
	assert_true(inode("link") == inode("from"));
	/* Once more, with the name already there, and with what a crash has left in the way: of this file or of another. */
	assert_int_equal(file_link(at("from"), at("link")), ERR_OK);
	assert_false(file_exists(at(".tmp-link")));
	replace("link", "old");
	assert_int_equal(link(at("from"), at(".tmp-link")), 0);
	assert_int_equal(file_link(at("from"), at("link")), ERR_OK);
	assert_content("link", "new");
	replace("link", "old");
	replace("other", "leftover");
	assert_int_equal(rename(at("other"), at(".tmp-link")), 0);
	assert_int_equal(file_link(at("from"), at("link")), ERR_OK);
	assert_false(file_exists(at(".tmp-link")));
	assert_content("link", "new");
	/* Replacing one of the names leaves the other. */
	replace("from", "newer");
	assert_content("link", "new");
	assert_int_equal(file_remove(at("link")), ERR_OK);
	assert_content("from", "newer");
}

/* Where there can be no link: a copy. */
static void test_link_across(void **state)
{
	(void)state;
	struct stat here, there;
	char elsewhere[] = "/dev/shm/hansa-test-XXXXXX";
	if (stat("/dev/shm", &there) != 0 || stat(dir, &here) != 0 || here.st_dev == there.st_dev ||
	    mkdtemp(elsewhere) == NULL)
		skip();
	char to[PATH_SIZE];
	struct buf b;
	replace("far", "content");
	assert_int_equal(chmod(at("far"), 0640), 0);
	assert_int_equal(file_link(at("far"), path_join(to, elsewhere, "to")), ERR_OK);
	assert_int_equal(file_read(to, 100, &b), ERR_OK);
	assert_string_equal(buf_str(&b), "content");
	buf_deinit(&b);
	assert_int_equal(stat(to, &there), 0);
	assert_int_equal(there.st_mode & 0777, 0640);
	assert_int_equal(unlink(to), 0);
	assert_int_equal(rmdir(elsewhere), 0);
}

static void test_check_private(void **state)
{
	(void)state;
	static const struct {
		mode_t mode;
		enum err e;
	} cases[] = {{0600, ERR_OK},     {0400, ERR_OK},     {0640, ERR_DENIED}, {0604, ERR_DENIED},
		     {0620, ERR_DENIED}, {0601, ERR_DENIED}, {0644, ERR_DENIED}};
	replace("key", "k");
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		assert_int_equal(chmod(at("key"), cases[i].mode), 0);
		assert_int_equal(file_check_private(at("key")), cases[i].e);
	}
	assert_non_null(strstr(err_text(), "chmod 600"));
	assert_int_equal(file_check_private(dir), ERR_DENIED);
	assert_int_equal(file_check_private(at("none")), ERR_NOT_FOUND);
	if (geteuid() == 0) {
		assert_int_equal(chmod(at("key"), 0600), 0);
		assert_int_equal(chown(at("key"), 12345, 0), 0);
		assert_int_equal(file_check_private(at("key")), ERR_DENIED);
	}
}

static void test_append(void **state)
{
	(void)state;
	struct file *f;
	assert_int_equal(file_append_open(at("log"), 0640, &f), ERR_OK);
	assert_int_equal(file_offset(f), 0);
	assert_int_equal(file_write(f, "one\n", 4), ERR_OK);
	assert_int_equal(file_sync(f), ERR_OK);
	file_close(f);
	assert_int_equal(file_append_open(at("log"), 0640, &f), ERR_OK);
	assert_int_equal(file_offset(f), 4);
	assert_int_equal(file_write(f, NULL, 0), ERR_OK);
	assert_int_equal(file_write(f, "two\n", 4), ERR_OK);
	char back[4];
	assert_int_equal(file_read_at(f, 2, back, 4), ERR_OK);
	assert_memory_equal(back, "e\ntw", 4);
	assert_int_equal(file_truncate(f, 9), ERR_STATE);
	assert_int_equal(file_truncate(f, 5), ERR_OK);
	assert_int_equal(file_offset(f), 5);
	assert_int_equal(file_write(f, "hree\n", 5), ERR_OK);
	assert_int_equal(file_sync(f), ERR_OK);
	file_close(f);
	file_close(NULL);
	assert_content("log", "one\nthree\n");
	assert_int_equal(file_append_open(at("none/log"), 0640, &f), ERR_NOT_FOUND);
	assert_int_equal(file_append_open(dir, 0640, &f), ERR_IO);
	assert_int_equal(file_append_open("/dev/null", 0640, &f), ERR_IO);
	assert_int_equal(file_create(at("none/log"), 0640, &f), ERR_NOT_FOUND);
	assert_int_equal(file_create(at("log"), 0640, &f), ERR_OK);
	file_close(f);
	assert_content("log", "");
}

static void test_failed_sync_is_final(void **state)
{
	(void)state;
	struct file *f;
	assert_int_equal(file_create(at("f"), 0644, &f), ERR_OK);
	assert_int_equal(file_write(f, "abc", 3), ERR_OK);
	struct plan p = {.fail_at = 1};
	file_set_hook(hook, &p);
	assert_int_equal(file_sync(f), ERR_IO);
	/* The kernel may have dropped the pages: a second sync that says "fine" would be a lie. */
	assert_int_equal(file_sync(f), ERR_IO);
	assert_int_equal(file_write(f, "d", 1), ERR_IO);
	assert_int_equal(file_truncate(f, 0), ERR_IO);
	assert_int_equal(p.calls, 1);
	file_close(f);
}

static void test_failed_directory_sync_is_repeated(void **state)
{
	(void)state;
	struct file *f;
	struct plan p = {.fail_at = 3};
	file_set_hook(hook, &p);
	assert_int_equal(file_create(at("f"), 0644, &f), ERR_OK);
	assert_int_equal(file_sync(f), ERR_IO);
	assert_int_equal(file_sync(f), ERR_OK);
	assert_int_equal(file_sync(f), ERR_OK);
	assert_string_equal(p.order, "CSDSDS");
	file_close(f);
}

static void test_random_reads(void **state)
{
	(void)state;
	struct file *f;
	char out[10] = "----------";
	replace("r", "0123456789");
	assert_int_equal(file_open_read(at("none"), &f), ERR_NOT_FOUND);
	assert_int_equal(file_open_read(dir, &f), ERR_IO);
	assert_int_equal(file_open_read(at("r"), &f), ERR_OK);
	assert_int_equal(file_offset(f), 10);
	assert_int_equal(file_read_at(f, 3, out, 4), ERR_OK);
	assert_memory_equal(out, "3456", 4);
	assert_int_equal(file_read_at(f, 0, out, 10), ERR_OK);
	assert_int_equal(file_read_at(f, 10, out, 0), ERR_OK);
	assert_int_equal(file_read_at(f, 10, out, 1), ERR_CORRUPT);
	assert_int_equal(file_read_at(f, 5, out, 6), ERR_CORRUPT);
	assert_int_equal(file_read_at(f, UINT64_MAX, out, 1), ERR_CORRUPT);
	assert_int_equal(file_read_at(f, INT64_MAX, out, 5), ERR_CORRUPT);
	file_close(f);
}

static void write_to_a_reader(void)
{
	struct file *f;
	if (file_open_read(at("r"), &f) == ERR_OK)
		_exit(file_write(f, "x", 1) == ERR_INTERNAL);
	_exit(0);
}

static void test_writing_to_a_reader_is_a_programmer_error(void **state)
{
	(void)state;
	replace("r", "x");
	assert_dies(write_to_a_reader);
}

static void test_map(void **state)
{
	(void)state;
	struct file_map m = {.base = (void *)1};
	assert_int_equal(file_map(at("none"), &m), ERR_NOT_FOUND);
	assert_ptr_equal(m.base, (void *)1);
	enum { SIZE = 50000 };
	char *big = mem_new(SIZE + 1);
	for (int i = 0; i < SIZE; i++)
		big[i] = (char)('a' + i % 23);
	replace("m", big);
	assert_int_equal(file_map(at("m"), &m), ERR_OK);
	assert_int_equal(m.content.n, SIZE);
	assert_memory_equal(m.content.p, big, SIZE);
	file_map_drop(&m, 0, 0);
	file_map_drop(&m, 5000, 20000);
	file_map_drop(&m, SIZE - 1, 1);
	assert_memory_equal(m.content.p, big, SIZE);
	file_unmap(&m);
	assert_null(m.base);
	file_unmap(&m);
	free(big);
	replace("empty", "");
	assert_int_equal(file_map(at("empty"), &m), ERR_OK);
	assert_int_equal(m.content.n, 0);
	assert_non_null(m.content.p);
	file_map_drop(&m, 0, 0);
	file_unmap(&m);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	umask(022);
	const struct CMUnitTest tests[] = {
		TEST(test_read),
		TEST(test_size_and_exists),
		TEST(test_replace_modes_and_targets),
		TEST(test_order_of_durable_operations),
		TEST(test_replace_fails_at_every_operation),
		TEST(test_replace_killed_at_every_operation),
		TEST(test_hook_short_write_alone),
		TEST(test_foreign_leftovers),
		TEST(test_writers_take_turns),
		TEST(test_full_disk),
		TEST(test_remove_and_rename),
		TEST(test_copy),
		TEST(test_link),
		TEST(test_link_across),
		TEST(test_check_private),
		TEST(test_append),
		TEST(test_failed_sync_is_final),
		TEST(test_failed_directory_sync_is_repeated),
		TEST(test_random_reads),
		TEST(test_writing_to_a_reader_is_a_programmer_error),
		TEST(test_map),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
