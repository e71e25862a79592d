/*
 * Enrolment: an invitation is good once, for one name, for one key, for a while; and every refusal says the same.
 */
#include "coordinator/fixture.h"

#include "base/clock.h"
#include "base/log.h"
#include "certs/joincode.h"
#include "coordinator/enrol.h"
#include "coordinator/sql.h"

static char *scratch;
static struct federation federation;
static struct enrol *enrol;
static int64_t now;

static int setup(void **state)
{
	(void)state;
	char dir[PATH_SIZE], path[PATH_SIZE];
	struct federation_plan plan = {.name = "acme"};
	log_set_level(LOG_LEVEL_ERROR);
	scratch = scratch_make();
	now = clock_wall_ms();
	assert_ok(federation_create(path_join(dir, scratch, "fed"), &plan, now));
	assert_ok(federation_open(path_join(path, dir, SETTINGS_FILE), now, &federation));
	enrol = enrol_new(&federation);
	enrol_set_addresses(enrol, "localhost:7433", "localhost:7434");
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	enrol_free(enrol);
	federation_close(&federation);
	scratch_remove(scratch);
	return 0;
}

static struct joincode invite(const char *name)
{
	struct wire_invite_reply reply;
	struct joincode code;
	assert_ok(enrol_invite(enrol, ROLE_PLANT, name, 0, now, &reply));
	assert_ok(joincode_parse(reply.code, &code));
	assert_int_equal((int64_t)reply.expires_ms, now + ENROL_VALID_DEFAULT_MS);
	return code;
}

static enum err redeem_as(const struct joincode *code, const struct key *key, const char *name, int64_t at,
			  struct wire_enroll_reply *ret_reply)
{
	struct identity id;
	struct buf csr;
	assert_ok(identity_make(ROLE_PLANT, "acme", name, &id));
	assert_ok(csr_make(key, &id, &csr));
	struct wire_enroll_request request = {.csr = buf_bytes(&csr)};
	memcpy(request.secret, code->secret, sizeof request.secret);
	enum err err = enrol_redeem(enrol, &request, "test", at, ret_reply);
	buf_deinit(&csr);
	return err;
}

static struct key *new_key(void)
{
	struct key *key;
	assert_ok(key_generate(KEY_P256, &key));
	return key;
}

#define assert_refused(call) assert_fails(call, ERR_DENIED, ENROL_REFUSED)

static void a_code_becomes_a_certificate(void **state)
{
	(void)state;
	struct joincode code = invite("bremen");
	struct key *key = new_key();
	struct wire_enroll_reply reply;
	struct cert *cert;
	struct identity id;
	struct digest fingerprint = cert_fingerprint(ca_cert(federation.ca)), pinned = key_public_digest(key);
	assert_string_equal(code.address, "localhost:7434");
	assert_true(digest_equal(&code.ca_fingerprint, &fingerprint));
	assert_false(registry_is_enrolled(federation.registry, ROLE_PLANT, "bremen"));
	assert_ok(redeem_as(&code, key, "bremen", now, &reply));
	assert_string_equal(reply.address, "localhost:7433");
	assert_ok(cert_parse(buf_bytes(&reply.certificate), &cert));
	assert_ok(cert_verify(cert, ca_cert(federation.ca), now));
	assert_ok(cert_identity(cert, &id));
	assert_string_equal(id.name, "bremen");
	struct digest certified = cert_key_digest(cert);
	assert_true(digest_equal(&certified, &pinned));
	/* The roster knows it before the answer is out. */
	assert_ok(registry_check(federation.registry, &id, &pinned, now));
	cert_free(cert);
	wire_enroll_reply_free(&reply);
	key_free(key);
}

static void a_lost_answer_can_be_asked_for_again(void **state)
{
	(void)state;
	struct joincode code = invite("bremen");
	struct key *key = new_key(), *other = new_key();
	struct wire_enroll_reply first, second;
	assert_ok(redeem_as(&code, key, "bremen", now, &first));
	assert_ok(redeem_as(&code, key, "bremen", now + 60000, &second));
	assert_int_equal(first.certificate.n, second.certificate.n);
	assert_memory_equal(first.certificate.p, second.certificate.p, first.certificate.n);
	wire_enroll_reply_free(&second);
	assert_refused(redeem_as(&code, other, "bremen", now, &second));
	assert_refused(redeem_as(&code, key, "bremen", now + ENROL_VALID_DEFAULT_MS, &second));
	/* Revoked: the old code does not bring the old certificate back. */
	assert_ok(enrol_revoke(enrol, ROLE_PLANT, "bremen", now));
	assert_refused(redeem_as(&code, key, "bremen", now, &second));
	wire_enroll_reply_free(&first);
	key_free(key);
	key_free(other);
}

