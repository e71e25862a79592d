#include "ml/safetensors.h"

#include "safetensors_file.h"
#include "support/crashdisk.h"
#include "temp.h"

#include <dirent.h>

static const char description[] = "name: small\n"
				  "input: [1, 16]\n"
				  "classes: [a, b, \"c \\\" d\"]\n"
				  "layers:\n"
				  "  - {op: conv1d, name: conv1, out: 2, kernel: 3}\n"
				  "  - {op: batchnorm1d, name: bn1}\n"
				  "  - {op: relu}\n"
				  "  - {op: flatten}\n"
				  "  - {op: linear, name: head, out: outputs}\n";

static struct model *small_model(uint64_t seed)
{
	struct yaml *y;
	struct model *m;
	if (yaml_parse("test", bytes_str(description), &y) != ERR_OK || model_from_yaml(yaml_root(y), &m) != ERR_OK)
		fail_msg("%s", err_text());
	yaml_free(y);
	model_init(m, seed);
	return m;
}

static struct buf read_back(const char *path)
{
	struct buf b;
	assert_int_equal(file_read(path, 1 << 20, &b), ERR_OK);
	return b;
}

/* The file as another reader sees it: length, JSON, offsets, bytes, taken apart here without safetensors.c. */
static void test_save(void **state)
{
	(void)state;
	char dir[PATH_SIZE], path[PATH_SIZE];
	temp_make(dir);
	path_join(path, dir, "m.safetensors");
	struct model *m = small_model(3);
	struct json *meta = json_put(json_map(), "hansa.lineage", json_str("none"));
	assert_int_equal(safetensors_save(path, m, meta), ERR_OK);
	struct buf b = read_back(path);
	uint64_t n = 0;
	for (unsigned i = 0; i < 8; i++)
		n |= (uint64_t)b.p[i] << (8 * i);
	assert_int_equal(n % 8, 0);
	assert_int_equal(b.p[8], '{');
	struct json *header;
	assert_int_equal(json_parse(bytes_of(b.p + 8, n), &header), ERR_OK);
	assert_int_equal(json_count(header), m->n_params + 2); /* metadata, counter */
	const uint8_t *data = b.p + 8 + n;
	size_t total = 0;
	for (size_t i = 0; i < m->n_params; i++) {
		const struct param *p = &m->params[i];
		const struct json *e = json_get(header, p->name);
		const char *dtype;
		int64_t begin, end, d;
		assert_true(json_get_str(json_get(e, "dtype"), &dtype));
		assert_string_equal(dtype, "F32");
		assert_int_equal(json_count(json_get(e, "shape")), p->shape.n);
		for (unsigned k = 0; k < p->shape.n; k++) {
			assert_true(json_get_int(json_at(json_get(e, "shape"), k), &d));
			assert_int_equal(d, p->shape.d[k]);
		}
		assert_true(json_get_int(json_at(json_get(e, "data_offsets"), 0), &begin));
		assert_true(json_get_int(json_at(json_get(e, "data_offsets"), 1), &end));
		assert_int_equal(end - begin, 4 * p->n);
		assert_int_equal((data + begin - b.p) % 4, 0);
		assert_memory_equal(data + begin, m->theta + p->offset, 4 * p->n);
		total += 4 * p->n;
	}
	const struct json *counter = json_get(header, "bn1.num_batches_tracked");
	const char *text;
	int64_t begin;
	assert_true(json_get_str(json_get(counter, "dtype"), &text));
	assert_string_equal(text, "I64");
	assert_int_equal(json_count(json_get(counter, "shape")), 0);
	assert_true(json_get_int(json_at(json_get(counter, "data_offsets"), 0), &begin));
	assert_memory_equal(data + begin, "\0\0\0\0\0\0\0\0", 8);
	assert_int_equal(b.n, 8 + n + total + 8);
	const struct json *map = json_get(header, "__metadata__");
	assert_true(json_get_str(json_get(map, "format"), &text));
	assert_string_equal(text, "pt");
	assert_true(json_get_str(json_get(map, "hansa.lineage"), &text));
	assert_string_equal(text, "none");
	struct buf said;
	buf_init(&said, 1 << 20);
	assert_int_equal(model_describe(m, &said), ERR_OK);
	assert_true(json_get_str(json_get(map, "hansa.model"), &text));
	assert_string_equal(text, buf_str(&said));
	buf_deinit(&said);
	json_free(header);
	/* Header and tensors one after the other are the file; saving again gives the same bytes. */
	struct buf streamed;
	assert_int_equal(safetensors_header(m, meta, &streamed), ERR_OK);
	size_t at = streamed.n;
	assert_memory_equal(b.p, streamed.p, at);
	for (size_t i = 0; i < m->n_params; i++) {
		assert_memory_equal(b.p + at, m->theta + m->params[i].offset, 4 * m->params[i].n);
		at += 4 * m->params[i].n;
	}
	assert_int_equal(at, b.n);
	buf_deinit(&streamed);
	assert_int_equal(safetensors_save(path, m, meta), ERR_OK);
	struct buf again = read_back(path);
	assert_int_equal(again.n, b.n);
	assert_memory_equal(again.p, b.p, b.n);
	buf_deinit(&again);
	buf_deinit(&b);
	json_free(meta);
	model_free(m);
	temp_remove(dir);
}

