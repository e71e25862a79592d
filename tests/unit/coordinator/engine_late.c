/*
 * Rounds that do not wait for everybody: fewer plants asked, a goal below the cohort, grace at the deadline, updates that come late.
 */
#include "coordinator/stage.h"

#include "coordinator/engine_parts.h"
#include "coordinator/spool.h"

#include <math.h>

static struct stage stage;

static int setup(void **state)
{
	(void)state;
	stage_spool.small_max = 1; /* every update has a file of its own */
	stage_make(&stage);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	stage_drop(&stage);
	return 0;
}

/* ---- cohort and goal ---- */

static uint32_t members_of(uint64_t job, uint32_t round)
{
	struct round_row row;
	uint32_t set = 0;
	assert_ok(db_round_get(stage.db, job, round, &row));
	for (size_t i = 0; i < row.cohort.n; i++) {
		if (row.cohort.p[i] != '\n')
			set |= 1u << (row.cohort.p[i] - 'a');
	}
	round_row_deinit(&row);
	return set;
}

static void a_round_asks_as_many_as_it_is_told(void **state)
{
	(void)state;
	uint32_t asked = 0, first[12];
	unsigned times[3] = {0};
	uint64_t job = stage_start(&stage, "rounds: 12\nquorum: 1\ncohort: 2\nseed: 5\n");
	for (uint32_t round = 1; round <= 12; round++) {
		uint32_t set = first[round - 1] = members_of(job, round);
		assert_int_equal(stage_round(&stage, job, round).state.cohort, 2);
		assert_int_equal(stage_round(&stage, job, round).state.goal, 2);
		asked |= set;
		for (int i = 0; i < 3; i++) {
			const char who[] = {(char)('a' + i), '\0'};
			struct wire_receipt receipt;
			times[i] += (set >> i & 1) != 0;
			if ((set >> i & 1) != 0)
				stage_report(&stage, who, job, round);
			else
				assert_fails(stage_try_report(&stage, who, job, round, &receipt),
					     stage_round(&stage, job, round).state.accepted == 2 ? ERR_STALE
												 : ERR_DENIED,
					     "");
		}
		stage_settle(&stage);
		assert_int_equal(stage_round(&stage, job, round).state.phase, ROUND_COMMITTED);
		stage_restart(&stage);
	}
	assert_int_equal(asked, 7);
	assert_true(times[0] < 12 && times[1] < 12 && times[2] < 12);
	/* The same seed, the same plants; another one, others. */
	for (unsigned seed = 5; seed <= 6; seed++) {
		char text[100];
		unsigned same = 0;
		snprintf(text, sizeof text,
			 "name: s%u\nrounds: 12\nquorum: 1\ncohort: 2\nseed: %u\ndeadline: 1s\nfailures_max: 20\n",
			 seed, seed);
		job = stage_start(&stage, text);
		for (uint32_t round = 1; round <= 12; round++) {
			same += members_of(job, round) == first[round - 1];
			stage_pass(1000);
			stage_settle(&stage);
		}
		assert_true(seed == 5 ? same == 12 : same < 12);
		assert_ok(engine_job_stop(stage.engine, job));
		stage_settle(&stage);
	}
}

static void the_goal_closes_a_round_before_its_deadline(void **state)
{
	(void)state;
	struct wire_receipt receipt;
	uint64_t job = stage_start(&stage, "quorum: 1\ngoal: 2\n");
	stage_report(&stage, "a", job, 1);
	stage_settle(&stage);
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_OPEN);
	stage_report(&stage, "c", job, 1);
	assert_fails(stage_try_report(&stage, "b", job, 1, &receipt), ERR_STALE, "wants");
	stage_settle(&stage);
	struct round_row row = stage_round(&stage, job, 1);
	assert_int_equal(row.state.phase, ROUND_COMMITTED);
	assert_int_equal(row.state.accepted, 2);
	assert_int_equal(row.state.cohort, 3);
	assert_int_equal(row.state.goal, 2);
	struct wire_job shown;
	struct wire_round round;
	run_show(engine_find(stage.engine, job), &shown, &round);
	assert_int_equal(round.goal, 2);
}

