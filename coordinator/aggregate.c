/*
 * One pass over everything, in the order of the new file:
 *
 *	base file    --+  counters and other tensors that no update is about: copied
 *	               +  tensors that do not travel: copied bit by bit
 *	               +  travelling tensors, in manifest order --> fixed_apply() --> new file
 *	                                                               ^
 *	update 1..n  --> block of integers --> fixed_add() --> block of sums
 *
 * An update is the travelling tensors in manifest order, so writing them in this order reads every update from
 * front to back, in blocks that do not care where a tensor ends. A block of sums (8 bytes an element) and the block
 * of integers that is being added to it (4) share the second-level cache; what comes from memory is each byte of
 * each update, once. No more than this is held of any model.
 *
 * The new file has the tensors in the order that safetensors_save() gives them. A base that another tool has
 * written in another order becomes one in ours with the first round.
 *
 * Pure: the digest of the result depends on the base, the manifest, the set of (update, weight), the rate and the
 * metadata. Sums are exact integers (update/fixed.c), everything after them is element by element. The spool is not
 * trusted: each file must have the length of the manifest, each value must be in range (or the sum could wrap), and
 * with a digest the content must be what was sealed.
 *
 * The file becomes visible under its name when it is complete and durable. Until then it is NAME.part.
 */
#include "coordinator/aggregate.h"

#include "base/file.h"
#include "ml/safetensors.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
	BLOCK = 32 << 10, /* elements */
	OPEN_MAX = 512,   /* update files kept open; those beyond are opened for each block */
};

static const char variance_suffix[] = ".running_var";

struct input {
	const struct aggregate_input *about; /* borrowed */
	struct file *file;                   /* owned; NULL: opened when needed */
	struct digester *digester;           /* owned; NULL: not compared */
};

/* A piece of the new file. */
struct piece {
	const struct safetensors_entry *entry; /* borrowed */
	const struct manifest_tensor *tensor;  /* borrowed; NULL: bytes to be copied */
};

struct run {
	const struct aggregate_job *job;
	struct file_map map;       /* owned: the base, of which only the header is touched */
	struct safetensors *st;    /* owned */
	struct piece *pieces;      /* owned: one for each tensor of the base */
	struct file *base, *out;   /* owned */
	struct digester *digester; /* owned: of the new file */
	struct input *inputs;      /* owned */
	int64_t total;             /* sum of the weights */
	int64_t *sum;              /* owned: (BLOCK) */
	int32_t *q;                /* owned: (BLOCK) */
	float *values;             /* owned: (BLOCK) */
	size_t summed;             /* elements of the updates that have been added up */
	size_t n_sum, used;        /* of the present block: its elements, and those that are in the new file */
};

static enum err check_entry(const char *path, const struct manifest_tensor *t, const struct safetensors_entry *entry)
{
	char have[SHAPE_TEXT_SIZE], want[SHAPE_TEXT_SIZE];
	if (entry == NULL)
		return err_set(ERR_SHAPE, "%s: tensor '%s' is missing", path, t->name);
	if (!shape_equal(&entry->shape, &t->shape))
		return err_set(ERR_SHAPE, "%s: tensor '%s' is %s instead of %s", path, t->name,
			       shape_format(&entry->shape, have), shape_format(&t->shape, want));
	if (strcmp(entry->dtype, "F32") != 0)
		return err_set(ERR_SHAPE, "%s: tensor '%s' is %s; a base model is F32: save it with this software",
			       path, t->name, entry->dtype);
	return ERR_OK;
}

static const struct safetensors_entry **find_tensors(const struct safetensors *st, const struct manifest *m)
{
	const struct safetensors_entry **found = mem_array(m->n_tensors, sizeof *found);
	for (size_t i = 0; i < m->n_tensors; i++)
		found[i] = safetensors_find(st, m->tensors[i].name);
	return found;
}

static int by_place(const void *a, const void *b)
{
	const struct safetensors_entry *const *x = a, *const *y = b;
	return (*x > *y) - (*x < *y);
}

/* What the manifest does not speak of comes first, in its present order, then the tensors of the manifest. */
static enum err plan(const char *path, const struct safetensors *st, const struct manifest *m,
		     struct piece **ret_pieces)
{
	size_t n = safetensors_count(st), k = 0;
	const struct safetensors_entry **found = find_tensors(st, m);
	struct piece *pieces = mem_array(n, sizeof *pieces);
	enum err e = ERR_OK;
	for (size_t i = 0; e == ERR_OK && i < m->n_tensors; i++)
		e = check_entry(path, &m->tensors[i], found[i]);
	if (e == ERR_OK) {
		size_t others = n - m->n_tensors;
		for (size_t i = 0; i < m->n_tensors; i++)
			pieces[others + i] = (struct piece){found[i], &m->tensors[i]};
		qsort(found, m->n_tensors, sizeof *found, by_place);
		for (size_t i = 0, f = 0; i < n; i++) {
			const struct safetensors_entry *entry = safetensors_at(st, i);
			if (f < m->n_tensors && found[f] == entry)
				f++;
			else
				pieces[k++].entry = entry;
		}
		ENSURE(k == others);
	}
	free(found);
	if (e != ERR_OK) {
		free(pieces);
		return e;
	}
	*ret_pieces = pieces;
	return ERR_OK;
}

