#include "ml/train_fixture.h"

static const char cnn[] = "input: [1, 32]\n"
			  "classes: [a, b, c]\n"
			  "layers:\n"
			  "  - {op: conv1d, name: conv1, out: 4, kernel: 5, padding: 2}\n"
			  "  - {op: batchnorm1d, name: bn1}\n"
			  "  - {op: relu}\n"
			  "  - {op: maxpool1d, kernel: 4}\n"
			  "  - {op: flatten}\n"
			  "  - {op: dropout, p: 0.2}\n"
			  "  - {op: linear, name: head, out: outputs}\n";

/* A run of `text` from the model of seed 1; the caller frees the model. */
static struct model *run(const char *text, const struct dataset *train, const struct dataset *heldout, uint64_t seed,
			 bool keep_best, struct train_result *ret_result)
{
	struct model *m = model_of(cnn);
	model_init(m, 1);
	struct train_config c = config_of(text);
	const struct train_job job = {
		.model = m, .train = train, .heldout = heldout, .config = &c, .seed = seed, .keep_best = keep_best};
	struct train_result r;
	if (train_run(&job, &r) != ERR_OK)
		fail_msg("%s", err_text());
	if (ret_result != NULL)
		*ret_result = r;
	config_free(train_rows, &c);
	return m;
}

static void test_defaults(void **state)
{
	(void)state;
	struct train_config c = config_of("");
	assert_true(c.epochs == 10 && c.batch == 32 && c.optim.kind == OPTIM_SGD && c.optim.lr == 0.01 &&
		    c.optim.momentum == 0.9);
	assert_true(c.optim.head_lr == 1 && c.optim.weight_decay == 0 && c.optim.l2sp_alpha == 0 &&
		    c.optim.prox_mu == 0);
	assert_true(c.absent_scale == 1 && c.label_smoothing == 0 && c.freeze.n == 0 &&
		    c.batchnorm == TRAIN_BATCHNORM_TRAIN);
	assert_true(c.schedule == TRAIN_CONSTANT && !c.augment_shift && c.augment_noise == 0 && c.augment_scale == 0);
	config_free(train_rows, &c);
	c = config_of("{optimizer: adam, schedule: cosine, batchnorm: frozen, freeze: [conv*], head_lr: 10, "
		      "augment_shift: true}");
	assert_true(c.optim.kind == OPTIM_ADAM && c.schedule == TRAIN_COSINE && c.batchnorm == TRAIN_BATCHNORM_FROZEN);
	assert_true(c.freeze.n == 1 && c.optim.head_lr == 10 && c.augment_shift);
	config_free(train_rows, &c);
}

static void test_learns(void **state)
{
	(void)state;
	struct dataset *train = sines(96, 3, 1), *test = sines(300, 3, 2);
	struct train_result r;
	struct metrics before, after;
	struct model *m = model_of(cnn);
	model_init(m, 1);
	assert_int_equal(evaluate(m, test, &before), ERR_OK);
	model_free(m);
	m = run("{epochs: 30, batch: 16, lr: 0.05, schedule: cosine}", train, NULL, 3, false, &r);
	assert_int_equal(evaluate(m, test, &after), ERR_OK);
	assert_true(before.accuracy < 0.6 && after.accuracy > 0.9);
	assert_true(r.epochs == 30 && r.best_epoch == 30 && r.samples == 96 && r.steps == 30 * 6 && r.heldout.n == 0);
	assert_true(r.loss < 0.5);
	model_free(m);
	dataset_free(train);
	dataset_free(test);
}

