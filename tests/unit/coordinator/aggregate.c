#include "coordinator/fixture.h"

#include "coordinator/aggregate.h"
#include "ml/safetensors.h"

#include <math.h>

enum { PLANTS = 5 };

static char *dir, *base_path, *out_path;
static struct model *base;
static struct manifest *m;
static struct bytes updates[PLANTS];
static struct digest digests[PLANTS];
static char *paths[PLANTS];
static const int64_t weights[PLANTS] = {3, 1000, 17, 1, 250};

static char *at(const char *name)
{
	char path[PATH_SIZE];
	return mem_str(path_join(path, dir, name));
}

static void write_file(const char *path, struct bytes content)
{
	assert_ok(file_replace(path, content, 0600));
}

static void make_updates(const char *freeze, const char *local)
{
	m = manifest_make(base, freeze, local);
	for (size_t i = 0; i < PLANTS; i++) {
		char name[16];
		snprintf(name, sizeof name, "update-%zu", i);
		updates[i] = update_of(m, base, i + 1);
		digests[i] = digest_of(updates[i]);
		paths[i] = at(name);
		write_file(paths[i], updates[i]);
	}
}

static int setup(void **state)
{
	(void)state;
	dir = scratch_make();
	base_path = at("base.safetensors");
	out_path = at("new.safetensors");
	base = model_make(tiny_model, 1);
	struct json *meta = json_put(json_map(), "hansa.job", json_str("of the base, not of what comes after it"));
	assert_ok(safetensors_save(base_path, base, meta));
	json_free(meta);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	bad_disk_remove();
	for (size_t i = 0; i < PLANTS; i++) {
		update_free(&updates[i]);
		free(paths[i]);
		paths[i] = NULL;
	}
	manifest_free(m);
	m = NULL;
	model_free(base);
	free(base_path);
	free(out_path);
	scratch_remove(dir);
	return 0;
}

/* Aggregate the updates in the order `order` (n of them). */
static enum err run_with(const uint32_t *order, size_t n, double rate, const struct json *meta,
			 struct digest *ret_digest)
{
	struct aggregate_input inputs[PLANTS];
	uint64_t size = 0;
	for (size_t i = 0; i < n; i++)
		inputs[i] = (struct aggregate_input){paths[order[i]], weights[order[i]], &digests[order[i]]};
	struct aggregate_job job = {.base_path = base_path,
				    .manifest = m,
				    .inputs = inputs,
				    .n_inputs = n,
				    .server_rate = rate,
				    .meta = meta,
				    .out_path = out_path};
	enum err e = aggregate_run(&job, ret_digest, &size);
	uint64_t on_disk;
	if (e == ERR_OK) {
		assert_ok(file_size(out_path, &on_disk));
		assert_int_equal(size, on_disk);
	}
	return e;
}

static const uint32_t in_order[PLANTS] = {0, 1, 2, 3, 4};

static int32_t element(struct bytes update, size_t i)
{
	int32_t q;
	memcpy(&q, update.p + 4 * i, 4);
	return q;
}

/* What the definition in update/fixed.h gives, one element at a time. */
static float expected(const struct manifest_tensor *t, size_t k, double rate)
{
	float was = base->theta[t->offset + k];
	if (!t->travels)
		return was;
	int64_t sum = 0, total = 0;
	for (size_t i = 0; i < PLANTS; i++) {
		sum += weights[i] * element(updates[i], t->at + k);
		total += weights[i];
	}
	double change = (t->role == TENSOR_STATISTIC ? 1 : rate) * (double)sum;
	change = change / (double)total;
	return (float)((double)was + change * ldexp(1, -t->scale));
}

static void assert_new_model(double rate)
{
	struct model *new;
	assert_ok(safetensors_load(out_path, &new));
	assert_true(model_same(new, base));
	for (size_t i = 0; i < m->n_tensors; i++) {
		const struct manifest_tensor *t = &m->tensors[i];
		for (size_t k = 0; k < t->n; k++) {
			float want = expected(t, k, rate);
			assert_memory_equal(&new->theta[t->offset + k], &want, sizeof want);
		}
	}
	model_free(new);
}

