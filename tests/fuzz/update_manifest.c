/*
 * A manifest from a coordinator. What parses is canonical, consistent, and says the same when it is written and read
 * again.
 */
#include "update/manifest.h"

#include "update/fixed.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_places(const struct manifest *m)
{
	size_t theta = 0, travel = 0;
	for (size_t i = 0; i < m->n_tensors; i++) {
		const struct manifest_tensor *t = &m->tensors[i];
		ENSURE(t->offset == theta && t->n > 0);
		ENSURE(t->travels == (t->role == TENSOR_TRAINABLE || t->role == TENSOR_STATISTIC));
		ENSURE(!t->travels || t->at == travel);
		ENSURE(t->scale >= FIXED_SCALE_MIN && t->scale <= FIXED_SCALE_MAX);
		theta += t->n;
		travel += t->travels ? t->n : 0;
	}
	ENSURE(m->n_theta == theta && theta <= TENSOR_COUNT_MAX);
	ENSURE(m->n_travel == travel && travel > 0 && manifest_update_bytes(m) == 4 * travel);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct manifest *m, *again;
	struct buf text;
	if (manifest_parse(bytes_of(data, size), &m) != ERR_OK)
		return 0;
	check_places(m);
	buf_init(&text, MANIFEST_MAX);
	ENSURE(manifest_canonical(m, &text) == ERR_OK);
	struct digest given = digest_of(bytes_of(data, size));
	ENSURE(digest_equal(&given, &m->digest));
	ENSURE(manifest_parse(buf_bytes(&text), &again) == ERR_OK);
	ENSURE(digest_equal(&again->digest, &m->digest));
	buf_deinit(&text);
	manifest_free(m);
	manifest_free(again);
	return 0;
}
