/*
 * Norms are sums over the trainable tensors in manifest order; inside a tensor the order is that of update/fixed.h.
 * The checker adds up the squares of the integers and applies the scale, a power of two and therefore exact, once
 * per tensor.
 *
 * Clipping. Scaling by c / norm gives a norm of c before rounding to fixed point, and rounding moves each of the N
 * elements by at most half a unit: the norm, by the triangle inequality, by at most sqrt(sum of (2^-s / 2)^2). So
 * the plant aims at c minus that, and a coordinator whose limit is c never refuses it for rounding. `float_slack`
 * covers the double arithmetic of both sums.
 */
#include "update/update.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double float_slack = 1e-9;

static double norm_of(const struct manifest *m, const float *base, const float *local)
{
	double square = 0;
	for (size_t i = 0; i < m->n_tensors; i++) {
		const struct manifest_tensor *t = &m->tensors[i];
		if (t->role == TENSOR_TRAINABLE)
			square += fixed_square(local + t->offset, base + t->offset, t->n);
	}
	return sqrt(square);
}

/* By how much rounding can raise the norm. */
static double rounding_of(const struct manifest *m)
{
	double square = 0;
	for (size_t i = 0; i < m->n_tensors; i++) {
		const struct manifest_tensor *t = &m->tensors[i];
		if (t->role == TENSOR_TRAINABLE)
			square += (double)t->n * ldexp(1, -2 * t->scale - 2);
	}
	return sqrt(square);
}

static enum err clip_factor(const struct manifest *m, double norm, double clip_norm, double *ret_factor)
{
	*ret_factor = 1;
	if (clip_norm <= 0)
		return ERR_OK;
	double target = (clip_norm - rounding_of(m)) * (1 - float_slack);
	if (norm <= target || norm == 0)
		return ERR_OK;
	if (target <= 0)
		return err_set(ERR_NUMERIC, "clip_norm %g is below the resolution of an update (%g)", clip_norm,
			       rounding_of(m));
	*ret_factor = target / norm;
	return ERR_OK;
}

enum err update_make(const struct manifest *m, const float *base, const float *local, double clip_norm,
		     uint8_t **ret_bytes, double *ret_norm)
{
	double norm = norm_of(m, base, local), factor;
	TRY(clip_factor(m, norm, clip_norm, &factor));
	int32_t *q = mem_array(m->n_travel, sizeof *q);
	for (size_t i = 0; i < m->n_tensors; i++) {
		const struct manifest_tensor *t = &m->tensors[i];
		if (!t->travels)
			continue;
		size_t bad = 0;
		enum err e = fixed_encode(local + t->offset, base + t->offset, t->n,
					  t->role == TENSOR_TRAINABLE ? factor : 1, t->scale, q + t->at, &bad);
		if (e != ERR_OK) {
			free(q);
			return err_add(e, "%s[%zu]", t->name, bad);
		}
	}
	fixed_order(q, m->n_travel);
	*ret_bytes = (uint8_t *)q;
	if (ret_norm != NULL)
		*ret_norm = norm;
	return ERR_OK;
}

/* Go on to the next tensor that travels, from `tensor` on. */
static void enter(struct update_check *c, size_t tensor)
{
	while (tensor < c->m->n_tensors && !c->m->tensors[tensor].travels)
		tensor++;
	c->tensor = tensor;
	memset(c->lanes, 0, sizeof c->lanes);
}

static void leave(struct update_check *c)
{
	const struct manifest_tensor *t = &c->m->tensors[c->tensor];
	if (t->role == TENSOR_TRAINABLE)
		c->square += ldexp(fixed_lanes_sum(c->lanes), -2 * t->scale);
	enter(c, c->tensor + 1);
}

void update_check_init(struct update_check *c, const struct manifest *m, double norm_max)
{
	*c = (struct update_check){.m = m, .norm_max = norm_max};
	enter(c, 0);
}

static enum err too_long(const struct update_check *c)
{
	return err_set(ERR_SHAPE, "the update is longer than the %zu bytes of its manifest",
		       manifest_update_bytes(c->m));
}

/* n whole elements. */
static enum err scan(struct update_check *c, const uint8_t *p, size_t n)
{
	while (n > 0) {
		if (c->tensor == c->m->n_tensors)
			return too_long(c);
		const struct manifest_tensor *t = &c->m->tensors[c->tensor];
		size_t place = c->at - t->at, bad;
		size_t k = n < t->n - place ? n : t->n - place;
		if (!fixed_scan(p, k, place, c->lanes, &bad))
			return err_set(ERR_NUMERIC, "%s[%zu]: out of range", t->name, place + bad);
		c->at += k;
		p += 4 * k;
		n -= k;
		if (place + k == t->n)
			leave(c);
	}
	return ERR_OK;
}

static enum err feed(struct update_check *c, struct bytes piece)
{
	if (c->n_rest > 0) {
		size_t k = sizeof c->rest - c->n_rest;
		if (k > piece.n)
			k = piece.n;
		if (k > 0)
			memcpy(c->rest + c->n_rest, piece.p, k);
		c->n_rest += k;
		if (c->n_rest < sizeof c->rest)
			return ERR_OK;
		c->n_rest = 0;
		TRY(scan(c, c->rest, 1));
		piece = bytes_of(piece.p + k, piece.n - k);
	}
	TRY(scan(c, piece.p, piece.n / 4));
	c->n_rest = piece.n % 4;
	/* Who stores what has been checked has room for the manifest's bytes, and not for one more. */
	if (c->n_rest > 0 && c->tensor == c->m->n_tensors)
		return too_long(c);
	if (c->n_rest > 0)
		memcpy(c->rest, piece.p + piece.n - c->n_rest, c->n_rest);
	return ERR_OK;
}

static enum err end(const struct update_check *c, double *ret_norm)
{
	size_t got = 4 * c->at + c->n_rest, want = manifest_update_bytes(c->m);
	if (got != want)
		return err_set(ERR_SHAPE, "the update has %zu bytes, its manifest %zu", got, want);
	double norm = sqrt(c->square);
	if (c->norm_max > 0 && norm > c->norm_max)
		return err_set(ERR_LIMIT, "the update's L2 norm %g is over the job's norm_max %g", norm, c->norm_max);
	*ret_norm = norm;
	return ERR_OK;
}

static enum err still_refused(const struct update_check *c)
{
	return err_set(c->failed, "the update was refused before");
}

enum err update_check_feed(struct update_check *c, struct bytes piece)
{
	if (c->failed != ERR_OK)
		return still_refused(c);
	c->failed = feed(c, piece);
	return c->failed;
}

enum err update_check_end(struct update_check *c, double *ret_norm)
{
	if (c->failed != ERR_OK)
		return still_refused(c);
	c->failed = end(c, ret_norm);
	return c->failed;
}
