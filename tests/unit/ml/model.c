#include "ml/gradcheck.h"

#include "temp.h"

static const char cnn[] = "name: bearing-cnn\n"
			  "input: [2, 64]\n"
			  "classes: [B007, IR007, OR007]\n"
			  "layers:\n"
			  "  - {op: conv1d, name: conv1, out: 4, kernel: 8, stride: 2, padding: 3}\n"
			  "  - {op: batchnorm1d, name: bn1}\n"
			  "  - {op: relu}\n"
			  "  - {op: maxpool1d, kernel: 2}\n"
			  "  - {op: conv1d, name: conv2, out: 6, kernel: 3, bias: false}\n"
			  "  - {op: batchnorm1d, name: bn2, momentum: 0.05}\n"
			  "  - {op: relu, name: top}\n"
			  "  - {op: avgpool1d, kernel: 3, stride: 2, padding: 1}\n"
			  "  - {op: adaptiveavgpool1d, out: 4}\n"
			  "  - {op: adaptivemaxpool1d, out: 2}\n"
			  "  - {op: flatten}\n"
			  "  - {op: dropout, p: 0.1}\n"
			  "  - {op: linear, name: fc, out: 5}\n"
			  "  - {op: linear, name: head, out: outputs}\n";

static void test_layout(void **state)
{
	(void)state;
	static const struct {
		const char *name, *shape;
		enum param_kind kind;
	} want[] = {
		{"conv1.weight", "4x2x8", PARAM_WEIGHT},
		{"conv1.bias", "4", PARAM_WEIGHT},
		{"bn1.weight", "4", PARAM_WEIGHT},
		{"bn1.bias", "4", PARAM_WEIGHT},
		{"conv2.weight", "6x4x3", PARAM_WEIGHT},
		{"bn2.weight", "6", PARAM_WEIGHT},
		{"bn2.bias", "6", PARAM_WEIGHT},
		{"fc.weight", "5x12", PARAM_WEIGHT},
		{"fc.bias", "5", PARAM_WEIGHT},
		{"head.weight", "3x5", PARAM_WEIGHT},
		{"head.bias", "3", PARAM_WEIGHT},
		{"bn1.running_mean", "4", PARAM_STATISTIC},
		{"bn1.running_var", "4", PARAM_STATISTIC},
		{"bn2.running_mean", "6", PARAM_STATISTIC},
		{"bn2.running_var", "6", PARAM_STATISTIC},
	};
	struct model *m = model_of(cnn);
	size_t n = sizeof want / sizeof want[0], offset = 0;
	char text[SHAPE_TEXT_SIZE];
	assert_int_equal(m->n_params, n);
	for (size_t i = 0; i < n; i++) {
		const struct param *p = &m->params[i];
		assert_string_equal(p->name, want[i].name);
		assert_string_equal(shape_format(&p->shape, text), want[i].shape);
		assert_true(p->kind == want[i].kind && p->offset == offset && !p->frozen);
		assert_int_equal(p->head, strncmp(p->name, "head.", 5) == 0);
		assert_ptr_equal(model_param(m, p->name), p);
		offset += p->n;
		if (strcmp(p->name, "head.bias") == 0)
			assert_int_equal(m->n_weights, offset);
	}
	assert_int_equal(m->n_theta, offset);
	assert_int_equal((uintptr_t)m->theta % 64, 0);
	assert_null(model_param(m, "conv1"));
	assert_int_equal(m->n_outputs, 3);
	for (size_t i = 0; i < m->n_theta; i++)
		assert_true(m->theta[i] == 0);
	model_free(m);
	model_free(NULL);
}

static void test_output_shapes(void **state)
{
	(void)state;
	static const char *const want[] = {"4x32", "4x32", "4x32", "4x16", "6x14", "6x14", "6x14",
					   "6x7",  "6x4",  "6x2",  "12",   "12",   "5",    "3"};
	struct model *m = model_of(cnn);
	char text[SHAPE_TEXT_SIZE];
	for (size_t i = 0; i < m->n_layers; i++)
		assert_string_equal(shape_format(&m->layers[i].out_shape, text), want[i]);
	model_free(m);
}

