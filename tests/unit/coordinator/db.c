/*
 * The database: what it keeps, what it refuses, and what a file that is not ours does to it.
 */
#include "coordinator/fixture.h"

#include "coordinator/db.h"
#include "coordinator/sql.h"

static char *dir;
static struct db *db;
static char path[PATH_SIZE];

static int setup(void **state)
{
	(void)state;
	dir = scratch_make();
	assert_ok(db_open(path_join(path, dir, "hansa.db"), &db));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	db_close(db);
	scratch_remove(dir);
	return 0;
}

static void reopen(void)
{
	db_close(db);
	assert_ok(db_open(path, &db));
}

static struct member member_of(const char *name, uint8_t key)
{
	struct member m = {.role = ROLE_PLANT, .expires_ms = 900, .enrolled_ms = 100, .key = {{key}}};
	snprintf(m.name, sizeof m.name, "%.60s", name);
	return m;
}

static struct invite invite_of(const char *name, uint8_t secret)
{
	struct invite i = {.secret = {{secret}}, .role = ROLE_PLANT, .created_ms = 10, .expires_ms = 1000};
	snprintf(i.name, sizeof i.name, "%.60s", name);
	return i;
}

/* ---- opening ---- */

static void what_was_written_is_there_again(void **state)
{
	(void)state;
	struct member m = member_of("bremen", 7), got;
	assert_ok(db_member_put(db, &m));
	reopen();
	assert_ok(db_member_get(db, ROLE_PLANT, "bremen", &got));
	assert_int_equal(got.state, MEMBER_ENROLLED);
	assert_true(digest_equal(&got.key, &m.key));
	assert_int_equal(got.expires_ms, 900);
	assert_fails(db_member_get(db, ROLE_OPERATOR, "bremen", &got), ERR_NOT_FOUND, "operator");
}

static void settings_of_the_connection_hold(void **state)
{
	(void)state;
	static const struct {
		const char *pragma, *value;
	} cases[] = {{"PRAGMA journal_mode", "wal"}, {"PRAGMA synchronous", "2"}, {"PRAGMA foreign_keys", "1"}};
	struct sql *s;
	assert_ok(sql_open(path, &s));
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct query *q = sql_query(s, cases[i].pragma);
		assert_true(sql_next(q));
		assert_string_equal(sql_text(q, 0), cases[i].value);
		assert_ok(sql_end(q));
	}
	sql_close(s);
}

static void a_later_releases_file_is_left_alone(void **state)
{
	(void)state;
	struct sql *s;
	struct db *other;
	assert_ok(sql_open(path, &s));
	assert_ok(sql_run(s, "PRAGMA user_version = 99"));
	sql_close(s);
	assert_fails(db_open(path, &other), ERR_CONFIG, "later release");
}

static void a_file_that_is_no_database_is_refused(void **state)
{
	(void)state;
	struct db *other;
	char name[PATH_SIZE];
	char *text = mem_new(4096);
	memset(text, 'x', 4096);
	assert_ok(file_replace(path_join(name, dir, "other.db"), bytes_of(text, 4096), 0600));
	assert_int_equal(db_open(name, &other), ERR_CORRUPT);
	assert_int_equal(db_open(path_join(name, dir, "no/such/folder.db"), &other), ERR_NOT_FOUND);
	free(text);
}

static void stored_nonsense_is_corrupt(void **state)
{
	(void)state;
	static const char *const statements[] = {
		"UPDATE member SET state = 'odd'",
		"UPDATE member SET key = x'0011'",
		"UPDATE member SET software = hex(zeroblob(100))",
		"UPDATE member SET role = 'king'",
	};
	for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
		struct sql *s;
		struct member *list, m = member_of("bremen", 7);
		size_t n;
		teardown(NULL);
		setup(NULL);
		assert_ok(db_member_put(db, &m));
		assert_ok(sql_open(path, &s));
		assert_ok(sql_run(s, statements[i]));
		sql_close(s);
		assert_int_equal(db_member_list(db, &list, &n), ERR_CORRUPT);
		/* The connection is as good as before. */
		assert_ok(db_invite_list(db, &(struct invite *){NULL}, &n));
	}
}

static void errors_stick_to_their_query(void **state)
{
	(void)state;
	struct sql *s;
	assert_ok(sql_open(path, &s));
	struct query *q = sql_query(s, "SELECT x FROM nowhere");
	sql_bind_int(q, 1);
	assert_false(sql_next(q));
	assert_fails(sql_end(q), ERR_INTERNAL, "nowhere");
	q = sql_query(
		s,
		"INSERT INTO invite (secret, role, name, created_ms, expires_ms) VALUES (x'00', 'plant', 'a', 1, 1)");
	assert_ok(sql_end(q));
	q = sql_query(
		s,
		"INSERT INTO invite (secret, role, name, created_ms, expires_ms) VALUES (x'00', 'plant', 'a', 1, 1)");
	assert_int_equal(sql_end(q), ERR_DUPLICATE);
	assert_ok(sql_begin(s));
	assert_ok(sql_run(s, "DELETE FROM invite"));
	assert_fails(sql_end_transaction(s, err_set(ERR_STATE, "thought better of it")), ERR_STATE, "thought better");
	q = sql_query(s, "SELECT count(*) FROM invite");
	assert_true(sql_next(q));
	assert_int_equal(sql_int(q, 0), 1);
	assert_ok(sql_end(q));
	sql_close(s);
}

/* ---- members and invitations ---- */

