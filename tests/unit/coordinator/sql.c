/*
 * The database over a disk that fails, is full, or loses power.
 */
#include "coordinator/fixture.h"

#include "coordinator/sql.h"
#include "support/crashdisk.h"
#include "temp.h"

#include <errno.h>

static char dir[PATH_SIZE], path[PATH_SIZE];
static struct sql *sql;

static int setup(void **state)
{
	(void)state;
	crashdisk_make_scratch(dir);
	path_join(path, dir, "test.db");
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	file_set_hook(NULL, NULL);
	sql_close(sql);
	sql = NULL;
	temp_remove(dir);
	return 0;
}

static enum err open_table(void)
{
	TRY(sql_open(path, &sql));
	return sql_run(sql, "CREATE TABLE IF NOT EXISTS t (k INTEGER PRIMARY KEY, v INTEGER NOT NULL, pad TEXT)");
}

static void close_table(void)
{
	sql_close(sql);
	sql = NULL;
}

enum { ROWS = 3 };

/* Transaction `k` writes ROWS rows, so that a half of it can be told from the whole. */
static enum err put_rows(int64_t k)
{
	static char pad[3000];
	memset(pad, 'p', sizeof pad - 1);
	TRY(sql_begin(sql));
	enum err e = ERR_OK;
	for (int64_t i = 0; e == ERR_OK && i < ROWS; i++) {
		struct query *q = sql_query(sql, "INSERT INTO t (k, v, pad) VALUES (?, ?, ?)");
		sql_bind_int(q, k * ROWS + i);
		sql_bind_int(q, k);
		sql_bind_text(q, pad);
		e = sql_end(q);
	}
	return sql_end_transaction(sql, e);
}

static int64_t number(const char *text)
{
	struct query *q = sql_query(sql, text);
	assert_true(sql_next(q));
	int64_t v = sql_int(q, 0);
	assert_ok(sql_end(q));
	return v;
}

/* What transactions are there, as a mask; each is whole, and the file is sound. */
static unsigned whole_transactions(int n)
{
	unsigned mask = 0;
	struct query *q = sql_query(sql, "PRAGMA integrity_check");
	assert_true(sql_next(q));
	assert_string_equal(sql_text(q, 0), "ok");
	assert_ok(sql_end(q));
	for (int64_t k = 0; k < n; k++) {
		q = sql_query(sql, "SELECT count(*), coalesce(sum(length(pad)), 0) FROM t WHERE v = ?");
		sql_bind_int(q, k);
		assert_true(sql_next(q));
		int64_t rows = sql_int(q, 0), bytes = sql_int(q, 1);
		assert_ok(sql_end(q));
		assert_true(rows == 0 || rows == ROWS);
		assert_int_equal(bytes, rows * 2999);
		mask |= rows == ROWS ? 1u << k : 0;
	}
	return mask;
}

static char *tape_of(enum file_op op, const char *name)
{
	static const char letters[] = {
		[FILE_OP_CREATE] = 'C', [FILE_OP_WRITE] = 'W',   [FILE_OP_SYNC] = 'S',     [FILE_OP_RENAME] = 'R',
		[FILE_OP_REMOVE] = 'X', [FILE_OP_DIRSYNC] = 'd', [FILE_OP_TRUNCATE] = 'T', [FILE_OP_MKDIR] = 'M',
	};
	const char *suffix = strstr(name, "test.db");
	return mem_printf("%c%s ", letters[op], suffix != NULL ? suffix + strlen("test.db") : "");
}

struct tape {
	char text[4096], last[32];
};

static enum err record(void *arg, enum file_op op, const char *name, size_t n, size_t *ret_short)
{
	struct tape *t = arg;
	(void)n;
	(void)ret_short;
	char *one = tape_of(op, name);
	assert_null(strstr(name, "-shm"));
	if (op != FILE_OP_WRITE || strcmp(t->last, one) != 0)
		strncat(t->text, one, sizeof t->text - strlen(t->text) - 1);
	snprintf(t->last, sizeof t->last, "%s", one);
	free(one);
	return ERR_OK;
}