static void test_same_seed_same_bytes(void **state)
{
	(void)state;
	static const char text[] =
		"{epochs: 3, batch: 8, lr: 0.05, augment_shift: true, augment_noise: 0.1, augment_scale: 0.1}";
	struct dataset *d = sines(30, 3, 1);
	struct model *a = run(text, d, NULL, 7, false, NULL), *b = run(text, d, NULL, 7, false, NULL),
		     *c = run(text, d, NULL, 8, false, NULL);
	assert_memory_equal(a->theta, b->theta, a->n_theta * sizeof(float));
	assert_memory_not_equal(a->theta, c->theta, a->n_theta * sizeof(float));
	model_free(a);
	model_free(b);
	model_free(c);
	dataset_free(d);
}

static bool same_param(const struct model *a, const struct model *b, const char *name)
{
	const struct param *p = model_param(a, name);
	return memcmp(a->theta + p->offset, b->theta + p->offset, p->n * sizeof(float)) == 0;
}

static void test_freezing(void **state)
{
	(void)state;
	struct dataset *d = sines(40, 3, 1);
	struct model *start = model_of(cnn);
	model_init(start, 1);
	struct model *m = run("{epochs: 2, batch: 8, freeze: [conv*, bn*]}", d, NULL, 1, false, NULL);
	for (size_t i = 0; i < m->n_params; i++)
		assert_int_equal(same_param(m, start, m->params[i].name), !m->params[i].head);
	model_free(m);
	m = run("{epochs: 2, batch: 8, optimizer: adam, batchnorm: frozen}", d, NULL, 1, false, NULL);
	for (size_t i = 0; i < m->n_params; i++)
		assert_int_equal(same_param(m, start, m->params[i].name), m->params[i].kind == PARAM_STATISTIC);
	model_free(m);
	model_free(start);
	dataset_free(d);
}

/* A class without samples: with 0 its row does not move at all; with 1 it is pushed away. */
static void test_absent_scale(void **state)
{
	(void)state;
	struct dataset *d = sines(40, 2, 1);
	struct model *start = model_of(cnn);
	model_init(start, 1);
	static const char *const texts[] = {"{epochs: 3, absent_scale: 0}", "{epochs: 3, absent_scale: 0.5}",
					    "{epochs: 3}"};
	for (size_t i = 0; i < 3; i++) {
		struct model *m = run(texts[i], d, NULL, 1, false, NULL);
		const struct param *w = model_param(m, "head.weight"), *b = model_param(m, "head.bias");
		size_t width = w->n / 3, row = w->offset + 2 * width;
		bool same = memcmp(m->theta + row, start->theta + row, width * sizeof(float)) == 0 &&
			    m->theta[b->offset + 2] == start->theta[b->offset + 2];
		assert_int_equal(same, i == 0);
		assert_true(i == 0 || m->theta[b->offset + 2] < start->theta[b->offset + 2]);
		model_free(m);
	}
	model_free(start);
	dataset_free(d);
}

struct watch {
	size_t calls, stop_at;
	struct train_progress last;
	struct metrics best;
	size_t best_epoch;
};

static enum err watch(void *arg, const struct train_progress *p)
{
	struct watch *w = arg;
	w->calls++;
	assert_int_equal(p->epoch, w->calls);
	w->last = *p;
	if (metrics_better(&p->heldout, &w->best)) {
		w->best = p->heldout;
		w->best_epoch = p->epoch;
	}
	return w->calls == w->stop_at ? err_set(ERR_CANCELLED, "enough") : ERR_OK;
}

/* Too large a rate for too long: the best epoch is not the last one. */
static void test_keep_best(void **state)
{
	(void)state;
	struct dataset *train = sines(24, 3, 1), *heldout = sines(60, 3, 2);
	struct model *m = model_of(cnn);
	model_init(m, 1);
	struct train_config c = config_of("{epochs: 25, batch: 6, lr: 0.3}");
	struct watch w = {0};
	struct train_result r;
	struct metrics after;
	const struct train_job job = {.model = m,
				      .train = train,
				      .heldout = heldout,
				      .config = &c,
				      .seed = 1,
				      .keep_best = true,
				      .progress = watch,
				      .progress_arg = &w};
	assert_int_equal(evaluate(m, heldout, &w.best), ERR_OK);
	assert_int_equal(train_run(&job, &r), ERR_OK);
	assert_true(w.calls == 25 && w.last.epochs == 25 && isfinite(w.last.loss) && r.epochs == 25);
	assert_int_equal(evaluate(m, heldout, &after), ERR_OK);
	assert_int_equal(r.best_epoch, w.best_epoch);
	assert_true(r.best_epoch > 0 && r.best_epoch < 25);
	assert_true(after.accuracy == w.best.accuracy && after.loss == w.best.loss && after.loss == r.heldout.loss);
	config_free(train_rows, &c);
	model_free(m);
	dataset_free(train);
	dataset_free(heldout);
}

