#include "update/fixture.h"

#include "update/update.h"

#include <math.h>

static struct model *base, *local;

static int setup(void **state)
{
	(void)state;
	base = model_make(tiny_model, 1);
	local = model_dup(base);
	model_move(local, 2, 0.05f);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	model_free(base);
	model_free(local);
	return 0;
}

static enum err check_at_once(const struct manifest *m, double norm_max, struct bytes update, double *ret_norm)
{
	struct update_check c;
	update_check_init(&c, m, norm_max);
	TRY(update_check_feed(&c, update));
	return update_check_end(&c, ret_norm);
}

static int32_t element(const uint8_t *bytes, size_t i)
{
	const uint8_t *p = bytes + 4 * i;
	return (int32_t)((uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24);
}

static void set_element(uint8_t *bytes, size_t i, uint32_t v)
{
	for (unsigned k = 0; k < 4; k++)
		bytes[4 * i + k] = (uint8_t)(v >> (8 * k));
}

static const struct manifest_tensor *tensor(const struct manifest *m, const char *name)
{
	for (size_t i = 0; i < m->n_tensors; i++) {
		if (strcmp(m->tensors[i].name, name) == 0)
			return &m->tensors[i];
	}
	fail_msg("no tensor %s", name);
	return NULL;
}

static void an_update_is_the_difference(void **state)
{
	(void)state;
	struct manifest *m = manifest_make(base, NULL, NULL);
	uint8_t *bytes;
	double norm, checked, square = 0;
	assert_ok(update_make(m, base->theta, local->theta, 0, &bytes, &norm));
	assert_int_equal(manifest_update_bytes(m), 4 * TINY_THETA);
	for (size_t i = 0; i < m->n_tensors; i++) {
		const struct manifest_tensor *t = &m->tensors[i];
		for (size_t k = 0; k < t->n; k++) {
			double delta = (double)(local->theta[t->offset + k] - base->theta[t->offset + k]);
			double q = fixed_decode(element(bytes, t->at + k), t->scale);
			assert_true(fabs(q - delta) <= ldexp(0.5, -t->scale));
			square += t->role == TENSOR_TRAINABLE ? delta * delta : 0;
		}
	}
	assert_ok(check_at_once(m, 0, bytes_of(bytes, manifest_update_bytes(m)), &checked));
	assert_true(fabs(norm - sqrt(square)) < 1e-12);
	assert_true(fabs(checked - norm) < 1e-5);
	free(bytes);
	manifest_free(m);
}

static void only_what_travels_is_sent(void **state)
{
	(void)state;
	struct manifest *m = manifest_make(base, "conv1.*", "bn1.*");
	uint8_t *a, *b;
	assert_int_equal(manifest_update_bytes(m), 4 * (24 + 3));
	assert_ok(update_make(m, base->theta, local->theta, 0, &a, NULL));
	for (size_t i = 0; i < m->n_tensors; i++) {
		const struct manifest_tensor *t = &m->tensors[i];
		for (size_t k = 0; !t->travels && k < t->n; k++)
			local->theta[t->offset + k] = 12345;
	}
	assert_ok(update_make(m, base->theta, local->theta, 0, &b, NULL));
	assert_memory_equal(a, b, manifest_update_bytes(m));
	free(a);
	free(b);
	manifest_free(m);
}

static void a_clipped_update_is_never_over_its_norm(void **state)
{
	(void)state;
	struct manifest *m = manifest_make(base, NULL, NULL);
	double before, after;
	uint8_t *bytes;
	struct rng r;
	rng_seed(&r, 3);
	for (unsigned run = 0; run < 500; run++) {
		double clip = exp(8 * rng_uniform(&r) - 7);
		memcpy(local->theta, base->theta, base->n_theta * sizeof *base->theta);
		model_move(local, run, 0.2f);
		if (run % 3 == 0) {
			/* Just at the limit, where only rounding decides. */
			assert_ok(update_make(m, base->theta, local->theta, 0, &bytes, &before));
			free(bytes);
			clip = before;
		}
		assert_ok(update_make(m, base->theta, local->theta, clip, &bytes, &before));
		assert_ok(check_at_once(m, clip, bytes_of(bytes, manifest_update_bytes(m)), &after));
		assert_true(after <= clip);
		assert_true(after >= fmin(clip, before) * 0.999 - 1e-6);
		/* Statistics are not scaled. */
		const struct manifest_tensor *t = tensor(m, "bn1.running_mean");
		double delta = (double)(local->theta[t->offset] - base->theta[t->offset]);
		assert_true(fabs(fixed_decode(element(bytes, t->at), t->scale) - delta) <= ldexp(0.5, -t->scale));
		free(bytes);
	}
	assert_fails(update_make(m, base->theta, local->theta, 1e-12, &bytes, NULL), ERR_NUMERIC, "resolution");
	/* Nothing learned: nothing to clip, whatever the limit. */
	assert_ok(update_make(m, base->theta, base->theta, 1e-12, &bytes, &before));
	assert_true(before == 0);
	free(bytes);
	manifest_free(m);
}

static void making_names_the_tensor_that_is_wrong(void **state)
{
	(void)state;
	struct manifest *m = manifest_make(base, NULL, NULL);
	uint8_t *untouched = (uint8_t *)m, *bytes = untouched;
	const struct manifest_tensor *t = tensor(m, "head.weight");
	static const float values[] = {NAN, INFINITY, -INFINITY, 65, -65};
	for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
		local->theta[t->offset + 17] = values[i];
		assert_fails(update_make(m, base->theta, local->theta, 0, &bytes, NULL), ERR_NUMERIC,
			     "head.weight[17]: ");
		if (!isfinite(values[i]))
			assert_fails(update_make(m, base->theta, local->theta, 1, &bytes, NULL), ERR_NUMERIC,
				     "not finite");
	}
	assert_ptr_equal(bytes, untouched);
	manifest_free(m);
}

