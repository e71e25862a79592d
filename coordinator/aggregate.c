/*
 * One pass over everything, in the order of the new file:
 *
 *	base file    --+  counters and other tensors that no update is about: copied
 *	               +  tensors that do not travel: copied bit by bit
 *	               +  travelling tensors, in manifest order --> fixed_apply() --> new file
 *	                                                               ^
 *	update 1..n  --> block of integers --> fixed_add() --> block of sums
 *
 * An update is the travelling tensors in manifest order, and so is the end of the new file: a stretch of the one is a stretch of the other.
 * The new file is cut into blocks that do not care where a tensor ends; each is made whole by one thread (aggregate_sum.c). No more than
 * some blocks is held of any model.
 *
 * The new file has the tensors in the order that safetensors_save() gives them. A base that another tool has
 * written in another order becomes one in ours with the first round.
 *
 * Pure: the digest of the result depends on the base, the manifest, the set of (update, weight), the rate and the
 * metadata. Sums are exact integers (update/fixed.c), everything after them is element by element. The spool is not
 * trusted: each file must be long enough for the manifest, each value must be in range (or the sum could wrap), and
 * with a digest the content must be what was sealed.
 *
 * Late updates. sum_k(w_k q_k) / sum_k n_k with w_k <= n_k is the damped mean; both sums are exact, and the bound of fixed.c holds for
 * the smaller weights as for the full ones.
 */
#include "coordinator/aggregate_parts.h"

#include "coordinator/crew.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/* A further thread has to have this much to read: making it takes as long as some hundred KiB. */
enum { THREAD_BYTES = 2 << 20 };

