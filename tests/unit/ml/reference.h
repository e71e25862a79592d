/*
 * The learning engine once more, in double precision and as plainly as its definitions: PyTorch's order of the elements
 * (B,C,L), one loop per index, memory for everything. What it shares with the engine is the model's description and the
 * layout of its block.
 */
#ifndef HANSA_TEST_ML_REFERENCE_H
#define HANSA_TEST_ML_REFERENCE_H

#include "ml/gradcheck.h"

#include "ml/optim.h"

struct reference {
	const struct model *m;
	size_t batch;
	double *theta, *grad;               /* laid out as the model's */
	double *act[MODEL_LAYERS_MAX + 1];  /* act[i]: input of layer i */
	double *diff[MODEL_LAYERS_MAX + 1]; /* gradients of these */
	double *state;                      /* of the optimiser: two values a weight */
	size_t steps;
};

static inline struct reference *reference_new(const struct model *m, size_t batch)
{
	struct reference *r = mem_new(sizeof *r);
	r->m = m;
	r->theta = mem_array(m->n_theta, sizeof(double));
	r->grad = mem_array(m->n_theta, sizeof(double));
	r->state = mem_array(2 * m->n_theta, sizeof(double));
	for (size_t i = 0; i < m->n_theta; i++)
		r->theta[i] = (double)m->theta[i];
	for (size_t i = 0; i <= m->n_layers; i++) {
		size_t n = layer_count(i == 0 ? &m->input : &m->layers[i - 1].out_shape);
		r->act[i] = mem_array(batch * n, sizeof(double));
		r->diff[i] = mem_array(batch * n, sizeof(double));
	}
	return r;
}

static inline void reference_free(struct reference *r)
{
	for (size_t i = 0; i <= r->m->n_layers; i++) {
		free(r->act[i]);
		free(r->diff[i]);
	}
	free(r->theta);
	free(r->grad);
	free(r->state);
	free(r);
}

static inline double *reference_param(const struct reference *r, const struct layer *l, unsigned i, double *block)
{
	return i < l->n_params ? block + r->m->params[l->param[i]].offset : NULL;
}

static inline void reference_conv(const struct layer *l, size_t batch, const double *x, const double *w,
				  const double *bias, double *y, const double *dy, double *dx, double *dw, double *db)
{
	size_t c_n = l->in_shape.d[0], len = l->in_shape.d[1], o_n = l->out_shape.d[0], p_n = l->out_shape.d[1];
	size_t k_n = (size_t)l->kernel;
	for (size_t i = 0; i < batch * o_n * p_n; i++) {
		size_t b = i / (o_n * p_n), o = i / p_n % o_n, p = i % p_n;
		if (dy == NULL)
			y[i] = l->bias ? bias[o] : 0;
		else if (l->bias)
			db[o] += dy[i];
		for (size_t c = 0; c < c_n; c++) {
			for (size_t k = 0; k < k_n; k++) {
				int64_t at = (int64_t)p * l->stride + (int64_t)k - l->padding;
				if (at < 0 || at >= (int64_t)len)
					continue;
				size_t xi = (b * c_n + c) * len + (size_t)at, wi = (o * c_n + c) * k_n + k;
				if (dy == NULL) {
					y[i] += x[xi] * w[wi];
				} else {
					dx[xi] += dy[i] * w[wi];
					dw[wi] += dy[i] * x[xi];
				}
			}
		}
	}
}

static inline void reference_linear(const struct layer *l, size_t batch, const double *x, const double *w,
				    const double *bias, double *y, const double *dy, double *dx, double *dw, double *db)
{
	size_t in = l->in_shape.d[0], out = l->out_shape.d[0];
	for (size_t i = 0; i < batch * out; i++) {
		size_t b = i / out, o = i % out;
		if (dy == NULL)
			y[i] = l->bias ? bias[o] : 0;
		else if (l->bias)
			db[o] += dy[i];
		for (size_t j = 0; j < in; j++) {
			if (dy == NULL) {
				y[i] += x[b * in + j] * w[o * in + j];
			} else {
				dx[b * in + j] += dy[i] * w[o * in + j];
				dw[o * in + j] += dy[i] * x[b * in + j];
			}
		}
	}
}

