#include "certs/credential.h"

#include "certs/ca.h"
#include "crypto/fixture.h"

static const int64_t now = FIXTURE_NOW_MS;
static struct tempdir dir; /* of the CA */
static struct ca *ca;
static struct buf ca_pem;

static int setup(void **state)
{
	(void)state;
	tempdir_make(&dir);
	assert_ok(ca_create(dir.path, "example.org", now));
	assert_ok(ca_open(dir.path, &ca));
	assert_ok(cert_pem(ca_cert(ca), &ca_pem));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	buf_deinit(&ca_pem);
	ca_close(ca);
	tempdir_remove(&dir);
	return 0;
}

/* What a plant has after enrolment, and the place it is kept in. */
struct plant {
	struct tempdir dir;
	char home[PATH_SIZE];
	struct key *key;
	struct cert *cert;
};

static void issue(struct plant *p, enum role role, const char *name)
{
	struct identity id = identity_of(role, "example.org", name);
	assert_ok(key_generate(KEY_P256, &p->key));
	assert_ok(ca_issue(ca, p->key, &id, NULL, now, &p->cert));
}

static void plant_make(struct plant *p)
{
	tempdir_make(&p->dir);
	path_join(p->home, p->dir.path, "a/home"); /* missing folders are made */
	issue(p, ROLE_PLANT, "plant-1");
	assert_ok(credential_save(p->home, p->key, p->cert, buf_bytes(&ca_pem), "hansa.example.org:8443"));
}

static void plant_free(struct plant *p)
{
	key_free(p->key);
	cert_free(p->cert);
	tempdir_remove(&p->dir);
}

static void write_file(const struct plant *p, const char *name, const char *text)
{
	char path[PATH_SIZE];
	assert_ok(file_replace(path_join(path, p->home, name), bytes_str(text), 0644));
}

static void assert_load(const struct plant *p, int64_t at_ms, enum err want)
{
	struct credential c, before;
	memset(&c, 0x5a, sizeof c);
	before = c;
	enum err e = credential_load(p->home, at_ms, &c);
	if (e != want)
		fail_msg("%s instead of %s: %s", err_name(e), err_name(want), err_text());
	if (e == ERR_OK)
		credential_free(&c);
	else
		assert_memory_equal(&c, &before, sizeof c);
}

static void test_round_trip(void **state)
{
	(void)state;
	static const struct {
		const char *name;
		mode_t mode;
	} files[] = {{".", 0700}, {"key.pem", 0600}, {"cert.pem", 0644}, {"ca.pem", 0644}, {"peer.yaml", 0644}};
	struct plant p;
	struct credential c;
	char path[PATH_SIZE];
	struct stat st;
	plant_make(&p);
	for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
		assert_int_equal(stat(path_join(path, p.home, files[i].name), &st), 0);
		assert_int_equal(st.st_mode & 07777, files[i].mode);
	}
	assert_ok(credential_load(p.home, now, &c));
	assert_int_equal(c.id.role, ROLE_PLANT);
	assert_string_equal(c.id.name, "plant-1");
	assert_string_equal(c.address, "hansa.example.org:8443");
	assert_string_equal(c.dir, p.home);
	assert_string_equal(buf_str(&c.ca_pem), buf_str(&ca_pem));
	struct digest a = cert_fingerprint(c.cert), b = cert_fingerprint(p.cert);
	assert_true(digest_equal(&a, &b));
	struct key *from_pem = NULL;
	struct cert *cert_from_pem = NULL;
	assert_ok(key_parse(buf_bytes(&c.key_pem), &from_pem));
	assert_ok(cert_parse(buf_bytes(&c.cert_pem), &cert_from_pem));
	a = key_public_digest(from_pem);
	b = cert_key_digest(cert_from_pem);
	assert_true(digest_equal(&a, &b));
	key_free(from_pem);
	cert_free(cert_from_pem);
	credential_free(&c);
	credential_free(&c); /* harmless */
	plant_free(&p);
}

