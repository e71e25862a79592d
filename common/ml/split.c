#include "ml/split.h"

#include "base/mem.h"

#include <math.h>
#include <stdlib.h>

size_t split_cut(size_t begin, size_t end, size_t window, size_t step, size_t **ret_starts)
{
	ENSURE(window > 0 && step > 0);
	size_t n = end >= begin && end - begin >= window ? (end - begin - window) / step + 1 : 0;
	size_t *starts = mem_array(n, sizeof *starts);
	for (size_t i = 0; i < n; i++)
		starts[i] = begin + i * step;
	*ret_starts = starts;
	return n;
}

void split_borders(const struct split_rule *rule, size_t n, size_t *ret_train_end, size_t *ret_test_begin)
{
	ENSURE(rule->train <= rule->test_from);
	double train = floor(rule->train * (double)n), test = ceil(rule->test_from * (double)n);
	size_t train_end = train < (double)n ? (size_t)train : n;
	size_t test_begin = test < (double)n ? (size_t)test : n;
	*ret_train_end = train_end;
	*ret_test_begin = test_begin < train_end ? train_end : test_begin;
}

size_t split_heldout_count(size_t labelled, double share)
{
	if (labelled < 2 || share <= 0)
		return 0;
	size_t n = (size_t)(share * (double)labelled + 0.5);
	if (n < 1)
		n = 1;
	return n < labelled ? n : labelled - 1;
}

/* `count` of `from[0..n)`, one from each of `count` equal stretches, none of which is empty because n >= count. */
static void spread(const size_t *from, size_t n, size_t count, double offset, size_t *out)
{
	for (size_t i = 0; i < count; i++) {
		size_t begin = i * n / count, end = (i + 1) * n / count;
		size_t at = begin + (size_t)(offset * (double)(end - begin));
		out[i] = from[at < end ? at : end - 1];
	}
}

static enum err choose(const struct split_rule *rule, const size_t *own, size_t n, struct split *s)
{
	size_t labelled = rule->labels > 0 ? rule->labels : n;
	if (labelled > n)
		return err_set(ERR_CONFIG,
			       "labels: %zu windows asked for, but only %zu of the training part are available",
			       labelled, n);
	size_t n_heldout = split_heldout_count(labelled, rule->heldout), n_train = labelled - n_heldout;
	size_t *picked = mem_array(labelled, sizeof *picked);
	spread(own, n, labelled, rule->offset, picked);
	size_t border = n_heldout > 0 ? picked[n_train] : SIZE_MAX;
	if (n_train > 0 && n_heldout > 0 && picked[n_train - 1] + rule->window > border) {
		/* Windows overlap here: training has to end before the first held-out one begins. */
		size_t before = 0;
		while (before < n && own[before] + rule->window <= border)
			before++;
		if (rule->labels == 0)
			n_train = before;
		if (before == 0 || n_train > before) {
			free(picked);
			return err_set(ERR_CONFIG,
				       "labels: %zu windows of %zu samples, %zu held out, do not fit without overlap; "
				       "ask for fewer, or make step larger",
				       labelled, rule->window, n_heldout);
		}
		spread(own, before, n_train, rule->offset, s->train);
	} else {
		for (size_t i = 0; i < n_train; i++)
			s->train[i] = picked[i];
	}
	for (size_t i = 0; i < n_heldout; i++)
		s->heldout[i] = picked[labelled - n_heldout + i];
	s->n_train = n_train;
	s->n_heldout = n_heldout;
	free(picked);
	return ERR_OK;
}

enum err split_choose(const struct split_rule *rule, const size_t *starts, size_t n, struct split *ret_split)
{
	ENSURE(rule->parts > 0 && rule->part < rule->parts && rule->offset >= 0 && rule->offset < 1);
	size_t n_own = 0;
	size_t *own = mem_array(n, sizeof *own);
	for (size_t i = rule->part; i < n; i += rule->parts)
		own[n_own++] = starts[i];
	struct split s = {.train = mem_array(n_own, sizeof *s.train), .heldout = mem_array(n_own, sizeof *s.heldout)};
	enum err e = choose(rule, own, n_own, &s);
	free(own);
	if (e != ERR_OK) {
		split_deinit(&s);
		return e;
	}
	*ret_split = s;
	return ERR_OK;
}

void split_deinit(struct split *s)
{
	free(s->train);
	free(s->heldout);
	*s = (struct split){0};
}
