/*
 * Updates on their way in: what is refused and why, repeats, races with the round's end and with each other.
 */
#include "coordinator/stage.h"

#include "base/clock.h"
#include "coordinator/engine_parts.h"
#include "coordinator/sql.h"
#include "update/fixed.h"

#include <pthread.h>

static struct stage stage;
static uint64_t job;

static int setup(void **state)
{
	(void)state;
	stage_make(&stage);
	job = stage_start(&stage, "norm_max: 100\n");
	return 0;
}

/* Every update in a file of its own, as large ones are. */
static int setup_large(void **state)
{
	stage_spool.small_max = 1;
	return setup(state);
}

static int teardown(void **state)
{
	(void)state;
	stage_drop(&stage);
	stage_spool = (struct spool_config){0};
	return 0;
}

static size_t spooled(const char *suffix)
{
	char path[PATH_SIZE];
	return count_files(path_join(path, stage.dir, "spool"), suffix);
}

static void heads_are_judged(void **state)
{
	(void)state;
	struct bytes update = stage_update(&stage, "a", 1);
	const struct wire_head good = stage_head(&stage, job, 1, "a", update);
	struct wire_head bad[12];
	for (size_t i = 0; i < 12; i++)
		bad[i] = good;
	bad[0].update.job += 100;
	bad[1].update.round = 2;
	bad[2].update.base.b[5] ^= 1;
	bad[3].update.manifest.b[5] ^= 1;
	bad[4].size += 4;
	bad[5].size = UINT64_MAX;
	bad[6].update.samples = 0;
	bad[7].update.samples = (uint64_t)FIXED_WEIGHT_MAX + 1;
	bad[8].update.metrics.v[0].value = 0.0 / 0.0;
	bad[9].has_update = false;
	bad[10].offset = good.size + 1;
	bad[11].update.round = 0;
	static const enum err expected[12] = {ERR_NOT_FOUND, ERR_STALE,     ERR_STALE,     ERR_SHAPE,
					      ERR_SHAPE,     ERR_SHAPE,     ERR_LIMIT,     ERR_LIMIT,
					      ERR_NUMERIC,   ERR_MALFORMED, ERR_MALFORMED, ERR_STALE};
	struct wire_receipt receipt;
	struct upload *u;
	for (size_t i = 0; i < 12; i++) {
		enum err err = engine_upload_begin(stage.engine, "a", &bad[i], &u, &receipt);
		if (err != expected[i])
			fail_msg("head %zu: %s (%s)", i, err_name(err), err_text());
	}
	assert_fails(engine_upload_begin(stage.engine, "stranger", &good, &u, &receipt), ERR_DENIED,
		     "not in the cohort");
	assert_int_equal(spooled(""), 0);
	assert_ok(stage_send(&stage, "a", &good, update, &receipt));
	update_free(&update);
}

/* Contents: the checks themselves are tested with the spool; here that nothing stays and the seat is free again. */
static void bad_content_leaves_nothing(void **state)
{
	(void)state;
	struct wire_receipt receipt;
	struct bytes update = stage_update(&stage, "a", 1);
	struct wire_head head = stage_head(&stage, job, 1, "a", update);
	uint8_t *spoilt = mem_new(update.n);
	memcpy(spoilt, update.p, update.n);
	memset(spoilt + 8, 0xff, 3);
	spoilt[11] = 0x7f; /* a float's NaN */
	head.digest = digest_of(bytes_of(spoilt, update.n));
	assert_int_equal(stage_send(&stage, "a", &head, bytes_of(spoilt, update.n), &receipt), ERR_NUMERIC);
	assert_int_equal(stage_send(&stage, "a", &head, update, &receipt), ERR_MALFORMED);
	head.digest = digest_of(bytes_of(update.p, update.n - 8));
	assert_int_equal(stage_send(&stage, "a", &head, bytes_of(update.p, update.n - 8), &receipt), ERR_SHAPE);
	assert_int_equal(spooled(""), 0);
	assert_int_equal(stage_round(&stage, job, 1).state.accepted, 0);
	stage_report(&stage, "a", job, 1);
	assert_int_equal(stage_round(&stage, job, 1).state.accepted, 1);
	free(spoilt);
	update_free(&update);
}