static void test_load(void **state)
{
	(void)state;
	char dir[PATH_SIZE], path[PATH_SIZE];
	temp_make(dir);
	path_join(path, dir, "m.safetensors");
	struct model *m = small_model(3), *loaded, *other = small_model(4), *parsed;
	struct file_map map;
	struct safetensors *st;
	assert_int_equal(safetensors_save(path, m, NULL), ERR_OK);
	assert_int_equal(safetensors_load(path, &loaded), ERR_OK);
	assert_true(model_same(m, loaded));
	assert_memory_equal(loaded->theta, m->theta, m->n_theta * sizeof *m->theta);
	assert_int_equal(safetensors_load_into(path, other), ERR_OK);
	assert_memory_equal(other->theta, m->theta, m->n_theta * sizeof *m->theta);
	assert_int_equal(file_map(path, &map), ERR_OK);
	assert_int_equal(safetensors_parse("bytes", map.content, &st), ERR_OK);
	assert_int_equal(safetensors_model(st, "bytes", &parsed), ERR_OK);
	assert_memory_equal(parsed->theta, m->theta, m->n_theta * sizeof *m->theta);
	safetensors_free(st);
	file_unmap(&map);
	model_free(parsed);
	model_free(loaded);
	assert_int_equal(safetensors_load(path_join(path, dir, "absent"), &loaded), ERR_NOT_FOUND);
	assert_int_equal(safetensors_load_into(path, other), ERR_NOT_FOUND);
	temp_write(dir, "bad", "rubbish", 7);
	assert_int_equal(safetensors_load(path_join(path, dir, "bad"), &loaded), ERR_MALFORMED);
	assert_non_null(strstr(err_text(), path));
	model_free(other);
	model_free(m);
	temp_remove(dir);
}

/* A file with the small model's tensors in `dtype`, all of them `value`, but with `from` in the header replaced by
 * `to`. */
