/*
 * The tree is built from libyaml's events, and every limit is checked as the events come, so that a hostile file costs
 * no more than its own size. All memory of a tree hangs on one list of blocks: a failure anywhere frees everything in
 * one place.
 */
#include <yaml.h>

#include "base/yaml.h"

#include "base/file.h"

#include <stdlib.h>
#include <string.h>

enum { LEVELS_MAX = 16, NODES_MAX = 20000, TEXT_MAX = 1 << 20 };

struct block {
	struct block *next;
	max_align_t data[];
};

struct yaml {
	const char *name;
	const struct yaml_node *root;
	struct block *blocks; /* owned */
};

struct reader {
	struct yaml *yaml;
	yaml_parser_t parser;
	struct bytes text;
	size_t nodes;
};

static void *keep(struct yaml *y, size_t n)
{
	struct block *b = mem_new(sizeof *b + n);
	b->next = y->blocks;
	y->blocks = b;
	return b->data;
}

static const void *keep_copy(struct yaml *y, const void *p, size_t n)
{
	void *copy = keep(y, n + 1); /* a text keeps its zero */
	return n > 0 ? memcpy(copy, p, n) : copy;
}

static unsigned line_of(const yaml_event_t *event)
{
	return (unsigned)event->start_mark.line + 1;
}

#define FAIL(r, line, ...) fail_at((r)->yaml->name, line, __VA_ARGS__)

static enum err fail_at(const char *name, unsigned line, const char *fmt, ...) PRINTF_LIKE(3, 4);
static enum err fail_at(const char *name, unsigned line, const char *fmt, ...)
{
	struct buf what;
	va_list ap;
	buf_init(&what, 512);
	va_start(ap, fmt);
	if (buf_vprintf(&what, fmt, ap) != ERR_OK)
		buf_reset(&what);
	va_end(ap);
	err_set(ERR_CONFIG, "%s:%u: %s", name, line, buf_str(&what));
	buf_deinit(&what);
	return ERR_CONFIG;
}

static enum err fail_syntax(const struct reader *r)
{
	const yaml_parser_t *p = &r->parser;
	const char *problem = p->problem != NULL ? p->problem : "not YAML";
	if (p->error != YAML_READER_ERROR)
		return FAIL(r, (unsigned)p->problem_mark.line + 1, "%s", problem);
	/* The reader knows no lines yet, only a byte. */
	unsigned line = 1;
	for (size_t i = 0; i < p->problem_offset && i < r->text.n; i++)
		line += r->text.p[i] == '\n';
	return FAIL(r, line, "%s", problem);
}

static enum err next_event(struct reader *r, yaml_event_t *event)
{
	return yaml_parser_parse(&r->parser, event) ? ERR_OK : fail_syntax(r);
}

static enum err check_plain(const struct reader *r, unsigned line, const yaml_char_t *anchor, const yaml_char_t *tag)
{
	if (anchor != NULL)
		return FAIL(r, line, "anchors (&name) are not used here");
	if (tag != NULL)
		return FAIL(r, line, "tags (!name) are not used here");
	return ERR_OK;
}

static enum err read_node(struct reader *r, const yaml_event_t *event, unsigned level,
			  const struct yaml_node **ret_node);

static enum err read_scalar(struct reader *r, const yaml_event_t *event, struct yaml_node *node)
{
	const yaml_char_t *p = event->data.scalar.value;
	size_t n = event->data.scalar.length;
	TRY(check_plain(r, node->line, event->data.scalar.anchor, event->data.scalar.tag));
	if (n > 0 && memchr(p, 0, n) != NULL)
		return FAIL(r, node->line, "a text must not hold a zero byte");
	node->kind = YAML_SCALAR;
	node->text = keep_copy(r->yaml, p, n);
	node->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
	return ERR_OK;
}

/* The items of a list or map while they are collected. */
struct items {
	const struct yaml_node **v; /* owned; map: key, value, key, value */
	size_t n, cap;
};

