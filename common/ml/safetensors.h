/*
 * safetensors: u64 little-endian header length, JSON header {"__metadata__": {str: str}, "NAME": {"dtype", "shape",
 *"data_offsets"}}, then the tensors' bytes, contiguous, without holes.
 *https://github.com/huggingface/safetensors#format
 *
 * A model file carries its architecture in the metadata, so that the file alone is enough:
 *	hansa.model    the description (canonical JSON, ml/model.h)
 *	hansa.*        digests and lineage, free for the layers above
 *	format         "pt": some PyTorch tools ask for it
 * Tensors are float32 (F64, F16 and BF16 are converted on reading); I64 NAME.num_batches_tracked (0) is written for
 *BatchNorm, so that PyTorch's load_state_dict accepts the file, and passed over on reading. The bytes written are a
 *function of the content alone: header with sorted keys, padded with spaces so that the data begins at a multiple of 8,
 *the counters, the tensors.
 */
#ifndef HANSA_ML_SAFETENSORS_H
#define HANSA_ML_SAFETENSORS_H

#include "base/json.h"
#include "ml/model.h"

enum { SAFETENSORS_HEADER_MAX = 16 << 20 };
#define SAFETENSORS_FILE_MAX ((uint64_t)8 << 30)

/* Raw reading: header checked whole (lengths, overlaps, holes, duplicates, sizes) before anything is used. */
struct safetensors_entry {
	const char *name, *dtype; /* borrowed */
	struct shape shape;
	struct bytes data; /* borrowed from the content; not aligned to anything */
};
struct safetensors;
/* Content is borrowed. ERR_MALFORMED says what is wrong; ERR_LIMIT: the file is over SAFETENSORS_FILE_MAX, a tensor has
 * more than SHAPE_DIMS_MAX dimensions. */
MUST_CHECK enum err safetensors_parse(const char *name, struct bytes content, struct safetensors **ret_st);
void safetensors_free(struct safetensors *st);
size_t safetensors_count(const struct safetensors *st);
const struct safetensors_entry *safetensors_at(const struct safetensors *st, size_t i); /* in the order of the data */
const struct safetensors_entry *safetensors_find(const struct safetensors *st, const char *name);
const char *safetensors_meta(const struct safetensors *st, const char *key); /* NULL when absent */

/* Models. `meta`: further metadata, a map of strings (ERR_MALFORMED otherwise); may be NULL. safetensors_save is a
 * durable replace that writes from the model's own memory. */
MUST_CHECK enum err safetensors_save(const char *path, const struct model *m, const struct json *meta);
/* Reads architecture and parameters. */
MUST_CHECK enum err safetensors_load(const char *path, struct model **ret_model);
/* Reads the parameters of a given architecture from a file that may lack the metadata (another tool's). Tensors that
 * the model does not have, or has in another shape, or that are missing, are ERR_SHAPE; a value that is not finite is
 * ERR_NUMERIC. The model is changed only when everything fits. */
MUST_CHECK enum err safetensors_load_into(const char *path, struct model *m);

/* The same for bytes at hand. All that safetensors_save would write before the first parameter (the counters included),
 * for writers that stream the tensors themselves: their data follows in the order of m->params. */
MUST_CHECK enum err safetensors_header(const struct model *m, const struct json *meta,
				       struct buf *ret_header); /* buf_init's it */
MUST_CHECK enum err safetensors_model(const struct safetensors *st, const char *name, struct model **ret_model);

/* The header of a file that holds `order`, n tensors of `st`, one after the other; their data follows in this order.
 * Architecture and format are taken over from `st`, the rest of its metadata makes room for `meta` (a map of strings;
 * may be NULL). buf_init's it. */
MUST_CHECK enum err safetensors_rewrite(const struct safetensors *st, const struct safetensors_entry *const *order,
					size_t n, const struct json *meta, struct buf *ret_header);

#endif
