/*
 * Models in safetensors files. Reading goes through the tensors twice: first everything is checked, names, shapes,
 * types and values, then the parameters are written; so a bad file leaves the model as it was and no second copy of the
 * parameters is needed.
 */
#include "ml/safetensors.h"

#include "base/file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tensors are written as they lie in memory: this needs a little-endian machine"
#endif

enum {
	BLOCK = 4096,       /* values checked at a time */
	PIECE = 256 * 1024, /* values read before their pages are let go of; a multiple of BLOCK */
	DATA_ALIGN = 8,
	COUNTER_SIZE = 8,
};
static const char model_key[] = "hansa.model", mean_suffix[] = ".running_mean",
		  counter_suffix[] = ".num_batches_tracked";

static void from_f32(const uint8_t *p, size_t n, float *out)
{
	memcpy(out, p, n * sizeof *out);
}

static void from_f64(const uint8_t *p, size_t n, float *out)
{
	for (size_t i = 0; i < n; i++) {
		double v;
		memcpy(&v, p + i * sizeof v, sizeof v);
		out[i] = (float)v;
	}
}

/* bfloat16 is the upper half of a float. */
static void from_bf16(const uint8_t *p, size_t n, float *out)
{
	for (size_t i = 0; i < n; i++) {
		uint32_t bits = (uint32_t)p[2 * i] << 16 | (uint32_t)p[2 * i + 1] << 24;
		memcpy(&out[i], &bits, sizeof bits);
	}
}

/* IEEE 754 binary16: sign, 5 bits of exponent with bias 15, 10 bits of fraction; every value is exact in a float. */
static void from_f16(const uint8_t *p, size_t n, float *out)
{
	for (size_t i = 0; i < n; i++) {
		unsigned half = (unsigned)p[2 * i] | (unsigned)p[2 * i + 1] << 8;
		int exponent = (int)(half >> 10 & 31), fraction = (int)(half & 1023);
		float v;
		if (exponent == 31)
			v = fraction == 0 ? INFINITY : NAN;
		else if (exponent == 0)
			v = ldexpf((float)fraction, -24);
		else
			v = ldexpf((float)(1024 + fraction), exponent - 25);
		out[i] = half >> 15 ? -v : v;
	}
}

static const struct conversion {
	const char *dtype;
	size_t size;
	void (*convert)(const uint8_t *p, size_t n, float *out);
} conversions[] = {{"F32", 4, from_f32}, {"F64", 8, from_f64}, {"F16", 2, from_f16}, {"BF16", 2, from_bf16}};

static const struct conversion *find_conversion(const char *dtype)
{
	for (size_t i = 0; i < sizeof conversions / sizeof *conversions; i++) {
		if (strcmp(conversions[i].dtype, dtype) == 0)
			return &conversions[i];
	}
	return NULL;
}

static bool ends_with(const char *s, const char *suffix)
{
	size_t n = strlen(s), m = strlen(suffix);
	return n >= m && strcmp(s + n - m, suffix) == 0;
}

static bool has_counter(const struct param *p)
{
	return p->kind == PARAM_STATISTIC && ends_with(p->name, mean_suffix);
}

/* The counter of a BatchNorm layer that the model has? */
static bool is_counter(const struct model *m, const struct safetensors_entry *e)
{
	if (!ends_with(e->name, counter_suffix) || strcmp(e->dtype, "I64") != 0 || e->data.n != COUNTER_SIZE)
		return false;
	char *mean = mem_printf("%.*s%s", (int)(strlen(e->name) - strlen(counter_suffix)), e->name, mean_suffix);
	const struct param *p = model_param(m, mean);
	free(mean);
	return p != NULL && has_counter(p);
}

/* Pages that have been read are let go of piece by piece, so that loading takes little more memory than the model. `map` NULL: there is
 * none. Values [begin, end) of the tensor. */
static void let_go(const struct file_map *map, const struct safetensors_entry *e, size_t size, size_t begin, size_t end)
{
	if (map != NULL)
		file_map_drop(map, (size_t)(e->data.p - map->content.p) + begin * size, (end - begin) * size);
}

