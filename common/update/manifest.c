/*
 * A manifest is made in two ways, from a model or from its canonical JSON, and both end in finish(): places in the
 * block and in the update follow from order and shapes alone, so they are not part of the text and cannot
 * contradict it.
 */
#include "update/manifest.h"

#include "base/json.h"
#include "update/fixed.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { VERSION = 1 };

/* How many times its largest magnitude (at least 1) a tensor may change in one round. */
static const double headroom = 64;

static const struct {
	const char *name;
	bool travels;
} roles[TENSOR_ROLE_COUNT] = {
	[TENSOR_TRAINABLE] = {"trainable", true},
	[TENSOR_STATISTIC] = {"statistic", true},
	[TENSOR_FROZEN] = {"frozen", false},
	[TENSOR_LOCAL] = {"local", false},
};

const char *tensor_role_name(enum tensor_role role)
{
	ENSURE(role < TENSOR_ROLE_COUNT);
	return roles[role].name;
}

static bool role_find(const char *name, enum tensor_role *ret_role)
{
	for (int i = 0; i < TENSOR_ROLE_COUNT; i++) {
		if (strcmp(roles[i].name, name) == 0) {
			*ret_role = (enum tensor_role)i;
			return true;
		}
	}
	return false;
}

static struct manifest *manifest_new(size_t n)
{
	struct manifest *m = mem_new(sizeof *m);
	m->tensors = mem_array(n, sizeof *m->tensors);
	m->n_tensors = n;
	return m;
}

void manifest_free(struct manifest *m)
{
	if (m == NULL)
		return;
	free(m->tensors);
	free(m);
}

size_t manifest_update_bytes(const struct manifest *m)
{
	return m->n_travel * sizeof(int32_t);
}

/* Names, roles, shapes and scales are set: the rest follows. */
static enum err finish(struct manifest *m)
{
	for (size_t i = 0; i < m->n_tensors; i++) {
		struct manifest_tensor *t = &m->tensors[i];
		TRY(shape_count(&t->shape, &t->n));
		t->offset = m->n_theta;
		t->travels = roles[t->role].travels;
		m->n_theta += t->n;
		if (m->n_theta > TENSOR_COUNT_MAX)
			return err_set(ERR_LIMIT, "more than %zu parameters", TENSOR_COUNT_MAX);
		if (t->travels) {
			t->at = m->n_travel;
			m->n_travel += t->n;
		}
	}
	struct buf text;
	buf_init(&text, MANIFEST_MAX);
	enum err e = manifest_canonical(m, &text);
	if (e == ERR_OK)
		m->digest = digest_of(buf_bytes(&text));
	buf_deinit(&text);
	return e;
}

static bool matches(const struct config_list *patterns, const char *name)
{
	for (size_t i = 0; patterns != NULL && i < patterns->n; i++) {
		if (pattern_match(patterns->v[i], name))
			return true;
	}
	return false;
}

static enum err check_patterns(const struct model *base, const char *key, const struct config_list *patterns)
{
	for (size_t i = 0; patterns != NULL && i < patterns->n; i++) {
		bool found = false;
		for (size_t p = 0; p < base->n_params && !found; p++)
			found = pattern_match(patterns->v[i], base->params[p].name);
		if (!found)
			return err_set(ERR_CONFIG, "%s: '%.100s' matches no tensor of the model; there are %s, ...",
				       key, patterns->v[i], base->n_params > 0 ? base->params[0].name : "none");
	}
	return ERR_OK;
}

/* frozen[i]: tensor i is frozen by its name, or is a statistic of a layer all of whose learned tensors are. Free
 * it. */
static bool *find_frozen(const struct model *base, const struct config_list *freeze)
{
	bool *frozen = mem_array(base->n_params, sizeof *frozen);
	for (size_t i = 0; i < base->n_params; i++)
		frozen[i] = matches(freeze, base->params[i].name);
	for (size_t i = 0; i < base->n_params; i++) {
		const struct param *p = &base->params[i];
		size_t learned = 0, kept = 0;
		for (size_t k = 0; p->kind == PARAM_STATISTIC && k < base->n_params; k++) {
			bool beside = base->params[k].layer == p->layer && base->params[k].kind == PARAM_WEIGHT;
			learned += beside;
			kept += beside && frozen[k];
		}
		if (learned > 0 && kept == learned)
			frozen[i] = true;
	}
	return frozen;
}

static enum tensor_role role_of(const struct param *p, bool frozen, const struct config_list *local)
{
	if (frozen)
		return TENSOR_FROZEN;
	if (matches(local, p->name))
		return TENSOR_LOCAL;
	return p->kind == PARAM_STATISTIC ? TENSOR_STATISTIC : TENSOR_TRAINABLE;
}