/* Everything durable that SQLite does is asked for, in the order in which it does it; the -shm file never. */
static void the_hook_sees_what_sqlite_does(void **state)
{
	(void)state;
	struct tape t = {0};
	file_set_hook(record, &t);
	assert_ok(open_table());
	/*
	 * The file is made by us. Write-ahead logging is turned on under the protection of a journal, whose name is synced
	 * with its first content; then the log is made, in the same way.
	 */
	assert_string_equal(t.text, "C W S R d C-journal W-journal S-journal d W-journal S-journal W S X-journal "
				    "C-wal W-wal S-wal d W-wal S-wal ");
	memset(&t, 0, sizeof t);
	assert_ok(put_rows(0));
	assert_string_equal(t.text, "W-wal S-wal ");
	memset(&t, 0, sizeof t);
	close_table();
	/* Into the database with it, and the log goes. */
	assert_string_equal(t.text, "S-wal W T S X-wal ");
}

static int refusal;
static const char *refused_name;
static enum file_op refused_op;

static enum err refuse(void *arg, enum file_op op, const char *name, size_t n, size_t *ret_short)
{
	size_t len = strlen(name), k = strlen(refused_name);
	(void)arg;
	(void)n;
	(void)ret_short;
	if (op != refused_op || len < k || strcmp(name + len - k, refused_name) != 0)
		return ERR_OK;
	errno = refusal;
	return ERR_IO;
}

/* What the operator reads says what the system said; afterwards the database goes on. */
static void refusals_say_why(void **state)
{
	(void)state;
	static const struct {
		enum file_op op;
		const char *name;
		int number;
		const char *text;
	} cases[] = {
		{FILE_OP_WRITE, "-wal", ENOSPC, "database or disk is full"},
		{FILE_OP_WRITE, "-wal", EDQUOT, "database or disk is full"},
		{FILE_OP_WRITE, "-wal", EROFS, "Read-only file system"},
		{FILE_OP_WRITE, "-wal", 0, "Input/output error"},
		{FILE_OP_SYNC, "-wal", ENOSPC, "No space left on device"},
		{FILE_OP_SYNC, "-wal", EIO, "Input/output error"},
	};
	assert_ok(open_table());
	assert_ok(put_rows(0));
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		refused_op = cases[i].op;
		refused_name = cases[i].name;
		refusal = cases[i].number;
		file_set_hook(refuse, NULL);
		enum err e = put_rows((int64_t)i + 1);
		file_set_hook(NULL, NULL);
		assert_fails(e, ERR_IO, cases[i].text);
		assert_fails(e, ERR_IO, "test.db");
		assert_int_equal(whole_transactions(8), (2u << i) - 1);
		assert_ok(put_rows((int64_t)i + 1));
	}
}

static void a_database_that_cannot_be_made_says_why(void **state)
{
	(void)state;
	static const struct {
		enum file_op op;
		const char *name;
		const char *text;
	} cases[] = {
		{FILE_OP_CREATE, "test.db", "Read-only file system"},
		{FILE_OP_CREATE, "-journal", "Read-only file system"},
		{FILE_OP_WRITE, "-journal", "Read-only file system"},
		{FILE_OP_SYNC, "-journal", "Read-only file system"},
		{FILE_OP_REMOVE, "-journal", "Read-only file system"},
		{FILE_OP_CREATE, "-wal", "Read-only file system"},
		{FILE_OP_TRUNCATE, "no such name", NULL},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		teardown(NULL);
		setup(NULL);
		refused_op = cases[i].op;
		refused_name = cases[i].name;
		refusal = EROFS;
		file_set_hook(refuse, NULL);
		enum err e = open_table();
		file_set_hook(NULL, NULL);
		close_table();
		if (cases[i].text != NULL)
			assert_fails(e, ERR_IO, cases[i].text);
		else
			assert_ok(e);
		assert_ok(open_table());
		assert_ok(put_rows(0));
	}
}

enum { SERIES = 5 };

/* Opens, writes, closes, opens again, goes on; how many transactions were acknowledged. */
static int series(void)
{
	int acknowledged = 0;
	enum err e = open_table();
	for (int k = 0; e == ERR_OK && k < SERIES; k++) {
		if (k == 2) {
			/* Into the database with all of it, so that the log begins anew. */
			e = sql_run(sql, "PRAGMA wal_checkpoint(RESTART)");
		} else if (k == 4) {
			close_table();
			e = open_table();
		}
		if (e == ERR_OK)
			e = put_rows(k);
		acknowledged += e == ERR_OK;
	}
	close_table();
	return acknowledged;
}

