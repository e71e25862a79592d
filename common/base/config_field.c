#include "base/config_field.h"

#include "base/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STRING_MAX = 4096, ITEMS_MAX = 1024 };

/* Functions of one type; every type is one row of `types` below. `text` of a scalar is never NULL. */
struct type {
	size_t size;
	enum err (*from_text)(const struct config_row *row, const char *text, bool quoted, void *field);
	enum err (*from_json)(const struct config_row *row, const struct json *value, void *field);
	enum err (*to_json)(const struct config_row *row, const void *field, struct json **ret_value);
};

/* What an error says was expected. */
static const char *const nouns[] = {
	[CONFIG_INT] = "a whole number", [CONFIG_REAL] = "a number",
	[CONFIG_BOOL] = "true or false", [CONFIG_STRING] = "a text",
	[CONFIG_ENUM] = "a name",        [CONFIG_SECONDS] = "a time such as 500ms, 90s, 10m or 2h",
	[CONFIG_LIST] = "a list",        [CONFIG_SECTION] = "a map",
};

static enum err wrong_type(const struct config_row *row, const char *found)
{
	return err_set(ERR_CONFIG, "expected %s, found %.60s", nouns[row->type], found);
}

static enum err wrong_text(const struct config_row *row, const char *text, bool quoted)
{
	return err_set(ERR_CONFIG, quoted ? "expected %s, found the text \"%.60s\"" : "expected %s, found '%.60s'",
		       nouns[row->type], text);
}

static bool is_bounded(const struct config_row *row)
{
	ENSURE(row->min <= row->max);
	return row->min != 0 || row->max != 0;
}

static enum err check_range(const struct config_row *row, double v, const char *text, const char *unit)
{
	if (!is_bounded(row) || (v >= row->min && v <= row->max))
		return ERR_OK;
	char low[TEXT_REAL_SIZE], high[TEXT_REAL_SIZE];
	return err_set(ERR_CONFIG, "%.60s is out of range (%s%s to %s%s)", text, text_real(row->min, low), unit,
		       text_real(row->max, high), unit);
}

/* INT */

static enum err set_int(const struct config_row *row, int64_t v, void *field)
{
	char text[TEXT_REAL_SIZE];
	TRY(check_range(row, (double)v, text_real((double)v, text), ""));
	*(int64_t *)field = v;
	return ERR_OK;
}

static enum err int_from_text(const struct config_row *row, const char *text, bool quoted, void *field)
{
	int64_t v;
	if (quoted || !text_to_int(text, &v))
		return wrong_text(row, text, quoted);
	return set_int(row, v, field);
}

static enum err int_from_json(const struct config_row *row, const struct json *value, void *field)
{
	int64_t v;
	return json_get_int(value, &v) ? set_int(row, v, field) : wrong_type(row, "another type");
}

static enum err int_to_json(const struct config_row *row, const void *field, struct json **ret_value)
{
	(void)row;
	*ret_value = json_int(*(const int64_t *)field);
	return ERR_OK;
}

/* REAL */

static enum err real_from_text(const struct config_row *row, const char *text, bool quoted, void *field)
{
	double v;
	if (quoted || !text_to_real(text, &v))
		return wrong_text(row, text, quoted);
	TRY(check_range(row, v, text, ""));
	*(double *)field = v;
	return ERR_OK;
}

static enum err real_from_json(const struct config_row *row, const struct json *value, void *field)
{
	const char *text;
	return json_get_str(value, &text) ? real_from_text(row, text, false, field) : wrong_type(row, "another type");
}

static enum err real_to_json(const struct config_row *row, const void *field, struct json **ret_value)
{
	char text[TEXT_REAL_SIZE];
	double v = *(const double *)field;
	if (!isfinite(v))
		return err_set(ERR_NUMERIC, "%s: is not a finite number", row->key);
	*ret_value = json_str(text_real(v, text));
	return ERR_OK;
}

/* BOOL */

static enum err bool_from_text(const struct config_row *row, const char *text, bool quoted, void *field)
{
	bool yes = strcmp(text, "true") == 0;
	if (quoted || (!yes && strcmp(text, "false") != 0))
		return wrong_text(row, text, quoted);
	*(bool *)field = yes;
	return ERR_OK;
}

