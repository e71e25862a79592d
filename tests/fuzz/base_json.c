/*
 * JSON text: whatever is accepted must be written to a text that is accepted again and written the same.
 */
#include "base/json.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum err visit(void *arg, const char *key, const struct json *value)
{
	ENSURE(json_get(arg, key) == value);
	return ERR_OK;
}

static void *unconst(const struct json *v)
{
	union {
		const struct json *in;
		void *out;
	} u = {.in = v};
	return u.out;
}

static void walk(const struct json *v, unsigned level)
{
	const char *s = NULL;
	int64_t n = 0;
	double d = 0;
	bool b = false;
	ENSURE(level <= 65);
	ENSURE(json_is_map(v) + json_is_list(v) + json_is_null(v) + json_get_str(v, &s) + json_get_num(v, &d) +
		       json_get_bool(v, &b) ==
	       1);
	ENSURE(!json_get_int(v, &n) || json_get_num(v, &d));
	ENSURE(!json_is_map(v) || json_each(v, visit, unconst(v)) == ERR_OK);
	for (size_t i = 0; json_is_list(v) && i < json_count(v); i++)
		walk(json_at(v, i), level + 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct json *v, *back, *pretty_back;
	if (json_parse(bytes_of(data, size), &v) != ERR_OK)
		return 0;
	struct buf text, again, pretty;
	buf_init(&text, 8 << 20);
	buf_init(&again, 8 << 20);
	buf_init(&pretty, 32 << 20);
	walk(v, 1);
	ENSURE(json_write(v, &text) == ERR_OK);
	ENSURE(json_parse(buf_bytes(&text), &back) == ERR_OK);
	ENSURE(json_write(back, &again) == ERR_OK);
	ENSURE(text.n == again.n && memcmp(text.p, again.p, text.n) == 0);
	ENSURE(json_write_pretty(v, &pretty) == ERR_OK);
	ENSURE(json_parse(buf_bytes(&pretty), &pretty_back) == ERR_OK);
	buf_reset(&again);
	ENSURE(json_write(pretty_back, &again) == ERR_OK);
	ENSURE(text.n == again.n && memcmp(text.p, again.p, text.n) == 0);
	json_free(v);
	json_free(back);
	json_free(pretty_back);
	buf_deinit(&text);
	buf_deinit(&again);
	buf_deinit(&pretty);
	return 0;
}
