/*
 * Everything a run needs is allocated before its first step. Each epoch has its own streams of random numbers, for the
 * order of the samples, for dropout and for augmentation, so it depends on the seed, its number and the parameters it
 * starts from.
 */
#include "ml/train.h"

#include "ml/loss.h"
#include "ml/net.h"

#include "base/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const batchnorm_names[] = {
	[TRAIN_BATCHNORM_TRAIN] = "train", [TRAIN_BATCHNORM_FROZEN] = "frozen", NULL};
static const char *const schedule_names[] = {[TRAIN_CONSTANT] = "constant", [TRAIN_COSINE] = "cosine", NULL};

#define FIELD(name) offsetof(struct train_config, name)
const struct config_row train_rows[] = {
	{"epochs", CONFIG_INT, FIELD(epochs), .def = "10", .min = 0, .max = 100000,
	 .help = "passes over the training set"},
	{"batch", CONFIG_INT, FIELD(batch), .def = "32", .min = 1, .max = 4096, .help = "samples of a step"},
	{"optimizer", CONFIG_ENUM, FIELD(optim.kind), .def = "sgd", .names = optim_names, .help = "rule of a step"},
	{"lr", CONFIG_REAL, FIELD(optim.lr), .def = "0.01", .min = 0, .max = 100, .help = "learning rate"},
	{"momentum", CONFIG_REAL, FIELD(optim.momentum), .def = "0.9", .min = 0, .max = 0.9999, .help = "of sgd"},
	{"weight_decay", CONFIG_REAL, FIELD(optim.weight_decay), .def = "0", .min = 0, .max = 100,
	 .help = "pull of all that learns towards 0"},
	{"head_lr", CONFIG_REAL, FIELD(optim.head_lr), .def = "1", .min = 0, .max = 1000,
	 .help = "learning rate of the head, as a multiple of lr"},
	{"l2sp_alpha", CONFIG_REAL, FIELD(optim.l2sp_alpha), .def = "0", .min = 0, .max = 100,
	 .help = "pull of what is shared with the source model towards it"},
	{"l2sp_beta", CONFIG_REAL, FIELD(optim.l2sp_beta), .def = "0", .min = 0, .max = 100,
	 .help = "pull of a new head towards 0"},
	{"prox_mu", CONFIG_REAL, FIELD(optim.prox_mu), .def = "0", .min = 0, .max = 100,
	 .help = "pull towards the base of the round (FedProx)"},
	{"freeze", CONFIG_LIST, FIELD(freeze),
	 .help = "tensors that are not trained and do not travel, as patterns (conv*)"},
	{"batchnorm", CONFIG_ENUM, FIELD(batchnorm), .def = "train", .names = batchnorm_names,
	 .help = "train: statistics of the batch; frozen: the running ones, which stay"},
	{"absent_scale", CONFIG_REAL, FIELD(absent_scale), .def = "1", .min = 0, .max = 1,
	 .help = "factor on the logits of classes without samples here; 0 leaves them out of the softmax"},
	{"label_smoothing", CONFIG_REAL, FIELD(label_smoothing), .def = "0", .min = 0, .max = 0.99,
	 .help = "share of the target spread over all classes of the softmax"},
	{"schedule", CONFIG_ENUM, FIELD(schedule), .def = "constant", .names = schedule_names,
	 .help = "of the learning rate over the epochs"},
	{"augment_shift", CONFIG_BOOL, FIELD(augment_shift), .def = "false",
	 .help = "turn each training window round by a random number of samples"},
	{"augment_noise", CONFIG_REAL, FIELD(augment_noise), .def = "0", .min = 0, .max = 1000,
	 .help = "add normal noise of this deviation to training samples"},
	{"augment_scale", CONFIG_REAL, FIELD(augment_scale), .def = "0", .min = 0, .max = 10,
	 .help = "multiply each training sample by exp(this deviation * normal)"},
	{0},
};
#undef FIELD

struct run {
	const struct train_job *job;
	const struct train_config *config;
	struct model *m;      /* the job's */
	struct net *net;      /* owned */
	struct optim *optim;  /* owned */
	struct model *source; /* owned: laid out as m; NULL: none */
	float *kept;          /* owned: the parameters to go back to */
	uint32_t *order;      /* owned */
	float *x, *target;    /* owned: a batch */
	uint32_t *label;      /* owned: its classes */
	float *class_scale;   /* owned; NULL: ordinary softmax */
	size_t batch_max;
	struct rng dropout, augment; /* of the epoch */
	struct train_result r;
};

static double rate_constant(size_t epoch, size_t epochs)
{
	(void)epoch;
	(void)epochs;
	return 1;
}