static void write_foreign(const char *dir, const char *dtype, size_t size, const void *value, const char *from,
			  const char *to)
{
	const struct {
		const char *name, *shape;
		size_t n;
	} tensors[] = {{"conv1.weight", "[2,1,3]", 6}, {"conv1.bias", "[2]", 2},      {"bn1.weight", "[2]", 2},
		       {"bn1.bias", "[2]", 2},         {"head.weight", "[3,28]", 84}, {"head.bias", "[3]", 3},
		       {"bn1.running_mean", "[2]", 2}, {"bn1.running_var", "[2]", 2}};
	struct buf header, data, all;
	buf_init(&header, 1 << 16);
	buf_init(&data, 1 << 16);
	assert_int_equal(buf_printf(&header, "{"), ERR_OK);
	for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
		assert_int_equal(
			buf_printf(&header, "\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]},",
				   tensors[i].name, dtype, tensors[i].shape, data.n, data.n + size * tensors[i].n),
			ERR_OK);
		for (size_t k = 0; k < tensors[i].n; k++)
			assert_int_equal(buf_append(&data, value, size), ERR_OK);
	}
	assert_int_equal(
		buf_printf(&header,
			   "\"bn1.num_batches_tracked\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[%zu,%zu]}}",
			   data.n, data.n + 8),
		ERR_OK);
	assert_int_equal(buf_append(&data, "\7\0\0\0\0\0\0\0", 8), ERR_OK);
	if (from != NULL) {
		/* Same length, so that the offsets stay right. */
		assert_int_equal(strlen(from), strlen(to));
		char *at = strstr((char *)header.p, from);
		assert_non_null(at);
		memcpy(at, to, strlen(to));
	}
	all = file_of(buf_str(&header), 0);
	assert_int_equal(buf_append(&all, data.p, data.n), ERR_OK);
	temp_write(dir, "f.safetensors", all.p, all.n);
	buf_deinit(&header);
	buf_deinit(&data);
	buf_deinit(&all);
}

/* Other tools' files: without our metadata, in other types, with a counter. */
static void test_dtypes(void **state)
{
	(void)state;
	char dir[PATH_SIZE], path[PATH_SIZE];
	temp_make(dir);
	path_join(path, dir, "f.safetensors");
	const struct {
		const char *dtype;
		size_t size;
		uint64_t bits;
		float want;
	} cases[] = {
		{"F32", 4, 0x3fc00000, 1.5f},
		{"F64", 8, 0xbff8000000000000, -1.5f},
		{"F64", 8, 0x3ff0000000000001, 1.0f}, /* rounded */
		{"F64", 8, 0x0000000000000001, 0.0f}, /* too small for a float */
		{"BF16", 2, 0x3fc0, 1.5f},
		{"BF16", 2, 0xc2f7, -123.5f},
		{"BF16", 2, 0x0001, 0x1p-133f}, /* subnormal */
		{"F16", 2, 0x3c00, 1},
		{"F16", 2, 0xbe00, -1.5f},
		{"F16", 2, 0x3555, 0.333251953125f},
		{"F16", 2, 0x7bff, 65504},           /* largest */
		{"F16", 2, 0x0400, 0x1p-14f},        /* smallest normal */
		{"F16", 2, 0x03ff, 1023 * 0x1p-24f}, /* largest subnormal */
		{"F16", 2, 0x0001, 0x1p-24f},        /* smallest subnormal */
		{"F16", 2, 0x8000, -0.0f},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct model *m = small_model(1);
		write_foreign(dir, cases[i].dtype, cases[i].size, &cases[i].bits, NULL, NULL);
		if (safetensors_load_into(path, m) != ERR_OK)
			fail_msg("%s", err_text());
		for (size_t k = 0; k < m->n_params; k++)
			for (size_t j = 0; j < m->params[k].n; j++)
				assert_memory_equal(&m->theta[m->params[k].offset + j], &cases[i].want, sizeof(float));
		struct model *none;
		assert_int_equal(safetensors_load(path, &none), ERR_MALFORMED);
		assert_non_null(strstr(err_text(), "does not carry its architecture"));
		model_free(m);
	}
	temp_remove(dir);
}