static enum err open_base(const char *path, const struct manifest *m, struct run *r)
{
	TRY(file_map(path, &r->map));
	TRY(safetensors_parse(path, r->map.content, &r->st));
	return plan(path, r->st, m, &r->pieces);
}

static enum err open_input(const struct aggregate_input *about, size_t want, struct file **ret_file)
{
	uint64_t size;
	enum err e = file_size(about->path, &size);
	if (e == ERR_NOT_FOUND)
		return err_add(ERR_CORRUPT, "a sealed update is missing");
	TRY(e);
	/* Behind it there may be others. */
	if (size < about->offset || size - about->offset < want)
		return err_set(ERR_CORRUPT, "%s: has %llu bytes instead of %zu from byte %llu on", about->path,
			       (unsigned long long)size, want, (unsigned long long)about->offset);
	return file_open_read(about->path, ret_file);
}

static enum err open_inputs(struct run *r)
{
	const struct aggregate_job *job = r->job;
	if (job->n_inputs == 0)
		return err_set(ERR_STATE, "there is no update to aggregate");
	TRY(fixed_check_cohort(job->n_inputs, 1));
	r->inputs = mem_array(job->n_inputs, sizeof *r->inputs);
	for (size_t i = 0; i < job->n_inputs; i++) {
		struct input *in = &r->inputs[i];
		in->about = &job->inputs[i];
		TRY(fixed_check_cohort(1, in->about->weight > 0 ? (uint64_t)in->about->weight : 0));
		r->total += in->about->weight;
		TRY(open_input(in->about, manifest_update_bytes(job->manifest), &in->file));
		if (i >= OPEN_MAX) {
			file_close(in->file);
			in->file = NULL;
		}
		if (in->about->digest != NULL)
			in->digester = digest_begin();
	}
	return ERR_OK;
}

static enum err read_input(const struct input *in, uint64_t offset, void *p, size_t n)
{
	if (in->file != NULL)
		return file_read_at(in->file, offset, p, n);
	struct file *f;
	TRY(file_open_read(in->about->path, &f));
	enum err e = file_read_at(f, offset, p, n);
	file_close(f);
	return e;
}

/* The sums of the next block. */
static enum err add_up(struct run *r)
{
	size_t rest = r->job->manifest->n_travel - r->summed, n = rest < BLOCK ? rest : BLOCK;
	memset(r->sum, 0, n * sizeof *r->sum);
	for (size_t i = 0; i < r->job->n_inputs; i++) {
		const struct input *in = &r->inputs[i];
		TRY(read_input(in, in->about->offset + r->summed * sizeof *r->q, r->q, n * sizeof *r->q));
		if (in->digester != NULL)
			digest_add(in->digester, r->q, n * sizeof *r->q);
		fixed_order(r->q, n);
		if (!fixed_in_range(r->q, n))
			return err_set(ERR_CORRUPT, "%s: holds a value that no update can have", in->about->path);
		fixed_add(r->sum, r->q, n, in->about->weight);
	}
	r->summed += n;
	r->n_sum = n;
	r->used = 0;
	return ERR_OK;
}

static enum err put(struct run *r, const void *p, size_t n)
{
	digest_add(r->digester, p, n);
	return file_write(r->out, p, n);
}

static uint64_t place_of(const struct run *r, const struct safetensors_entry *entry)
{
	return (uint64_t)(entry->data.p - r->map.content.p);
}

static enum err copy(struct run *r, const struct safetensors_entry *entry)
{
	uint64_t offset = place_of(r, entry);
	for (size_t at = 0; at < entry->data.n;) {
		size_t rest = entry->data.n - at, block = BLOCK * sizeof *r->values, n = rest < block ? rest : block;
		TRY(file_read_at(r->base, offset + at, r->values, n));
		TRY(put(r, r->values, n));
		at += n;
	}
	return ERR_OK;
}

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), k = strlen(end);
	return n >= k && strcmp(s + n - k, end) == 0;
}

static bool all_finite(const float *v, size_t n)
{
	unsigned bad = 0;
	for (size_t i = 0; i < n; i++)
		bad |= !(fabsf(v[i]) <= FLT_MAX);
	return !bad;
}

/* n elements of tensor t, the next ones of the block of sums. */
static enum err renew(struct run *r, const struct manifest_tensor *t, uint64_t offset, size_t n)
{
	bool statistic = t->role == TENSOR_STATISTIC;
	float *v = r->values;
	TRY(file_read_at(r->base, offset, v, n * sizeof *v));
	fixed_order(v, n);
	fixed_apply(v, r->sum + r->used, n, r->total, t->scale, statistic ? 1 : r->job->server_rate, v);
	if (!all_finite(v, n))
		return err_set(ERR_NUMERIC, "%s of the new model would not be finite", t->name);
	for (size_t i = 0; i < n && statistic && ends_with(t->name, variance_suffix); i++)
		v[i] = v[i] < 0 ? 0 : v[i];
	fixed_order(v, n);
	return put(r, v, n * sizeof *v);
}