/* The textbook's chain rule, through mean and variance. */
static inline void reference_norm(const struct layer *l, size_t batch, const double *x, double *const p[4], double *y,
				  const double *dy, double *dx, double *dw, double *db)
{
	size_t c_n = layer_channels(&l->in_shape), len = layer_length(&l->in_shape), n = batch * len;
	for (size_t c = 0; c < c_n; c++) {
		double mean = 0, var = 0, d_var = 0, d_mean = 0;
		for (size_t i = 0; i < n; i++)
			mean += x[(i / len * c_n + c) * len + i % len] / (double)n;
		for (size_t i = 0; i < n; i++)
			var += pow(x[(i / len * c_n + c) * len + i % len] - mean, 2) / (double)n;
		double inverse = 1 / sqrt(var + 1e-5);
		for (size_t i = 0; i < n; i++) {
			size_t at = (i / len * c_n + c) * len + i % len;
			double hat = (x[at] - mean) * inverse;
			if (dy == NULL) {
				y[at] = hat * p[0][c] + p[1][c];
				continue;
			}
			dw[c] += dy[at] * hat;
			db[c] += dy[at];
			d_var += dy[at] * p[0][c] * (x[at] - mean) * -0.5 * pow(var + 1e-5, -1.5);
			d_mean += -dy[at] * p[0][c] * inverse;
		}
		for (size_t i = 0; dy != NULL && i < n; i++) {
			size_t at = (i / len * c_n + c) * len + i % len;
			dx[at] += dy[at] * p[0][c] * inverse + d_var * 2 * (x[at] - mean) / (double)n +
				  d_mean / (double)n;
		}
		if (dy == NULL) {
			p[2][c] = (1 - l->p) * p[2][c] + l->p * mean;
			p[3][c] = (1 - l->p) * p[3][c] + l->p * var * (double)n / (double)(n > 1 ? n - 1 : 1);
		}
	}
}

/* All four pools: the value of a window, or its gradient to where it came from. */
static inline void reference_pool(const struct layer *l, size_t batch, const double *x, double *y, const double *dy,
				  double *dx)
{
	int64_t len = (int64_t)l->in_shape.d[1], p_n = (int64_t)l->out_shape.d[1];
	bool max = strstr(l->op->op, "max") != NULL;
	for (size_t i = 0; i < batch * l->in_shape.d[0] * (size_t)p_n; i++) {
		int64_t p = (int64_t)i % p_n, start = p * l->stride - l->padding, end = start + l->kernel;
		if (l->kernel == 0) {
			start = p * len / p_n;
			end = ((p + 1) * len + p_n - 1) / p_n;
		}
		const double *in = x + (int64_t)i / p_n * len;
		int64_t best = start < 0 ? 0 : start;
		double sum = 0, size = (double)(end - start);
		for (int64_t j = start; j < end; j++) {
			if (j < 0 || j >= len)
				continue;
			best = in[j] > in[best] ? j : best;
			sum += in[j];
			if (dy != NULL && !max)
				dx[(int64_t)i / p_n * len + j] += dy[i] / size;
		}
		if (dy == NULL)
			y[i] = max ? in[best] : sum / size;
		else if (max)
			dx[(int64_t)i / p_n * len + best] += dy[i];
	}
}

/* One layer forward (dy NULL) or backward. */
static inline void reference_layer(struct reference *r, size_t i, bool back)
{
	const struct layer *l = &r->m->layers[i];
	const double *x = r->act[i], *dy = back ? r->diff[i + 1] : NULL;
	double *y = r->act[i + 1], *dx = r->diff[i], *p[4], *g[4];
	for (unsigned j = 0; j < 4; j++) {
		p[j] = reference_param(r, l, j, r->theta);
		g[j] = reference_param(r, l, j, r->grad);
	}
	size_t n = r->batch * layer_count(&l->in_shape);
	if (l->op == &layer_conv1d)
		reference_conv(l, r->batch, x, p[0], p[1], y, dy, dx, g[0], g[1]);
	else if (l->op == &layer_linear)
		reference_linear(l, r->batch, x, p[0], p[1], y, dy, dx, g[0], g[1]);
	else if (l->op == &layer_batchnorm1d)
		reference_norm(l, r->batch, x, p, y, dy, dx, g[0], g[1]);
	else if (strstr(l->op->op, "pool") != NULL)
		reference_pool(l, r->batch, x, y, dy, dx);
	else if (l->op == &layer_relu || l->op == &layer_flatten)
		for (size_t j = 0; j < n; j++) {
			bool pass = l->op == &layer_flatten || x[j] > 0;
			if (back)
				dx[j] += pass ? dy[j] : 0;
			else
				y[j] = pass ? x[j] : 0;
		}
	else
		fail_msg("no reference for %s", l->op->op);
}

