#include "reader_fixture.h"

#include "ml/npy.h"
#include "temp.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

/* Value of a recording that tells its class, channel and time: every value is exact in a float. */
static float stamp(size_t class, size_t channel, size_t t)
{
	return (float)(class * 1000000 + channel * 100000 + t);
}

static void write_record(const char *dir, const char *file, size_t class, size_t n, size_t channels)
{
	char path[PATH_SIZE];
	float *v = mem_array(n * channels, sizeof *v);
	for (size_t t = 0; t < n; t++)
		for (size_t c = 0; c < channels; c++)
			v[t * channels + c] = stamp(class, c, t);
	struct shape shape = {.n = channels > 1 ? 2 : 1, .d = {n, channels}};
	assert_int_equal(npy_save(path_join(path, dir, file), &shape, v), ERR_OK);
	free(v);
}

/* Marks the samples that a set uses and checks that each window is a stretch of its class's recording inside [begin,
 * end). */
static void mark(const struct dataset *d, size_t begin, size_t end, uint8_t *used, uint8_t bit, size_t n)
{
	size_t channels = d->input.d[0], length = d->input.d[1];
	for (size_t i = 0; i < d->n; i++) {
		const float *x = d->x + i * d->width;
		size_t class = d->label[i], start = (size_t)x[0] - class * 1000000;
		assert_true(start >= begin && start + length <= end);
		for (size_t c = 0; c < channels; c++)
			for (size_t t = 0; t < length; t++)
				assert_true(x[c * length + t] == stamp(class, c, start + t));
		for (size_t t = 0; t < length; t++)
			used[class * n + start + t] |= bit;
	}
}

/* No window crosses a border; training, held-out and test have no sample in common, whatever the steps and shares are.
 */
static void test_no_overlap(void **state)
{
	(void)state;
	enum { N = 2000 };
	char dir[PATH_SIZE];
	temp_make(dir);
	write_record(dir, "A.npy", 0, N, 2);
	write_record(dir, "B.npy", 1, N, 2);
	write_record(dir, "C.npy", 2, N, 2);
	struct model m = windows_of(2, 50, 3);
	const struct {
		const char *more;
		double train, test_from;
	} cases[] = {
		{"", .7, .7},
		{"step: 7", .7, .7},
		{"train: 0.5\ntest_from: 0.6\nstep: 13\nheldout: 0.5", .5, .6},
		{"labels: 5\nseed: 3", .7, .7},
		{"labels: 20\nstep: 10\nseed: 4", .7, .7},
		{"train: 0.333\ntest_from: 0.777\nstep: 90", .333, .777},
		{"labels: 3\npart: 1\nparts: 2", .7, .7},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct reader_split s;
		uint8_t used[3 * N] = {0};
		load_ok(dir, cases[i].more, &m, &s);
		assert_true(s.train->n > 0 && s.heldout->n > 0 && s.test->n > 0);
		assert_null(s.mean);
		mark(s.train, 0, (size_t)(cases[i].train * N), used, 1, N);
		mark(s.heldout, 0, (size_t)(cases[i].train * N), used, 2, N);
		mark(s.test, (size_t)(cases[i].test_from * N), N, used, 4, N);
		for (size_t k = 0; k < sizeof used; k++)
			assert_true(used[k] == 0 || used[k] == 1 || used[k] == 2 || used[k] == 4);
		/* Held-out windows come after the training windows. */
		for (size_t class = 0; class < 3; class ++) {
			size_t last_train = 0, first_heldout = N;
			for (size_t t = 0; t < N; t++) {
				last_train = used[class * N + t] == 1 ? t : last_train;
				first_heldout = used[class * N + t] == 2 && t < first_heldout ? t : first_heldout;
			}
			assert_true(last_train < first_heldout);
		}
		reader_split_free(&s);
	}
	temp_remove(dir);
}

