/*
 * A plant and what a coordinator may do to it: what it sends, what it refuses, what it remembers, and what ends it.
 */
#include "fixture.h"

static bool has(const char *name)
{
	char path[PATH_SIZE];
	return file_exists(path_join(path, state_dir, name));
}

static enum err count_one(void *arg, const char *name)
{
	(void)name;
	++*(size_t *)arg;
	return ERR_OK;
}

static size_t files_in(const char *name)
{
	char path[PATH_SIZE];
	size_t n = 0;
	if (file_exists(path_join(path, state_dir, name)))
		assert_ok(dir_each(path, count_one, &n));
	return n;
}

static void assert_same_upload(size_t a, size_t b)
{
	assert_true(a < coordinator.n_uploads && b < coordinator.n_uploads);
	assert_int_equal(coordinator.uploads[a].n, coordinator.uploads[b].n);
	assert_memory_equal(coordinator.uploads[a].p, coordinator.uploads[b].p, coordinator.uploads[a].n);
}

static void a_job_from_its_first_round_to_its_end(void **state)
{
	(void)state;
	struct plant p;
	coordinator_plan(&coordinator, dir, JOB TRAIN);
	coordinator_add(&coordinator, WIRE_TASK_TRAIN, 1, 1, false);
	coordinator_add(&coordinator, WIRE_TASK_FINISHED, 1, 1, true);
	plant_start(&p);
	assert_false(step(&p));
	assert_int_equal(coordinator.n_uploads, 1);
	assert_int_equal(coordinator.heads[0].update.round, 1);
	assert_int_equal(coordinator.uploads[0].n, (2 * 4 + 4 + 4 * 2 + 2) * 4);
	assert_true(step(&p));
	assert_null(participant_missed(p.participant));
	assert_true(has("model.safetensors") && has("global.safetensors"));
	assert_int_equal(coordinator.n_reports, 2);
	assert_int_equal(question(&p)->finished_job, 1);
	assert_int_equal(coordinator.asked.skip_job, 0);
	assert_int_equal(files_in("local"), 0);
	plant_stop(&p);
	plant_start(&p); /* and it is remembered */
	assert_int_equal(question(&p)->finished_job, 1);
	plant_stop(&p);
}

static void nothing_is_sent_for_a_foreign_manifest(void **state)
{
	(void)state;
	struct plant p;
	struct buf foreign;
	coordinator_plan(&coordinator, dir, JOB "local: [\"head.*\"]\n" TRAIN);
	buf_init(&foreign, MANIFEST_MAX);
	/* A coordinator that asks for the head, which is to stay at the plant. */
	coordinator_plan(&coordinator, dir, JOB TRAIN);
	assert_ok(buf_append(&foreign, coordinator.manifest.p, coordinator.manifest.n));
	coordinator_plan(&coordinator, dir, JOB "local: [\"head.*\"]\n" TRAIN);
	buf_deinit(&coordinator.manifest);
	coordinator.manifest = foreign;
	coordinator_add(&coordinator, WIRE_TASK_TRAIN, 1, 1, false);
	coordinator_add(&coordinator, WIRE_TASK_WAIT, 0, 0, false);
	coordinator_add(&coordinator, WIRE_TASK_FINISHED, 1, 3, true);
	plant_start(&p);
	assert_false(step(&p));
	question(&p);
	assert_int_equal(coordinator.asked.skip_job, 1);
	assert_int_equal(coordinator.asked.skip_round, 0);
	assert_true(step(&p)); /* its end is taken note of */
	assert_non_null(participant_missed(p.participant));
	assert_non_null(strstr(participant_missed(p.participant), "manifest"));
	assert_int_equal(coordinator.n_uploads, 0);
	assert_int_equal(coordinator.n_reports, 0);
	assert_false(has("model.safetensors"));
	assert_int_equal(question(&p)->finished_job, 1);
	assert_int_equal(coordinator.asked.skip_job, 0);
	plant_stop(&p);
}

