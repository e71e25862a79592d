/*
 * Whole nets: gradients, in-place outputs, one sample alone or among others, freezing.
 */
#include "ml/gradcheck.h"

#include "ml/loss.h"

static const char cnn[] = "input: [2, 40]\n"
			  "classes: [a, b, c]\n"
			  "layers:\n"
			  "  - {op: conv1d, name: conv1, out: 5, kernel: 6, stride: 2, padding: 2}\n"
			  "  - {op: batchnorm1d, name: bn1}\n"
			  "  - {op: relu}\n"
			  "  - {op: maxpool1d, kernel: 2}\n"
			  "  - {op: conv1d, name: conv2, out: 4, kernel: 3, padding: 1}\n"
			  "  - {op: batchnorm1d, name: bn2}\n"
			  "  - {op: relu}\n"
			  "  - {op: adaptiveavgpool1d, out: 3}\n"
			  "  - {op: flatten}\n"
			  "  - {op: dropout, p: 0.3}\n"
			  "  - {op: linear, name: fc, out: 7}\n"
			  "  - {op: relu}\n"
			  "  - {op: linear, name: head, out: outputs}\n";

/* Relus on top of each other, at the bottom and after an alias; flatten without anything to do. */
static const char odd[] = "input: [1, 12]\n"
			  "outputs: 2\n"
			  "layers:\n"
			  "  - {op: relu}\n"
			  "  - {op: flatten}\n"
			  "  - {op: relu}\n"
			  "  - {op: linear, name: a, out: 6}\n"
			  "  - {op: relu}\n"
			  "  - {op: relu}\n"
			  "  - {op: dropout, p: 0.2}\n"
			  "  - {op: relu}\n"
			  "  - {op: flatten}\n"
			  "  - {op: linear, name: b, out: outputs, bias: false}\n"
			  "  - {op: relu}\n";

static struct net *net_of(struct model *m, size_t batch, bool train)
{
	struct net *n;
	if (net_new(m, batch, train, &n) != ERR_OK)
		fail_msg("%s", err_text());
	return n;
}

struct whole {
	struct model *m;
	struct net *net;
	float *x, *target;
	uint32_t label[3];
	size_t batch;
	enum net_mode mode;
};

static double whole_loss(void *arg)
{
	struct whole *w = arg;
	struct rng rng;
	rng_seed(&rng, 5); /* the same values are dropped every time */
	/* The running statistics move, but a training step does not read them. */
	const float *y = net_forward(w->net, w->x, w->batch, w->mode, &rng);
	const struct loss_io io = {.batch = w->batch,
				   .outputs = w->m->n_outputs,
				   .y = y,
				   .label = w->label,
				   .target = w->target,
				   .dy = net_output_gradient(w->net)};
	return w->m->classes.n > 0 ? loss_cross_entropy(&io) : loss_mse(&io);
}

static void check_whole(const char *text, enum net_mode mode)
{
	struct whole w = {.m = model_of(text), .batch = 3, .mode = mode, .label = {2, 0, 1}};
	model_init(w.m, 11);
	w.net = net_of(w.m, 4, true);
	w.x = normals(3 * layer_count(&w.m->input), 12);
	w.target = normals(3 * w.m->n_outputs, 13);
	whole_loss(&w);
	net_zero_gradient(w.net);
	net_backward(w.net);
	float *g = memcpy(floats(w.m->n_weights), net_gradient(w.net), w.m->n_weights * sizeof *g);
	gradcheck("theta", GRADCHECK_STEP_NET, whole_loss, &w, w.m->theta, g, w.m->n_weights);
	/* Backward adds. */
	whole_loss(&w);
	net_backward(w.net);
	for (size_t i = 0; i < w.m->n_weights; i++)
		assert_true(fabsf(net_gradient(w.net)[i] - 2 * g[i]) <= 1e-5f * (1 + fabsf(g[i])));
	free(g);
	free(w.x);
	free(w.target);
	net_free(w.net);
	model_free(w.m);
}