static void what_cannot_be_reached_is_refused_at_the_start(void **state)
{
	(void)state;
	uint64_t job;
	assert_fails(stage_try_start(&stage, "goal: 4\n", &job), ERR_CONFIG, "goal: 4 updates");
	assert_fails(stage_try_start(&stage, "cohort: 4\n", &job), ERR_CONFIG, "cohort: 4 updates");
}

static void strike(const char *who)
{
	assert_ok(db_member_revoke(stage.db, ROLE_PLANT, who, stage_wall));
	assert_ok(registry_reload(stage.registry));
	engine_revoked(stage.engine, who);
	stage_settle(&stage);
}

static void the_goal_follows_the_cohort_down(void **state)
{
	(void)state;
	uint64_t job = stage_start(&stage, "");
	stage_report(&stage, "a", job, 1);
	stage_report(&stage, "b", job, 1);
	strike("c");
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_COMMITTED);
	assert_int_equal(stage_round(&stage, job, 2).state.goal, 2);
}

/* The deadline would only say what is clear already. */
static void a_quorum_that_is_lost_ends_the_round(void **state)
{
	(void)state;
	uint64_t job = stage_start(&stage, "quorum: 2\n");
	stage_report(&stage, "a", job, 1);
	strike("b");
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_OPEN);
	strike("c");
	struct round_row row = stage_round(&stage, job, 1);
	assert_int_equal(row.state.phase, ROUND_ABANDONED);
	assert_non_null(strstr(row.reason, "revoked"));
	assert_int_equal(row.closed_ms, stage_wall);
	assert_int_equal(stage_job(&stage, job).state, WIRE_JOB_FAILED);
	assert_non_null(strstr(stage_job(&stage, job).reason, "still enrolled"));
}

/* ---- grace ---- */

static struct upload *begin(const char *who, uint64_t job, uint32_t round, struct bytes *ret_update,
			    struct wire_head *ret_head)
{
	struct upload *u = NULL;
	struct wire_receipt receipt;
	*ret_update = stage_update(&stage, who, round);
	*ret_head = stage_head(&stage, job, round, who, *ret_update);
	assert_ok(engine_upload_begin(stage.engine, who, ret_head, &u, &receipt));
	assert_non_null(u);
	return u;
}

static void bytes_that_flow_at_the_deadline_are_waited_for(void **state)
{
	(void)state;
	struct bytes update;
	struct wire_head head;
	struct wire_receipt receipt;
	uint64_t job = stage_start(&stage, "");
	stage_report(&stage, "a", job, 1);
	stage_report(&stage, "b", job, 1);
	struct upload *u = begin("c", job, 1, &update, &head);
	stage_pass(59000);
	assert_ok(stage_add(u, bytes_of(update.p, 100)));
	stage_pass(1000);
	assert_int_equal(engine_pump(stage.engine), RUN_FLOW_MS - 1000);
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_OPEN);
	stage_pass(8000);
	assert_ok(stage_add(u, bytes_of(update.p + 100, update.n - 100)));
	stage_pass(8000);
	stage_settle(&stage);
	assert_ok(engine_upload_commit(u, &receipt));
	stage_settle(&stage);
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_COMMITTED);
	assert_int_equal(stage_round(&stage, job, 1).state.accepted, 3);
	update_free(&update);
}

static void bytes_that_have_stopped_are_not(void **state)
{
	(void)state;
	struct bytes update;
	struct wire_head head;
	uint64_t job = stage_start(&stage, "");
	stage_report(&stage, "a", job, 1);
	stage_report(&stage, "b", job, 1);
	struct upload *u = begin("c", job, 1, &update, &head);
	stage_pass(59000);
	assert_ok(stage_add(u, bytes_of(update.p, 100)));
	stage_pass(1000 + RUN_FLOW_MS - 1001);
	stage_settle(&stage);
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_OPEN);
	stage_pass(1);
	stage_settle(&stage);
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_COMMITTED);
	assert_fails(stage_add(u, bytes_of(update.p + 100, 100)), ERR_STALE, "not open");
	engine_upload_abort(u);
	update_free(&update);
}