/* Learning the wrong labels from a good start: epoch 0 is the best one. */
static void test_start_competes(void **state)
{
	(void)state;
	struct dataset *train = sines(60, 3, 1), *heldout = sines(60, 3, 2);
	struct model *m = run("{epochs: 20, batch: 8, lr: 0.05}", train, heldout, 1, true, NULL), *start = model_dup(m);
	for (size_t i = 0; i < train->n; i++)
		train->label[i] = (train->label[i] + 1) % 3;
	struct train_config c = config_of("{epochs: 3, batch: 8, lr: 0.1}");
	struct train_result r;
	struct train_job job = {
		.model = m, .train = train, .heldout = heldout, .config = &c, .seed = 1, .keep_best = true};
	assert_int_equal(train_run(&job, &r), ERR_OK);
	assert_int_equal(r.best_epoch, 0);
	assert_memory_equal(m->theta, start->theta, m->n_theta * sizeof(float));
	/* Without keep_best the last parameters stay, and are what the result speaks of. */
	job.keep_best = false;
	struct metrics after;
	assert_int_equal(train_run(&job, &r), ERR_OK);
	assert_int_equal(evaluate(m, heldout, &after), ERR_OK);
	assert_true(r.best_epoch == 3 && r.heldout.loss == after.loss && after.accuracy < 0.5);
	config_free(train_rows, &c);
	model_free(m);
	model_free(start);
	dataset_free(train);
	dataset_free(heldout);
}

static void test_cancel(void **state)
{
	(void)state;
	struct dataset *d = sines(30, 3, 1);
	struct model *m = model_of(cnn), *two = run("{epochs: 2, batch: 8}", d, NULL, 4, false, NULL);
	model_init(m, 1);
	struct train_config c = config_of("{epochs: 9, batch: 8}");
	struct watch w = {.stop_at = 2};
	struct train_result r = {.epochs = 99};
	struct train_job job = {.model = m, .train = d, .config = &c, .seed = 4, .progress = watch, .progress_arg = &w};
	assert_int_equal(train_run(&job, &r), ERR_CANCELLED);
	assert_int_equal(r.epochs, 99);
	assert_memory_equal(m->theta, two->theta, m->n_theta * sizeof(float)); /* as after two epochs */
	/* With a held-out set: the best so far. */
	struct metrics after;
	w = (struct watch){.stop_at = 4};
	model_init(m, 1);
	job.heldout = d;
	job.keep_best = true;
	assert_int_equal(evaluate(m, d, &w.best), ERR_OK);
	assert_int_equal(train_run(&job, &r), ERR_CANCELLED);
	assert_int_equal(evaluate(m, d, &after), ERR_OK);
	assert_true(after.loss == w.best.loss && after.accuracy == w.best.accuracy);
	config_free(train_rows, &c);
	model_free(m);
	model_free(two);
	dataset_free(d);
}