static void test_gradients(void **state)
{
	(void)state;
	check_whole(cnn, NET_TRAIN);
	check_whole(cnn, NET_TRAIN_FIXED_NORM);
	check_whole(odd, NET_TRAIN);
}

/* In place or not, training net or not: the same values as the layers one by one with memory of their own. */
static void test_in_place_changes_nothing(void **state)
{
	(void)state;
	struct model *m = model_of(odd);
	model_init(m, 1);
	float *x = normals(12, 3), a[6], b[2];
	struct net *train = net_of(m, 1, true), *infer = net_of(m, 1, false);
	float *relu = floats(12);
	for (size_t i = 0; i < 12; i++)
		relu[i] = x[i] > 0 ? x[i] : 0;
	rowwise_linear(1, 12, 6, relu, m->theta, m->theta + 72, a);
	for (size_t i = 0; i < 6; i++)
		a[i] = a[i] > 0 ? a[i] : 0;
	rowwise_linear(1, 6, 2, a, m->theta + 78, NULL, b);
	for (size_t i = 0; i < 2; i++)
		b[i] = b[i] > 0 ? b[i] : 0;
	float *before = memcpy(floats(12), x, 12 * sizeof *x);
	assert_memory_equal(net_forward(train, x, 1, NET_INFER, NULL), b, sizeof b);
	assert_memory_equal(net_forward(infer, x, 1, NET_INFER, NULL), b, sizeof b);
	assert_memory_equal(before, x, 12 * sizeof *x); /* the caller's samples are not written over */
	net_free(train);
	net_free(infer);
	free(x);
	free(relu);
	free(before);
	model_free(m);
}

/* The description's conventions, spelled out: channels first outside, whatever the order inside. */
static void test_channels_first_outside(void **state)
{
	(void)state;
	struct model *m = model_of("input: [2, 3]\noutputs: 6\nlayers: [{op: flatten}]\n");
	struct net *n = net_of(m, 2, false);
	float *x = normals(12, 1);
	assert_memory_equal(net_forward(n, x, 2, NET_INFER, NULL), x, 12 * sizeof *x);
	net_free(n);
	model_free(m);
	m = model_of("input: [2, 3]\noutputs: 2\nlayers: [{op: adaptiveavgpool1d, out: 1}, {op: flatten}]\n");
	n = net_of(m, 1, false);
	const float *y = net_forward(n, (const float[]){1, 2, 3, 10, 20, 30}, 1, NET_INFER, NULL);
	assert_true(fabsf(y[0] - 2) < 1e-6f && fabsf(y[1] - 20) < 1e-5f);
	net_free(n);
	model_free(m);
	free(x);
}

static void check_independence(const char *text, size_t width, size_t outputs)
{
	enum { N = 37 };
	struct model *m = model_of(text);
	model_init(m, 21);
	struct net *big = net_of(m, N, false), *train = net_of(m, N, true), *single = net_of(m, 1, false);
	float *x = normals(N * width, 22);
	float *all = memcpy(floats(N * outputs), net_forward(big, x, N, NET_INFER, NULL), N * outputs * sizeof *all);
	assert_memory_equal(net_forward(train, x, N, NET_INFER, NULL), all, N * outputs * sizeof *all);
	for (size_t i = 0; i < N; i++)
		assert_memory_equal(net_forward(single, x + i * width, 1, NET_INFER, NULL), all + i * outputs,
				    outputs * sizeof *all);
	for (size_t n = 1; n <= N; n += 5) /* and at another place in a batch of another size */
		assert_memory_equal(net_forward(big, x + (N - n) * width, n, NET_INFER, NULL), all + (N - n) * outputs,
				    n * outputs * sizeof *all);
	net_free(big);
	net_free(train);
	net_free(single);
	model_free(m);
	free(x);
	free(all);
}