static enum err check_values(const char *name, const struct safetensors_entry *e, const struct file_map *map)
{
	const struct conversion *c = find_conversion(e->dtype);
	if (c == NULL)
		return err_set(ERR_MALFORMED, "%s: tensor '%.100s' is %s; F32, F64, F16 and BF16 are read", name,
			       e->name, e->dtype);
	float block[BLOCK];
	size_t n = e->data.n / c->size;
	for (size_t i = 0; i < n; i += BLOCK) {
		size_t some = n - i < BLOCK ? n - i : BLOCK;
		c->convert(e->data.p + i * c->size, some, block);
		for (size_t j = 0; j < some; j++) {
			if (!isfinite(block[j]))
				return err_set(ERR_NUMERIC, "%s: tensor '%.100s': value %zu is not a finite float",
					       name, e->name, i + j);
		}
		if ((i + some) % PIECE == 0 || i + some == n)
			let_go(map, e, c->size, i / PIECE * PIECE, i + some);
	}
	return ERR_OK;
}

static void read_values(const struct safetensors_entry *e, size_t n, const struct file_map *map, float *out)
{
	const struct conversion *c = find_conversion(e->dtype);
	for (size_t i = 0; i < n; i += PIECE) {
		size_t some = n - i < PIECE ? n - i : PIECE;
		c->convert(e->data.p + i * c->size, some, out + i);
		let_go(map, e, c->size, i, i + some);
	}
}

static enum err check_entry(const struct model *m, const char *name, const struct safetensors_entry *e,
			    const struct file_map *map)
{
	if (is_counter(m, e))
		return ERR_OK;
	char ours[SHAPE_TEXT_SIZE], theirs[SHAPE_TEXT_SIZE];
	const struct param *p = model_param(m, e->name);
	if (p == NULL)
		return err_set(ERR_SHAPE, "%s: tensor '%.100s' (%s): the model has no such tensor", name, e->name,
			       shape_format(&e->shape, theirs));
	if (!shape_equal(&p->shape, &e->shape))
		return err_set(ERR_SHAPE, "%s: tensor '%.100s' is %s, the model's is %s", name, e->name,
			       shape_format(&e->shape, theirs), shape_format(&p->shape, ours));
	return check_values(name, e, map);
}

static enum err fill(const struct safetensors *st, const char *name, struct model *m, const struct file_map *map)
{
	for (size_t i = 0; i < safetensors_count(st); i++)
		TRY(check_entry(m, name, safetensors_at(st, i), map));
	for (size_t i = 0; i < m->n_params; i++) {
		if (safetensors_find(st, m->params[i].name) == NULL)
			return err_set(ERR_SHAPE, "%s: the model's tensor '%s' is missing", name, m->params[i].name);
	}
	for (size_t i = 0; i < safetensors_count(st); i++) {
		const struct safetensors_entry *e = safetensors_at(st, i);
		const struct param *p = model_param(m, e->name);
		if (p != NULL)
			read_values(e, p->n, map, m->theta + p->offset);
	}
	return ERR_OK;
}

static enum err make(const struct safetensors *st, const char *name, const struct file_map *map,
		     struct model **ret_model)
{
	const char *description = safetensors_meta(st, model_key);
	if (description == NULL)
		return err_set(ERR_MALFORMED, "%s: does not carry its architecture ('%s' in the metadata)", name,
			       model_key);
	struct yaml *yaml;
	struct model *m = NULL;
	enum err e = yaml_parse(model_key, bytes_str(description), &yaml);
	if (e == ERR_OK) {
		e = model_from_yaml(yaml_root(yaml), &m);
		yaml_free(yaml);
	}
	/* For the caller it is the file that is bad, not a configuration of his. */
	if (e != ERR_OK)
		return err_add(e == ERR_CONFIG ? ERR_MALFORMED : e, "%s", name);
	e = fill(st, name, m, map);
	if (e != ERR_OK) {
		model_free(m);
		return e;
	}
	*ret_model = m;
	return ERR_OK;
}

enum err safetensors_model(const struct safetensors *st, const char *name, struct model **ret_model)
{
	return make(st, name, NULL, ret_model);
}

enum err safetensors_load(const char *path, struct model **ret_model)
{
	struct file_map map;
	struct safetensors *st = NULL;
	TRY(file_map(path, &map));
	enum err e = safetensors_parse(path, map.content, &st);
	if (e == ERR_OK)
		e = make(st, path, &map, ret_model);
	safetensors_free(st);
	file_unmap(&map);
	return e;
}

enum err safetensors_load_into(const char *path, struct model *m)
{
	struct file_map map;
	struct safetensors *st = NULL;
	TRY(file_map(path, &map));
	enum err e = safetensors_parse(path, map.content, &st);
	if (e == ERR_OK)
		e = fill(st, path, m, &map);
	safetensors_free(st);
	file_unmap(&map);
	return e;
}