static void test_label_counts(void **state)
{
	(void)state;
	char dir[PATH_SIZE];
	temp_make(dir);
	write_record(dir, "A.npy", 0, 1000, 1);
	write_record(dir, "B.npy", 1, 1500, 1);
	write_record(dir, "C.npy", 2, 1000, 1);
	struct model m = windows_of(1, 10, 3);
	const struct {
		size_t labels, heldout;
	} cases[] = {{1, 0}, {2, 1}, {3, 1}, {5, 1}, {7, 1}, {8, 2}, {20, 4}, {70, 14}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct reader_split s;
		char more[64];
		size_t train[3], heldout[3], test[3];
		snprintf(more, sizeof more, "labels: %zu\nseed: %zu", cases[i].labels, i);
		load_ok(dir, more, &m, &s);
		dataset_class_counts(s.train, train);
		dataset_class_counts(s.heldout, heldout);
		dataset_class_counts(s.test, test);
		for (size_t k = 0; k < 3; k++) {
			assert_int_equal(heldout[k], cases[i].heldout);
			assert_int_equal(train[k], cases[i].labels - cases[i].heldout);
			assert_int_equal(test[k], k == 1 ? 45 : 30);
		}
		reader_split_free(&s);
	}
	struct reader_split s;
	size_t counts[3];
	load_ok(dir, "labels: 0\nheldout: 0", &m, &s);
	dataset_class_counts(s.train, counts);
	assert_int_equal(counts[0], 70);
	assert_int_equal(counts[1], 105);
	assert_int_equal(s.heldout->n, 0);
	reader_split_free(&s);
	refused(dir, "labels: 71", &m, ERR_CONFIG, "A.npy: labels: 71 windows asked for, but only 70");
	refused(dir, "labels: 36\nparts: 2", &m, ERR_CONFIG, "but only 35");
	temp_remove(dir);
}

/* `classes` chooses who is labelled; the test set has every class that the model knows and the folder has. */
static void test_classes(void **state)
{
	(void)state;
	char dir[PATH_SIZE];
	temp_make(dir);
	write_record(dir, "A.npy", 0, 1000, 1);
	write_record(dir, "C.npy", 2, 1000, 1);
	write_record(dir, "unknown.npy", 0, 5, 3);
	temp_write(dir, "notes.txt", "x", 1);
	struct model m = windows_of(1, 10, 3);
	struct reader_split s;
	size_t counts[3];
	load_ok(dir, "classes: [C]", &m, &s);
	dataset_class_counts(s.train, counts);
	assert_int_equal(counts[0] + counts[1], 0);
	assert_int_equal(counts[2], 56);
	dataset_class_counts(s.test, counts);
	assert_int_equal(counts[0], 30);
	assert_int_equal(counts[1], 0);
	assert_int_equal(counts[2], 30);
	reader_split_free(&s);
	load_ok(dir, "", &m, &s);
	dataset_class_counts(s.train, counts);
	assert_true(counts[0] == 56 && counts[1] == 0 && counts[2] == 56);
	reader_split_free(&s);
	refused(dir, "classes: [B]", &m, ERR_NOT_FOUND, "no recording of class 'B'");
	refused(dir, "classes: [D]", &m, ERR_CONFIG, "'D' is not a class of the model");
	/* For evaluation only: the whole recording is test. */
	load_ok(dir, "train: 0\ntest_from: 0", &m, &s);
	assert_int_equal(s.train->n + s.heldout->n, 0);
	assert_int_equal(s.test->n, 200);
	reader_split_free(&s);
	load_ok(dir, "train: 1\ntest_from: 1", &m, &s);
	assert_int_equal(s.train->n + s.heldout->n, 200);
	assert_int_equal(s.test->n, 0);
	reader_split_free(&s);
	temp_remove(dir);
}

static bool has_window(const struct dataset *d, const float *x)
{
	for (size_t i = 0; i < d->n; i++) {
		if (memcmp(d->x + i * d->width, x, d->width * sizeof *x) == 0)
			return true;
	}
	return false;
}