static void test_inference_is_independent(void **state)
{
	(void)state;
	check_independence(cnn, 80, 3);
	check_independence(odd, 12, 2);
	check_independence(
		"input: [1, 1024]\nclasses: [a, b, c, d, e, f, g, h, i]\nlayers:\n"
		"- {op: conv1d, name: c1, out: 16, kernel: 64, stride: 8, padding: 28}\n- {op: batchnorm1d, name: b1}\n"
		"- {op: relu}\n- {op: maxpool1d, kernel: 2}\n- {op: conv1d, name: c2, out: 33, kernel: 3}\n"
		"- {op: adaptivemaxpool1d, out: 5}\n- {op: flatten}\n- {op: linear, name: l, out: 101}\n- {op: relu}\n"
		"- {op: linear, name: head, out: outputs}\n",
		1024, 9);
}

static void freeze(struct model *m, const char *pattern)
{
	char *text = mem_str(pattern);
	assert_int_equal(model_freeze(m, &(struct config_list){&text, 1}), ERR_OK);
	free(text);
}

/* Some steps with a frozen part: its bytes stay, its gradient is zero, all else moves. */
static void check_frozen(const char *pattern)
{
	struct model *m = model_of(cnn);
	model_init(m, 31);
	freeze(m, pattern);
	struct whole w = {.m = m, .net = net_of(m, 3, true), .x = normals(3 * 80, 32), .batch = 3, .mode = NET_TRAIN};
	float *before = memcpy(floats(m->n_theta), m->theta, m->n_theta * sizeof *before);
	for (size_t i = 0; i < 3; i++) {
		whole_loss(&w);
		net_zero_gradient(w.net);
		net_backward(w.net);
		axpy(m->n_weights, -0.1f, net_gradient(w.net), m->theta);
	}
	for (size_t i = 0; i < m->n_params; i++) {
		const struct param *p = &m->params[i];
		bool same = memcmp(m->theta + p->offset, before + p->offset, p->n * sizeof(float)) == 0;
		/* What is added before a BatchNorm with statistics of the step is taken away again: no gradient,
		 * either. */
		if (p->frozen || !pattern_match("conv?.bias", p->name))
			assert_int_equal(same, p->frozen);
		for (size_t j = 0; p->frozen && p->kind == PARAM_WEIGHT && j < p->n; j++)
			assert_true(net_gradient(w.net)[p->offset + j] == 0);
	}
	net_free(w.net);
	model_free(m);
	free(before);
	free(w.x);
}

static void test_frozen_tensors(void **state)
{
	(void)state;
	check_frozen("conv*");
	check_frozen("bn*");
	check_frozen("*n1*");
	check_frozen("fc.weight");
	check_frozen("*.bias");
	check_frozen("head.*");
}

/* Gradients above the freeze boundary are what they would be without freezing, as long as BatchNorm works alike. */
static void test_boundary(void **state)
{
	(void)state;
	struct model *m = model_of(cnn);
	model_init(m, 41);
	struct whole w = {
		.m = m, .net = net_of(m, 3, true), .x = normals(3 * 80, 42), .batch = 3, .mode = NET_TRAIN_FIXED_NORM};
	whole_loss(&w);
	net_zero_gradient(w.net);
	net_backward(w.net);
	float *all = memcpy(floats(m->n_weights), net_gradient(w.net), m->n_weights * sizeof *all);
	char *patterns[] = {mem_str("conv?.*"), mem_str("bn*"), mem_str("fc.weight")};
	assert_int_equal(model_freeze(m, &(struct config_list){patterns, 3}), ERR_OK);
	whole_loss(&w);
	net_zero_gradient(w.net);
	net_backward(w.net);
	for (size_t i = 0; i < m->n_params; i++) {
		const struct param *p = &m->params[i];
		for (size_t j = p->offset; p->kind == PARAM_WEIGHT && j < p->offset + p->n; j++)
			assert_true(net_gradient(w.net)[j] == (p->frozen ? 0 : all[j]));
	}
	for (size_t i = 0; i < 3; i++)
		free(patterns[i]);
	free(all);
	net_free(w.net);
	model_free(m);
	free(w.x);
}