static void a_repeat_gets_the_same_receipt(void **state)
{
	(void)state;
	struct wire_receipt first = stage_report(&stage, "a", job, 1);
	assert_false(first.repeated);
	assert_int_equal(first.time_ms, stage_wall);
	stage_pass(1000);
	struct wire_receipt second = stage_report(&stage, "a", job, 1);
	assert_true(second.repeated);
	assert_int_equal(second.time_ms, first.time_ms);
	assert_true(digest_equal(&first.digest, &second.digest));
	stage_restart(&stage);
	assert_true(stage_report(&stage, "a", job, 1).repeated);
	assert_int_equal(stage_round(&stage, job, 1).state.accepted, 1);
	/* Also when the round has gone on meanwhile: the receipt was lost, the update was not. */
	stage_report(&stage, "b", job, 1);
	stage_report(&stage, "c", job, 1);
	assert_true(stage_report(&stage, "a", job, 1).repeated);
	stage_settle(&stage);
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_COMMITTED);
	assert_true(stage_report(&stage, "a", job, 1).repeated);
	assert_int_equal(stage_round(&stage, job, 1).state.accepted, 3);
}

static void another_update_is_refused(void **state)
{
	(void)state;
	struct wire_receipt receipt;
	stage_report(&stage, "a", job, 1);
	struct bytes other = stage_update(&stage, "b", 7);
	struct wire_head head = stage_head(&stage, job, 1, "a", other);
	assert_fails(stage_send(&stage, "a", &head, other, &receipt), ERR_DUPLICATE, "another update");
	update_free(&other);
}

static void two_streams_of_one_plant_do_not_mix(void **state)
{
	(void)state;
	struct wire_receipt receipt;
	struct upload *first, *second;
	struct bytes update = stage_update(&stage, "a", 1);
	struct wire_head head = stage_head(&stage, job, 1, "a", update);
	assert_ok(engine_upload_begin(stage.engine, "a", &head, &first, &receipt));
	assert_ok(engine_upload_add(first, &(struct bytes){update.p, 10}, 1));
	assert_fails(engine_upload_begin(stage.engine, "a", &head, &second, &receipt), ERR_UNAVAILABLE,
		     "has not ended");
	stage_report(&stage, "b", job, 1);
	engine_upload_abort(first);
	assert_int_equal(spooled(".part"), 0);
	stage_report(&stage, "a", job, 1);
	update_free(&update);
}

/* Begun before the deadline, complete after it. */
static void late_is_late(void **state)
{
	(void)state;
	struct wire_receipt receipt;
	struct upload *u;
	struct bytes update = stage_update(&stage, "a", 1);
	struct wire_head head = stage_head(&stage, job, 1, "a", update);
	stage_report(&stage, "b", job, 1);
	stage_report(&stage, "c", job, 1);
	assert_ok(engine_upload_begin(stage.engine, "a", &head, &u, &receipt));
	assert_ok(engine_upload_add(u, &update, 1));
	stage_pass(60000 + 30000); /* the deadline, and the grace */
	assert_fails(engine_upload_commit(u, &receipt), ERR_STALE, "deadline");
	stage_settle(&stage);
	assert_int_equal(stage_round(&stage, job, 1).state.accepted, 2);
	assert_int_equal(spooled(""), 0);
	update_free(&update);
}

/* A stream that outlives its round, and its job, ends in a refusal, whatever step it is at. */
static void a_stream_may_outlive_its_job(void **state)
{
	(void)state;
	struct wire_receipt receipt;
	struct upload *a, *b, *c;
	struct bytes update_a = stage_update(&stage, "a", 1), update_b = stage_update(&stage, "b", 1),
		     update_c = stage_update(&stage, "c", 1);
	struct wire_head head = stage_head(&stage, job, 1, "a", update_a);
	assert_ok(engine_upload_begin(stage.engine, "a", &head, &a, &receipt));
	head = stage_head(&stage, job, 1, "b", update_b);
	assert_ok(engine_upload_begin(stage.engine, "b", &head, &b, &receipt));
	head = stage_head(&stage, job, 1, "c", update_c);
	assert_ok(engine_upload_begin(stage.engine, "c", &head, &c, &receipt));
	assert_ok(engine_upload_add(b, &update_b, 1));
	assert_ok(engine_job_stop(stage.engine, job));
	stage_settle(&stage);
	assert_int_equal(stage_job(&stage, job).state, WIRE_JOB_STOPPED);
	assert_fails(engine_upload_add(a, &update_a, 1), ERR_STALE, "not open");
	engine_upload_abort(a);
	assert_fails(engine_upload_commit(b, &receipt), ERR_STALE, "not open");
	engine_upload_abort(c);
	assert_int_equal(spooled(""), 0);
	update_free(&update_a);
	update_free(&update_b);
	update_free(&update_c);
}