static void the_grace_ends(void **state)
{
	(void)state;
	struct bytes update;
	struct wire_head head;
	uint64_t job = stage_start(&stage, "grace: 12s\n");
	stage_report(&stage, "a", job, 1);
	stage_report(&stage, "b", job, 1);
	struct upload *u = begin("c", job, 1, &update, &head);
	for (size_t i = 0; i < 12; i++) {
		stage_pass(i == 0 ? 60000 : 1000);
		assert_ok(stage_add(u, bytes_of(update.p + i * 4, 4)));
		stage_settle(&stage);
		assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_OPEN);
	}
	stage_pass(1000);
	assert_fails(stage_add(u, bytes_of(update.p + 48, 4)), ERR_STALE, "deadline");
	stage_settle(&stage);
	assert_int_equal(stage_round(&stage, job, 1).state.phase, ROUND_COMMITTED);
	engine_upload_abort(u);
	update_free(&update);
}

/* ---- late updates ---- */

static void late_is_refused_unless_carried(void **state)
{
	(void)state;
	struct wire_receipt receipt;
	uint64_t job = stage_start(&stage, "goal: 2\n");
	stage_report(&stage, "a", job, 1);
	stage_report(&stage, "b", job, 1);
	stage_settle(&stage);
	assert_fails(stage_try_report(&stage, "c", job, 1, &receipt), ERR_STALE, "not open");
}

#define BUFFERED "rounds: 6\nquorum: 1\ngoal: 2\nlate: carry\n"

static void close_with(uint64_t job, uint32_t round, const char *who)
{
	for (; *who != '\0'; who++)
		stage_report(&stage, (const char[]){*who, '\0'}, job, round);
	stage_settle(&stage);
	assert_int_equal(stage_round(&stage, job, round).state.phase, ROUND_COMMITTED);
}

static struct update_row counted(uint64_t job, uint32_t round, const char *who)
{
	struct update_row row;
	assert_ok(db_update_get(stage.db, job, round, who, &row));
	return row;
}

static void a_late_update_counts_in_the_open_round(void **state)
{
	(void)state;
	uint64_t job = stage_start(&stage, BUFFERED);
	char path[PATH_SIZE];
	close_with(job, 1, "ab");
	struct wire_receipt receipt = stage_report(&stage, "c", job, 1);
	assert_int_equal(receipt.round, 1);
	assert_false(receipt.repeated);
	assert_int_equal(counted(job, 2, "c").base_round, 1);
	assert_int_equal(stage_round(&stage, job, 1).state.accepted, 2);
	/* A restart finds it, file and all. */
	stage_restart(&stage);
	assert_int_equal(stage_round(&stage, job, 2).state.accepted, 1);
	assert_true(file_exists(stage_path(&stage, &(struct spool_key){job, 1, "c"}, path)));
	/* Exactly once, here and in the rounds to come. */
	assert_true(stage_report(&stage, "c", job, 1).repeated);
	assert_fails(stage_try_report(&stage, "c", job, 2, &receipt), ERR_DUPLICATE, "round 2");
	close_with(job, 2, "a");
	assert_false(file_exists(path));
	assert_true(stage_report(&stage, "c", job, 1).repeated);
	assert_int_equal(stage_round(&stage, job, 3).state.accepted, 0);
	struct bytes other = stage_update(&stage, "c", 99);
	struct wire_head head = stage_head(&stage, job, 1, "c", other);
	assert_fails(stage_send(&stage, "c", &head, other, &receipt), ERR_DUPLICATE, "another update of c");
	update_free(&other);
	/* What was refused has left the seat free. */
	stage_report(&stage, "c", job, 3);
}

static uint64_t received(uint64_t job, const struct wire_head *head)
{
	struct wire_upload_offset_reply reply;
	struct wire_upload_offset_request request = {
		.job = job, .round = head->update.round, .digest = head->digest, .size = head->size};
	engine_upload_offset(stage.engine, "c", &request, &reply);
	return reply.offset;
}

