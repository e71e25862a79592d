#include "ml/evaluate.h"

#include "ml/loss.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What is counted while the samples go by. */
struct tally {
	const struct model *m;
	size_t n, correct;
	double loss;                            /* sum over samples */
	size_t *labelled, *predicted, *matched; /* owned: per class */
	float *x;                               /* owned: a batch */
	uint32_t *label;                        /* owned: its classes */
	float *target;                          /* owned: or its values */
	size_t filled;
};

enum err evaluate_check(const struct model *m, const struct dataset *d)
{
	char ours[SHAPE_TEXT_SIZE], theirs[SHAPE_TEXT_SIZE];
	if (!shape_equal(&m->input, &d->input))
		return err_set(ERR_SHAPE, "samples are %s; model '%s' takes %s", shape_format(&d->input, theirs),
			       m->name, shape_format(&m->input, ours));
	bool classes = m->classes.n > 0;
	if (classes != (d->label != NULL))
		return err_set(ERR_SHAPE, "the samples have %s; model '%s' needs %s",
			       d->label != NULL ? "classes" : "values", m->name, classes ? "classes" : "values");
	size_t n = classes ? d->n_classes : d->n_targets;
	if (n != m->n_outputs)
		return err_set(ERR_SHAPE, "the samples have %zu %s; model '%s' has %zu outputs", n,
			       classes ? "classes" : "values each", m->name, m->n_outputs);
	for (size_t i = 0; classes && i < d->n; i++) {
		if (d->label[i] >= m->n_outputs)
			return err_set(ERR_SHAPE, "sample %zu is of class number %u; model '%s' has %zu classes", i,
				       (unsigned)d->label[i], m->name, m->n_outputs);
	}
	return ERR_OK;
}

static size_t largest(const float *y, size_t n)
{
	size_t best = 0;
	for (size_t i = 1; i < n; i++) {
		if (y[i] > y[best])
			best = i;
	}
	return best;
}

static void count_batch(struct tally *t, struct net *net)
{
	size_t n = t->filled, outputs = t->m->n_outputs;
	if (n == 0)
		return;
	bool classes = t->m->classes.n > 0;
	const float *y = net_forward(net, t->x, n, NET_INFER, NULL);
	/* One by one, so that the sum, too, is the same whatever the batch. */
	for (size_t i = 0; i < n; i++) {
		const struct loss_io io = {.batch = 1,
					   .outputs = outputs,
					   .y = y + i * outputs,
					   .label = t->label + i,
					   .target = classes ? NULL : t->target + i * outputs};
		t->loss += classes ? loss_cross_entropy(&io) : loss_mse(&io);
	}
	for (size_t i = 0; classes && i < n; i++) {
		size_t guess = largest(y + i * outputs, outputs), label = t->label[i];
		t->labelled[label]++;
		t->predicted[guess]++;
		t->matched[label] += guess == label;
		t->correct += guess == label;
	}
	t->n += n;
	t->filled = 0;
}

static void add_sample(struct tally *t, const struct dataset *d, size_t i)
{
	memcpy(t->x + t->filled * d->width, d->x + i * d->width, d->width * sizeof *d->x);
	if (d->label != NULL)
		t->label[t->filled] = d->label[i];
	else
		memcpy(t->target + t->filled * d->n_targets, d->target + i * d->n_targets,
		       d->n_targets * sizeof *d->target);
	t->filled++;
}

/* 2*TP / (2*TP + FP + FN), meant over the classes that occur. */
static double macro_f1(const struct tally *t)
{
	double sum = 0;
	size_t classes = 0;
	for (size_t i = 0; i < t->m->n_outputs; i++) {
		if (t->labelled[i] == 0)
			continue;
		sum += 2 * (double)t->matched[i] / (double)(t->labelled[i] + t->predicted[i]);
		classes++;
	}
	return sum / (double)classes;
}

static struct metrics result_of(const struct tally *t)
{
	struct metrics r = {.n = t->n, .loss = NAN, .accuracy = NAN, .macro_f1 = NAN, .rmse = NAN};
	if (t->n == 0)
		return r;
	r.loss = t->loss / (double)t->n;
	if (t->m->classes.n > 0) {
		r.accuracy = (double)t->correct / (double)t->n;
		r.macro_f1 = macro_f1(t);
	} else {
		r.rmse = sqrt(r.loss);
	}
	return r;
}

enum err evaluate_net(struct net *net, const struct model *m, const struct dataset *d, const bool *chosen,
		      struct metrics *ret_metrics)
{
	TRY(evaluate_check(m, d));
	ENSURE(chosen == NULL || d->label != NULL);
	size_t batch = net_batch_max(net) < EVALUATE_BATCH ? net_batch_max(net) : EVALUATE_BATCH;
	struct tally t = {.m = m};
	size_t *counts = mem_array(3 * m->n_outputs, sizeof *counts);
	t.labelled = counts;
	t.predicted = counts + m->n_outputs;
	t.matched = counts + 2 * m->n_outputs;
	t.x = mem_array(batch * d->width, sizeof *t.x);
	t.label = mem_array(batch, sizeof *t.label);
	t.target = mem_array(batch * d->n_targets, sizeof *t.target);
	for (size_t i = 0; i < d->n; i++) {
		if (chosen != NULL && !chosen[d->label[i]])
			continue;
		add_sample(&t, d, i);
		if (t.filled == batch)
			count_batch(&t, net);
	}
	count_batch(&t, net);
	*ret_metrics = result_of(&t);
	free(counts);
	free(t.x);
	free(t.label);
	free(t.target);
	return ERR_OK;
}

enum err evaluate_classes(struct model *m, const struct dataset *d, const bool *chosen, struct metrics *ret_metrics)
{
	struct net *net;
	TRY(net_new(m, EVALUATE_BATCH, false, &net));
	enum err e = evaluate_net(net, m, d, chosen, ret_metrics);
	net_free(net);
	return e;
}

enum err evaluate(struct model *m, const struct dataset *d, struct metrics *ret_metrics)
{
	return evaluate_classes(m, d, NULL, ret_metrics);
}

/* Not a number is worse than every number. */
static double or_infinity(double v)
{
	return isnan(v) ? (double)INFINITY : v;
}

bool metrics_better(const struct metrics *a, const struct metrics *b)
{
	if (a->n == 0 || b->n == 0)
		return a->n > 0;
	/* Large is good in both: accuracy, or RMSE with the other sign. */
	double x = isnan(a->accuracy) ? -or_infinity(a->rmse) : a->accuracy;
	double y = isnan(b->accuracy) ? -or_infinity(b->rmse) : b->accuracy;
	return x != y ? x > y : or_infinity(a->loss) < or_infinity(b->loss);
}

bool metrics_not_worse(const struct metrics *a, const struct metrics *b)
{
	return !metrics_better(b, a);
}
