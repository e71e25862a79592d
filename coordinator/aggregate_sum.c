/*
 * The floor. An element of an update is 4 bytes that have to come from memory, once; all else can stay in cache. Measured in one run on
 * two cores of an EPYC 9005, 16 updates of 46.8 MB, GB/s of updates with one thread and with two (ext4, page cache; tmpfs is alike):
 *
 *	summing from memory, 4 updates at a time        29.8   54.5      the floor: a pass of 16 updates over the sums costs more than
 *	summing from memory, one at a time              13.8   27.7      reading them does
 *	pread() of 16 KiB, then sum                     12.4   22.5
 *	pread() of 128 KiB, then sum                    19.5   36.0      <- this one
 *	pread() of 128 KiB, 4 updates at a time         19.8   36.9
 *	mmap() of 4 MiB, faults                         20.7   31.1
 *	mmap() of 4 MiB, MAP_POPULATE or MADV_POPULATE  11.7   17.4
 *
 * pread() copies from the page cache into 128 KiB that stay in the second-level cache, beside the 256 KiB of their sums. That is as fast as
 * any mapping: page tables cost as much as the copy. It keeps no page of the spool in this process, and a file that was cut or cannot be
 * read is an error instead of a signal. The check of the range rides along with the addition for nothing.
 *
 * Threads take blocks of the new file in order and make each whole: sum, apply, write. Elements do not know of each other, so neither the
 * number of threads nor where blocks end can show in the result. Digests that are to be compared come first, a file each: they are items
 * like blocks are, and nobody waits for them.
 */
#include "coordinator/aggregate_parts.h"

#include "coordinator/crew.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char variance_suffix[] = ".running_var";

/* Of a block, between two calls of progress: some MiB. */
enum { PROGRESS_INPUTS = 64 };

/* What one thread needs. */
struct worker {
	int64_t *sum; /* owned: (block) */
	int32_t *q;   /* owned: (block) */
};

/* A digest to be compared. */
struct check {
	const struct aggregate_input *input; /* borrowed; NULL: the base */
	size_t file;
};

struct making {
	const struct aggregate_run *r;
	struct file *out;            /* borrowed */
	struct aggregate_tail *tail; /* owned */
	struct worker *workers;      /* owned */
	struct check *checks;        /* owned */
	size_t n_checks;
};

static enum err read_file(const struct aggregate_file *f, uint64_t offset, void *p, size_t n)
{
	if (f->file != NULL)
		return file_read_at(f->file, offset, p, n);
	struct file *file;
	TRY(file_open_read(f->path, &file));
	enum err e = file_read_at(file, offset, p, n);
	file_close(file);
	return e;
}

static void get_on(const struct aggregate_run *r)
{
	if (r->job->progress != NULL)
		r->job->progress(r->job->progress_arg);
}