static char *described(const struct model *m)
{
	struct buf b;
	buf_init(&b, MODEL_DESCRIPTION_MAX);
	assert_int_equal(model_describe(m, &b), ERR_OK);
	char *text = mem_str(buf_str(&b));
	buf_deinit(&b);
	return text;
}

static void check_round_trip(const char *text)
{
	struct model *m = model_of(text);
	char *first = described(m);
	struct model *again = model_of(first);
	char *second = described(again);
	assert_string_equal(first, second);
	assert_true(model_same(m, again));
	assert_int_equal(m->n_theta, again->n_theta);
	free(first);
	free(second);
	model_free(m);
	model_free(again);
}

static void test_round_trip(void **state)
{
	(void)state;
	check_round_trip(cnn);
	check_round_trip("input: [3]\noutputs: 2\nlayers: [{op: linear, name: only, out: 2}]\n");
	check_round_trip("input: [3]\noutputs: 2\nlayers: [{op: linear, name: a, out: 7, bias: false}, {op: linear, "
			 "name: b, out: outputs}]\n"
			 "head: a\nname: 'null'\n");
	check_round_trip("input: [4]\nclasses: ['1', 'true', \"a: b\", 'M\xc3\xbcller \"x\" \\\\']\n"
			 "layers: [{op: linear, name: a, out: outputs}]\n");
	check_round_trip("input: [1, 4]\noutputs: 4\nlayers: [{op: flatten}]\n");
}

static void test_canonical_description(void **state)
{
	(void)state;
	struct model *m = model_of(
		"input: [3]\nclasses: [x, y]\nlayers:\n- {op: dropout}\n- {op: linear, name: f, out: outputs}\n");
	char *text = described(m);
	assert_string_equal(
		text,
		"{\"classes\":[\"x\",\"y\"],\"head\":\"f\",\"input\":[3],\"layers\":[{\"op\":\"dropout\",\"p\":0.5},"
		"{\"bias\":true,\"name\":\"f\",\"op\":\"linear\",\"out\":\"outputs\"}],\"name\":\"model\"}");
	free(text);
	model_free(m);
}

static void test_same(void **state)
{
	(void)state;
	struct model *a = model_of(cnn), *b = model_of(cnn);
	model_init(a, 1);
	assert_true(model_same(a, b)); /* parameters do not matter */
	model_free(b);
	b = model_of("name: bearing-cnn\ninput: [2, 64]\nclasses: [B007, IR007, OR007]\nlayers: [{op: flatten}, {op: "
		     "linear, name: head, out: 3}]\n");
	assert_false(model_same(a, b));
	model_free(a);
	model_free(b);
}

#define HEAD "name: m\ninput: [1, 16]\nclasses: [a, b]\nlayers:\n"