/* A file that does not fit leaves the model as it was. */
static void test_load_refused(void **state)
{
	(void)state;
	char dir[PATH_SIZE], path[PATH_SIZE];
	temp_make(dir);
	path_join(path, dir, "f.safetensors");
	const uint64_t one = 0x3f800000, nan32 = 0x7fc00000, inf16 = 0x7c00, nan16 = 0x7e01, infb = 0xff80,
		       big64 = 0x7fe0000000000000;
	const struct {
		const char *dtype;
		size_t size;
		uint64_t bits;
		const char *from, *to;
		enum err want;
		const char *says;
	} cases[] = {
		{"F32", 4, one, "conv1.bias", "conv9.bias", ERR_SHAPE,
		 "'conv9.bias' (2): the model has no such tensor"},
		{"F32", 4, one, "[3,28]", "[28,3]", ERR_SHAPE, "'head.weight' is 28x3, the model's is 3x28"},
		{"F32", 4, one, "bn1.num", "bn2.num", ERR_SHAPE,
		 "'bn2.num_batches_tracked' (scalar): the model has no such"},
		{"F32", 4, one, "I64", "F64", ERR_SHAPE, "'bn1.num_batches_tracked' (scalar): the model has no such"},
		{"F32", 4, one, "\"F32\"", "\"I32\"", ERR_MALFORMED, "is I32; F32, F64, F16 and BF16 are read"},
		{"I16", 2, one, NULL, NULL, ERR_MALFORMED, "is I16;"},
		{"F32", 4, nan32, NULL, NULL, ERR_NUMERIC, "'conv1.weight': value 0 is not a finite"},
		{"F16", 2, inf16, NULL, NULL, ERR_NUMERIC, "value 0"},
		{"F16", 2, nan16, NULL, NULL, ERR_NUMERIC, "value 0"},
		{"BF16", 2, infb, NULL, NULL, ERR_NUMERIC, "value 0"},
		{"F64", 8, big64, NULL, NULL, ERR_NUMERIC, "value 0"},
	};
	struct model *m = small_model(1), *before = model_dup(m);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		write_foreign(dir, cases[i].dtype, cases[i].size, &cases[i].bits, cases[i].from, cases[i].to);
		assert_int_equal(safetensors_load_into(path, m), cases[i].want);
		if (strstr(err_text(), cases[i].says) == NULL)
			fail_msg("\"%s\" does not say \"%s\"", err_text(), cases[i].says);
		assert_memory_equal(m->theta, before->theta, m->n_theta * sizeof *m->theta);
	}
	/* A tensor too few: an empty file has none at all. */
	struct buf b = file_of("{}", 0);
	temp_write(dir, "f.safetensors", b.p, b.n);
	assert_int_equal(safetensors_load_into(path, m), ERR_SHAPE);
	assert_non_null(strstr(err_text(), "the model's tensor 'conv1.weight' is missing"));
	buf_deinit(&b);
	/* A description that is none. */
	const char *wrong[] = {"{\"__metadata__\":{\"hansa.model\":\"{]\"}}",
			       "{\"__metadata__\":{\"hansa.model\":\"[]\"}}",
			       "{\"__metadata__\":{\"hansa.model\":\"{\\\"input\\\":[1,8],\\\"layers\\\":[{\\\"op\\\":"
			       "\\\"x\\\"}]}\"}}"};
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		struct model *none;
		b = file_of(wrong[i], 0);
		temp_write(dir, "f.safetensors", b.p, b.n);
		assert_int_equal(safetensors_load(path, &none), ERR_MALFORMED);
		assert_non_null(strstr(err_text(), "hansa.model"));
		buf_deinit(&b);
	}
	/* Metadata that is no map of strings. */
	struct json *meta = json_put(json_map(), "n", json_int(1));
	struct buf header;
	assert_int_equal(safetensors_header(m, meta, &header), ERR_MALFORMED);
	assert_int_equal(safetensors_save(path, m, meta), ERR_MALFORMED);
	json_free(meta);
	model_free(m);
	model_free(before);
	temp_remove(dir);
}

static unsigned fail_at, asked;

static enum err fail_once(void *arg, enum file_op op, const char *path, size_t n, size_t *ret_short)
{
	(void)arg;
	(void)op;
	(void)path;
	(void)n;
	(void)ret_short;
	return asked++ == fail_at ? err_set(ERR_IO, "injected") : ERR_OK;
}

