#include "sim/sim.h"

#include <stdlib.h>

static bool before(const struct event *a, const struct event *b)
{
	return a->at != b->at ? a->at < b->at : a->serial < b->serial;
}

void queue_put(struct queue *q, struct event e)
{
	if (q->n == q->room) {
		q->room = q->room == 0 ? 256 : 2 * q->room;
		q->heap = mem_grow(q->heap, q->room, sizeof *q->heap);
	}
	e.serial = q->serial++;
	size_t at = q->n++;
	for (; at > 0 && before(&e, &q->heap[(at - 1) / 2]); at = (at - 1) / 2)
		q->heap[at] = q->heap[(at - 1) / 2];
	q->heap[at] = e;
}

bool queue_take(struct queue *q, struct event *ret_event)
{
	if (q->n == 0)
		return false;
	*ret_event = q->heap[0];
	struct event last = q->heap[--q->n];
	size_t at = 0;
	for (size_t child = 1; child < q->n; child = 2 * at + 1) {
		if (child + 1 < q->n && before(&q->heap[child + 1], &q->heap[child]))
			child++;
		if (!before(&q->heap[child], &last))
			break;
		q->heap[at] = q->heap[child];
		at = child;
	}
	if (q->n > 0)
		q->heap[at] = last;
	return true;
}

void queue_deinit(struct queue *q)
{
	free(q->heap);
	*q = (struct queue){0};
}