static enum err bool_from_json(const struct config_row *row, const struct json *value, void *field)
{
	int64_t v;
	if (!json_get_int(value, &v) || (v != 0 && v != 1))
		return wrong_type(row, "something else than 0 or 1");
	*(bool *)field = v == 1;
	return ERR_OK;
}

static enum err bool_to_json(const struct config_row *row, const void *field, struct json **ret_value)
{
	(void)row;
	*ret_value = json_int(*(const bool *)field);
	return ERR_OK;
}

/* STRING */

static enum err check_string(const char *text)
{
	return strlen(text) <= STRING_MAX ? ERR_OK : err_set(ERR_CONFIG, "longer than %d bytes", STRING_MAX);
}

static enum err string_from_text(const struct config_row *row, const char *text, bool quoted, void *field)
{
	(void)row;
	(void)quoted;
	TRY(check_string(text));
	char **s = field;
	free(*s);
	*s = mem_str(text);
	return ERR_OK;
}

static enum err string_from_json(const struct config_row *row, const struct json *value, void *field)
{
	const char *text;
	return json_get_str(value, &text) ? string_from_text(row, text, true, field) : wrong_type(row, "another type");
}

static enum err string_to_json(const struct config_row *row, const void *field, struct json **ret_value)
{
	const char *s = *(char *const *)field;
	if (s != NULL && !text_is_utf8(s, strlen(s)))
		return err_set(ERR_CONFIG, "%s: is not UTF-8 text", row->key);
	*ret_value = s != NULL ? json_str(s) : NULL;
	return ERR_OK;
}

/* ENUM */

static enum err wrong_name(const struct config_row *row, const char *text)
{
	struct text_guess guess = {.word = text};
	struct buf names;
	buf_init(&names, 256);
	for (size_t i = 0; row->names[i] != NULL; i++) {
		text_guess_offer(&guess, row->names[i]);
		if (buf_printf(&names, "%s%s", i > 0 ? ", " : "", row->names[i]) != ERR_OK)
			break; /* enough to see what is meant */
	}
	if (guess.best != NULL)
		err_set(ERR_CONFIG, "'%.60s' is not one of %s (did you mean '%s'?)", text, buf_str(&names), guess.best);
	else
		err_set(ERR_CONFIG, "'%.60s' is not one of %s", text, buf_str(&names));
	buf_deinit(&names);
	return ERR_CONFIG;
}

static enum err enum_from_text(const struct config_row *row, const char *text, bool quoted, void *field)
{
	(void)quoted;
	for (int i = 0; row->names[i] != NULL; i++) {
		if (strcmp(row->names[i], text) == 0) {
			*(int *)field = i;
			return ERR_OK;
		}
	}
	return wrong_name(row, text);
}

static enum err enum_from_json(const struct config_row *row, const struct json *value, void *field)
{
	const char *text;
	return json_get_str(value, &text) ? enum_from_text(row, text, true, field) : wrong_type(row, "another type");
}

static enum err enum_to_json(const struct config_row *row, const void *field, struct json **ret_value)
{
	int v = *(const int *)field, count = 0;
	while (row->names[count] != NULL)
		count++;
	ENSURE(v >= 0 && v < count);
	*ret_value = json_str(row->names[v]);
	return ERR_OK;
}

/* SECONDS */

static const struct {
	const char *name;
	int64_t ms;
} units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};

static enum err set_ms(const struct config_row *row, int64_t ms, const char *text, void *field)
{
	if (ms < 0)
		return err_set(ERR_CONFIG, "%.60s is negative", text);
	TRY(check_range(row, (double)ms / 1000, text, "s"));
	*(int64_t *)field = ms;
	return ERR_OK;
}

static enum err seconds_from_text(const struct config_row *row, const char *text, bool quoted, void *field)
{
	char digits[24];
	size_t n = strspn(text, "0123456789");
	int64_t count, ms;
	if (quoted || n == 0 || n >= sizeof digits)
		return wrong_text(row, text, quoted);
	memcpy(digits, text, n);
	digits[n] = '\0';
	for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
		if (strcmp(text + n, units[i].name) != 0)
			continue;
		if (!text_to_int(digits, &count) || __builtin_mul_overflow(count, units[i].ms, &ms))
			return err_set(ERR_CONFIG, "%.60s is out of range", text);
		return set_ms(row, ms, text, field);
	}
	return wrong_text(row, text, quoted);
}