static void test_wrong_descriptions(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		enum err code;
		const char *line, *word; /* both are in the message */
	} cases[] = {
		{"[1, 2]\n", ERR_CONFIG, "bad.yaml:1:", "a map"},
		{"name: m\n", ERR_CONFIG, "bad.yaml:1:", "input"},
		{"input: [4]\noutputs: 2\n", ERR_CONFIG, "bad.yaml:1:", "layers"},
		{"input: [4]\noutputs: 2\nlayers: []\n", ERR_CONFIG, "bad.yaml:3:", "layers"},
		{"input: [4]\noutputs: 2\nlayers: 7\n", ERR_CONFIG, "bad.yaml:3:", "layers"},
		{"input: [4]\noutputs: 2\nlayers:\n- 5\n", ERR_CONFIG, "bad.yaml:4:", "'op'"},
		{"input: [4]\noutputs: 2\nlayers:\n- {op: [x]}\n", ERR_CONFIG, "bad.yaml:4:", "'op'"},
		{"\ninput: [4, 5, 6]\noutputs: 2\nlayers: [{op: relu}]\n", ERR_CONFIG, "bad.yaml:2:", "input"},
		{"input: [0]\noutputs: 2\nlayers: [{op: relu}]\n", ERR_CONFIG, "bad.yaml:1:", "input"},
		{"input: [two]\noutputs: 2\nlayers: [{op: relu}]\n", ERR_CONFIG, "bad.yaml:1:", "two"},
		{"input: [65536, 65536]\noutputs: 2\nlayers: [{op: relu}]\n", ERR_LIMIT, "bad.yaml:1:", "at most"},
		{"input: [2]\nlayers: [{op: relu}]\n", ERR_CONFIG, "bad.yaml:1:", "either"},
		{"input: [2]\noutputs: 2\nclasses: [a, b]\nlayers: [{op: relu}]\n", ERR_CONFIG,
		 "bad.yaml:1:", "either"},
		{"input: [2]\nclasses: [a]\nlayers: [{op: relu}]\n", ERR_CONFIG, "bad.yaml:2:", "one class"},
		{"input: [2]\nclasses: [a, b, a]\nlayers: [{op: relu}]\n", ERR_CONFIG,
		 "bad.yaml:2:", "'a' is there twice"},
		{"input: [2]\nclasses: [a, '']\nlayers: [{op: relu}]\n", ERR_CONFIG, "bad.yaml:2:", "0 bytes"},
		{"input: [2]\nclasses: [a, \"x\\n\"]\nlayers: [{op: relu}]\n", ERR_CONFIG, "bad.yaml:2:", "control"},
		{"input: [2]\nclasses: [a, \"x\\u2028\"]\nlayers: [{op: relu}]\n", ERR_CONFIG,
		 "bad.yaml:2:", "control"},
		{"input: [2]\nclasses: [a, \"\\u0085\"]\nlayers: [{op: relu}]\n", ERR_CONFIG, "bad.yaml:2:", "control"},
		{"input: [2]\noutputs: 2\nname: ''\nlayers: [{op: relu}]\n", ERR_CONFIG, "bad.yaml:3:", "name"},
		{"input: [2]\noutputs: 5000\nlayers: [{op: relu}]\n", ERR_CONFIG, "bad.yaml:2:", "outputs"},
		{"input: [2]\noutputs: 2\nlayer: []\nlayers: [{op: relu}]\n", ERR_CONFIG, "bad.yaml:3:", "layer"},
		{HEAD "- {op: conv2d}\n", ERR_CONFIG, "bad.yaml:5:", "did you mean 'conv1d'"},
		{HEAD "- {op: zzzzzzzzz}\n", ERR_CONFIG, "bad.yaml:5:", "no layer"},
		{HEAD "- {op: relu, slope: 1}\n", ERR_CONFIG, "bad.yaml:5:", "slope"},
		{HEAD "- {op: conv1d, name: c, out: 2}\n", ERR_CONFIG, "bad.yaml:5:", "kernel"},
		{HEAD "- {op: conv1d, out: 2, kernel: 3}\n", ERR_CONFIG, "bad.yaml:5:", "name"},
		{HEAD "- {op: conv1d, name: c, kernel: 3}\n", ERR_CONFIG, "bad.yaml:5:", "out"},
		{HEAD "- {op: conv1d, name: c, out: 0, kernel: 3}\n", ERR_CONFIG, "bad.yaml:5:", "out"},
		{HEAD "- {op: conv1d, name: c, out: 1.5, kernel: 3}\n", ERR_CONFIG, "bad.yaml:5:", "out"},
		{HEAD "- {op: conv1d, name: c, out: 70000, kernel: 3}\n", ERR_CONFIG, "bad.yaml:5:", "out"},
		{HEAD "- {op: conv1d, name: c, out: 2, kernel: 0}\n", ERR_CONFIG, "bad.yaml:5:", "kernel"},
		{HEAD "- {op: conv1d, name: c, out: 2, kernel: 3, stride: 0}\n", ERR_CONFIG, "bad.yaml:5:", "stride"},
		{HEAD "- {op: conv1d, name: c, out: 2, kernel: 3, padding: -1}\n", ERR_CONFIG,
		 "bad.yaml:5:", "padding"},
		{HEAD "- {op: conv1d, name: c, out: 2, kernel: 17}\n", ERR_SHAPE, "bad.yaml:5:", "kernel 17 is longer"},
		{HEAD "- {op: relu}\n- {op: maxpool1d, kernel: 17}\n", ERR_SHAPE, "bad.yaml:6:", "kernel 17 is longer"},
		{HEAD "- {op: maxpool1d, kernel: 3, padding: 2}\n", ERR_CONFIG, "bad.yaml:5:", "half the kernel"},
		{HEAD "- {op: flatten}\n- {op: conv1d, name: c, out: 2, kernel: 3}\n", ERR_SHAPE,
		 "bad.yaml:6:", "windows"},
		{HEAD "- {op: flatten}\n- {op: avgpool1d, kernel: 2}\n", ERR_SHAPE, "bad.yaml:6:", "windows"},
		{HEAD "- {op: flatten}\n- {op: adaptiveavgpool1d, out: 2}\n", ERR_SHAPE, "bad.yaml:6:", "windows"},
		{HEAD "- {op: linear, name: l, out: outputs}\n", ERR_SHAPE, "bad.yaml:5:", "flatten"},
		{HEAD "- {op: dropout, p: 1.5}\n", ERR_CONFIG, "bad.yaml:5:", "p"},
		{HEAD "- {op: batchnorm1d, name: 'a b'}\n", ERR_CONFIG, "bad.yaml:5:", "name"},
		{HEAD "- {op: batchnorm1d, name: n}\n- {op: batchnorm1d, name: n}\n", ERR_CONFIG,
		 "bad.yaml:6:", "line 5"},
		{HEAD "- {op: flatten}\n- {op: linear, name: l, out: 3}\n", ERR_SHAPE, "bad.yaml:6:", "2 outputs"},
		{HEAD "- {op: flatten}\n- {op: linear, name: l, out: 2}\nhead: x\n", ERR_CONFIG, "bad.yaml:7:", "head"},
		{HEAD "- {op: flatten, name: x}\n- {op: linear, name: l, out: 2}\nhead: x\n", ERR_CONFIG,
		 "bad.yaml:7:", "head"},
		{HEAD "- {op: adaptiveavgpool1d, out: 65000}\n- {op: flatten}\n- {op: linear, name: l, out: 65000}\n",
		 ERR_LIMIT, "bad.yaml:7:", "at most"},
		{HEAD "- {op: flatten}\n- {op: linear, name: l, out: 30000}\n- {op: linear, name: m, out: 30000}\n",
		 ERR_LIMIT, "bad.yaml:7:", "parameters"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct yaml *yaml;
		struct model *m = NULL;
		assert_int_equal(yaml_parse("bad.yaml", bytes_str(cases[i].text), &yaml), ERR_OK);
		enum err e = model_from_yaml(yaml_root(yaml), &m);
		yaml_free(yaml);
		assert_null(m);
		if (e != cases[i].code || strncmp(err_text(), cases[i].line, strlen(cases[i].line)) != 0 ||
		    strstr(err_text(), cases[i].word) == NULL)
			fail_msg("case %zu: %s: %s", i, err_name(e), err_text());
	}
}

