/*
 * Making a federation and opening it: nothing that exists is touched, nothing half-made is taken for whole.
 */
#include "coordinator/fixture.h"

#include "base/clock.h"
#include "coordinator/federation.h"

#include <sys/stat.h>

static char *scratch;
static char dir[PATH_SIZE], settings_path[PATH_SIZE];

static int setup(void **state)
{
	(void)state;
	scratch = scratch_make();
	path_join(dir, scratch, "fed");
	path_join(settings_path, dir, SETTINGS_FILE);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	bad_disk_remove();
	scratch_remove(scratch);
	return 0;
}

static enum err create(const char *name, const char *first_host)
{
	const char *hosts[] = {first_host, NULL};
	struct federation_plan plan = {.name = name, .listen = "127.0.0.1:0", .enrol_listen = "off", .hosts = hosts};
	return federation_create(dir, &plan, clock_wall_ms());
}

static unsigned mode_of(const char *name)
{
	char path[PATH_SIZE];
	struct stat st;
	assert_int_equal(stat(path_join(path, dir, name), &st), 0);
	return (unsigned)st.st_mode & 0777u;
}

static void everything_is_made(void **state)
{
	(void)state;
	struct federation f;
	struct credential admin;
	struct member m;
	struct key *log_key;
	struct buf chain;
	char path[PATH_SIZE];
	assert_ok(create("acme", "hansa.example.org"));
	assert_int_equal(mode_of(""), 0700);
	assert_int_equal(mode_of("ca/key.pem"), 0600);
	assert_int_equal(mode_of("coordinator/key.pem"), 0600);
	assert_int_equal(mode_of("log/key.pem"), 0600);
	assert_int_equal(mode_of("hansa.db"), 0600);
	assert_ok(federation_open(settings_path, clock_wall_ms(), &f));
	assert_string_equal(f.dir, dir);
	assert_string_equal(f.settings.federation, "acme");
	assert_string_equal(f.settings.listen, "127.0.0.1:0");
	assert_string_equal(f.settings.advertise, "hansa.example.org");
	assert_true(settings_is_off(f.settings.enrol_listen));
	assert_int_equal(f.settings.workers, 16);
	assert_int_equal(f.settings.hold, 55000);
	assert_int_equal(f.credential.id.role, ROLE_COORDINATOR);
	assert_ok(credential_load(path_join(path, dir, "operator"), clock_wall_ms(), &admin));
	assert_int_equal(admin.id.role, ROLE_OPERATOR);
	assert_string_equal(admin.id.name, FEDERATION_ADMIN);
	assert_ok(db_member_get(f.db, ROLE_OPERATOR, FEDERATION_ADMIN, &m));
	struct digest key = key_public_digest(admin.key);
	assert_true(digest_equal(&m.key, &key));
	assert_ok(key_load(path_join(path, dir, "log/key.pem"), &log_key));
	assert_int_equal(key_kind_of(log_key), KEY_ED25519);
	assert_ok(federation_chain(&f, &chain));
	assert_non_null(strstr(strstr(buf_str(&chain), "END CERTIFICATE"), "BEGIN CERTIFICATE"));
	buf_deinit(&chain);
	key_free(log_key);
	credential_free(&admin);
	federation_close(&f);
}

static void a_federation_is_not_made_twice(void **state)
{
	(void)state;
	struct digest before, after;
	char path[PATH_SIZE];
	assert_ok(create("acme", "localhost"));
	path_join(path, dir, "ca/key.pem");
	assert_ok(digest_file(path, &before, NULL));
	assert_fails(create("acme", "localhost"), ERR_STATE, "already");
	assert_fails(create("other", "localhost"), ERR_STATE, "already");
	assert_ok(digest_file(path, &after, NULL));
	assert_true(digest_equal(&before, &after));
}

static void a_folder_of_something_else_is_left_alone(void **state)
{
	(void)state;
	char path[PATH_SIZE];
	assert_ok(dir_make(dir, 0755));
	assert_ok(file_replace(path_join(path, dir, "thesis.tex"), bytes_str("x"), 0644));
	assert_fails(create("acme", "localhost"), ERR_STATE, "thesis.tex");
	assert_false(file_exists(path_join(path, dir, "ca")));
}

