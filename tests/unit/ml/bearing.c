#include "ml/bearing.h"

#include "ml/csv.h"
#include "ml/npy.h"
#include "temp.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define PI 3.14159265358979323846

enum { SAMPLES = 120000, DECIMATE = 10, BLOCKS = SAMPLES / DECIMATE };
static const char *const classes[] = {"normal", "B007",  "B014",  "B021",  "IR007",
				      "IR014",  "IR021", "OR007", "OR014", "OR021"};
enum { CLASSES = sizeof classes / sizeof *classes };

static struct bearing_config defaults(void)
{
	struct bearing_config c;
	assert_int_equal(config_read(bearing_rows, NULL, &c), ERR_OK);
	return c;
}

static float *record(const struct bearing_config *c, int64_t plant, const char *name, size_t n)
{
	float *x = mem_array(n, sizeof *x);
	assert_int_equal(bearing_signal(c, plant, name, x, n), ERR_OK);
	return x;
}

/* Envelope: level of the second difference (which keeps the resonances and drops shaft and hum), averaged over blocks.
 */
static void envelope(const float *x, double *out)
{
	double mean = 0;
	for (size_t b = 0; b < BLOCKS; b++) {
		out[b] = 0;
		for (size_t i = b * DECIMATE; i < (b + 1) * DECIMATE; i++) {
			double d = i < 2 ? 0 : (double)x[i] - 2 * (double)x[i - 1] + (double)x[i - 2];
			out[b] += d * d;
		}
		out[b] = sqrt(out[b] / DECIMATE);
		mean += out[b] / BLOCKS;
	}
	for (size_t b = 0; b < BLOCKS; b++)
		out[b] -= mean;
}

/* Power of one line of a spectrum (Goertzel). */
static double line(const double *x, double hz, double rate)
{
	double turn = 2 * cos(2 * PI * hz / rate), a = 0, b = 0;
	for (size_t i = 0; i < BLOCKS; i++) {
		double next = x[i] + turn * a - b;
		b = a;
		a = next;
	}
	return a * a + b * b - turn * a * b;
}

static double peak(const double *x, double from, double to, double rate)
{
	double best = 0, at = 0;
	for (double hz = from; hz < to; hz += 0.1) {
		double power = line(x, hz, rate);
		if (power > best) {
			best = power;
			at = hz;
		}
	}
	return at;
}

/* The envelope spectrum of every fault peaks within 2 % of its ball-pass frequency, at the lab and at a plant. */
static void test_fault_frequencies(void **state)
{
	(void)state;
	struct bearing_config c = defaults();
	double *e = mem_array(BLOCKS, sizeof *e);
	/* Textbook multiples of the shaft speed for 9 balls of 7.94 mm on a pitch of 39.04 mm; the ball's is twice its
	 * spin. */
	const struct {
		const char *name;
		double order;
	} faults[] = {{"IR007", 5.415}, {"IR021", 5.415}, {"OR014", 3.585}, {"B021", 4.714}};
	for (int64_t plant = 0; plant <= 3; plant += 3) {
		for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
			double shaft, fault;
			float *x = record(&c, plant, faults[i].name, SAMPLES);
			envelope(x, e);
			assert_int_equal(bearing_frequencies(&c, plant, faults[i].name, &shaft, &fault), ERR_OK);
			assert_true(fabs(fault / shaft / faults[i].order - 1) < 1e-3);
			/* Sidebands lie at shaft and cage distance; the search leaves room for them. */
			double at = peak(e, 0.75 * fault, 1.25 * fault, c.rate / DECIMATE);
			if (fabs(at / fault - 1) > 0.02)
				fail_msg("plant %d %s: peak at %.1f Hz, fault frequency %.1f Hz", (int)plant,
					 faults[i].name, at, fault);
			free(x);
		}
	}
	free(e);
}

