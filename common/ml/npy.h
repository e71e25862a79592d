/*
 * NumPy .npy files (format 1.0 to 3.0): little-endian f4, f8, i2, i4, u1 in C order, one or two dimensions, read as
 * float32. Limit: 1 GiB. Foreign bytes: ERR_MALFORMED names the file and what is wrong.
 */
#ifndef HANSA_ML_NPY_H
#define HANSA_ML_NPY_H

#include "base/mem.h"
#include "ml/tensor.h"

/* *ret_values: owned by the caller, shape_count(ret_shape) floats. */
MUST_CHECK enum err npy_parse(const char *name, struct bytes content, struct shape *ret_shape, float **ret_values);
MUST_CHECK enum err npy_load(const char *path, struct shape *ret_shape, float **ret_values);
MUST_CHECK enum err npy_save(const char *path, const struct shape *shape, const float *values); /* f4, format 1.0 */

#endif