static void a_model_of_another_digest_or_size_is_refused(void **state)
{
	(void)state;
	struct plant p;
	coordinator_plan(&coordinator, dir, JOB TRAIN);
	coordinator_add(&coordinator, WIRE_TASK_TRAIN, 1, 1, false);
	coordinator_add(&coordinator, WIRE_TASK_TRAIN, 2, 1, false);
	coordinator_add(&coordinator, WIRE_TASK_TRAIN, 3, 1, false);
	coordinator_add(&coordinator, WIRE_TASK_TRAIN, 4, 1, false)->source_size = 0;
	coordinator_add(&coordinator, WIRE_TASK_TRAIN, 5, 1, false)->source_size = (uint64_t)1 << 60;
	coordinator_add(&coordinator, WIRE_TASK_TRAIN, 6, 2, true);
	plant_start(&p);
	coordinator.model_damaged = true;
	assert_false(step(&p));
	coordinator.model_damaged = false;
	coordinator.model_longer = true;
	assert_false(step(&p));
	assert_int_equal(coordinator.asked.skip_job, 1);
	coordinator.model_longer = false;
	coordinator.fail[METHOD_FETCH] = ERR_NOT_FOUND;
	assert_false(step(&p));
	size_t fetches = coordinator.n_fetches;
	assert_false(step(&p));
	assert_false(step(&p));
	assert_int_equal(coordinator.n_fetches, fetches); /* nobody asks for that */
	assert_int_equal(coordinator.asked.skip_job, 4);
	assert_int_equal(coordinator.n_uploads, 0);
	assert_false(has("model.safetensors"));
	/* The source is good this time, the base of the round is not. */
	struct plant q;
	coordinator_add(&coordinator, WIRE_TASK_TRAIN, 7, 1, false);
	coordinator.next = 6;
	plant_stop(&p);
	plant_start(&q);
	assert_false(step(&q));
	assert_int_equal(coordinator.n_uploads, 1);
	coordinator.next = 5;
	coordinator.model_damaged = true;
	assert_false(step(&q));
	assert_int_equal(coordinator.n_uploads, 1);
	coordinator.next = coordinator.n_script;
	assert_int_equal(question(&q)->skip_job, 6);
	assert_int_equal(coordinator.asked.skip_round, 2); /* only this round */
	plant_stop(&q);
}

static void a_receipt_for_another_update_is_none(void **state)
{
	(void)state;
	struct plant p;
	coordinator_plan(&coordinator, dir, JOB TRAIN);
	coordinator_add(&coordinator, WIRE_TASK_TRAIN, 1, 1, false);
	coordinator_add(&coordinator, WIRE_TASK_TRAIN, 1, 1, false); /* one that does not listen */
	coordinator_add(&coordinator, WIRE_TASK_FINISHED, 1, 1, false);
	coordinator.receipt_of_another = true;
	plant_start(&p);
	assert_false(step(&p));
	assert_false(step(&p));
	assert_int_equal(coordinator.n_uploads, 1);
	assert_true(step(&p));
	assert_int_equal(coordinator.asked.skip_job, 1);
	assert_int_equal(coordinator.asked.skip_round, 1);
	assert_non_null(participant_missed(p.participant));
	assert_non_null(strstr(participant_missed(p.participant), "another update"));
	assert_true(has("model.safetensors")); /* the model is judged all the same */
	plant_stop(&p);
}

/* With tensors that stay here, which a round must not read from itself. */
static void a_round_that_is_repeated_sends_the_same_bytes(void **state)
{
	(void)state;
	struct plant p;
	coordinator_plan(&coordinator, dir, JOB "local: [\"head.*\"]\n" TRAIN);
	for (uint32_t round = 1; round <= 2; round++)
		for (int i = 0; i < 2; i++)
			coordinator_add(&coordinator, WIRE_TASK_TRAIN, 1, round, round == 2);
	coordinator_add(&coordinator, WIRE_TASK_FINISHED, 1, 2, true);
	for (uint32_t round = 1; round <= 2; round++) {
		coordinator.refuse_upload = ERR_LIMIT; /* it has all come, but the plant does not get to know */
		plant_start(&p);
		assert_false(step(&p));
		plant_stop(&p);
		coordinator.refuse_upload = ERR_OK;
		plant_start(&p);
		assert_false(step(&p));
		plant_stop(&p);
		assert_same_upload(2 * round - 2, 2 * round - 1);
	}
	assert_int_equal(coordinator.uploads[0].n, (2 * 4 + 4) * 4);
	assert_int_equal(files_in("local"), 2); /* of round 2, and what it began with */
	plant_start(&p);
	assert_true(step(&p));
	assert_int_equal(files_in("local"), 0);
	plant_stop(&p);
}

