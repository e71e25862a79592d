#include "client/parts.h"

#include <stdio.h>
#include <string.h>

static size_t find(const struct parts *p, uint64_t job)
{
	size_t i = 0;
	while (i < p->n && p->v[i].job != job)
		i++;
	return i;
}

static void remove_at(struct parts *p, size_t at)
{
	memmove(&p->v[at], &p->v[at + 1], (p->n - at - 1) * sizeof p->v[0]);
	p->n--;
}

/* The part in `job`, moved to the end; made when it is not there. */
static struct part *last(struct parts *p, uint64_t job)
{
	struct part part = {.job = job};
	size_t at = find(p, job);
	if (at < p->n) {
		part = p->v[at];
		remove_at(p, at);
	} else if (p->n == PARTS_MAX) {
		remove_at(p, 0);
	}
	p->v[p->n] = part;
	return &p->v[p->n++];
}

void parts_pass(struct parts *p, uint64_t job, uint32_t round, const char *why)
{
	struct part *part = last(p, job);
	if (round == 0)
		part->passed_job = true;
	else
		part->passed_round = round;
	snprintf(part->why, sizeof part->why, "%s", why);
}

void parts_again(struct parts *p, uint64_t job)
{
	(void)last(p, job);
}

void parts_sent(struct parts *p, uint64_t job)
{
	size_t at = find(p, job);
	/* A job without a word about it stands first: what was passed over last must stay last. */
	if (at == p->n) {
		if (p->n == PARTS_MAX)
			remove_at(p, 0);
		memmove(&p->v[1], &p->v[0], p->n * sizeof p->v[0]);
		p->v[0] = (struct part){.job = job};
		p->n++;
		at = 0;
	}
	p->v[at].sent++;
}

bool parts_passed(const struct parts *p, uint64_t job, uint32_t round)
{
	size_t at = find(p, job);
	return at < p->n && (p->v[at].passed_job || (round > 0 && p->v[at].passed_round == round));
}

void parts_last(const struct parts *p, uint64_t *ret_job, uint32_t *ret_round)
{
	const struct part *part = p->n > 0 ? &p->v[p->n - 1] : NULL;
	bool any = part != NULL && (part->passed_job || part->passed_round > 0);
	*ret_job = any ? part->job : 0;
	*ret_round = any && !part->passed_job ? part->passed_round : 0;
}

const char *parts_missed(const struct parts *p, uint64_t job)
{
	size_t at = find(p, job);
	if (at == p->n || p->v[at].why[0] == '\0')
		return NULL;
	return p->v[at].passed_job || p->v[at].sent == 0 ? p->v[at].why : NULL;
}

void parts_end(struct parts *p, uint64_t job)
{
	size_t at = find(p, job);
	if (at < p->n)
		remove_at(p, at);
}