static void a_revoked_plants_stream_holds_nobody_up(void **state)
{
	(void)state;
	struct wire_receipt receipt;
	struct upload *u;
	struct bytes update = stage_update(&stage, "c", 1);
	struct wire_head head = stage_head(&stage, job, 1, "c", update);
	assert_ok(engine_upload_begin(stage.engine, "c", &head, &u, &receipt));
	stage_report(&stage, "a", job, 1);
	stage_report(&stage, "b", job, 1);
	assert_ok(db_member_revoke(stage.db, ROLE_PLANT, "c", stage_wall));
	assert_ok(registry_reload(stage.registry));
	engine_revoked(stage.engine, "c");
	stage_settle(&stage);
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_OPEN);
	engine_upload_abort(u); /* as the service does at the next piece */
	stage_settle(&stage);
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_COMMITTED);
	update_free(&update);
}

/* The plant is told to try again, and nothing about our files. */
static void trouble_with_the_spool_is_not_the_plants(void **state)
{
	(void)state;
	char dir[PATH_SIZE], away[PATH_SIZE];
	struct wire_receipt receipt;
	path_join(dir, stage.dir, "spool");
	path_join(away, stage.dir, "away");
	assert_int_equal(rename(dir, away), 0);
	assert_ok(file_replace(dir, bytes_str("in the way"), 0600));
	assert_fails(stage_try_report(&stage, "a", job, 1, &receipt), ERR_UNAVAILABLE, "try again");
	assert_null(strstr(err_text(), "spool"));
	assert_ok(file_remove(dir));
	assert_int_equal(rename(away, dir), 0);
	assert_false(stage_report(&stage, "a", job, 1).repeated);
}

/* Statements that go past the engine. */
static void run_sql(const char *statement)
{
	char path[PATH_SIZE];
	struct sql *sql;
	assert_ok(sql_open(path_join(path, stage.dir, "hansa.db"), &sql));
	assert_ok(sql_run(sql, statement));
	sql_close(sql);
}

static void refuse_rows(bool refuse)
{
	run_sql(refuse ? "CREATE TRIGGER bad BEFORE INSERT ON contribution BEGIN SELECT abs(-9223372036854775808); END"
		       : "DROP TRIGGER bad");
}

/* A commit that failed may come back after a crash, and then its bytes must be there. */
static void a_row_that_could_not_be_written_leaves_its_bytes(void **state)
{
	(void)state;
	char path[PATH_SIZE];
	struct wire_receipt receipt;
	struct update_row row;
	struct buf b;
	refuse_rows(true);
	assert_fails(stage_try_report(&stage, "a", job, 1, &receipt), ERR_UNAVAILABLE, "try again");
	assert_int_equal(spooled(""), 1);
	assert_int_equal(stage_round(&stage, job, 1).state.accepted, 0);
	refuse_rows(false);
	assert_false(stage_report(&stage, "a", job, 1).repeated);
	assert_int_equal(spooled(""), 1);
	assert_ok(db_update_get(stage.db, job, 1, "a", &row));
	struct bytes update = stage_update(&stage, "a", 1);
	if (row.place >= 0) {
		/* Both are there, whole: whichever row had come back would have found its bytes. */
		assert_true(row.place > 0);
		assert_ok(file_read(spool_batch_path(stage.engine->spool, job, 1, path), 1 << 20, &b));
		assert_memory_equal(b.p, update.p, update.n);
		assert_memory_equal(b.p + row.place, update.p, update.n);
		buf_deinit(&b);
	}
	update_free(&update);
}

/* The round was closed while the row was on its way: what is refused for good leaves no file. */
static void a_refused_row_leaves_no_file(void **state)
{
	(void)state;
	struct wire_receipt receipt;
	run_sql("UPDATE round SET phase = 'abandoned'");
	assert_fails(stage_try_report(&stage, "a", job, 1, &receipt), ERR_STALE, "not open");
	assert_int_equal(spooled(".update"), 0);
	assert_int_equal(spooled(".part"), 0);
}

