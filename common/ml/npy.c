/*
 * NumPy files. The header is the text of a Python dict with three keys; this parser takes those three, once each, in
 * any order, and nothing else: no expressions, no escapes, no further keys. The size of the file must be what the
 * header says, to the byte. Values that are not finite are refused here, where the place in the file is still known.
 */
#include "ml/npy.h"

#include "base/buf.h"
#include "base/file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "values are copied as they lie in the file: this needs a little-endian machine"
#endif

enum { NPY_HEADER_MAX = 1 << 16, NPY_ALIGN = 64, NPY_DIMS_MAX = 2, NPY_TEXT_MAX = 31 };
#define NPY_FILE_MAX ((size_t)1 << 30)

static const uint8_t npy_magic[6] = {0x93, 'N', 'U', 'M', 'P', 'Y'};

#define CONVERT(name, type)                                                                                            \
	static void name(const uint8_t *p, size_t n, float *out)                                                       \
	{                                                                                                              \
		for (size_t i = 0; i < n; i++) {                                                                       \
			type v;                                                                                        \
			memcpy(&v, p + i * sizeof v, sizeof v);                                                        \
			out[i] = (float)v;                                                                             \
		}                                                                                                      \
	}
CONVERT(from_f4, float)
CONVERT(from_f8, double)
CONVERT(from_i2, int16_t)
CONVERT(from_i4, int32_t)
CONVERT(from_u1, uint8_t)

static const struct npy_type {
	const char *descr;
	size_t size;
	void (*convert)(const uint8_t *p, size_t n, float *out);
} npy_types[] = {
	{"<f4", 4, from_f4}, {"<f8", 8, from_f8}, {"<i2", 2, from_i2},
	{"<i4", 4, from_i4}, {"|u1", 1, from_u1}, {"<u1", 1, from_u1},
};

/* Reads the header's text; every function fails at the first character that does not fit. */
struct cursor {
	const char *name;
	const uint8_t *p;
	size_t n, at;
};

struct header {
	char descr[NPY_TEXT_MAX + 1];
	bool fortran;
	unsigned dims;
	size_t d[NPY_DIMS_MAX];
	bool has_descr, has_fortran, has_shape;
};

static void blanks(struct cursor *c)
{
	while (c->at < c->n && (c->p[c->at] == ' ' || c->p[c->at] == '\n'))
		c->at++;
}

static bool accept(struct cursor *c, char want)
{
	blanks(c);
	if (c->at == c->n || c->p[c->at] != (uint8_t)want)
		return false;
	c->at++;
	return true;
}

static enum err expect(struct cursor *c, char want)
{
	if (!accept(c, want))
		return err_set(ERR_MALFORMED, "%s: .npy header: expected '%c' at character %zu", c->name, want, c->at);
	return ERR_OK;
}

static enum err word(struct cursor *c, char out[NPY_TEXT_MAX + 1])
{
	blanks(c);
	if (c->at == c->n || (c->p[c->at] != '\'' && c->p[c->at] != '"'))
		return err_set(ERR_MALFORMED, "%s: .npy header: expected a quoted word at character %zu", c->name,
			       c->at);
	uint8_t quote = c->p[c->at++];
	size_t n = 0;
	while (c->at < c->n && c->p[c->at] != quote) {
		uint8_t ch = c->p[c->at++];
		if (n == NPY_TEXT_MAX || ch < ' ' || ch > '~' || ch == '\\')
			return err_set(ERR_MALFORMED, "%s: .npy header: bad word before character %zu", c->name, c->at);
		out[n++] = (char)ch;
	}
	if (c->at == c->n)
		return err_set(ERR_MALFORMED, "%s: .npy header: a word has no closing quote", c->name);
	c->at++;
	out[n] = 0;
	return ERR_OK;
}

static enum err read_descr(struct cursor *c, struct header *h)
{
	blanks(c);
	if (c->at < c->n && c->p[c->at] == '[')
		return err_set(ERR_MALFORMED, "%s: holds records with fields; save each field as an array of its own",
			       c->name);
	return word(c, h->descr);
}

static enum err read_fortran(struct cursor *c, struct header *h)
{
	static const char *const words[] = {"False", "True"};
	blanks(c);
	for (int i = 0; i < 2; i++) {
		size_t len = strlen(words[i]);
		if (c->n - c->at >= len && memcmp(c->p + c->at, words[i], len) == 0) {
			c->at += len;
			h->fortran = i == 1;
			return ERR_OK;
		}
	}
	return err_set(ERR_MALFORMED, "%s: .npy header: fortran_order is neither True nor False", c->name);
}