static enum err collect(struct reader *r, yaml_event_type_t end, unsigned level, struct items *items)
{
	for (;;) {
		yaml_event_t event;
		const struct yaml_node *node = NULL;
		TRY(next_event(r, &event));
		bool done = event.type == end;
		enum err e = done ? ERR_OK : read_node(r, &event, level + 1, &node);
		yaml_event_delete(&event);
		if (e != ERR_OK || done)
			return e;
		if (items->n == items->cap) {
			items->cap = items->cap == 0 ? 8 : items->cap * 2;
			items->v = mem_grow(items->v, items->cap, sizeof *items->v);
		}
		items->v[items->n++] = node;
	}
}

static int key_order(const void *a, const void *b)
{
	const struct yaml_node *x = *(const struct yaml_node *const *)a, *y = *(const struct yaml_node *const *)b;
	int order = strcmp(x->text, y->text);
	return order != 0 ? order : (x->line > y->line) - (x->line < y->line);
}

static enum err check_keys(const struct reader *r, const struct items *pairs)
{
	size_t n = pairs->n / 2;
	const struct yaml_node **keys = mem_array(n, sizeof *keys);
	enum err e = ERR_OK;
	for (size_t i = 0; i < n && e == ERR_OK; i++) {
		keys[i] = pairs->v[2 * i];
		if (keys[i]->kind != YAML_SCALAR)
			e = FAIL(r, keys[i]->line, "a key must be a word");
	}
	if (e == ERR_OK)
		qsort(keys, n, sizeof *keys, key_order);
	for (size_t i = 1; i < n && e == ERR_OK; i++) {
		if (strcmp(keys[i - 1]->text, keys[i]->text) == 0)
			e = FAIL(r, keys[i]->line, "duplicate key '%.100s' (first in line %u)", keys[i]->text,
				 keys[i - 1]->line);
	}
	free(keys);
	return e;
}

static void fill_list(struct yaml *y, const struct items *items, struct yaml_node *node)
{
	node->n = items->n;
	node->items = keep_copy(y, items->v, items->n * sizeof *items->v);
}

static void fill_map(struct yaml *y, const struct items *pairs, struct yaml_node *node)
{
	size_t n = pairs->n / 2;
	const char **keys = keep(y, n * sizeof *keys);
	unsigned *lines = keep(y, n * sizeof *lines);
	const struct yaml_node **values = keep(y, n * sizeof *values);
	for (size_t i = 0; i < n; i++) {
		keys[i] = pairs->v[2 * i]->text;
		lines[i] = pairs->v[2 * i]->line;
		values[i] = pairs->v[2 * i + 1];
	}
	node->n = n;
	node->keys = keys;
	node->key_lines = lines;
	node->items = values;
}

static enum err read_list(struct reader *r, const yaml_event_t *event, unsigned level, struct yaml_node *node)
{
	TRY(check_plain(r, node->line, event->data.sequence_start.anchor, event->data.sequence_start.tag));
	struct items items = {0};
	enum err e = collect(r, YAML_SEQUENCE_END_EVENT, level, &items);
	node->kind = YAML_LIST;
	if (e == ERR_OK)
		fill_list(r->yaml, &items, node);
	free(items.v);
	return e;
}

static enum err read_map(struct reader *r, const yaml_event_t *event, unsigned level, struct yaml_node *node)
{
	TRY(check_plain(r, node->line, event->data.mapping_start.anchor, event->data.mapping_start.tag));
	struct items pairs = {0};
	enum err e = collect(r, YAML_MAPPING_END_EVENT, level, &pairs);
	if (e == ERR_OK)
		e = check_keys(r, &pairs);
	node->kind = YAML_MAP;
	if (e == ERR_OK)
		fill_map(r->yaml, &pairs, node);
	free(pairs.v);
	return e;
}