/* ---- cut streams ---- */

static uint64_t offset_of(const char *who, const struct wire_head *head)
{
	struct wire_upload_offset_request request = {
		.job = head->update.job, .round = head->update.round, .size = head->size, .digest = head->digest};
	struct wire_upload_offset_reply reply = {.offset = 99};
	engine_upload_offset(stage.engine, who, &request, &reply);
	return reply.offset;
}

/* Bring the bytes from head->offset to `end`, then let the stream be cut. */
static void cut_at(const char *who, const struct wire_head *head, struct bytes update, size_t end)
{
	struct wire_receipt receipt;
	struct upload *u;
	const struct bytes piece = bytes_of(update.p + head->offset, end - (size_t)head->offset);
	assert_ok(engine_upload_begin(stage.engine, who, head, &u, &receipt));
	assert_ok(engine_upload_add(u, &piece, 1));
	engine_upload_suspend(u);
}

static void a_cut_upload_goes_on(void **state)
{
	(void)state;
	struct wire_receipt receipt;
	struct upload *u;
	struct bytes update = stage_update(&stage, "a", 1);
	struct wire_head head = stage_head(&stage, job, 1, "a", update), other;
	assert_int_equal(offset_of("a", &head), 0);
	cut_at("a", &head, update, 100);
	assert_int_equal(spooled(".part"), 1);
	for (int restart = 0; restart <= 1; restart++) {
		assert_int_equal(offset_of("a", &head), 100);
		assert_int_equal(offset_of("b", &head), 0);
		assert_int_equal(offset_of("stranger", &head), 0);
		other = head;
		other.update.round = 2;
		assert_int_equal(offset_of("a", &other), 0);
		other = head;
		other.update.job++;
		assert_int_equal(offset_of("a", &other), 0);
		other = head;
		other.digest.b[0] ^= 1;
		assert_int_equal(offset_of("a", &other), 0);
		other = head;
		other.size = 96;
		assert_int_equal(offset_of("a", &other), 0);
		stage_restart(&stage);
	}
	head.offset = 104;
	assert_fails(engine_upload_begin(stage.engine, "a", &head, &u, &receipt), ERR_UNAVAILABLE, "100 bytes");
	head.offset = 100;
	cut_at("a", &head, update, 204);
	assert_int_equal(offset_of("a", &head), 204);
	head.offset = 204;
	assert_ok(engine_upload_begin(stage.engine, "a", &head, &u, &receipt));
	assert_ok(engine_upload_add(u, &(struct bytes){update.p + 204, update.n - 204}, 1));
	assert_ok(engine_upload_commit(u, &receipt));
	assert_false(receipt.repeated);
	assert_int_equal(stage_round(&stage, job, 1).state.accepted, 1);
	assert_int_equal(offset_of("a", &head), 0);
	assert_ok(engine_upload_begin(stage.engine, "a", &head, &u, &receipt));
	assert_null(u);
	assert_true(receipt.repeated);
	assert_int_equal(spooled(""), 1);
	update_free(&update);
}

static void a_part_ends_with_its_round(void **state)
{
	(void)state;
	struct wire_receipt receipt;
	struct upload *u;
	struct bytes update = stage_update(&stage, "a", 1), slow = stage_update(&stage, "b", 1);
	struct wire_head head = stage_head(&stage, job, 1, "a", update),
			 slow_head = stage_head(&stage, job, 1, "b", slow);
	cut_at("a", &head, update, 100);
	assert_ok(engine_upload_begin(stage.engine, "b", &slow_head, &u, &receipt));
	assert_ok(engine_upload_add(u, &(struct bytes){slow.p, 100}, 1));
	stage_report(&stage, "c", job, 1);
	stage_pass(60000); /* the quorum is 2 */
	stage_settle(&stage);
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_ABANDONED);
	assert_int_equal(offset_of("a", &head), 0);
	assert_int_equal(spooled(""), 1); /* that of the stream which still lives */
	assert_fails(engine_upload_add(u, &(struct bytes){slow.p + 100, 4}, 1), ERR_STALE, "not open");
	engine_upload_suspend(u); /* cut at that moment */
	assert_int_equal(spooled(""), 0);
	assert_int_equal(spool_bytes(stage.engine->spool), 0);
	update_free(&update);
	update_free(&slow);
}