static void every_refusal_says_the_same(void **state)
{
	(void)state;
	struct joincode code = invite("bremen"), wrong = code;
	struct key *key = new_key();
	struct wire_enroll_reply reply;
	struct wire_enroll_request request = {.csr = bytes_str("no request")};
	wrong.secret[3] ^= 1;
	assert_refused(redeem_as(&wrong, key, "bremen", now, &reply));
	assert_refused(redeem_as(&code, key, "hamburg", now, &reply));
	assert_refused(redeem_as(&code, key, "bremen", code.expires_ms + 1000, &reply));
	memcpy(request.secret, code.secret, sizeof request.secret);
	assert_refused(enrol_redeem(enrol, &request, "test", now, &reply));
	/* None of these has used it up. */
	assert_ok(redeem_as(&code, key, "bremen", now, &reply));
	wire_enroll_reply_free(&reply);
	key_free(key);
}

static void guessing_is_slowed_down(void **state)
{
	(void)state;
	struct joincode code = invite("bremen"), wrong = code;
	struct key *key = new_key();
	struct wire_enroll_reply reply;
	wrong.secret[0] ^= 1;
	for (int i = 0; i < ENROL_FAILURES_PER_S; i++)
		assert_refused(redeem_as(&wrong, key, "bremen", now, &reply));
	assert_fails(redeem_as(&wrong, key, "bremen", now, &reply), ERR_LIMIT, "too many");
	assert_refused(redeem_as(&wrong, key, "bremen", now + 50, &reply));
	assert_fails(redeem_as(&wrong, key, "bremen", now + 50, &reply), ERR_LIMIT, "too many");
	/* Who has a good code is not held up. */
	assert_ok(redeem_as(&code, key, "bremen", now + 50, &reply));
	wire_enroll_reply_free(&reply);
	key_free(key);
}

static void a_newer_code_voids_the_older(void **state)
{
	(void)state;
	struct joincode first = invite("bremen"), second = invite("bremen");
	struct key *key = new_key();
	struct wire_enroll_reply reply;
	assert_refused(redeem_as(&first, key, "bremen", now, &reply));
	assert_ok(redeem_as(&second, key, "bremen", now, &reply));
	wire_enroll_reply_free(&reply);
	key_free(key);
}

static void who_may_be_invited(void **state)
{
	(void)state;
	struct wire_invite_reply reply;
	struct wire_enroll_reply enrolled;
	struct joincode code = invite("bremen");
	struct key *key = new_key();
	assert_ok(redeem_as(&code, key, "bremen", now, &enrolled));
	wire_enroll_reply_free(&enrolled);
	assert_fails(enrol_invite(enrol, ROLE_PLANT, "bremen", 0, now, &reply), ERR_STATE, "revoke it first");
	assert_ok(enrol_revoke(enrol, ROLE_PLANT, "bremen", now));
	code = invite("bremen");
	struct key *fresh = new_key();
	assert_ok(redeem_as(&code, fresh, "bremen", now, &enrolled));
	wire_enroll_reply_free(&enrolled);
	assert_int_equal(enrol_invite(enrol, ROLE_PLANT, "Bad Name", 0, now, &reply), ERR_MALFORMED);
	assert_int_equal(enrol_invite(enrol, ROLE_COORDINATOR, "x", 0, now, &reply), ERR_MALFORMED);
	assert_fails(enrol_invite(enrol, ROLE_PLANT, "x", 1000, now, &reply), ERR_LIMIT, "1 minute");
	assert_fails(enrol_invite(enrol, ROLE_PLANT, "x", UINT64_MAX, now, &reply), ERR_LIMIT, "30 days");
	enrol_set_addresses(enrol, "localhost:7433", NULL);
	assert_fails(enrol_invite(enrol, ROLE_PLANT, "x", 0, now, &reply), ERR_STATE, "closed");
	key_free(key);
	key_free(fresh);
}