static void test_too_many_layers(void **state)
{
	(void)state;
	struct buf b;
	struct yaml *yaml;
	struct model *m;
	buf_init(&b, 1 << 20);
	assert_int_equal(buf_printf(&b, "input: [2]\noutputs: 2\nlayers:\n"), ERR_OK);
	for (size_t i = 0; i < MODEL_LAYERS_MAX; i++)
		assert_int_equal(buf_printf(&b, "- {op: relu}\n"), ERR_OK);
	m = model_of(buf_str(&b));
	assert_int_equal(m->n_layers, MODEL_LAYERS_MAX);
	model_free(m);
	assert_int_equal(buf_printf(&b, "- {op: relu}\n"), ERR_OK);
	assert_int_equal(yaml_parse("many", buf_bytes(&b), &yaml), ERR_OK);
	assert_int_equal(model_from_yaml(yaml_root(yaml), &m), ERR_LIMIT);
	yaml_free(yaml);
	buf_deinit(&b);
}

static void test_load(void **state)
{
	(void)state;
	char dir[PATH_SIZE], path[PATH_SIZE];
	struct model *m;
	temp_make(dir);
	temp_write(dir, "model.yaml", cnn, strlen(cnn));
	assert_int_equal(model_load_description(path_join(path, dir, "model.yaml"), &m), ERR_OK);
	assert_string_equal(m->name, "bearing-cnn");
	model_free(m);
	assert_int_equal(model_load_description(path_join(path, dir, "absent.yaml"), &m), ERR_NOT_FOUND);
	temp_write(dir, "bad.yaml", "input: {", 8);
	assert_int_equal(model_load_description(path_join(path, dir, "bad.yaml"), &m), ERR_CONFIG);
	temp_remove(dir);
}