static enum err read_node(struct reader *r, const yaml_event_t *event, unsigned level,
			  const struct yaml_node **ret_node)
{
	unsigned line = line_of(event);
	bool scalar = event->type == YAML_SCALAR_EVENT;
	if (event->type == YAML_ALIAS_EVENT)
		return FAIL(r, line, "aliases (*name) are not used here");
	if (!scalar && level > LEVELS_MAX)
		return FAIL(r, line, "nested deeper than %d levels", LEVELS_MAX);
	if (++r->nodes > NODES_MAX)
		return FAIL(r, line, "more than %d values", NODES_MAX);
	struct yaml_node *node = keep(r->yaml, sizeof *node);
	node->line = line;
	node->file = r->yaml->name;
	if (scalar)
		TRY(read_scalar(r, event, node));
	else if (event->type == YAML_SEQUENCE_START_EVENT)
		TRY(read_list(r, event, level, node));
	else
		TRY(read_map(r, event, level, node));
	*ret_node = node;
	return ERR_OK;
}

/* A file without a document (empty, or comments only) is an empty map. */
static const struct yaml_node *empty_map(struct yaml *y)
{
	struct yaml_node *node = keep(y, sizeof *node);
	node->line = 1;
	node->file = y->name;
	fill_map(y, &(struct items){0}, node);
	node->kind = YAML_MAP;
	return node;
}

static enum err take_event(struct reader *r, const yaml_event_t *event)
{
	switch (event->type) {
	case YAML_DOCUMENT_START_EVENT:
		if (event->data.document_start.tag_directives.start != event->data.document_start.tag_directives.end)
			return FAIL(r, line_of(event), "tags (%%TAG) are not used here");
		return r->yaml->root != NULL ? FAIL(r, line_of(event), "a second document ('---') begins") : ERR_OK;
	case YAML_STREAM_START_EVENT:
	case YAML_STREAM_END_EVENT:
	case YAML_DOCUMENT_END_EVENT:
		return ERR_OK;
	default:
		return read_node(r, event, 1, &r->yaml->root);
	}
}

static enum err read_stream(struct reader *r)
{
	for (bool done = false; !done;) {
		yaml_event_t event;
		TRY(next_event(r, &event));
		done = event.type == YAML_STREAM_END_EVENT;
		enum err e = take_event(r, &event);
		yaml_event_delete(&event);
		TRY(e);
	}
	if (r->yaml->root == NULL)
		r->yaml->root = empty_map(r->yaml);
	return ERR_OK;
}

enum err yaml_parse(const char *name, struct bytes text, struct yaml **ret_yaml)
{
	if (text.n > TEXT_MAX)
		return fail_at(name, 1, "larger than %d bytes", TEXT_MAX);
	struct reader r = {.yaml = mem_new(sizeof *r.yaml), .text = text};
	r.yaml->name = keep_copy(r.yaml, name, strlen(name));
	ENSURE(yaml_parser_initialize(&r.parser));
	/* Without this libyaml guesses, and takes UTF-16. */
	yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&r.parser, text.n > 0 ? text.p : (const yaml_char_t *)"", text.n);
	enum err e = read_stream(&r);
	yaml_parser_delete(&r.parser);
	if (e != ERR_OK) {
		yaml_free(r.yaml);
		return e;
	}
	*ret_yaml = r.yaml;
	return ERR_OK;
}

enum err yaml_load(const char *path, struct yaml **ret_yaml)
{
	struct buf text;
	enum err e = file_read(path, TEXT_MAX, &text);
	if (e == ERR_LIMIT)
		return fail_at(path, 1, "larger than %d bytes", TEXT_MAX);
	TRY(e);
	e = yaml_parse(path, buf_bytes(&text), ret_yaml);
	buf_deinit(&text);
	return e;
}

const struct yaml_node *yaml_root(const struct yaml *y)
{
	return y->root;
}

void yaml_free(struct yaml *y)
{
	if (y == NULL)
		return;
	for (struct block *b = y->blocks; b != NULL;) {
		struct block *next = b->next;
		free(b);
		b = next;
	}
	free(y);
}

const struct yaml_node *yaml_get(const struct yaml_node *map, const char *key)
{
	if (map == NULL || map->kind != YAML_MAP)
		return NULL;
	for (size_t i = 0; i < map->n; i++) {
		if (strcmp(map->keys[i], key) == 0)
			return map->items[i];
	}
	return NULL;
}
