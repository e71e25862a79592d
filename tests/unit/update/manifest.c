#include "update/fixture.h"

#include "update/fixed.h"

#include <float.h>
#include <math.h>

static struct model *base;

static int setup(void **state)
{
	(void)state;
	base = model_make(tiny_model, 1);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	model_free(base);
	return 0;
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

static enum err build2(const char *freeze, const char *freeze_too, const char *local, struct manifest **ret_manifest)
{
	struct config_list f = list_of(freeze, freeze_too), l = list_of(local, NULL);
	enum err e = manifest_build(base, &f, &l, ret_manifest);
	list_free(&f);
	list_free(&l);
	return e;
}

static enum err build(const char *freeze, const char *local, struct manifest **ret_manifest)
{
	return build2(freeze, NULL, local, ret_manifest);
}

static char *text_of(const struct manifest *m)
{
	struct buf b;
	buf_init(&b, MANIFEST_MAX);
	assert_ok(manifest_canonical(m, &b));
	char *text = mem_str(buf_str(&b));
	buf_deinit(&b);
	return text;
}

/* Written out by hand: another release, and another implementation, must get these bytes. */
static const char golden[] = "{\"tensors\":["
			     "{\"name\":\"conv1.weight\",\"role\":\"trainable\",\"scale\":24,\"shape\":[4,1,5]},"
			     "{\"name\":\"conv1.bias\",\"role\":\"trainable\",\"scale\":24,\"shape\":[4]},"
			     "{\"name\":\"bn1.weight\",\"role\":\"frozen\",\"scale\":0,\"shape\":[4]},"
			     "{\"name\":\"bn1.bias\",\"role\":\"frozen\",\"scale\":0,\"shape\":[4]},"
			     "{\"name\":\"head.weight\",\"role\":\"local\",\"scale\":0,\"shape\":[3,8]},"
			     "{\"name\":\"head.bias\",\"role\":\"local\",\"scale\":0,\"shape\":[3]},"
			     "{\"name\":\"bn1.running_mean\",\"role\":\"frozen\",\"scale\":0,\"shape\":[4]},"
			     "{\"name\":\"bn1.running_var\",\"role\":\"frozen\",\"scale\":0,\"shape\":[4]}],"
			     "\"version\":1}";

static void the_canonical_form_is_fixed(void **state)
{
	(void)state;
	struct manifest *m, *again;
	assert_ok(build("bn1.*", "head.*", &m));
	char *text = text_of(m);
	assert_string_equal(text, golden);
	struct digest d = digest_of(bytes_str(text));
	assert_true(digest_equal(&d, &m->digest));
	assert_ok(manifest_parse(bytes_str(text), &again));
	assert_true(digest_equal(&again->digest, &m->digest));
	assert_int_equal(again->n_tensors, m->n_tensors);
	assert_int_equal(again->n_travel, 24);
	assert_int_equal(again->n_theta, TINY_THETA);
	for (size_t i = 0; i < m->n_tensors; i++) {
		const struct manifest_tensor *a = &m->tensors[i], *b = &again->tensors[i];
		assert_string_equal(a->name, b->name);
		assert_int_equal(a->role, b->role);
		assert_int_equal(a->scale, b->scale);
		assert_int_equal(a->offset, b->offset);
		assert_int_equal(a->n, b->n);
		assert_int_equal(a->travels, b->travels);
		assert_int_equal(a->at, b->at);
		assert_true(shape_equal(&a->shape, &b->shape));
	}
	free(text);
	manifest_free(m);
	manifest_free(again);
}

static void roles_follow_the_patterns(void **state)
{
	(void)state;
	static const struct {
		const char *freeze, *freeze_too, *local;
		enum tensor_role weight, statistic, head;
		size_t n_travel;
	} cases[] = {
		{NULL, NULL, NULL, TENSOR_TRAINABLE, TENSOR_STATISTIC, TENSOR_TRAINABLE, TINY_THETA},
		{"bn1.*", NULL, NULL, TENSOR_FROZEN, TENSOR_FROZEN, TENSOR_TRAINABLE, TINY_THETA - 16},
		{"bn1.weight", NULL, NULL, TENSOR_FROZEN, TENSOR_STATISTIC, TENSOR_TRAINABLE, TINY_THETA - 4},
		/* Weight and bias are frozen, so the statistics are, although no pattern says so. */
		{"bn1.weight", "bn1.bias", NULL, TENSOR_FROZEN, TENSOR_FROZEN, TENSOR_TRAINABLE, TINY_THETA - 16},
		{"bn1.running*", NULL, NULL, TENSOR_TRAINABLE, TENSOR_FROZEN, TENSOR_TRAINABLE, TINY_THETA - 8},
		{NULL, NULL, "bn1.*", TENSOR_LOCAL, TENSOR_LOCAL, TENSOR_TRAINABLE, TINY_THETA - 16},
		{"bn1.*", NULL, "bn1.*", TENSOR_FROZEN, TENSOR_FROZEN, TENSOR_TRAINABLE, TINY_THETA - 16},
		{"conv1.*", NULL, "bn1.*", TENSOR_LOCAL, TENSOR_LOCAL, TENSOR_TRAINABLE, 27},
		{NULL, NULL, "head.*", TENSOR_TRAINABLE, TENSOR_STATISTIC, TENSOR_LOCAL, TINY_THETA - 27},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct manifest *m;
		assert_ok(build2(cases[i].freeze, cases[i].freeze_too, cases[i].local, &m));
		assert_int_equal(tensor(m, "bn1.weight")->role, cases[i].weight);
		assert_int_equal(tensor(m, "bn1.running_mean")->role, cases[i].statistic);
		assert_int_equal(tensor(m, "bn1.running_var")->role, cases[i].statistic);
		assert_int_equal(tensor(m, "head.weight")->role, cases[i].head);
		assert_int_equal(m->n_travel, cases[i].n_travel);
		assert_int_equal(manifest_update_bytes(m), 4 * cases[i].n_travel);
		size_t at = 0;
		for (size_t k = 0; k < m->n_tensors; k++) {
			if (m->tensors[k].travels)
				assert_int_equal(m->tensors[k].at, at);
			at += m->tensors[k].travels ? m->tensors[k].n : 0;
		}
		manifest_free(m);
	}
}

static void bad_patterns_are_told(void **state)
{
	(void)state;
	struct manifest *m;
	assert_fails(build("conv2.*", NULL, &m), ERR_CONFIG, "freeze: 'conv2.*' matches no tensor");
	assert_fails(build(NULL, "head", &m), ERR_CONFIG, "local: 'head' matches no tensor");
	assert_fails(build("*", NULL, &m), ERR_CONFIG, "nothing to learn");
	assert_fails(build(NULL, "*", &m), ERR_CONFIG, "nothing to learn");
	assert_fails(build("conv1.*", "*", &m), ERR_CONFIG, "nothing to learn");
}

static void scales_leave_room(void **state)
{
	(void)state;
	static const float largest[] = {0,    0.5f, 1,     1.0000001f, 1.5f,    2,     2.1f,     1000,
					1024, 1025, 1e10f, 1.7e38f,    FLT_MAX, -3.0f, -FLT_MAX, 0x1p127f};
	const struct param *p = model_param(base, "head.bias");
	for (size_t i = 0; i < sizeof largest / sizeof largest[0]; i++) {
		struct manifest *m;
		base->theta[p->offset + 1] = largest[i];
		assert_ok(build(NULL, NULL, &m));
		int s = tensor(m, "head.bias")->scale;
		double need = 64 * fmax(1, fabs((double)largest[i]));
		assert_true(ldexp(1, FIXED_BITS - s) >= need);
		assert_true(ldexp(1, FIXED_BITS - s - 1) < need);
		assert_true(s >= FIXED_SCALE_MIN && s <= FIXED_SCALE_MAX);
		char *text = text_of(m);
		struct manifest *again;
		assert_ok(manifest_parse(bytes_str(text), &again));
		manifest_free(again);
		free(text);
		manifest_free(m);
	}
	struct manifest *m;
	base->theta[p->offset + 1] = NAN;
	assert_fails(build(NULL, NULL, &m), ERR_NUMERIC, "head.bias[1]");
	base->theta[p->offset + 1] = -INFINITY;
	assert_fails(build(NULL, NULL, &m), ERR_NUMERIC, "head.bias[1]");
	/* What does not travel needs no scale. */
	assert_ok(build("head.bias", NULL, &m));
	manifest_free(m);
}

/* `golden` with the first `from` replaced by `to`. */
static char *changed(const char *from, const char *to)
{
	const char *at = strstr(golden, from);
	assert_non_null(at);
	return mem_printf("%.*s%s%s", (int)(at - golden), golden, to, at + strlen(from));
}

static void foreign_texts_are_refused(void **state)
{
	(void)state;
	static const struct {
		const char *from, *to, *says;
	} cases[] = {
		{"{\"tensors\"", "{ \"tensors\"", "canonical"},
		{"\"version\":1}", "\"version\":1} ", "canonical"},
		{"\"version\":1}", "\"version\":1}x", "JSON"},
		{"\"version\":1", "\"version\":2", "version"},
		{"\"version\":1", "\"version\":\"1\"", "version"},
		{"\"version\":1", "\"more\":1", "version"},
		{"\"version\":1", "\"version\":1,\"x\":1", "canonical"},
		{"\"version\":1", "\"version\":1,\"version\":1", "JSON"},
		{"{\"name\"", "{\"extra\":1,\"name\"", "canonical"},
		{"\"conv1.weight\"", "\"\"", "name"},
		{"\"conv1.weight\"", "1", "name"},
		{"\"conv1.weight\"", "\"conv1 weight\"", "name"},
		{"\"conv1.weight\"", "\"conv1\\nweight\"", "name"},
		{"\"conv1.weight\"", "\"conv1\\u007fweight\"", "name"},
		{"\"conv1.weight\"", "\"conv1.bias\"", "two tensors 'conv1.bias'"},
		{"\"name\":\"conv1.weight\",", "", "name"},
		{"trainable", "trained", "role"},
		{"\"role\":\"trainable\",", "", "role"},
		{"\"scale\":24", "\"scale\":31", "scale"},
		{"\"scale\":24", "\"scale\":-105", "scale"},
		{"\"scale\":24", "\"scale\":24.0", "scale"},
		{"\"scale\":24", "\"scale\":99999999999999999999", "JSON"},
		{"\"scale\":0", "\"scale\":1", "scale"},
		{"\"scale\":24,", "", "scale"},
		{"[4,1,5]", "[4,1,0]", "dimension"},
		{"[4,1,5]", "[4,1,-5]", "dimension"},
		{"[4,1,5]", "[4,1,5.5]", "dimension"},
		{"[4,1,5]", "[4,1,9223372036854775807]", "dimension"},
		{"[4,1,5]", "[1,1,1,1,1]", "shape"},
		{"[4,1,5]", "{}", "shape"},
		{"\"shape\":[4,1,5]", "\"shape\":null", "shape"},
		{"[{\"name\":\"conv1.weight\"", "[1,{\"name\":\"conv1.weight\"", "name"},
	};
	struct manifest *m;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		char *text = changed(cases[i].from, cases[i].to);
		assert_fails(manifest_parse(bytes_str(text), &m), ERR_MALFORMED, cases[i].says);
		free(text);
	}
	for (size_t n = 0; n < sizeof golden - 1; n++)
		assert_fails(manifest_parse(bytes_of(golden, n), &m), ERR_MALFORMED, "JSON");
	static const char *const whole[] = {"[]",
					    "{}",
					    "1",
					    "null",
					    "{\"version\":1}",
					    "{\"tensors\":[],\"version\":1}",
					    "{\"tensors\":{},\"version\":1}",
					    "{\"tensors\":[null],\"version\":1}"};
	for (size_t i = 0; i < sizeof whole / sizeof whole[0]; i++)
		assert_fails(manifest_parse(bytes_str(whole[i]), &m), ERR_MALFORMED, "manifest");
}

