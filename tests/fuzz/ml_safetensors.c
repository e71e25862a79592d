/* safetensors files: whatever the bytes are, either an error or tensors that tile the data; a model in them is finite.
 */
#include "ml/safetensors.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct safetensors *st;
	struct model *m;
	size_t total = 0;
	if (safetensors_parse("fuzz", bytes_of(data, size), &st) != ERR_OK)
		return 0;
	for (size_t i = 0; i < safetensors_count(st); i++) {
		const struct safetensors_entry *e = safetensors_at(st, i);
		ENSURE(safetensors_find(st, e->name) == e && strlen(e->dtype) > 0);
		ENSURE(e->data.p >= data && e->data.n <= size - (size_t)(e->data.p - data));
		total += e->data.n;
	}
	ENSURE(total < size);
	if (safetensors_model(st, "fuzz", &m) == ERR_OK) {
		ENSURE(model_check_finite(m) == ERR_OK);
		model_free(m);
	}
	safetensors_free(st);
	return 0;
}