/* A round is full and not yet closed: what is complete then is kept for the next one, and goes with the job. */
static void what_comes_between_two_rounds_is_not_sent_again(void **state)
{
	(void)state;
	struct bytes update;
	struct wire_head head;
	struct wire_receipt receipt;
	uint64_t job = stage_start(&stage, "rounds: 3\nquorum: 1\ngoal: 2\nlate: carry\n");
	struct upload *u = begin("c", job, 1, &update, &head);
	assert_ok(stage_add(u, update));
	stage_report(&stage, "a", job, 1);
	stage_report(&stage, "b", job, 1);
	assert_fails(engine_upload_commit(u, &receipt), ERR_UNAVAILABLE, "next round");
	stage_settle(&stage);
	assert_int_equal(received(job, &head), update.n);
	head.offset = update.n;
	assert_ok(engine_upload_begin(stage.engine, "c", &head, &u, &receipt));
	assert_ok(engine_upload_commit(u, &receipt));
	assert_int_equal(counted(job, 2, "c").base_round, 1);
	stage_report(&stage, "a", job, 2);
	stage_settle(&stage);
	update_free(&update);
	/* In the last round there is no next one. */
	u = begin("c", job, 3, &update, &head);
	assert_ok(stage_add(u, update));
	stage_report(&stage, "a", job, 3);
	stage_report(&stage, "b", job, 3);
	assert_fails(engine_upload_commit(u, &receipt), ERR_UNAVAILABLE, "next round");
	stage_settle(&stage);
	assert_int_equal(stage_job(&stage, job).state, WIRE_JOB_DONE);
	assert_fails(engine_upload_begin(stage.engine, "c", &head, &u, &receipt), ERR_STALE, "not open");
	assert_int_equal(received(job, &head), 0);
	assert_int_equal(spool_bytes(stage.engine->spool), 0);
	update_free(&update);
}

static void the_wrong_base_is_refused_late_as_well(void **state)
{
	(void)state;
	struct wire_receipt receipt;
	uint64_t job = stage_start(&stage, BUFFERED);
	close_with(job, 1, "ab");
	struct bytes update = stage_update(&stage, "c", 1);
	struct wire_head head = stage_head(&stage, job, 1, "c", update);
	head.update.base = stage_round(&stage, job, 2).base;
	assert_fails(stage_send(&stage, "c", &head, update, &receipt), ERR_STALE, "wrong base");
	head.update.round = 0;
	head.update.base = (struct digest){{0}};
	assert_fails(stage_send(&stage, "c", &head, update, &receipt), ERR_STALE, "wrong base");
	head.update.round = 3;
	assert_fails(stage_send(&stage, "c", &head, update, &receipt), ERR_STALE, "not open");
	update_free(&update);
}

static void too_late_is_too_late(void **state)
{
	(void)state;
	struct wire_receipt receipt;
	uint64_t job = stage_start(&stage, BUFFERED "late_max: 2\n");
	for (uint32_t round = 1; round <= 3; round++)
		close_with(job, round, "ab");
	stage_restart(&stage);
	assert_fails(stage_try_report(&stage, "c", job, 1, &receipt), ERR_STALE, "too late");
	stage_report(&stage, "c", job, 2);
	assert_int_equal(counted(job, 4, "c").base_round, 2);
	/* The job has ended: nothing counts any more. */
	assert_ok(engine_job_stop(stage.engine, job));
	stage_settle(&stage);
	assert_true(stage_report(&stage, "b", job, 3).repeated);
	assert_fails(stage_try_report(&stage, "c", job, 3, &receipt), ERR_STALE, "not open");
}