/* A training step up to the gradient. Labels: cross-entropy with scale (NULL: 1) and smoothing; targets: MSE. Returns
 * the loss. */
static inline double reference_gradient(struct reference *r, const float *x, size_t batch, const uint32_t *label,
					const float *target, const float *scale, double smoothing)
{
	size_t n_layers = r->m->n_layers, outputs = r->m->n_outputs, width = layer_count(&r->m->input);
	double loss = 0;
	r->batch = batch;
	for (size_t i = 0; i < batch * width; i++)
		r->act[0][i] = (double)x[i];
	for (size_t i = 0; i < n_layers; i++)
		reference_layer(r, i, false);
	for (size_t i = 0; i <= n_layers; i++)
		memset(r->diff[i], 0,
		       batch * layer_count(i == 0 ? &r->m->input : &r->m->layers[i - 1].out_shape) * sizeof(double));
	for (size_t b = 0; b < batch; b++) {
		const double *y = r->act[n_layers] + b * outputs;
		double *d = r->diff[n_layers] + b * outputs, sum = 0, classes = 0;
		for (size_t o = 0; label != NULL && o < outputs; o++) {
			double s = scale != NULL ? (double)scale[o] : 1;
			sum += s != 0 ? exp(s * y[o]) : 0;
			classes += s != 0;
		}
		for (size_t o = 0; o < outputs; o++) {
			if (label == NULL) {
				double e = y[o] - (double)target[b * outputs + o], n = (double)(batch * outputs);
				loss += e * e / n;
				d[o] = 2 * e / n;
				continue;
			}
			double s = scale != NULL ? (double)scale[o] : 1;
			double want = (o == label[b] ? 1 - smoothing : 0) + smoothing / classes;
			if (s == 0)
				continue;
			loss -= want * (s * y[o] - log(sum)) / (double)batch;
			d[o] = s * (exp(s * y[o]) / sum - want) / (double)batch;
		}
	}
	memset(r->grad, 0, r->m->n_theta * sizeof(double));
	for (size_t i = n_layers; i-- > 0;)
		reference_layer(r, i, true);
	return loss;
}

/* The optimiser's step on the gradient, tensor by tensor, as the header of ml/optim.h writes it. */
static inline void reference_step(struct reference *r, const struct optim_config *c, const float *source,
				  bool head_is_new, const float *base, double lr_scale)
{
	r->steps++;
	for (size_t k = 0; k < r->m->n_params; k++) {
		const struct param *q = &r->m->params[k];
		if (q->kind != PARAM_WEIGHT || q->frozen)
			continue;
		double lr = c->lr * lr_scale * (q->head ? c->head_lr : 1);
		for (size_t i = q->offset; i < q->offset + q->n; i++) {
			double p = r->theta[i], g = r->grad[i] + c->weight_decay * p, *s = r->state + 2 * i;
			if (q->head && head_is_new)
				g += c->l2sp_beta * p;
			else if (c->l2sp_alpha != 0)
				g += c->l2sp_alpha * (p - (double)source[i]);
			if (c->prox_mu != 0)
				g += c->prox_mu * (p - (double)base[i]);
			if (c->kind == OPTIM_SGD) {
				s[0] = r->steps > 1 ? c->momentum * s[0] + g : g;
				r->theta[i] = p - lr * s[0];
			} else {
				s[0] = 0.9 * s[0] + 0.1 * g;
				s[1] = 0.999 * s[1] + 0.001 * g * g;
				double m = s[0] / (1 - pow(0.9, (double)r->steps)),
				       v = s[1] / (1 - pow(0.999, (double)r->steps));
				r->theta[i] = p - lr * m / (sqrt(v) + 1e-8);
			}
		}
	}
}

#endif