static void an_invitation_is_used_once(void **state)
{
	(void)state;
	struct invite i = invite_of("bremen", 1), got;
	struct member m = member_of("bremen", 5), there;
	assert_ok(db_invite_put(db, &i));
	assert_ok(db_invite_get(db, &i.secret, &got));
	assert_int_equal(got.used_ms, 0);
	assert_string_equal(got.name, "bremen");
	invite_deinit(&got);
	assert_ok(db_invite_use(db, &i.secret, &m, bytes_str("PEM")));
	assert_ok(db_invite_get(db, &i.secret, &got));
	assert_int_equal(got.used_ms, 100);
	assert_true(digest_equal(&got.key, &m.key));
	assert_string_equal(buf_str(&got.certificate), "PEM");
	invite_deinit(&got);
	assert_ok(db_member_get(db, ROLE_PLANT, "bremen", &there));
	struct member other = member_of("bremen", 6);
	assert_fails(db_invite_use(db, &i.secret, &other, bytes_str("PEM")), ERR_STATE, "used");
	assert_ok(db_member_get(db, ROLE_PLANT, "bremen", &there));
	assert_int_equal(there.key.b[0], 5);
	assert_int_equal(db_invite_get(db, &(struct digest){{9}}, &got), ERR_NOT_FOUND);
}

static void a_newer_invitation_replaces_an_unused_one(void **state)
{
	(void)state;
	struct invite first = invite_of("bremen", 1), second = invite_of("bremen", 2), *list, got;
	size_t n;
	assert_ok(db_invite_put(db, &first));
	assert_ok(db_invite_put(db, &second));
	assert_ok(db_invite_list(db, &list, &n));
	assert_int_equal(n, 1);
	assert_int_equal(list[0].secret.b[0], 2);
	free(list);
	assert_int_equal(db_invite_get(db, &first.secret, &got), ERR_NOT_FOUND);
}

static void long_expired_invitations_are_forgotten(void **state)
{
	(void)state;
	struct invite old = invite_of("old", 1), fresh = invite_of("fresh", 2), got;
	assert_ok(db_invite_put(db, &old));
	fresh.created_ms = 1000 + 31 * 24 * 3600 * INT64_C(1000);
	fresh.expires_ms = fresh.created_ms + 1;
	assert_ok(db_invite_put(db, &fresh));
	assert_int_equal(db_invite_get(db, &old.secret, &got), ERR_NOT_FOUND);
}

static void revoking_takes_all_back(void **state)
{
	(void)state;
	struct invite i = invite_of("bremen", 1), got;
	struct member m = member_of("bremen", 5), there;
	assert_fails(db_member_revoke(db, ROLE_PLANT, "bremen", 200), ERR_NOT_FOUND, "bremen");
	assert_ok(db_invite_put(db, &i));
	assert_ok(db_member_revoke(db, ROLE_PLANT, "bremen", 200)); /* only invited */
	assert_ok(db_invite_put(db, &i));
	assert_ok(db_invite_use(db, &i.secret, &m, bytes_str("PEM")));
	assert_ok(db_member_revoke(db, ROLE_PLANT, "bremen", 200));
	assert_ok(db_member_get(db, ROLE_PLANT, "bremen", &there));
	assert_int_equal(there.state, MEMBER_REVOKED);
	assert_int_equal(there.revoked_ms, 200);
	assert_int_equal(db_invite_get(db, &i.secret, &got), ERR_NOT_FOUND);
	assert_int_equal(db_member_revoke(db, ROLE_PLANT, "bremen", 201), ERR_NOT_FOUND);
	assert_ok(db_member_put(db, &m));
	assert_ok(db_member_get(db, ROLE_PLANT, "bremen", &there));
	assert_int_equal(there.state, MEMBER_ENROLLED);
	assert_int_equal(there.revoked_ms, 0);
}

static void when_members_were_seen(void **state)
{
	(void)state;
	struct member m[2] = {member_of("a", 1), member_of("b", 2)}, *list;
	size_t n;
	assert_ok(db_member_put(db, &m[0]));
	assert_ok(db_member_put(db, &m[1]));
	m[1].seen_ms = 77;
	snprintf(m[1].software, sizeof m[1].software, "hansa 9");
	assert_ok(db_member_seen(db, &m[1], 1));
	assert_ok(db_member_list(db, &list, &n));
	assert_int_equal(n, 2);
	assert_int_equal(list[0].seen_ms, 0);
	assert_int_equal(list[1].seen_ms, 77);
	assert_string_equal(list[1].software, "hansa 9");
	free(list);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_was_written_is_there_again, setup, teardown),
		cmocka_unit_test_setup_teardown(settings_of_the_connection_hold, setup, teardown),
		cmocka_unit_test_setup_teardown(a_later_releases_file_is_left_alone, setup, teardown),
		cmocka_unit_test_setup_teardown(a_file_that_is_no_database_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(stored_nonsense_is_corrupt, setup, teardown),
		cmocka_unit_test_setup_teardown(errors_stick_to_their_query, setup, teardown),
		cmocka_unit_test_setup_teardown(an_invitation_is_used_once, setup, teardown),
		cmocka_unit_test_setup_teardown(a_newer_invitation_replaces_an_unused_one, setup, teardown),
		cmocka_unit_test_setup_teardown(long_expired_invitations_are_forgotten, setup, teardown),
		cmocka_unit_test_setup_teardown(revoking_takes_all_back, setup, teardown),
		cmocka_unit_test_setup_teardown(when_members_were_seen, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
