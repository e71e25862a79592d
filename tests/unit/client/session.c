/*
 * Transfers over a line that breaks: what arrives, and that little is sent twice.
 */
#include "coordinator.h"

#include "base/log.h"
#include "base/rng.h"
#include "client/received.h"
#include "client/session_parts.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

enum { SIZE = (3 << 20) + 12345 };

static char dir[PATH_SIZE];
static struct coordinator coordinator;
static struct credential cred;
static char address[64];
static struct session *session;

static struct buf noise(uint64_t seed, size_t n)
{
	struct buf b;
	struct rng r;
	buf_init(&b, CONTENT_MAX);
	rng_seed(&r, seed);
	for (size_t i = 0; i < n; i += 8) {
		uint64_t v = rng_below(&r, UINT64_MAX);
		assert_ok(buf_append(&b, &v, n - i < 8 ? n - i : 8));
	}
	return b;
}

/* `n` cuts, each `span` bytes at most after the one before. */
static void cut(struct cuts *c, uint64_t seed, size_t n, size_t span)
{
	struct rng r;
	rng_seed(&r, seed);
	*c = (struct cuts){.n = n};
	for (size_t i = 0; i < n; i++)
		c->after[i] = (size_t)rng_below(&r, span);
}

static enum err upload(const struct buf *content)
{
	struct buf reply = {0};
	struct wire_head head = {.size = content->n, .digest = digest_of(buf_bytes(content)), .has_update = true};
	head.update = (struct wire_update_head){.job = 1, .round = 2, .base = head.digest, .manifest = head.digest};
	enum err err = session_upload(session, METHOD_UPLOAD_UPDATE, &head, buf_bytes(content), &reply);
	buf_deinit(&reply);
	return err;
}

static void assert_uploaded(const struct buf *content)
{
	assert_int_equal(coordinator.n_uploads, 1);
	assert_int_equal(coordinator.uploads[0].n, content->n);
	assert_memory_equal(coordinator.uploads[0].p, content->p, content->n);
}

static enum err fetch(const struct buf *content, char path[PATH_SIZE])
{
	struct digest d = digest_of(buf_bytes(content));
	return session_fetch(session, &d, content->n, received_path(dir, &d, path));
}

static void assert_fetched(const struct buf *content, const char *path)
{
	struct buf got;
	assert_ok(file_read(path, CONTENT_MAX, &got));
	assert_int_equal(got.n, content->n);
	assert_memory_equal(got.p, content->p, content->n);
	buf_deinit(&got);
	char *part = mem_printf("%s%s", path, SESSION_PART_SUFFIX);
	assert_false(file_exists(part));
	free(part);
}

static void put_part(const char *path, const void *p, size_t n)
{
	char *part = mem_printf("%s%s", path, SESSION_PART_SUFFIX);
	struct bytes content = bytes_of(p, n);
	assert_ok(file_replace(part, content, 0600));
	free(part);
}

/* ---- up ---- */

static void a_cut_upload_goes_on_where_the_coordinator_is(void **state)
{
	(void)state;
	struct buf content = noise(1, SIZE);
	cut(&coordinator.cut_uploads, 3, 6, SIZE / 6);
	assert_ok(upload(&content));
	assert_uploaded(&content);
	assert_int_equal(coordinator.cut_uploads.next, 6);
	assert_int_equal(coordinator.n_offsets, 7); /* it is large: before the first try, too */
	assert_int_equal(coordinator.bytes_in, content.n);
	buf_deinit(&content);
}

static void what_an_earlier_run_has_sent_is_not_sent_again(void **state)
{
	(void)state;
	struct buf content = noise(1, SIZE);
	buf_init(&coordinator.part, CONTENT_MAX);
	assert_ok(buf_append(&coordinator.part, content.p, SIZE - 10));
	coordinator.part_digest = digest_of(buf_bytes(&content));
	assert_ok(upload(&content));
	assert_uploaded(&content);
	assert_int_equal(coordinator.bytes_in, 10);
	/* All of it, but for the end. */
	buf_deinit(&coordinator.uploads[0]);
	coordinator.n_uploads = 0;
	buf_init(&coordinator.part, CONTENT_MAX);
	assert_ok(buf_append(&coordinator.part, content.p, SIZE));
	assert_ok(upload(&content));
	assert_uploaded(&content);
	assert_int_equal(coordinator.heads[0].offset, SIZE);
	assert_int_equal(coordinator.bytes_in, 10);
	buf_deinit(&content);
}

static void a_small_update_costs_no_question(void **state)
{
	(void)state;
	struct buf content = noise(1, 1000);
	assert_ok(upload(&content));
	assert_uploaded(&content);
	assert_int_equal(coordinator.n_offsets, 0);
	buf_deinit(&content);
}