static void a_job_does_not_depend_on_the_one_before(void **state)
{
	(void)state;
	struct plant p;
	coordinator_plan(&coordinator, dir, JOB "local: [\"head.*\"]\n" TRAIN);
	for (uint64_t job = 1; job <= 2; job++) {
		coordinator_add(&coordinator, WIRE_TASK_TRAIN, job, 1, false);
		coordinator_add(&coordinator, WIRE_TASK_TRAIN, job, 2, true);
		coordinator_add(&coordinator, WIRE_TASK_FINISHED, job, 2, false);
	}
	plant_start(&p);
	for (uint64_t job = 1; job <= 2; job++) {
		assert_false(step(&p));
		assert_false(step(&p));
		assert_true(step(&p));
		assert_null(participant_missed(p.participant));
	}
	assert_same_upload(0, 2);
	assert_same_upload(1, 3);
	assert_int_equal(coordinator.heads[3].update.job, 2);
	/* Nor on one that runs beside it: round 2 is the first that the plant sees of jobs 4 and 5. */
	coordinator_add(&coordinator, WIRE_TASK_TRAIN, 3, 1, false);
	coordinator_add(&coordinator, WIRE_TASK_TRAIN, 4, 2, true);
	coordinator_add(&coordinator, WIRE_TASK_FINISHED, 3, 1, true);
	coordinator_add(&coordinator, WIRE_TASK_FINISHED, 4, 2, true);
	coordinator_add(&coordinator, WIRE_TASK_TRAIN, 5, 2, true);
	for (int i = 0; i < 5; i++)
		assert_int_equal(step(&p), i == 2 || i == 3);
	assert_same_upload(5, 6);
	assert_int_equal(question(&p)->finished_job, 4);
	plant_stop(&p);
}

static void damaged_progress_is_a_new_beginning(void **state)
{
	(void)state;
	static const char *const damaged[] = {"", "{", "[1]", "{\"finished_job\": \"7\"}", "{\"finished_job\": -7}"};
	struct plant p;
	coordinator_plan(&coordinator, dir, JOB TRAIN);
	for (size_t i = 0; i < sizeof damaged / sizeof *damaged; i++) {
		temp_write(state_dir, "progress.json", damaged[i], strlen(damaged[i]));
		plant_start(&p);
		assert_int_equal(question(&p)->finished_job, 0);
		plant_stop(&p);
	}
	coordinator_add(&coordinator, WIRE_TASK_FINISHED, 9, 1, false);
	plant_start(&p);
	assert_true(step(&p));
	plant_stop(&p);
	plant_start(&p);
	assert_int_equal(question(&p)->finished_job, 9);
	plant_stop(&p);
}

static void trouble_of_the_coordinator_s_own_is_waited_for(void **state)
{
	(void)state;
	struct plant p;
	coordinator_plan(&coordinator, dir, JOB TRAIN);
	coordinator_add(&coordinator, WIRE_TASK_TRAIN, 1, 1, false);
	coordinator.fail[METHOD_NEXT_TASK] = ERR_IO;
	coordinator.fail[METHOD_FETCH] = ERR_IO;
	coordinator.fail[METHOD_REPORT] = ERR_INTERNAL;
	coordinator.fail[METHOD_UPLOAD_UPDATE] = ERR_IO;
	plant_start(&p);
	assert_false(step(&p));
	assert_int_equal(coordinator.n_questions, 2);
	assert_int_equal(coordinator.n_fetches, 2);
	assert_int_equal(coordinator.n_reports, 1);
	assert_int_equal(coordinator.n_uploads, 1);
	assert_int_equal(question(&p)->skip_job, 0);
	plant_stop(&p);
}

static enum err full_disk(void *arg, enum file_op op, const char *path, size_t n, size_t *ret_short)
{
	(void)arg;
	(void)op;
	(void)n;
	(void)ret_short;
	return strncmp(path, state_dir, strlen(state_dir)) == 0 ? err_set(ERR_IO, "no space left on device") : ERR_OK;
}