/* An inner-race defect goes through the load zone with the shaft, an outer-race defect stays in it. */
static void test_modulation(void **state)
{
	(void)state;
	struct bearing_config c = defaults();
	double *e = mem_array(BLOCKS, sizeof *e), share[2];
	const char *names[] = {"IR014", "OR014"};
	for (size_t i = 0; i < 2; i++) {
		double shaft, fault;
		float *x = record(&c, 0, names[i], SAMPLES);
		envelope(x, e);
		assert_int_equal(bearing_frequencies(&c, 0, names[i], &shaft, &fault), ERR_OK);
		double rate = c.rate / DECIMATE, at = peak(e, 0.75 * fault, 1.25 * fault, rate);
		double shaft_line = peak(e, 0.98 * shaft, 1.02 * shaft, rate);
		share[i] = line(e, shaft_line, rate) / line(e, at, rate);
		free(x);
	}
	assert_true(share[0] > 0.3);
	assert_true(share[1] < 0.02);
	free(e);
}

static void moments(const float *x, size_t n, double *ret_deviation, double *ret_kurtosis)
{
	double mean = 0, m2 = 0, m4 = 0;
	for (size_t i = 0; i < n; i++)
		mean += (double)x[i] / (double)n;
	for (size_t i = 0; i < n; i++) {
		double d = (double)x[i] - mean;
		m2 += d * d / (double)n;
		m4 += d * d * d * d / (double)n;
	}
	*ret_deviation = sqrt(m2);
	*ret_kurtosis = m4 / (m2 * m2);
}

/* Faults are impulsive and louder than a healthy bearing, larger ones louder than small ones. */
static void test_severity_of_faults(void **state)
{
	(void)state;
	struct bearing_config c = defaults();
	double deviation[CLASSES], kurtosis[CLASSES];
	for (size_t i = 0; i < CLASSES; i++) {
		float *x = record(&c, 0, classes[i], SAMPLES);
		moments(x, SAMPLES, &deviation[i], &kurtosis[i]);
		for (size_t k = 0; k < SAMPLES; k++) {
			assert_true(fabsf(x[k]) <= 10);
			/* A multiple of the converter's step, 20 g / 2^16. */
			double steps = (double)x[k] * 65536 / 20;
			assert_true(fabs(steps - rint(steps)) < 1e-2);
		}
		free(x);
	}
	assert_true(kurtosis[0] > 2 && kurtosis[0] < 4);
	for (size_t i = 1; i < CLASSES; i++) {
		assert_true(deviation[i] > 1.3 * deviation[0]);
		assert_true(kurtosis[i] > kurtosis[0] + 1);
		if (i % 3 != 1)
			assert_true(deviation[i] > deviation[i - 1]);
	}
}

static size_t differences(const float *a, const float *b, size_t n)
{
	size_t count = 0;
	for (size_t i = 0; i < n; i++)
		count += a[i] != b[i];
	return count;
}

static void test_determinism(void **state)
{
	(void)state;
	enum { N = 6000 };
	struct bearing_config c = defaults(), other = c;
	for (size_t i = 0; i < CLASSES; i++) {
		float *a = record(&c, 2, classes[i], N), *b = record(&c, 2, classes[i], N);
		float *shorter = record(&c, 2, classes[i], N / 3);
		assert_memory_equal(a, b, N * sizeof *a);
		assert_memory_equal(a, shorter, N / 3 * sizeof *a);
		other.seed = c.seed + 1;
		float *seed = record(&other, 2, classes[i], N), *plant = record(&c, 1, classes[i], N);
		assert_true(differences(a, seed, N) > N * 9 / 10);
		assert_true(differences(a, plant, N) > N * 9 / 10);
		free(a);
		free(b);
		free(shorter);
		free(seed);
		free(plant);
	}
}

