/*
 * Models from and to their description. The layers are read in order; each works out its output from the output before
 * it and declares its tensors. Nothing is allocated for the parameters before all of this has fitted and its size is
 * known.
 */
#include "ml/model.h"

#include "base/json.h"
#include "base/table.h"
#include "base/text.h"
#include "ml/layer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct description {
	char *name, *head;                 /* owned */
	struct config_list input, classes; /* owned */
	int64_t outputs;
};

static const struct config_row rows[] = {
	{"name", CONFIG_STRING, offsetof(struct description, name), .def = "model", .help = "name of the model"},
	{"input", CONFIG_LIST, offsetof(struct description, input), .min = 1, .max = 2, .required = true,
	 .help = "shape of a sample: [channels, length], or [features]"},
	{"classes", CONFIG_LIST, offsetof(struct description, classes), .max = MODEL_CLASSES_MAX,
	 .help = "names of the classes; leave out for regression"},
	{"outputs", CONFIG_INT, offsetof(struct description, outputs), .min = 0, .max = MODEL_CLASSES_MAX,
	 .help = "number of values, for regression"},
	{"head", CONFIG_STRING, offsetof(struct description, head),
	 .help = "layer that is replaced for other classes; the last linear one when left out"},
	{0},
};

/* While a model is made: the next free place in both lists is at n_layers and n_params. */
struct build {
	const struct yaml_node *root;
	struct description d;
	struct model *m; /* owned */
};

static enum err wrong(const struct yaml_node *at, enum err e)
{
	return err_add(e, "%s:%u", at->file, at->line);
}

/* Where `key` stands, or the whole description when it is not there. */
static const struct yaml_node *place(const struct build *b, const char *key)
{
	const struct yaml_node *node = yaml_get(b->root, key);
	return node != NULL ? node : b->root;
}

/* The table of keys has no word for the list of layers: it sees the map without it. */
static enum err read_keys(struct build *b)
{
	const struct yaml_node *root = b->root;
	if (root->kind != YAML_MAP)
		return wrong(root, err_set(ERR_CONFIG, "a model is a map of keys (name, input, classes, layers)"));
	const char **keys = mem_array(root->n, sizeof *keys);
	unsigned *lines = mem_array(root->n, sizeof *lines);
	const struct yaml_node **items = mem_array(root->n, sizeof *items);
	struct yaml_node map = *root;
	map.n = 0;
	for (size_t i = 0; i < root->n; i++) {
		if (strcmp(root->keys[i], "layers") == 0)
			continue;
		keys[map.n] = root->keys[i];
		lines[map.n] = root->key_lines[i];
		items[map.n++] = root->items[i];
	}
	map.keys = keys;
	map.key_lines = lines;
	map.items = items;
	enum err e = config_read(rows, &map, &b->d);
	free(keys);
	free(lines);
	free(items);
	return e;
}

static enum err read_input(struct build *b)
{
	struct model *m = b->m;
	m->input.n = (unsigned)b->d.input.n;
	for (unsigned i = 0; i < m->input.n; i++) {
		int64_t v;
		if (!text_to_int(b->d.input.v[i], &v) || v < 1 || (uint64_t)v > TENSOR_COUNT_MAX)
			return err_set(ERR_CONFIG,
				       "input: '%.40s' is not a positive number of channels, samples or features",
				       b->d.input.v[i]);
		m->input.d[i] = (size_t)v;
	}
	size_t count;
	return shape_count(&m->input, &count);
}

