/*
 * One field of a configuration struct: from YAML text, to and from canonical JSON. For config.c and config_canonical.c
 * only. Errors say what is wrong with the value; the caller adds where it stands.
 */
#ifndef HANSA_BASE_CONFIG_FIELD_H
#define HANSA_BASE_CONFIG_FIELD_H

#include "base/config.h"
#include "base/json.h"

/* Where the field of `row` lies in the struct `target`. */
void *config_field(const struct config_row *row, void *target);
const void *config_field_const(const struct config_row *row, const void *target);

/* Any type but SECTION. A failed call leaves the field as it was; a successful one frees what was there. */
MUST_CHECK enum err config_field_read(const struct config_row *row, const struct yaml_node *node, void *field);
MUST_CHECK enum err config_field_from_json(const struct config_row *row, const struct json *value, void *field);
/* *ret_value is NULL for a string that is NULL. */
MUST_CHECK enum err config_field_to_json(const struct config_row *row, const void *field, struct json **ret_value);

void config_field_zero(const struct config_row *row, void *field);    /* any type; does not free */
void config_field_default(const struct config_row *row, void *field); /* any type; the field is zero before */
void config_field_free(const struct config_row *row, void *field);    /* any type; zeroes it too */

/* "integer 1 to 10000", "one of fedavg, fedadam", ... */
MUST_CHECK enum err config_field_describe(const struct config_row *row, struct buf *out);

/* Nothing, ~ and null stand for "no value". */
bool config_is_null(const struct yaml_node *node);

#endif