static void check_uniform(const struct model *m, const char *name, double bound)
{
	const struct param *p = model_param(m, name);
	double sum = 0, most = 0;
	for (size_t i = 0; i < p->n; i++) {
		double v = (double)m->theta[p->offset + i];
		sum += v * v;
		most = fabs(v) > most ? fabs(v) : most;
	}
	/* Variance of a uniform: bound^2 / 3; of n values it is off by 0.9/sqrt(n) of itself. */
	double deviation = 0.9 / sqrt((double)p->n);
	assert_true(most <= bound && most > 0.9 * bound);
	assert_true(fabs(sum / (double)p->n / (bound * bound / 3) - 1) < 5 * deviation);
}

static void test_init(void **state)
{
	(void)state;
	struct model *m =
		model_of("input: [4, 100]\noutputs: 10\nlayers:\n- {op: conv1d, name: c, out: 50, kernel: 5}\n"
			 "- {op: batchnorm1d, name: n}\n- {op: flatten}\n- {op: linear, name: l, out: 10}\n");
	model_init(m, 42);
	check_uniform(m, "c.weight", 1 / sqrt(4 * 5));
	check_uniform(m, "c.bias", 1 / sqrt(4 * 5));
	check_uniform(m, "l.weight", 1 / sqrt(50 * 96));
	static const char *const names[] = {"n.weight", "n.bias", "n.running_mean", "n.running_var"};
	static const float values[] = {1, 0, 0, 1};
	for (size_t i = 0; i < 4; i++) {
		const struct param *p = model_param(m, names[i]);
		for (size_t j = 0; j < p->n; j++)
			assert_true(m->theta[p->offset + j] == values[i]);
	}
	model_free(m);
}

/* A tensor's values depend on the seed and its name alone. */
static void test_init_streams(void **state)
{
	(void)state;
	struct model *a = model_of(
		"input: [6]\noutputs: 2\nlayers:\n- {op: linear, name: x, out: 6}\n- {op: linear, name: y, out: 2}\n");
	struct model *b = model_of(
		"input: [6]\noutputs: 2\nlayers:\n- {op: linear, name: new, out: 6}\n- {op: linear, name: x, out: 6}\n"
		"- {op: relu}\n- {op: linear, name: y, out: 2}\n");
	model_init(a, 7);
	model_init(b, 7);
	for (size_t i = 0; i < a->n_params; i++) {
		const struct param *p = &a->params[i], *q = model_param(b, p->name);
		assert_memory_equal(a->theta + p->offset, b->theta + q->offset, p->n * sizeof(float));
	}
	const struct param *p = model_param(b, "x.weight"), *q = model_param(b, "new.weight");
	assert_memory_not_equal(b->theta + p->offset, b->theta + q->offset, p->n * sizeof(float));
	model_init(b, 8);
	assert_memory_not_equal(a->theta, b->theta + p->offset, p->n * sizeof(float));
	model_free(a);
	model_free(b);
}

static void test_dup(void **state)
{
	(void)state;
	struct model *m = model_of(cnn);
	model_init(m, 3);
	m->params[2].frozen = true;
	struct model *d = model_dup(m);
	assert_true(model_same(m, d) && d->params[2].frozen);
	assert_memory_equal(m->theta, d->theta, m->n_theta * sizeof *m->theta);
	d->theta[0] += 1;
	assert_true(m->theta[0] != d->theta[0]);
	model_free(m);
	assert_string_equal(d->classes.v[2], "OR007");
	model_free(d);
}