static void test_coordinator(void **state)
{
	(void)state;
	struct plant p;
	struct credential c;
	tempdir_make(&p.dir);
	path_join(p.home, p.dir.path, "server");
	issue(&p, ROLE_COORDINATOR, NULL);
	assert_ok(credential_save(p.home, p.key, p.cert, buf_bytes(&ca_pem), NULL));
	assert_ok(credential_load(p.home, now, &c));
	assert_int_equal(c.id.role, ROLE_COORDINATOR);
	assert_null(c.address);
	credential_free(&c);
	plant_free(&p);
}

static void test_set_address(void **state)
{
	(void)state;
	struct plant p;
	struct credential c;
	plant_make(&p);
	assert_ok(credential_set_address(p.home, "[2001:db8::1]:9"));
	assert_ok(credential_load(p.home, now, &c));
	assert_string_equal(c.address, "[2001:db8::1]:9");
	credential_free(&c);
	assert_err(ERR_MALFORMED, credential_set_address(p.home, "no port"));
	assert_err(ERR_MALFORMED, credential_set_address(p.home, "evil\"\nidentity: \"x:1"));
	assert_ok(credential_load(p.home, now, &c));
	assert_string_equal(c.address, "[2001:db8::1]:9");
	credential_free(&c);
	assert_err(ERR_NOT_FOUND, credential_set_address(p.dir.path, "a:1"));
	plant_free(&p);
}

static void test_times(void **state)
{
	(void)state;
	struct plant p;
	plant_make(&p);
	assert_load(&p, now - DAY_MS, ERR_OK);
	assert_load(&p, now - DAY_MS - 1000, ERR_UNAUTHENTIC);
	assert_load(&p, now + 90 * DAY_MS - 1000, ERR_OK);
	assert_load(&p, now + 90 * DAY_MS, ERR_UNAUTHENTIC);
	assert_non_null(strstr(err_text(), "expired on 2026-12-20T14:13:20"));
	assert_non_null(strstr(err_text(), "enrol again"));
	plant_free(&p);
}

static void test_key_problems(void **state)
{
	(void)state;
	struct plant p;
	char path[PATH_SIZE];
	struct key *other = NULL;
	plant_make(&p);
	path_join(path, p.home, "key.pem");
	assert_int_equal(chmod(path, 0644), 0);
	assert_load(&p, now, ERR_DENIED);
	assert_int_equal(chmod(path, 0600), 0);
	assert_load(&p, now, ERR_OK);
	assert_ok(key_generate(KEY_P256, &other));
	assert_ok(key_save(other, path));
	assert_load(&p, now, ERR_CORRUPT);
	assert_ok(file_replace(path, bytes_str("nonsense"), 0600));
	assert_load(&p, now, ERR_MALFORMED);
	assert_ok(file_remove(path));
	assert_load(&p, now, ERR_NOT_FOUND);
	key_free(other);
	plant_free(&p);
}

static void test_cert_problems(void **state)
{
	(void)state;
	struct plant p;
	struct authority stranger;
	struct buf pem;
	char path[PATH_SIZE];
	plant_make(&p);
	/* A CA of the same name that did not sign this. */
	authority_make(&stranger, "example.org", now);
	assert_ok(cert_pem(stranger.cert, &pem));
	write_file(&p, "ca.pem", buf_str(&pem));
	assert_load(&p, now, ERR_UNAUTHENTIC);
	write_file(&p, "ca.pem", "nonsense");
	assert_load(&p, now, ERR_MALFORMED);
	write_file(&p, "ca.pem", buf_str(&ca_pem));
	assert_load(&p, now, ERR_OK);
	write_file(&p, "cert.pem", "nonsense");
	assert_load(&p, now, ERR_CORRUPT);
	write_file(&p, "cert.pem", buf_str(&ca_pem)); /* a certificate, but nobody's */
	assert_load(&p, now, ERR_UNAUTHENTIC);
	assert_ok(file_remove(path_join(path, p.home, "cert.pem")));
	assert_load(&p, now, ERR_NOT_FOUND);
	assert_non_null(strstr(err_text(), "hansa enroll"));
	buf_deinit(&pem);
	authority_free(&stranger);
	plant_free(&p);
}