static void the_new_model_is_the_weighted_mean(void **state)
{
	(void)state;
	static const double rates[] = {1, 0.5, 3};
	make_updates(NULL, NULL);
	for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++) {
		struct digest d, on_disk;
		assert_ok(run_with(in_order, PLANTS, rates[i], NULL, &d));
		assert_ok(digest_file(out_path, &on_disk, NULL));
		assert_true(digest_equal(&d, &on_disk));
		assert_new_model(rates[i]);
	}
}

static void what_does_not_travel_stays_bit_by_bit(void **state)
{
	(void)state;
	struct digest d;
	make_updates("conv1.*", "bn1.*");
	assert_ok(run_with(in_order, PLANTS, 1, NULL, &d));
	assert_new_model(1);
}

static void the_file_is_what_saving_the_model_would_write(void **state)
{
	(void)state;
	struct digest d, saved;
	struct model *new;
	struct json *meta =
		json_put(json_put(json_map(), "hansa.job", json_str("bearings")), "hansa.round", json_str("3"));
	char *again = at("again.safetensors");
	make_updates(NULL, NULL);
	assert_ok(run_with(in_order, PLANTS, 1, meta, &d));
	assert_ok(safetensors_load(out_path, &new));
	assert_ok(safetensors_save(again, new, meta));
	assert_ok(digest_file(again, &saved, NULL));
	assert_true(digest_equal(&d, &saved));
	model_free(new);
	/* Metadata is text. */
	json_put(meta, "hansa.round", json_int(3));
	assert_fails(run_with(in_order, PLANTS, 1, meta, &d), ERR_MALFORMED, "hansa.round");
	json_free(meta);
	free(again);
}

static void the_order_of_updates_does_not_matter(void **state)
{
	(void)state;
	struct digest first, d;
	uint32_t order[PLANTS];
	struct rng r;
	rng_seed(&r, 1);
	make_updates(NULL, NULL);
	assert_ok(run_with(in_order, PLANTS, 0.9, NULL, &first));
	memcpy(order, in_order, sizeof order);
	for (unsigned i = 0; i < 30; i++) {
		rng_shuffle(&r, order, PLANTS);
		assert_ok(run_with(order, PLANTS, 0.9, NULL, &d));
		assert_true(digest_equal(&first, &d));
	}
	/* Another set is another model. */
	assert_ok(run_with(order, PLANTS - 1, 0.9, NULL, &d));
	assert_false(digest_equal(&first, &d));
}

static void equal_updates_give_their_own_value(void **state)
{
	(void)state;
	make_updates(NULL, NULL);
	struct aggregate_input inputs[3] = {{paths[2], 5, NULL}, {paths[2], 1 << 20, NULL}, {paths[2], 77, NULL}};
	struct aggregate_job job = {.base_path = base_path,
				    .manifest = m,
				    .inputs = inputs,
				    .n_inputs = 3,
				    .server_rate = 1,
				    .out_path = out_path};
	struct digest one, three;
	uint64_t size;
	assert_ok(aggregate_run(&job, &three, &size));
	job.n_inputs = 1;
	assert_ok(aggregate_run(&job, &one, &size));
	assert_true(digest_equal(&one, &three));
}

static void a_base_in_another_order_gives_the_same_model(void **state)
{
	(void)state;
	struct digest d;
	struct buf file;
	struct safetensors *st;
	make_updates("conv1.weight", NULL);
	/* The same file with its tensors the other way round, as another tool may write it. */
	assert_ok(file_read(base_path, 1 << 20, &file));
	assert_ok(safetensors_parse("base", buf_bytes(&file), &st));
	size_t n = safetensors_count(st);
	const struct safetensors_entry **order = mem_array(n, sizeof *order);
	for (size_t i = 0; i < n; i++)
		order[i] = safetensors_at(st, n - 1 - i);
	struct buf turned;
	assert_ok(safetensors_rewrite(st, order, n, NULL, &turned));
	turned.max = 1 << 20;
	for (size_t i = 0; i < n; i++)
		assert_ok(buf_append(&turned, order[i]->data.p, order[i]->data.n));
	free(base_path);
	base_path = at("turned.safetensors");
	write_file(base_path, buf_bytes(&turned));
	assert_ok(aggregate_check_base(base_path, m));
	assert_ok(run_with(in_order, PLANTS, 1, NULL, &d));
	assert_new_model(1);
	free(order);
	safetensors_free(st);
	buf_deinit(&turned);
	buf_deinit(&file);
}