static enum err add_up(const struct aggregate_run *r, const struct worker *w, const struct aggregate_block *b)
{
	memset(w->sum, 0, b->n * sizeof *w->sum);
	for (size_t i = 0; i < r->job->n_inputs; i++) {
		const struct aggregate_input *in = &r->job->inputs[i];
		TRY(read_file(&r->files[r->file_of[i]], in->offset + b->at * sizeof *w->q, w->q, b->n * sizeof *w->q));
		fixed_order(w->q, b->n);
		if (!fixed_add(w->sum, w->q, b->n, in->weight))
			return err_set(ERR_CORRUPT, "%s: holds a value that no update can have", in->path);
		if (i % PROGRESS_INPUTS == PROGRESS_INPUTS - 1)
			get_on(r);
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

/* n elements of tensor t, from the base to the new model, in place. */
static enum err renew(const struct aggregate_run *r, const struct manifest_tensor *t, float *v, const int64_t *sum,
		      size_t n)
{
	bool statistic = t->role == TENSOR_STATISTIC;
	fixed_order(v, n);
	fixed_apply(v, sum, n, r->total, t->scale, statistic ? 1 : r->job->server_rate, v);
	if (!all_finite(v, n))
		return err_set(ERR_NUMERIC, "%s of the new model would not be finite", t->name);
	if (statistic && ends_with(t->name, variance_suffix)) {
		for (size_t i = 0; i < n; i++)
			v[i] = v[i] < 0 ? 0 : v[i];
	}
	fixed_order(v, n);
	return ERR_OK;
}

/* The block's bytes of the new file into `out`. */
static enum err fill(const struct aggregate_run *r, const struct worker *w, const struct aggregate_block *b,
		     uint8_t *out)
{
	const struct aggregate_piece *piece = &r->pieces[b->piece];
	size_t skip = b->skip, used = 0;
	if (b->n > 0)
		TRY(add_up(r, w, b));
	for (size_t at = 0; at < b->bytes; piece++, skip = 0) {
		size_t rest = piece->entry->data.n - skip, room = b->bytes - at, n = rest < room ? rest : room;
		TRY(file_read_at(r->base, piece->from + skip, out + at, n));
		if (piece->tensor != NULL && piece->tensor->travels) {
			TRY(renew(r, piece->tensor, (float *)(void *)(out + at), w->sum + used, n / sizeof(float)));
			used += n / sizeof(float);
		}
		at += n;
	}
	ENSURE(used == b->n);
	return ERR_OK;
}

static enum err make_block(struct making *m, const struct worker *w, size_t k)
{
	const struct aggregate_block *b = &m->r->blocks[k];
	uint8_t *out = aggregate_tail_take(m->tail, k);
	/* An earlier block has failed, and its error is the one to tell. */
	if (out == NULL)
		return err_set(ERR_STATE, "given up");
	enum err e = fill(m->r, w, b, out);
	if (e == ERR_OK)
		e = file_write_at(m->out, b->place, out, b->bytes);
	if (e == ERR_OK)
		aggregate_tail_put(m->tail, k, b->bytes);
	else
		aggregate_tail_break(m->tail);
	get_on(m->r);
	return e;
}

static enum err digest_range(const struct aggregate_run *r, const struct worker *w, const struct aggregate_file *f,
			     uint64_t offset, uint64_t size, struct digest *ret_digest)
{
	size_t block = r->block * sizeof *w->q;
	struct digester *d = digest_begin();
	for (uint64_t at = 0; at < size;) {
		size_t n = size - at < block ? (size_t)(size - at) : block;
		enum err e = read_file(f, offset + at, w->q, n);
		if (e != ERR_OK) {
			digest_free(d);
			return e;
		}
		digest_add(d, w->q, n);
		at += n;
		get_on(r);
	}
	*ret_digest = digest_end(d);
	return ERR_OK;
}

static enum err compare(const struct aggregate_run *r, const struct worker *w, const struct check *c)
{
	struct digest got;
	if (c->input == NULL) {
		const struct aggregate_file base = {r->job->base_path, r->base};
		TRY(digest_range(r, w, &base, 0, r->map.content.n, &got));
		return digest_equal(&got, r->job->base_digest)
			       ? ERR_OK
			       : err_set(ERR_CORRUPT, "%s: is not the model that the round began with", base.path);
	}
	const struct aggregate_file *f = &r->files[c->file];
	TRY(digest_range(r, w, f, c->input->offset, manifest_update_bytes(r->job->manifest), &got));
	return digest_equal(&got, c->input->digest)
		       ? ERR_OK
		       : err_set(ERR_CORRUPT, "%s: is not the update that was sealed", f->path);
}

static enum err do_item(void *arg, unsigned worker, size_t item)
{
	struct making *m = arg;
	const struct worker *w = &m->workers[worker];
	return item < m->n_checks ? compare(m->r, w, &m->checks[item]) : make_block(m, w, item - m->n_checks);
}

static void list_checks(struct making *m)
{
	const struct aggregate_job *job = m->r->job;
	m->checks = mem_array(job->n_inputs + 1, sizeof *m->checks);
	if (job->base_digest != NULL)
		m->n_checks++;
	for (size_t i = 0; i < job->n_inputs; i++) {
		if (job->inputs[i].digest != NULL)
			m->checks[m->n_checks++] = (struct check){&job->inputs[i], m->r->file_of[i]};
	}
}

enum err aggregate_make(const struct aggregate_run *r, struct file *out, struct digest *ret_digest)
{
	struct making m = {.r = r, .out = out};
	struct bytes header = buf_bytes(&r->header);
	TRY(file_write(out, header.p, header.n));
	list_checks(&m);
	m.workers = mem_array(r->threads, sizeof *m.workers);
	for (unsigned i = 0; i < r->threads; i++) {
		m.workers[i].sum = mem_aligned(r->block * sizeof *m.workers[i].sum);
		m.workers[i].q = mem_aligned(r->block * sizeof *m.workers[i].q);
	}
	m.tail = aggregate_tail_new(out, r->threads, r->block * sizeof(float));
	aggregate_tail_begin(m.tail, header);
	enum err e = crew_run(r->threads, m.n_checks + r->n_blocks, do_item, &m);
	if (e == ERR_OK)
		*ret_digest = aggregate_tail_end(m.tail);
	aggregate_tail_free(m.tail);
	for (unsigned i = 0; i < r->threads; i++) {
		free(m.workers[i].sum);
		free(m.workers[i].q);
	}
	free(m.workers);
	free(m.checks);
	return e;
}