static enum err read_shape(struct cursor *c, struct header *h)
{
	TRY(expect(c, '('));
	bool comma = true;
	while (!accept(c, ')')) {
		size_t start = c->at, v = 0;
		while (c->at < c->n && c->p[c->at] >= '0' && c->p[c->at] <= '9') {
			v = v * 10 + (size_t)(c->p[c->at++] - '0');
			if (v > NPY_FILE_MAX)
				return err_set(ERR_MALFORMED, "%s: the shape is larger than any file that is read",
					       c->name);
		}
		if (c->at == start || !comma)
			return err_set(ERR_MALFORMED, "%s: .npy header: bad shape at character %zu", c->name, start);
		if (h->dims < NPY_DIMS_MAX)
			h->d[h->dims] = v;
		if (++h->dims > SHAPE_DIMS_MAX * 8)
			break;
		comma = accept(c, ',');
	}
	/* A tuple of one needs its comma: "(5)" is not a shape. */
	if (h->dims == 1 && !comma)
		return err_set(ERR_MALFORMED, "%s: .npy header: the shape is a number, not a tuple", c->name);
	if (h->dims == 0 || h->dims > NPY_DIMS_MAX)
		return err_set(ERR_MALFORMED, "%s: has %u dimensions; arrays with one or two are read", c->name,
			       h->dims);
	return ERR_OK;
}

static enum err read_header(struct cursor *c, struct header *h)
{
	const struct {
		const char *key;
		bool *seen;
		enum err (*read)(struct cursor *c, struct header *h);
	} keys[] = {
		{"descr", &h->has_descr, read_descr},
		{"fortran_order", &h->has_fortran, read_fortran},
		{"shape", &h->has_shape, read_shape},
	};
	TRY(expect(c, '{'));
	bool comma = true;
	while (!accept(c, '}')) {
		char key[NPY_TEXT_MAX + 1];
		if (!comma)
			return err_set(ERR_MALFORMED, "%s: .npy header: expected ',' at character %zu", c->name, c->at);
		TRY(word(c, key));
		TRY(expect(c, ':'));
		size_t i = 0;
		while (i < sizeof keys / sizeof *keys && strcmp(key, keys[i].key) != 0)
			i++;
		if (i == sizeof keys / sizeof *keys)
			return err_set(ERR_MALFORMED, "%s: .npy header: unknown key '%s'", c->name, key);
		if (*keys[i].seen)
			return err_set(ERR_MALFORMED, "%s: .npy header: '%s' stands twice", c->name, key);
		*keys[i].seen = true;
		TRY(keys[i].read(c, h));
		comma = accept(c, ',');
	}
	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
		if (!*keys[i].seen)
			return err_set(ERR_MALFORMED, "%s: .npy header: '%s' is missing", c->name, keys[i].key);
	blanks(c);
	if (c->at != c->n)
		return err_set(ERR_MALFORMED, "%s: .npy header: text after the closing brace", c->name);
	return ERR_OK;
}

/* Where the header's text lies and where the values begin. */
static enum err find_header(const char *name, struct bytes content, struct cursor *ret_c)
{
	if (content.n > NPY_FILE_MAX)
		return err_set(ERR_LIMIT, "%s: %zu bytes; .npy files are read up to %zu", name, content.n,
			       NPY_FILE_MAX);
	if (content.n < 10 || memcmp(content.p, npy_magic, sizeof npy_magic) != 0)
		return err_set(ERR_MALFORMED, "%s: not a .npy file", name);
	uint8_t major = content.p[6], minor = content.p[7];
	if (major < 1 || major > 3 || minor != 0)
		return err_set(ERR_MALFORMED, "%s: .npy format %u.%u; 1.0, 2.0 and 3.0 are read", name, major, minor);
	size_t wide = major == 1 ? 2 : 4, n = 0;
	if (content.n < 8 + wide)
		return err_set(ERR_MALFORMED, "%s: ends within the .npy header", name);
	for (size_t i = 0; i < wide; i++)
		n |= (size_t)content.p[8 + i] << (8 * i);
	if (n > NPY_HEADER_MAX)
		return err_set(ERR_MALFORMED, "%s: a .npy header of %zu bytes; at most %d are read", name, n,
			       NPY_HEADER_MAX);
	if (n > content.n - 8 - wide)
		return err_set(ERR_MALFORMED, "%s: ends within the .npy header", name);
	*ret_c = (struct cursor){.name = name, .p = content.p + 8 + wide, .n = n};
	return ERR_OK;
}