/* It has begun in round 1 and is complete in round 3: no stream is cut because a round ends. */
static void a_stream_goes_on_through_the_rounds(void **state)
{
	(void)state;
	struct bytes update;
	struct wire_head head;
	struct wire_receipt receipt;
	uint64_t job = stage_start(&stage, BUFFERED);
	struct upload *u = begin("c", job, 1, &update, &head);
	assert_ok(stage_add(u, bytes_of(update.p, 100)));
	close_with(job, 1, "ab");
	assert_ok(stage_add(u, bytes_of(update.p + 100, 100)));
	close_with(job, 2, "ab");
	assert_ok(stage_add(u, bytes_of(update.p + 200, update.n - 200)));
	/* Between two rounds there is none to count in. */
	stage_report(&stage, "a", job, 3);
	stage_report(&stage, "b", job, 3);
	assert_fails(engine_upload_commit(u, &receipt), ERR_UNAVAILABLE, "next round");
	assert_fails(stage_try_report(&stage, "c", job, 1, &receipt), ERR_UNAVAILABLE, "next round");
	stage_settle(&stage);
	assert_false(stage_report(&stage, "c", job, 1).repeated);
	assert_int_equal(counted(job, 4, "c").base_round, 1);
	update_free(&update);
}

/* A repeat that has taken its time: the plant has another update in the open round by now. */
static void a_receipt_is_given_whatever_came_after(void **state)
{
	(void)state;
	struct wire_receipt receipt;
	uint64_t job = stage_start(&stage, BUFFERED);
	close_with(job, 1, "ab");
	stage_report(&stage, "c", job, 1);
	close_with(job, 2, "a");
	stage_report(&stage, "c", job, 3);
	assert_true(stage_report(&stage, "c", job, 1).repeated);
	struct bytes other = stage_update(&stage, "c", 99);
	struct wire_head head = stage_head(&stage, job, 1, "c", other);
	assert_fails(stage_send(&stage, "c", &head, other, &receipt), ERR_DUPLICATE, "another update of c");
	update_free(&other);
}

static struct wire_upload_offset_reply ask_offset(const char *who, const struct wire_head *head)
{
	struct wire_upload_offset_reply reply;
	struct wire_upload_offset_request request = {
		.job = head->update.job, .round = head->update.round, .size = head->size, .digest = head->digest};
	engine_upload_offset(stage.engine, who, &request, &reply);
	return reply;
}

/* All of it has come while a round was being closed: in the next one it counts without a byte more. */
static void what_is_whole_is_not_sent_again(void **state)
{
	(void)state;
	struct bytes update;
	struct wire_head head;
	struct wire_receipt receipt;
	char path[PATH_SIZE];
	uint64_t job = stage_start(&stage, BUFFERED);
	struct upload *u = begin("c", job, 1, &update, &head);
	assert_ok(stage_add(u, update));
	stage_report(&stage, "a", job, 1);
	stage_report(&stage, "b", job, 1);
	uint64_t others = spool_bytes(stage.engine->spool) - update.n;
	assert_fails(engine_upload_commit(u, &receipt), ERR_UNAVAILABLE, "next round");
	assert_int_equal(spool_bytes(stage.engine->spool), others + update.n);
	assert_int_equal(ask_offset("c", &head).offset, update.n);
	stage_settle(&stage);
	assert_int_equal(ask_offset("c", &head).offset, update.n);
	head.offset = update.n;
	assert_ok(engine_upload_begin(stage.engine, "c", &head, &u, &receipt));
	assert_int_equal(spool_bytes(stage.engine->spool), update.n);
	assert_ok(engine_upload_commit(u, &receipt));
	assert_false(receipt.repeated);
	assert_int_equal(counted(job, 2, "c").base_round, 1);
	assert_int_equal(spool_bytes(stage.engine->spool), update.n);
	stage_restart(&stage);
	close_with(job, 2, "a");
	assert_false(file_exists(stage_path(&stage, &(struct spool_key){job, 1, "c"}, path)));
	assert_int_equal(spool_bytes(stage.engine->spool), 0);
	update_free(&update);
}

/* `c` has sent a whole update of round 1 at a moment when none took it. */
static uint64_t leave_whole(struct bytes *ret_update)
{
	struct wire_head head;
	struct wire_receipt receipt;
	uint64_t job = stage_start(&stage, BUFFERED "late_max: 2\n");
	struct upload *u = begin("c", job, 1, ret_update, &head);
	assert_ok(stage_add(u, *ret_update));
	stage_report(&stage, "a", job, 1);
	stage_report(&stage, "b", job, 1);
	assert_fails(engine_upload_commit(u, &receipt), ERR_UNAVAILABLE, "next round");
	stage_settle(&stage);
	assert_int_equal(spool_bytes(stage.engine->spool), ret_update->n);
	return job;
}

