/*
 * JSON values. The door to jansson. Building never fails (out of memory ends the process); parsing has limits.
 */
#ifndef HANSA_BASE_JSON_H
#define HANSA_BASE_JSON_H

#include "base/buf.h"

#include <stdint.h>

struct json; /* a counted reference to a value */

struct json *json_map(void);
struct json *json_list(void);
struct json *json_str(const char *s); /* NULL: null; invalid UTF-8 is replaced by "?" */
struct json *json_int(int64_t v);
struct json *json_num(double v); /* not finite: null */
struct json *json_bool(bool v);
void json_free(struct json *v); /* NULL is fine */

/* Take ownership of `value`; return `map`/`list`, so calls can be chained. */
struct json *json_put(struct json *map, const char *key, struct json *value);
struct json *json_push(struct json *list, struct json *value);

/* Sorted keys, no spaces: canonical as long as only maps, lists, strings and integers are used. */
MUST_CHECK enum err json_write(const struct json *v, struct buf *out);
/* Indented, for people. */
MUST_CHECK enum err json_write_pretty(const struct json *v, struct buf *out);

/* Duplicate keys, trailing bytes and more than 64 levels are ERR_MALFORMED. */
MUST_CHECK enum err json_parse(struct bytes text, struct json **ret_value);

/* Reading: borrowed pointers; NULL or false when the type or key does not fit. */
const struct json *json_get(const struct json *map, const char *key);
size_t json_count(const struct json *list_or_map); /* 0 for anything else */
const struct json *json_at(const struct json *list, size_t i);
typedef enum err (*json_fn)(void *arg, const char *key, const struct json *value);
MUST_CHECK enum err json_each(const struct json *map, json_fn fn, void *arg); /* in the order of the text */
bool json_is_map(const struct json *v);
bool json_is_list(const struct json *v);
bool json_is_null(const struct json *v);
bool json_get_str(const struct json *v, const char **ret_s);
bool json_get_int(const struct json *v, int64_t *ret_v);
bool json_get_num(const struct json *v, double *ret_v); /* integers too */
bool json_get_bool(const struct json *v, bool *ret_v);

#endif