/* Plants that share a recording own different windows, whatever labels and seeds they have. */
static void test_parts(void **state)
{
	(void)state;
	char dir[PATH_SIZE];
	temp_make(dir);
	write_record(dir, "A.npy", 0, 3000, 1);
	write_record(dir, "B.npy", 1, 3000, 1);
	struct model m = windows_of(1, 10, 2);
	const char *const wishes[] = {"labels: 0", "labels: 5\nseed: 1", "labels: 3\nseed: 2", "labels: 70\nseed: 9"};
	enum { WISHES = sizeof wishes / sizeof *wishes, PARTS = 3 };
	for (size_t a = 0; a < WISHES; a++) {
		for (size_t b = 0; b < WISHES; b++) {
			struct reader_split one, other;
			char text[2][128];
			snprintf(text[0], sizeof text[0], "%s\nparts: %d\npart: %d", wishes[a], PARTS, (int)a % PARTS);
			snprintf(text[1], sizeof text[1], "%s\nparts: %d\npart: %d", wishes[b], PARTS,
				 (int)(a + 1) % PARTS);
			load_ok(dir, text[0], &m, &one);
			load_ok(dir, text[1], &m, &other);
			const struct dataset *ours[] = {one.train, one.heldout},
					     *theirs[] = {other.train, other.heldout};
			for (size_t k = 0; k < 2; k++)
				for (size_t i = 0; i < ours[k]->n; i++)
					for (size_t j = 0; j < 2; j++)
						assert_false(has_window(theirs[j], ours[k]->x + i * ours[k]->width));
			/* The test part belongs to all. */
			assert_int_equal(one.test->n, other.test->n);
			reader_split_free(&one);
			reader_split_free(&other);
		}
	}
	/* Together they own all. */
	size_t all = 0;
	for (int part = 0; part < PARTS; part++) {
		struct reader_split s;
		char text[64];
		snprintf(text, sizeof text, "parts: %d\npart: %d", PARTS, part);
		load_ok(dir, text, &m, &s);
		all += s.train->n + s.heldout->n;
		reader_split_free(&s);
	}
	assert_int_equal(all, 2 * 210);
	refused(dir, "part: 2\nparts: 2", &m, ERR_CONFIG, "part: 2 of parts: 2");
	temp_remove(dir);
}

/* The choice is a function of the seed, and other classes do not change it. */
static void test_seed(void **state)
{
	(void)state;
	char dir[PATH_SIZE];
	temp_make(dir);
	write_record(dir, "A.npy", 0, 5000, 1);
	write_record(dir, "B.npy", 1, 5000, 1);
	struct model m = windows_of(1, 10, 2);
	struct reader_split a, b, c, d;
	load_ok(dir, "labels: 5\nseed: 1", &m, &a);
	load_ok(dir, "labels: 5\nseed: 1", &m, &b);
	load_ok(dir, "labels: 5\nseed: 2", &m, &c);
	load_ok(dir, "labels: 5\nseed: 1\nclasses: [A]", &m, &d);
	assert_memory_equal(a.train->x, b.train->x, a.train->n * a.train->width * sizeof *a.train->x);
	assert_memory_equal(a.heldout->x, b.heldout->x, a.heldout->n * a.heldout->width * sizeof *a.heldout->x);
	assert_memory_not_equal(a.train->x, c.train->x, a.train->n * a.train->width * sizeof *a.train->x);
	assert_int_equal(d.train->n, 4);
	assert_memory_equal(a.train->x, d.train->x, d.train->n * d.train->width * sizeof *a.train->x);
	reader_split_free(&a);
	reader_split_free(&b);
	reader_split_free(&c);
	reader_split_free(&d);
	temp_remove(dir);
}

