/*
 * Reading and checking safetensors; the models in them are ml/safetensors_model.c.
 *
 * The header's offsets decide which bytes are read, so they are believed only after all of them together were found to
 * tile the data: sorted by offset, the first tensor begins at 0, each one where the one before it ended, the last one
 * ends with the file, and each is as long as its shape and type say. Overlaps, holes and hidden bytes are thus
 * impossible, not merely unlikely.
 */
#include "ml/safetensors.h"

#include <stdlib.h>
#include <string.h>

enum { LENGTH_SIZE = 8, TENSORS_MAX = 1 << 16 };
static const char metadata_key[] = "__metadata__";

struct safetensors {
	struct json *header;                      /* owned; holds the names */
	const struct json *meta;                  /* in header; NULL when absent */
	struct safetensors_entry *entries;        /* owned: n, in the order of the data */
	const struct safetensors_entry **by_name; /* owned: n, sorted */
	size_t n, cap;
	const char *name; /* during the parse: for messages */
	struct bytes data;
};

static const struct {
	const char *name;
	size_t size;
} dtypes[] = {
	{"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1}, {"I16", 2}, {"U16", 2}, {"F16", 2},
	{"BF16", 2}, {"I32", 4}, {"U32", 4}, {"F32", 4},     {"I64", 8},     {"U64", 8}, {"F64", 8},
};

static size_t dtype_size(const char *dtype)
{
	for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
		if (strcmp(dtypes[i].name, dtype) == 0)
			return dtypes[i].size;
	}
	return 0;
}

static enum err bad(const struct safetensors *st, const char *tensor, const char *what)
{
	return err_set(ERR_MALFORMED, "%s: tensor '%.100s': %s", st->name, tensor, what);
}

static enum err check_meta(void *arg, const char *key, const struct json *value)
{
	const struct safetensors *st = arg;
	const char *text;
	if (!json_get_str(value, &text))
		return err_set(ERR_MALFORMED, "%s: metadata '%.100s' is not a string", st->name, key);
	return ERR_OK;
}

static enum err read_shape(const struct safetensors *st, const char *tensor, const struct json *list,
			   struct shape *ret_shape, uint64_t *ret_count)
{
	if (!json_is_list(list))
		return bad(st, tensor, "the shape is not a list");
	if (json_count(list) > SHAPE_DIMS_MAX)
		return err_set(ERR_LIMIT, "%s: tensor '%.100s' has %zu dimensions; up to %d are read", st->name, tensor,
			       json_count(list), SHAPE_DIMS_MAX);
	struct shape s = {.n = (unsigned)json_count(list)};
	uint64_t count = 1;
	for (unsigned i = 0; i < s.n; i++) {
		int64_t d;
		if (!json_get_int(json_at(list, i), &d) || d < 0)
			return bad(st, tensor, "a dimension is not a number from 0 on");
		if (d > 0 && count > SAFETENSORS_FILE_MAX / (uint64_t)d)
			return bad(st, tensor, "the shape is larger than any file that is read");
		count *= (uint64_t)d;
		s.d[i] = (size_t)d;
	}
	*ret_shape = s;
	*ret_count = count;
	return ERR_OK;
}

static enum err read_offsets(const struct safetensors *st, const char *tensor, const struct json *list,
			     struct bytes *ret_data)
{
	int64_t begin, end;
	if (!json_is_list(list) || json_count(list) != 2 || !json_get_int(json_at(list, 0), &begin) ||
	    !json_get_int(json_at(list, 1), &end))
		return bad(st, tensor, "data_offsets are not two numbers");
	if (begin < 0 || end < begin || (uint64_t)end > st->data.n)
		return bad(st, tensor, "data_offsets lie outside of the data");
	*ret_data = bytes_of(st->data.p + begin, (size_t)(end - begin));
	return ERR_OK;
}

static enum err read_entry(void *arg, const char *key, const struct json *value)
{
	struct safetensors *st = arg;
	if (strcmp(key, metadata_key) == 0) {
		if (!json_is_map(value))
			return err_set(ERR_MALFORMED, "%s: the metadata is not a map", st->name);
		st->meta = value;
		return json_each(value, check_meta, st);
	}
	if (st->n == TENSORS_MAX)
		return err_set(ERR_LIMIT, "%s: more than %d tensors", st->name, TENSORS_MAX);
	struct safetensors_entry e = {.name = key};
	if (!json_is_map(value) || json_count(value) != 3 || !json_get_str(json_get(value, "dtype"), &e.dtype))
		return bad(st, key, "is not described by dtype, shape and data_offsets");
	size_t size = dtype_size(e.dtype);
	if (size == 0)
		return err_set(ERR_MALFORMED, "%s: tensor '%.100s': unknown dtype '%.20s'", st->name, key, e.dtype);
	uint64_t count = 0;
	TRY(read_shape(st, key, json_get(value, "shape"), &e.shape, &count));
	TRY(read_offsets(st, key, json_get(value, "data_offsets"), &e.data));
	if (count * size != e.data.n) {
		char text[SHAPE_TEXT_SIZE];
		return err_set(ERR_MALFORMED, "%s: tensor '%.100s': %s of %s are %llu bytes, data_offsets say %zu",
			       st->name, key, shape_format(&e.shape, text), e.dtype, (unsigned long long)(count * size),
			       e.data.n);
	}
	if (st->n == st->cap) {
		st->cap = st->cap == 0 ? 64 : 2 * st->cap;
		st->entries = mem_grow(st->entries, st->cap, sizeof *st->entries);
	}
	st->entries[st->n++] = e;
	return ERR_OK;
}

