#include "base/config.h"

#include "base/config_field.h"
#include "base/text.h"

#include <string.h>

enum { KNOWN_TEXT_MAX = 200 };

static const struct config_row *row_of(const struct config_row *rows, const char *key)
{
	for (; rows->key != NULL; rows++) {
		if (strcmp(rows->key, key) == 0)
			return rows;
	}
	return NULL;
}

static enum err unknown_key(const struct config_row *rows, const struct yaml_node *map, size_t i)
{
	const char *key = map->keys[i];
	struct text_guess guess = {.word = key};
	struct buf known;
	buf_init(&known, KNOWN_TEXT_MAX);
	for (const struct config_row *r = rows; r->key != NULL; r++) {
		text_guess_offer(&guess, r->key);
		if (buf_printf(&known, "%s%s", r == rows ? "" : ", ", r->key) != ERR_OK)
			break;
	}
	if (guess.best != NULL)
		err_set(ERR_CONFIG, "%s:%u: unknown key '%.60s' (did you mean '%s'?)", map->file, map->key_lines[i],
			key, guess.best);
	else
		err_set(ERR_CONFIG, "%s:%u: unknown key '%.60s' (known: %s)", map->file, map->key_lines[i], key,
			buf_str(&known));
	buf_deinit(&known);
	return ERR_CONFIG;
}

static enum err read_map(const struct config_row *rows, const struct yaml_node *map, void *target);

static enum err read_section(const struct config_row *row, const struct yaml_node *node, void *field)
{
	/* "privacy:" with every line below it commented out. */
	static const struct yaml_node *const none[1];
	struct yaml_node empty = {.kind = YAML_MAP, .line = node->line, .file = node->file, .items = none};
	if (config_is_null(node))
		node = &empty;
	if (node->kind == YAML_MAP)
		return read_map(row->rows, node, field);
	return err_set(ERR_CONFIG, "%s:%u: %s: expected a map of keys", node->file, node->line, row->key);
}

static enum err read_map(const struct config_row *rows, const struct yaml_node *map, void *target)
{
	for (size_t i = 0; i < map->n; i++) {
		const struct config_row *row = row_of(rows, map->keys[i]);
		if (row == NULL)
			return unknown_key(rows, map, i);
		void *field = config_field(row, target);
		if (row->type == CONFIG_SECTION) {
			TRY(read_section(row, map->items[i], field));
			continue;
		}
		enum err e = config_field_read(row, map->items[i], field);
		if (e != ERR_OK)
			return err_add(e, "%s:%u: %s", map->file, map->key_lines[i], row->key);
	}
	for (const struct config_row *row = rows; row->key != NULL; row++) {
		if (row->required && yaml_get(map, row->key) == NULL)
			return err_set(ERR_CONFIG, "%s:%u: %s: is required and missing (%s)", map->file, map->line,
				       row->key, row->help != NULL ? row->help : "no default");
	}
	return ERR_OK;
}

enum err config_read(const struct config_row *rows, const struct yaml_node *map, void *target)
{
	const struct config_row whole = {.key = "", .type = CONFIG_SECTION, .rows = rows};
	config_field_zero(&whole, target);
	if (map != NULL && map->kind != YAML_MAP)
		return err_set(ERR_CONFIG, "%s:%u: expected a map of keys", map->file, map->line);
	config_field_default(&whole, target);
	enum err e = map != NULL ? read_map(rows, map, target) : ERR_OK;
	if (e != ERR_OK)
		config_free(rows, target);
	return e;
}

enum err config_load(const struct config_row *rows, const char *path, void *target)
{
	struct yaml *yaml;
	const struct config_row whole = {.key = "", .type = CONFIG_SECTION, .rows = rows};
	config_field_zero(&whole, target);
	TRY(yaml_load(path, &yaml));
	enum err e = config_read(rows, yaml_root(yaml), target);
	yaml_free(yaml);
	return e;
}

void config_free(const struct config_row *rows, void *target)
{
	for (; rows->key != NULL; rows++)
		config_field_free(rows, config_field(rows, target));
}
