/*
 * What the tests of the learning engine share: models from a text, values that suit finite differences, and the
 * comparison of a gradient with central differences of the loss it is the gradient of.
 *
 * Differences of a float32 function carry an error of about 1e-6/STEP, and one of STEP^2 where the function is curved.
 * Kinks (relu, the maximum) should be further away than STEP: gradcheck_spread() gives distinct values that keep a
 * distance from each other and from zero. Inside of a whole net that cannot be had; where the slopes to the left and to
 * the right differ, the gradient must be one of them or lie between them.
 */
#ifndef HANSA_TEST_ML_GRADCHECK_H
#define HANSA_TEST_ML_GRADCHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rng.h"
#include "ml/layer.h"
#include "ml/net.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GRADCHECK_STEP      1e-2 /* of one layer */
#define GRADCHECK_STEP_NET  1e-3 /* of a whole net, with its many kinks */
#define GRADCHECK_TOLERANCE 2e-3

static inline struct model *model_of(const char *text)
{
	struct yaml *yaml;
	struct model *m = NULL;
	if (yaml_parse("test", bytes_str(text), &yaml) != ERR_OK || model_from_yaml(yaml_root(yaml), &m) != ERR_OK)
		fail_msg("%s", err_text());
	yaml_free(yaml);
	return m;
}

static inline float *floats(size_t n)
{
	return mem_array(n, sizeof(float));
}

static inline float *normals(size_t n, uint64_t seed)
{
	float *x = floats(n);
	struct rng r;
	rng_seed(&r, seed);
	for (size_t i = 0; i < n; i++)
		x[i] = (float)rng_normal(&r);
	return x;
}

/* Shuffled odd multiples of `gap`/2 around zero: any two differ by `gap` at least, none is nearer to zero than half of
 * it. */
static inline float *gradcheck_spread(size_t n, float gap, uint64_t seed)
{
	float *x = floats(n);
	uint32_t *order = mem_array(n, sizeof *order);
	struct rng r;
	rng_seed(&r, seed);
	for (size_t i = 0; i < n; i++)
		order[i] = (uint32_t)i;
	rng_shuffle(&r, order, n);
	for (size_t i = 0; i < n; i++)
		x[i] = gap * ((float)order[i] - (float)(n / 2) + 0.5f);
	free(order);
	return x;
}

/* `loss(arg)` after a change of v[0 .. n); `gradient` is what it should fall and rise by. */
typedef double (*gradcheck_fn)(void *arg);

static inline void gradcheck(const char *what, double step, gradcheck_fn loss, void *arg, float *v,
			     const float *gradient, size_t n)
{
	double here = loss(arg);
	for (size_t i = 0; i < n; i++) {
		float at = v[i];
		double g = (double)gradient[i];
		v[i] = (float)((double)at + step);
		double up = loss(arg), right = (double)v[i] - (double)at;
		v[i] = (float)((double)at - step);
		double down = loss(arg), left = (double)at - (double)v[i];
		v[i] = at;
		double slope = (up - down) / (right + left), margin = GRADCHECK_TOLERANCE * (1 + fabs(slope));
		double a = (up - here) / right, b = (here - down) / left;
		bool between = g >= fmin(a, b) - margin && g <= fmax(a, b) + margin;
		if (!(fabs(slope - g) <= margin) && !(fabs(a - b) > 2 * margin && between))
			fail_msg("%s[%zu]: gradient %g, differences say %g (%g left, %g right)", what, i, g, slope, b,
				 a);
	}
}

static inline void assert_close(const char *what, const float *got, const double *wanted, size_t n, double tolerance)
{
	for (size_t i = 0; i < n; i++) {
		if (!(fabs((double)got[i] - wanted[i]) <= tolerance * (1 + fabs(wanted[i]))))
			fail_msg("%s[%zu]: %.9g, should be %.9g", what, i, (double)got[i], wanted[i]);
	}
}

#endif
