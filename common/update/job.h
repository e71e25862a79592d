/*
 * A job's configuration: what the operator writes in YAML, what is hashed, and what plants receive. One table for
 * all three.
 *
 *	source: source.safetensors      # file at the operator; the coordinator pins its SHA-256
 *	model: model.yaml               # optional: other classes than the source's; head rows go by class name
 *	name: bearings
 *	rounds: 10
 *	quorum: 3
 *	cohort: 10                      # plants asked in each round
 *	goal: 8                         # updates with which a round closes before its deadline
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

enum job_late { JOB_LATE_REFUSE, JOB_LATE_CARRY };
/* What an update counts that comes s rounds late: 1/sqrt(1+s), 1/(1+s), 1. */
enum job_late_weight { JOB_LATE_SQRT, JOB_LATE_INVERSE, JOB_LATE_CONSTANT };
enum { JOB_LATE_MAX = 1000 }; /* rounds */
#define JOB_KEEP_ALL UINT32_MAX

struct job_config {
	char *name;
	char *source; /* path at the operator; not part of what is hashed or sent */
	char *model;  /* path at the operator, likewise: it goes into the base model */
	int strategy; /* fedavg */
	int64_t rounds;
	int64_t quorum;                   /* updates that a round needs at its deadline */
	int64_t deadline;                 /* ms */
	int64_t cohort;                   /* plants asked in each round; 0: all */
	int64_t goal;                     /* updates with which a round closes early; 0: one of each plant asked */
	int64_t grace;                    /* ms beyond the deadline, for updates that are flowing in */
	int late;                         /* enum job_late */
	int late_weight;                  /* enum job_late_weight */
	int64_t late_max;                 /* rounds */
	char *keep_updates, *keep_models; /* job_keep_updates(), job_keep_models() */
	int64_t failures_max;             /* abandoned rounds in a row before the job fails */
	struct config_list plants;        /* cohort; empty: all enrolled plants */
	struct config_list local;         /* patterns of tensors that stay at the plant */
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

/* quorum <= goal <= cohort <= the plants that are named, names are valid and unique, ...: what the table cannot say.
 * ERR_CONFIG. */
MUST_CHECK enum err job_check(const struct job_config *c);
/* For how many rounds after its own the updates, or the model, of a round are kept; JOB_KEEP_ALL. Of a configuration
 * that job_check() has seen. */
uint32_t job_keep_updates(const struct job_config *c);
uint32_t job_keep_models(const struct job_config *c);
struct digest job_hash(struct bytes canonical);
/* The training of `personalise`: `train` with what it says put over it. Lists are borrowed from `c`. */
struct train_config job_personalise_train(const struct job_config *c);
/* The seed of one plant's training in one round: same inputs, same training. The job's name counts, not its number,
 * so that the same job in another federation trains the same way. Personalising is round `rounds` + 1. */
uint64_t job_plant_seed(const struct job_config *c, uint32_t round, const char *plant);

#endif