static void the_cut_does_not_matter(void **state)
{
	(void)state;
	struct manifest *m = manifest_make(base, "conv1.weight", "head.bias");
	size_t n = manifest_update_bytes(m);
	struct rng r;
	rng_seed(&r, 4);
	for (unsigned run = 0; run < 2000; run++) {
		uint8_t *bytes;
		double at_once = -1, in_pieces = -1;
		model_move(local, run, 0.01f);
		assert_ok(update_make(m, base->theta, local->theta, 0, &bytes, NULL));
		size_t len = n;
		if (run % 4 == 1)
			set_element(bytes, rng_below(&r, n / 4), 0x7fc00000);
		if (run % 5 == 1)
			len -= rng_below(&r, n);
		if (run % 7 == 1) {
			len = n + 1 + rng_below(&r, 9);
			bytes = mem_grow(bytes, len, 1);
			memset(bytes + n, 0, len - n);
		}
		double norm_max = run % 3 == 1 ? 0.2 : 0;
		struct update_check c;
		update_check_init(&c, m, norm_max);
		enum err e = update_check_feed(&c, bytes_of(bytes, len));
		if (e == ERR_OK)
			e = update_check_end(&c, &at_once);
		char *text = mem_str(e == ERR_OK ? "" : err_text());
		update_check_init(&c, m, norm_max);
		enum err f = ERR_OK;
		for (size_t at = 0; f == ERR_OK && at < len;) {
			size_t k = rng_below(&r, run % 2 ? 10 : 100);
			k = k < len - at ? k : len - at;
			f = update_check_feed(&c, bytes_of(bytes + at, k));
			assert_true(c.n_rest <= 3);
			at += k;
		}
		if (f == ERR_OK)
			f = update_check_end(&c, &in_pieces);
		assert_int_equal(e, f);
		assert_string_equal(text, f == ERR_OK ? "" : err_text());
		assert_memory_equal(&at_once, &in_pieces, sizeof at_once);
		free(text);
		free(bytes);
	}
	manifest_free(m);
}

