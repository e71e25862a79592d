/*
 * Small updates, one after another in the batch of their round.
 *
 * A batch only grows, and no byte that a row may speak of is ever written again: a group begins behind everything that is in the file, with
 * a page of its own, so that a write that fails for this group cannot take a page of an acknowledged one with it. What a group leaves
 * behind that failed is a gap that no row speaks of.
 */
#include "coordinator/spool_parts.h"

#include "base/log.h"

#include <inttypes.h>
#include <stdlib.h>

enum { PAGE = 4096 };

static void close_batch(struct batch *b)
{
	file_close(b->file);
	b->file = NULL;
}

/* The open one; or the place for it: an earlier round's of the same job, one that is free, the one that was not used for longest. */
static struct batch *choose_batch(struct spool *s, uint64_t job, uint32_t round)
{
	struct batch *best = &s->batches[0];
	for (size_t i = 0; i < SPOOL_BATCHES_MAX; i++) {
		struct batch *b = &s->batches[i];
		if (b->file != NULL && b->job == job && b->round == round)
			return b;
		if (b->file != NULL && b->job == job && b->round < round)
			close_batch(b);
		if (best->file != NULL && (b->file == NULL || b->used < best->used))
			best = b;
	}
	if (best->file != NULL)
		close_batch(best);
	return best;
}

static enum err open_batch(struct spool *s, uint64_t job, uint32_t round, struct batch **ret_batch)
{
	char path[PATH_SIZE];
	struct batch *b = choose_batch(s, job, round);
	if (b->file == NULL) {
		TRY(file_append_open(spool_batch_path(s, job, round, path), 0600, &b->file));
		b->job = job;
		b->round = round;
	}
	b->used = ++s->turn;
	*ret_batch = b;
	return ERR_OK;
}

/* Bytes between the file's end and the group. */
static size_t gap_after(uint64_t end)
{
	return (PAGE - end % PAGE) % PAGE;
}

static enum err write_group(struct file *f, struct spool_entry *const *entries, size_t n)
{
	static const uint8_t zeros[PAGE];
	struct bytes *pieces = mem_array(n + 1, sizeof *pieces);
	pieces[0] = bytes_of(zeros, gap_after(file_offset(f)));
	for (size_t i = 0; i < n; i++) {
		const struct spool_entry *e = entries[i];
		ENSURE(e->finished && e->memory != NULL);
		pieces[i + 1] = bytes_of(e->memory, e->n_memory);
	}
	enum err err = file_writev(f, pieces, n + 1);
	free(pieces);
	return err;
}

/* Nothing speaks of what has been written of a group that failed. It is cut off to save room; what stays of it does no harm. */
static void cut_off(struct file *f, uint64_t start)
{
	char *text = mem_str(err_text());
	if (file_offset(f) > start && file_truncate(f, start) != ERR_OK)
		log_warn("spool", "%s", err_text());
	err_set(ERR_OK, "%s", text);
	free(text);
}

static enum err append(struct spool *s, uint64_t job, uint32_t round, struct spool_entry *const *entries, size_t n,
		       uint64_t *ret_first)
{
	struct batch *b;
	TRY(open_batch(s, job, round, &b));
	uint64_t start = file_offset(b->file);
	enum err err = write_group(b->file, entries, n);
	if (err != ERR_OK)
		cut_off(b->file, start);
	else
		err = file_sync(b->file); /* the first time its name, too */
	spool_count_file(s, file_offset(b->file) - start, true);
	/* After a failed sync the kernel may have dropped what it could not write: whoever comes next begins with the file as it is. */
	if (err != ERR_OK)
		close_batch(b);
	TRY(err);
	*ret_first = start + gap_after(start);
	return ERR_OK;
}

enum err spool_append(struct spool *s, uint64_t job, uint32_t round, struct spool_entry *const *entries, size_t n,
		      int64_t *ret_places)
{
	uint64_t at = 0;
	ENSURE(n > 0);
	pthread_mutex_lock(&s->appending);
	enum err err = append(s, job, round, entries, n, &at);
	pthread_mutex_unlock(&s->appending);
	TRY(err);
	for (size_t i = 0; i < n; i++) {
		spool_claim_settle(s, entries[i]->claim);
		ret_places[i] = (int64_t)at;
		at += entries[i]->n_memory;
	}
	return ERR_OK;
}

void spool_close_batches(struct spool *s)
{
	for (size_t i = 0; i < SPOOL_BATCHES_MAX; i++)
		close_batch(&s->batches[i]);
}