static void test_peer_problems(void **state)
{
	(void)state;
	struct plant p;
	plant_make(&p);
	write_file(&p, "peer.yaml", "identity: \"spiffe://example.org/plant/plant-2\"\n");
	assert_load(&p, now, ERR_CORRUPT);
	write_file(&p, "peer.yaml",
		   "address: \"hansa.example.org\"\nidentity: \"spiffe://example.org/plant/plant-1\"\n");
	assert_load(&p, now, ERR_CONFIG);
	write_file(&p, "peer.yaml", "address: \"hansa.example.org:8443\"\n");
	assert_load(&p, now, ERR_CONFIG);
	write_file(&p, "peer.yaml", "identity: \"spiffe://example.org/plant/plant-1\"\nsecret: 1\n");
	assert_load(&p, now, ERR_CONFIG);
	write_file(
		&p, "peer.yaml",
		"address: 10.0.0.1:8443\nidentity: spiffe://example.org/plant/plant-1\n"); /* by hand, without quotes */
	assert_load(&p, now, ERR_OK);
	plant_free(&p);
}

static void test_save_refuses(void **state)
{
	(void)state;
	struct plant p;
	struct key *other = NULL;
	plant_make(&p);
	assert_ok(key_generate(KEY_P256, &other));
	assert_err(ERR_UNAUTHENTIC, credential_save(p.home, other, p.cert, buf_bytes(&ca_pem), "a:1"));
	assert_err(ERR_MALFORMED, credential_save(p.home, p.key, p.cert, buf_bytes(&ca_pem), "a"));
	assert_load(&p, now, ERR_OK);
	key_free(other);
	plant_free(&p);
}

struct fault {
	size_t countdown;
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

/*
 * Whatever write fails while a credential is saved: the directory holds none, or a whole one. When only the certificate
 * is renewed (same key) it always holds a whole one.
 */
static void sweep(bool same_key)
{
	size_t steps = 0;
	for (bool done = false; !done; steps++) {
		struct plant p, next;
		struct credential c;
		struct fault f = {.countdown = steps};
		struct identity id = identity_of(ROLE_PLANT, "example.org", "plant-1");
		plant_make(&p);
		issue(&next, ROLE_PLANT, "plant-1");
		if (same_key) {
			cert_free(next.cert);
			assert_ok(ca_issue(ca, p.key, &id, NULL, now, &next.cert));
		}
		const struct key *key = same_key ? p.key : next.key;
		file_set_hook(fail_nth, &f);
		enum err e = credential_save(p.home, key, next.cert, buf_bytes(&ca_pem), "new.example.org:8443");
		file_set_hook(NULL, NULL);
		done = !f.hit;
		assert_err(f.hit ? ERR_IO : ERR_OK, e);
		e = credential_load(p.home, now, &c);
		if (e == ERR_OK)
			credential_free(&c);
		else
			assert_true(e == ERR_NOT_FOUND && !same_key);
		assert_ok(credential_save(p.home, key, next.cert, buf_bytes(&ca_pem), "new.example.org:8443"));
		assert_load(&p, now, ERR_OK);
		key_free(next.key);
		cert_free(next.cert);
		plant_free(&p);
	}
	assert_true(steps > 8);
}

static void test_save_faults(void **state)
{
	(void)state;
	sweep(false);
	sweep(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),    cmocka_unit_test(test_coordinator),
		cmocka_unit_test(test_set_address),   cmocka_unit_test(test_times),
		cmocka_unit_test(test_key_problems),  cmocka_unit_test(test_cert_problems),
		cmocka_unit_test(test_peer_problems), cmocka_unit_test(test_save_refuses),
		cmocka_unit_test(test_save_faults),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