/* {"tensors":[...],"version":1} with n tensors of `dimension` elements each. */
static void many_tensors(struct buf *b, int n, unsigned dimension)
{
	buf_reset(b);
	assert_ok(buf_printf(b, "{\"tensors\":["));
	for (int i = 0; i < n; i++)
		assert_ok(buf_printf(b, "%s{\"name\":\"a%d\",\"role\":\"trainable\",\"scale\":24,\"shape\":[%u]}",
				     i > 0 ? "," : "", i, dimension));
	assert_ok(buf_printf(b, "],\"version\":1}"));
}

static void sizes_are_limited(void **state)
{
	(void)state;
	struct manifest *m;
	struct buf b;
	buf_init(&b, 1 << 22);
	/* Each dimension fits, the tensor does not; each tensor fits, the sum does not. */
	char *huge = changed("[4,1,5]", "[65536,65536]");
	assert_fails(manifest_parse(bytes_str(huge), &m), ERR_LIMIT, "");
	free(huge);
	many_tensors(&b, 3, 1u << 30);
	assert_fails(manifest_parse(buf_bytes(&b), &m), ERR_LIMIT, "parameters");
	many_tensors(&b, MODEL_PARAMS_MAX, 2);
	assert_ok(manifest_parse(buf_bytes(&b), &m));
	assert_int_equal(m->n_travel, 2 * MODEL_PARAMS_MAX);
	manifest_free(m);
	many_tensors(&b, MODEL_PARAMS_MAX + 1, 2);
	assert_fails(manifest_parse(buf_bytes(&b), &m), ERR_MALFORMED, "2048");
	buf_reset(&b);
	while (b.n <= MANIFEST_MAX)
		assert_ok(buf_append(&b, golden, sizeof golden));
	assert_fails(manifest_parse(buf_bytes(&b), &m), ERR_LIMIT, "bytes");
	buf_deinit(&b);
}

