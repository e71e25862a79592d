/*
 * Private to aggregate*.c.
 *
 *	aggregate.c        what is to be done: the base, the inputs, the pieces of the new file, cut into blocks
 *	aggregate_sum.c    doing it: a block at a time, several threads
 *	aggregate_tail.c   the new file: blocks are written in any order and digested in theirs
 */
#ifndef HANSA_COORDINATOR_AGGREGATE_PARTS_H
#define HANSA_COORDINATOR_AGGREGATE_PARTS_H

#include "base/file.h"
#include "coordinator/aggregate.h"
#include "ml/safetensors.h"

/* Elements of a block: 128 KiB of each update, 256 KiB of sums. Fewer when the model has not enough of them for all threads. */
enum { AGGREGATE_BLOCK = 32 << 10, AGGREGATE_BLOCK_MIN = 8 << 10 };

/* A file of the spool; several inputs may lie in it. */
struct aggregate_file {
	const char *path;  /* borrowed */
	struct file *file; /* owned; NULL: one too many to be kept open, opened for each read */
};

/* A piece of the new file. */
struct aggregate_piece {
	const struct safetensors_entry *entry; /* borrowed */
	const struct manifest_tensor *tensor;  /* borrowed; NULL: bytes to be copied */
	uint64_t from;                         /* where its data is in the base */
};

/* Bytes of the new file that one thread makes: parts of one or more pieces. */
struct aggregate_block {
	uint64_t place;     /* in the new file */
	size_t bytes;       /* at most 4 * the run's block */
	size_t piece, skip; /* the first piece, and its bytes that belong to earlier blocks */
	size_t at, n;       /* the elements of the updates that go into it */
};

struct aggregate_tail;

struct aggregate_run {
	const struct aggregate_job *job;
	struct file_map map;            /* owned: the base, of which only the header is touched */
	struct safetensors *st;         /* owned */
	struct aggregate_piece *pieces; /* owned: one for each tensor of the base */
	struct file *base;              /* owned */
	struct aggregate_file *files;   /* owned */
	size_t n_files;
	size_t *file_of; /* owned: (n_inputs) index in files */
	int64_t total;   /* sum of the full weights */
	struct buf header;
	unsigned threads;
	size_t block;                   /* elements */
	struct aggregate_block *blocks; /* owned */
	size_t n_blocks;
};

/* Makes the new file: header, blocks, digest; not synced. */
MUST_CHECK enum err aggregate_make(const struct aggregate_run *r, struct file *out, struct digest *ret_digest);

/*
 * The order of the digest. Block k is made in the buffer that aggregate_tail_take(k) gives, written, and put back; it is digested as soon
 * as all before it have been, by one of the threads that put. take waits while k is too far ahead of the digest; NULL: the tail is broken.
 */
MUST_CHECK struct aggregate_tail *aggregate_tail_new(struct file *out, unsigned threads, size_t block_bytes);
void aggregate_tail_begin(struct aggregate_tail *t, struct bytes header); /* before the first block */
uint8_t *aggregate_tail_take(struct aggregate_tail *t, size_t k);
void aggregate_tail_put(struct aggregate_tail *t, size_t k, size_t n);
void aggregate_tail_break(struct aggregate_tail *t);        /* a block will never come */
struct digest aggregate_tail_end(struct aggregate_tail *t); /* all blocks have been put */
void aggregate_tail_free(struct aggregate_tail *t);         /* NULL is fine */

#endif
