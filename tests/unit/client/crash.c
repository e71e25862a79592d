/*
 * A plant that loses power at every durable operation of a job and is started again: it sends the same updates, uses no half model, and
 * comes to the end of the job with the same model in use.
 */
#include "fixture.h"

#include "support/crashdisk.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { MODES_AT_ONCE = 1 };
#else
enum { MODES_AT_ONCE = CRASHDISK_MODES };
#endif

enum { ROUNDS = 2, TASKS = 3, KNOWN_MAX = 16, LOSSES_MAX = 4 };

/* What an undisturbed plant does. */
struct known {
	struct digest used[KNOWN_MAX]; /* the models that it has ever used */
	size_t n_used;
	struct digest last; /* in use at the end */
	struct digest updates[ROUNDS + 1];
};

static struct known known;

/* One run. */
struct outage {
	enum crashdisk_mode mode;
	uint64_t seed;
	uint64_t at[LOSSES_MAX]; /* operations, each counted from the start before; 0: no more */
	bool goes_on;            /* a round whose update has come in is not given again */
};

struct life {
	const struct outage *outage;
	struct crashdisk *disk;
	struct plant plant;
	size_t starts;
	size_t task; /* that the coordinator gives next */
	bool uses;   /* a model has been in use when a step had ended */
	bool ended;  /* the same of the end of the job */
};

static const char *in_state(const char *name, char out[PATH_SIZE])
{
	return path_join(out, state_dir, name);
}

static bool is_used(const struct digest *d)
{
	for (size_t i = 0; i < known.n_used; i++) {
		if (digest_equal(d, &known.used[i]))
			return true;
	}
	return false;
}

/* ---- what must hold after each loss ---- */

static void check_used(const struct life *l)
{
	char path[PATH_SIZE];
	struct digest d;
	struct model *m;
	assert_true(!l->uses || file_exists(in_state("model.safetensors", path)));
	if (!file_exists(in_state("model.safetensors", path)))
		return;
	assert_ok(safetensors_load(path, &m));
	model_free(m);
	assert_ok(digest_file(path, &d, NULL));
	assert_true(is_used(&d));
}

static struct json *read_json(const char *name)
{
	char path[PATH_SIZE];
	struct buf text;
	struct json *v;
	if (!file_exists(in_state(name, path)))
		return NULL;
	assert_ok(file_read(path, 1 << 16, &text));
	assert_ok(json_parse(buf_bytes(&text), &v));
	buf_deinit(&text);
	return v;
}

static void check_records(const struct life *l)
{
	struct json *model = read_json("model.json"), *progress = read_json("progress.json");
	const char *text;
	struct digest d;
	int64_t finished = 0, up, down;
	if (model != NULL) {
		assert_true(json_get_str(json_get(model, "sha256"), &text));
		assert_ok(digest_parse(text, &d));
		assert_true(is_used(&d));
	}
	if (progress != NULL) {
		assert_true(json_get_int(json_get(progress, "finished_job"), &finished));
		assert_true(json_get_int(json_get(progress, "bytes_up"), &up) && up >= 0);
		assert_true(json_get_int(json_get(progress, "bytes_down"), &down) && down >= 0);
	}
	assert_int_equal(finished, l->ended || finished == 1);
	json_free(model);
	json_free(progress);
}

/* A received model is called by its digest, unless it is on its way. */
static enum err check_received(void *arg, const char *name)
{
	char path[PATH_SIZE], text[DIGEST_TEXT_SIZE];
	struct digest d;
	if (strstr(name, SESSION_PART_SUFFIX) != NULL)
		return ERR_OK;
	assert_ok(digest_file(path_join(path, arg, name), &d, NULL));
	assert_int_equal(strncmp(name, digest_format(&d, text), DIGEST_TEXT_SIZE - 1), 0);
	return ERR_OK;
}

