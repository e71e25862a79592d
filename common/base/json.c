/*
 * jansson parses and holds the values; the texts are written here, because the canonical form (sorted keys, no spaces,
 * one way to escape, shortest reals) is hashed and must not change with a library's version.
 */
#include <jansson.h>
#undef json_is_null /* a macro of jansson with the name of a function of ours */

#include "base/json.h"
#include "base/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH_MAX = 64 };

/* struct json is never defined: a pointer to it is a json_t pointer in disguise. */
static json_t *as_jansson(struct json *v)
{
	return (json_t *)v;
}

static const json_t *peek(const struct json *v)
{
	return (const json_t *)v;
}

static struct json *as_json(json_t *v)
{
	ENSURE(v != NULL);
	return (struct json *)v;
}

/* A copy of `s` with every byte that is no UTF-8 replaced by "?". */
static char *utf8_copy(const char *s)
{
	char *copy = mem_str(s);
	size_t n = strlen(copy);
	for (size_t i = 0; i < n;) {
		size_t len = text_utf8_next(copy + i, n - i);
		if (len == 0)
			copy[i] = '?';
		i += len > 0 ? len : 1;
	}
	return copy;
}

struct json *json_map(void)
{
	return as_json(json_object());
}

struct json *json_list(void)
{
	return as_json(json_array());
}

struct json *json_str(const char *s)
{
	if (s == NULL)
		return as_json(json_null());
	char *copy = utf8_copy(s);
	struct json *v = as_json(json_string(copy));
	free(copy);
	return v;
}

struct json *json_int(int64_t v)
{
	return as_json(json_integer(v));
}

struct json *json_num(double v)
{
	return as_json(isfinite(v) ? json_real(v) : json_null());
}

struct json *json_bool(bool v)
{
	return as_json(v ? json_true() : json_false());
}

void json_free(struct json *v)
{
	json_decref(as_jansson(v));
}

struct json *json_put(struct json *map, const char *key, struct json *value)
{
	char *copy = utf8_copy(key);
	ENSURE(json_object_set_new(as_jansson(map), copy, as_jansson(value)) == 0);
	free(copy);
	return map;
}

struct json *json_push(struct json *list, struct json *value)
{
	ENSURE(json_array_append_new(as_jansson(list), as_jansson(value)) == 0);
	return list;
}

/* Writing. `level` is the depth of indentation, or -1 for one line with sorted keys. */

static enum err write_value(const json_t *v, int level, struct buf *out);

static enum err write_str(const char *s, size_t n, struct buf *out)
{
	static const char shorts[] = "\b\f\n\r\t\"\\", letters[] = "bfnrt\"\\";
	TRY(buf_append(out, "\"", 1));
	size_t from = 0;
	for (size_t i = 0; i < n; i++) {
		const char *found = s[i] == '\0' ? NULL : strchr(shorts, s[i]);
		if (found == NULL && (unsigned char)s[i] >= 0x20)
			continue;
		TRY(buf_append(out, s + from, i - from));
		from = i + 1;
		if (found != NULL)
			TRY(buf_printf(out, "\\%c", letters[found - shorts]));
		else
			TRY(buf_printf(out, "\\u%04x", (unsigned)(unsigned char)s[i]));
	}
	TRY(buf_append(out, s + from, n - from));
	return buf_append(out, "\"", 1);
}

static enum err write_real(double v, struct buf *out)
{
	char text[TEXT_REAL_SIZE];
	text_real(v, text);
	/* A real stays a real when it is read back. */
	return buf_printf(out, "%s%s", text, strpbrk(text, ".e") == NULL ? ".0" : "");
}

/* What stands before the `index`-th member, or before the closing bracket. */
static enum err write_gap(size_t index, bool closing, int level, struct buf *out)
{
	if (index > 0 && !closing)
		TRY(buf_append(out, ",", 1));
	if (level < 0 || (closing && index == 0))
		return ERR_OK;
	return buf_printf(out, "\n%*s", 2 * (level + !closing), "");
}

static enum err write_list(const json_t *v, int level, struct buf *out)
{
	size_t n = json_array_size(v);
	TRY(buf_append(out, "[", 1));
	for (size_t i = 0; i < n; i++) {
		TRY(write_gap(i, false, level, out));
		TRY(write_value(json_array_get(v, i), level < 0 ? -1 : level + 1, out));
	}
	TRY(write_gap(n, true, level, out));
	return buf_append(out, "]", 1);
}

struct member {
	const char *key;
	const json_t *value;
};

static int member_order(const void *a, const void *b)
{
	return strcmp(((const struct member *)a)->key, ((const struct member *)b)->key);
}

static enum err write_members(const struct member *members, size_t n, int level, struct buf *out)
{
	TRY(buf_append(out, "{", 1));
	for (size_t i = 0; i < n; i++) {
		TRY(write_gap(i, false, level, out));
		TRY(write_str(members[i].key, strlen(members[i].key), out));
		TRY(buf_append(out, ": ", level < 0 ? 1 : 2));
		TRY(write_value(members[i].value, level < 0 ? -1 : level + 1, out));
	}
	TRY(write_gap(n, true, level, out));
	return buf_append(out, "}", 1);
}

