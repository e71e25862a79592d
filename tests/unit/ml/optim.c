/*
 * The rules of the optimisers, each weight on its own, and training of a small net step by step, against double
 * precision.
 */
#include "ml/reference.h"

#include "ml/loss.h"

static const char cnn[] = "input: [2, 33]\n"
			  "classes: [a, b, c, d]\n"
			  "layers:\n"
			  "  - {op: conv1d, name: conv1, out: 5, kernel: 6, stride: 2, padding: 2, bias: false}\n"
			  "  - {op: batchnorm1d, name: bn1}\n"
			  "  - {op: relu}\n"
			  "  - {op: maxpool1d, kernel: 2}\n"
			  "  - {op: conv1d, name: conv2, out: 4, kernel: 3, padding: 1, bias: false}\n"
			  "  - {op: batchnorm1d, name: bn2, momentum: 0.2}\n"
			  "  - {op: relu}\n"
			  "  - {op: adaptiveavgpool1d, out: 3}\n"
			  "  - {op: flatten}\n"
			  "  - {op: linear, name: fc, out: 7}\n"
			  "  - {op: relu}\n"
			  "  - {op: linear, name: head, out: outputs}\n";

static const struct optim_config plain_sgd = {.kind = OPTIM_SGD, .lr = 0.1, .head_lr = 1};

static struct optim *optim_of(const struct optim_config *c, struct model *m, const float *source, bool head_is_new,
			      const float *base)
{
	struct optim *o;
	if (optim_new(c, m, source, head_is_new, base, &o) != ERR_OK)
		fail_msg("%s", err_text());
	return o;
}

/* Gradients that fit nothing in particular, for long enough that bias correction and momentum have worked themselves
 * out. */
static void check_rule(const struct optim_config *c, bool head_is_new)
{
	struct model *m = model_of(cnn);
	model_init(m, 1);
	float *source = normals(m->n_theta, 2), *base = normals(m->n_theta, 3);
	struct optim *o = optim_of(c, m, source, head_is_new, base);
	struct reference *r = reference_new(m, 1);
	for (size_t t = 0; t < 50; t++) {
		double scale = t < 20 ? 1 : 0.3;
		float *g = normals(m->n_weights, 100 + t);
		for (size_t i = 0; i < m->n_weights; i++)
			r->grad[i] = (double)g[i];
		optim_set_lr_scale(o, scale);
		optim_step(o, g);
		reference_step(r, c, source, head_is_new, base, scale);
		assert_close("theta", m->theta, r->theta, m->n_theta, 1e-5);
		free(g);
	}
	reference_free(r);
	optim_free(o);
	model_free(m);
	free(source);
	free(base);
}

static void test_rules(void **state)
{
	(void)state;
	static const struct optim_config configs[] = {
		{.kind = OPTIM_SGD, .lr = 0.01, .head_lr = 1},
		{.kind = OPTIM_SGD, .lr = 0.01, .head_lr = 1, .momentum = 0.9},
		{.kind = OPTIM_SGD, .lr = 0.02, .head_lr = 3, .momentum = 0.5, .weight_decay = 0.1},
		{.kind = OPTIM_SGD, .lr = 0.02, .head_lr = 0.5, .momentum = 0.9, .l2sp_alpha = 0.3, .l2sp_beta = 0.2},
		{.kind = OPTIM_SGD, .lr = 0.02, .head_lr = 1, .momentum = 0.9, .prox_mu = 0.7},
		{.kind = OPTIM_ADAM, .lr = 0.001, .head_lr = 1},
		{.kind = OPTIM_ADAM,
		 .lr = 0.01,
		 .head_lr = 10,
		 .weight_decay = 0.05,
		 .l2sp_alpha = 0.3,
		 .l2sp_beta = 0.2,
		 .prox_mu = 0.1},
	};
	for (size_t i = 0; i < sizeof configs / sizeof configs[0]; i++) {
		check_rule(&configs[i], false);
		check_rule(&configs[i], true);
	}
}

