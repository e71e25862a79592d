#include "coordinator/fixture.h"

#include "coordinator/aggregate.h"
#include "ml/safetensors.h"

#include <math.h>
#include <stdatomic.h>
#include <sys/resource.h>

enum { PLANTS = 5 };

static char *dir, *base_path, *out_path;
static struct model *base;
static struct manifest *m;
static struct bytes updates[PLANTS];
static struct digest digests[PLANTS];
static char *paths[PLANTS];
static const int64_t weights[PLANTS] = {3, 1000, 17, 1, 250};
static unsigned threads; /* of run(): setup() sets 1 */

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
	threads = 1;
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

static struct aggregate_input input_of(size_t i, bool compared)
{
	return (struct aggregate_input){
		.path = paths[i], .weight = weights[i], .full = weights[i], .digest = compared ? &digests[i] : NULL};
}

static struct aggregate_job job_of(const struct aggregate_input *inputs, size_t n)
{
	return (struct aggregate_job){.base_path = base_path,
				      .manifest = m,
				      .inputs = inputs,
				      .n_inputs = n,
				      .server_rate = 1,
				      .out_path = out_path,
				      .threads = threads};
}

/* The digest is that of the file. */
static enum err run(const struct aggregate_job *job, struct digest *ret_digest)
{
	struct digest on_disk;
	uint64_t size = 0, there;
	enum err e = aggregate_run(job, ret_digest, &size);
	if (e != ERR_OK)
		return e;
	assert_ok(digest_file(out_path, &on_disk, &there));
	assert_true(digest_equal(ret_digest, &on_disk));
	assert_int_equal(size, there);
	return e;
}

/* Aggregate the updates in the order `order` (n of them). */
static enum err run_with(const uint32_t *order, size_t n, double rate, const struct json *meta,
			 struct digest *ret_digest)
{
	struct aggregate_input inputs[PLANTS];
	for (size_t i = 0; i < n; i++)
		inputs[i] = input_of(order[i], true);
	struct aggregate_job job = job_of(inputs, n);
	job.server_rate = rate;
	job.meta = meta;
	return run(&job, ret_digest);
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
	static const int64_t any[] = {5, 1 << 20, 77};
	struct aggregate_input inputs[3];
	for (size_t i = 0; i < 3; i++) {
		inputs[i] = input_of(2, false);
		inputs[i].weight = inputs[i].full = any[i];
	}
	struct digest one, three;
	struct aggregate_job job = job_of(inputs, 3);
	assert_ok(run(&job, &three));
	job.n_inputs = 1;
	assert_ok(run(&job, &one));
	assert_true(digest_equal(&one, &three));
}

