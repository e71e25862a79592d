/*
 * Carrying parameters from one model to another: the body as a whole, the head class by class.
 */
#include "ml/gradcheck.h"

static struct model *made(const char *outputs, const char *body, uint64_t seed)
{
	char *text =
		mem_printf("input: [5]\n%s\nlayers:\n- {op: linear, name: fc, out: %s}\n- {op: batchnorm1d, name: bn}\n"
			   "- {op: linear, name: head, out: outputs}\n",
			   outputs, body);
	struct model *m = model_of(text);
	free(text);
	model_init(m, seed);
	/* Statistics are alike after an initialisation: make them telling. */
	for (size_t i = m->n_weights; i < m->n_theta; i++)
		m->theta[i] = (float)seed + (float)i;
	return m;
}

static const float *row(const struct model *m, const char *name, size_t i)
{
	const struct param *p = model_param(m, name);
	return m->theta + p->offset + i * (p->n / p->shape.d[0]);
}

static void assert_rows(const struct model *a, size_t i, const struct model *b, size_t j, bool equal)
{
	bool weights = memcmp(row(a, "head.weight", i), row(b, "head.weight", j), 4 * sizeof(float)) == 0;
	bool bias = *row(a, "head.bias", i) == *row(b, "head.bias", j);
	assert_true(weights == equal && bias == equal);
}

static void assert_body(const struct model *a, const struct model *b, bool equal)
{
	static const char *const names[] = {"fc.weight", "fc.bias", "bn.running_mean", "bn.running_var"};
	for (size_t i = 0; i < 4; i++) {
		const struct param *p = model_param(a, names[i]), *q = model_param(b, names[i]);
		assert_true((memcmp(a->theta + p->offset, b->theta + q->offset, p->n * sizeof(float)) == 0) == equal);
	}
}

static void test_rows_by_name(void **state)
{
	(void)state;
	struct model *source = made("classes: [a, b, c, d]", "4", 1), *m = made("classes: [x, d, a]", "4", 2);
	struct model *start = model_dup(m);
	size_t carried = 99;
	assert_int_equal(model_transfer(m, source, true, &carried), ERR_OK);
	assert_int_equal(carried, 2);
	assert_body(m, source, true);
	assert_rows(m, 0, start, 0, true);
	assert_rows(m, 1, source, 3, true);
	assert_rows(m, 2, source, 0, true);
	model_free(source);
	model_free(m);
	model_free(start);
}

static void test_new_head(void **state)
{
	(void)state;
	struct model *source = made("classes: [a, b]", "4", 1), *m = made("classes: [a, b]", "4", 2);
	struct model *start = model_dup(m);
	size_t carried = 99;
	assert_int_equal(model_transfer(m, source, false, &carried), ERR_OK);
	assert_int_equal(carried, 0);
	assert_body(m, source, true);
	assert_rows(m, 0, start, 0, true);
	assert_rows(m, 1, start, 1, true);
	assert_int_equal(model_transfer(m, source, true, NULL), ERR_OK);
	assert_memory_equal(m->theta, source->theta, m->n_theta * sizeof(float));
	model_free(source);
	model_free(m);
	model_free(start);
}

static void test_outputs_without_names(void **state)
{
	(void)state;
	struct model *source = made("outputs: 3", "4", 1), *m = made("outputs: 3", "4", 2),
		     *two = made("outputs: 2", "4", 3);
	struct model *classes = made("classes: [a, b, c]", "4", 4);
	size_t carried;
	assert_int_equal(model_transfer(m, source, true, &carried), ERR_OK);
	assert_int_equal(carried, 3);
	assert_memory_equal(m->theta, source->theta, m->n_theta * sizeof(float));
	struct model *start = model_dup(two);
	assert_int_equal(model_transfer(two, source, true, &carried), ERR_SHAPE);
	assert_int_equal(model_transfer(classes, source, true, &carried), ERR_SHAPE);
	assert_memory_equal(two->theta, start->theta, two->n_theta * sizeof(float));
	assert_int_equal(model_transfer(two, source, false, &carried), ERR_OK);
	assert_int_equal(model_transfer(classes, source, false, &carried), ERR_OK);
	assert_body(two, source, true);
	model_free(source);
	model_free(m);
	model_free(two);
	model_free(classes);
	model_free(start);
}

static void check_misfit(struct model *m, struct model *source, bool keep_head, const char *word)
{
	struct model *start = model_dup(m);
	size_t carried = 99;
	assert_int_equal(model_transfer(m, source, keep_head, &carried), ERR_SHAPE);
	assert_int_equal(carried, 99);
	assert_non_null(strstr(err_text(), word));
	assert_memory_equal(m->theta, start->theta, m->n_theta * sizeof(float));
	model_free(start);
	model_free(m);
	model_free(source);
}

static struct model *plain(const char *layers)
{
	char *text = mem_printf("input: [5]\nclasses: [a, b]\nlayers:\n%s", layers);
	struct model *m = model_of(text);
	free(text);
	model_init(m, 5);
	return m;
}

static void test_misfits(void **state)
{
	(void)state;
	/* The body differs in size, so does the width of the head's rows. */
	check_misfit(made("classes: [a, b]", "4", 1), made("classes: [a, b]", "6", 2), false,
		     "fc.weight is 4x5 here and 6x5");
	static const char one[] = "- {op: linear, name: one, out: 4}\n- {op: linear, name: head, out: outputs}\n";
	static const char two[] = "- {op: linear, name: two, out: 4}\n- {op: linear, name: head, out: outputs}\n";
	static const char more[] = "- {op: linear, name: one, out: 4}\n- {op: linear, name: more, out: 4}\n- {op: "
				   "linear, name: head, out: outputs}\n";
	static const char renamed[] = "- {op: linear, name: one, out: 4}\n- {op: linear, name: top, out: outputs}\n";
	check_misfit(plain(one), plain(two), true, "one.weight");
	check_misfit(plain(one), plain(more), true, "more.weight of the source model is missing here");
	check_misfit(plain(more), plain(one), true, "more.weight: the source model has no such tensor");
	check_misfit(plain(one), plain(renamed), true, "head.weight");
	struct model *m = plain(one), *source = plain(renamed);
	assert_int_equal(model_transfer(m, source, false, NULL), ERR_OK);
	model_free(m);
	model_free(source);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows_by_name),
		cmocka_unit_test(test_new_head),
		cmocka_unit_test(test_outputs_without_names),
		cmocka_unit_test(test_misfits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