static void test_divergence(void **state)
{
	(void)state;
	struct dataset *d;
	assert_int_equal(dataset_new(8, &(struct shape){1, {3}}, 0, 1, &d), ERR_OK);
	for (size_t i = 0; i < 24; i++)
		d->x[i] = 100 + (float)i;
	struct model *m = model_of("input: [3]\noutputs: 1\nlayers: [{op: linear, name: w, out: 1}]\n");
	model_init(m, 1);
	struct model *start = model_dup(m);
	struct train_config c = config_of("{epochs: 500, lr: 10}");
	struct train_result r;
	const struct train_job job = {.model = m, .train = d, .config = &c, .seed = 1};
	assert_int_equal(train_run(&job, &r), ERR_NUMERIC);
	assert_memory_equal(m->theta, start->theta, m->n_theta * sizeof(float));
	config_free(train_rows, &c);
	model_free(m);
	model_free(start);
	dataset_free(d);
}

static void check_refused(const char *text, const struct dataset *train, const struct dataset *heldout, enum err code,
			  const char *word)
{
	struct model *m = model_of(cnn);
	model_init(m, 1);
	struct model *start = model_dup(m);
	struct train_config c = config_of(text);
	struct train_result r;
	const struct train_job job = {.model = m, .train = train, .heldout = heldout, .config = &c, .seed = 1};
	assert_int_equal(train_run(&job, &r), code);
	if (strstr(err_text(), word) == NULL)
		fail_msg("%s", err_text());
	assert_memory_equal(m->theta, start->theta, m->n_theta * sizeof(float));
	config_free(train_rows, &c);
	model_free(m);
	model_free(start);
}

static void test_refused(void **state)
{
	(void)state;
	struct dataset *d = sines(10, 3, 1), *none = sines(0, 3, 1), *wide;
	assert_int_equal(dataset_new(4, &(struct shape){2, {1, 33}}, 3, 0, &wide), ERR_OK);
	check_refused("", none, NULL, ERR_CONFIG, "no training samples");
	check_refused("", wide, NULL, ERR_SHAPE, "1x33");
	check_refused("", d, wide, ERR_SHAPE, "1x33");
	check_refused("freeze: [convolution]", d, NULL, ERR_CONFIG, "convolution");
	check_refused("l2sp_alpha: 0.1", d, NULL, ERR_CONFIG, "l2sp_alpha");
	check_refused("prox_mu: 0.1", d, NULL, ERR_CONFIG, "prox_mu");
	dataset_free(wide);
	dataset_free(none);
	dataset_free(d);
}

static void test_refused_for_values(void **state)
{
	(void)state;
	static const char *const texts[] = {"label_smoothing: 0.1", "absent_scale: 0", "augment_shift: true"};
	struct dataset *d;
	assert_int_equal(dataset_new(8, &(struct shape){1, {3}}, 0, 1, &d), ERR_OK);
	struct model *m = model_of("input: [3]\noutputs: 1\nlayers: [{op: linear, name: w, out: 1}]\n");
	for (size_t i = 0; i < 3; i++) {
		struct train_config c = config_of(texts[i]);
		struct train_result r;
		const struct train_job job = {.model = m, .train = d, .config = &c, .seed = 1};
		assert_int_equal(train_run(&job, &r), ERR_CONFIG);
		assert_memory_equal(err_text(), texts[i], strcspn(texts[i], ":"));
		config_free(train_rows, &c);
	}
	model_free(m);
	dataset_free(d);
}

static void test_no_epochs(void **state)
{
	(void)state;
	struct dataset *d = sines(10, 3, 1);
	struct model *start = model_of(cnn);
	model_init(start, 1);
	struct train_result r;
	struct model *m = run("epochs: 0", d, d, 1, true, &r);
	assert_memory_equal(m->theta, start->theta, m->n_theta * sizeof(float));
	assert_true(r.epochs == 0 && r.best_epoch == 0 && r.steps == 0 && r.heldout.n == 10 && isnan(r.loss));
	model_free(m);
	model_free(start);
	dataset_free(d);
}