static void its_own_disk_and_identity_end_it(void **state)
{
	(void)state;
	struct plant p;
	bool ended;
	coordinator_plan(&coordinator, dir, JOB TRAIN);
	for (int i = 0; i < 2; i++)
		coordinator_add(&coordinator, WIRE_TASK_TRAIN, 1, 1, false);
	plant_start(&p);
	file_set_hook(full_disk, NULL);
	enum err err = participant_step(p.participant, &ended);
	file_set_hook(NULL, NULL);
	assert_err(ERR_IO, err);
	/* A refusal in a round is told again, and then final, where a task is asked for. */
	coordinator.fail[METHOD_UPLOAD_UPDATE] = ERR_DENIED;
	assert_false(step(&p));
	coordinator.fail[METHOD_NEXT_TASK] = ERR_DENIED;
	assert_err(ERR_DENIED, participant_step(p.participant, &ended));
	plant_stop(&p);
}

static void a_round_that_diverges_is_passed_over_alone(void **state)
{
	(void)state;
	struct plant p;
	coordinator_plan(&coordinator, dir, JOB "train: {epochs: 3, batch: 4, lr: 100}\n");
	coordinator_add(&coordinator, WIRE_TASK_TRAIN, 1, 1, false);
	write_data(1e6);
	plant_start(&p);
	assert_false(step(&p));
	assert_int_equal(coordinator.n_uploads, 0);
	assert_int_equal(question(&p)->skip_job, 1);
	assert_int_equal(coordinator.asked.skip_round, 1);
	plant_stop(&p);
}

static void training_stops_when_the_round_has_closed(void **state)
{
	(void)state;
	struct plant p;
	coordinator_plan(&coordinator, dir, JOB "train: {epochs: 100000, batch: 4}\n");
	coordinator_add(&coordinator, WIRE_TASK_TRAIN, 1, 1, false)->deadline_in_ms = 1;
	plant_start(&p);
	assert_false(step(&p));
	assert_int_equal(coordinator.n_uploads, 0);
	assert_int_equal(question(&p)->skip_job, 0);
	plant_stop(&p);
}

/* Where late updates are carried, one of a round that has closed still counts. */
static void a_round_that_is_over_is_trained_for_where_late_ones_count(void **state)
{
	(void)state;
	struct plant p;
	coordinator_plan(&coordinator, dir, JOB "late: carry\ndeadline: 1h\n" TRAIN);
	coordinator_add(&coordinator, WIRE_TASK_TRAIN, 1, 1, false)->deadline_in_ms = 1;
	plant_start(&p);
	assert_false(step(&p));
	assert_int_equal(coordinator.n_uploads, 1);
	assert_int_equal(coordinator.heads[0].update.round, 1);
	plant_stop(&p);
}

static void a_base_inside_the_task_is_not_fetched(void **state)
{
	(void)state;
	struct plant p;
	coordinator_plan(&coordinator, dir, JOB TRAIN);
	coordinator_add(&coordinator, WIRE_TASK_TRAIN, 1, 1, false);
	coordinator_add(&coordinator, WIRE_TASK_TRAIN, 1, 2, true)->base_content = coordinator.other; /* borrowed */
	coordinator_add(&coordinator, WIRE_TASK_TRAIN, 1, 3, true)->base_content = coordinator.source;
	plant_start(&p);
	assert_false(step(&p));
	assert_int_equal(coordinator.n_fetches, 1); /* the source */
	assert_false(step(&p));
	assert_int_equal(coordinator.n_fetches, 1);
	assert_int_equal(coordinator.n_uploads, 2);
	assert_false(step(&p)); /* another model than it says */
	assert_int_equal(coordinator.n_uploads, 2);
	assert_int_equal(question(&p)->skip_round, 3);
	plant_stop(&p);
}