static void another_model_is_recognised(void **state)
{
	(void)state;
	struct manifest *m;
	assert_ok(build(NULL, NULL, &m));
	assert_ok(manifest_check_model(m, base));
	static const struct {
		const char *from, *to, *says;
	} cases[] = {
		{"classes: [a, b, c]", "classes: [a, b]", "'head.weight' is 3x8"},
		{"kernel: 5", "kernel: 3", "'conv1.weight' is 4x1x5"},
		{"name: head", "name: tail", "'head.weight' in the manifest, 'tail.weight' in the model"},
		{"  - {op: batchnorm1d, name: bn1}\n", "", "the manifest has 8 tensors, the model 4"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		const char *at = strstr(tiny_model, cases[i].from);
		assert_non_null(at);
		char *text = mem_printf("%.*s%s%s", (int)(at - tiny_model), tiny_model, cases[i].to,
					at + strlen(cases[i].from));
		struct model *other = model_make(text, 1);
		assert_fails(manifest_check_model(m, other), ERR_SHAPE, cases[i].says);
		model_free(other);
		free(text);
	}
	m->tensors[0].role = TENSOR_STATISTIC;
	assert_fails(manifest_check_model(m, base), ERR_SHAPE, "'conv1.weight' cannot be statistic");
	m->tensors[0].role = TENSOR_FROZEN;
	assert_ok(manifest_check_model(m, base));
	m->tensors[7].role = TENSOR_TRAINABLE;
	assert_fails(manifest_check_model(m, base), ERR_SHAPE, "'bn1.running_var' cannot be trainable");
	manifest_free(m);
}

static void roles_have_names(void **state)
{
	(void)state;
	assert_string_equal(tensor_role_name(TENSOR_TRAINABLE), "trainable");
	assert_string_equal(tensor_role_name(TENSOR_STATISTIC), "statistic");
	assert_string_equal(tensor_role_name(TENSOR_FROZEN), "frozen");
	assert_string_equal(tensor_role_name(TENSOR_LOCAL), "local");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_canonical_form_is_fixed, setup, teardown),
		cmocka_unit_test_setup_teardown(roles_follow_the_patterns, setup, teardown),
		cmocka_unit_test_setup_teardown(bad_patterns_are_told, setup, teardown),
		cmocka_unit_test_setup_teardown(scales_leave_room, setup, teardown),
		cmocka_unit_test_setup_teardown(another_model_is_recognised, setup, teardown),
		cmocka_unit_test(foreign_texts_are_refused),
		cmocka_unit_test(sizes_are_limited),
		cmocka_unit_test(roles_have_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
