#include "reader_fixture.h"

#include "base/file.h"
#include "temp.h"

#include <math.h>

static void test_table(void **state)
{
	(void)state;
	char dir[PATH_SIZE], path[PATH_SIZE];
	struct buf b;
	temp_make(dir);
	path_join(path, dir, "t.csv");
	buf_init(&b, 1 << 16);
	assert_int_equal(buf_printf(&b, "u;kind;v\n"), ERR_OK);
	/* Row i: class by i mod 4, where 3 is a class that the model does not know. */
	for (int i = 0; i < 400; i++)
		assert_int_equal(buf_printf(&b, "%d;%s;%d\n", i, i % 4 == 3 ? "other" : names[i % 4], 1000 - i),
				 ERR_OK);
	assert_int_equal(file_replace(path, buf_bytes(&b), 0644), ERR_OK);
	struct model m = model_of((struct shape){.n = 1, .d = {2}}, 3);
	struct reader_split s;
	load_ok(path, "layout: table\ntarget: kind\nlabels: 10", &m, &s);
	size_t counts[3];
	dataset_class_counts(s.train, counts);
	assert_true(counts[0] == 8 && counts[1] == 8 && counts[2] == 8);
	dataset_class_counts(s.heldout, counts);
	assert_true(counts[0] == 2 && counts[1] == 2 && counts[2] == 2);
	dataset_class_counts(s.test, counts);
	assert_true(counts[0] == 30 && counts[1] == 30 && counts[2] == 30);
	const struct dataset *sets[] = {s.train, s.heldout, s.test};
	for (size_t k = 0; k < 3; k++) {
		for (size_t i = 0; i < sets[k]->n; i++) {
			float u = sets[k]->x[2 * i], v = sets[k]->x[2 * i + 1];
			assert_true(u + v == 1000 && (size_t)u % 4 == sets[k]->label[i]);
			assert_true(k == 2 ? u >= 280 : u < 280);
		}
	}
	reader_split_free(&s);
	/* Columns by name, normalised by the training rows. */
	load_ok(path, "layout: table\ntarget: kind\ncolumns: [v, u]\nnormalize: train\nheldout: 0", &m, &s);
	assert_int_equal(s.n_channels, 2);
	assert_true(fabs((double)s.mean[0] - 861) < 1 && fabs((double)s.mean[1] - 139) < 1);
	assert_int_equal(s.train->n, 210);
	reader_split_free(&s);
	/* A table is normalised so when nothing is said. */
	load_ok(path, "layout: table\ntarget: kind\ncolumns: [v, u]\nnormalize: auto\nheldout: 0", &m, &s);
	assert_true(fabs((double)s.mean[0] - 861) < 1);
	reader_split_free(&s);
	refused(path, "layout: table", &m, ERR_CONFIG, "needs target");
	refused(path, "layout: table\ntarget: x", &m, ERR_CONFIG, "has no column 'x'");
	refused(path, "layout: table\ntarget: kind\ncolumns: [u, kind]", &m, ERR_CONFIG, "'kind' is the target");
	refused(path, "layout: table\ntarget: kind\ncolumns: [u]", &m, ERR_SHAPE, "1 input columns, the model takes 2");
	refused(path, "layout: table\ntarget: u", &m, ERR_NOT_FOUND, "no row with a class that the model knows");
	refused(path, "layout: table\ntarget: kind\nnormalize: window", &m, ERR_CONFIG,
		"normalize: window is for records");
	refused(path, "layout: table\ntarget: kind\nwindow: 5", &m, ERR_CONFIG, "one sample a row");
	refused(path, "layout: table\ntarget: kind\nlabels: 71", &m, ERR_CONFIG,
		"A: labels: 71 windows asked for, but only 70");
	refused(path_join(path, dir, "absent.csv"), "layout: table\ntarget: kind", &m, ERR_NOT_FOUND, "absent.csv");
	temp_write(dir, "bad.csv", "u,kind,v\n1,A,2\n3,A,x\n", 21);
	refused(path_join(path, dir, "bad.csv"), "layout: table\ntarget: kind\ntest_from: 1\ntrain: 1", &m,
		ERR_MALFORMED, "bad.csv:3: v: 'x' is not a number");
	buf_deinit(&b);
	temp_remove(dir);
}

static void test_table_regression(void **state)
{
	(void)state;
	char dir[PATH_SIZE], path[PATH_SIZE];
	struct buf b;
	temp_make(dir);
	path_join(path, dir, "t.tsv");
	buf_init(&b, 1 << 16);
	assert_int_equal(buf_printf(&b, "u\tv\ty\n"), ERR_OK);
	for (int i = 0; i < 100; i++)
		assert_int_equal(buf_printf(&b, "%d\t1\t%d.5\n", i, 2 * i), ERR_OK);
	assert_int_equal(file_replace(path, buf_bytes(&b), 0644), ERR_OK);
	struct model m = model_of((struct shape){.n = 1, .d = {2}}, 0);
	struct reader_split s;
	load_ok(path, "layout: table\ntarget: y", &m, &s);
	assert_null(s.train->label);
	assert_int_equal(s.train->n, 56);
	assert_int_equal(s.heldout->n, 14);
	assert_int_equal(s.test->n, 30);
	const struct dataset *sets[] = {s.train, s.heldout, s.test};
	for (size_t k = 0; k < 3; k++)
		for (size_t i = 0; i < sets[k]->n; i++)
			assert_true(sets[k]->target[i] == 2 * sets[k]->x[2 * i] + 0.5f);
	reader_split_free(&s);
	m.n_outputs = 2;
	refused(path, "layout: table\ntarget: y", &m, ERR_CONFIG, "one target, the model has 2 outputs");
	buf_deinit(&b);
	temp_remove(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_table_regression),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