static void wrong_bytes_at_the_coordinator_are_sent_again(void **state)
{
	(void)state;
	struct buf content = noise(1, SIZE), other = noise(2, SIZE);
	buf_init(&coordinator.part, CONTENT_MAX);
	assert_ok(buf_append(&coordinator.part, other.p, SIZE / 2));
	coordinator.part_digest = digest_of(buf_bytes(&content));
	assert_ok(upload(&content));
	assert_uploaded(&content);
	assert_int_equal(coordinator.heads[0].offset, 0);
	assert_int_equal(coordinator.bytes_in, SIZE - SIZE / 2 + SIZE);
	buf_deinit(&content);
	buf_deinit(&other);
}

static void an_update_that_is_refused_as_a_whole_is_not_sent_for_ever(void **state)
{
	(void)state;
	struct buf content = noise(1, SIZE);
	buf_init(&coordinator.part, CONTENT_MAX);
	assert_ok(buf_append(&coordinator.part, content.p, 4096));
	coordinator.part_digest = digest_of(buf_bytes(&content));
	coordinator.refuse_upload = ERR_NUMERIC;
	assert_err(ERR_NUMERIC, upload(&content));
	assert_int_equal(coordinator.n_uploads, 2); /* gone on, and once more from the beginning */
	assert_int_equal(coordinator.heads[1].offset, 0);
	buf_deinit(&content);
}

static void a_coordinator_that_cannot_say_or_lies_gets_everything(void **state)
{
	(void)state;
	struct buf content = noise(1, SIZE);
	coordinator.fail[METHOD_UPLOAD_OFFSET] = ERR_NOT_FOUND;
	cut(&coordinator.cut_uploads, 1, 1, SIZE);
	coordinator.cut_uploads.after[0] = SIZE / 2;
	assert_ok(upload(&content));
	assert_uploaded(&content);
	assert_int_equal(coordinator.bytes_in, SIZE);
	buf_deinit(&coordinator.uploads[0]);
	coordinator.n_uploads = 0;
	coordinator.offset_lie = (uint64_t)1 << 40;
	assert_ok(upload(&content));
	assert_uploaded(&content);
	buf_deinit(&coordinator.uploads[0]);
	coordinator.n_uploads = 0;
	coordinator.offset_lie = 4097; /* more than there is */
	assert_ok(upload(&content));
	assert_uploaded(&content);
	assert_int_equal(coordinator.heads[0].offset, 0);
	buf_deinit(&content);
}

/* ---- down ---- */

static void a_cut_download_goes_on(void **state)
{
	(void)state;
	char path[PATH_SIZE];
	coordinator.source = noise(5, SIZE);
	cut(&coordinator.cut_fetches, 7, 6, SIZE / 6);
	assert_ok(fetch(&coordinator.source, path));
	assert_fetched(&coordinator.source, path);
	assert_int_equal(coordinator.n_fetches, 7);
	assert_int_equal(coordinator.bytes_out, SIZE);
}

static void a_part_of_an_earlier_run_is_gone_on_with(void **state)
{
	(void)state;
	char path[PATH_SIZE];
	coordinator.source = noise(5, SIZE);
	struct digest d = digest_of(buf_bytes(&coordinator.source));
	put_part(received_path(dir, &d, path), coordinator.source.p, SIZE - 3);
	assert_ok(fetch(&coordinator.source, path));
	assert_fetched(&coordinator.source, path);
	assert_int_equal(coordinator.last_fetch_offset, SIZE - 3);
	assert_int_equal(coordinator.bytes_out, 3);
	/* Whole, only not called so: nothing is asked for. */
	assert_ok(file_remove(path));
	put_part(path, coordinator.source.p, SIZE);
	assert_ok(fetch(&coordinator.source, path));
	assert_fetched(&coordinator.source, path);
	assert_int_equal(coordinator.n_fetches, 1);
}

static void a_wrong_part_is_thrown_away(void **state)
{
	(void)state;
	char path[PATH_SIZE];
	coordinator.source = noise(5, SIZE);
	struct buf wrong = noise(6, SIZE + 100);
	struct digest d = digest_of(buf_bytes(&coordinator.source));
	static const size_t sizes[] = {0, 1, SIZE / 2, SIZE, SIZE + 100};
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		put_part(received_path(dir, &d, path), wrong.p, sizes[i]);
		assert_ok(fetch(&coordinator.source, path));
		assert_fetched(&coordinator.source, path);
		assert_int_equal(coordinator.last_fetch_offset, 0);
		assert_ok(file_remove(path));
	}
	buf_deinit(&wrong);
}

