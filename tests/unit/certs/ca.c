#include "certs/ca.h"

#include "crypto/fixture.h"

static const int64_t now = FIXTURE_NOW_MS;
static struct tempdir dir;
static struct ca *ca;
static struct key *subject;

static int setup(void **state)
{
	(void)state;
	tempdir_make(&dir);
	assert_ok(ca_create(dir.path, "example.org", now));
	assert_ok(ca_open(dir.path, &ca));
	assert_ok(key_generate(KEY_P256, &subject));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	ca_close(ca);
	key_free(subject);
	tempdir_remove(&dir);
	return 0;
}

static mode_t mode_of(const char *name)
{
	char path[PATH_SIZE];
	struct stat st;
	assert_int_equal(stat(path_join(path, dir.path, name), &st), 0);
	return st.st_mode & 07777;
}

static void test_create(void **state)
{
	(void)state;
	assert_int_equal(mode_of("ca"), 0700);
	assert_int_equal(mode_of("ca/key.pem"), 0600);
	assert_int_equal(mode_of("ca/cert.pem"), 0644);
	assert_string_equal(ca_federation(ca), "example.org");
	assert_int_equal(cert_not_before_ms(ca_cert(ca)), now - DAY_MS);
	assert_int_equal(cert_not_after_ms(ca_cert(ca)), now + 3650 * DAY_MS);
	assert_ok(cert_verify(ca_cert(ca), ca_cert(ca), now));
	/* A second one would orphan every certificate of the first. */
	assert_err(ERR_STATE, ca_create(dir.path, "example.org", now));
	assert_err(ERR_STATE, ca_create(dir.path, "other.org", now));
	char elsewhere[PATH_SIZE];
	path_join(elsewhere, dir.path, "elsewhere");
	assert_err(ERR_MALFORMED, ca_create(elsewhere, "Not A Name", now));
	assert_false(file_exists(elsewhere));
	struct ca *none = NULL;
	assert_err(ERR_NOT_FOUND, ca_open(elsewhere, &none));
	assert_null(none);
	ca_close(NULL);
}

static void test_lifetimes(void **state)
{
	(void)state;
	static const struct {
		enum role role;
		const char *name;
		int days;
	} cases[] = {
		{ROLE_PLANT, "a", 90}, {ROLE_OPERATOR, "a", 365},     {ROLE_AUDITOR, "a", 365},
		{ROLE_LAB, "a", 365},  {ROLE_COORDINATOR, NULL, 365},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct identity id = identity_of(cases[i].role, "example.org", cases[i].name), got;
		struct cert *c = NULL;
		assert_ok(ca_issue(ca, subject, &id, NULL, now, &c));
		assert_int_equal(cert_not_before_ms(c), now - DAY_MS);
		assert_int_equal(cert_not_after_ms(c), now + cases[i].days * DAY_MS);
		assert_ok(cert_verify(c, ca_cert(ca), now));
		/* A plant whose clock is 23 hours slow takes it as well. */
		assert_ok(cert_verify(c, ca_cert(ca), now - 23 * 3600 * INT64_C(1000)));
		assert_ok(cert_identity(c, &got));
		assert_true(identity_equal(&id, &got));
		cert_free(c);
	}
	/* Near the end of the CA a leaf ends with it. */
	struct identity id = identity_of(ROLE_PLANT, "example.org", "a");
	struct cert *c = NULL;
	assert_ok(ca_issue(ca, subject, &id, NULL, now + 3600 * DAY_MS, &c));
	assert_int_equal(cert_not_after_ms(c), cert_not_after_ms(ca_cert(ca)));
	cert_free(c);
}

static void test_issue_refuses(void **state)
{
	(void)state;
	struct identity id = identity_of(ROLE_PLANT, "example.org", "a"),
			foreign = identity_of(ROLE_PLANT, "other.org", "a"), nobody = id;
	struct cert *c = NULL;
	nobody.role = ROLE_NOBODY;
	assert_err(ERR_DENIED, ca_issue(ca, subject, &foreign, NULL, now, &c));
	assert_err(ERR_DENIED, ca_issue(ca, subject, &nobody, NULL, now, &c));
	assert_err(ERR_STATE, ca_issue(ca, subject, &id, NULL, now - 2 * DAY_MS, &c));
	assert_err(ERR_STATE, ca_issue(ca, subject, &id, NULL, now + 3650 * DAY_MS, &c));
	assert_err(ERR_STATE, ca_issue(ca, subject, &id, NULL, now + 9999 * DAY_MS, &c));
	static const char *const hosts[] = {"not a host", NULL};
	assert_err(ERR_MALFORMED, ca_issue(ca, subject, &id, hosts, now, &c));
	assert_null(c);
}

