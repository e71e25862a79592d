/*
 * Configuration by table: one row per key says its type, place in a struct, default, bounds and meaning. The same rows
 *read a YAML map, print the documentation of the keys, and write the canonical form that is hashed.
 *
 *	struct train { int64_t epochs; double lr; char *model; };
 *	static const struct config_row train_rows[] = {
 *		{"epochs", CONFIG_INT, offsetof(struct train, epochs), .def = "1", .min = 1, .max = 10000, .help =
 *"local epochs a round"},
 *		{"lr", CONFIG_REAL, offsetof(struct train, lr), .def = "0.01", .min = 0, .max = 10, .help = "learning
 *rate"},
 *		{"model", CONFIG_STRING, offsetof(struct train, model), .required = true, .help = "model description
 *(YAML)"}, {0},
 *	};
 *
 * Errors are ERR_CONFIG with "file:line: key: what is wrong and what would be right".
 */
#ifndef HANSA_BASE_CONFIG_H
#define HANSA_BASE_CONFIG_H

#include "base/buf.h"
#include "base/yaml.h"

#include <stdint.h>

enum config_type {
	CONFIG_INT,     /* int64_t; min..max */
	CONFIG_REAL,    /* double; min..max, finite */
	CONFIG_BOOL,    /* bool; true/false */
	CONFIG_STRING,  /* char *, owned; NULL when absent and without default; at most 4096 bytes */
	CONFIG_ENUM,    /* int; index into `names` */
	CONFIG_SECONDS, /* int64_t milliseconds; "500ms", "90s", "10m", "2h", "7d"; min..max in seconds */
	CONFIG_LIST,    /* struct config_list of strings, owned */
	CONFIG_SECTION, /* nested struct at offset; its rows in `rows` */
};

struct config_list {
	char **v; /* owned */
	size_t n;
};

struct config_row {
	const char *key; /* NULL ends the table */
	enum config_type type;
	size_t offset;
	const char *def;               /* default as YAML text; NULL: zero / NULL / empty */
	double min, max;               /* INT, REAL, SECONDS (both 0: no bounds); LIST: number of items (max 0: 1024) */
	const char *const *names;      /* ENUM: NULL-terminated */
	const struct config_row *rows; /* SECTION */
	bool required;                 /* below a section: only when the section is given */
	/* Younger than stored canonical texts: stands in one only when it is not at its default, so that the texts of
	 * older releases stay canonical, and older releases can read those that do not use it. Not for sections. */
	bool young;
	const char *help; /* one line */
};

/*
 * Zero the fields that `rows` name, set defaults, then read `map` (NULL: defaults only, nothing is required). On
 * failure nothing stays allocated. A default outside its own bounds ends the process. A key without a value ("key:",
 * "~", "null") is an error, but for sections and lists it means an empty one.
 */
MUST_CHECK enum err config_read(const struct config_row *rows, const struct yaml_node *map, void *target);
MUST_CHECK enum err config_load(const struct config_row *rows, const char *path, void *target);
void config_free(const struct config_row *rows, void *target);

/*
 * Canonical JSON of every key (but `young` ones at their default), sorted: integers and strings only (reals as shortest round-trip text, bools as 0 and 1,
 * enums by name, times in milliseconds, NULL strings left out). For hashing and showing. ERR_NUMERIC: a real that is
 * not finite; ERR_CONFIG: a text that is not UTF-8.
 */
MUST_CHECK enum err config_canonical(const struct config_row *rows, const void *target, struct buf *out);
/*
 * Read back what config_canonical() wrote; ERR_MALFORMED for anything that is not in bounds or not in the table. Keys
 * that are missing have their defaults: they did not exist in the release that wrote it. Zero of a row without a
 * default means "not set".
 */
MUST_CHECK enum err config_from_canonical(const struct config_row *rows, struct bytes json, void *target);

/* "key  type  default  help" lines for --help texts and man pages. */
MUST_CHECK enum err config_describe(const struct config_row *rows, struct buf *out);

#endif