static enum err check_loads(void *arg, const char *name)
{
	char path[PATH_SIZE];
	struct model *m;
	assert_ok(safetensors_load(path_join(path, arg, name), &m));
	model_free(m);
	return ERR_OK;
}

static void check_folder(const char *name, dir_fn fn)
{
	char path[PATH_SIZE];
	if (file_exists(in_state(name, path)))
		assert_ok(dir_each(path, fn, path));
}

static void check_global(void)
{
	char path[PATH_SIZE];
	struct digest d, source = digest_of(buf_bytes(&coordinator.source)),
			 other = digest_of(buf_bytes(&coordinator.other));
	if (!file_exists(in_state("global.safetensors", path)))
		return;
	assert_ok(digest_file(path, &d, NULL));
	assert_true(digest_equal(&d, &source) || digest_equal(&d, &other));
}

static void check_state(const struct life *l)
{
	check_used(l);
	check_records(l);
	check_global();
	check_folder("received", check_received);
	check_folder("local", check_loads);
}

/* ---- a life ---- */

static void come_back(struct life *l)
{
	enum err err;
	do {
		if (l->starts > 0) {
			crashdisk_restore(l->disk);
			check_state(l);
		}
		crashdisk_arm(l->disk, l->starts < LOSSES_MAX ? l->outage->at[l->starts] : 0, l->outage->mode);
		l->starts++;
		err = plant_try_start(&l->plant, "");
		if (err == ERR_OK && crashdisk_dead(l->disk))
			plant_stop(&l->plant);
	} while (crashdisk_dead(l->disk));
	assert_ok(err);
}

/* Every update that came in is that of an undisturbed plant. */
static bool check_updates(uint32_t round)
{
	bool there = false;
	for (size_t i = 0; i < coordinator.n_uploads; i++) {
		const struct wire_head *h = &coordinator.heads[i];
		assert_true(h->update.round >= 1 && h->update.round <= ROUNDS);
		assert_true(digest_equal(&h->digest, &known.updates[h->update.round]));
		there |= h->update.round == round;
	}
	return there;
}

static void live_on(struct life *l)
{
	const struct wire_task *task = &coordinator.script[l->task];
	bool ended = false;
	coordinator.next = l->task;
	enum err err = participant_step(l->plant.participant, &ended);
	if (crashdisk_dead(l->disk)) {
		plant_stop(&l->plant);
		bool has = task->kind == WIRE_TASK_TRAIN && check_updates(task->round);
		l->task += has && l->outage->goes_on;
		come_back(l);
		return;
	}
	assert_ok(err);
	assert_int_equal(ended, task->kind == WIRE_TASK_FINISHED);
	l->uses = true;
	l->ended |= ended;
	l->task++;
}

static void forget_uploads(void)
{
	for (size_t i = 0; i < coordinator.n_uploads; i++)
		buf_deinit(&coordinator.uploads[i]);
	coordinator.n_uploads = coordinator.n_reports = 0;
}

/* The job is behind it: it says so, and says so again when it has been started once more. */
static void check_end(struct life *l)
{
	char path[PATH_SIZE];
	struct digest d;
	for (int again = 0; again < 2; again++) {
		assert_int_equal(question(&l->plant)->finished_job, 1);
		assert_int_equal(coordinator.asked.skip_job, 0);
		plant_stop(&l->plant);
		check_state(l);
		assert_ok(plant_try_start(&l->plant, ""));
	}
	plant_stop(&l->plant);
	for (uint32_t round = 1; round <= ROUNDS; round++)
		assert_true(check_updates(round));
	assert_ok(digest_file(in_state("model.safetensors", path), &d, NULL));
	assert_true(digest_equal(&d, &known.last));
}

/* Returns how many operations there were since the last start; *ret_lost: power losses. */
static uint64_t run(const struct outage *o, size_t *ret_lost)
{
	struct life l = {.outage = o};
	temp_remove(state_dir);
	assert_ok(dir_make(state_dir, 0700));
	l.disk = crashdisk_new(state_dir, o->seed);
	come_back(&l);
	while (l.task < TASKS)
		live_on(&l);
	uint64_t count = crashdisk_count(l.disk);
	crashdisk_arm(l.disk, 0, CRASHDISK_DROP);
	check_end(&l);
	crashdisk_free(l.disk);
	forget_uploads();
	*ret_lost = l.starts - 1;
	return count;
}