/* What is late counts less, and its share is not given to the others: the step is shorter. */
static void late_updates_damp_the_step(void **state)
{
	(void)state;
	static const int64_t late[PLANTS] = {1, 1000, 6, 1, 125};
	struct aggregate_input inputs[PLANTS];
	struct digest d, in_time;
	struct model *new;
	int64_t total = 0;
	make_updates(NULL, NULL);
	assert_ok(run_with(in_order, PLANTS, 1, NULL, &in_time));
	for (size_t i = 0; i < PLANTS; i++) {
		inputs[i] = input_of(i, true);
		inputs[i].weight = late[i];
		total += inputs[i].full;
	}
	struct aggregate_job job = job_of(inputs, PLANTS);
	assert_ok(run(&job, &d));
	assert_false(digest_equal(&d, &in_time));
	assert_ok(safetensors_load(out_path, &new));
	for (size_t i = 0; i < m->n_tensors; i++) {
		const struct manifest_tensor *t = &m->tensors[i];
		for (size_t k = 0; k < t->n; k++) {
			int64_t sum = 0;
			for (size_t p = 0; p < PLANTS; p++)
				sum += late[p] * element(updates[p], t->at + k);
			float want = (float)((double)base->theta[t->offset + k] +
					     (double)sum / (double)total * ldexp(1, -t->scale));
			assert_memory_equal(&new->theta[t->offset + k], &want, sizeof want);
		}
	}
	model_free(new);
	/* All as late as each other: not the plain mean either. */
	for (size_t i = 0; i < PLANTS; i++) {
		inputs[i].weight = weights[i];
		inputs[i].full = 2 * weights[i];
	}
	assert_ok(run(&job, &d));
	assert_false(digest_equal(&d, &in_time));
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
	uint8_t *p = mem_array(updates[2].n + 4, 1);
	memcpy(p, updates[2].p, updates[2].n);
	write_file(paths[2], bytes_of(p, updates[2].n - 4));
	assert_fails(run_with(in_order, PLANTS, 1, NULL, &d), ERR_CORRUPT, "update-2: has");
	write_file(paths[2], bytes_of(p, 0));
	assert_fails(run_with(in_order, PLANTS, 1, NULL, &d), ERR_CORRUPT, "update-2: has 0 bytes");
	p[40] ^= 1;
	write_file(paths[2], bytes_of(p, updates[2].n));
	assert_fails(run_with(in_order, PLANTS, 1, NULL, &d), ERR_CORRUPT,
		     "update-2: is not the update that was sealed");
	memcpy(p + 40, "\x00\x00\xc0\x7f", 4); /* NaN */
	write_file(paths[2], bytes_of(p, updates[2].n));
	assert_fails(run_with(in_order, PLANTS, 1, NULL, &d), ERR_CORRUPT,
		     "update-2: is not the update that was sealed");
	struct aggregate_input inputs[PLANTS];
	for (size_t i = 0; i < PLANTS; i++)
		inputs[i] = input_of(i, false);
	struct aggregate_job job = job_of(inputs, PLANTS);
	assert_fails(run(&job, &d), ERR_CORRUPT, "update-2: holds a value");
	inputs[3].offset = 1;
	assert_fails(run(&job, &d), ERR_CORRUPT, "update-3: has");
	inputs[3].offset = UINT64_MAX;
	assert_fails(run(&job, &d), ERR_CORRUPT, "update-3: has");
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
	make_updates(NULL, NULL);
	assert_ok(digest_file(base_path, &before, NULL));
	struct aggregate_input input = input_of(0, true);
	struct aggregate_job job = job_of(&input, 1);
	job.base_digest = &before;
	assert_ok(run(&job, &d));
	assert_ok(file_remove(out_path));
	assert_ok(file_read(base_path, 1 << 20, &content));
	content.p[content.n - 1] ^= 1; /* still a model */
	write_file(base_path, buf_bytes(&content));
	buf_deinit(&content);
	d = (struct digest){{0}};
	assert_fails(run(&job, &d), ERR_CORRUPT, "not the model that the round began with");
	assert_true(digest_is_zero(&d));
	assert_false(file_exists(out_path));
	assert_int_equal(count_files(dir, ".part"), 0);
}

static void impossible_jobs_are_refused(void **state)
{
	(void)state;
	struct digest d;
	make_updates(NULL, NULL);
	struct aggregate_input inputs[2] = {input_of(0, false), input_of(1, false)};
	struct aggregate_job job = job_of(inputs, 0);
	assert_fails(run(&job, &d), ERR_STATE, "no update");
	job.n_inputs = FIXED_PLANTS_MAX + 1;
	assert_fails(run(&job, &d), ERR_LIMIT, "plants");
	job.n_inputs = 2;
	static const int64_t bad[] = {0, -1, FIXED_WEIGHT_MAX + 1, INT64_MIN, INT64_MAX};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		inputs[1].full = FIXED_WEIGHT_MAX;
		inputs[1].weight = bad[i];
		assert_fails(run(&job, &d), ERR_LIMIT, "weight");
		inputs[1].weight = 1;
		inputs[1].full = bad[i];
		assert_fails(run(&job, &d), ERR_LIMIT, "weight");
	}
	inputs[1].full = 5;
	inputs[1].weight = 6; /* more than in time */
	assert_fails(run(&job, &d), ERR_LIMIT, "update-1: a weight of 6 out of 5");
	inputs[1].weight = inputs[1].full = FIXED_WEIGHT_MAX;
	assert_ok(run(&job, &d));
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

/* The name is for who gives it the lasting one, and syncs the directory then. */
static void bytes_are_durable_when_it_returns(void **state)
{
	(void)state;
	struct disk_tape tape;
	struct digest d;
	make_updates(NULL, NULL);
	disk_tape_insert(&tape);
	assert_ok(run_with(in_order, PLANTS, 1, NULL, &d));
	assert_string_equal(tape.ops, "CWS");
}

static void a_failing_disk_is_told(void **state)
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
			assert_true(e == ERR_OK || stays || !file_exists(out_path));
			failures += hit;
		}
		assert_true(digest_equal(&d, &whole));
		assert_true(failures >= 4); /* create, header, block, sync */
	}
	/* What a crash left behind is in nobody's way. */
	write_file(out_path, bytes_of(updates[0].p, updates[0].n));
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

static void take_wide_model(const char *freeze)
{
	model_free(base);
	base = model_make(wide_model, 3);
	assert_ok(safetensors_save(base_path, base, NULL));
	make_updates(freeze, NULL);
}

static const unsigned thread_counts[] = {1, 2, 3, 8, 0};
enum { COUNTS = sizeof thread_counts / sizeof thread_counts[0] };