static double rate_cosine(size_t epoch, size_t epochs)
{
	return (1 + cos(M_PI * (double)(epoch - 1) / (double)epochs)) / 2;
}

static double (*const schedules[])(size_t epoch, size_t epochs) = {
	[TRAIN_CONSTANT] = rate_constant,
	[TRAIN_COSINE] = rate_cosine,
};

static bool has_heldout(const struct train_job *job)
{
	return job->heldout != NULL && job->heldout->n > 0;
}

static enum err check_job(const struct train_job *job)
{
	const struct train_config *c = job->config;
	if (job->train->n == 0)
		return err_set(ERR_CONFIG, "there are no training samples");
	TRY(evaluate_check(job->model, job->train));
	if (has_heldout(job))
		TRY(evaluate_check(job->model, job->heldout));
	bool classes = job->model->classes.n > 0;
	if (!classes && c->label_smoothing != 0)
		return err_set(ERR_CONFIG, "label_smoothing is for classes; this model gives values");
	if (!classes && c->absent_scale != 1)
		return err_set(ERR_CONFIG, "absent_scale is for classes; this model gives values");
	if (c->augment_shift && job->model->input.n != 2)
		return err_set(ERR_CONFIG, "augment_shift is for windows; this model takes features");
	return ERR_OK;
}

/* The source as a block laid out as the model: rows of a head that it does not have are pulled to where they start. */
static enum err lay_out_source(struct run *run)
{
	const struct train_job *job = run->job;
	if (job->source == NULL || run->config->optim.l2sp_alpha == 0)
		return ERR_OK;
	run->source = model_dup(run->m);
	enum err e = model_transfer(run->source, job->source, !job->head_is_new, NULL);
	return e != ERR_OK ? err_add(e, "source of l2sp_alpha") : ERR_OK;
}

static void find_absent(struct run *run)
{
	const struct dataset *d = run->job->train;
	if (run->config->absent_scale == 1)
		return;
	size_t *counts = mem_array(d->n_classes, sizeof *counts);
	dataset_class_counts(d, counts);
	run->class_scale = mem_array(d->n_classes, sizeof *run->class_scale);
	for (size_t i = 0; i < d->n_classes; i++)
		run->class_scale[i] = counts[i] > 0 ? 1 : (float)run->config->absent_scale;
	free(counts);
}

static void keep_parameters(struct run *run)
{
	memcpy(run->kept, run->m->theta, run->m->n_theta * sizeof *run->kept);
}

static void restore_parameters(struct run *run)
{
	memcpy(run->m->theta, run->kept, run->m->n_theta * sizeof *run->kept);
}

static enum err prepare(struct run *run)
{
	const struct dataset *d = run->job->train;
	TRY(check_job(run->job));
	TRY(model_freeze(run->m, &run->config->freeze));
	TRY(lay_out_source(run));
	TRY(optim_new(&run->config->optim, run->m, run->source != NULL ? run->source->theta : NULL,
		      run->job->head_is_new, run->job->base, &run->optim));
	run->batch_max = d->n < (size_t)run->config->batch ? d->n : (size_t)run->config->batch;
	TRY(net_new(run->m, run->batch_max, true, &run->net));
	run->kept = mem_array(run->m->n_theta, sizeof *run->kept);
	run->order = mem_array(d->n, sizeof *run->order);
	run->x = mem_array(run->batch_max * d->width, sizeof *run->x);
	run->label = mem_array(run->batch_max, sizeof *run->label);
	run->target = mem_array(run->batch_max * d->n_targets, sizeof *run->target);
	find_absent(run);
	keep_parameters(run);
	run->r = (struct train_result){.samples = d->n, .loss = NAN};
	return ERR_OK;
}

static void finish(struct run *run)
{
	net_free(run->net);
	optim_free(run->optim);
	model_free(run->source);
	free(run->kept);
	free(run->order);
	free(run->x);
	free(run->label);
	free(run->target);
	free(run->class_scale);
}

/* out (C,L) = x (C,L), every channel turned round by `shift`. */
static void turn_window(const struct shape *shape, size_t shift, const float *x, float *out)
{
	size_t len = shape->d[1];
	for (size_t c = 0; c < shape->d[0]; c++, x += len, out += len) {
		memcpy(out, x + shift, (len - shift) * sizeof *out);
		memcpy(out + len - shift, x, shift * sizeof *out);
	}
}