static enum err scale_of(const struct model *base, const struct param *p, int *ret_scale)
{
	float largest = 1;
	for (size_t i = 0; i < p->n; i++) {
		float magnitude = fabsf(base->theta[p->offset + i]);
		if (!isfinite(magnitude))
			return err_set(ERR_NUMERIC, "%s[%zu] of the base model is not finite", p->name, i);
		if (magnitude > largest)
			largest = magnitude;
	}
	/*
	 * headroom * largest = fraction * 2^exponent with fraction in [0.5, 1): 2^exponent covers it, half of that only
	 * if it is exact.
	 */
	int exponent;
	double fraction = frexp(headroom * (double)largest, &exponent);
	*ret_scale = FIXED_BITS - (fraction == 0.5 ? exponent - 1 : exponent);
	ENSURE(*ret_scale >= FIXED_SCALE_MIN && *ret_scale <= FIXED_SCALE_MAX);
	return ERR_OK;
}

static enum err fill(struct manifest *m, const struct model *base, const bool *frozen, const struct config_list *local)
{
	for (size_t i = 0; i < m->n_tensors; i++) {
		const struct param *p = &base->params[i];
		struct manifest_tensor *t = &m->tensors[i];
		memcpy(t->name, p->name, sizeof t->name);
		t->shape = p->shape;
		t->role = role_of(p, frozen[i], local);
		if (roles[t->role].travels)
			TRY(scale_of(base, p, &t->scale));
	}
	TRY(finish(m));
	if (m->n_travel == 0)
		return err_set(ERR_CONFIG, "every tensor is frozen or local: there is nothing to learn together");
	return manifest_check_model(m, base);
}

enum err manifest_build(const struct model *base, const struct config_list *freeze, const struct config_list *local,
			struct manifest **ret_manifest)
{
	TRY(check_patterns(base, "freeze", freeze));
	TRY(check_patterns(base, "local", local));
	struct manifest *m = manifest_new(base->n_params);
	bool *frozen = find_frozen(base, freeze);
	enum err e = fill(m, base, frozen, local);
	free(frozen);
	if (e != ERR_OK) {
		manifest_free(m);
		return e;
	}
	*ret_manifest = m;
	return ERR_OK;
}

static struct json *tensor_json(const struct manifest_tensor *t)
{
	struct json *shape = json_list(), *map = json_map();
	for (unsigned i = 0; i < t->shape.n; i++)
		json_push(shape, json_int((int64_t)t->shape.d[i]));
	json_put(map, "name", json_str(t->name));
	json_put(map, "role", json_str(roles[t->role].name));
	json_put(map, "scale", json_int(t->scale));
	return json_put(map, "shape", shape);
}

enum err manifest_canonical(const struct manifest *m, struct buf *out)
{
	struct json *tensors = json_list(), *map = json_map();
	for (size_t i = 0; i < m->n_tensors; i++)
		json_push(tensors, tensor_json(&m->tensors[i]));
	json_put(json_put(map, "tensors", tensors), "version", json_int(VERSION));
	enum err e = json_write(map, out);
	json_free(map);
	return e;
}

static enum err malformed(size_t i, const char *what)
{
	return err_set(ERR_MALFORMED, "manifest: tensor %zu: %s", i, what);
}

static enum err parse_shape(const struct json *list, size_t tensor, struct shape *ret_shape)
{
	struct shape shape = {0};
	if (!json_is_list(list) || json_count(list) > SHAPE_DIMS_MAX)
		return malformed(tensor, "'shape' is not a list of at most 4 dimensions");
	for (size_t i = 0; i < json_count(list); i++) {
		int64_t d;
		if (!json_get_int(json_at(list, i), &d) || d < 1 || d > (int64_t)TENSOR_COUNT_MAX)
			return malformed(tensor, "a dimension is not a positive number, or too large");
		shape.d[shape.n++] = (size_t)d;
	}
	*ret_shape = shape;
	return ERR_OK;
}

/* Printable ASCII: names end up in messages, tables and file headers. */
static bool name_fits(const char *name)
{
	size_t n = strlen(name);
	for (size_t i = 0; i < n; i++) {
		if (name[i] <= ' ' || name[i] > '~')
			return false;
	}
	return n > 0 && n < PARAM_NAME_SIZE;
}

static enum err parse_tensor(const struct json *map, size_t i, struct manifest_tensor *t)
{
	const char *name, *role;
	int64_t scale;
	if (!json_get_str(json_get(map, "name"), &name) || !name_fits(name))
		return malformed(i, "'name' is not a tensor's name");
	if (!json_get_str(json_get(map, "role"), &role) || !role_find(role, &t->role))
		return malformed(i, "'role' is not trainable, statistic, frozen or local");
	if (!json_get_int(json_get(map, "scale"), &scale) || scale < FIXED_SCALE_MIN || scale > FIXED_SCALE_MAX)
		return malformed(i, "'scale' is not a number from -104 to 30");
	if (!roles[t->role].travels && scale != 0)
		return malformed(i, "'scale' is not 0 although it does not travel");
	memcpy(t->name, name, strlen(name) + 1);
	t->scale = (int)scale;
	return parse_shape(json_get(map, "shape"), i, &t->shape);
}