static void a_restart_keeps_parts_of_open_rounds_only(void **state)
{
	(void)state;
	char path[PATH_SIZE], name[64], text[DIGEST_TEXT_SIZE];
	struct bytes update = stage_update(&stage, "a", 1);
	struct wire_head head = stage_head(&stage, job, 1, "a", update);
	cut_at("a", &head, update, 100);
	snprintf(name, sizeof name, "spool/1-2-a.%.16s.part", digest_format(&head.digest, text));
	assert_ok(file_replace(path_join(path, stage.dir, name), bytes_str("of no round"), 0600));
	stage_restart(&stage);
	assert_int_equal(spooled(".part"), 1);
	assert_int_equal(offset_of("a", &head), 100);
	stage_report(&stage, "b", job, 1);
	stage_report(&stage, "c", job, 1);
	stage_pass(60000);
	engine_pump(stage.engine);
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_SEALED);
	stage_restart(&stage);
	assert_int_equal(spooled(".part"), 0);
	stage_settle(&stage);
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_COMMITTED);
	update_free(&update);
}

static void arriving_bytes_are_noticed(void **state)
{
	(void)state;
	struct wire_receipt receipt;
	struct upload *u;
	struct bytes update = stage_update(&stage, "a", 1);
	struct wire_head head = stage_head(&stage, job, 1, "a", update);
	const struct seat *seat = run_seat(stage.engine->runs[0], "a");
	assert_ok(engine_upload_begin(stage.engine, "a", &head, &u, &receipt));
	for (int i = 0; i < 3; i++) {
		stage_pass(1000);
		assert_ok(engine_upload_add(u, &(struct bytes){update.p + 4 * i, 4}, 1));
		assert_int_equal(seat->progress_ms, stage_monotonic);
	}
	engine_upload_abort(u);
	update_free(&update);
}

/* A full disk in the middle of an update, and then of its row's: the round goes on when there is room. */
static void a_full_disk_passes(void **state)
{
	(void)state;
	struct bad_disk disk;
	struct wire_receipt receipt;
	struct upload *u;
	struct bytes update = stage_update(&stage, "a", 1);
	struct wire_head head = stage_head(&stage, job, 1, "a", update);
	cut_at("a", &head, update, 100);
	head.offset = 100;
	assert_ok(engine_upload_begin(stage.engine, "a", &head, &u, &receipt));
	bad_disk_insert(&disk, 0, true);
	assert_fails(engine_upload_add(u, &(struct bytes){update.p + 100, 100}, 1), ERR_UNAVAILABLE, "try again");
	engine_upload_suspend(u);
	assert_int_equal(stage_try_report(&stage, "b", job, 1, &receipt), ERR_UNAVAILABLE);
	bad_disk_remove();
	assert_int_equal(offset_of("a", &head), 150); /* half of the failed write */
	head.offset = 150;
	assert_ok(engine_upload_begin(stage.engine, "a", &head, &u, &receipt));
	assert_ok(engine_upload_add(u, &(struct bytes){update.p + 150, update.n - 150}, 1));
	assert_ok(engine_upload_commit(u, &receipt));
	assert_false(receipt.repeated);
	stage_report(&stage, "b", job, 1);
	stage_report(&stage, "c", job, 1);
	stage_settle(&stage);
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_COMMITTED);
	update_free(&update);
}

static void a_full_spool_is_said_at_the_door(void **state)
{
	(void)state;
	struct wire_receipt receipt;
	struct upload *u;
	struct bytes update = stage_update(&stage, "a", 1);
	struct wire_head head = stage_head(&stage, job, 1, "a", update);
	stage_spool.bytes_max = 2 * update.n + 100;
	stage_restart(&stage);
	uint64_t none;
	assert_fails(stage_try_start(&stage, "name: big\n", &none), ERR_LIMIT, "spool_bytes_max");
	assert_ok(stage_try_start(&stage, "name: fits\nplants: [a, b]\n", &none));
	stage_report(&stage, "b", job, 1);
	stage_report(&stage, "c", job, 1);
	assert_fails(engine_upload_begin(stage.engine, "a", &head, &u, &receipt), ERR_UNAVAILABLE, "the spool is full");
	char trouble[WIRE_REASON_SIZE];
	engine_trouble(stage.engine, job, trouble);
	assert_non_null(strstr(trouble, "spool_bytes_max"));
	/* With the round its updates go. */
	stage_pass(60000);
	stage_settle(&stage);
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_COMMITTED);
	assert_int_equal(spool_bytes(stage.engine->spool), 0);
	stage_report(&stage, "a", job, 2);
	update_free(&update);
}