static void what_cannot_be_is_refused_and_stays_refused(void **state)
{
	(void)state;
	struct manifest *m = manifest_make(base, NULL, NULL);
	size_t n = manifest_update_bytes(m);
	double norm;
	uint8_t *bytes, longer[4 * TINY_THETA + 8] = {0};
	static const uint32_t bad[] = {
		0x7fc00000 /* NaN */,   0x7f800000 /* infinity */,      0x7fffffff, 0x80000000,
		0xbf800000 /* -1.0f */, 0x40000001 /* FIXED_MAX + 1 */, 0xbfffffff /* -FIXED_MAX - 1 */};
	assert_ok(update_make(m, base->theta, local->theta, 0, &bytes, NULL));
	const struct manifest_tensor *t = tensor(m, "bn1.running_var");
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct update_check c;
		update_check_init(&c, m, 0);
		set_element(bytes, t->at + 2, bad[i]);
		assert_fails(update_check_feed(&c, bytes_of(bytes, n)), ERR_NUMERIC,
			     "bn1.running_var[2]: out of range");
		set_element(bytes, t->at + 2, 0);
		assert_fails(update_check_feed(&c, bytes_of(bytes, n)), ERR_NUMERIC, "refused before");
		assert_fails(update_check_end(&c, &norm), ERR_NUMERIC, "refused before");
	}
	for (size_t missing = 1; missing <= n; missing += missing < 9 ? 1 : 50)
		assert_fails(check_at_once(m, 0, bytes_of(bytes, n - missing), &norm), ERR_SHAPE, "bytes");
	memcpy(longer, bytes, n);
	for (size_t more = 1; more <= 8; more++)
		assert_fails(check_at_once(m, 0, bytes_of(longer, n + more), &norm), ERR_SHAPE, "manifest");
	assert_fails(check_at_once(m, 0, bytes_of(NULL, 0), &norm), ERR_SHAPE, "0 bytes");
	/* The edges are inside. */
	set_element(bytes, 0, (uint32_t)FIXED_MAX);
	set_element(bytes, 1, (uint32_t)-FIXED_MAX);
	assert_ok(check_at_once(m, 0, bytes_of(bytes, n), &norm));
	free(bytes);
	manifest_free(m);
}

static void the_norm_has_a_sharp_limit(void **state)
{
	(void)state;
	struct manifest *m = manifest_make(base, NULL, NULL);
	struct bytes update = {.n = manifest_update_bytes(m)};
	double norm, again;
	uint8_t *bytes;
	/* Statistics do not count, however far they move. */
	const struct manifest_tensor *t = tensor(m, "bn1.running_mean");
	local->theta[t->offset] += 30;
	assert_ok(update_make(m, base->theta, local->theta, 0, &bytes, NULL));
	update.p = bytes;
	assert_ok(check_at_once(m, 0, update, &norm));
	assert_true(norm > 0.1 && norm < 1);
	assert_ok(check_at_once(m, norm, update, &again));
	assert_true(norm == again);
	assert_fails(check_at_once(m, nextafter(norm, 0), update, &again), ERR_LIMIT, "norm_max");
	free(bytes);
	manifest_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(an_update_is_the_difference, setup, teardown),
		cmocka_unit_test_setup_teardown(only_what_travels_is_sent, setup, teardown),
		cmocka_unit_test_setup_teardown(a_clipped_update_is_never_over_its_norm, setup, teardown),
		cmocka_unit_test_setup_teardown(making_names_the_tensor_that_is_wrong, setup, teardown),
		cmocka_unit_test_setup_teardown(the_cut_does_not_matter, setup, teardown),
		cmocka_unit_test_setup_teardown(what_cannot_be_is_refused_and_stays_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(the_norm_has_a_sharp_limit, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