/* ---- the undisturbed one ---- */

/* Asked before the folder is synced: whatever has been put in place can be seen. */
static enum err note_used(void *arg, enum file_op op, const char *path, size_t n, size_t *ret_short)
{
	char model[PATH_SIZE];
	struct digest d;
	(void)arg;
	(void)path;
	(void)n;
	(void)ret_short;
	if (op != FILE_OP_DIRSYNC || !file_exists(in_state("model.safetensors", model)))
		return ERR_OK;
	assert_ok(digest_file(model, &d, NULL));
	if (!is_used(&d)) {
		assert_true(known.n_used < KNOWN_MAX);
		known.used[known.n_used++] = d;
	}
	known.last = d;
	return ERR_OK;
}

static void learn_what_is_right(void)
{
	struct plant p;
	known = (struct known){.n_used = 0};
	plant_start(&p);
	file_set_hook(note_used, NULL);
	for (size_t i = 0; i < TASKS; i++)
		(void)step(&p);
	file_set_hook(NULL, NULL);
	plant_stop(&p);
	assert_int_equal(coordinator.n_uploads, ROUNDS);
	for (size_t i = 0; i < ROUNDS; i++)
		known.updates[coordinator.heads[i].update.round] = coordinator.heads[i].digest;
	assert_true(known.n_used > 1);
	forget_uploads();
}

/* `inside`: the second base comes with its task. */
static void lose_power_anywhere(bool inside)
{
	size_t lost, runs = 0;
	coordinator_plan(&coordinator, dir,
			 JOB "local: [\"head.*\"]\npersonalise: {epochs: 3}\ntrain: {epochs: 2, batch: 8, lr: 0.05}\n");
	coordinator_add(&coordinator, WIRE_TASK_TRAIN, 1, 1, false);
	struct wire_task *second = coordinator_add(&coordinator, WIRE_TASK_TRAIN, 1, 2, true);
	if (inside)
		second->base_content = coordinator.other; /* borrowed */
	coordinator_add(&coordinator, WIRE_TASK_FINISHED, 1, 2, false);
	learn_what_is_right();
	uint64_t total = run(&(struct outage){.seed = 0}, &lost);
	assert_true(total > 30);
	for (uint64_t n = 1; n <= total; n++) {
		for (unsigned m = 0; m < MODES_AT_ONCE; m++, runs++) {
			struct outage o = {.mode = (enum crashdisk_mode)((n + m) % CRASHDISK_MODES),
					   .seed = n * 10 + m,
					   .at = {n},
					   .goes_on = n / CRASHDISK_MODES % 2 == 1};
			/* Every other time again soon, and once more. */
			if (n % 2 == 0) {
				o.at[1] = 1 + n * 5 % 13;
				o.at[2] = 1 + n * 3 % 29;
			}
			(void)run(&o, &lost);
			assert_true(lost >= 1);
		}
	}
	print_message("%llu operations, %zu runs\n", (unsigned long long)total, runs);
}

static void power_lost_anywhere_changes_nothing(void **state)
{
	(void)state;
	lose_power_anywhere(false);
}

static void nor_with_a_base_inside_the_task(void **state)
{
	(void)state;
	lose_power_anywhere(true);
}

static int fresh(void **state)
{
	(void)state;
	crashdisk_make_scratch(dir);
	plant_fresh_in_dir();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(power_lost_anywhere_changes_nothing, fresh, plant_clean),
		cmocka_unit_test_setup_teardown(nor_with_a_base_inside_the_task, fresh, plant_clean),
	};
	return cmocka_run_group_tests(tests, fixture_begin, fixture_end);
}