static void a_model_that_is_wrong_twice_is_given_up(void **state)
{
	(void)state;
	char path[PATH_SIZE], part[PATH_SIZE + 8];
	coordinator.source = noise(5, SIZE);
	coordinator.model_damaged = true;
	assert_err(ERR_CORRUPT, fetch(&coordinator.source, path));
	assert_int_equal(coordinator.n_fetches, 2);
	assert_false(file_exists(path));
	snprintf(part, sizeof part, "%s%s", path, SESSION_PART_SUFFIX);
	assert_false(file_exists(part));
	coordinator.model_damaged = false;
	assert_ok(fetch(&coordinator.source, path));
	assert_fetched(&coordinator.source, path);
}

/* Every durable operation of a fetch fails once: the plant says so, nothing wrong is kept, and the next run gets it. */
struct nth {
	size_t left;
	bool hit;
};

static enum err fail_nth(void *arg, enum file_op op, const char *path, size_t n, size_t *ret_short)
{
	struct nth *nth = arg;
	(void)path;
	if (nth->left-- != 0)
		return ERR_OK;
	nth->hit = true;
	if (op == FILE_OP_WRITE)
		*ret_short = n / 2;
	return err_set(ERR_IO, "no space left on device");
}

static void a_disk_that_fails_anywhere_loses_nothing(void **state)
{
	(void)state;
	char path[PATH_SIZE];
	coordinator.source = noise(5, 200000);
	for (size_t i = 0;; i++) {
		struct nth nth = {.left = i};
		cut(&coordinator.cut_fetches, i, 0, 1);
		file_set_hook(fail_nth, &nth);
		enum err err = fetch(&coordinator.source, path);
		file_set_hook(NULL, NULL);
		if (!nth.hit) {
			assert_ok(err);
			assert_true(i > 3);
			break;
		}
		assert_err(ERR_IO, err);
		assert_ok(fetch(&coordinator.source, path));
		assert_fetched(&coordinator.source, path);
		assert_ok(file_remove(path));
	}
}

static void only_wanted_models_and_parts_are_kept(void **state)
{
	(void)state;
	char path[PATH_SIZE];
	struct buf a = noise(1, 100), b = noise(2, 100), c = noise(3, 100);
	struct digest da = digest_of(buf_bytes(&a)), db = digest_of(buf_bytes(&b)), dc = digest_of(buf_bytes(&c));
	assert_err(ERR_CORRUPT, received_put(dir, &da, buf_bytes(&b)));
	assert_false(file_exists(received_path(dir, &da, path)));
	assert_ok(received_put(dir, &da, buf_bytes(&a)));
	assert_ok(received_put(dir, &da, buf_bytes(&a)));
	assert_ok(received_get(dir, session, &da, a.n, NULL)); /* as if it had been fetched */
	assert_int_equal(coordinator.n_fetches, 0);
	put_part(received_path(dir, &db, path), b.p, 50);
	put_part(received_path(dir, &dc, path), c.p, 50);
	assert_ok(received_put(dir, &dc, buf_bytes(&c)));
	struct received_needs needs = {.n = 0};
	received_need(&needs, 1, &da, &db);
	assert_ok(received_keep(dir, &needs));
	assert_true(file_exists(received_path(dir, &da, path)));
	assert_false(file_exists(received_path(dir, &dc, path)));
	char *part = mem_printf("%s%s", path, SESSION_PART_SUFFIX);
	assert_false(file_exists(part));
	free(part);
	part = mem_printf("%s%s", received_path(dir, &db, path), SESSION_PART_SUFFIX);
	assert_true(file_exists(part));
	free(part);
	buf_deinit(&a);
	buf_deinit(&b);
	buf_deinit(&c);
}

static void what_jobs_need_is_remembered_for_the_last_few(void **state)
{
	(void)state;
	struct received_needs needs = {.n = 0};
	struct digest d[2 * RECEIVED_JOBS_MAX + 3];
	for (size_t i = 0; i < sizeof d / sizeof *d; i++)
		d[i] = digest_of(bytes_of(&i, sizeof i));
	for (size_t job = 1; job <= RECEIVED_JOBS_MAX; job++)
		received_need(&needs, job, &d[2 * job - 2], &d[2 * job - 1]);
	received_need(&needs, 1, &d[0], &d[2 * RECEIVED_JOBS_MAX]); /* the next round of the first */
	assert_int_equal(needs.n, RECEIVED_JOBS_MAX);
	received_need(&needs, 9, &d[2 * RECEIVED_JOBS_MAX + 1], &d[2 * RECEIVED_JOBS_MAX + 2]);
	assert_int_equal(needs.n, RECEIVED_JOBS_MAX);
	for (size_t i = 0; i < sizeof d / sizeof *d; i++) {
		struct buf text;
		char path[PATH_SIZE];
		buf_init(&text, 64);
		assert_ok(file_replace(received_path(dir, &d[i], path), buf_bytes(&text), 0600));
	}
	assert_ok(received_keep(dir, &needs));
	for (size_t i = 0; i < sizeof d / sizeof *d; i++) {
		char path[PATH_SIZE];
		bool gone = i == 1 /* an older round's base */ || i == 2 || i == 3; /* job 2, met longest ago */
		assert_int_equal(file_exists(received_path(dir, &d[i], path)), !gone);
	}
	received_done(&needs, 9);
	received_done(&needs, 9);
	assert_int_equal(needs.n, RECEIVED_JOBS_MAX - 1);
	assert_ok(received_keep(dir, &needs));
	char path[PATH_SIZE];
	assert_false(file_exists(received_path(dir, &d[2 * RECEIVED_JOBS_MAX + 1], path)));
	assert_true(file_exists(received_path(dir, &d[2 * RECEIVED_JOBS_MAX], path)));
}