static enum err find_type(const char *name, const char *descr, const struct npy_type **ret_type)
{
	for (size_t i = 0; i < sizeof npy_types / sizeof *npy_types; i++) {
		if (strcmp(npy_types[i].descr, descr) == 0) {
			*ret_type = &npy_types[i];
			return ERR_OK;
		}
	}
	if (descr[0] == '>')
		return err_set(ERR_MALFORMED, "%s: big-endian values ('%s'); save with astype('<f4')", name, descr);
	if (strchr(descr, 'O') != NULL)
		return err_set(ERR_MALFORMED, "%s: holds Python objects, not numbers; save with astype('<f4')", name);
	return err_set(ERR_MALFORMED, "%s: values of type '%s'; read are <f4, <f8, <i2, <i4 and |u1", name, descr);
}

static enum err check_finite(const char *name, const struct shape *s, const float *v, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (isfinite(v[i]))
			continue;
		if (s->n == 1)
			return err_set(ERR_NUMERIC, "%s: value [%zu] is not a finite number", name, i);
		return err_set(ERR_NUMERIC, "%s: value [%zu, %zu] is not a finite number", name, i / s->d[1],
			       i % s->d[1]);
	}
	return ERR_OK;
}

enum err npy_parse(const char *name, struct bytes content, struct shape *ret_shape, float **ret_values)
{
	struct cursor c;
	struct header h = {0};
	const struct npy_type *type = NULL;
	TRY(find_header(name, content, &c));
	TRY(read_header(&c, &h));
	TRY(find_type(name, h.descr, &type));
	if (h.fortran)
		return err_set(ERR_MALFORMED, "%s: in Fortran order; save with numpy.ascontiguousarray()", name);
	struct shape shape = {.n = h.dims};
	size_t count = 1;
	for (unsigned i = 0; i < h.dims; i++) {
		if (h.d[i] == 0)
			return err_set(ERR_MALFORMED, "%s: holds no values", name);
		if (count > NPY_FILE_MAX / h.d[i])
			return err_set(ERR_MALFORMED, "%s: the shape is larger than any file that is read", name);
		count *= h.d[i];
		shape.d[i] = h.d[i];
	}
	struct bytes data = bytes_of(c.p + c.n, content.n - (size_t)(c.p + c.n - content.p));
	if (count * type->size != data.n) {
		char text[SHAPE_TEXT_SIZE];
		return err_set(ERR_MALFORMED, "%s: %s values of %s are %zu bytes, the file holds %zu", name,
			       shape_format(&shape, text), type->descr, count * type->size, data.n);
	}
	float *values = mem_aligned(count * sizeof *values);
	type->convert(data.p, count, values);
	enum err e = check_finite(name, &shape, values, count);
	if (e != ERR_OK) {
		free(values);
		return e;
	}
	*ret_shape = shape;
	*ret_values = values;
	return ERR_OK;
}

enum err npy_load(const char *path, struct shape *ret_shape, float **ret_values)
{
	struct file_map map;
	TRY(file_map(path, &map));
	enum err e = npy_parse(path, map.content, ret_shape, ret_values);
	file_unmap(&map);
	return e;
}

enum err npy_save(const char *path, const struct shape *shape, const float *values)
{
	ENSURE(shape->n == 1 || shape->n == 2);
	size_t count;
	TRY(shape_count(shape, &count));
	if (count > (NPY_FILE_MAX - 2 * NPY_ALIGN) / sizeof *values)
		return err_set(ERR_LIMIT, "%s: %zu values; .npy files are written up to %zu bytes", path, count,
			       NPY_FILE_MAX);
	struct buf b, text;
	buf_init(&b, NPY_FILE_MAX);
	buf_init(&text, NPY_HEADER_MAX);
	enum err e = buf_printf(&text, "{'descr': '<f4', 'fortran_order': False, 'shape': (%zu,", shape->d[0]);
	if (e == ERR_OK && shape->n == 2)
		e = buf_printf(&text, " %zu", shape->d[1]);
	if (e == ERR_OK)
		e = buf_printf(&text, "), }");
	/* Magic, version and length are ten bytes; the values begin at a multiple of 64, as NumPy's do. */
	while (e == ERR_OK && (10 + text.n + 1) % NPY_ALIGN != 0)
		e = buf_append(&text, " ", 1);
	if (e == ERR_OK)
		e = buf_append(&text, "\n", 1);
	uint8_t head[10] = {0, 0, 0, 0, 0, 0, 1, 0, (uint8_t)(text.n & 0xff), (uint8_t)(text.n >> 8)};
	memcpy(head, npy_magic, sizeof npy_magic);
	if (e == ERR_OK)
		e = buf_append(&b, head, sizeof head);
	if (e == ERR_OK)
		e = buf_append(&b, text.p, text.n);
	if (e == ERR_OK)
		e = buf_append(&b, values, count * sizeof *values);
	if (e == ERR_OK)
		e = file_replace(path, buf_bytes(&b), 0644);
	buf_deinit(&text);
	buf_deinit(&b);
	return e;
}