static void figures_and_metrics_are_kept(void **state)
{
	(void)state;
	struct update_row row;
	stage_report(&stage, "b", job, 1);
	engine_sent(stage.engine, "b", &stage.source, 1234);
	engine_sent(stage.engine, "stranger", &stage.source, 9999);
	stage_report(&stage, "a", job, 1);
	stage_report(&stage, "c", job, 1);
	stage_settle(&stage);
	assert_int_equal(stage_round(&stage, job, 1).bytes_down, 1234);
	assert_ok(db_update_get(stage.db, job, 1, "b", &row));
	assert_int_equal(row.samples, 11);
	assert_true(row.norm > 0);
	assert_int_equal(row.metrics.n, 1);
	assert_string_equal(row.metrics.v[0].name, "train_loss");
	assert_true(row.metrics.v[0].value == 0.25);
}

static void reports_are_for_ones_own_jobs(void **state)
{
	(void)state;
	struct wire_plant_report *seen;
	size_t n;
	struct wire_report report = {.job = job, .round = 1, .model = stage.source};
	report.metrics = (struct wire_metrics){.n = 1, .v = {{"accuracy", 0.75}}};
	assert_ok(engine_report(stage.engine, "b", &report));
	assert_ok(engine_report(stage.engine, "a", &report));
	report.taken = true;
	assert_ok(engine_report(stage.engine, "a", &report)); /* in place of the first */
	assert_ok(db_report_list(stage.db, job, 1, &seen, &n));
	assert_int_equal(n, 2);
	assert_string_equal(seen[0].plant, "a");
	assert_true(seen[0].taken && !seen[1].taken);
	assert_true(digest_equal(&seen[0].model, &stage.source));
	assert_int_equal(seen[0].time_ms, stage_wall);
	assert_int_equal(seen[0].metrics.n, 1);
	assert_string_equal(seen[0].metrics.v[0].name, "accuracy");
	assert_true(seen[0].metrics.v[0].value == 0.75);
	free(seen);
	assert_fails(engine_report(stage.engine, "stranger", &report), ERR_NOT_FOUND, "in no job");
	report.round = 2;
	assert_fails(engine_report(stage.engine, "a", &report), ERR_STALE, "no round 2");
	report.round = 1;
	report.model.b[0] ^= 1;
	assert_int_equal(engine_report(stage.engine, "a", &report), ERR_NOT_FOUND);
	report.job = 77;
	assert_int_equal(engine_report(stage.engine, "a", &report), ERR_NOT_FOUND);
}

/* ---- with the engine's own thread ---- */

enum { CROWD = 12 };

static void crowd_name(size_t i, char out[8])
{
	snprintf(out, 8, "%c%zu", (char)('a' + (int)i), i);
}

/* Cut once, and sent with a wrong byte once, by every third. */
static bool stumble(const char *who)
{
	struct wire_receipt receipt;
	struct upload *u;
	struct bytes update = stage_update(&stage, who, 1);
	struct wire_head head = stage_head(&stage, job, 1, who, update);
	bool ok = engine_upload_begin(stage.engine, who, &head, &u, &receipt) == ERR_OK &&
		  engine_upload_add(u, &(struct bytes){update.p, 100}, 1) == ERR_OK;
	engine_upload_suspend(u);
	head.digest.b[3] ^= 1;
	ok = ok && stage_send(&stage, who, &head, update, &receipt) == ERR_MALFORMED;
	update_free(&update);
	return ok;
}

static void *send_own(void *arg)
{
	const char *who = arg;
	struct wire_receipt receipt = {0};
	if ((who[0] - 'a') % 3 == 0 && !stumble(who))
		return NULL;
	if (stage_try_report(&stage, who, job, 1, &receipt) != ERR_OK)
		return NULL;
	return receipt.job == job ? arg : NULL;
}

