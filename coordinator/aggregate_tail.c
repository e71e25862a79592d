/*
 * SHA-256 takes the bytes of a file in their order, one after another, and is some ten times slower than summing: digesting the new model
 * after it has been written would cost as much as summing ten updates on all CPUs. So it runs along. Threads make blocks in any order; whoever
 * finishes the block that the digest waits for digests it and all that are ready behind it, while the others go on. A ring of buffers holds
 * those that are ahead, two a thread and one: enough that nobody waits as long as there is more to sum than to digest.
 *
 * What is digested is the buffer that was written, not the file read back: that would come out of the page cache into which write() has
 * put the very same bytes, and so would prove nothing more.
 */
#include "coordinator/aggregate_parts.h"

#include <pthread.h>
#include <stdlib.h>

enum { FLUSH_BYTES = 8 << 20 };

struct slot {
	uint8_t *p; /* owned */
	size_t n;   /* bytes */
	bool ready;
};

struct aggregate_tail {
	struct file *out;          /* borrowed */
	struct digester *digester; /* owned; of the one that is busy */
	size_t unflushed;          /* likewise: bytes since the last file_flush() */
	size_t n_slots;
	struct slot *slots; /* owned; block k is in k % n_slots */

	pthread_mutex_t lock;
	pthread_cond_t moved;
	size_t next; /* block to be digested */
	bool busy;   /* somebody digests */
	bool broken;
};

struct aggregate_tail *aggregate_tail_new(struct file *out, unsigned threads, size_t block_bytes)
{
	struct aggregate_tail *t = mem_new(sizeof *t);
	*t = (struct aggregate_tail){.out = out, .digester = digest_begin()};
	t->n_slots = threads == 1 ? 1 : 2 * (size_t)threads + 1;
	t->slots = mem_array(t->n_slots, sizeof *t->slots);
	for (size_t i = 0; i < t->n_slots; i++)
		t->slots[i].p = mem_aligned(block_bytes);
	ENSURE(pthread_mutex_init(&t->lock, NULL) == 0);
	ENSURE(pthread_cond_init(&t->moved, NULL) == 0);
	return t;
}

void aggregate_tail_begin(struct aggregate_tail *t, struct bytes header)
{
	digest_add(t->digester, header.p, header.n);
}

uint8_t *aggregate_tail_take(struct aggregate_tail *t, size_t k)
{
	pthread_mutex_lock(&t->lock);
	while (k >= t->next + t->n_slots && !t->broken)
		pthread_cond_wait(&t->moved, &t->lock);
	/* A block before the broken one has its buffer: whether it fails too is to be known, because its error would be the first. */
	bool free_now = k < t->next + t->n_slots;
	pthread_mutex_unlock(&t->lock);
	return free_now ? t->slots[k % t->n_slots].p : NULL;
}

static void digest_slot(struct aggregate_tail *t, const struct slot *s)
{
	digest_add(t->digester, s->p, s->n);
	t->unflushed += s->n;
	if (t->unflushed < FLUSH_BYTES)
		return;
	t->unflushed = 0;
	file_flush(t->out);
}

void aggregate_tail_put(struct aggregate_tail *t, size_t k, size_t n)
{
	struct slot *s = &t->slots[k % t->n_slots];
	pthread_mutex_lock(&t->lock);
	s->n = n;
	s->ready = true;
	if (!t->busy) {
		t->busy = true;
		while ((s = &t->slots[t->next % t->n_slots])->ready) {
			pthread_mutex_unlock(&t->lock);
			digest_slot(t, s);
			pthread_mutex_lock(&t->lock);
			s->ready = false;
			t->next++;
			pthread_cond_broadcast(&t->moved);
		}
		t->busy = false;
	}
	pthread_mutex_unlock(&t->lock);
}

void aggregate_tail_break(struct aggregate_tail *t)
{
	pthread_mutex_lock(&t->lock);
	t->broken = true;
	pthread_cond_broadcast(&t->moved);
	pthread_mutex_unlock(&t->lock);
}

struct digest aggregate_tail_end(struct aggregate_tail *t)
{
	struct digest d = digest_end(t->digester);
	t->digester = NULL;
	return d;
}

void aggregate_tail_free(struct aggregate_tail *t)
{
	if (t == NULL)
		return;
	for (size_t i = 0; i < t->n_slots; i++)
		free(t->slots[i].p);
	free(t->slots);
	digest_free(t->digester);
	pthread_cond_destroy(&t->moved);
	pthread_mutex_destroy(&t->lock);
	free(t);
}
