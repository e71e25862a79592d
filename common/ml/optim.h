/*
 * Optimisers: rows in a table; all work on the flat block of learned parameters.
 *
 * SGD (PyTorch): g += wd*p; v = momentum*v + g (v = g at first); p -= lr*v. Dampening 0, Nesterov off.
 * Adam (PyTorch): g += wd*p; m, v with bias correction, eps added outside the root; beta 0.9, 0.999, eps 1e-8.
 * Pulls, added to the gradient before the rule: L2-SP (Li, Grandvalet, Davoine, ICML 2018) alpha*(p - source) on
 * tensors shared with the source and beta*p on the head; FedProx (Li et al. 2020) mu*(p - base).
 * "L + lambda*|p - source|^2" is alpha = 2*lambda.
 */
#ifndef HANSA_ML_OPTIM_H
#define HANSA_ML_OPTIM_H

#include "ml/model.h"

enum optim_kind { OPTIM_SGD, OPTIM_ADAM };
extern const char *const optim_names[]; /* "sgd", "adam", NULL */

struct optim_config {
	int kind;
	double lr, momentum, weight_decay;
	double head_lr; /* learning rate of the head = lr * head_lr; 1: same */
	double l2sp_alpha, l2sp_beta;
	double prox_mu;
};

struct optim;
/* `source` (for L2-SP) and `base` (for FedProx): parameter blocks laid out as m->theta (the learned part is enough),
 * borrowed; NULL when their weight is 0: ERR_CONFIG if it is not. Which tensors are frozen is read now. `head_is_new`:
 * the head is not shared with the source, so beta applies to it; otherwise alpha does. */
MUST_CHECK enum err optim_new(const struct optim_config *config, struct model *m, const float *source, bool head_is_new,
			      const float *base, struct optim **ret_optim);
void optim_step(struct optim *o, const float *gradient); /* frozen tensors stay bit-identical */
void optim_set_lr_scale(struct optim *o, double scale);  /* for schedules; 1 at first */
void optim_free(struct optim *o);

#endif