static void what_cannot_be_is_said_before_anything_is_made(void **state)
{
	(void)state;
	assert_fails(create("Not A Name", "localhost"), ERR_CONFIG, "federation");
	assert_int_equal(create("acme", "no host"), ERR_MALFORMED);
	const char *hosts[] = {NULL};
	struct federation_plan plan = {.listen = "127.0.0.1", .hosts = hosts};
	assert_fails(federation_create(dir, &plan, clock_wall_ms()), ERR_CONFIG, "listen");
	plan = (struct federation_plan){.enrol_listen = "on", .hosts = hosts};
	assert_fails(federation_create(dir, &plan, clock_wall_ms()), ERR_CONFIG, "enrol_listen");
	assert_false(file_exists(dir));
}

/* Interrupted at every durable step: not open, and whole after it is run again. */
static void init_can_be_run_again(void **state)
{
	(void)state;
	bool hit = true;
	for (size_t at = 0; hit; at++) {
		struct bad_disk disk;
		struct federation f;
		teardown(NULL);
		setup(NULL);
		bad_disk_insert(&disk, at, true);
		enum err err = create("acme", "localhost");
		hit = disk.hit;
		bad_disk_remove();
		if (hit)
			assert_int_equal(err, ERR_IO);
		/* The settings are the last file: whatever fails after its rename leaves a whole federation. */
		if (!file_exists(settings_path))
			assert_ok(create("acme", "localhost"));
		assert_ok(federation_open(settings_path, clock_wall_ms(), &f));
		federation_close(&f);
	}
}

static void a_half_made_one_keeps_its_name(void **state)
{
	(void)state;
	assert_ok(dir_make(dir, 0700));
	assert_ok(ca_create(dir, "first", clock_wall_ms()));
	assert_fails(create("second", "localhost"), ERR_STATE, "--federation first");
	assert_ok(create("first", "localhost"));
}

static void check_settings(const char *text, const char *part)
{
	struct settings s;
	char path[PATH_SIZE];
	assert_ok(file_replace(path_join(path, scratch, "s.yaml"), bytes_str(text), 0600));
	assert_fails(settings_load(path, &s), ERR_CONFIG, part);
}

static void settings_are_judged(void **state)
{
	(void)state;
	check_settings("federation: acme\n", "advertise");
	check_settings("advertise: localhost\n", "federation");
	check_settings("federation: acme\nadvertise: localhost\nlisten: here\n", "listen");
	check_settings("federation: acme\nadvertise: localhost\nenrol_listen: \"1.2.3.4:99999\"\n", "enrol_listen");
	check_settings("federation: acme\nadvertise: two words\n", "advertise");
	check_settings("federation: acme\nadvertise: localhost\nworkers: 1\n", "workers");
	check_settings("federation: acme\nadvertise: localhost\nworker: 4\n", "worker");
	check_settings("federation: acme\nadvertise: localhost\nhold: 2h\n", "hold");
	char out[WIRE_ADDRESS_SIZE];
	assert_string_equal(settings_address("::1", 7, out), "[::1]:7");
	assert_string_equal(settings_address("localhost", 7433, out), "localhost:7433");
}

static void foreign_parts_are_noticed(void **state)
{
	(void)state;
	struct federation f;
	char path[PATH_SIZE];
	struct buf text;
	assert_ok(create("acme", "localhost"));
	assert_fails(federation_open(settings_path, clock_wall_ms() + 400 * 24 * 3600 * INT64_C(1000), &f),
		     ERR_UNAUTHENTIC, "coordinator");
	assert_ok(file_read(settings_path, 1 << 16, &text));
	char *at = strstr(buf_str(&text), "acme");
	memcpy(at, "otto", 4);
	assert_ok(file_replace(settings_path, buf_bytes(&text), 0600));
	buf_deinit(&text);
	assert_fails(federation_open(settings_path, clock_wall_ms(), &f), ERR_CONFIG, "acme");
	assert_int_equal(federation_open(path_join(path, scratch, "none.yaml"), clock_wall_ms(), &f), ERR_NOT_FOUND);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(everything_is_made, setup, teardown),
		cmocka_unit_test_setup_teardown(a_federation_is_not_made_twice, setup, teardown),
		cmocka_unit_test_setup_teardown(a_folder_of_something_else_is_left_alone, setup, teardown),
		cmocka_unit_test_setup_teardown(what_cannot_be_is_said_before_anything_is_made, setup, teardown),
		cmocka_unit_test_setup_teardown(init_can_be_run_again, setup, teardown),
		cmocka_unit_test_setup_teardown(a_half_made_one_keeps_its_name, setup, teardown),
		cmocka_unit_test_setup_teardown(settings_are_judged, setup, teardown),
		cmocka_unit_test_setup_teardown(foreign_parts_are_noticed, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
