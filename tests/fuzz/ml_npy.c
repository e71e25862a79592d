/* NumPy files: whatever the bytes are, either an error or finite values of the shape that was promised. */
#include "ml/npy.h"

#include <math.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct shape shape;
	float *values;
	size_t n;
	if (npy_parse("fuzz", bytes_of(data, size), &shape, &values) != ERR_OK)
		return 0;
	ENSURE(shape.n == 1 || shape.n == 2);
	ENSURE(shape_count(&shape, &n) == ERR_OK && n > 0 && n <= size);
	for (size_t i = 0; i < n; i++)
		ENSURE(isfinite(values[i]));
	free(values);
	return 0;
}