static void check_series(int acknowledged)
{
	assert_ok(open_table());
	unsigned there = whole_transactions(SERIES), promised = (1u << acknowledged) - 1;
	/* What was promised, and perhaps the one that was under way. */
	assert_true(there == promised || there == (promised << 1 | 1));
	for (int k = 0; k < SERIES; k++) {
		if ((there >> k & 1) == 0)
			assert_ok(put_rows(k));
	}
	assert_int_equal(whole_transactions(SERIES), (1u << SERIES) - 1);
	close_table();
}

/* Power is lost at every operation, in every way. */
static void what_was_committed_survives_a_power_loss(void **state)
{
	(void)state;
	enum { SEEDS = 5 };
	bool unpromised = false;
	for (int mode = 0; mode < CRASHDISK_MODES; mode++) {
		for (uint64_t seed = 0; seed < (mode == CRASHDISK_MIXED ? SEEDS : 1); seed++) {
			bool more = true;
			uint64_t n = 1;
			for (; more; n++) {
				teardown(NULL);
				setup(NULL);
				struct crashdisk *disk = crashdisk_new(dir, seed << 32 | n);
				crashdisk_arm(disk, n, (enum crashdisk_mode)mode);
				int acknowledged = series();
				more = crashdisk_dead(disk);
				assert_true(more || acknowledged == SERIES);
				crashdisk_restore(disk);
				assert_ok(open_table());
				unpromised = unpromised || whole_transactions(SERIES) > (1u << acknowledged) - 1;
				close_table();
				check_series(acknowledged);
				crashdisk_free(disk);
			}
			assert_true(n > 60);
		}
	}
	assert_true(unpromised); /* else the sweep has not looked between the write and the answer */
}

/* The power goes again while the database recovers from the first time. */
static void recovery_may_be_interrupted(void **state)
{
	(void)state;
	for (uint64_t n = 30; n < 60; n += 7) {
		bool more = true;
		for (uint64_t again = 1; more; again++) {
			teardown(NULL);
			setup(NULL);
			struct crashdisk *disk = crashdisk_new(dir, n * 1000 + again);
			crashdisk_arm(disk, n, CRASHDISK_MIXED);
			int acknowledged = series();
			assert_true(crashdisk_dead(disk));
			crashdisk_restore(disk);
			crashdisk_arm(disk, again, CRASHDISK_MIXED);
			enum err e = open_table();
			close_table();
			more = crashdisk_dead(disk);
			assert_true(more || e == ERR_OK);
			crashdisk_restore(disk);
			check_series(acknowledged);
			crashdisk_free(disk);
		}
	}
}

/* A single failure that passes: what was refused is not there, what was promised is. */
static void one_failure_anywhere_is_survived(void **state)
{
	(void)state;
	struct bad_disk disk = {.hit = true};
	size_t at = 0;
	for (; disk.hit; at++) {
		teardown(NULL);
		setup(NULL);
		bad_disk_insert(&disk, at, false);
		int acknowledged = series();
		bad_disk_remove();
		check_series(acknowledged);
	}
	assert_true(at > 60);
}

static void syncs_are_counted(void **state)
{
	(void)state;
	uint64_t count, ns, count_after, ns_after;
	assert_ok(open_table());
	file_get_sync_stats(&count, &ns);
	assert_ok(put_rows(0));
	assert_ok(put_rows(1));
	file_get_sync_stats(&count_after, &ns_after);
	assert_int_equal(count_after - count, 2);
	assert_true(ns_after > ns);
	number("SELECT count(*) FROM t");
	file_get_sync_stats(&count, &ns);
	assert_int_equal(count, count_after);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_hook_sees_what_sqlite_does),
		TEST(refusals_say_why),
		TEST(a_database_that_cannot_be_made_says_why),
		TEST(what_was_committed_survives_a_power_loss),
		TEST(recovery_may_be_interrupted),
		TEST(one_failure_anywhere_is_survived),
		TEST(syncs_are_counted),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