static void a_variance_is_never_negative(void **state)
{
	(void)state;
	const struct param *var = model_param(base, "bn1.running_var"), *mean = model_param(base, "bn1.running_mean");
	for (size_t i = 0; i < var->n; i++)
		base->theta[var->offset + i] = base->theta[mean->offset + i] = 4e-8f;
	assert_ok(safetensors_save(base_path, base, NULL));
	m = manifest_make(base, NULL, NULL);
	struct model *local = model_dup(base), *new;
	for (size_t i = 0; i < var->n; i++)
		local->theta[var->offset + i] = local->theta[mean->offset + i] = 0;
	uint8_t *bytes;
	assert_ok(update_make(m, base->theta, local->theta, 0, &bytes, NULL));
	updates[0] = bytes_of(bytes, manifest_update_bytes(m));
	paths[0] = at("update");
	digests[0] = digest_of(updates[0]);
	write_file(paths[0], updates[0]);
	struct digest d;
	assert_ok(run_with(in_order, 1, 1, NULL, &d));
	assert_ok(safetensors_load(out_path, &new));
	for (size_t i = 0; i < var->n; i++) {
		assert_true(new->theta[var->offset + i] == 0 && !signbit(new->theta[var->offset + i]));
		assert_true(new->theta[mean->offset + i] < 0); /* this one may: rounding went below zero */
	}
	model_free(local);
	model_free(new);
}

static void changed_spool_files_are_found(void **state)
{
	(void)state;
	struct digest d = {{0}};
	make_updates(NULL, NULL);
	uint8_t *p = mem_array(updates[2].n, 1);
	memcpy(p, updates[2].p, updates[2].n);
	write_file(paths[2], bytes_of(p, updates[2].n - 4));
	assert_fails(run_with(in_order, PLANTS, 1, NULL, &d), ERR_CORRUPT, "update-2: has");
	p[40] ^= 1;
	write_file(paths[2], bytes_of(p, updates[2].n));
	assert_fails(run_with(in_order, PLANTS, 1, NULL, &d), ERR_CORRUPT,
		     "update-2: is not the update that was sealed");
	memcpy(p + 40, "\x00\x00\xc0\x7f", 4); /* NaN */
	write_file(paths[2], bytes_of(p, updates[2].n));
	assert_fails(run_with(in_order, PLANTS, 1, NULL, &d), ERR_CORRUPT, "update-2: holds a value");
	assert_ok(file_remove(paths[2]));
	assert_fails(run_with(in_order, PLANTS, 1, NULL, &d), ERR_CORRUPT, "missing");
	assert_true(digest_is_zero(&d));
	assert_false(file_exists(out_path));
	assert_int_equal(count_files(dir, ".part"), 0);
	free(p);
}

static void a_changed_base_is_found(void **state)
{
	(void)state;
	struct digest d = {{0}}, before;
	struct buf content;
	uint64_t size;
	make_updates(NULL, NULL);
	assert_ok(digest_file(base_path, &before, NULL));
	struct aggregate_input input = {paths[0], weights[0], &digests[0]};
	struct aggregate_job job = {.base_path = base_path,
				    .base_digest = &before,
				    .manifest = m,
				    .inputs = &input,
				    .n_inputs = 1,
				    .server_rate = 1,
				    .out_path = out_path};
	assert_ok(aggregate_run(&job, &d, &size));
	assert_ok(file_remove(out_path));
	assert_ok(file_read(base_path, 1 << 20, &content));
	content.p[content.n - 1] ^= 1; /* still a model */
	write_file(base_path, buf_bytes(&content));
	buf_deinit(&content);
	d = (struct digest){{0}};
	assert_fails(aggregate_run(&job, &d, &size), ERR_CORRUPT, "not the model that the round began with");
	assert_true(digest_is_zero(&d));
	assert_false(file_exists(out_path));
	assert_int_equal(count_files(dir, ".part"), 0);
}

