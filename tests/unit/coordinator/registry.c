/*
 * The roster: who may call, and when each was last here.
 */
#include "coordinator/fixture.h"

#include "coordinator/registry.h"
#include "coordinator/sql.h"

#include <pthread.h>
#include <stdatomic.h>

static char *dir;
static struct db *db;
static struct registry *registry;

static void enrol(enum role role, const char *name, uint8_t key)
{
	struct member m = {.role = role, .expires_ms = 5000, .enrolled_ms = 100, .key = {{key}}};
	snprintf(m.name, sizeof m.name, "%.60s", name);
	assert_ok(db_member_put(db, &m));
	assert_ok(registry_reload(registry));
}

static int setup(void **state)
{
	(void)state;
	char path[PATH_SIZE];
	dir = scratch_make();
	assert_ok(db_open(path_join(path, dir, "hansa.db"), &db));
	assert_ok(registry_open(db, &registry));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	registry_close(registry);
	db_close(db);
	scratch_remove(dir);
	return 0;
}

static int64_t check_at = 1000;

static enum err check(enum role role, const char *name, uint8_t key)
{
	struct identity id;
	struct digest digest = {{key}};
	assert_ok(identity_make(role, "test", name, &id));
	return registry_check(registry, &id, &digest, check_at);
}

static void only_members_with_their_own_key(void **state)
{
	(void)state;
	assert_fails(check(ROLE_PLANT, "a", 1), ERR_DENIED, "not a member");
	enrol(ROLE_PLANT, "a", 1);
	enrol(ROLE_PLANT, "c", 3);
	enrol(ROLE_OPERATOR, "b", 2);
	assert_ok(check(ROLE_PLANT, "a", 1));
	assert_ok(check(ROLE_PLANT, "c", 3));
	assert_ok(check(ROLE_OPERATOR, "b", 2));
	assert_fails(check(ROLE_PLANT, "a", 2), ERR_DENIED, "another key");
	assert_fails(check(ROLE_OPERATOR, "a", 1), ERR_DENIED, "not a member");
	assert_fails(check(ROLE_PLANT, "b", 2), ERR_DENIED, "not a member");
	assert_fails(check(ROLE_COORDINATOR, "", 2), ERR_DENIED, "not a member");
	assert_true(registry_is_enrolled(registry, ROLE_PLANT, "a"));
	assert_false(registry_is_enrolled(registry, ROLE_PLANT, "aa"));
}

static void a_revocation_is_in_force_with_the_next_call(void **state)
{
	(void)state;
	enrol(ROLE_PLANT, "a", 1);
	assert_ok(db_member_revoke(db, ROLE_PLANT, "a", 200));
	assert_ok(check(ROLE_PLANT, "a", 1));
	assert_ok(registry_reload(registry));
	assert_fails(check(ROLE_PLANT, "a", 1), ERR_DENIED, "revoked");
	assert_false(registry_is_enrolled(registry, ROLE_PLANT, "a"));
	enrol(ROLE_PLANT, "a", 9);
	assert_fails(check(ROLE_PLANT, "a", 1), ERR_DENIED, "another key");
	assert_ok(check(ROLE_PLANT, "a", 9));
}

/* The database may not have taken it. */
static void a_revocation_in_memory_outlives_reloads(void **state)
{
	(void)state;
	enrol(ROLE_PLANT, "a", 1);
	registry_revoke(registry, ROLE_PLANT, "a");
	registry_revoke(registry, ROLE_PLANT, "nobody");
	assert_fails(check(ROLE_PLANT, "a", 1), ERR_DENIED, "revoked");
	assert_ok(registry_reload(registry));
	assert_ok(registry_reload(registry));
	assert_fails(check(ROLE_PLANT, "a", 1), ERR_DENIED, "revoked");
	assert_false(registry_is_enrolled(registry, ROLE_PLANT, "a"));
	enrol(ROLE_PLANT, "a", 2); /* a new enrolment is another matter */
	assert_ok(check(ROLE_PLANT, "a", 2));
}

static void an_expired_certificate_is_refused(void **state)
{
	(void)state;
	enrol(ROLE_PLANT, "a", 1);
	check_at = 4999;
	assert_ok(check(ROLE_PLANT, "a", 1));
	check_at = 5000;
	assert_fails(check(ROLE_PLANT, "a", 1), ERR_DENIED, "expired");
	check_at = 1000;
}

static void last_calls_that_could_not_be_written_are_written_later(void **state)
{
	(void)state;
	char path[PATH_SIZE];
	struct member m;
	struct sql *sql;
	enrol(ROLE_PLANT, "a", 1);
	registry_saw(registry, ROLE_PLANT, "a", "hansa 1", 500);
	assert_ok(sql_open(path_join(path, dir, "hansa.db"), &sql));
	assert_ok(
		sql_run(sql, "CREATE TRIGGER bad BEFORE UPDATE ON member BEGIN SELECT abs(-9223372036854775808); END"));
	assert_int_not_equal(registry_flush(registry), ERR_OK);
	assert_ok(sql_run(sql, "DROP TRIGGER bad"));
	sql_close(sql);
	assert_ok(registry_reload(registry));
	assert_ok(registry_flush(registry));
	assert_ok(db_member_get(db, ROLE_PLANT, "a", &m));
	assert_int_equal(m.seen_ms, 500);
}