static enum err seconds_from_json(const struct config_row *row, const struct json *value, void *field)
{
	int64_t ms;
	if (!json_get_int(value, &ms))
		return wrong_type(row, "another type");
	char text[40];
	snprintf(text, sizeof text, "%lldms", (long long)ms);
	return set_ms(row, ms, text, field);
}

/* LIST */

static void list_free(struct config_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		free(list->v[i]);
	free(list->v);
	*list = (struct config_list){0};
}

static size_t items_min(const struct config_row *row)
{
	return row->min > 0 ? (size_t)row->min : 0;
}

static size_t items_max(const struct config_row *row)
{
	return row->max > 0 ? (size_t)row->max : ITEMS_MAX;
}

static enum err check_count(const struct config_row *row, size_t n)
{
	if (n >= items_min(row) && n <= items_max(row))
		return ERR_OK;
	return err_set(ERR_CONFIG, "%zu items; allowed are %zu to %zu", n, items_min(row), items_max(row));
}

/* Texts are collected one by one; all or nothing. */
static enum err list_add(struct config_list *list, const char *text)
{
	TRY(check_string(text));
	list->v[list->n++] = mem_str(text);
	return ERR_OK;
}

static enum err list_take(struct config_list *made, enum err e, void *field)
{
	if (e != ERR_OK) {
		list_free(made);
		return e;
	}
	list_free(field);
	*(struct config_list *)field = *made;
	return ERR_OK;
}

static enum err list_from_yaml(const struct config_row *row, const struct yaml_node *node, void *field)
{
	bool single = node->kind == YAML_SCALAR;
	size_t n = single ? !config_is_null(node) : node->n;
	TRY(check_count(row, n));
	struct config_list made = {.v = mem_array(n, sizeof *made.v)};
	enum err e = ERR_OK;
	for (size_t i = 0; i < n && e == ERR_OK; i++) {
		const struct yaml_node *item = single ? node : node->items[i];
		if (item->kind != YAML_SCALAR || config_is_null(item))
			e = err_set(ERR_CONFIG, "item %zu is not a text", i + 1);
		else
			e = list_add(&made, item->text);
	}
	return list_take(&made, e, field);
}

static enum err list_from_json(const struct config_row *row, const struct json *value, void *field)
{
	if (!json_is_list(value))
		return wrong_type(row, "another type");
	size_t n = json_count(value);
	TRY(check_count(row, n));
	struct config_list made = {.v = mem_array(n, sizeof *made.v)};
	enum err e = ERR_OK;
	for (size_t i = 0; i < n && e == ERR_OK; i++) {
		const char *text;
		e = json_get_str(json_at(value, i), &text) ? list_add(&made, text)
							   : err_set(ERR_CONFIG, "item %zu is not a text", i + 1);
	}
	return list_take(&made, e, field);
}

static enum err list_to_json(const struct config_row *row, const void *field, struct json **ret_value)
{
	const struct config_list *list = field;
	struct json *value = json_list();
	for (size_t i = 0; i < list->n; i++) {
		if (!text_is_utf8(list->v[i], strlen(list->v[i]))) {
			json_free(value);
			return err_set(ERR_CONFIG, "%s: item %zu is not UTF-8 text", row->key, i + 1);
		}
		json_push(value, json_str(list->v[i]));
	}
	*ret_value = value;
	return ERR_OK;
}

static const struct type types[] = {
	[CONFIG_INT] = {sizeof(int64_t), int_from_text, int_from_json, int_to_json},
	[CONFIG_REAL] = {sizeof(double), real_from_text, real_from_json, real_to_json},
	[CONFIG_BOOL] = {sizeof(bool), bool_from_text, bool_from_json, bool_to_json},
	[CONFIG_STRING] = {sizeof(char *), string_from_text, string_from_json, string_to_json},
	[CONFIG_ENUM] = {sizeof(int), enum_from_text, enum_from_json, enum_to_json},
	[CONFIG_SECONDS] = {sizeof(int64_t), seconds_from_text, seconds_from_json, int_to_json},
	[CONFIG_LIST] = {sizeof(struct config_list), NULL, list_from_json, list_to_json},
	[CONFIG_SECTION] = {0, NULL, NULL, NULL},
};