static void copy_sample(struct run *run, const float *x, float *out)
{
	const struct train_config *c = run->config;
	const struct dataset *d = run->job->train;
	if (c->augment_shift)
		turn_window(&d->input, rng_below(&run->augment, d->input.d[1]), x, out);
	else
		memcpy(out, x, d->width * sizeof *out);
	if (c->augment_scale > 0) {
		float factor = (float)exp(c->augment_scale * rng_normal(&run->augment));
		for (size_t i = 0; i < d->width; i++)
			out[i] *= factor;
	}
	for (size_t i = 0; c->augment_noise > 0 && i < d->width; i++)
		out[i] += (float)(c->augment_noise * rng_normal(&run->augment));
}

static void fill_batch(struct run *run, const uint32_t *rows, size_t n)
{
	const struct dataset *d = run->job->train;
	for (size_t i = 0; i < n; i++) {
		size_t r = rows[i];
		copy_sample(run, d->x + r * d->width, run->x + i * d->width);
		if (d->label != NULL)
			run->label[i] = d->label[r];
		else
			memcpy(run->target + i * d->n_targets, d->target + r * d->n_targets,
			       d->n_targets * sizeof *d->target);
	}
}

static enum err step(struct run *run, size_t n, double *ret_loss)
{
	bool frozen = run->config->batchnorm == TRAIN_BATCHNORM_FROZEN, classes = run->m->classes.n > 0;
	const float *y = net_forward(run->net, run->x, n, frozen ? NET_TRAIN_FIXED_NORM : NET_TRAIN, &run->dropout);
	const struct loss_io io = {
		.batch = n,
		.outputs = run->m->n_outputs,
		.y = y,
		.label = run->label,
		.target = run->target,
		.class_scale = run->class_scale,
		.label_smoothing = run->config->label_smoothing,
		.dy = net_output_gradient(run->net),
	};
	double loss = classes ? loss_cross_entropy(&io) : loss_mse(&io);
	if (!isfinite(loss))
		return err_set(ERR_NUMERIC, "training diverged in step %zu; lower the learning rate", run->r.steps + 1);
	net_zero_gradient(run->net);
	net_backward(run->net);
	optim_step(run->optim, net_gradient(run->net));
	run->r.steps++;
	*ret_loss = loss;
	return ERR_OK;
}

static enum err train_epoch(struct run *run, size_t epoch)
{
	const struct train_job *job = run->job;
	struct rng shuffle;
	size_t n = job->train->n;
	double sum = 0, loss = 0;
	for (size_t i = 0; i < n; i++)
		run->order[i] = (uint32_t)i;
	rng_stream(&shuffle, job->seed, "shuffle", epoch);
	rng_stream(&run->dropout, job->seed, "dropout", epoch);
	rng_stream(&run->augment, job->seed, "augment", epoch);
	rng_shuffle(&shuffle, run->order, n);
	optim_set_lr_scale(run->optim, schedules[run->config->schedule](epoch, (size_t)run->config->epochs));
	for (size_t first = 0; first < n; first += run->batch_max) {
		size_t count = n - first < run->batch_max ? n - first : run->batch_max;
		fill_batch(run, run->order + first, count);
		TRY(step(run, count, &loss));
		sum += loss * (double)count;
	}
	TRY(model_check_finite(run->m));
	run->r.loss = sum / (double)n;
	run->r.epochs = epoch;
	return ERR_OK;
}

/* Judge the present parameters, keep them if they are the best, and tell the caller. */
static enum err close_epoch(struct run *run, size_t epoch)
{
	const struct train_job *job = run->job;
	struct metrics now = {0};
	if (has_heldout(job))
		TRY(evaluate_net(run->net, run->m, job->heldout, NULL, &now));
	if (!job->keep_best || !has_heldout(job) || metrics_better(&now, &run->r.heldout)) {
		run->r.heldout = now;
		run->r.best_epoch = epoch;
		if (job->keep_best && has_heldout(job))
			keep_parameters(run);
	}
	const struct train_progress p = {epoch, (size_t)run->config->epochs, run->r.loss, now};
	return epoch > 0 && job->progress != NULL ? job->progress(job->progress_arg, &p) : ERR_OK;
}

static enum err run_epochs(struct run *run)
{
	TRY(close_epoch(run, 0));
	for (size_t epoch = 1; epoch <= (size_t)run->config->epochs; epoch++) {
		enum err e = train_epoch(run, epoch);
		if (e != ERR_OK) {
			restore_parameters(run);
			return e;
		}
		TRY(close_epoch(run, epoch));
	}
	return ERR_OK;
}

enum err train_run(const struct train_job *job, struct train_result *ret_result)
{
	struct run run = {.job = job, .config = job->config, .m = job->model};
	enum err e = prepare(&run);
	if (e == ERR_OK) {
		e = run_epochs(&run);
		if (job->keep_best && has_heldout(job))
			restore_parameters(&run);
	}
	if (e == ERR_OK)
		*ret_result = run.r;
	finish(&run);
	return e;
}