static void a_crowd_reports_at_once(void **state)
{
	(void)state;
	pthread_t threads[CROWD];
	char names[CROWD][8], text[256] = "rounds: 1\nname: crowd\nquorum: 12\nplants: [a0";
	for (size_t i = 0; i < CROWD; i++) {
		crowd_name(i, names[i]);
		stage_enrol(&stage, names[i]);
		if (i > 0)
			snprintf(text + strlen(text), sizeof text - strlen(text), ", %s", names[i]);
	}
	snprintf(text + strlen(text), sizeof text - strlen(text), "]\n");
	job = stage_start(&stage, text);
	assert_ok(engine_start(stage.engine));
	struct stage_call watch;
	for (size_t i = 0; i < CROWD; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, send_own, names[i]), 0);
	for (size_t i = 0; i < CROWD; i++) {
		void *sent;
		assert_int_equal(pthread_join(threads[i], &sent), 0);
		assert_non_null(sent);
	}
	/* The engine ends the job by itself; a stop that comes too late says so. */
	enum err err = ERR_OK;
	for (int tries = 0; err == ERR_OK && tries < 3000; tries++) {
		err = engine_job_stop(stage.engine, job);
		clock_sleep_ms(err == ERR_OK ? 10 : 0);
	}
	assert_int_equal(err, ERR_STATE);
	assert_int_not_equal(stage_job(&stage, job).state, WIRE_JOB_RUNNING);
	assert_int_equal(stage_round(&stage, job, 1).state.accepted, CROWD);
	stage_watch(&stage, job, 0, &watch);
	engine_drain(stage.engine);
	stage_restart(&stage);
	assert_true(watch.answers == 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(heads_are_judged, setup, teardown),
		cmocka_unit_test_setup_teardown(bad_content_leaves_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(bad_content_leaves_nothing, setup_large, teardown),
		cmocka_unit_test_setup_teardown(a_repeat_gets_the_same_receipt, setup, teardown),
		cmocka_unit_test_setup_teardown(a_repeat_gets_the_same_receipt, setup_large, teardown),
		cmocka_unit_test_setup_teardown(another_update_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(two_streams_of_one_plant_do_not_mix, setup, teardown),
		cmocka_unit_test_setup_teardown(two_streams_of_one_plant_do_not_mix, setup_large, teardown),
		cmocka_unit_test_setup_teardown(late_is_late, setup, teardown),
		cmocka_unit_test_setup_teardown(late_is_late, setup_large, teardown),
		cmocka_unit_test_setup_teardown(a_stream_may_outlive_its_job, setup, teardown),
		cmocka_unit_test_setup_teardown(a_stream_may_outlive_its_job, setup_large, teardown),
		cmocka_unit_test_setup_teardown(a_revoked_plants_stream_holds_nobody_up, setup, teardown),
		cmocka_unit_test_setup_teardown(trouble_with_the_spool_is_not_the_plants, setup, teardown),
		cmocka_unit_test_setup_teardown(trouble_with_the_spool_is_not_the_plants, setup_large, teardown),
		cmocka_unit_test_setup_teardown(a_row_that_could_not_be_written_leaves_its_bytes, setup, teardown),
		cmocka_unit_test_setup_teardown(a_row_that_could_not_be_written_leaves_its_bytes, setup_large,
						teardown),
		cmocka_unit_test_setup_teardown(a_refused_row_leaves_no_file, setup, teardown),
		cmocka_unit_test_setup_teardown(a_refused_row_leaves_no_file, setup_large, teardown),
		cmocka_unit_test_setup_teardown(arriving_bytes_are_noticed, setup, teardown),
		cmocka_unit_test_setup_teardown(a_full_spool_is_said_at_the_door, setup, teardown),
		cmocka_unit_test_setup_teardown(a_full_spool_is_said_at_the_door, setup_large, teardown),
		cmocka_unit_test_setup_teardown(a_cut_upload_goes_on, setup_large, teardown),
		cmocka_unit_test_setup_teardown(a_part_ends_with_its_round, setup_large, teardown),
		cmocka_unit_test_setup_teardown(a_restart_keeps_parts_of_open_rounds_only, setup_large, teardown),
		cmocka_unit_test_setup_teardown(a_full_disk_passes, setup_large, teardown),
		cmocka_unit_test_setup_teardown(figures_and_metrics_are_kept, setup, teardown),
		cmocka_unit_test_setup_teardown(reports_are_for_ones_own_jobs, setup, teardown),
		cmocka_unit_test_setup_teardown(a_crowd_reports_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(a_crowd_reports_at_once, setup_large, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
