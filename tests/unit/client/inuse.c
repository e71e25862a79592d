/*
 * Invariant 9: no plant gets a worse model than it has.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "client/inuse.h"
#include "ml/safetensors.h"
#include "temp.h"

#include <string.h>
#include <sys/stat.h>

static char dir[PATH_SIZE];

static struct model *linear(const char *classes)
{
	struct yaml *y;
	struct model *m;
	char *text = mem_printf(
		"name: t\ninput: [2]\nclasses: [%s]\nlayers:\n  - {op: linear, name: head, out: outputs}\n", classes);
	assert_int_equal(yaml_parse("t", bytes_str(text), &y), ERR_OK);
	assert_int_equal(model_from_yaml(yaml_root(y), &m), ERR_OK);
	yaml_free(y);
	free(text);
	return m;
}

/* A classifier by the sign of the first feature; `sharp` < 0 is always wrong. */
static struct model *judge(float sharp)
{
	struct model *m = linear("neg, pos");
	m->theta[model_param(m, "head.weight")->offset + 0] = -sharp;
	m->theta[model_param(m, "head.weight")->offset + 2] = sharp;
	return m;
}

static struct dataset *samples(size_t n)
{
	struct dataset *d;
	struct shape input = {.n = 1, .d = {2}};
	assert_int_equal(dataset_new(n, &input, 2, 0, &d), ERR_OK);
	for (size_t i = 0; i < n; i++) {
		d->label[i] = (uint32_t)(i % 2);
		d->x[2 * i] = i % 2 == 0 ? -1 : 1;
	}
	return d;
}

static bool offer(struct inuse *u, float sharp, const char *origin)
{
	struct model *m = judge(sharp);
	struct metrics score;
	bool taken;
	assert_int_equal(inuse_offer(u, m, NULL, origin, &taken, &score), ERR_OK);
	model_free(m);
	return taken;
}

static float stored_sharpness(void)
{
	char path[PATH_SIZE];
	struct model *m;
	assert_int_equal(safetensors_load(path_join(path, dir, "model.safetensors"), &m), ERR_OK);
	float sharp = m->theta[model_param(m, "head.weight")->offset + 2];
	model_free(m);
	return sharp;
}

static void a_worse_model_is_never_taken(void **state)
{
	(void)state;
	struct dataset *heldout = samples(10);
	struct model *like = judge(1);
	struct inuse *u;
	assert_int_equal(inuse_open(dir, like, heldout, &u), ERR_OK);
	assert_string_equal(inuse_origin(u), "");
	assert_true(offer(u, 1, "first"));
	assert_false(offer(u, -1, "wrong"));
	assert_true(stored_sharpness() == 1);
	assert_false(offer(u, 0.5f, "as accurate, with a larger loss"));
	assert_true(offer(u, 1, "equal"));
	assert_true(offer(u, 2, "better"));
	assert_string_equal(inuse_origin(u), "better");
	inuse_close(u);
	/* A restart knows what it has. */
	assert_int_equal(inuse_open(dir, like, heldout, &u), ERR_OK);
	assert_string_equal(inuse_origin(u), "better");
	assert_false(offer(u, 1, "worse than before the restart"));
	assert_true(stored_sharpness() == 2);
	inuse_close(u);
	model_free(like);
	dataset_free(heldout);
}

static void a_model_for_other_classes_is_kept_aside(void **state)
{
	(void)state;
	char path[PATH_SIZE];
	struct dataset *heldout = samples(4);
	struct model *other = linear("a, b"), *like = judge(1);
	struct inuse *u;
	assert_int_equal(safetensors_save(path_join(path, dir, "model.safetensors"), other, NULL), ERR_OK);
	assert_int_equal(inuse_open(dir, like, heldout, &u), ERR_OK);
	assert_int_equal(inuse_score(u)->n, 0);
	assert_true(offer(u, -1, "the only one for these classes"));
	assert_true(file_exists(path_join(path, dir, "model.previous.safetensors")));
	inuse_close(u);
	model_free(other);
	model_free(like);
	dataset_free(heldout);
}

static void without_samples_the_newest_is_taken(void **state)
{
	(void)state;
	struct dataset *none = samples(0);
	struct model *like = judge(1);
	struct inuse *u;
	assert_int_equal(inuse_open(dir, like, none, &u), ERR_OK);
	assert_true(offer(u, 1, "a"));
	assert_true(offer(u, -1, "b"));
	inuse_close(u);
	model_free(like);
	dataset_free(none);
}

/* The file that was judged is the one in use, and the one that was in use before stays whole under its other name. */
static void a_file_becomes_the_model_in_use(void **state)
{
	(void)state;
	char from[2][PATH_SIZE], path[PATH_SIZE];
	struct dataset *heldout = samples(10);
	struct model *like = judge(1);
	struct metrics score;
	struct inuse *u;
	bool taken;
	assert_int_equal(inuse_open(dir, like, heldout, &u), ERR_OK);
	for (int i = 0; i < 2; i++) {
		struct model *m = judge((float)(i + 1));
		struct inuse_file file = {.path = path_join(from[i], dir, i == 0 ? "a" : "b")};
		assert_int_equal(safetensors_save(from[i], m, NULL), ERR_OK);
		assert_int_equal(digest_file(from[i], &file.digest, NULL), ERR_OK);
		assert_int_equal(inuse_offer(u, m, &file, i == 0 ? "first" : "second", &taken, &score), ERR_OK);
		assert_true(taken);
		assert_true(stored_sharpness() == (float)(i + 1));
		model_free(m);
	}
	inuse_close(u);
	struct stat a, b, now;
	assert_int_equal(stat(from[0], &a), 0);
	assert_int_equal(stat(from[1], &b), 0);
	assert_int_equal(stat(path_join(path, dir, "model.safetensors"), &now), 0);
	assert_true(now.st_ino == b.st_ino && a.st_ino != b.st_ino);
	assert_int_equal(inuse_open(dir, like, heldout, &u), ERR_OK);
	assert_string_equal(inuse_origin(u), "second");
	/* One that is written replaces the name, not the file. */
	assert_true(offer(u, 3, "third"));
	inuse_close(u);
	struct model *second;
	assert_int_equal(safetensors_load(from[1], &second), ERR_OK);
	assert_true(second->theta[model_param(second, "head.weight")->offset + 2] == 2);
	model_free(second);
	model_free(like);
	dataset_free(heldout);
}