static void the_plants_in_order(void **state)
{
	(void)state;
	struct buf names;
	enrol(ROLE_PLANT, "c", 1);
	enrol(ROLE_PLANT, "a", 1);
	enrol(ROLE_OPERATOR, "b", 1);
	enrol(ROLE_PLANT, "gone", 1);
	assert_ok(db_member_revoke(db, ROLE_PLANT, "gone", 1));
	assert_ok(registry_reload(registry));
	assert_ok(registry_plants(registry, &names));
	assert_string_equal(buf_str(&names), "a\nc\n");
	buf_deinit(&names);
}

static void last_calls_are_kept_and_written(void **state)
{
	(void)state;
	struct member m;
	struct wire_members list;
	enrol(ROLE_PLANT, "a", 1);
	registry_saw(registry, ROLE_PLANT, "a", "hansa 1", 500);
	registry_saw(registry, ROLE_PLANT, "a", NULL, 600);
	registry_saw(registry, ROLE_PLANT, "nobody", "x", 600);
	enrol(ROLE_PLANT, "b", 2); /* a reload in between loses nothing */
	assert_ok(db_member_get(db, ROLE_PLANT, "a", &m));
	assert_int_equal(m.seen_ms, 0);
	assert_ok(registry_list(registry, &list));
	assert_int_equal(list.n, 2);
	assert_int_equal(list.v[0].seen_ms, 600);
	assert_string_equal(list.v[0].software, "hansa 1");
	wire_members_free(&list);
	assert_ok(registry_flush(registry));
	assert_ok(db_member_get(db, ROLE_PLANT, "a", &m));
	assert_int_equal(m.seen_ms, 600);
	assert_string_equal(m.software, "hansa 1");
	assert_ok(registry_flush(registry));
}

static void the_list_has_the_invited_too(void **state)
{
	(void)state;
	struct wire_members list;
	struct invite i = {.secret = {{1}}, .role = ROLE_PLANT, .name = "new", .created_ms = 1, .expires_ms = 77};
	struct invite again = {.secret = {{2}}, .role = ROLE_PLANT, .name = "gone", .created_ms = 1, .expires_ms = 88};
	enrol(ROLE_PLANT, "a", 1);
	enrol(ROLE_PLANT, "gone", 1);
	assert_ok(db_member_revoke(db, ROLE_PLANT, "gone", 1));
	assert_ok(registry_reload(registry));
	assert_ok(registry_list(registry, &list));
	assert_string_equal(list.v[1].state, "revoked");
	wire_members_free(&list);
	assert_ok(db_invite_put(db, &i));
	assert_ok(db_invite_put(db, &again));
	assert_ok(registry_list(registry, &list));
	assert_int_equal(list.n, 3);
	assert_string_equal(list.v[0].state, "enrolled");
	assert_string_equal(list.v[1].state, "invited");
	assert_int_equal(list.v[1].expires_ms, 88);
	assert_string_equal(list.v[2].name, "new");
	assert_int_equal(list.v[2].expires_ms, 77);
	wire_members_free(&list);
}

static atomic_bool enough;

static void *keep_checking(void *arg)
{
	while (!atomic_load(&enough)) {
		if (check(ROLE_PLANT, "steady", 7) != ERR_OK)
			return arg;
		registry_saw(registry, ROLE_PLANT, "steady", NULL, 1);
	}
	return NULL;
}

static void checks_and_reloads_at_once(void **state)
{
	(void)state;
	pthread_t threads[3];
	int arg = 0;
	enrol(ROLE_PLANT, "steady", 7);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, keep_checking, &arg), 0);
	for (int i = 0; i < 20; i++) {
		char name[16];
		snprintf(name, sizeof name, "p%d", i);
		enrol(ROLE_PLANT, name, (uint8_t)(i + 1));
		assert_ok(registry_flush(registry));
	}
	atomic_store(&enough, true);
	for (int i = 0; i < 3; i++) {
		void *failed;
		assert_int_equal(pthread_join(threads[i], &failed), 0);
		assert_null(failed);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(only_members_with_their_own_key, setup, teardown),
		cmocka_unit_test_setup_teardown(a_revocation_is_in_force_with_the_next_call, setup, teardown),
		cmocka_unit_test_setup_teardown(a_revocation_in_memory_outlives_reloads, setup, teardown),
		cmocka_unit_test_setup_teardown(an_expired_certificate_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(last_calls_that_could_not_be_written_are_written_later, setup,
						teardown),
		cmocka_unit_test_setup_teardown(the_plants_in_order, setup, teardown),
		cmocka_unit_test_setup_teardown(last_calls_are_kept_and_written, setup, teardown),
		cmocka_unit_test_setup_teardown(the_list_has_the_invited_too, setup, teardown),
		cmocka_unit_test_setup_teardown(checks_and_reloads_at_once, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