static int text_order(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Control characters and Unicode's line ends (U+0080 to U+009F, U+2028, U+2029): no reader of YAML gives them back as
 * they were. */
static bool has_control(const char *s)
{
	for (const unsigned char *c = (const unsigned char *)s; *c != '\0'; c++) {
		if (*c < 0x20 || *c == 0x7f || (*c == 0xc2 && c[1] < 0xa0) ||
		    (*c == 0xe2 && c[1] == 0x80 && (c[2] == 0xa8 || c[2] == 0xa9)))
			return true;
	}
	return false;
}

static enum err check_text(const char *key, const char *s)
{
	size_t n = strlen(s);
	if (n == 0 || n > MODEL_CLASS_NAME_MAX)
		return err_set(ERR_CONFIG, "%s: '%.20s' has %zu bytes; allowed are 1 to %d", key, s, n,
			       MODEL_CLASS_NAME_MAX);
	return has_control(s) ? err_set(ERR_CONFIG, "%s: a name has control characters", key) : ERR_OK;
}

static enum err check_classes(const struct config_list *classes)
{
	size_t bytes = 0;
	if (classes->n == 0)
		return ERR_OK;
	if (classes->n == 1)
		return err_set(ERR_CONFIG, "classes: one class leaves nothing to tell apart");
	for (size_t i = 0; i < classes->n; i++) {
		TRY(check_text("classes", classes->v[i]));
		bytes += strlen(classes->v[i]);
	}
	if (bytes > MODEL_CLASS_BYTES_MAX)
		return err_set(ERR_LIMIT, "classes: the names have more than %d bytes", MODEL_CLASS_BYTES_MAX);
	char **sorted = memcpy(mem_array(classes->n, sizeof *sorted), classes->v, classes->n * sizeof *sorted);
	qsort(sorted, classes->n, sizeof *sorted, text_order);
	enum err e = ERR_OK;
	for (size_t i = 1; i < classes->n && e == ERR_OK; i++) {
		if (strcmp(sorted[i - 1], sorted[i]) == 0)
			e = err_set(ERR_CONFIG, "classes: '%s' is there twice", sorted[i]);
	}
	free(sorted);
	return e;
}

static enum err read_outputs(struct build *b)
{
	struct model *m = b->m;
	if ((b->d.classes.n > 0) == (b->d.outputs > 0))
		return wrong(b->root,
			     err_set(ERR_CONFIG, "give either 'classes' (classification) or 'outputs' (regression)"));
	enum err e = check_classes(&b->d.classes);
	if (e != ERR_OK)
		return wrong(place(b, "classes"), e);
	m->n_outputs = b->d.classes.n > 0 ? b->d.classes.n : (size_t)b->d.outputs;
	m->classes = b->d.classes;
	b->d.classes = (struct config_list){0};
	return ERR_OK;
}

static enum err check_name(const struct model *m, const char *name)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
	size_t n = strlen(name), max = PARAM_NAME_SIZE - sizeof ".running_mean";
	if (n == 0 || n > max || strspn(name, allowed) != n)
		return err_set(ERR_CONFIG, "name: '%.60s' is not 1 to %zu letters, digits, '_', '-' or '.'", name, max);
	for (size_t i = 0; i < m->n_layers; i++) {
		if (strcmp(m->layers[i].name, name) == 0)
			return err_set(ERR_CONFIG, "name: '%s' is already used in line %u", name, m->layers[i].line);
	}
	return ERR_OK;
}

static enum err take_out(const struct model *m, struct layer *l, const char *out)
{
	l->out_is_outputs = strcmp(out, "outputs") == 0;
	if (l->out_is_outputs)
		l->out = (int64_t)m->n_outputs;
	else if (!text_to_int(out, &l->out) || l->out < 1 || l->out > LAYER_SIZE_MAX)
		return err_set(ERR_CONFIG, "out: '%.40s' is neither a number from 1 to %d nor 'outputs'", out,
			       LAYER_SIZE_MAX);
	return ERR_OK;
}

static enum err take_config(struct model *m, struct layer *l, const struct layer_config *c)
{
	l->kernel = c->kernel;
	l->stride = c->stride;
	l->padding = c->padding;
	l->p = c->p;
	l->bias = c->bias;
	if (c->name != NULL) {
		TRY(check_name(m, c->name));
		memcpy(l->name, c->name, strlen(c->name) + 1);
	}
	if (c->out != NULL)
		TRY(take_out(m, l, c->out));
	l->in_shape = m->n_layers > 0 ? l[-1].out_shape : m->input;
	TRY(l->op->shape(m, l));
	size_t count;
	return shape_count(&l->out_shape, &count);
}

static enum err unknown_op(const char *op)
{
	struct text_guess guess = {.word = op};
	for (const struct layer_op *const *row = layer_ops; *row != NULL; row++)
		text_guess_offer(&guess, (*row)->op);
	if (guess.best == NULL)
		return err_set(ERR_CONFIG, "op: there is no layer '%.60s'", op);
	return err_set(ERR_CONFIG, "op: there is no layer '%.60s' (did you mean '%s'?)", op, guess.best);
}

static enum err read_layer(struct build *b, const struct yaml_node *node)
{
	const struct yaml_node *op = yaml_get(node, "op");
	if (op == NULL || op->kind != YAML_SCALAR)
		return wrong(node, err_set(ERR_CONFIG, "a layer is a map with a key 'op'"));
	struct layer *l = &b->m->layers[b->m->n_layers];
	*l = (struct layer){.op = layer_op_find(op->text), .line = node->line};
	if (l->op == NULL)
		return wrong(op, unknown_op(op->text));
	struct layer_config c = {0}; /* an operation has rows for some of it */
	TRY(config_read(l->op->rows, node, &c));
	enum err e = take_config(b->m, l, &c);
	config_free(l->op->rows, &c);
	if (e != ERR_OK)
		return wrong(node, e);
	b->m->n_layers++;
	return ERR_OK;
}

