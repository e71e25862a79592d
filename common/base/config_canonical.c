/*
 * The canonical form: what is hashed, stored and shown. It says every value that is in force, also those that came from
 * a default, so that a later release with other defaults still runs the same job. Young keys are the exception: a
 * text without them means their default, which must therefore never change.
 */
#include "base/config.h"

#include "base/config_field.h"
#include "base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CANONICAL_MAX = 8 << 20 }; /* of one value: a list has at most 1024 texts of 4096 bytes */

/* Does `value` say what the row's default says? */
static enum err is_default(const struct config_row *row, const struct json *value, bool *ret_same)
{
	union {
		int64_t integer;
		double real;
		bool truth;
		int index;
		char *text;
		struct config_list list;
	} field;
	struct json *other = NULL;
	struct buf ours, theirs;
	config_field_zero(row, &field);
	config_field_default(row, &field);
	enum err e = config_field_to_json(row, &field, &other);
	buf_init(&ours, CANONICAL_MAX);
	buf_init(&theirs, CANONICAL_MAX);
	if (e == ERR_OK && other != NULL)
		e = json_write(other, &theirs);
	if (e == ERR_OK && value != NULL)
		e = json_write(value, &ours);
	if (e == ERR_OK)
		*ret_same = ours.n == theirs.n && (ours.n == 0 || memcmp(ours.p, theirs.p, ours.n) == 0);
	buf_deinit(&ours);
	buf_deinit(&theirs);
	json_free(other);
	config_field_free(row, &field);
	return e;
}

static enum err to_json(const struct config_row *rows, const void *target, struct json *map)
{
	for (const struct config_row *row = rows; row->key != NULL; row++) {
		const void *field = config_field_const(row, target);
		struct json *value = NULL;
		enum err e = ERR_OK;
		if (row->type == CONFIG_SECTION) {
			value = json_map();
			e = to_json(row->rows, field, value);
		} else {
			e = config_field_to_json(row, field, &value);
		}
		bool left_out = false;
		if (e == ERR_OK && row->young)
			e = is_default(row, value, &left_out);
		if (left_out)
			json_free(value);
		else if (value != NULL)
			json_put(map, row->key, value);
		TRY(e);
	}
	return ERR_OK;
}

enum err config_canonical(const struct config_row *rows, const void *target, struct buf *out)
{
	struct json *map = json_map();
	enum err e = to_json(rows, target, map);
	if (e == ERR_OK)
		e = json_write(map, out);
	json_free(map);
	return e;
}

static enum err check_key(void *arg, const char *key, const struct json *value)
{
	const struct config_row *row = arg;
	(void)value;
	for (; row->key != NULL; row++) {
		if (strcmp(row->key, key) == 0)
			return ERR_OK;
	}
	return err_set(ERR_MALFORMED, "unknown key '%.60s'", key);
}

static void *unconst(const struct config_row *rows)
{
	union {
		const struct config_row *in;
		void *out;
	} u = {.in = rows};
	return u.out;
}

/*
 * Is this what a field holds that was never set? A row without a default may be zero although its bounds say otherwise:
 * the key, or the whole section around it, was left out. The struct does not know which, so neither does the canonical
 * form.
 */
static bool is_unset(const struct config_row *row, const struct json *value)
{
	int64_t n;
	const char *text;
	if (row->def != NULL)
		return false;
	if (row->type == CONFIG_INT || row->type == CONFIG_SECONDS)
		return json_get_int(value, &n) && n == 0;
	if (row->type == CONFIG_REAL)
		return json_get_str(value, &text) && strcmp(text, "0") == 0;
	return row->type == CONFIG_LIST && json_is_list(value) && json_count(value) == 0;
}

/* `optional`: a section around these rows may have been left out, with everything that it requires. */
static enum err from_json(const struct config_row *rows, const struct json *map, bool optional, void *target)
{
	if (!json_is_map(map))
		return err_set(ERR_MALFORMED, "is not a map");
	TRY(json_each(map, check_key, unconst(rows)));
	for (const struct config_row *row = rows; row->key != NULL; row++) {
		const struct json *value = json_get(map, row->key);
		void *field = config_field(row, target);
		bool may_lack = optional || !row->required;
		enum err e = ERR_OK;
		if (value == NULL)
			e = may_lack ? ERR_OK : err_set(ERR_MALFORMED, "is missing");
		else if (row->type == CONFIG_SECTION)
			e = from_json(row->rows, value, may_lack, field);
		else if (!may_lack || !is_unset(row, value))
			e = config_field_from_json(row, value, field);
		if (e != ERR_OK)
			return err_add(ERR_MALFORMED, "%s", row->key);
	}
	return ERR_OK;
}

enum err config_from_canonical(const struct config_row *rows, struct bytes json, void *target)
{
	const struct config_row whole = {.key = "", .type = CONFIG_SECTION, .rows = rows};
	struct json *map = NULL;
	config_field_zero(&whole, target);
	TRY(json_parse(json, &map));
	config_field_default(&whole, target);
	enum err e = from_json(rows, map, false, target);
	json_free(map);
	if (e != ERR_OK)
		config_free(rows, target);
	return e;
}

/* The columns of a description line; `key` is indented by its depth. */
struct line {
	char *key, *type; /* owned */
	const struct config_row *row;
};

struct lines {
	struct line *v; /* owned */
	size_t n;
};

static enum err add_lines(const struct config_row *rows, int depth, struct lines *lines)
{
	for (const struct config_row *row = rows; row->key != NULL; row++) {
		struct buf type;
		buf_init(&type, 4096);
		enum err e = config_field_describe(row, &type);
		lines->v = mem_grow(lines->v, lines->n + 1, sizeof *lines->v);
		lines->v[lines->n++] = (struct line){
			mem_printf("%*s%s%s", 2 * depth, "", row->key, row->type == CONFIG_SECTION ? ":" : ""),
			mem_str(buf_str(&type)), row};
		buf_deinit(&type);
		TRY(e);
		if (row->type == CONFIG_SECTION)
			TRY(add_lines(row->rows, depth + 1, lines));
	}
	return ERR_OK;
}

static const char *default_text(const struct config_row *row)
{
	if (row->required)
		return "required";
	if (row->def != NULL)
		return row->def;
	return row->type == CONFIG_SECTION ? "" : "-";
}

static void widen(size_t *width, const char *text)
{
	if (strlen(text) > *width)
		*width = strlen(text);
}

static enum err write_lines(const struct lines *lines, struct buf *out)
{
	size_t key = 0, type = 0, def = 0;
	for (size_t i = 0; i < lines->n; i++) {
		widen(&key, lines->v[i].key);
		widen(&type, lines->v[i].type);
		widen(&def, default_text(lines->v[i].row));
	}
	for (size_t i = 0; i < lines->n; i++) {
		const struct line *line = &lines->v[i];
		TRY(buf_printf(out, "%-*s  %-*s  %-*s  %s", (int)key, line->key, (int)type, line->type, (int)def,
			       default_text(line->row), line->row->help != NULL ? line->row->help : ""));
		while (out->n > 0 && out->p[out->n - 1] == ' ')
			out->n--;
		TRY(buf_append(out, "\n", 1));
	}
	return ERR_OK;
}

enum err config_describe(const struct config_row *rows, struct buf *out)
{
	struct lines lines = {0};
	enum err e = add_lines(rows, 0, &lines);
	if (e == ERR_OK)
		e = write_lines(&lines, out);
	for (size_t i = 0; i < lines.n; i++) {
		free(lines.v[i].key);
		free(lines.v[i].type);
	}
	free(lines.v);
	return e;
}