static int name_order(const void *a, const void *b)
{
	const struct manifest_tensor *const *x = a, *const *y = b;
	return strcmp((*x)->name, (*y)->name);
}

static enum err check_unique(const struct manifest *m)
{
	const struct manifest_tensor **sorted = mem_array(m->n_tensors, sizeof(struct manifest_tensor *));
	for (size_t i = 0; i < m->n_tensors; i++)
		sorted[i] = &m->tensors[i];
	qsort(sorted, m->n_tensors, sizeof *sorted, name_order);
	enum err e = ERR_OK;
	for (size_t i = 1; e == ERR_OK && i < m->n_tensors; i++) {
		if (strcmp(sorted[i - 1]->name, sorted[i]->name) == 0)
			e = err_set(ERR_MALFORMED, "manifest: two tensors '%s'", sorted[i]->name);
	}
	free(sorted);
	return e;
}

/* A text with unknown keys, other spacing or another order of keys would be another digest for the same thing. */
static enum err check_canonical(const struct manifest *m, struct bytes json)
{
	struct digest given = digest_of(json);
	return digest_equal(&given, &m->digest) ? ERR_OK : err_set(ERR_MALFORMED, "manifest: not in canonical form");
}

static enum err parse_all(struct manifest *m, const struct json *tensors, struct bytes text)
{
	for (size_t i = 0; i < m->n_tensors; i++)
		TRY(parse_tensor(json_at(tensors, i), i, &m->tensors[i]));
	TRY(check_unique(m));
	TRY(finish(m));
	if (m->n_travel == 0)
		return err_set(ERR_MALFORMED, "manifest: nothing travels");
	return check_canonical(m, text);
}

enum err manifest_parse(struct bytes json, struct manifest **ret_manifest)
{
	struct json *map = NULL;
	struct manifest *m = NULL;
	int64_t version;
	if (json.n > MANIFEST_MAX)
		return err_set(ERR_LIMIT, "manifest: over %d bytes", MANIFEST_MAX);
	enum err e = json_parse(json, &map);
	if (e != ERR_OK)
		return err_add(e, "manifest");
	const struct json *tensors = json_get(map, "tensors");
	size_t n = json_is_list(tensors) ? json_count(tensors) : 0;
	if (!json_get_int(json_get(map, "version"), &version) || version != VERSION) {
		e = err_set(ERR_MALFORMED, "manifest: 'version' is not %d; another release of the software may read it",
			    VERSION);
	} else if (n == 0 || n > MODEL_PARAMS_MAX) {
		e = err_set(ERR_MALFORMED, "manifest: 'tensors' is not a list of 1 to %d", MODEL_PARAMS_MAX);
	} else {
		m = manifest_new(n);
		e = parse_all(m, tensors, json);
	}
	json_free(map);
	if (e != ERR_OK) {
		manifest_free(m);
		return e;
	}
	*ret_manifest = m;
	return ERR_OK;
}

enum err manifest_check_model(const struct manifest *m, const struct model *model)
{
	char a[SHAPE_TEXT_SIZE], b[SHAPE_TEXT_SIZE];
	if (m->n_tensors != model->n_params)
		return err_set(ERR_SHAPE, "the manifest has %zu tensors, the model %zu", m->n_tensors, model->n_params);
	for (size_t i = 0; i < m->n_tensors; i++) {
		const struct manifest_tensor *t = &m->tensors[i];
		const struct param *p = &model->params[i];
		if (strcmp(t->name, p->name) != 0)
			return err_set(ERR_SHAPE, "tensor %zu is '%s' in the manifest, '%s' in the model", i, t->name,
				       p->name);
		if (!shape_equal(&t->shape, &p->shape) || t->offset != p->offset)
			return err_set(ERR_SHAPE, "'%s' is %s at %zu in the manifest, %s at %zu in the model", t->name,
				       shape_format(&t->shape, a), t->offset, shape_format(&p->shape, b), p->offset);
		bool statistic = t->role == TENSOR_STATISTIC, trainable = t->role == TENSOR_TRAINABLE;
		if ((statistic && p->kind != PARAM_STATISTIC) || (trainable && p->kind != PARAM_WEIGHT))
			return err_set(ERR_SHAPE, "'%s' cannot be %s", t->name, roles[t->role].name);
	}
	return ERR_OK;
}