static enum err count_entry(void *arg, const char *name)
{
	(void)name;
	++*(size_t *)arg;
	return ERR_OK;
}

/* Whatever operation fails, the old file or the new one is there, whole, and nothing else. */
static void test_save_faults(void **state)
{
	(void)state;
	char dir[PATH_SIZE], path[PATH_SIZE];
	temp_make(dir);
	path_join(path, dir, "m.safetensors");
	struct model *old = small_model(1), *new = small_model(2);
	bool done = false;
	for (fail_at = 0; !done; fail_at++) {
		assert_true(fail_at < 100);
		assert_int_equal(safetensors_save(path, old, NULL), ERR_OK);
		asked = 0;
		file_set_hook(fail_once, NULL);
		enum err e = safetensors_save(path, new, NULL);
		file_set_hook(NULL, NULL);
		done = asked <= fail_at;
		assert_int_equal(e, done ? ERR_OK : ERR_IO);
		if (!done)
			assert_non_null(strstr(err_text(), "injected"));
		struct model *m;
		size_t entries = 0;
		assert_int_equal(safetensors_load(path, &m), ERR_OK);
		bool is_old = memcmp(m->theta, old->theta, m->n_theta * sizeof *m->theta) == 0;
		bool is_new = memcmp(m->theta, new->theta, m->n_theta * sizeof *m->theta) == 0;
		assert_true(done ? is_new : is_old || is_new);
		assert_int_equal(dir_each(dir, count_entry, &entries), ERR_OK);
		assert_int_equal(entries, 1);
		model_free(m);
	}
	assert_true(fail_at > 5);
	model_free(old);
	model_free(new);
	temp_remove(dir);
}

/* Whenever the power goes: the old model or the new one, and the next save leaves nothing of the broken one. */
static void test_save_power_loss(void **state)
{
	(void)state;
	char dir[PATH_SIZE], path[PATH_SIZE];
	temp_make(dir);
	path_join(path, dir, "m.safetensors");
	struct model *old = small_model(1), *new = small_model(2);
	for (int mode = 0; mode < CRASHDISK_MODES; mode++) {
		bool more = true;
		for (uint64_t n = 1; more; n++) {
			assert_int_equal(safetensors_save(path, old, NULL), ERR_OK);
			struct crashdisk *disk = crashdisk_new(dir, n);
			crashdisk_arm(disk, n, (enum crashdisk_mode)mode);
			enum err e = safetensors_save(path, new, NULL);
			more = crashdisk_dead(disk);
			assert_int_equal(e, more ? ERR_IO : ERR_OK);
			crashdisk_restore(disk);
			/* A temporary by a name that the next save knows, whichever process that is in. */
			size_t entries = 0;
			assert_int_equal(dir_each(dir, count_entry, &entries), ERR_OK);
			assert_int_equal(entries, 1);
			struct model *m;
			assert_int_equal(safetensors_load(path, &m), ERR_OK);
			bool is_old = memcmp(m->theta, old->theta, m->n_theta * sizeof *m->theta) == 0;
			bool is_new = memcmp(m->theta, new->theta, m->n_theta * sizeof *m->theta) == 0;
			assert_true(is_new || (more && is_old));
			model_free(m);
			crashdisk_free(disk);
			assert_int_equal(safetensors_save(path, old, NULL), ERR_OK);
			entries = 0;
			DIR *d = opendir(dir);
			while (readdir(d) != NULL)
				entries++;
			closedir(d);
			assert_int_equal(entries, 3); /* with "." and ".." */
		}
	}
	model_free(old);
	model_free(new);
	temp_remove(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_save),        cmocka_unit_test(test_load),
		cmocka_unit_test(test_dtypes),      cmocka_unit_test(test_load_refused),
		cmocka_unit_test(test_save_faults), cmocka_unit_test(test_save_power_loss),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