static enum err read_layers(struct build *b)
{
	const struct yaml_node *list = yaml_get(b->root, "layers");
	if (list == NULL || list->kind != YAML_LIST || list->n == 0)
		return wrong(list != NULL ? list : b->root, err_set(ERR_CONFIG, "layers: a list of layers is needed"));
	if (list->n > MODEL_LAYERS_MAX)
		return wrong(list, err_set(ERR_LIMIT, "layers: more than %d", MODEL_LAYERS_MAX));
	struct model *m = b->m;
	m->layers = mem_array(list->n, sizeof *m->layers);
	m->params = mem_array(MODEL_PARAMS_MAX, sizeof *m->params);
	for (size_t i = 0; i < list->n; i++)
		TRY(read_layer(b, list->items[i]));
	const struct layer *last = &m->layers[m->n_layers - 1];
	const struct shape wanted = {1, {m->n_outputs}};
	if (shape_equal(&last->out_shape, &wanted))
		return ERR_OK;
	char got[SHAPE_TEXT_SIZE];
	return wrong(list->items[list->n - 1], err_set(ERR_SHAPE, "the last layer gives %s; the model has %zu outputs",
						       shape_format(&last->out_shape, got), m->n_outputs));
}

/* Weights first, then statistics, each in layer order; then their places in the block. */
static void order_params(struct model *m)
{
	struct param *sorted = mem_array(m->n_params, sizeof *sorted);
	unsigned n = 0, *moved = mem_array(m->n_params, sizeof *moved);
	size_t offset = 0;
	for (int kind = PARAM_WEIGHT; kind <= PARAM_STATISTIC; kind++) {
		for (size_t i = 0; i < m->n_params; i++) {
			if (m->params[i].kind != (enum param_kind)kind)
				continue;
			sorted[n] = m->params[i];
			sorted[n].offset = offset;
			offset += sorted[n].n;
			moved[i] = n++;
		}
		if (kind == PARAM_WEIGHT)
			m->n_weights = offset;
	}
	for (size_t i = 0; i < m->n_layers; i++) {
		for (unsigned j = 0; j < m->layers[i].n_params; j++)
			m->layers[i].param[j] = moved[m->layers[i].param[j]];
	}
	free(moved);
	free(m->params);
	m->params = sorted;
}

static const struct layer *find_head(const struct model *m, const char *name)
{
	for (size_t i = m->n_layers; i-- > 0;) {
		const struct layer *l = &m->layers[i];
		if (name != NULL ? strcmp(l->name, name) == 0 : l->op == &layer_linear)
			return l;
	}
	return NULL;
}

static enum err mark_head(struct build *b)
{
	const struct layer *head = find_head(b->m, b->d.head);
	if (b->d.head != NULL && (head == NULL || head->n_params == 0))
		return wrong(place(b, "head"),
			     err_set(ERR_CONFIG, "head: no layer '%.60s' with parameters", b->d.head));
	for (unsigned i = 0; head != NULL && i < head->n_params; i++)
		b->m->params[head->param[i]].head = true;
	return ERR_OK;
}

static enum err build(struct build *b)
{
	enum err e = read_input(b);
	if (e != ERR_OK)
		return wrong(place(b, "input"), e);
	e = check_text("name", b->d.name);
	if (e != ERR_OK)
		return wrong(place(b, "name"), e);
	TRY(read_outputs(b));
	TRY(read_layers(b));
	order_params(b->m);
	TRY(mark_head(b));
	b->m->name = b->d.name;
	b->d.name = NULL;
	b->m->theta = mem_aligned(b->m->n_theta * sizeof *b->m->theta);
	return ERR_OK;
}

enum err model_from_yaml(const struct yaml_node *node, struct model **ret_model)
{
	struct build b = {.root = node};
	TRY(read_keys(&b));
	b.m = mem_new(sizeof *b.m);
	enum err e = build(&b);
	config_free(rows, &b.d);
	if (e != ERR_OK) {
		model_free(b.m);
		return e;
	}
	*ret_model = b.m;
	return ERR_OK;
}

enum err model_load_description(const char *path, struct model **ret_model)
{
	struct yaml *yaml;
	TRY(yaml_load(path, &yaml));
	enum err e = model_from_yaml(yaml_root(yaml), ret_model);
	yaml_free(yaml);
	return e;
}