/* ---- the base ---- */

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
		     struct aggregate_piece **ret_pieces)
{
	size_t n = safetensors_count(st), k = 0;
	const struct safetensors_entry **found = find_tensors(st, m);
	struct aggregate_piece *pieces = mem_array(n, sizeof *pieces);
	enum err e = ERR_OK;
	for (size_t i = 0; e == ERR_OK && i < m->n_tensors; i++)
		e = check_entry(path, &m->tensors[i], found[i]);
	if (e == ERR_OK) {
		size_t others = n - m->n_tensors;
		for (size_t i = 0; i < m->n_tensors; i++)
			pieces[others + i] = (struct aggregate_piece){.entry = found[i], .tensor = &m->tensors[i]};
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

static enum err open_base(const char *path, const struct manifest *m, struct aggregate_run *r)
{
	TRY(file_map(path, &r->map));
	TRY(safetensors_parse(path, r->map.content, &r->st));
	TRY(plan(path, r->st, m, &r->pieces));
	for (size_t i = 0; i < safetensors_count(r->st); i++)
		r->pieces[i].from = (uint64_t)(r->pieces[i].entry->data.p - r->map.content.p);
	return ERR_OK;
}

static enum err make_header(struct aggregate_run *r)
{
	size_t n = safetensors_count(r->st);
	const struct safetensors_entry **order = mem_array(n, sizeof *order);
	for (size_t i = 0; i < n; i++)
		order[i] = r->pieces[i].entry;
	enum err e = safetensors_rewrite(r->st, order, n, r->job->meta, &r->header);
	free(order);
	return e;
}

/* ---- inputs ---- */

/* Files that may be kept open: half of what the process may have. */
static size_t open_max(void)
{
	struct rlimit limit;
	return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? (size_t)(limit.rlim_cur / 2) : 0;
}

struct by_path {
	const char *path; /* borrowed */
	size_t input;
};

static int path_order(const void *a, const void *b)
{
	const struct by_path *x = a, *y = b;
	return x->path == y->path ? 0 : strcmp(x->path, y->path);
}

static enum err open_file(const char *path, bool keep, struct aggregate_file *ret_file, uint64_t *ret_size)
{
	struct file *f;
	enum err e = file_open_read(path, &f);
	if (e == ERR_NOT_FOUND)
		return err_add(ERR_CORRUPT, "a sealed update is missing");
	TRY(e);
	*ret_size = file_offset(f);
	if (!keep) {
		file_close(f);
		f = NULL;
	}
	*ret_file = (struct aggregate_file){path, f};
	return ERR_OK;
}

/* Each file once, however many inputs lie in it. */
static enum err open_files(struct aggregate_run *r, const struct by_path *sorted)
{
	size_t n = r->job->n_inputs, want = manifest_update_bytes(r->job->manifest), keep = open_max();
	uint64_t size = 0;
	for (size_t i = 0; i < n; i++) {
		const struct aggregate_input *in = &r->job->inputs[sorted[i].input];
		if (i == 0 || path_order(&sorted[i - 1], &sorted[i]) != 0) {
			TRY(open_file(in->path, r->n_files < keep, &r->files[r->n_files], &size));
			r->n_files++;
		}
		if (in->offset > size || want > size - in->offset)
			return err_set(ERR_CORRUPT, "%s: has %llu bytes; the update at %llu needs %zu", in->path,
				       (unsigned long long)size, (unsigned long long)in->offset, want);
		r->file_of[sorted[i].input] = r->n_files - 1;
	}
	return ERR_OK;
}

static enum err weigh(struct aggregate_run *r)
{
	const struct aggregate_job *job = r->job;
	if (job->n_inputs == 0)
		return err_set(ERR_STATE, "there is no update to aggregate");
	TRY(fixed_check_cohort(job->n_inputs, 1));
	for (size_t i = 0; i < job->n_inputs; i++) {
		const struct aggregate_input *in = &job->inputs[i];
		TRY(fixed_check_cohort(1, in->full > 0 ? (uint64_t)in->full : 0));
		if (in->weight < 1 || in->weight > in->full)
			return err_set(ERR_LIMIT, "%s: a weight of %lld out of %lld", in->path, (long long)in->weight,
				       (long long)in->full);
		r->total += in->full;
	}
	return ERR_OK;
}

static enum err open_inputs(struct aggregate_run *r)
{
	size_t n = r->job->n_inputs;
	TRY(weigh(r));
	r->files = mem_array(n, sizeof *r->files);
	r->file_of = mem_array(n, sizeof *r->file_of);
	struct by_path *sorted = mem_array(n, sizeof *sorted);
	for (size_t i = 0; i < n; i++)
		sorted[i] = (struct by_path){r->job->inputs[i].path, i};
	qsort(sorted, n, sizeof *sorted, path_order);
	enum err e = open_files(r, sorted);
	free(sorted);
	return e;
}

/* ---- blocks ---- */

static void choose_threads(struct aggregate_run *r)
{
	size_t update = manifest_update_bytes(r->job->manifest), elements = r->map.content.n / sizeof(float);
	unsigned n = r->job->threads;
	if (n == 0) {
		size_t pays = 1 + r->job->n_inputs * update / THREAD_BYTES;
		n = crew_cpus();
		n = n < AGGREGATE_THREADS_MAX ? n : AGGREGATE_THREADS_MAX;
		n = n < pays ? n : (unsigned)pays;
	}
	ENSURE(n <= CREW_MAX);
	/* Some blocks for each, so that nobody waits long for the last one. */
	size_t block = n == 1 ? elements : elements / (4 * n);
	block = (block + 1023) / 1024 * 1024;
	if (n > 1 && block < AGGREGATE_BLOCK_MIN)
		block = AGGREGATE_BLOCK_MIN;
	r->threads = n;
	r->block = block < AGGREGATE_BLOCK ? block : AGGREGATE_BLOCK;
}

static struct aggregate_block *next_block(struct aggregate_run *r, size_t *room)
{
	const struct aggregate_block *last = r->n_blocks > 0 ? &r->blocks[r->n_blocks - 1] : NULL;
	uint64_t place = last != NULL ? last->place + last->bytes : r->header.n;
	size_t at = last != NULL ? last->at + last->n : 0;
	if (r->n_blocks == *room) {
		*room = *room > 0 ? 2 * *room : 16;
		r->blocks = mem_grow(r->blocks, *room, sizeof *r->blocks);
	}
	struct aggregate_block *b = &r->blocks[r->n_blocks++];
	*b = (struct aggregate_block){.place = place, .at = at};
	return b;
}

/* Every byte after the header is in one block. Elements that are calculated are never cut, and stand at multiples of 4. */
static void cut(struct aggregate_run *r)
{
	size_t room = 0, size = r->block * sizeof(float), travelled = 0;
	struct aggregate_block *b = NULL;
	for (size_t i = 0; i < safetensors_count(r->st); i++) {
		const struct aggregate_piece *piece = &r->pieces[i];
		bool travels = piece->tensor != NULL && piece->tensor->travels;
		for (size_t done = 0, n; done < piece->entry->data.n; done += n) {
			size_t rest = piece->entry->data.n - done;
			if (b == NULL || b->bytes == size || (travels && b->bytes % sizeof(float) != 0)) {
				b = next_block(r, &room);
				b->piece = i;
				b->skip = done;
			}
			n = rest < size - b->bytes ? rest : size - b->bytes;
			b->bytes += n;
			b->n += travels ? n / sizeof(float) : 0;
		}
		travelled += travels ? piece->tensor->n : 0;
	}
	ENSURE(travelled == r->job->manifest->n_travel);
}

/* ---- the whole ---- */

static enum err prepare(struct aggregate_run *r)
{
	TRY(open_base(r->job->base_path, r->job->manifest, r));
	TRY(open_inputs(r));
	TRY(file_open_read(r->job->base_path, &r->base));
	TRY(make_header(r));
	choose_threads(r);
	cut(r);
	return ERR_OK;
}

static void run_free(struct aggregate_run *r)
{
	for (size_t i = 0; i < r->n_files; i++)
		file_close(r->files[i].file);
	free(r->files);
	free(r->file_of);
	free(r->blocks);
	free(r->pieces);
	file_close(r->base);
	buf_deinit(&r->header);
	safetensors_free(r->st);
	file_unmap(&r->map);
}

/* Best effort: the first error is the one to tell. */
static void discard(const char *path)
{
	char *text = mem_str(err_text());
	enum err unused = file_discard(path);
	err_set(unused, "%s", text);
	free(text);
}

static enum err write_model(const struct aggregate_run *r, struct digest *ret_digest, uint64_t *ret_size)
{
	struct file *out;
	struct digest digest;
	const struct aggregate_block *last = r->n_blocks > 0 ? &r->blocks[r->n_blocks - 1] : NULL;
	TRY(file_create(r->job->out_path, 0600, &out));
	enum err e = aggregate_make(r, out, &digest);
	if (e == ERR_OK)
		e = file_sync_content(out);
	file_close(out);
	if (e != ERR_OK) {
		discard(r->job->out_path);
		return e;
	}
	*ret_digest = digest;
	*ret_size = last != NULL ? last->place + last->bytes : r->header.n;
	return ERR_OK;
}

enum err aggregate_run(const struct aggregate_job *job, struct digest *ret_digest, uint64_t *ret_size)
{
	struct aggregate_run r = {.job = job};
	enum err e = prepare(&r);
	if (e == ERR_OK)
		e = write_model(&r, ret_digest, ret_size);
	run_free(&r);
	return e;
}

enum err aggregate_check_base(const char *base_path, const struct manifest *m)
{
	struct aggregate_run r = {0};
	enum err e = open_base(base_path, m, &r);
	run_free(&r);
	return e;
}