/* One sample over, so that the last batch has one row: statistics of one value must not be NaN. */
static void test_last_batch_of_one(void **state)
{
	(void)state;
	struct dataset *d;
	assert_int_equal(dataset_new(5, &(struct shape){1, {3}}, 0, 1, &d), ERR_OK);
	float *x = normals(15, 1);
	memcpy(d->x, x, 15 * sizeof *x);
	struct model *m =
		model_of("input: [3]\noutputs: 1\nlayers: [{op: linear, name: a, out: 4}, {op: batchnorm1d, name: n}, "
			 "{op: linear, name: b, out: 1}]\n");
	model_init(m, 1);
	struct train_config c = config_of("{epochs: 3, batch: 4}");
	struct train_result r;
	const struct train_job job = {.model = m, .train = d, .config = &c, .seed = 1};
	assert_int_equal(train_run(&job, &r), ERR_OK);
	assert_int_equal(r.steps, 6);
	assert_int_equal(model_check_finite(m), ERR_OK);
	config_free(train_rows, &c);
	model_free(m);
	dataset_free(d);
	free(x);
}

/*
 * What augmentation does, seen through a model that cannot hide it: a BatchNorm with momentum 1 shows mean and variance
 * of the last batch as they were.
 */
static void check_augmented(const char *text, double mean, double var)
{
	struct dataset *d;
	assert_int_equal(dataset_new(200, &(struct shape){2, {2, 50}}, 0, 1, &d), ERR_OK);
	for (size_t i = 0; i < 200 * 100; i++)
		d->x[i] = i % 100 < 50 ? (float)(i % 50) : 3; /* a ramp; a constant */
	struct model *m = model_of("input: [2, 50]\noutputs: 1\nlayers: [{op: batchnorm1d, name: n, momentum: 1}, "
				   "{op: adaptiveavgpool1d, out: 1}, {op: flatten}, {op: linear, name: l, out: 1}]\n");
	model_init(m, 1);
	float *before = memcpy(floats(200 * 100), d->x, 200 * 100 * sizeof *before);
	struct train_config c = config_of(text);
	struct train_result r;
	const struct train_job job = {.model = m, .train = d, .config = &c, .seed = 1};
	assert_int_equal(train_run(&job, &r), ERR_OK);
	const float *running_mean = m->theta + model_param(m, "n.running_mean")->offset;
	const float *running_var = m->theta + model_param(m, "n.running_var")->offset;
	assert_true(fabs((double)running_mean[1] - mean) < 0.05 * (mean + 0.1));
	assert_true(fabs((double)running_var[1] - var) < 0.05 * (var + 0.1));
	/* Turning a window round changes neither; noise of 2 is little beside the ramp's variance of 208. */
	if (c.augment_scale == 0)
		assert_true(fabs((double)running_mean[0] - 24.5) < 0.1 && fabs((double)running_var[0] - 208.27) < 6);
	assert_memory_equal(before, d->x, 200 * 100 * sizeof *before); /* the samples themselves are left */
	config_free(train_rows, &c);
	free(before);
	model_free(m);
	dataset_free(d);
}

static void test_augmentation(void **state)
{
	(void)state;
	check_augmented("batch: 200", 3, 0);
	check_augmented("{batch: 200, augment_shift: true}", 3, 0);
	check_augmented("{batch: 200, augment_noise: 2}", 3, 4);
	/* exp(0.1 * normal): mean exp(0.005), variance (exp(0.01) - 1) * exp(0.01) */
	check_augmented("{batch: 200, augment_scale: 0.1}", 3 * exp(0.005), 9 * (exp(0.01) - 1) * exp(0.01));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_learns),
		cmocka_unit_test(test_same_seed_same_bytes),
		cmocka_unit_test(test_freezing),
		cmocka_unit_test(test_absent_scale),
		cmocka_unit_test(test_keep_best),
		cmocka_unit_test(test_start_competes),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_divergence),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_refused_for_values),
		cmocka_unit_test(test_no_epochs),
		cmocka_unit_test(test_last_batch_of_one),
		cmocka_unit_test(test_augmentation),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
