/*
 * Training: a model, samples, a configuration, a seed. The same inputs give the same bytes on the same kind of CPU.
 */
#ifndef HANSA_ML_TRAIN_H
#define HANSA_ML_TRAIN_H

#include "ml/evaluate.h"
#include "ml/optim.h"

struct train_config {
	int64_t epochs, batch;
	struct optim_config optim;
	struct config_list freeze; /* patterns of tensor names that are not trained (and do not travel) */
	int batchnorm;             /* train: batch statistics; frozen: inference mode everywhere */
	double absent_scale; /* factor on the logits of classes without samples here (FedRS); 1: ordinary softmax */
	double label_smoothing;
	int schedule; /* constant | cosine, over the epochs of this run */
	/* Each training window is changed anew in every epoch: */
	bool augment_shift;   /* turned round by a random number of samples (all channels alike) */
	double augment_noise; /* plus normal noise of this deviation */
	double augment_scale; /* times exp(this deviation * normal), the same factor for the whole window */
};
enum train_batchnorm { TRAIN_BATCHNORM_TRAIN, TRAIN_BATCHNORM_FROZEN };
enum train_schedule { TRAIN_CONSTANT, TRAIN_COSINE };
extern const struct config_row train_rows[]; /* key `train` of jobs, pretraining and fine-tuning */

struct train_progress {
	size_t epoch, epochs;   /* 1-based */
	double loss;            /* mean training loss of the epoch */
	struct metrics heldout; /* n == 0 without a held-out set */
};
/* Called after each epoch; ERR_CANCELLED (or any error) stops the training, which returns it. */
typedef enum err (*train_fn)(void *arg, const struct train_progress *p);

struct train_job {
	struct model *model; /* trained in place */
	const struct dataset *train;
	const struct dataset *heldout; /* NULL or empty: no choice of the best epoch */
	const struct train_config *config;
	const struct model *source; /* for L2-SP; NULL: none */
	bool head_is_new;           /* the head is not the source's: beta pulls it to zero */
	const float *base;          /* for FedProx: the round's base, laid out as theta; NULL: none */
	uint64_t seed;
	bool keep_best; /* end with the parameters of the best epoch on the held-out set (epoch 0, the start, competes
			   too) */
	train_fn progress; /* NULL: none */
	void *progress_arg;
};

struct train_result {
	size_t epochs;          /* trained */
	size_t best_epoch;      /* whose parameters were kept; 0: the start */
	size_t samples;         /* in the training set */
	size_t steps;           /* of the optimiser */
	double loss;            /* of the last epoch; NaN without one */
	struct metrics heldout; /* of the parameters that were kept; n == 0 without a held-out set */
};

/*
 * ERR_NUMERIC when the loss is no longer finite ("diverged; lower the learning rate"); ERR_SHAPE when samples, source
 * or base do not fit; ERR_CONFIG when the configuration does not suit the model, or asks for a pull (l2sp_alpha,
 * prox_mu) to what the job lacks. After a failure the model is whole: with the best parameters so far (keep_best),
 * otherwise after a stop with those of the last epoch and after a divergence with those of the start. The `frozen`
 * marks of its tensors are those of the configuration.
 */
MUST_CHECK enum err train_run(const struct train_job *job, struct train_result *ret_result);

#endif