/* Severity 0: plants differ only by load and chance; severity 1: by much more. */
static void test_plants_differ(void **state)
{
	(void)state;
	struct bearing_config c = defaults();
	double spread[2];
	for (int severity = 0; severity < 2; severity++) {
		double low = INFINITY, high = 0;
		c.severity = severity;
		for (int64_t plant = 0; plant <= 4; plant++) {
			double deviation, kurtosis;
			float *x = record(&c, plant, "normal", SAMPLES);
			moments(x, SAMPLES, &deviation, &kurtosis);
			low = fmin(low, deviation);
			high = fmax(high, deviation);
			free(x);
		}
		spread[severity] = high / low;
	}
	assert_true(spread[0] < 1.05);
	assert_true(spread[1] > 1.2);
	double shaft, before = INFINITY, fault;
	c.severity = 0;
	for (int64_t plant = 0; plant <= 4; plant++) {
		assert_int_equal(bearing_frequencies(&c, plant, "normal", &shaft, &fault), ERR_OK);
		assert_true(shaft < before && fault == 0);
		before = shaft;
	}
	assert_int_equal(bearing_frequencies(&c, 0, "normal", &shaft, &fault), ERR_OK);
	assert_true(fabs(shaft * 60 - 1797) < 1e-9);
}

static void test_unknown(void **state)
{
	(void)state;
	struct bearing_config c = defaults();
	float x[10];
	double shaft, fault;
	assert_int_equal(bearing_signal(&c, 0, "B028", x, 10), ERR_NOT_FOUND);
	assert_int_equal(bearing_signal(&c, 0, "", x, 10), ERR_NOT_FOUND);
	assert_int_equal(bearing_signal(&c, -1, "B007", x, 10), ERR_NOT_FOUND);
	assert_int_equal(bearing_signal(&c, c.plants + 1, "B007", x, 10), ERR_NOT_FOUND);
	assert_int_equal(bearing_frequencies(&c, 0, "B028", &shaft, &fault), ERR_NOT_FOUND);
	assert_int_equal(bearing_signal(&c, c.plants, "B007", x, 0), ERR_OK);
}

static void test_write(void **state)
{
	(void)state;
	char dir[PATH_SIZE], path[PATH_SIZE];
	struct bearing_config c = defaults();
	struct csv *index;
	c.plants = 2;
	c.seconds = 0.5;
	temp_make(dir);
	path_join(path, dir, "a/b");
	assert_int_equal(bearing_write(&c, path), ERR_OK);
	char file[PATH_SIZE];
	assert_int_equal(csv_load(path_join(file, path, "index.csv"), &index), ERR_OK);
	assert_int_equal(index->n_rows, 3 * CLASSES);
	int name = csv_column(index, "file"), class = csv_column(index, "class"), std = csv_column(index, "std_g");
	assert_true(name == 0 && class > 0 && std > 0 && csv_column(index, "rpm_recorded") > 0);
	for (size_t i = 0; i < index->n_rows; i++) {
		char **row = index->cells + i * index->n_columns;
		struct shape shape;
		float *x;
		double deviation, kurtosis, said;
		assert_string_equal(row[class], classes[i % CLASSES]);
		assert_int_equal(npy_load(path_join(file, path, row[name]), &shape, &x), ERR_OK);
		assert_true(shape.n == 1 && shape.d[0] == 6000);
		float *again = record(&c, (int64_t)(i / CLASSES), classes[i % CLASSES], 6000);
		assert_memory_equal(x, again, 6000 * sizeof *x);
		moments(x, 6000, &deviation, &kurtosis);
		assert_int_equal(csv_number(index, i, (size_t)std, &said), ERR_OK);
		assert_true(fabs(said - deviation) < 1e-5);
		free(again);
		free(x);
	}
	csv_free(index);
	temp_remove(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fault_frequencies),
		cmocka_unit_test(test_modulation),
		cmocka_unit_test(test_severity_of_faults),
		cmocka_unit_test(test_determinism),
		cmocka_unit_test(test_plants_differ),
		cmocka_unit_test(test_unknown),
		cmocka_unit_test(test_write),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
