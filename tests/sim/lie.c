/*
 * What no honest plant sends. A lie is an update that was true once, with one thing changed; how it must be answered follows from what is sent
 * (book.c), not from this table: the same head may be wrong in another way by the time it arrives.
 */
#include "sim/sim.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void redo_digest(struct stream *t)
{
	t->head.digest = digest_of(bytes_of(t->content, t->n));
}

static void resize(struct stream *t, size_t n)
{
	uint8_t *content = mem_new(n);
	memcpy(content, t->content, n < t->n ? n : t->n);
	free(t->content);
	t->content = content;
	t->n = n;
	redo_digest(t);
}

static void put_value(struct sim *s, struct stream *t, uint32_t v)
{
	size_t at = 4 * (size_t)rng_below(&s->rng, t->n / 4);
	for (int k = 0; k < 4; k++)
		t->content[at + (size_t)k] = (uint8_t)(v >> 8 * k);
	redo_digest(t);
}

static void wrong_base(struct sim *s, struct stream *t)
{
	t->head.update.base.b[rng_below(&s->rng, DIGEST_SIZE)] ^= 1;
}

static void source_as_base(struct sim *s, struct stream *t)
{
	const struct digest *sources = s->book.sources;
	t->head.update.base = sources[digest_equal(&sources[0], &t->head.update.base)];
}

static void wrong_manifest(struct sim *s, struct stream *t)
{
	t->head.update.manifest.b[rng_below(&s->rng, DIGEST_SIZE)] ^= 0x80;
}

static void wrong_digest(struct sim *s, struct stream *t)
{
	t->head.digest.b[rng_below(&s->rng, DIGEST_SIZE)] ^= 4;
}

static void wrong_size(struct sim *s, struct stream *t)
{
	t->head.size = rng_below(&s->rng, 2) == 0 ? UINT64_MAX : t->head.size + 4;
}

static void above_range(struct sim *s, struct stream *t)
{
	put_value(s, t, (1u << 30) + 1 + (uint32_t)rng_below(&s->rng, 1000));
}

static void below_range(struct sim *s, struct stream *t)
{
	put_value(s, t, 0x80000000u);
}

static void float_nan(struct sim *s, struct stream *t)
{
	put_value(s, t, 0x7fc00000u);
}

static void too_long(struct sim *s, struct stream *t)
{
	resize(t, t->n + 1 + (size_t)rng_below(&s->rng, 9));
}

static void too_short(struct sim *s, struct stream *t)
{
	resize(t, (size_t)rng_below(&s->rng, t->n));
}

static void next_round(struct sim *s, struct stream *t)
{
	(void)s;
	t->head.update.round++;
}

static void no_round(struct sim *s, struct stream *t)
{
	(void)s;
	t->head.update.round = 0;
}

static void unknown_job(struct sim *s, struct stream *t)
{
	(void)s;
	t->head.update.job += 1000;
}

static void no_samples(struct sim *s, struct stream *t)
{
	(void)s;
	t->head.update.samples = 0;
}

static void huge_samples(struct sim *s, struct stream *t)
{
	t->head.update.samples = rng_below(&s->rng, 2) == 0 ? UINT64_MAX : FIXED_WEIGHT_MAX + 1;
}

static void endless_metric(struct sim *s, struct stream *t)
{
	(void)s;
	t->head.update.metrics.v[0].value = INFINITY;
}

static void no_head(struct sim *s, struct stream *t)
{
	(void)s;
	t->head.has_update = false;
}

static void odd_offset(struct sim *s, struct stream *t)
{
	t->head.offset = 1 + rng_below(&s->rng, t->n);
}

static void far_offset(struct sim *s, struct stream *t)
{
	t->head.offset = t->head.size + 1 + rng_below(&s->rng, 1000);
}