/* What `work` says on stderr. */
static void listen_to(void (*work)(void), char *said, size_t size)
{
	char path[PATH_SIZE];
	struct buf text;
	fflush(stderr);
	int was = dup(2), to = open(path_join(path, dir, "said"), O_CREAT | O_WRONLY | O_TRUNC, 0600);
	assert_true(was >= 0 && to >= 0 && dup2(to, 2) == 2);
	log_set_level(LOG_LEVEL_WARN);
	work();
	log_set_level(LOG_LEVEL_ERROR);
	fflush(stderr);
	assert_true(dup2(was, 2) == 2);
	close(was);
	close(to);
	assert_ok(file_read(path, size - 1, &text));
	memcpy(said, text.p, text.n);
	said[text.n] = '\0';
	buf_deinit(&text);
}

static void hear_grpc(void)
{
	assert_ok(session_recover(session, err_set(ERR_UNAVAILABLE, "%s: Connection reset by peer", address)));
}

static void hear_coordinator(void)
{
	assert_ok(session_recover(session, err_set(ERR_UNAVAILABLE, "the spool is full")));
}

/* Whoever has spoken: the coordinator, or gRPC in its place, which gives the address itself. */
static void the_coordinator_is_named_once(void **state)
{
	(void)state;
	void (*const hear[])(void) = {hear_grpc, hear_coordinator};
	static const char *const texts[] = {"Connection reset by peer", "the spool is full"};
	for (size_t i = 0; i < 2; i++) {
		char said[1024], expected[160], *once;
		snprintf(expected, sizeof expected, " %s: %s; trying again in ", address, texts[i]);
		listen_to(hear[i], said, sizeof said);
		assert_non_null(strstr(said, expected));
		assert_non_null(once = strstr(said, address));
		assert_null(strstr(once + 1, address));
	}
}

static int fresh(void **state)
{
	(void)state;
	temp_make(dir);
	coordinator_start(&coordinator);
	snprintf(address, sizeof address, "127.0.0.1:%d", rpc_server_port(coordinator.server));
	cred = (struct credential){.key_pem = fixture.plant.key, /* borrowed */
				   .cert_pem = fixture.plant.cert,
				   .ca_pem = fixture.ca.pem,
				   .address = address};
	assert_ok(identity_make(ROLE_PLANT, FEDERATION, "p1", &cred.id));
	assert_ok(session_open(&cred, &session));
	return 0;
}

static int clean(void **state)
{
	(void)state;
	session_close(session);
	coordinator_stop(&coordinator);
	temp_remove(dir);
	return 0;
}

#define SCENARIO(name) cmocka_unit_test_setup_teardown(name, fresh, clean)

int main(void)
{
	const struct CMUnitTest tests[] = {
		SCENARIO(a_cut_upload_goes_on_where_the_coordinator_is),
		SCENARIO(what_an_earlier_run_has_sent_is_not_sent_again),
		SCENARIO(a_small_update_costs_no_question),
		SCENARIO(wrong_bytes_at_the_coordinator_are_sent_again),
		SCENARIO(an_update_that_is_refused_as_a_whole_is_not_sent_for_ever),
		SCENARIO(a_coordinator_that_cannot_say_or_lies_gets_everything),
		SCENARIO(a_cut_download_goes_on),
		SCENARIO(a_part_of_an_earlier_run_is_gone_on_with),
		SCENARIO(a_wrong_part_is_thrown_away),
		SCENARIO(a_model_that_is_wrong_twice_is_given_up),
		SCENARIO(a_disk_that_fails_anywhere_loses_nothing),
		SCENARIO(only_wanted_models_and_parts_are_kept),
		SCENARIO(what_jobs_need_is_remembered_for_the_last_few),
		SCENARIO(the_coordinator_is_named_once),
	};
	return cmocka_run_group_tests(tests, fixture_begin, fixture_end);
}