static void what_is_whole_gives_way_to_other_bytes(void **state)
{
	(void)state;
	struct bytes update;
	struct wire_receipt receipt;
	uint64_t job = leave_whole(&update);
	struct bytes other = stage_update(&stage, "c", 99);
	struct wire_head head = stage_head(&stage, job, 1, "c", other);
	assert_ok(stage_send(&stage, "c", &head, other, &receipt));
	struct update_row row = counted(job, 2, "c");
	assert_true(digest_equal(&row.digest, &head.digest));
	assert_int_equal(spool_bytes(stage.engine->spool), other.n);
	close_with(job, 2, "a");
	assert_int_equal(spool_bytes(stage.engine->spool), 0);
	update_free(&update);
	update_free(&other);
}

static void what_is_whole_and_counts_nowhere_any_more_goes(void **state)
{
	(void)state;
	struct bytes update;
	uint64_t job = leave_whole(&update);
	close_with(job, 2, "ab");
	assert_int_equal(spool_bytes(stage.engine->spool), update.n);
	close_with(job, 3, "ab");
	assert_int_equal(spool_bytes(stage.engine->spool), 0);
	assert_ok(engine_job_stop(stage.engine, job));
	stage_settle(&stage);
	update_free(&update);
	job = leave_whole(&update);
	assert_ok(engine_job_stop(stage.engine, job));
	stage_settle(&stage);
	assert_int_equal(spool_bytes(stage.engine->spool), 0);
	update_free(&update);
}

/* Parts of many rounds, each of which could still count: one plant has one. */
static void a_plant_leaves_one_part(void **state)
{
	(void)state;
	char path[PATH_SIZE];
	size_t size = 0;
	uint64_t job = stage_start(&stage, "rounds: 100\nquorum: 1\ngoal: 2\nlate: carry\nlate_max: 50\n");
	for (uint32_t round = 1; round <= 5; round++) {
		struct bytes update;
		struct wire_head head;
		struct upload *u = begin("c", job, round, &update, &head);
		size = update.n;
		assert_ok(stage_add(u, bytes_of(update.p, update.n - 1)));
		engine_upload_suspend(u);
		assert_int_equal(ask_offset("c", &head).offset, update.n - 1);
		close_with(job, round, "ab");
		update_free(&update);
	}
	assert_int_equal(spool_bytes(stage.engine->spool), size - 1);
	assert_int_equal(count_files(path_join(path, stage.dir, "spool"), ".part"), 1);
}

/* Reading back what was there, and syncing at the end, take as long as they take. */
static void our_own_work_is_waited_for(void **state)
{
	(void)state;
	int64_t wait = INT64_MAX;
	uint64_t job = stage_start(&stage, "");
	stage_report(&stage, "a", job, 1);
	struct run *r = stage.engine->runs[0];
	struct seat *s = run_seat(r, "c");
	s->uploading = s->working = true;
	s->upload_round = 1;
	s->progress_ms = stage_monotonic;
	assert_int_equal(run_flowing(r, stage_monotonic + 2 * RUN_FLOW_MS, &wait), 1);
	assert_int_equal(wait, RUN_FLOW_MS);
	s->working = false;
	assert_int_equal(run_flowing(r, stage_monotonic + 2 * RUN_FLOW_MS, &wait), 0);
	s->uploading = false;
}