/* One key of a layer as JSON; NULL when the layer does not have it. */
static struct json *describe_key(const struct config_row *row, const struct layer_config *c)
{
	const void *field = (const char *)c + row->offset;
	int64_t number;
	switch (row->type) {
	case CONFIG_INT:
		return json_int(*(const int64_t *)field);
	case CONFIG_REAL:
		return json_num(*(const double *)field);
	case CONFIG_BOOL:
		return json_bool(*(const bool *)field);
	default: {
		const char *text = *(char *const *)field;
		if (text == NULL || text[0] == '\0')
			return NULL;
		bool is_count = row->offset == offsetof(struct layer_config, out) && text_to_int(text, &number);
		return is_count ? json_int(number) : json_str(text);
	}
	}
}

static struct json *describe_layer(const struct layer *l)
{
	char op[32], name[PARAM_NAME_SIZE], out[32];
	struct layer_config c = {.op = op,
				 .name = name,
				 .out = out,
				 .kernel = l->kernel,
				 .stride = l->stride,
				 .padding = l->padding,
				 .p = l->p,
				 .bias = l->bias};
	snprintf(op, sizeof op, "%s", l->op->op);
	snprintf(name, sizeof name, "%s", l->name);
	if (l->out_is_outputs)
		snprintf(out, sizeof out, "outputs");
	else
		snprintf(out, sizeof out, "%lld", (long long)l->out);
	struct json *map = json_map();
	for (const struct config_row *row = l->op->rows; row->key != NULL; row++) {
		struct json *value = describe_key(row, &c);
		if (value != NULL)
			json_put(map, row->key, value);
	}
	return map;
}

enum err model_describe(const struct model *m, struct buf *out)
{
	struct json *map = json_map(), *input = json_list(), *classes = json_list(), *layers = json_list();
	for (unsigned i = 0; i < m->input.n; i++)
		json_push(input, json_int((int64_t)m->input.d[i]));
	for (size_t i = 0; i < m->classes.n; i++)
		json_push(classes, json_str(m->classes.v[i]));
	for (size_t i = 0; i < m->n_layers; i++)
		json_push(layers, describe_layer(&m->layers[i]));
	json_put(map, "name", json_str(m->name));
	json_put(map, "input", input);
	if (m->classes.n == 0)
		json_put(map, "outputs", json_int((int64_t)m->n_outputs));
	json_put(map, "classes", classes);
	json_put(map, "layers", layers);
	for (size_t i = 0; i < m->n_params; i++) {
		if (m->params[i].head)
			json_put(map, "head", json_str(m->layers[m->params[i].layer].name));
	}
	enum err e = json_write(map, out);
	json_free(map);
	return e;
}

bool model_same(const struct model *a, const struct model *b)
{
	struct buf x, y;
	buf_init(&x, MODEL_DESCRIPTION_MAX);
	buf_init(&y, MODEL_DESCRIPTION_MAX);
	bool same = model_describe(a, &x) == ERR_OK && model_describe(b, &y) == ERR_OK &&
		    strcmp(buf_str(&x), buf_str(&y)) == 0;
	buf_deinit(&x);
	buf_deinit(&y);
	return same;
}

static void summarize_layer(struct table *t, const struct model *m, const struct layer *l)
{
	size_t n = 0, frozen = 0;
	bool head = false;
	for (unsigned i = 0; i < l->n_params; i++) {
		const struct param *p = &m->params[l->param[i]];
		n += p->n;
		frozen += p->frozen ? p->n : 0;
		head = head || p->head;
	}
	char shape[SHAPE_TEXT_SIZE], count[32] = "";
	if (l->n_params > 0)
		snprintf(count, sizeof count, "%zu", n);
	table_row(t, "%s|%s|%s|%s|%s%s", l->name, l->op->op, shape_format(&l->out_shape, shape), count,
		  head ? "head" : "",
		  frozen == 0  ? ""
		  : frozen < n ? " partly frozen"
			       : " frozen");
}

enum err model_summary(const struct model *m, struct buf *out)
{
	char shape[SHAPE_TEXT_SIZE];
	struct table *t = table_new("layer|op|>output|>parameters|note");
	table_row(t, "%s|%s|%s|%s|%s", "", "input", shape_format(&m->input, shape), "", "");
	for (size_t i = 0; i < m->n_layers; i++)
		summarize_layer(t, m, &m->layers[i]);
	enum err e = table_write(t, out);
	table_free(t);
	TRY(e);
	return buf_printf(out, "%s: %zu parameters learned, %zu statistics, %zu %s\n", m->name, m->n_weights,
			  m->n_theta - m->n_weights, m->n_outputs, m->classes.n > 0 ? "classes" : "outputs");
}