/* Not over the range of a value, but over every norm_max. */
static void huge_norm(struct sim *s, struct stream *t)
{
	for (size_t i = 0; i < t->n / 4; i++) {
		uint8_t high = rng_below(&s->rng, 2) == 0 ? 0x3f : 0xc1;
		t->content[4 * i + 3] = high;
	}
	redo_digest(t);
}

static const struct {
	const char *name;
	void (*craft)(struct sim *s, struct stream *t);
	bool needs_norm; /* only where the job has a norm_max */
} lies[] = {
	{"lie: wrong base", wrong_base, false},
	{"lie: the source as base", source_as_base, false},
	{"lie: wrong manifest", wrong_manifest, false},
	{"lie: wrong digest", wrong_digest, false},
	{"lie: wrong size", wrong_size, false},
	{"lie: a value above the range", above_range, false},
	{"lie: a value below the range", below_range, false},
	{"lie: a float's NaN", float_nan, false},
	{"lie: too long", too_long, false},
	{"lie: too short", too_short, false},
	{"lie: the next round", next_round, false},
	{"lie: round 0", no_round, false},
	{"lie: a job that is not", unknown_job, false},
	{"lie: no samples", no_samples, false},
	{"lie: too many samples", huge_samples, false},
	{"lie: an infinite metric", endless_metric, false},
	{"lie: no head", no_head, false},
	{"lie: an offset", odd_offset, false},
	{"lie: an offset behind the end", far_offset, false},
	{"lie: a huge norm", huge_norm, true},
};
enum { LIES = sizeof lies / sizeof lies[0] };

/* Repeats of what was true: not lies, but they must not count (again) either. */
static void send_old(struct sim *s, uint32_t who, const struct book_job *j)
{
	uint32_t round = 1 + (uint32_t)rng_below(&s->rng, j->round);
	bool other = rng_below(&s->rng, 2) == 0;
	const struct book_update *u = book_made(j, round, who, NULL);
	/* Of a round of which nothing of the plant counts it would be an honest update. */
	if (u == NULL && (round == j->round || book_carries(j)))
		return;
	struct stream *t =
		plant_stream(s, who, j->id, round, other ? s->plants[who].variant + 1000 : s->plants[who].variant);
	t->lie = other ? "lie: another update than the one that counts" : "lie: an old update";
	if (u != NULL && digest_equal(&u->digest, &t->head.digest))
		t->lie = "lie: the same once more";
	net_upload(s, t);
}

static void lie_in_report(struct sim *s, uint32_t who, const struct book_job *j)
{
	struct wire_report r = {.job = j->id, .round = j->round, .model = j->source};
	switch (rng_below(&s->rng, 3)) {
	case 0:
		r.job += 1000;
		break;
	case 1:
		r.round += 1;
		break;
	default:
		r.model.b[3] ^= 1;
		break;
	}
	net_report(s, who, &r, true);
}

void lie_send(struct sim *s)
{
	if (s->book.n_jobs == 0)
		return;
	uint64_t last = s->book.n_jobs, back = rng_below(&s->rng, last < 3 ? last : 3);
	const struct book_job *j = s->book.jobs[last - back];
	uint32_t who = (uint32_t)rng_below(&s->rng, s->n_plants);
	uint64_t kind = rng_below(&s->rng, LIES + 6);
	cover_expect("lie: another update than the one that counts");
	cover_expect("lie: an old update");
	cover_expect("lie: the same once more");
	for (size_t i = 0; i < LIES; i++)
		cover_expect(lies[i].name);
	if (kind >= LIES + 4) {
		lie_in_report(s, who, j);
		return;
	}
	if (kind >= LIES) {
		send_old(s, who, j);
		return;
	}
	if (lies[kind].needs_norm && j->config.norm_max <= 0)
		return;
	struct stream *t = plant_stream(s, who, j->id, j->round, s->plants[who].variant);
	t->lie = lies[kind].name;
	lies[kind].craft(s, t);
	net_upload(s, t);
}