static enum err fail_after(void *arg, enum file_op op, const char *path, size_t n, size_t *ret_short)
{
	int *left = arg;
	(void)op;
	(void)path;
	(void)n;
	(void)ret_short;
	return (*left)-- > 0 ? ERR_OK : err_set(ERR_IO, "no space left on device");
}

static void a_full_disk_leaves_the_old_model(void **state)
{
	(void)state;
	struct dataset *heldout = samples(10);
	struct model *like = judge(1);
	struct inuse *u;
	assert_int_equal(inuse_open(dir, like, heldout, &u), ERR_OK);
	assert_true(offer(u, 1, "good"));
	inuse_close(u);
	for (int n = 0; n < 100; n++) {
		struct model *m = judge(3);
		struct metrics score;
		bool taken = false;
		assert_int_equal(inuse_open(dir, like, heldout, &u), ERR_OK);
		int left = n;
		file_set_hook(fail_after, &left);
		enum err err = inuse_offer(u, m, NULL, "next", &taken, &score);
		file_set_hook(NULL, NULL);
		inuse_close(u);
		model_free(m);
		float sharp = stored_sharpness(); /* a whole model in every case */
		assert_true(sharp == 1 || sharp == 3);
		if (err == ERR_OK) {
			assert_true(taken && n > 3);
			break;
		}
		assert_true(n < 99);
	}
	model_free(like);
	dataset_free(heldout);
}

/* Whatever the disk refuses and when. */
static void a_full_disk_leaves_a_foreign_model(void **state)
{
	(void)state;
	char path[PATH_SIZE];
	struct dataset *heldout = samples(10);
	struct model *other = linear("a, b"), *like = judge(1);
	struct inuse *u;
	for (int n = 0; n < 100; n++) {
		struct model *m = judge(3);
		struct metrics score;
		bool taken = false;
		assert_int_equal(safetensors_save(path_join(path, dir, "model.safetensors"), other, NULL), ERR_OK);
		assert_int_equal(inuse_open(dir, like, heldout, &u), ERR_OK);
		int left = n;
		file_set_hook(fail_after, &left);
		enum err err = inuse_offer(u, m, NULL, "next", &taken, &score);
		file_set_hook(NULL, NULL);
		inuse_close(u);
		model_free(m);
		assert_true(file_exists(path));
		assert_int_equal(inuse_open(dir, like, heldout, &u), ERR_OK);
		assert_true(inuse_score(u)->n > 0 || err != ERR_OK);
		inuse_close(u);
		if (err == ERR_OK) {
			assert_true(taken && n > 6);
			break;
		}
		assert_true(n < 99);
	}
	model_free(other);
	model_free(like);
	dataset_free(heldout);
}

static void a_record_of_another_model_says_nothing(void **state)
{
	(void)state;
	char path[PATH_SIZE];
	struct dataset *heldout = samples(10);
	struct model *like = judge(1), *by_hand = judge(2);
	struct inuse *u;
	assert_int_equal(inuse_open(dir, like, heldout, &u), ERR_OK);
	assert_true(offer(u, 1, "first"));
	inuse_close(u);
	assert_int_equal(safetensors_save(path_join(path, dir, "model.safetensors"), by_hand, NULL), ERR_OK);
	assert_int_equal(inuse_open(dir, like, heldout, &u), ERR_OK);
	assert_string_equal(inuse_origin(u), INUSE_UNKNOWN);
	assert_true(offer(u, 3, "next"));
	inuse_close(u);
	assert_int_equal(inuse_open(dir, like, heldout, &u), ERR_OK);
	assert_string_equal(inuse_origin(u), "next");
	inuse_close(u);
	assert_int_equal(file_remove(path_join(path, dir, "model.json")), ERR_OK);
	assert_int_equal(inuse_open(dir, like, heldout, &u), ERR_OK);
	assert_string_equal(inuse_origin(u), INUSE_UNKNOWN);
	inuse_close(u);
	model_free(like);
	model_free(by_hand);
	dataset_free(heldout);
}

static int fresh(void **state)
{
	(void)state;
	temp_make(dir);
	return 0;
}

static int clean(void **state)
{
	(void)state;
	temp_remove(dir);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_worse_model_is_never_taken, fresh, clean),
		cmocka_unit_test_setup_teardown(a_model_for_other_classes_is_kept_aside, fresh, clean),
		cmocka_unit_test_setup_teardown(a_file_becomes_the_model_in_use, fresh, clean),
		cmocka_unit_test_setup_teardown(without_samples_the_newest_is_taken, fresh, clean),
		cmocka_unit_test_setup_teardown(a_full_disk_leaves_the_old_model, fresh, clean),
		cmocka_unit_test_setup_teardown(a_full_disk_leaves_a_foreign_model, fresh, clean),
		cmocka_unit_test_setup_teardown(a_record_of_another_model_says_nothing, fresh, clean),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
