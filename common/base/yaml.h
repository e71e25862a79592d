/*
 * YAML as a tree with line numbers. The door to libyaml. Anchors, aliases, tags and several documents are refused, as
 * are duplicate keys, more than 16 levels, more than 20 000 nodes and files over 1 MiB: ERR_CONFIG "file:line: what".
 */
#ifndef HANSA_BASE_YAML_H
#define HANSA_BASE_YAML_H

#include "base/err.h"
#include "base/mem.h"

enum yaml_kind { YAML_SCALAR, YAML_LIST, YAML_MAP };

struct yaml_node {
	enum yaml_kind kind;
	unsigned line;                        /* 1-based */
	const char *file;                     /* borrowed from the tree */
	const char *text;                     /* scalar: its text, zero-terminated, without embedded zeros */
	bool quoted;                          /* scalar: was in quotes, so it is a string whatever it looks like */
	size_t n;                             /* list, map: number of items */
	const char *const *keys;              /* map: n keys */
	const unsigned *key_lines;            /* map: their lines */
	const struct yaml_node *const *items; /* list, map: n values */
};

struct yaml; /* owns every node */

/* libyaml exports a function of this name, and must go on calling its own. */
#define yaml_free yaml_tree_free

MUST_CHECK enum err yaml_load(const char *path, struct yaml **ret_yaml);
/* `name` stands for the file in messages. */
MUST_CHECK enum err yaml_parse(const char *name, struct bytes text, struct yaml **ret_yaml);
const struct yaml_node *yaml_root(const struct yaml *y); /* an empty map when the file holds no value */
void yaml_free(struct yaml *y);                          /* NULL is fine */

/* The value of `key` in a map; NULL when absent. */
const struct yaml_node *yaml_get(const struct yaml_node *map, const char *key);

#endif
