/*
 * A job's configuration: what the operator writes in YAML, what is hashed, and what plants receive. One table for
 * all three.
 *
 *	source: source.safetensors      # file at the operator; the coordinator pins its SHA-256
 *	model: model.yaml               # optional: other classes than the source's; head rows go by class name
 *	name: bearings
 *	rounds: 10
 *	quorum: 3
 *	deadline: 10m
 *	train: {epochs: 3, batch: 16, optimizer: sgd, lr: 0.01, momentum: 0.9}
 *	personalise: {epochs: 5}        # what is not said here is as in `train`
 */
#ifndef HANSA_UPDATE_JOB_H
#define HANSA_UPDATE_JOB_H

#include "ml/train.h"
#include "update/manifest.h"

/* After the last round, at the plant, on its own copy: some epochs more. What is not set is as in `train`. */
struct job_personalise {
	int64_t epochs;            /* 0: off */
	double lr;                 /* 0: as in `train` */
	struct config_list freeze; /* empty: as in `train` */
};

struct job_config {
	char *name;
	char *source; /* path at the operator; not part of what is hashed or sent */
	char *model;  /* path at the operator, likewise: it goes into the base model */
	int strategy; /* fedavg */
	int64_t rounds;
	int64_t quorum;            /* updates that a round needs at its deadline */
	int64_t deadline;          /* ms */
	int64_t failures_max;      /* abandoned rounds in a row before the job fails */
	struct config_list plants; /* cohort; empty: all enrolled plants */
	struct config_list local;  /* patterns of tensors that stay at the plant */
	double server_rate;
	double clip_norm; /* plants scale their update down to it; 0: off */
	double norm_max;  /* larger updates are refused; 0: off */
	int64_t seed;
	struct train_config train; /* a round's local training */
	struct job_personalise personalise;
};
extern const struct config_row job_rows[]; /* the operator's file */
/* The same without `source` and `model`: canonical form, hash, wire. Reading with these rows leaves those two
 * fields as they are. */
extern const struct config_row *const job_wire_rows;

/* quorum <= cohort where the cohort is named, names are valid and unique, ...: what the table cannot say.
 * ERR_CONFIG. */
MUST_CHECK enum err job_check(const struct job_config *c);
struct digest job_hash(struct bytes canonical);
/* The training of `personalise`: `train` with what it says put over it. Lists are borrowed from `c`. */
struct train_config job_personalise_train(const struct job_config *c);
/* The seed of one plant's training in one round: same inputs, same training. The job's name counts, not its number,
 * so that the same job in another federation trains the same way. Personalising is round `rounds` + 1. */
uint64_t job_plant_seed(const struct job_config *c, uint32_t round, const char *plant);

#endif