static void impossible_jobs_are_refused(void **state)
{
	(void)state;
	struct digest d;
	uint64_t size;
	make_updates(NULL, NULL);
	struct aggregate_input inputs[2] = {{paths[0], 1, NULL}, {paths[1], 1, NULL}};
	struct aggregate_job job = {.base_path = base_path,
				    .manifest = m,
				    .inputs = inputs,
				    .n_inputs = 0,
				    .server_rate = 1,
				    .out_path = out_path};
	assert_fails(aggregate_run(&job, &d, &size), ERR_STATE, "no update");
	job.n_inputs = FIXED_PLANTS_MAX + 1;
	assert_fails(aggregate_run(&job, &d, &size), ERR_LIMIT, "plants");
	job.n_inputs = 2;
	static const int64_t bad[] = {0, -1, FIXED_WEIGHT_MAX + 1, INT64_MIN, INT64_MAX};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		inputs[1].weight = bad[i];
		assert_fails(aggregate_run(&job, &d, &size), ERR_LIMIT, "weight");
	}
	inputs[1].weight = FIXED_WEIGHT_MAX;
	assert_ok(aggregate_run(&job, &d, &size));
}

static void models_that_overflow_are_refused(void **state)
{
	(void)state;
	struct digest d;
	const struct param *p = model_param(base, "head.weight");
	base->theta[p->offset + 3] = 3.4e38f;
	assert_ok(safetensors_save(base_path, base, NULL));
	make_updates(NULL, NULL);
	const struct manifest_tensor *t = NULL;
	for (size_t i = 0; i < m->n_tensors; i++)
		t = strcmp(m->tensors[i].name, "head.weight") == 0 ? &m->tensors[i] : t;
	assert_non_null(t);
	uint8_t *q = mem_array(updates[0].n, 1);
	memcpy(q, updates[0].p, updates[0].n);
	memcpy(q + 4 * (t->at + 3), "\x00\x00\x00\x40", 4); /* 2^30: 64 times as much and more */
	write_file(paths[0], bytes_of(q, updates[0].n));
	digests[0] = digest_of(bytes_of(q, updates[0].n));
	assert_fails(run_with(in_order, 1, 1, NULL, &d), ERR_NUMERIC, "head.weight of the new model");
	assert_false(file_exists(out_path));
	free(q);
}

