/*
 * Learning without a coordinator: pretrain, fine-tune, evaluate. The parts that the commands share.
 */
#ifndef HANSA_CLIENT_LEARN_H
#define HANSA_CLIENT_LEARN_H

#include "base/json.h"
#include "client/plant.h"

struct learn_scores {
	struct metrics heldout, test;
	struct metrics unseen; /* test samples of classes that the plant has no labels of; n == 0: there are none */
};

/* Scores of `m` on the plant's own splits. */
MUST_CHECK enum err learn_score(struct model *m, const struct reader_split *split, struct learn_scores *ret_scores);
struct json *learn_scores_json(const struct learn_scores *s);

/* Progress line on stderr after each epoch (arg: a label); ERR_CANCELLED once Ctrl-C was pressed. A train_fn. */
enum err learn_progress(void *arg, const struct train_progress *p);

#endif