static void test_nothing_to_learn(void **state)
{
	(void)state;
	struct model *m = model_of(cnn);
	model_init(m, 51);
	freeze(m, "*");
	struct whole w = {.m = m, .net = net_of(m, 3, true), .x = normals(3 * 80, 52), .batch = 3, .mode = NET_TRAIN};
	float *before = memcpy(floats(m->n_theta), m->theta, m->n_theta * sizeof *before);
	double loss = whole_loss(&w);
	net_zero_gradient(w.net);
	net_backward(w.net);
	assert_true(isfinite(loss));
	for (size_t i = 0; i < m->n_weights; i++)
		assert_true(net_gradient(w.net)[i] == 0);
	assert_memory_equal(before, m->theta, m->n_theta * sizeof *before);
	net_free(w.net);
	model_free(m);
	free(before);
	free(w.x);
}

/* A frozen BatchNorm in a training step gives what it gives in inference. */
static void test_frozen_norm_is_inference(void **state)
{
	(void)state;
	struct model *m = model_of("input: [2, 6]\noutputs: 12\nlayers: [{op: batchnorm1d, name: n}, {op: flatten}]\n");
	model_init(m, 1);
	struct net *n = net_of(m, 2, true);
	float *x = normals(24, 2), y[24];
	net_forward(n, x, 2, NET_TRAIN, NULL); /* statistics of its own, once */
	memcpy(y, net_forward(n, x, 2, NET_INFER, NULL), sizeof y);
	assert_memory_equal(net_forward(n, x, 2, NET_TRAIN_FIXED_NORM, NULL), y, sizeof y);
	freeze(m, "n.running_var");
	assert_memory_equal(net_forward(n, x, 2, NET_TRAIN, NULL), y, sizeof y);
	freeze(m, "n.*");
	assert_memory_equal(net_forward(n, x, 2, NET_TRAIN, NULL), y, sizeof y);
	assert_int_equal(model_freeze(m, &(struct config_list){0}), ERR_OK);
	assert_memory_not_equal(net_forward(n, x, 2, NET_TRAIN, NULL), y, sizeof y);
	net_free(n);
	model_free(m);
	free(x);
}

static void test_plan(void **state)
{
	(void)state;
	struct model *m = model_of(cnn);
	struct net *n = net_of(m, 10, true), *small = net_of(m, 10, false);
	assert_int_equal(net_batch_max(n), 10);
	assert_true(net_memory_bytes(n) > net_memory_bytes(small));
	assert_int_equal((uintptr_t)net_output_gradient(n) % 64, 0);
	net_free(small);
	net_free(n);
	net_free(NULL);
	assert_int_equal(net_new(m, NET_BATCH_MAX + 1, false, &n), ERR_LIMIT);
	model_free(m);
	m = model_of("input: [1, 100000]\noutputs: 1\nlayers:\n- {op: conv1d, name: c, out: 100, kernel: 3}\n"
		     "- {op: adaptiveavgpool1d, out: 1}\n- {op: flatten}\n- {op: linear, name: l, out: 1}\n");
	assert_int_equal(net_new(m, NET_BATCH_MAX, true, &n), ERR_LIMIT);
	assert_non_null(strstr(err_text(), "smaller batch"));
	model_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_gradients),
		cmocka_unit_test(test_in_place_changes_nothing),
		cmocka_unit_test(test_channels_first_outside),
		cmocka_unit_test(test_inference_is_independent),
		cmocka_unit_test(test_frozen_tensors),
		cmocka_unit_test(test_boundary),
		cmocka_unit_test(test_nothing_to_learn),
		cmocka_unit_test(test_frozen_norm_is_inference),
		cmocka_unit_test(test_plan),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