static void test_frozen_tensors_stay(void **state)
{
	(void)state;
	struct model *m = model_of(cnn);
	model_init(m, 1);
	char *patterns[] = {mem_str("conv2*"), mem_str("head.bias")};
	assert_int_equal(model_freeze(m, &(struct config_list){patterns, 2}), ERR_OK);
	struct optim_config c = {
		.kind = OPTIM_ADAM, .lr = 0.1, .head_lr = 1, .weight_decay = 0.1, .l2sp_alpha = 1, .prox_mu = 1};
	float *other = normals(m->n_theta, 2), *g = normals(m->n_weights, 3);
	float *before = memcpy(floats(m->n_theta), m->theta, m->n_theta * sizeof *before);
	struct optim *o = optim_of(&c, m, other, false, other);
	optim_step(o, g); /* a gradient that should be zero there, and is not */
	for (size_t i = 0; i < m->n_params; i++) {
		const struct param *p = &m->params[i];
		bool stays = p->frozen || p->kind == PARAM_STATISTIC;
		assert_int_equal(memcmp(before + p->offset, m->theta + p->offset, p->n * sizeof(float)) == 0, stays);
	}
	optim_free(o);
	optim_free(NULL);
	model_free(m);
	free(patterns[0]);
	free(patterns[1]);
	free(other);
	free(g);
	free(before);
}

static void test_pull_needs_a_target(void **state)
{
	(void)state;
	struct model *m = model_of(cnn);
	struct optim_config c = plain_sgd;
	struct optim *o = NULL;
	c.l2sp_alpha = 0.1;
	assert_int_equal(optim_new(&c, m, NULL, false, m->theta, &o), ERR_CONFIG);
	c.l2sp_alpha = 0;
	c.prox_mu = 0.1;
	assert_int_equal(optim_new(&c, m, m->theta, false, NULL, &o), ERR_CONFIG);
	c.prox_mu = 0;
	c.l2sp_beta = 0.1; /* needs none: it pulls to zero */
	assert_null(o);
	o = optim_of(&c, m, NULL, true, NULL);
	optim_free(o);
	model_free(m);
}

/* Net, loss and optimiser together: losses and every parameter, statistics included, after each of 20 steps. */
static void check_trajectory(const struct optim_config *c, double smoothing, const float *scale)
{
	enum { B = 6, STEPS = 20 };
	struct model *m = model_of(cnn);
	model_init(m, 5);
	struct model *source = model_dup(m), *base = model_dup(m);
	model_init(source, 6);
	model_init(base, 7);
	struct net *n;
	assert_int_equal(net_new(m, B, true, &n), ERR_OK);
	struct optim *o = optim_of(c, m, source->theta, true, base->theta);
	struct reference *r = reference_new(m, B);
	for (size_t t = 0; t < STEPS; t++) {
		size_t batch = t % 5 == 4 ? 2 : B; /* a smaller batch now and then */
		float *x = normals(B * 66, 200 + t);
		uint32_t label[B];
		for (size_t i = 0; i < B; i++)
			label[i] = (uint32_t)((i + t) % 3); /* the last class is absent */
		const float *y = net_forward(n, x, batch, NET_TRAIN, NULL);
		const struct loss_io io = {batch, 4, y, label, NULL, scale, smoothing, net_output_gradient(n)};
		double loss = loss_cross_entropy(&io);
		net_zero_gradient(n);
		net_backward(n);
		double want = reference_gradient(r, x, batch, label, NULL, scale, smoothing);
		assert_true(fabs(loss - want) < 2e-5 * (1 + want));
		assert_close("gradient", net_gradient(n), r->grad, m->n_weights, 2e-4);
		optim_step(o, net_gradient(n));
		reference_step(r, c, source->theta, true, base->theta, 1);
		assert_close("theta", m->theta, r->theta, m->n_theta, 2e-4);
		free(x);
	}
	reference_free(r);
	optim_free(o);
	net_free(n);
	model_free(m);
	model_free(source);
	model_free(base);
}

static void test_trajectory(void **state)
{
	(void)state;
	static const float absent[4] = {1, 1, 1, 0}, half[4] = {1, 1, 1, 0.5f};
	const struct optim_config sgd = {.kind = OPTIM_SGD,
					 .lr = 0.05,
					 .momentum = 0.9,
					 .weight_decay = 1e-3,
					 .head_lr = 2,
					 .l2sp_alpha = 0.1,
					 .l2sp_beta = 0.01,
					 .prox_mu = 0.05};
	const struct optim_config adam = {.kind = OPTIM_ADAM, .lr = 2e-3, .weight_decay = 1e-3, .head_lr = 1};
	check_trajectory(&sgd, 0, NULL);
	check_trajectory(&sgd, 0.1, half);
	check_trajectory(&adam, 0, NULL);
	check_trajectory(&adam, 0.1, absent);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rules),
		cmocka_unit_test(test_frozen_tensors_stay),
		cmocka_unit_test(test_pull_needs_a_target),
		cmocka_unit_test(test_trajectory),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
