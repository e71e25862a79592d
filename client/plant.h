/*
 * A plant's (or lab's) configuration file: one YAML for every command of `hansa`. Relative paths are relative to the
 *file.
 *
 *	identity: identity            # made by `hansa enroll`
 *	state: state                  # the model in use, received models, what was sent
 *	data: {path: /data/press4, labels: 5}
 *	share: [loss, accuracy]       # metrics that may leave the plant, and with them whether a new model was taken into use; [] for none
 *	model: model.yaml             # pretrain, and finetune for other classes than the source's
 *	train: {epochs: 20, lr: 0.01} # pretrain and finetune; in `join` the job decides
 */
#ifndef HANSA_CLIENT_PLANT_H
#define HANSA_CLIENT_PLANT_H

#include "ml/reader.h"
#include "ml/train.h"

struct plant_config {
	char *identity, *state, *model;
	struct config_list share;
	struct reader_config data;
	struct train_config train;
	int64_t seed;
};
extern const struct config_row plant_rows[];
/* Metrics that `share` may name. */
extern const char *const plant_metrics[];

MUST_CHECK enum err plant_load(const char *path, struct plant_config *ret_config);
void plant_free(struct plant_config *c);
bool plant_shares(const struct plant_config *c, const char *metric);

#endif