static int by_offset(const void *a, const void *b)
{
	const struct safetensors_entry *x = a, *y = b;
	if (x->data.p != y->data.p)
		return x->data.p < y->data.p ? -1 : 1;
	if (x->data.n != y->data.n)
		return x->data.n < y->data.n ? -1 : 1;
	return strcmp(x->name, y->name);
}

static int by_name(const void *a, const void *b)
{
	const struct safetensors_entry *const *x = a, *const *y = b;
	return strcmp((*x)->name, (*y)->name);
}

static enum err check_tiling(struct safetensors *st)
{
	if (st->n > 0)
		qsort(st->entries, st->n, sizeof *st->entries, by_offset);
	const uint8_t *at = st->data.p;
	for (size_t i = 0; i < st->n; i++) {
		const struct safetensors_entry *e = &st->entries[i];
		if (e->data.p < at)
			return bad(st, e->name, "overlaps with the tensor before it");
		if (e->data.p > at)
			return bad(st, e->name, "there is a hole before it");
		at += e->data.n;
	}
	if (at != st->data.p + st->data.n)
		return err_set(ERR_MALFORMED, "%s: %zu bytes after the last tensor", st->name,
			       (size_t)(st->data.p + st->data.n - at));
	st->by_name = mem_array(st->n, sizeof *st->by_name);
	for (size_t i = 0; i < st->n; i++)
		st->by_name[i] = &st->entries[i];
	if (st->n > 0)
		qsort(st->by_name, st->n, sizeof *st->by_name, by_name);
	return ERR_OK;
}

static enum err find_header(const char *name, struct bytes content, struct bytes *ret_header)
{
	if (content.n > SAFETENSORS_FILE_MAX)
		return err_set(ERR_LIMIT, "%s: %zu bytes; safetensors files are read up to %llu", name, content.n,
			       (unsigned long long)SAFETENSORS_FILE_MAX);
	if (content.n < LENGTH_SIZE)
		return err_set(ERR_MALFORMED, "%s: too short for a safetensors file", name);
	uint64_t n = 0;
	for (unsigned i = 0; i < LENGTH_SIZE; i++)
		n |= (uint64_t)content.p[i] << (8 * i);
	if (n > SAFETENSORS_HEADER_MAX)
		return err_set(ERR_MALFORMED,
			       "%s: not a safetensors file, or a header of %llu bytes; at most %d are read", name,
			       (unsigned long long)n, SAFETENSORS_HEADER_MAX);
	if (n > content.n - LENGTH_SIZE)
		return err_set(ERR_MALFORMED, "%s: ends within the header", name);
	if (n == 0 || content.p[LENGTH_SIZE] != '{')
		return err_set(ERR_MALFORMED, "%s: not a safetensors file: the header does not begin with '{'", name);
	*ret_header = bytes_of(content.p + LENGTH_SIZE, (size_t)n);
	return ERR_OK;
}

enum err safetensors_parse(const char *name, struct bytes content, struct safetensors **ret_st)
{
	struct bytes header;
	TRY(find_header(name, content, &header));
	struct safetensors *st = mem_new(sizeof *st);
	st->name = name;
	st->data = bytes_of(header.p + header.n, content.n - LENGTH_SIZE - header.n);
	enum err e = json_parse(header, &st->header);
	if (e != ERR_OK) {
		e = err_add(e, "%s: safetensors header", name);
		goto out;
	}
	if (!json_is_map(st->header)) {
		e = err_set(ERR_MALFORMED, "%s: safetensors header: not a map", name);
		goto out;
	}
	e = json_each(st->header, read_entry, st);
	if (e == ERR_OK)
		e = check_tiling(st);
out:
	st->name = NULL;
	if (e != ERR_OK) {
		safetensors_free(st);
		return e;
	}
	*ret_st = st;
	return ERR_OK;
}

void safetensors_free(struct safetensors *st)
{
	if (st == NULL)
		return;
	json_free(st->header);
	free(st->entries);
	free(st->by_name);
	free(st);
}

size_t safetensors_count(const struct safetensors *st)
{
	return st->n;
}

const struct safetensors_entry *safetensors_at(const struct safetensors *st, size_t i)
{
	ENSURE(i < st->n);
	return &st->entries[i];
}

const struct safetensors_entry *safetensors_find(const struct safetensors *st, const char *name)
{
	if (st->n == 0)
		return NULL;
	struct safetensors_entry key = {.name = name};
	const struct safetensors_entry *p = &key;
	const struct safetensors_entry **found = bsearch(&p, st->by_name, st->n, sizeof *st->by_name, by_name);
	return found != NULL ? *found : NULL;
}

const char *safetensors_meta(const struct safetensors *st, const char *key)
{
	const char *text = NULL;
	const struct json *value = st->meta != NULL ? json_get(st->meta, key) : NULL;
	return value != NULL && json_get_str(value, &text) ? text : NULL;
}