static void the_last_operator_stays(void **state)
{
	(void)state;
	struct member second = {.role = ROLE_OPERATOR, .name = "second", .expires_ms = now + 1000, .key = {{1}}};
	assert_fails(enrol_revoke(enrol, ROLE_OPERATOR, FEDERATION_ADMIN, now), ERR_STATE, "last operator");
	assert_int_equal(enrol_revoke(enrol, ROLE_OPERATOR, "nobody", now), ERR_NOT_FOUND);
	assert_ok(db_member_put(federation.db, &second));
	assert_ok(registry_reload(federation.registry));
	assert_ok(enrol_revoke(enrol, ROLE_OPERATOR, FEDERATION_ADMIN, now));
	assert_false(registry_is_enrolled(federation.registry, ROLE_OPERATOR, FEDERATION_ADMIN));
}

static void run_sql(const char *statement)
{
	char path[PATH_SIZE];
	struct sql *sql;
	assert_ok(sql_open(path_join(path, federation.dir, "hansa.db"), &sql));
	assert_ok(sql_run(sql, statement));
	sql_close(sql);
}

/* Out is out, also when the disk does not take it; and it can be said again. */
static void a_revocation_that_cannot_be_written_is_in_force(void **state)
{
	(void)state;
	struct member m = {.role = ROLE_PLANT, .name = "bremen", .expires_ms = now + 1000, .key = {{1}}};
	assert_ok(db_member_put(federation.db, &m));
	assert_ok(registry_reload(federation.registry));
	run_sql("CREATE TRIGGER bad BEFORE UPDATE ON member BEGIN SELECT abs(-9223372036854775808); END");
	assert_fails(enrol_revoke(enrol, ROLE_PLANT, "bremen", now), ERR_UNAVAILABLE, "revoke it again");
	assert_false(registry_is_enrolled(federation.registry, ROLE_PLANT, "bremen"));
	assert_ok(registry_reload(federation.registry));
	assert_false(registry_is_enrolled(federation.registry, ROLE_PLANT, "bremen"));
	run_sql("DROP TRIGGER bad");
	assert_ok(enrol_revoke(enrol, ROLE_PLANT, "bremen", now));
	assert_ok(db_member_get(federation.db, ROLE_PLANT, "bremen", &m));
	assert_int_equal(m.state, MEMBER_REVOKED);
}

/* Enrolled on disk, but the roster was not read again: the second request mends it. */
static void a_repeated_enrolment_mends_the_roster(void **state)
{
	(void)state;
	struct joincode code = invite("bremen");
	struct key *key = new_key();
	struct wire_enroll_reply reply;
	assert_ok(redeem_as(&code, key, "bremen", now, &reply));
	wire_enroll_reply_free(&reply);
	registry_close(federation.registry);
	run_sql("UPDATE member SET state = 'revoked' WHERE name = 'bremen'");
	assert_ok(registry_open(federation.db, &federation.registry));
	run_sql("UPDATE member SET state = 'enrolled' WHERE name = 'bremen'");
	assert_false(registry_is_enrolled(federation.registry, ROLE_PLANT, "bremen"));
	assert_ok(redeem_as(&code, key, "bremen", now, &reply));
	wire_enroll_reply_free(&reply);
	assert_true(registry_is_enrolled(federation.registry, ROLE_PLANT, "bremen"));
	key_free(key);
}

static void nobody_enrols_before_the_address_is_known(void **state)
{
	(void)state;
	struct joincode code = invite("bremen");
	struct key *key = new_key();
	struct wire_enroll_reply reply;
	struct enrol *early = enrol_new(&federation);
	struct enrol *known = enrol;
	enrol = early;
	assert_int_equal(redeem_as(&code, key, "bremen", now, &reply), ERR_UNAVAILABLE);
	enrol = known;
	enrol_free(early);
	key_free(key);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_code_becomes_a_certificate, setup, teardown),
		cmocka_unit_test_setup_teardown(a_lost_answer_can_be_asked_for_again, setup, teardown),
		cmocka_unit_test_setup_teardown(every_refusal_says_the_same, setup, teardown),
		cmocka_unit_test_setup_teardown(guessing_is_slowed_down, setup, teardown),
		cmocka_unit_test_setup_teardown(a_newer_code_voids_the_older, setup, teardown),
		cmocka_unit_test_setup_teardown(who_may_be_invited, setup, teardown),
		cmocka_unit_test_setup_teardown(the_last_operator_stays, setup, teardown),
		cmocka_unit_test_setup_teardown(a_revocation_that_cannot_be_written_is_in_force, setup, teardown),
		cmocka_unit_test_setup_teardown(a_repeated_enrolment_mends_the_roster, setup, teardown),
		cmocka_unit_test_setup_teardown(nobody_enrols_before_the_address_is_known, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