/* jansson's iteration does not change the object, but its prototypes do not say so. */
static json_t *unconst(const json_t *v)
{
	union {
		const json_t *in;
		json_t *out;
	} u = {.in = v};
	return u.out;
}

static enum err write_map(const json_t *v, int level, struct buf *out)
{
	size_t n = 0;
	struct member *members = mem_array(json_object_size(v), sizeof *members);
	const char *key;
	json_t *value;
	json_object_foreach(unconst(v), key, value) members[n++] = (struct member){key, value};
	if (level < 0)
		qsort(members, n, sizeof *members, member_order);
	enum err e = write_members(members, n, level, out);
	free(members);
	return e;
}

static enum err write_value(const json_t *v, int level, struct buf *out)
{
	switch (json_typeof(v)) {
	case JSON_OBJECT:
		return write_map(v, level, out);
	case JSON_ARRAY:
		return write_list(v, level, out);
	case JSON_STRING:
		return write_str(json_string_value(v), json_string_length(v), out);
	case JSON_INTEGER:
		return buf_printf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
	case JSON_REAL:
		return write_real(json_real_value(v), out);
	case JSON_TRUE:
		return buf_append(out, "true", 4);
	case JSON_FALSE:
		return buf_append(out, "false", 5);
	case JSON_NULL:
		break;
	}
	return buf_append(out, "null", 4);
}

/* All or nothing: half a text is worse than none. */
static enum err write_whole(const struct json *v, int level, struct buf *out)
{
	size_t before = out->n;
	enum err e = write_value(peek(v), level, out);
	if (e != ERR_OK && out->p != NULL) {
		out->n = before;
		out->p[before] = '\0';
	}
	return e;
}

enum err json_write(const struct json *v, struct buf *out)
{
	return write_whole(v, -1, out);
}

enum err json_write_pretty(const struct json *v, struct buf *out)
{
	return write_whole(v, 0, out);
}

/* jansson's own limit of nesting is far above ours; counting brackets outside strings is exact for everything it
 * accepts. */
static bool is_too_deep(struct bytes text)
{
	size_t depth = 0;
	bool in_string = false;
	for (size_t i = 0; i < text.n; i++) {
		uint8_t c = text.p[i];
		if (in_string) {
			if (c == '\\')
				i++;
			else if (c == '"')
				in_string = false;
		} else if (c == '"') {
			in_string = true;
		} else if (c == '[' || c == '{') {
			if (++depth > DEPTH_MAX)
				return true;
		} else if ((c == ']' || c == '}') && depth > 0) {
			depth--;
		}
	}
	return false;
}

enum err json_parse(struct bytes text, struct json **ret_value)
{
	if (is_too_deep(text))
		return err_set(ERR_MALFORMED, "JSON: nested deeper than %d levels", DEPTH_MAX);
	/* jansson takes a zero byte for the end of the text, and would not see what follows. */
	if (text.n > 0 && memchr(text.p, 0, text.n) != NULL)
		return err_set(ERR_MALFORMED, "JSON: zero byte");
	json_error_t error;
	const char *p = text.n > 0 ? (const char *)text.p : "";
	json_t *v = json_loadb(p, text.n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
	if (v == NULL) {
		/* The message quotes the input: keep it printable. */
		for (char *c = error.text; *c != '\0'; c++) {
			if ((unsigned char)*c < 0x20 || (unsigned char)*c >= 0x7f)
				*c = '?';
		}
		return err_set(ERR_MALFORMED, "JSON: line %d, column %d: %s", error.line, error.column, error.text);
	}
	*ret_value = as_json(v);
	return ERR_OK;
}

const struct json *json_get(const struct json *map, const char *key)
{
	return (const struct json *)json_object_get(peek(map), key);
}

size_t json_count(const struct json *list_or_map)
{
	const json_t *v = peek(list_or_map);
	return json_is_array(v) ? json_array_size(v) : json_object_size(v);
}

const struct json *json_at(const struct json *list, size_t i)
{
	return (const struct json *)json_array_get(peek(list), i);
}

enum err json_each(const struct json *map, json_fn fn, void *arg)
{
	const char *key;
	json_t *value;
	json_object_foreach(unconst(peek(map)), key, value) TRY(fn(arg, key, (const struct json *)value));
	return ERR_OK;
}

bool json_is_map(const struct json *v)
{
	return json_is_object(peek(v));
}

bool json_is_list(const struct json *v)
{
	return json_is_array(peek(v));
}

bool json_is_null(const struct json *v)
{
	return v != NULL && json_typeof(peek(v)) == JSON_NULL;
}

bool json_get_str(const struct json *v, const char **ret_s)
{
	if (!json_is_string(peek(v)))
		return false;
	*ret_s = json_string_value(peek(v));
	return true;
}

bool json_get_int(const struct json *v, int64_t *ret_v)
{
	if (!json_is_integer(peek(v)))
		return false;
	*ret_v = json_integer_value(peek(v));
	return true;
}

bool json_get_num(const struct json *v, double *ret_v)
{
	if (!json_is_number(peek(v)))
		return false;
	*ret_v = json_number_value(peek(v));
	return true;
}

bool json_get_bool(const struct json *v, bool *ret_v)
{
	if (!json_is_boolean(peek(v)))
		return false;
	*ret_v = json_is_true(peek(v));
	return true;
}