static void who_is_not_asked_is_not_counted_late(void **state)
{
	(void)state;
	struct wire_receipt receipt;
	uint64_t job = stage_start(&stage, "rounds: 20\nquorum: 1\ncohort: 2\ngoal: 1\nlate: carry\n");
	for (uint32_t round = 1; round < 20; round++) {
		uint32_t now = members_of(job, round), next;
		char first = (now & 1) != 0 ? 'a' : 'b', second = (now & 4) != 0 ? 'c' : 'b';
		stage_report(&stage, (const char[]){first, '\0'}, job, round);
		stage_settle(&stage);
		next = members_of(job, round + 1);
		const char who[] = {second, '\0'};
		if ((next >> (second - 'a') & 1) == 0) {
			assert_fails(stage_try_report(&stage, who, job, round, &receipt), ERR_STALE, "does not ask");
			return;
		}
	}
	fail_msg("every plant was always asked");
}

/* ---- the figures ---- */

/* The first travelling element of the model of a round. */
static double element(const struct digest *model)
{
	char path[PATH_SIZE];
	struct model *m;
	assert_ok(safetensors_load(store_path(stage.store, model, path), &m));
	size_t i = 0;
	while (!stage.manifest->tensors[i].travels)
		i++;
	double v = (double)m->theta[model_param(m, stage.manifest->tensors[i].name)->offset];
	model_free(m);
	return v;
}

static double mean_of_round_two(const char *rule)
{
	char text[200];
	setup(NULL);
	snprintf(text, sizeof text, BUFFERED "late_weight: %s\n", rule);
	uint64_t job = stage_start(&stage, text);
	close_with(job, 1, "ab");
	stage_report(&stage, "c", job, 1);
	close_with(job, 2, "a");
	struct round_row row = stage_round(&stage, job, 2);
	double step = element(&row.model) - element(&row.base);
	teardown(NULL);
	return step;
}

/* Samples: a 10, c 12. step(s) = (10 qa + 12 s qc) / 22: three rules, two unknowns. */
static void staleness_damps_the_step(void **state)
{
	(void)state;
	double constant = mean_of_round_two("constant"), inverse = mean_of_round_two("inverse"),
	       root = mean_of_round_two("sqrt");
	double late = constant - inverse; /* half of what c weighs in time */
	assert_true(fabs(late) > 1e-4);
	double want = constant - 2 * late * (1 - 1 / sqrt(2));
	assert_true(fabs(root - want) < 1e-3 * fabs(late) + 1e-6);
}

static struct digest result_of(const char *text)
{
	setup(NULL);
	uint64_t job = stage_start(&stage, text);
	for (uint32_t round = 1; round <= 2; round++)
		close_with(job, round, "abc");
	struct job_row j = stage_job(&stage, job);
	assert_int_equal(j.state, WIRE_JOB_DONE);
	teardown(NULL);
	return j.model;
}

/* A buffer for all, and nobody is late: federated averaging, to the bit. */
static void buffered_and_in_time_is_plain(void **state)
{
	(void)state;
	struct digest plain = result_of(""),
		      buffered = result_of("goal: 3\ncohort: 3\nlate: carry\nlate_weight: inverse\n");
	assert_true(digest_equal(&plain, &buffered));
}

/* Where the coordinator is restarted changes nothing about what a buffered job comes to. */
static struct digest buffered_result(unsigned restart_every)
{
	setup(NULL);
	uint64_t job = stage_start(&stage, "rounds: 3\nquorum: 1\ngoal: 2\nlate: carry\n");
	static const struct {
		const char *who;
		uint32_t round;
	} reports[] = {{"a", 1}, {"b", 1}, {"c", 1}, {"a", 2}, {"b", 2}, {"c", 3}};
	unsigned step = 0;
	for (size_t i = 0; i < sizeof reports / sizeof reports[0]; i++) {
		for (int again = 0; again < 2; again++) {
			assert_int_equal(stage_report(&stage, reports[i].who, job, reports[i].round).repeated, again);
			for (int pump = 0; pump < 3; pump++) {
				if (restart_every != 0 && ++step % restart_every == 0)
					stage_restart(&stage);
				engine_pump(stage.engine);
			}
		}
		stage_settle(&stage);
	}
	struct job_row j = stage_job(&stage, job);
	assert_int_equal(j.state, WIRE_JOB_DONE);
	assert_int_equal(counted(job, 2, "c").base_round, 1);
	assert_int_equal(counted(job, 3, "b").base_round, 2);
	teardown(NULL);
	return j.model;
}

