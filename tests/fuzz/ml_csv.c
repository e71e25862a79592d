/* CSV files: whatever the bytes are, either an error or a whole table whose cells can be read. */
#include "ml/csv.h"

#include <math.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct csv *c;
	size_t total = 0;
	if (csv_parse("fuzz", bytes_of(data, size), &c) != ERR_OK)
		return 0;
	ENSURE(c->n_columns > 0);
	for (size_t k = 0; k < c->n_columns; k++)
		ENSURE(csv_column(c, c->names[k]) == (int)k);
	for (size_t i = 0; i < c->n_rows; i++) {
		ENSURE(c->lines[i] > (i > 0 ? c->lines[i - 1] : 0));
		for (size_t k = 0; k < c->n_columns; k++) {
			double v;
			total += strlen(c->cells[i * c->n_columns + k]);
			if (csv_number(c, i, k, &v) == ERR_OK)
				ENSURE(isfinite(v));
		}
	}
	ENSURE(total <= size);
	csv_free(c);
	return 0;
}
