/*
 * The header of a model file that is made from another one tensor by tensor, without a model in memory. For the
 * tensors of a file that safetensors_save() wrote, in their order, it is byte by byte the header that
 * safetensors_save() would write for the new model.
 */
#include "ml/safetensors.h"

enum { LENGTH_SIZE = 8, DATA_ALIGN = 8 };

/* What a model needs to be read again; everything else in the metadata is about the old file. */
static const char *const kept[] = {"format", "hansa.model"};

static enum err copy_text(void *arg, const char *key, const struct json *value)
{
	const char *text;
	if (!json_get_str(value, &text))
		return err_set(ERR_MALFORMED, "metadata '%.100s' of a model is not a string", key);
	json_put(arg, key, json_str(text));
	return ERR_OK;
}

static enum err describe_meta(const struct safetensors *st, const struct json *meta, struct json *header)
{
	struct json *map = json_map();
	enum err e = meta != NULL ? json_each(meta, copy_text, map) : ERR_OK;
	for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
		const char *text = safetensors_meta(st, kept[i]);
		if (text != NULL)
			json_put(map, kept[i], json_str(text));
	}
	json_put(header, "__metadata__", map);
	return e;
}

static void describe_entry(const struct safetensors_entry *entry, uint64_t begin, struct json *header)
{
	struct json *dims = json_list(), *offsets = json_list(), *map = json_map();
	for (unsigned i = 0; i < entry->shape.n; i++)
		json_push(dims, json_int((int64_t)entry->shape.d[i]));
	json_push(json_push(offsets, json_int((int64_t)begin)), json_int((int64_t)(begin + entry->data.n)));
	json_put(map, "dtype", json_str(entry->dtype));
	json_put(json_put(map, "shape", dims), "data_offsets", offsets);
	json_put(header, entry->name, map);
}

/* Length, text, and blanks up to where the data may begin. */
static enum err frame(const struct buf *text, struct buf *out)
{
	size_t n = (text->n + DATA_ALIGN - 1) / DATA_ALIGN * DATA_ALIGN;
	uint8_t length[LENGTH_SIZE];
	for (unsigned i = 0; i < LENGTH_SIZE; i++)
		length[i] = (uint8_t)((uint64_t)n >> (8 * i));
	TRY(buf_append(out, length, sizeof length));
	TRY(buf_append(out, text->p, text->n));
	return buf_append(out, "        ", n - text->n);
}

enum err safetensors_rewrite(const struct safetensors *st, const struct safetensors_entry *const *order, size_t n,
			     const struct json *meta, struct buf *ret_header)
{
	struct buf text, out;
	struct json *header = json_map();
	buf_init(&text, SAFETENSORS_HEADER_MAX - DATA_ALIGN);
	buf_init(&out, SAFETENSORS_HEADER_MAX + LENGTH_SIZE);
	enum err e = describe_meta(st, meta, header);
	uint64_t at = 0;
	for (size_t i = 0; i < n; i++) {
		describe_entry(order[i], at, header);
		at += order[i]->data.n;
	}
	if (e == ERR_OK)
		e = json_write(header, &text);
	if (e == ERR_OK)
		e = frame(&text, &out);
	json_free(header);
	buf_deinit(&text);
	if (e != ERR_OK) {
		buf_deinit(&out);
		return e;
	}
	*ret_header = out;
	return ERR_OK;
}