/* Several blocks, which end within tensors. */
static void blocks_do_not_show(void **state)
{
	(void)state;
	struct digest d;
	take_wide_model("head.bias");
	for (size_t i = 0; i < COUNTS; i++) {
		threads = thread_counts[i];
		assert_ok(run_with(in_order, PLANTS, 1, NULL, &d));
		assert_new_model(1);
	}
}

/* All updates in one file, one after another, in the order `order`, with something before each. */
static char *make_batch(const uint32_t *order, uint64_t offsets[PLANTS])
{
	enum { GAP = 12 };
	struct buf b;
	char *path = at("batch");
	buf_init(&b, PLANTS * (updates[0].n + GAP));
	for (size_t i = 0; i < PLANTS; i++) {
		assert_ok(buf_append(&b, "not an update", GAP));
		offsets[order[i]] = b.n;
		assert_ok(buf_append(&b, updates[order[i]].p, updates[order[i]].n));
	}
	write_file(path, buf_bytes(&b));
	buf_deinit(&b);
	return path;
}

static void neither_threads_nor_order_nor_files_show(void **state)
{
	(void)state;
	struct digest first, d, base_digest;
	uint32_t order[PLANTS];
	uint64_t offsets[PLANTS];
	struct rng r;
	rng_seed(&r, 7);
	take_wide_model(NULL);
	memcpy(order, in_order, sizeof order);
	assert_ok(digest_file(base_path, &base_digest, NULL));
	assert_ok(run_with(in_order, PLANTS, 1, NULL, &first));
	for (unsigned i = 0; i < 20; i++) {
		struct aggregate_input inputs[PLANTS];
		rng_shuffle(&r, order, PLANTS);
		char *batch = make_batch(order, offsets);
		for (size_t k = 0; k < PLANTS; k++) {
			inputs[k] = input_of(order[k], rng_below(&r, 2) == 0);
			if (rng_below(&r, 2) == 0)
				continue;
			inputs[k].path = batch;
			inputs[k].offset = offsets[order[k]];
		}
		threads = thread_counts[i % COUNTS];
		struct aggregate_job job = job_of(inputs, PLANTS);
		job.base_digest = i % 2 == 0 ? &base_digest : NULL;
		assert_ok(run(&job, &d));
		assert_true(digest_equal(&first, &d));
		free(batch);
	}
}

/* The last update of a batch that was cut, and a wrong one in its middle. */
static void a_damaged_batch_is_found(void **state)
{
	(void)state;
	struct digest d;
	uint64_t offsets[PLANTS];
	struct aggregate_input inputs[PLANTS];
	struct buf content;
	make_updates(NULL, NULL);
	char *batch = make_batch(in_order, offsets);
	for (size_t i = 0; i < PLANTS; i++) {
		inputs[i] = input_of(i, true);
		inputs[i].path = batch;
		inputs[i].offset = offsets[i];
	}
	struct aggregate_job job = job_of(inputs, PLANTS);
	assert_ok(run(&job, &d));
	assert_ok(file_read(batch, 1 << 20, &content));
	write_file(batch, bytes_of(content.p, content.n - 1));
	assert_fails(run(&job, &d), ERR_CORRUPT, "batch: has");
	content.p[offsets[2]] ^= 1;
	write_file(batch, buf_bytes(&content));
	assert_fails(run(&job, &d), ERR_CORRUPT, "batch: is not the update that was sealed");
	inputs[2].digest = NULL;
	assert_ok(run(&job, &d));
	buf_deinit(&content);
	free(batch);
}

/* More files than may be kept open. */
static void files_beyond_what_may_be_open(void **state)
{
	(void)state;
	enum { MANY = 40 };
	struct digest d, first;
	struct rlimit limit, low;
	char *copies[MANY];
	make_updates(NULL, NULL);
	struct aggregate_input inputs[MANY];
	for (size_t i = 0; i < MANY; i++) {
		char name[16];
		snprintf(name, sizeof name, "copy-%zu", i);
		copies[i] = at(name);
		write_file(copies[i], updates[i % PLANTS]);
		inputs[i] = input_of(i % PLANTS, true);
		inputs[i].path = copies[i];
	}
	struct aggregate_job job = job_of(inputs, MANY);
	assert_ok(run(&job, &first));
	assert_new_model(1);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	low = limit;
	low.rlim_cur = 30;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	for (size_t i = 0; i < COUNTS; i++) {
		job.threads = thread_counts[i];
		assert_ok(run(&job, &d));
		assert_true(digest_equal(&d, &first));
	}
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	for (size_t i = 0; i < MANY; i++)
		free(copies[i]);
}