static enum err combine(struct run *r, const struct piece *piece)
{
	uint64_t offset = place_of(r, piece->entry);
	for (size_t at = 0; at < piece->tensor->n;) {
		if (r->used == r->n_sum)
			TRY(add_up(r));
		size_t rest = piece->tensor->n - at, have = r->n_sum - r->used, n = rest < have ? rest : have;
		TRY(renew(r, piece->tensor, offset + at * sizeof(float), n));
		r->used += n;
		at += n;
	}
	return ERR_OK;
}

static enum err write_header(struct run *r)
{
	size_t n = safetensors_count(r->st);
	const struct safetensors_entry **order = mem_array(n, sizeof *order);
	struct buf header;
	for (size_t i = 0; i < n; i++)
		order[i] = r->pieces[i].entry;
	enum err e = safetensors_rewrite(r->st, order, n, r->job->meta, &header);
	free(order);
	TRY(e);
	e = put(r, header.p, header.n);
	buf_deinit(&header);
	return e;
}

static enum err compare_digests(struct run *r)
{
	for (size_t i = 0; i < r->job->n_inputs; i++) {
		struct input *in = &r->inputs[i];
		if (in->digester == NULL)
			continue;
		struct digest got = digest_end(in->digester);
		in->digester = NULL;
		if (!digest_equal(&got, in->about->digest))
			return err_set(ERR_CORRUPT, "%s: is not the update that was sealed", in->about->path);
	}
	return ERR_OK;
}

/* Before anything is made of it: the pieces below are not read in the order of the file. */
static enum err check_base_digest(const struct aggregate_job *job)
{
	struct digest got;
	if (job->base_digest == NULL)
		return ERR_OK;
	TRY(digest_file(job->base_path, &got, NULL));
	return digest_equal(&got, job->base_digest)
		       ? ERR_OK
		       : err_set(ERR_CORRUPT, "%s: is not the model that the round began with", job->base_path);
}

static enum err write_model(struct run *r, const char *part_path)
{
	TRY(check_base_digest(r->job));
	TRY(file_open_read(r->job->base_path, &r->base));
	TRY(file_create(part_path, 0600, &r->out));
	r->digester = digest_begin();
	r->sum = mem_aligned(BLOCK * sizeof *r->sum);
	r->q = mem_aligned(BLOCK * sizeof *r->q);
	r->values = mem_aligned(BLOCK * sizeof *r->values);
	TRY(write_header(r));
	for (size_t i = 0; i < safetensors_count(r->st); i++) {
		const struct piece *piece = &r->pieces[i];
		bool travels = piece->tensor != NULL && piece->tensor->travels;
		TRY(travels ? combine(r, piece) : copy(r, piece->entry));
	}
	ENSURE(r->summed == r->job->manifest->n_travel && r->used == r->n_sum);
	TRY(compare_digests(r));
	TRY(file_sync(r->out));
	return file_rename(part_path, r->job->out_path);
}

static void run_free(struct run *r)
{
	for (size_t i = 0; r->inputs != NULL && i < r->job->n_inputs; i++) {
		file_close(r->inputs[i].file);
		digest_free(r->inputs[i].digester);
	}
	free(r->inputs);
	file_close(r->base);
	file_close(r->out);
	digest_free(r->digester);
	free(r->sum);
	free(r->q);
	free(r->values);
	free(r->pieces);
	safetensors_free(r->st);
	file_unmap(&r->map);
}

/* Best effort: the first error is the one to tell. */
static void remove_quietly(const char *path)
{
	char *text = mem_str(err_text());
	enum err unused = file_remove(path);
	err_set(unused, "%s", text);
	free(text);
}

enum err aggregate_run(const struct aggregate_job *job, struct digest *ret_digest, uint64_t *ret_size)
{
	struct run r = {.job = job};
	char *part_path = mem_printf("%s.part", job->out_path);
	enum err e = open_base(job->base_path, job->manifest, &r);
	if (e == ERR_OK)
		e = open_inputs(&r);
	if (e == ERR_OK)
		e = write_model(&r, part_path);
	if (e == ERR_OK) {
		*ret_size = file_offset(r.out);
		*ret_digest = digest_end(r.digester);
		r.digester = NULL;
	} else if (r.out != NULL) {
		remove_quietly(part_path);
	}
	run_free(&r);
	free(part_path);
	return e;
}

enum err aggregate_check_base(const char *base_path, const struct manifest *m)
{
	struct run r = {0};
	enum err e = open_base(base_path, m, &r);
	run_free(&r);
	return e;
}