void *config_field(const struct config_row *row, void *target)
{
	return (char *)target + row->offset;
}

const void *config_field_const(const struct config_row *row, const void *target)
{
	return (const char *)target + row->offset;
}

bool config_is_null(const struct yaml_node *node)
{
	return node->kind == YAML_SCALAR && !node->quoted &&
	       (node->text[0] == '\0' || strcmp(node->text, "~") == 0 || strcmp(node->text, "null") == 0);
}

enum err config_field_read(const struct config_row *row, const struct yaml_node *node, void *field)
{
	if (row->type == CONFIG_LIST && node->kind != YAML_MAP)
		return list_from_yaml(row, node, field);
	if (node->kind != YAML_SCALAR)
		return wrong_type(row, node->kind == YAML_LIST ? "a list" : "a map");
	if (config_is_null(node))
		return err_set(ERR_CONFIG, "has no value; expected %s, or leave the key out", nouns[row->type]);
	return types[row->type].from_text(row, node->text, node->quoted, field);
}

enum err config_field_from_json(const struct config_row *row, const struct json *value, void *field)
{
	return types[row->type].from_json(row, value, field);
}

enum err config_field_to_json(const struct config_row *row, const void *field, struct json **ret_value)
{
	return types[row->type].to_json(row, field, ret_value);
}

void config_field_zero(const struct config_row *row, void *field)
{
	if (row->type != CONFIG_SECTION) {
		memset(field, 0, types[row->type].size);
		return;
	}
	for (const struct config_row *r = row->rows; r->key != NULL; r++)
		config_field_zero(r, config_field(r, field));
}

void config_field_free(const struct config_row *row, void *field)
{
	if (row->type == CONFIG_SECTION)
		config_free(row->rows, field);
	else if (row->type == CONFIG_STRING)
		free(*(char **)field);
	else if (row->type == CONFIG_LIST)
		list_free(field);
	config_field_zero(row, field);
}

static enum err read_default(const struct config_row *row, void *field)
{
	if (row->type != CONFIG_LIST)
		return types[row->type].from_text(row, row->def, row->type == CONFIG_STRING, field);
	struct yaml *yaml;
	TRY(yaml_parse("default", bytes_str(row->def), &yaml));
	enum err e = config_field_read(row, yaml_root(yaml), field);
	yaml_free(yaml);
	return e;
}

void config_field_default(const struct config_row *row, void *field)
{
	if (row->type == CONFIG_SECTION) {
		for (const struct config_row *r = row->rows; r->key != NULL; r++)
			config_field_default(r, config_field(r, field));
		return;
	}
	if (row->def == NULL || read_default(row, field) == ERR_OK)
		return;
	err_add(ERR_INTERNAL, "default of the configuration key '%s'", row->key);
	err_die(__FILE__, __LINE__, err_text());
}

enum err config_field_describe(const struct config_row *row, struct buf *out)
{
	static const char *const words[] = {
		[CONFIG_INT] = "integer", [CONFIG_REAL] = "number", [CONFIG_BOOL] = "true or false",
		[CONFIG_STRING] = "text", [CONFIG_ENUM] = "",       [CONFIG_SECONDS] = "time",
		[CONFIG_LIST] = "list",   [CONFIG_SECTION] = "",
	};
	char low[TEXT_REAL_SIZE], high[TEXT_REAL_SIZE];
	TRY(buf_printf(out, "%s", words[row->type]));
	if (row->type == CONFIG_ENUM) {
		for (size_t i = 0; row->names[i] != NULL; i++)
			TRY(buf_printf(out, "%s%s", i > 0 ? ", " : "", row->names[i]));
		return ERR_OK;
	}
	if (row->type == CONFIG_LIST)
		return buf_printf(out, " of %zu to %zu", items_min(row), items_max(row));
	bool numeric = row->type == CONFIG_INT || row->type == CONFIG_REAL || row->type == CONFIG_SECONDS;
	if (!numeric || !is_bounded(row))
		return ERR_OK;
	const char *unit = row->type == CONFIG_SECONDS ? "s" : "";
	return buf_printf(out, " %s%s to %s%s", text_real(row->min, low), unit, text_real(row->max, high), unit);
}