static void a_restart_after_any_step_changes_nothing(void **state)
{
	(void)state;
	struct digest expected = buffered_result(0);
	for (unsigned every = 1; every <= 5; every++) {
		struct digest got = buffered_result(every);
		assert_true(digest_equal(&got, &expected));
	}
}

/* ---- the base inside the task ---- */

static void a_small_base_comes_with_the_task(void **state)
{
	(void)state;
	struct stage_call a, b;
	char path[PATH_SIZE];
	stage_ask(&stage, "b", 0, &b);
	uint64_t job = stage_start(&stage, "");
	stage_ask(&stage, "a", 0, &a);
	assert_int_equal(a.task.kind, WIRE_TASK_TRAIN);
	assert_int_equal(b.task.kind, WIRE_TASK_TRAIN);
	assert_true(digest_equal(&a.base, &stage.source) && digest_equal(&b.base, &stage.source));
	close_with(job, 1, "abc");
	assert_int_equal(stage_round(&stage, job, 1).bytes_down, 2 * a.task.base_size);
	stage_restart(&stage);
	stage_ask(&stage, "a", 0, &a);
	assert_int_equal(a.task.round, 2);
	assert_true(digest_equal(&a.base, &a.task.base));
	/* A model that cannot be read, or is not what it was, is left to be fetched. */
	assert_ok(file_replace(store_path(stage.store, &a.task.base, path), bytes_str("spoilt"), 0600));
	stage_restart(&stage);
	stage_ask(&stage, "b", 0, &b);
	assert_int_equal(b.task.kind, WIRE_TASK_TRAIN);
	assert_true(digest_is_zero(&b.base));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_round_asks_as_many_as_it_is_told, setup, teardown),
		cmocka_unit_test_setup_teardown(the_goal_closes_a_round_before_its_deadline, setup, teardown),
		cmocka_unit_test_setup_teardown(what_cannot_be_reached_is_refused_at_the_start, setup, teardown),
		cmocka_unit_test_setup_teardown(the_goal_follows_the_cohort_down, setup, teardown),
		cmocka_unit_test_setup_teardown(a_quorum_that_is_lost_ends_the_round, setup, teardown),
		cmocka_unit_test_setup_teardown(bytes_that_flow_at_the_deadline_are_waited_for, setup, teardown),
		cmocka_unit_test_setup_teardown(bytes_that_have_stopped_are_not, setup, teardown),
		cmocka_unit_test_setup_teardown(the_grace_ends, setup, teardown),
		cmocka_unit_test_setup_teardown(late_is_refused_unless_carried, setup, teardown),
		cmocka_unit_test_setup_teardown(a_late_update_counts_in_the_open_round, setup, teardown),
		cmocka_unit_test_setup_teardown(what_comes_between_two_rounds_is_not_sent_again, setup, teardown),
		cmocka_unit_test_setup_teardown(the_wrong_base_is_refused_late_as_well, setup, teardown),
		cmocka_unit_test_setup_teardown(too_late_is_too_late, setup, teardown),
		cmocka_unit_test_setup_teardown(a_stream_goes_on_through_the_rounds, setup, teardown),
		cmocka_unit_test_setup_teardown(a_receipt_is_given_whatever_came_after, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_whole_is_not_sent_again, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_whole_gives_way_to_other_bytes, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_whole_and_counts_nowhere_any_more_goes, setup, teardown),
		cmocka_unit_test_setup_teardown(a_plant_leaves_one_part, setup, teardown),
		cmocka_unit_test_setup_teardown(our_own_work_is_waited_for, setup, teardown),
		cmocka_unit_test_setup_teardown(who_is_not_asked_is_not_counted_late, setup, teardown),
		cmocka_unit_test(staleness_damps_the_step),
		cmocka_unit_test(buffered_and_in_time_is_plain),
		cmocka_unit_test(a_restart_after_any_step_changes_nothing),
		cmocka_unit_test_setup_teardown(a_small_base_comes_with_the_task, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