static void test_normalize(void **state)
{
	(void)state;
	enum { N = 1000, LENGTH = 20 };
	char dir[PATH_SIZE], path[PATH_SIZE];
	temp_make(dir);
	/* Channel 0 swings around 5 and gets louder in the test part, channel 1 is constant. */
	float *v = mem_array(2 * N, sizeof *v);
	for (size_t t = 0; t < N; t++) {
		v[2 * t] = (float)(5 + (t < 700 ? 2 : 20) * sin((double)t * 1.7));
		v[2 * t + 1] = 0.1f;
	}
	struct shape shape = {.n = 2, .d = {N, 2}};
	assert_int_equal(npy_save(path_join(path, dir, "A.npy"), &shape, v), ERR_OK);
	free(v);
	struct model m = windows_of(2, LENGTH, 1);
	struct reader_split s;
	load_ok(dir, "normalize: window", &m, &s);
	const struct dataset *sets[] = {s.train, s.heldout, s.test};
	for (size_t k = 0; k < 3; k++) {
		for (size_t i = 0; i < sets[k]->n; i++) {
			const float *x = sets[k]->x + i * sets[k]->width;
			double sum = 0, squares = 0;
			for (size_t t = 0; t < LENGTH; t++) {
				sum += (double)x[t] / LENGTH;
				squares += (double)x[t] * (double)x[t] / LENGTH;
				assert_true(x[LENGTH + t] == 0);
			}
			assert_true(fabs(sum) < 1e-6 && fabs(squares - 1) < 1e-5);
		}
	}
	assert_null(s.mean);
	reader_split_free(&s);
	/* By the training windows alone: they have mean 0 and deviation 1 together, the test part is ten times as loud.
	 */
	load_ok(dir, "normalize: train", &m, &s);
	assert_int_equal(s.n_channels, 2);
	assert_true(fabs((double)s.mean[0] - 5) < 0.1 && fabs((double)s.deviation[0] - sqrt(2)) < 0.05);
	assert_true(s.mean[1] == 0.1f && s.deviation[1] == 1);
	double squares[3] = {0};
	const struct dataset *again[] = {s.train, s.heldout, s.test};
	for (size_t k = 0; k < 3; k++)
		for (size_t i = 0; i < again[k]->n; i++)
			for (size_t t = 0; t < LENGTH; t++)
				squares[k] += pow((double)again[k]->x[i * again[k]->width + t], 2) /
					      (double)(again[k]->n * LENGTH);
	assert_true(fabs(squares[0] - 1) < 1e-5);
	assert_true(fabs(squares[1] - 1) < 0.2);
	assert_true(squares[2] > 80 && squares[2] < 120);
	reader_split_free(&s);
	temp_remove(dir);
}

static void test_record_files(void **state)
{
	(void)state;
	char dir[PATH_SIZE], path[PATH_SIZE];
	temp_make(dir);
	struct model m = windows_of(2, 2, 1), flat = model_of((struct shape){.n = 1, .d = {2}}, 1);
	struct reader_split s;
	const char text[] = "t,x,y\n0,1,10\n1,2,20\n2,3,30\n3,4,40\n4,5,50\n5,6,60\n";
	temp_write(dir, "A.csv", text, strlen(text));
	load_ok(dir, "columns: [y, x]\ntrain: 0.4\ntest_from: 0.4\nheldout: 0", &m, &s);
	assert_int_equal(s.train->n, 1);
	assert_memory_equal(s.train->x, ((float[]){10, 20, 1, 2}), 4 * sizeof(float));
	assert_int_equal(s.test->n, 1);
	assert_memory_equal(s.test->x, ((float[]){40, 50, 4, 5}), 4 * sizeof(float));
	reader_split_free(&s);
	refused(dir, "", &m, ERR_SHAPE, "A.csv: 6 samples of 3 channels, the model takes 2");
	refused(dir, "columns: [x, z]", &m, ERR_CONFIG, "A.csv has no column 'z'");
	write_record(dir, "A.npy", 0, 100, 1);
	refused(dir, "", &m, ERR_CONFIG, "one recording a class");
	assert_int_equal(file_remove(path_join(path, dir, "A.csv")), ERR_OK);
	refused(dir, "columns: [x]", &m, ERR_CONFIG, "no names for its columns");
	/* A model for plain vectors takes windows of one channel too. */
	load_ok(dir, "window: 2\nstep: 3", &flat, &s);
	assert_true(s.train->x[0] == 0 && s.train->x[1] == 1 && s.train->x[2] == 3);
	reader_split_free(&s);
	/* Values that are no numbers are refused with file and place. */
	temp_write(dir, "A.npy", "rubbish", 7);
	refused(dir, "", &flat, ERR_MALFORMED, "A.npy");
	assert_int_equal(file_remove(path_join(path, dir, "A.npy")), ERR_OK);
	temp_write(dir, "A.tsv", "x\n1\nnan\n", 8);
	refused(dir, "", &flat, ERR_MALFORMED, "A.tsv:3: x: 'nan'");
	temp_write(dir, "A.tsv", "x\n1\n1e39\n", 9);
	refused(dir, "", &flat, ERR_NUMERIC, "A.tsv:3: x: 1e+39 is too large");
	temp_remove(dir);
}