static void test_sign_request(void **state)
{
	(void)state;
	struct identity id = identity_of(ROLE_PLANT, "example.org", "a"),
			other = identity_of(ROLE_PLANT, "example.org", "b"),
			operator= identity_of(ROLE_OPERATOR, "example.org", "a"),
			foreign = identity_of(ROLE_PLANT, "other.org", "a"), got;
	struct buf csr, foreign_csr;
	struct cert *c = NULL, *none = NULL;
	assert_ok(csr_make(subject, &id, &csr));
	assert_ok(ca_sign_request(ca, buf_bytes(&csr), &id, now, &c));
	assert_ok(cert_identity(c, &got));
	assert_true(identity_equal(&id, &got));
	assert_ok(cert_verify(c, ca_cert(ca), now));
	struct digest a = cert_key_digest(c), b = key_public_digest(subject);
	assert_true(digest_equal(&a, &b));

	assert_err(ERR_DENIED, ca_sign_request(ca, buf_bytes(&csr), &other, now, &none));
	assert_err(ERR_DENIED, ca_sign_request(ca, buf_bytes(&csr), &operator, now, &none));
	assert_ok(csr_make(subject, &foreign, &foreign_csr));
	assert_err(ERR_DENIED, ca_sign_request(ca, buf_bytes(&foreign_csr), &foreign, now, &none));
	assert_err(ERR_DENIED, ca_sign_request(ca, buf_bytes(&foreign_csr), &id, now, &none));
	assert_err(ERR_MALFORMED, ca_sign_request(ca, bytes_str("no request"), &id, now, &none));
	assert_err(ERR_MALFORMED, ca_sign_request(ca, bytes_of(csr.p, csr.n / 2), &id, now, &none));
	assert_err(ERR_STATE, ca_sign_request(ca, buf_bytes(&csr), &id, now + 9999 * DAY_MS, &none));
	assert_null(none);
	buf_deinit(&csr);
	buf_deinit(&foreign_csr);
	cert_free(c);
}

static void write_pem(const char *path, const struct cert *c)
{
	struct buf pem;
	assert_ok(cert_pem(c, &pem));
	assert_ok(file_replace(path, buf_bytes(&pem), 0644));
	buf_deinit(&pem);
}

static void test_open_refuses(void **state)
{
	(void)state;
	struct tempdir d;
	char key_path[PATH_SIZE], cert_path[PATH_SIZE];
	struct ca *opened = NULL;
	struct key *other = NULL;
	struct cert *leaf = NULL;
	struct identity id = identity_of(ROLE_PLANT, "example.org", "a");
	tempdir_make(&d);
	path_join(key_path, d.path, "ca/key.pem");
	path_join(cert_path, d.path, "ca/cert.pem");
	assert_ok(ca_create(d.path, "example.org", now));
	assert_int_equal(chmod(key_path, 0640), 0);
	assert_err(ERR_DENIED, ca_open(d.path, &opened));
	assert_int_equal(chmod(key_path, 0600), 0);
	assert_ok(ca_open(d.path, &opened));
	ca_close(opened);
	opened = NULL;
	/* Another key; no key; a certificate that is none of a CA; nonsense. */
	assert_ok(key_generate(KEY_P256, &other));
	assert_ok(key_save(other, key_path));
	assert_err(ERR_CORRUPT, ca_open(d.path, &opened));
	assert_ok(file_remove(key_path));
	assert_err(ERR_NOT_FOUND, ca_open(d.path, &opened));
	assert_ok(key_save(subject, key_path));
	assert_ok(ca_issue(ca, subject, &id, NULL, now, &leaf));
	write_pem(cert_path, leaf);
	assert_err(ERR_CORRUPT, ca_open(d.path, &opened));
	assert_ok(file_replace(cert_path, bytes_str("nonsense"), 0644));
	assert_err(ERR_MALFORMED, ca_open(d.path, &opened));
	assert_null(opened);
	cert_free(leaf);
	key_free(other);
	tempdir_remove(&d);
}

struct fault {
	size_t countdown; /* operations that still succeed */
	bool hit;
};

static enum err fail_nth(void *arg, enum file_op op, const char *path, size_t n, size_t *ret_short)
{
	struct fault *f = arg;
	(void)op;
	(void)n;
	(void)ret_short;
	if (f->countdown-- > 0)
		return ERR_OK;
	f->countdown = 0; /* the disk stays broken */
	f->hit = true;
	return err_set(ERR_IO, "%s: injected", path);
}

/* Whatever write fails while a CA is made: there is none, or a whole one; and trying again makes it whole. */
static void test_create_faults(void **state)
{
	(void)state;
	size_t steps = 0;
	for (bool done = false; !done; steps++) {
		struct tempdir d;
		struct fault f = {.countdown = steps};
		struct ca *opened = NULL;
		tempdir_make(&d);
		file_set_hook(fail_nth, &f);
		enum err e = ca_create(d.path, "example.org", now);
		file_set_hook(NULL, NULL);
		done = !f.hit;
		assert_err(f.hit ? ERR_IO : ERR_OK, e);
		e = ca_open(d.path, &opened);
		if (e != ERR_OK) {
			assert_err(ERR_NOT_FOUND, e);
			assert_ok(ca_create(d.path, "example.org", now));
			assert_ok(ca_open(d.path, &opened));
		}
		ca_close(opened);
		tempdir_remove(&d);
	}
	assert_true(steps > 6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_create),        cmocka_unit_test(test_lifetimes),
		cmocka_unit_test(test_issue_refuses), cmocka_unit_test(test_sign_request),
		cmocka_unit_test(test_open_refuses),  cmocka_unit_test(test_create_faults),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