/* Which error is told is that of the first block in the file, however many threads find some. */
static void the_first_error_is_told_by_any_number_of_threads(void **state)
{
	(void)state;
	struct digest d = {{0}};
	struct aggregate_input inputs[PLANTS];
	take_wide_model(NULL);
	static const struct {
		size_t plant, percent;
	} bad[] = {{1, 90}, {3, 20}, {0, 60}};
	for (size_t i = 0; i < PLANTS; i++)
		inputs[i] = input_of(i, false);
	for (size_t b = 0; b < sizeof bad / sizeof bad[0]; b++) {
		uint8_t *p = mem_array(updates[0].n, 1);
		memcpy(p, updates[bad[b].plant].p, updates[0].n);
		memset(p + updates[0].n / 400 * bad[b].percent * 4, 0x7f, 4);
		write_file(paths[bad[b].plant], bytes_of(p, updates[0].n));
		free(p);
	}
	for (size_t i = 0; i < 3 * COUNTS; i++) {
		threads = thread_counts[i % COUNTS];
		struct aggregate_job job = job_of(inputs, PLANTS);
		assert_fails(run(&job, &d), ERR_CORRUPT, "update-3: holds a value");
		assert_false(file_exists(out_path));
		/* Digests come first. */
		inputs[4].digest = &digests[0];
		assert_fails(run(&job, &d), ERR_CORRUPT, "update-4: is not the update that was sealed");
		inputs[4].digest = NULL;
	}
	assert_true(digest_is_zero(&d));
}

static atomic_int writes_left;

static enum err full_disk(void *arg, enum file_op op, const char *path, size_t n, size_t *ret_short)
{
	(void)arg, (void)path;
	if (op != FILE_OP_WRITE || atomic_fetch_sub(&writes_left, 1) > 0)
		return ERR_OK;
	*ret_short = n / 2;
	return ERR_IO;
}

static void a_full_disk_stops_all_threads(void **state)
{
	(void)state;
	struct digest d, first;
	take_wide_model(NULL);
	assert_ok(run_with(in_order, PLANTS, 1, NULL, &first));
	for (int n = 0; n < 30; n++) {
		threads = thread_counts[n % COUNTS];
		atomic_store(&writes_left, n);
		file_set_hook(full_disk, NULL);
		enum err e = run_with(in_order, PLANTS, 1, NULL, &d);
		file_set_hook(NULL, NULL);
		bool hit = atomic_load(&writes_left) < 0;
		assert_int_equal(e, hit ? ERR_IO : ERR_OK);
		assert_true(!hit || strstr(err_text(), "injected fault") != NULL);
		assert_int_equal(file_exists(out_path), !hit);
		assert_true(hit || digest_equal(&d, &first));
	}
}

static atomic_int calls;

static void count_call(void *arg)
{
	assert_ptr_equal(arg, &calls);
	atomic_fetch_add(&calls, 1);
}

/* A long one is seen to get on, also while it only compares. */
static void progress_is_told(void **state)
{
	(void)state;
	struct aggregate_input inputs[PLANTS];
	struct digest d;
	take_wide_model(NULL);
	for (size_t i = 0; i < COUNTS; i++) {
		int made[2];
		threads = thread_counts[i];
		for (int compared = 0; compared <= 1; compared++) {
			for (size_t k = 0; k < PLANTS; k++)
				inputs[k] = input_of(k, compared == 1);
			struct aggregate_job job = job_of(inputs, PLANTS);
			job.progress = count_call;
			job.progress_arg = &calls;
			atomic_store(&calls, 0);
			assert_ok(run(&job, &d));
			made[compared] = atomic_load(&calls);
		}
		assert_true(made[0] > 1);
		assert_true(made[1] >= made[0] + PLANTS);
	}
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
		cmocka_unit_test_setup_teardown(late_updates_damp_the_step, setup, teardown),
		cmocka_unit_test_setup_teardown(bytes_are_durable_when_it_returns, setup, teardown),
		cmocka_unit_test_setup_teardown(a_failing_disk_is_told, setup, teardown),
		cmocka_unit_test_setup_teardown(blocks_do_not_show, setup, teardown),
		cmocka_unit_test_setup_teardown(neither_threads_nor_order_nor_files_show, setup, teardown),
		cmocka_unit_test_setup_teardown(a_damaged_batch_is_found, setup, teardown),
		cmocka_unit_test_setup_teardown(files_beyond_what_may_be_open, setup, teardown),
		cmocka_unit_test_setup_teardown(the_first_error_is_told_by_any_number_of_threads, setup, teardown),
		cmocka_unit_test_setup_teardown(a_full_disk_stops_all_threads, setup, teardown),
		cmocka_unit_test_setup_teardown(progress_is_told, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
