/*
 * Certificates that are parsed once.
 */
#include "rpc/peer_cache.h"

#include "rpc/fixture.h"

#include <pthread.h>

static struct bytes pem_of(const struct fixture_id *id)
{
	return buf_bytes(&id->cert);
}

static void test_found_again(void **state)
{
	(void)state;
	struct peer_cache *c = peer_cache_new();
	struct cert *cert;
	assert_ok(cert_parse(pem_of(&fixture.plant), &cert));
	struct digest key = cert_key_digest(cert);
	for (int i = 0; i < 5; i++) {
		struct peer_facts f, other;
		assert_ok(peer_cache_read(c, pem_of(&fixture.plant), &f));
		assert_ok(peer_cache_read(c, pem_of(&fixture.plant2), &other));
		assert_string_equal(f.id.name, "p1");
		assert_int_equal(f.id.role, ROLE_PLANT);
		assert_string_equal(other.id.name, "p2");
		assert_true(digest_equal(&f.key, &key));
		assert_false(digest_equal(&other.key, &key));
		assert_int_equal(f.not_after_ms, cert_not_after_ms(cert));
		assert_int_equal(peer_cache_parsed(c), 2);
	}
	cert_free(cert);
	peer_cache_free(c);
}

/* A certificate of the same name with another key is another certificate. */
static void test_replaced(void **state)
{
	(void)state;
	struct peer_cache *c = peer_cache_new();
	struct fixture_id again;
	struct peer_facts old, new;
	fixture_id_make(&again, &fixture.ca, ROLE_PLANT, "p1", NULL);
	assert_ok(peer_cache_read(c, pem_of(&fixture.plant), &old));
	assert_ok(peer_cache_read(c, pem_of(&again), &new));
	assert_true(identity_equal(&old.id, &new.id));
	assert_false(digest_equal(&old.key, &new.key));
	fixture_id_free(&again);
	peer_cache_free(c);
}

/* In the cache or not: the present time counts, and the federation. */
static void test_judged_every_time(void **state)
{
	(void)state;
	struct peer_cache *c = peer_cache_new();
	struct fixture_id brief;
	struct peer_facts f;
	int64_t end = (clock_wall_ms() / 1000 + 3600) * 1000;
	fixture_id_make_until(&brief, &fixture.ca, ROLE_PLANT, FEDERATION, "p1", NULL, end);
	for (int i = 0; i < 2; i++) {
		assert_ok(peer_cache_read(c, pem_of(&brief), &f));
		assert_ok(peer_facts_check(&f, FEDERATION, f.not_after_ms - 1));
		assert_err(ERR_UNAUTHENTIC, peer_facts_check(&f, FEDERATION, f.not_after_ms));
		assert_string_equal(err_text(), "your certificate has expired");
		assert_err(ERR_UNAUTHENTIC, peer_facts_check(&f, "zeta", f.not_after_ms - 1));
	}
	assert_int_equal(peer_cache_parsed(c), 1);
	fixture_id_free(&brief);
	peer_cache_free(c);
}

static void test_nonsense(void **state)
{
	(void)state;
	struct peer_cache *c = peer_cache_new();
	struct peer_facts f;
	for (int i = 0; i < 3; i++) {
		assert_err(ERR_MALFORMED, peer_cache_read(c, bytes_str("nonsense"), &f));
		assert_int_not_equal(peer_cache_read(c, buf_bytes(&fixture.ca.pem), &f), ERR_OK); /* no identity */
	}
	assert_int_equal(peer_cache_parsed(c), 6); /* not kept */
	assert_ok(peer_cache_read(c, pem_of(&fixture.plant), &f));
	peer_cache_free(c);
}

/* More certificates than one place has room for: text behind the certificate makes another PEM of it. */
static void test_bounded(void **state)
{
	(void)state;
	enum { MANY = 200 };
	struct peer_cache *c = peer_cache_new();
	struct bytes pem = pem_of(&fixture.plant);
	struct buf b;
	buf_init(&b, pem.n + 100);
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < MANY * 100 && peer_cache_parsed(c) < PEER_CACHE_SIZE + MANY; i++) {
			struct peer_facts f;
			buf_reset(&b);
			assert_ok(buf_append(&b, pem.p, pem.n));
			assert_ok(buf_printf(&b, "%d\n", i));
			assert_ok(peer_cache_read(c, buf_bytes(&b), &f));
			assert_string_equal(f.id.name, "p1");
		}
	}
	assert_true(peer_cache_parsed(c) >= PEER_CACHE_SIZE + MANY);
	buf_deinit(&b);
	peer_cache_free(c);
}

static void *read_main(void *arg)
{
	struct peer_cache *c = arg;
	for (int i = 0; i < 300; i++) {
		struct peer_facts f;
		const struct fixture_id *id = i % 2 == 0 ? &fixture.plant : &fixture.operator;
		if (peer_cache_read(c, pem_of(id), &f) != ERR_OK ||
		    f.id.role != (i % 2 == 0 ? ROLE_PLANT : ROLE_OPERATOR))
			return arg;
	}
	return NULL;
}

static void test_threads(void **state)
{
	(void)state;
	struct peer_cache *c = peer_cache_new();
	pthread_t t[4];
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, read_main, c), 0);
	for (int i = 0; i < 4; i++) {
		void *bad;
		pthread_join(t[i], &bad);
		assert_null(bad);
	}
	assert_in_range(peer_cache_parsed(c), 2, 8);
	peer_cache_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_found_again),       cmocka_unit_test(test_replaced),
		cmocka_unit_test(test_judged_every_time), cmocka_unit_test(test_nonsense),
		cmocka_unit_test(test_bounded),           cmocka_unit_test(test_threads),
	};
	return cmocka_run_group_tests(tests, fixture_begin, fixture_end);
}