static void a_job_that_is_resumed_goes_on(void **state)
{
	(void)state;
	struct plant p;
	coordinator_plan(&coordinator, dir, JOB "local: [\"head.*\"]\n" TRAIN);
	coordinator_add(&coordinator, WIRE_TASK_TRAIN, 3, 1, false);
	coordinator_add(&coordinator, WIRE_TASK_FINISHED, 3, 1, true)->job_state = WIRE_JOB_STOPPED;
	coordinator_add(&coordinator, WIRE_TASK_FINISHED, 4, 1, false);
	coordinator_add(&coordinator, WIRE_TASK_WAIT, 0, 0, false);
	coordinator_add(&coordinator, WIRE_TASK_TRAIN, 3, 2, true);
	plant_start(&p);
	assert_false(step(&p));
	assert_true(step(&p));
	assert_int_equal(files_in("local"), 1); /* what it has learned for itself is not forgotten */
	assert_true(step(&p));
	assert_int_equal(question(&p)->finished_job, 4);
	assert_int_equal(files_in("local"), 1); /* not when another job is done either */
	coordinator.refuse_upload = ERR_LIMIT;
	assert_false(step(&p));
	plant_stop(&p);
	plant_start(&p); /* and it is remembered */
	assert_int_equal(question(&p)->finished_job, 2);
	coordinator.refuse_upload = ERR_OK;
	coordinator_add(&coordinator, WIRE_TASK_TRAIN, 3, 2, true);
	coordinator_add(&coordinator, WIRE_TASK_FINISHED, 3, 2, true);
	coordinator.next = coordinator.n_script - 2;
	assert_false(step(&p));
	assert_true(step(&p));
	assert_int_equal(files_in("local"), 0);
	assert_int_equal(question(&p)->finished_job, 3);
	plant_stop(&p);
}

/* It says how many ends of the job it has seen, which is how it hears of the next. */
static void ends_are_counted(void **state)
{
	(void)state;
	struct plant p;
	coordinator_plan(&coordinator, dir, JOB TRAIN);
	coordinator_add(&coordinator, WIRE_TASK_FINISHED, 3, 1, true)->job_ends = 1;
	coordinator_add(&coordinator, WIRE_TASK_FINISHED, 4, 1, false)->job_ends = 1;
	coordinator_add(&coordinator, WIRE_TASK_TRAIN, 3, 2, true)->job_ends = 1;
	coordinator_add(&coordinator, WIRE_TASK_FINISHED, 3, 2, true)->job_ends = 2;
	plant_start(&p);
	assert_true(step(&p) && step(&p));
	assert_false(step(&p));
	plant_stop(&p);
	plant_start(&p);
	assert_true(step(&p));
	assert_int_equal(coordinator.asked.finished_job, 3);
	assert_int_equal(coordinator.asked.finished_ends, 1);
	plant_stop(&p);
	plant_start(&p);
	assert_int_equal(question(&p)->finished_job, 3);
	assert_int_equal(coordinator.asked.finished_ends, 2);
	plant_stop(&p);
}

/* A base of its own for a round: it comes inside the task, and the update that is made from it is too late. */
static void miss_round(struct plant *p, uint64_t job, uint32_t round, int seed)
{
	char path[PATH_SIZE];
	struct buf base;
	struct model *m;
	path_join(path, dir, "model.safetensors");
	assert_ok(safetensors_load(path, &m));
	model_init(m, (uint64_t)seed);
	assert_ok(safetensors_save(path, m, NULL));
	model_free(m);
	assert_ok(file_read(path, 1 << 20, &base));
	coordinator.n_script = coordinator.next = 0;
	struct wire_task *t = coordinator_add(&coordinator, WIRE_TASK_TRAIN, job, round, false);
	t->base = digest_of(buf_bytes(&base));
	t->base_size = base.n;
	t->base_content = base;
	coordinator.refuse_upload = ERR_STALE;
	assert_false(step(p));
	buf_deinit(&base);
}

static void missed_rounds_do_not_fill_the_disk(void **state)
{
	(void)state;
	struct plant p;
	coordinator_plan(&coordinator, dir, JOB TRAIN);
	plant_start(&p);
	for (uint32_t round = 1; round <= 5; round++) {
		miss_round(&p, 1, round, 100 + (int)round);
		assert_int_equal(coordinator.n_uploads, round);
		assert_int_equal(files_in("received"), 2);
	}
	/* Nor bases that cannot be had: what has come of them goes, too. */
	for (uint32_t round = 6; round <= 9; round++) {
		struct wire_task *t = coordinator_add(&coordinator, WIRE_TASK_TRAIN, 1, round, true);
		t->base.b[0] = (uint8_t)round;
		coordinator.fail[METHOD_FETCH] = ERR_NOT_FOUND;
		assert_false(step(&p));
		assert_int_equal(coordinator.n_uploads, 5);
		assert_int_equal(files_in("received"), 2);
	}
	/* And a job whose end is all that this plant gets to see. */
	coordinator_add(&coordinator, WIRE_TASK_FINISHED, 1, 9, true);
	assert_true(step(&p));
	assert_int_equal(files_in("received"), 2);
	plant_stop(&p);
}