static void a_base_that_does_not_fit_is_refused(void **state)
{
	(void)state;
	struct digest d;
	make_updates(NULL, NULL);
	static const struct {
		const char *from, *to, *says;
	} cases[] = {
		{"name: head", "name: tail", "'head.weight' is missing"},
		{"classes: [a, b, c]", "classes: [a, b]", "'head.weight' is 2x8 instead of 3x8"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		const char *place = strstr(tiny_model, cases[i].from);
		char *text = mem_printf("%.*s%s%s", (int)(place - tiny_model), tiny_model, cases[i].to,
					place + strlen(cases[i].from));
		struct model *other = model_make(text, 1);
		assert_ok(safetensors_save(base_path, other, NULL));
		assert_fails(run_with(in_order, PLANTS, 1, NULL, &d), ERR_SHAPE, cases[i].says);
		assert_fails(aggregate_check_base(base_path, m), ERR_SHAPE, cases[i].says);
		model_free(other);
		free(text);
	}
	write_file(base_path, bytes_str("not a model"));
	assert_fails(run_with(in_order, PLANTS, 1, NULL, &d), ERR_MALFORMED, "base.safetensors");
	assert_ok(file_remove(base_path));
	assert_fails(aggregate_check_base(base_path, m), ERR_NOT_FOUND, "base.safetensors");
	/* float16: the right shape, the wrong type */
	static const char header[] = "{\"w\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]}}";
	struct buf b;
	buf_init(&b, 1000);
	uint8_t length[8] = {sizeof header - 1};
	assert_ok(buf_append(&b, length, 8));
	assert_ok(buf_printf(&b, "%sabcd", header));
	write_file(base_path, buf_bytes(&b));
	struct manifest *half;
	assert_ok(manifest_parse(
		bytes_str("{\"tensors\":[{\"name\":\"w\",\"role\":\"trainable\",\"scale\":1,\"shape\":[2]}],"
			  "\"version\":1}"),
		&half));
	assert_fails(aggregate_check_base(base_path, half), ERR_SHAPE, "'w' is F16");
	manifest_free(half);
	buf_deinit(&b);
}

static void bytes_are_durable_before_the_name(void **state)
{
	(void)state;
	struct disk_tape tape;
	struct digest d;
	make_updates(NULL, NULL);
	disk_tape_insert(&tape);
	assert_ok(run_with(in_order, PLANTS, 1, NULL, &d));
	assert_string_equal(tape.ops, "CWSdRd");
}

static void a_failing_disk_never_shows_half_a_model(void **state)
{
	(void)state;
	struct digest whole, d;
	make_updates(NULL, NULL);
	assert_ok(run_with(in_order, PLANTS, 1, NULL, &whole));
	assert_ok(file_remove(out_path));
	for (int stays = 0; stays <= 1; stays++) {
		bool hit = true;
		unsigned failures = 0;
		for (size_t n = 0; hit; n++) {
			struct bad_disk disk;
			bad_disk_insert(&disk, n, stays);
			enum err e = run_with(in_order, PLANTS, 1, NULL, &d);
			hit = disk.hit;
			bad_disk_remove();
			assert_int_equal(e != ERR_OK, hit);
			assert_true(e != ERR_OK || file_exists(out_path));
			if (file_exists(out_path)) {
				assert_ok(digest_file(out_path, &d, NULL));
				assert_true(digest_equal(&d, &whole));
				assert_ok(file_remove(out_path));
			}
			assert_true(stays || count_files(dir, ".part") == 0);
			failures += hit;
		}
		assert_true(failures > 10);
	}
	/* What a crash left behind is in nobody's way. */
	assert_ok(run_with(in_order, PLANTS, 1, NULL, &d));
	assert_true(digest_equal(&d, &whole));
}

static const char wide_model[] = "name: wide\n"
				 "input: [1000]\n"
				 "classes: [a, b]\n"
				 "layers:\n"
				 "  - {op: linear, name: one, out: 700}\n"
				 "  - {op: relu}\n"
				 "  - {op: linear, name: two, out: 300}\n"
				 "  - {op: relu}\n"
				 "  - {op: linear, name: head, out: outputs}\n";

/* Several blocks, which end within tensors; and more files than are kept open. */
static void blocks_do_not_show(void **state)
{
	(void)state;
	enum { MANY = 600 };
	struct digest d;
	uint64_t size;
	model_free(base);
	base = model_make(wide_model, 3);
	assert_ok(safetensors_save(base_path, base, NULL));
	make_updates("head.bias", NULL);
	assert_ok(run_with(in_order, PLANTS, 1, NULL, &d));
	assert_new_model(1);
	manifest_free(m);
	for (size_t i = 0; i < PLANTS; i++) {
		update_free(&updates[i]);
		free(paths[i]);
	}
	model_free(base);
	base = model_make(tiny_model, 1);
	assert_ok(safetensors_save(base_path, base, NULL));
	make_updates(NULL, NULL);
	struct aggregate_input *inputs = mem_array(MANY, sizeof *inputs);
	for (size_t i = 0; i < MANY; i++)
		inputs[i] = (struct aggregate_input){paths[i % PLANTS], weights[i % PLANTS], &digests[i % PLANTS]};
	struct aggregate_job job = {.base_path = base_path,
				    .manifest = m,
				    .inputs = inputs,
				    .n_inputs = MANY,
				    .server_rate = 1,
				    .out_path = out_path};
	assert_ok(aggregate_run(&job, &d, &size));
	assert_new_model(1);
	free(inputs);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_new_model_is_the_weighted_mean, setup, teardown),
		cmocka_unit_test_setup_teardown(what_does_not_travel_stays_bit_by_bit, setup, teardown),
		cmocka_unit_test_setup_teardown(the_file_is_what_saving_the_model_would_write, setup, teardown),
		cmocka_unit_test_setup_teardown(the_order_of_updates_does_not_matter, setup, teardown),
		cmocka_unit_test_setup_teardown(equal_updates_give_their_own_value, setup, teardown),
		cmocka_unit_test_setup_teardown(a_base_in_another_order_gives_the_same_model, setup, teardown),
		cmocka_unit_test_setup_teardown(a_variance_is_never_negative, setup, teardown),
		cmocka_unit_test_setup_teardown(changed_spool_files_are_found, setup, teardown),
		cmocka_unit_test_setup_teardown(a_changed_base_is_found, setup, teardown),
		cmocka_unit_test_setup_teardown(impossible_jobs_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(models_that_overflow_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(a_base_that_does_not_fit_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(bytes_are_durable_before_the_name, setup, teardown),
		cmocka_unit_test_setup_teardown(a_failing_disk_never_shows_half_a_model, setup, teardown),
		cmocka_unit_test_setup_teardown(blocks_do_not_show, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