static enum err copy_meta(void *arg, const char *key, const struct json *value)
{
	const char *text;
	if (!json_get_str(value, &text))
		return err_set(ERR_MALFORMED, "metadata '%.100s' of a model is not a string", key);
	json_put(arg, key, json_str(text));
	return ERR_OK;
}

static struct json *describe_entry(const char *dtype, const struct shape *shape, uint64_t begin, uint64_t n)
{
	struct json *dims = json_list(), *offsets = json_list(), *map = json_map();
	for (unsigned i = 0; i < shape->n; i++)
		json_push(dims, json_int((int64_t)shape->d[i]));
	json_push(json_push(offsets, json_int((int64_t)begin)), json_int((int64_t)(begin + n)));
	return json_put(json_put(json_put(map, "dtype", json_str(dtype)), "shape", dims), "data_offsets", offsets);
}

/* Counters first: eight bytes each, so that what follows keeps its alignment. */
static struct json *describe_tensors(const struct model *m, struct json *header, size_t *ret_counters)
{
	uint64_t at = 0;
	const struct shape scalar = {0};
	for (size_t i = 0; i < m->n_params; i++) {
		const struct param *p = &m->params[i];
		if (!has_counter(p))
			continue;
		char *name =
			mem_printf("%.*s%s", (int)(strlen(p->name) - strlen(mean_suffix)), p->name, counter_suffix);
		json_put(header, name, describe_entry("I64", &scalar, at, COUNTER_SIZE));
		free(name);
		at += COUNTER_SIZE;
	}
	*ret_counters = (size_t)at;
	for (size_t i = 0; i < m->n_params; i++) {
		const struct param *p = &m->params[i];
		json_put(header, p->name, describe_entry("F32", &p->shape, at, p->n * sizeof(float)));
		at += p->n * sizeof(float);
	}
	return header;
}

static enum err write_header(const struct json *header, size_t counters, struct buf *out)
{
	struct buf text;
	buf_init(&text, SAFETENSORS_HEADER_MAX);
	enum err e = json_write(header, &text);
	while (e == ERR_OK && text.n % DATA_ALIGN != 0)
		e = buf_append(&text, " ", 1);
	uint8_t length[8];
	for (unsigned i = 0; i < sizeof length; i++)
		length[i] = (uint8_t)((uint64_t)text.n >> (8 * i));
	if (e == ERR_OK)
		e = buf_append(out, length, sizeof length);
	if (e == ERR_OK)
		e = buf_append(out, text.p, text.n);
	static const uint8_t zeros[COUNTER_SIZE];
	for (size_t i = 0; e == ERR_OK && i < counters; i += COUNTER_SIZE)
		e = buf_append(out, zeros, COUNTER_SIZE);
	buf_deinit(&text);
	return e;
}

enum err safetensors_header(const struct model *m, const struct json *meta, struct buf *ret_header)
{
	struct buf description, out;
	size_t counters;
	struct json *header = json_map(), *map = json_put(json_map(), "format", json_str("pt"));
	buf_init(&description, SAFETENSORS_HEADER_MAX);
	buf_init(&out, SAFETENSORS_HEADER_MAX + sizeof(uint64_t) + (size_t)MODEL_PARAMS_MAX * COUNTER_SIZE);
	enum err e = meta != NULL ? json_each(meta, copy_meta, map) : ERR_OK;
	if (e == ERR_OK)
		e = model_describe(m, &description);
	if (e == ERR_OK)
		json_put(map, model_key, json_str(buf_str(&description)));
	json_put(describe_tensors(m, header, &counters), "__metadata__", map);
	if (e == ERR_OK)
		e = write_header(header, counters, &out);
	json_free(header);
	buf_deinit(&description);
	if (e != ERR_OK) {
		buf_deinit(&out);
		return e;
	}
	*ret_header = out;
	return ERR_OK;
}

enum err safetensors_save(const char *path, const struct model *m, const struct json *meta)
{
	struct buf header;
	struct file_draft *draft = NULL;
	TRY(safetensors_header(m, meta, &header));
	enum err e = file_draft_begin(path, 0644, &draft);
	if (e == ERR_OK) {
		e = file_draft_write(draft, header.p, header.n);
		for (size_t i = 0; e == ERR_OK && i < m->n_params; i++) {
			const struct param *p = &m->params[i];
			e = file_draft_write(draft, m->theta + p->offset, p->n * sizeof *m->theta);
		}
		e = file_draft_end(draft, e);
	}
	buf_deinit(&header);
	return e;
}