static void test_refused(void **state)
{
	(void)state;
	char dir[PATH_SIZE], path[PATH_SIZE];
	temp_make(dir);
	struct model m = windows_of(1, 50, 2), values = windows_of(1, 50, 0),
		     deep = model_of((struct shape){.n = 3, .d = {1, 5, 5}}, 2);
	refused(dir, "", &m, ERR_NOT_FOUND, "no recording of a class that the model knows");
	refused(path_join(path, dir, "absent"), "", &m, ERR_NOT_FOUND, "absent");
	write_record(dir, "A.npy", 0, 100, 1);
	refused(path_join(path, dir, "A.csv"), "", &m, ERR_NOT_FOUND, "A.csv");
	temp_write(dir, "t.csv", "x,y\n1,2\n", 8);
	refused(path_join(path, dir, "t.csv"), "", &m, ERR_CONFIG, "say layout: table");
	refused(dir, "", &m, ERR_CONFIG, "A.npy: the test part has 30 samples, a window needs 50");
	refused(dir, "train: 0.4\ntest_from: 0.5", &m, ERR_CONFIG, "the training part has 40 samples");
	refused(dir, "window: 20", &m, ERR_CONFIG, "window: 20, but the model takes 50");
	refused(dir, "train: 0.8", &m, ERR_CONFIG, "begins (test_from: 0.7) before");
	refused(dir, "train: 0\nnormalize: train", &m, ERR_CONFIG, "needs a training part");
	refused(dir, "", &values, ERR_CONFIG, "needs a model with classes");
	refused(dir, "", &deep, ERR_CONFIG, "[channels, length]");
	write_record(dir, "A.npy", 0, 100, 2);
	refused(dir, "", &m, ERR_SHAPE, "2 channels, the model takes 1");
	temp_remove(dir);
}

/* The real recordings, when they are at hand: HANSA_DATA names the folder that has cwru_de12k. */
static void test_cwru(void **state)
{
	(void)state;
	static char classes[9][6] = {"B007", "B014", "B021", "IR007", "IR014", "IR021", "OR007", "OR014", "OR021"};
	char *list[9], path[PATH_SIZE];
	const char *data = getenv("HANSA_DATA");
	if (data == NULL || !file_exists(path_join(path, data, "cwru_de12k/load1/B007.npy"))) {
		print_message("HANSA_DATA names no folder with cwru_de12k: skipped\n");
		skip();
	}
	for (size_t i = 0; i < 9; i++)
		list[i] = classes[i];
	struct model m = {.input = {.n = 2, .d = {1, 1024}}, .n_outputs = 9, .classes = {.v = list, .n = 9}};
	struct reader_split s;
	size_t counts[9];
	load_ok(path_join(path, data, "cwru_de12k/load1"), "labels: 5\nnormalize: window", &m, &s);
	dataset_class_counts(s.train, counts);
	for (size_t k = 0; k < 9; k++)
		assert_int_equal(counts[k], 4);
	dataset_class_counts(s.heldout, counts);
	for (size_t k = 0; k < 9; k++)
		assert_int_equal(counts[k], 1);
	dataset_class_counts(s.test, counts);
	for (size_t k = 0; k < 9; k++)
		assert_int_equal(counts[k], 35); /* 121 000 * 0.3 / 1024 */
	reader_split_free(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_overlap),   cmocka_unit_test(test_label_counts),
		cmocka_unit_test(test_classes),      cmocka_unit_test(test_parts),
		cmocka_unit_test(test_seed),         cmocka_unit_test(test_normalize),
		cmocka_unit_test(test_record_files), cmocka_unit_test(test_refused),
		cmocka_unit_test(test_cwru),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