static void jobs_beside_each_other_keep_their_models(void **state)
{
	(void)state;
	struct plant p;
	coordinator_plan(&coordinator, dir, JOB TRAIN);
	plant_start(&p);
	miss_round(&p, 1, 1, 101);
	miss_round(&p, 2, 1, 102);
	assert_int_equal(files_in("received"), 3);
	coordinator_plan(&coordinator, dir, JOB TRAIN);
	for (uint32_t round = 2; round <= 3; round++) {
		coordinator.n_script = coordinator.next = 0;
		for (uint64_t job = 1; job <= 2; job++) {
			struct wire_task *t = coordinator_add(&coordinator, WIRE_TASK_TRAIN, job, round, job == 2);
			if (job == 2)
				t->source = t->base; /* jobs of different sources */
		}
		assert_false(step(&p));
		assert_false(step(&p));
	}
	assert_int_equal(coordinator.n_fetches, 2); /* each source once, however they take turns */
	assert_int_equal(files_in("received"), 2);
	plant_stop(&p);
}

static void only_metrics_that_are_shared_are_reported(void **state)
{
	(void)state;
	struct plant p;
	coordinator_plan(&coordinator, dir, JOB TRAIN);
	for (uint32_t round = 1; round <= 2; round++)
		coordinator_add(&coordinator, WIRE_TASK_TRAIN, 1, round, round == 2);
	plant_start_with(&p, "share: []\n");
	assert_false(step(&p));
	plant_stop(&p);
	assert_int_equal(coordinator.n_uploads, 1);
	assert_int_equal(coordinator.heads[0].update.metrics.n, 0);
	assert_int_equal(coordinator.n_reports, 0);
	plant_start_with(&p, "share: [accuracy]\n");
	assert_false(step(&p));
	plant_stop(&p);
	assert_int_equal(coordinator.heads[1].update.metrics.n, 0);
	assert_int_equal(coordinator.n_reports, 1);
	assert_int_equal(coordinator.reports[0].metrics.n, 1);
	assert_string_equal(coordinator.reports[0].metrics.v[0].name, "heldout_accuracy");
}

#define SCENARIO(name) cmocka_unit_test_setup_teardown(name, plant_fresh, plant_clean)

int main(void)
{
	const struct CMUnitTest tests[] = {
		SCENARIO(a_job_from_its_first_round_to_its_end),
		SCENARIO(nothing_is_sent_for_a_foreign_manifest),
		SCENARIO(a_model_of_another_digest_or_size_is_refused),
		SCENARIO(a_receipt_for_another_update_is_none),
		SCENARIO(a_round_that_is_repeated_sends_the_same_bytes),
		SCENARIO(a_job_does_not_depend_on_the_one_before),
		SCENARIO(damaged_progress_is_a_new_beginning),
		SCENARIO(trouble_of_the_coordinator_s_own_is_waited_for),
		SCENARIO(its_own_disk_and_identity_end_it),
		SCENARIO(a_round_that_diverges_is_passed_over_alone),
		SCENARIO(training_stops_when_the_round_has_closed),
		SCENARIO(a_round_that_is_over_is_trained_for_where_late_ones_count),
		SCENARIO(a_base_inside_the_task_is_not_fetched),
		SCENARIO(a_job_that_is_resumed_goes_on),
		SCENARIO(ends_are_counted),
		SCENARIO(missed_rounds_do_not_fill_the_disk),
		SCENARIO(jobs_beside_each_other_keep_their_models),
		SCENARIO(only_metrics_that_are_shared_are_reported),
	};
	return cmocka_run_group_tests(tests, fixture_begin, fixture_end);
}
