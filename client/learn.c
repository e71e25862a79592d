#include "client/learn.h"

#include "base/signals.h"
#include "base/table.h"
#include "client/report.h"

#include <stdlib.h>

static bool any(const bool *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (v[i])
			return true;
	return false;
}

enum err learn_score(struct model *m, const struct reader_split *split, struct learn_scores *ret_scores)
{
	struct learn_scores s = {0};
	size_t n_classes = m->classes.n;
	bool *unseen = mem_array(n_classes + 1, sizeof *unseen);
	size_t *labels = mem_array(n_classes + 1, sizeof *labels);
	enum err err = evaluate(m, split->heldout, &s.heldout);
	if (err == ERR_OK)
		err = evaluate(m, split->test, &s.test);
	if (err == ERR_OK && n_classes > 0) {
		dataset_class_counts(split->train, labels);
		for (size_t i = 0; i < n_classes; i++)
			unseen[i] = labels[i] == 0;
		if (any(unseen, n_classes))
			err = evaluate_classes(m, split->test, unseen, &s.unseen);
	}
	free(unseen);
	free(labels);
	TRY(err);
	*ret_scores = s;
	return ERR_OK;
}

struct json *learn_scores_json(const struct learn_scores *s)
{
	struct json *v = json_map();
	json_put(v, "heldout", report_metrics(&s->heldout));
	json_put(v, "test", report_metrics(&s->test));
	json_put(v, "unseen", report_metrics(&s->unseen));
	return v;
}

enum err learn_progress(void *arg, const struct train_progress *p)
{
	char text[REPORT_TEXT_SIZE];
	if (p->heldout.n > 0)
		progress("%s: epoch %zu/%zu, loss %.4f, held out %s", (const char *)arg, p->epoch, p->epochs, p->loss,
			 report_format(&p->heldout, text));
	else
		progress("%s: epoch %zu/%zu, loss %.4f", (const char *)arg, p->epoch, p->epochs, p->loss);
	if (p->epoch == p->epochs)
		progress("%s", "");
	if (signals_stop_asked()) {
		progress("%s", "");
		return err_set(ERR_CANCELLED, "stopped in epoch %zu of %zu; nothing was written", p->epoch, p->epochs);
	}
	return ERR_OK;
}