static struct config_list list_of(const char **names, size_t n)
{
	struct config_list list = {.v = mem_array(n, sizeof *list.v), .n = n};
	for (size_t i = 0; i < n; i++)
		list.v[i] = mem_str(names[i]);
	return list;
}

static void list_done(struct config_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		free(list->v[i]);
	free(list->v);
}

static enum err freeze(struct model *m, const char *a, const char *b)
{
	struct config_list list = list_of((const char *[]){a, b}, b != NULL ? 2 : 1);
	enum err e = model_freeze(m, &list);
	list_done(&list);
	return e;
}

static bool is_frozen(const struct model *m, const char *name)
{
	return model_param(m, name)->frozen;
}

static void test_freeze(void **state)
{
	(void)state;
	struct model *m = model_of(cnn);
	assert_int_equal(freeze(m, "conv*", "bn1.weight"), ERR_OK);
	assert_true(is_frozen(m, "conv1.weight") && is_frozen(m, "conv2.weight") && is_frozen(m, "bn1.weight"));
	assert_false(is_frozen(m, "bn1.bias") || is_frozen(m, "bn1.running_mean") || is_frozen(m, "head.weight"));
	/* Both weights frozen: the statistics are too. */
	assert_int_equal(freeze(m, "bn1.weight", "bn1.bias"), ERR_OK);
	assert_true(is_frozen(m, "bn1.running_mean") && is_frozen(m, "bn1.running_var"));
	assert_false(is_frozen(m, "conv1.weight") || is_frozen(m, "bn2.running_mean"));
	assert_int_equal(freeze(m, "*running_mean", NULL), ERR_OK);
	assert_true(is_frozen(m, "bn1.running_mean") && !is_frozen(m, "bn1.running_var") &&
		    !is_frozen(m, "bn1.weight"));
	/* A pattern without a match changes nothing. */
	assert_int_equal(freeze(m, "head.*", "convolution*"), ERR_CONFIG);
	assert_non_null(strstr(err_text(), "convolution*"));
	assert_true(is_frozen(m, "bn1.running_mean") && !is_frozen(m, "head.weight"));
	assert_int_equal(model_freeze(m, &(struct config_list){0}), ERR_OK);
	for (size_t i = 0; i < m->n_params; i++)
		assert_false(m->params[i].frozen);
	model_free(m);
}

static void test_summary(void **state)
{
	(void)state;
	struct model *m = model_of(cnn);
	struct buf b;
	buf_init(&b, 1 << 16);
	assert_int_equal(freeze(m, "conv*", "bn1.*"), ERR_OK);
	assert_int_equal(model_summary(m, &b), ERR_OK);
	assert_non_null(strstr(buf_str(&b), "conv1"));
	assert_non_null(strstr(buf_str(&b), "4x32"));
	assert_non_null(strstr(buf_str(&b), "frozen"));
	assert_non_null(strstr(buf_str(&b), "bearing-cnn: 243 parameters learned, 20 statistics, 3 classes"));
	buf_deinit(&b);
	model_free(m);
}

static void test_check_finite(void **state)
{
	(void)state;
	struct model *m = model_of(cnn);
	model_init(m, 1);
	assert_int_equal(model_check_finite(m), ERR_OK);
	m->theta[m->n_theta - 1] = INFINITY;
	assert_int_equal(model_check_finite(m), ERR_NUMERIC);
	assert_string_equal(err_text(), "bn2.running_var: not finite");
	m->theta[0] = NAN;
	assert_int_equal(model_check_finite(m), ERR_NUMERIC);
	assert_string_equal(err_text(), "conv1.weight: not finite");
	model_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_layout),
		cmocka_unit_test(test_output_shapes),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_canonical_description),
		cmocka_unit_test(test_same),
		cmocka_unit_test(test_wrong_descriptions),
		cmocka_unit_test(test_too_many_layers),
		cmocka_unit_test(test_load),
		cmocka_unit_test(test_init),
		cmocka_unit_test(test_init_streams),
		cmocka_unit_test(test_dup),
		cmocka_unit_test(test_freeze),
		cmocka_unit_test(test_summary),
		cmocka_unit_test(test_check_finite),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
