/*
 * Every message: what is packed comes back, and what must not be accepted is not.
 */
#include "rpc/wire.h"
#include "base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { RUNS = 200, OUT_MAX = 4 << 20 };

static struct rng rng;

/* ---- random contents ---- */

static uint64_t u64(void)
{
	/* All lengths of varints, and zero. */
	uint64_t v = rng_u64(&rng);
	return rng_below(&rng, 8) == 0 ? 0 : v >> rng_below(&rng, 64);
}

static uint32_t u32(void)
{
	return (uint32_t)u64();
}

static double real(void)
{
	return rng_normal(&rng) * pow(10, (double)rng_below(&rng, 60) - 30);
}

static struct digest digest(void)
{
	struct digest d;
	for (size_t i = 0; i < DIGEST_SIZE; i++)
		d.b[i] = (uint8_t)rng_u64(&rng);
	return d;
}

static void text(char *out, size_t size, const char *alphabet)
{
	size_t n = rng_below(&rng, 10) == 0 ? size - 1 : 1 + rng_below(&rng, size - 1);
	for (size_t i = 0; i < n; i++)
		out[i] = alphabet[rng_below(&rng, strlen(alphabet))];
}

static void name(char *out, size_t size)
{
	text(out, size, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_. ");
}

static enum role role(void)
{
	static const enum role roles[] = {ROLE_PLANT, ROLE_OPERATOR, ROLE_AUDITOR, ROLE_LAB};
	return roles[rng_below(&rng, 4)];
}

static void blob(struct buf *b, size_t min, size_t max)
{
	size_t n = min + rng_below(&rng, rng_below(&rng, 10) == 0 ? max - min : 200);
	buf_init(b, max);
	assert_int_equal(buf_reserve(b, n), ERR_OK);
	for (size_t i = 0; i < n; i++)
		b->p[i] = (uint8_t)rng_u64(&rng);
	b->n = n;
	b->p[n] = '\0';
}

static void metrics(struct wire_metrics *m)
{
	m->n = rng_below(&rng, WIRE_METRICS_MAX + 1);
	for (size_t i = 0; i < m->n; i++) {
		name(m->v[i].name, sizeof m->v[i].name);
		m->v[i].value = real();
	}
}

static void job(struct wire_job *j)
{
	*j = (struct wire_job){.job = u64(),
			       .model_size = u64(),
			       .created_ms = u64(),
			       .ended_ms = u64(),
			       .round = u32(),
			       .rounds = u32()};
	name(j->name, sizeof j->name);
	j->state = (enum wire_job_state)rng_below(&rng, WIRE_JOB_STATE_COUNT);
	text(j->reason, sizeof j->reason, "abc: 0123456789/");
	blob(&j->config, 0, 3000);
	j->source = digest();
	if (rng_below(&rng, 2) == 0)
		j->model = digest();
}

static void contribution(struct wire_contribution *c)
{
	memset(c, 0, sizeof *c);
	name(c->plant, sizeof c->plant);
	c->digest = digest();
	c->samples = u64();
	c->time_ms = u64();
	c->norm = real();
	metrics(&c->metrics);
}

static void round_fill(struct wire_round *r)
{
	memset(r, 0, sizeof *r);
	r->round = u32();
	r->cohort = u32();
	r->accepted = u32();
	name(r->phase, sizeof r->phase);
	r->opened_ms = u64();
	r->deadline_ms = u64();
	r->closed_ms = u64();
	r->bytes_up = u64();
	r->bytes_down = u64();
	r->base = digest();
	if (rng_below(&rng, 2) == 0)
		r->model = digest();
	r->n_contributions = rng_below(&rng, 6);
	r->contributions = r->n_contributions > 0 ? calloc(r->n_contributions, sizeof *r->contributions) : NULL;
	for (size_t i = 0; i < r->n_contributions; i++)
		contribution(&r->contributions[i]);
	text(r->reason, sizeof r->reason, "abc: 0123456789/");
	r->n_reports = rng_below(&rng, 4);
	r->reports = r->n_reports > 0 ? calloc(r->n_reports, sizeof *r->reports) : NULL;
	for (size_t i = 0; i < r->n_reports; i++) {
		struct wire_plant_report *p = &r->reports[i];
		name(p->plant, sizeof p->plant);
		p->model = digest();
		p->taken = rng_below(&rng, 2) == 0;
		p->time_ms = u64();
		metrics(&p->metrics);
	}
}

/* ---- comparison ---- */

static void same_buf(const struct buf *a, const struct buf *b)
{
	assert_int_equal(a->n, b->n);
	if (a->n > 0)
		assert_memory_equal(a->p, b->p, a->n);
}

static void same_metrics(const struct wire_metrics *a, const struct wire_metrics *b)
{
	assert_int_equal(a->n, b->n);
	for (size_t i = 0; i < a->n; i++) {
		assert_string_equal(a->v[i].name, b->v[i].name);
		assert_memory_equal(&a->v[i].value, &b->v[i].value, sizeof(double));
	}
}

static void same_digest(const struct digest *a, const struct digest *b)
{
	assert_memory_equal(a->b, b->b, DIGEST_SIZE);
}

static void same_job(const struct wire_job *a, const struct wire_job *b)
{
	assert_true(a->job == b->job && a->model_size == b->model_size && a->created_ms == b->created_ms &&
		    a->ended_ms == b->ended_ms);
	assert_true(a->state == b->state && a->round == b->round && a->rounds == b->rounds);
	assert_string_equal(a->name, b->name);
	assert_string_equal(a->reason, b->reason);
	same_buf(&a->config, &b->config);
	same_digest(&a->source, &b->source);
	same_digest(&a->model, &b->model);
}

static void same_round(const struct wire_round *a, const struct wire_round *b)
{
	assert_true(a->round == b->round && a->cohort == b->cohort && a->accepted == b->accepted);
	assert_true(a->opened_ms == b->opened_ms && a->deadline_ms == b->deadline_ms && a->closed_ms == b->closed_ms);
	assert_true(a->bytes_up == b->bytes_up && a->bytes_down == b->bytes_down);
	assert_string_equal(a->phase, b->phase);
	same_digest(&a->base, &b->base);
	same_digest(&a->model, &b->model);
	assert_string_equal(a->reason, b->reason);
	assert_int_equal(a->n_reports, b->n_reports);
	for (size_t i = 0; i < a->n_reports; i++) {
		const struct wire_plant_report *x = &a->reports[i], *y = &b->reports[i];
		assert_string_equal(x->plant, y->plant);
		same_digest(&x->model, &y->model);
		assert_true(x->taken == y->taken && x->time_ms == y->time_ms);
		same_metrics(&x->metrics, &y->metrics);
	}
	assert_int_equal(a->n_contributions, b->n_contributions);
	for (size_t i = 0; i < a->n_contributions; i++) {
		const struct wire_contribution *x = &a->contributions[i], *y = &b->contributions[i];
		assert_string_equal(x->plant, y->plant);
		same_digest(&x->digest, &y->digest);
		assert_true(x->samples == y->samples && x->time_ms == y->time_ms);
		assert_memory_equal(&x->norm, &y->norm, sizeof(double));
		same_metrics(&x->metrics, &y->metrics);
	}
}

/* Packs `in`, checks that no shorter message is taken for the whole one, unpacks into `out`. Leaves the message in `packed`. */
#define THROUGH(what, in, out)                                                                                         \
	do {                                                                                                           \
		buf_reset(&packed);                                                                                    \
		assert_int_equal(wire_##what##_pack(in, &packed), ERR_OK);                                             \
		assert_int_equal(wire_##what##_unpack(buf_bytes(&packed), out), ERR_OK);                               \
	} while (0)

static struct buf packed;

static int begin(void **state)
{
	(void)state;
	rng_seed(&rng, 20);
	buf_init(&packed, OUT_MAX);
	return 0;
}

static int end(void **state)
{
	(void)state;
	buf_deinit(&packed);
	return 0;
}

static void test_enrolment(void **state)
{
	(void)state;
	for (int i = 0; i < RUNS; i++) {
		struct wire_enroll_request a = {0}, b;
		struct buf csr;
		blob(&csr, 1, WIRE_CSR_MAX);
		struct digest d = digest();
		memcpy(a.secret, d.b, sizeof a.secret);
		a.csr = buf_bytes(&csr);
		THROUGH(enroll_request, &a, &b);
		assert_memory_equal(a.secret, b.secret, sizeof a.secret);
		assert_int_equal(b.csr.n, csr.n);
		assert_memory_equal(b.csr.p, csr.p, csr.n);
		assert_true(b.csr.p >= packed.p && b.csr.p + b.csr.n <= packed.p + packed.n);
		buf_deinit(&csr);

		struct wire_enroll_reply c = {0}, e;
		blob(&c.certificate, 1, WIRE_PEM_MAX);
		blob(&c.ca, 1, WIRE_PEM_MAX);
		text(c.address, sizeof c.address, "abc.:0123456789[]");
		THROUGH(enroll_reply, &c, &e);
		same_buf(&c.certificate, &e.certificate);
		same_buf(&c.ca, &e.ca);
		assert_string_equal(c.address, e.address);
		wire_enroll_reply_free(&c);
		wire_enroll_reply_free(&e);
		wire_enroll_reply_free(&e);
	}
}

static void test_tasks(void **state)
{
	(void)state;
	for (int i = 0; i < RUNS; i++) {
		struct wire_task_request r = {.finished_job = u64(),
					      .skip_job = u64(),
					      .skip_round = u32(),
					      .finished_ends = u32()},
					 r2;
		if (i % 3 != 0)
			name(r.software, sizeof r.software);
		THROUGH(task_request, &r, &r2);
		assert_true(r.finished_job == r2.finished_job && r.skip_job == r2.skip_job &&
			    r.skip_round == r2.skip_round && r.finished_ends == r2.finished_ends);
		assert_string_equal(r.software, r2.software);

		struct wire_task a = {.wait_ms = u32(),
				      .job = u64(),
				      .round = u32(),
				      .rounds = u32(),
				      .base_size = u64(),
				      .source_size = u64(),
				      .deadline_in_ms = u64(),
				      .job_ends = u32()},
				 b;
		a.kind = (enum wire_task_kind)rng_below(&rng, WIRE_TASK_KIND_COUNT);
		a.job_state = (enum wire_job_state)rng_below(&rng, WIRE_JOB_STATE_COUNT);
		if (a.kind != WIRE_TASK_WAIT) {
			name(a.job_name, sizeof a.job_name);
			blob(&a.config, 0, WIRE_CONFIG_MAX);
			blob(&a.manifest, 0, WIRE_MANIFEST_MAX);
			a.base = digest();
			a.source = digest();
		}
		THROUGH(task, &a, &b);
		assert_true(a.kind == b.kind && a.wait_ms == b.wait_ms && a.job == b.job && a.round == b.round &&
			    a.rounds == b.rounds);
		assert_true(a.base_size == b.base_size && a.source_size == b.source_size &&
			    a.deadline_in_ms == b.deadline_in_ms);
		assert_true(a.job_state == b.job_state && a.job_ends == b.job_ends);
		assert_string_equal(a.job_name, b.job_name);
		same_buf(&a.config, &b.config);
		same_buf(&a.manifest, &b.manifest);
		same_digest(&a.base, &b.base);
		same_digest(&a.source, &b.source);
		wire_task_free(&a);
		wire_task_free(&b);
	}
}

static void test_plant_messages(void **state)
{
	(void)state;
	for (int i = 0; i < RUNS; i++) {
		struct wire_fetch_request f = {.digest = digest(), .offset = u64()}, f2;
		THROUGH(fetch_request, &f, &f2);
		same_digest(&f.digest, &f2.digest);
		assert_true(f.offset == f2.offset);

		struct wire_receipt r = {.job = u64(),
					 .time_ms = u64(),
					 .round = u32(),
					 .digest = digest(),
					 .repeated = i % 2 == 0},
				    r2;
		THROUGH(receipt, &r, &r2);
		assert_true(r.job == r2.job && r.time_ms == r2.time_ms && r.round == r2.round &&
			    r.repeated == r2.repeated);
		same_digest(&r.digest, &r2.digest);

		struct wire_report p = {.job = u64(), .round = u32(), .model = digest(), .taken = i % 2 == 0}, p2;
		metrics(&p.metrics);
		THROUGH(report, &p, &p2);
		assert_true(p.job == p2.job && p.round == p2.round && p.taken == p2.taken);
		same_digest(&p.model, &p2.model);
		same_metrics(&p.metrics, &p2.metrics);
	}
}

static void test_heads(void **state)
{
	(void)state;
	for (int i = 0; i < RUNS; i++) {
		struct wire_head a = {.size = u64() >> 1, .digest = digest(), .has_update = i % 2 == 0}, b;
		struct bytes data;
		bool is_head = false;
		a.offset = a.size > 0 ? rng_below(&rng, a.size + 1) : 0;
		if (a.has_update) {
			a.update = (struct wire_update_head){
				.job = u64(), .round = u32(), .base = digest(), .manifest = digest(), .samples = u64()};
			metrics(&a.update.metrics);
		}
		buf_reset(&packed);
		assert_int_equal(wire_head_pack(&a, &packed), ERR_OK);
		assert_int_equal(wire_part_unpack(buf_bytes(&packed), &b, &is_head, &data), ERR_OK);
		assert_true(is_head && a.size == b.size && a.offset == b.offset && a.has_update == b.has_update);
		same_digest(&a.digest, &b.digest);
		assert_true(a.update.job == b.update.job && a.update.round == b.update.round &&
			    a.update.samples == b.update.samples);
		same_digest(&a.update.base, &b.update.base);
		same_digest(&a.update.manifest, &b.update.manifest);
		same_metrics(&a.update.metrics, &b.update.metrics);
		/* A head is not data. */
		assert_int_equal(wire_data_prefix_parse(buf_bytes(&packed), packed.n), 0);
	}
}

static void test_data_parts(void **state)
{
	(void)state;
	static const size_t sizes[] = {1, 2, 127, 128, 129, 16383, 16384, 65536, WIRE_CHUNK_SIZE - 1, WIRE_CHUNK_SIZE};
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		size_t n = sizes[i];
		uint8_t prefix[WIRE_DATA_PREFIX_MAX];
		struct wire_head head;
		struct bytes data;
		bool is_head = true;
		size_t k = wire_data_prefix(n, prefix);
		buf_reset(&packed);
		assert_int_equal(buf_append(&packed, prefix, k), ERR_OK);
		assert_int_equal(buf_reserve(&packed, n), ERR_OK);
		memset(packed.p + packed.n, 0xa5, n);
		packed.n += n;
		assert_int_equal(wire_part_unpack(buf_bytes(&packed), &head, &is_head, &data), ERR_OK);
		assert_false(is_head);
		assert_ptr_equal(data.p, packed.p + k);
		assert_int_equal(data.n, n);
		/* The fast path sees the same, from the first bytes alone; and not when something follows or is missing. */
		assert_int_equal(
			wire_data_prefix_parse(
				bytes_of(packed.p, WIRE_DATA_PREFIX_MAX < packed.n ? WIRE_DATA_PREFIX_MAX : packed.n),
				packed.n),
			k);
		assert_int_equal(wire_data_prefix_parse(buf_bytes(&packed), packed.n + 1), 0);
		assert_int_equal(wire_data_prefix_parse(buf_bytes(&packed), packed.n - 1), 0);
		/* A later version may add fields before and behind the data. */
		static const uint8_t later[] = {0x1a, 2,    'h', 'i', 0x20, 5, 0x2d, 1, 2, 3,
						4,    0x31, 1,   2,   3,    4, 5,    6, 7, 8};
		struct buf longer;
		buf_init(&longer, OUT_MAX);
		assert_int_equal(buf_append(&longer, later, sizeof later), ERR_OK);
		assert_int_equal(buf_append(&longer, packed.p, packed.n), ERR_OK);
		assert_int_equal(buf_append(&longer, later, sizeof later), ERR_OK);
		assert_int_equal(wire_data_prefix_parse(buf_bytes(&longer), longer.n), 0);
		assert_int_equal(wire_part_unpack(buf_bytes(&longer), &head, &is_head, &data), ERR_OK);
		assert_int_equal(data.n, n);
		assert_ptr_equal(data.p, longer.p + sizeof later + k);
		buf_deinit(&longer);
	}
	assert_int_equal(wire_data_prefix_parse(bytes_of(NULL, 0), 0), 0);
}

/* A head and the first data in one message: the fast path and the parser agree, also on messages of later versions. */
static void test_head_with_data(void **state)
{
	(void)state;
	static const size_t sizes[] = {0, 1, 127, 128, 5000, WIRE_CHUNK_SIZE};
	struct wire_head in = {.size = 77, .offset = 7, .digest = digest()}, out;
	struct bytes data, view;
	bool has_head;
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		size_t n = sizes[i];
		uint8_t prefix[WIRE_DATA_PREFIX_MAX];
		buf_reset(&packed);
		assert_int_equal(wire_head_pack(&in, &packed), ERR_OK);
		size_t head_n = packed.n;
		if (n > 0) {
			assert_int_equal(buf_append(&packed, prefix, wire_data_prefix(n, prefix)), ERR_OK);
			assert_int_equal(buf_reserve(&packed, n), ERR_OK);
			memset(packed.p + packed.n, 0x12, n);
			packed.n += n;
		}
		memset(&out, 0, sizeof out);
		assert_int_equal(wire_part_unpack(buf_bytes(&packed), &out, &has_head, &data), ERR_OK);
		assert_true(has_head);
		assert_int_equal(out.offset, 7);
		assert_int_equal(data.n, n);
		/* The first bytes are enough. */
		size_t known = packed.n < head_n + WIRE_DATA_PREFIX_MAX ? packed.n : head_n + WIRE_DATA_PREFIX_MAX;
		size_t front = wire_part_prefix_parse(bytes_of(packed.p, known), packed.n, &view);
		assert_int_equal(front, packed.n - n);
		assert_int_equal(wire_head_unpack(view, &out), ERR_OK);
		assert_int_equal(out.size, 77);
		assert_int_equal(wire_data_prefix_parse(bytes_of(packed.p, known), packed.n), 0);
		/* Cut in the head, or another length: the parser's business. */
		assert_int_equal(wire_part_prefix_parse(bytes_of(packed.p, head_n - 1), packed.n, &view), 0);
		assert_int_equal(wire_part_prefix_parse(bytes_of(packed.p, known), packed.n + 1, &view), 0);
		assert_int_equal(buf_append(&packed, "\x1a\x01x", 3), ERR_OK);
		assert_int_equal(wire_part_prefix_parse(buf_bytes(&packed), packed.n, &view), 0);
		assert_int_equal(wire_part_unpack(buf_bytes(&packed), &out, &has_head, &data), ERR_OK);
		assert_true(has_head && data.n == n);
	}
	assert_int_equal(wire_part_prefix_parse(bytes_of(NULL, 0), 0, &view), 0);
}

static void test_bad_parts(void **state)
{
	(void)state;
	static const struct {
		const char *p;
		size_t n;
	} cases[] = {
		{"", 0},     /* neither head nor data */
		{"\x12", 1}, /* cut in a length */
		{"\x12\x05"
		 "abcd",
		 6}, /* cut in the data */
		{"\x12\xff\xff\xff\xff\x0f", 6},
		{"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11},
		{"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 11},
		{"\x0a\x00\x12\x01x", 5}, /* a head without a digest, and data */
		{"\x0a\x00", 2},          /* a head without a digest */
		{"\x10\x05", 2},          /* data as a number */
		{"\x13", 1},              /* a group */
		{"\x16\x01", 2},
		{"\x02\x01x", 3}, /* field 0 */
		{"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 11},
		{"\x1d\x01\x02", 3}, /* cut in a fixed32 */
	};
	struct wire_head head;
	struct bytes data;
	bool is_head;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		if (wire_part_unpack(bytes_of(cases[i].p, cases[i].n), &head, &is_head, &data) != ERR_MALFORMED)
			fail_msg("case %zu was accepted", i);
	}
	/* Longer than a chunk. */
	buf_reset(&packed);
	assert_int_equal(buf_append(&packed, "\x12\x81\x80\x40", 4), ERR_OK);
	assert_int_equal(buf_reserve(&packed, WIRE_CHUNK_SIZE + 1), ERR_OK);
	memset(packed.p + 4, 0, WIRE_CHUNK_SIZE + 1);
	packed.n += WIRE_CHUNK_SIZE + 1;
	assert_int_equal(wire_data_prefix_parse(buf_bytes(&packed), packed.n), 0);
	assert_int_equal(wire_part_unpack(buf_bytes(&packed), &head, &is_head, &data), ERR_MALFORMED);
	/* An offset behind the end. */
	struct wire_head bad = {.size = 5, .offset = 6, .digest = digest()};
	buf_reset(&packed);
	assert_int_equal(wire_head_pack(&bad, &packed), ERR_OK);
	assert_int_equal(wire_part_unpack(buf_bytes(&packed), &head, &is_head, &data), ERR_MALFORMED);
}

static void test_operator_messages(void **state)
{
	(void)state;
	for (int i = 0; i < RUNS; i++) {
		struct wire_invite_request q = {.role = role(), .valid_ms = u64()}, q2;
		name(q.name, sizeof q.name);
		THROUGH(invite_request, &q, &q2);
		assert_string_equal(q.name, q2.name);
		assert_true(q.role == q2.role && q.valid_ms == q2.valid_ms);

		struct wire_invite_reply y = {.expires_ms = u64()}, y2;
		text(y.code, sizeof y.code, "abcXYZ-_0123456789");
		THROUGH(invite_reply, &y, &y2);
		assert_string_equal(y.code, y2.code);
		assert_true(y.expires_ms == y2.expires_ms);

		struct wire_revoke_request v = {.role = role()}, v2;
		name(v.name, sizeof v.name);
		THROUGH(revoke_request, &v, &v2);
		assert_string_equal(v.name, v2.name);
		assert_true(v.role == v2.role);

		struct wire_publish_reply p = {.digest = digest(), .size = u64()}, p2;
		THROUGH(publish_reply, &p, &p2);
		same_digest(&p.digest, &p2.digest);
		assert_true(p.size == p2.size);

		struct wire_start_job s = {.source = digest()}, s2;
		blob(&s.config, 1, WIRE_CONFIG_MAX);
		THROUGH(start_job, &s, &s2);
		same_buf(&s.config, &s2.config);
		same_digest(&s.source, &s2.source);
		wire_start_job_free(&s);
		wire_start_job_free(&s2);

		struct wire_job_ref j = {.job = u64()}, j2;
		THROUGH(job_ref, &j, &j2);
		assert_true(j.job == j2.job);

		struct wire_watch_request w = {.job = u64(), .seen = u64()}, w2;
		THROUGH(watch_request, &w, &w2);
		assert_true(w.job == w2.job && w.seen == w2.seen);
	}
}

static void test_lists(void **state)
{
	(void)state;
	for (int i = 0; i < RUNS; i++) {
		struct wire_members m = {.n = rng_below(&rng, 20)}, m2;
		m.v = calloc(m.n + 1, sizeof *m.v);
		for (size_t k = 0; k < m.n; k++) {
			name(m.v[k].name, sizeof m.v[k].name);
			name(m.v[k].state, sizeof m.v[k].state);
			if (k % 2 == 0)
				name(m.v[k].software, sizeof m.v[k].software);
			m.v[k].role = role();
			m.v[k].expires_ms = u64();
			m.v[k].seen_ms = u64();
		}
		THROUGH(members, &m, &m2);
		assert_int_equal(m.n, m2.n);
		for (size_t k = 0; k < m.n; k++) {
			assert_string_equal(m.v[k].name, m2.v[k].name);
			assert_string_equal(m.v[k].state, m2.v[k].state);
			assert_string_equal(m.v[k].software, m2.v[k].software);
			assert_true(m.v[k].role == m2.v[k].role && m.v[k].expires_ms == m2.v[k].expires_ms &&
				    m.v[k].seen_ms == m2.v[k].seen_ms);
		}
		wire_members_free(&m);
		wire_members_free(&m2);

		struct wire_jobs j = {.n = rng_below(&rng, 8)}, j2;
		j.v = calloc(j.n + 1, sizeof *j.v);
		for (size_t k = 0; k < j.n; k++)
			job(&j.v[k]);
		THROUGH(jobs, &j, &j2);
		assert_int_equal(j.n, j2.n);
		for (size_t k = 0; k < j.n; k++)
			same_job(&j.v[k], &j2.v[k]);
		wire_jobs_free(&j);
		wire_jobs_free(&j2);

		struct wire_rounds r = {.n = rng_below(&rng, 8)}, r2;
		r.v = calloc(r.n + 1, sizeof *r.v);
		for (size_t k = 0; k < r.n; k++)
			round_fill(&r.v[k]);
		THROUGH(rounds, &r, &r2);
		assert_int_equal(r.n, r2.n);
		for (size_t k = 0; k < r.n; k++)
			same_round(&r.v[k], &r2.v[k]);
		wire_rounds_free(&r);
		wire_rounds_free(&r2);

		struct wire_watch_reply w = {.version = u64(), .has_round = i % 2 == 0}, w2;
		job(&w.job);
		if (w.has_round)
			round_fill(&w.round);
		THROUGH(watch_reply, &w, &w2);
		assert_true(w.version == w2.version && w.has_round == w2.has_round);
		same_job(&w.job, &w2.job);
		if (w.has_round)
			same_round(&w.round, &w2.round);
		wire_watch_reply_free(&w);
		wire_watch_reply_free(&w2);
	}
}

/* The largest list that is allowed goes through; one more does not, in either direction. */
static void test_list_limit(void **state)
{
	(void)state;
	struct wire_members m = {.n = WIRE_LIST_MAX}, m2;
	m.v = calloc(m.n + 1, sizeof *m.v);
	for (size_t k = 0; k <= WIRE_LIST_MAX; k++)
		m.v[k] = (struct wire_member){.name = "p", .state = "s", .role = ROLE_LAB};
	THROUGH(members, &m, &m2);
	assert_int_equal(m2.n, WIRE_LIST_MAX);
	wire_members_free(&m2);
	size_t one = packed.n / WIRE_LIST_MAX;
	assert_int_equal(buf_append(&packed, packed.p, one), ERR_OK);
	assert_int_equal(wire_members_unpack(buf_bytes(&packed), &m2), ERR_MALFORMED);
	m.n++;
	assert_int_equal(wire_members_pack(&m, &packed), ERR_LIMIT);
	wire_members_free(&m);
	/* Very many empty items: the quota or the limit ends it, without a gigabyte in between. */
	buf_reset(&packed);
	for (int i = 0; i < 1 << 20; i++)
		assert_int_equal(buf_append(&packed, "\x0a\x00", 2), ERR_OK);
	assert_int_equal(wire_members_unpack(buf_bytes(&packed), &m2), ERR_MALFORMED);
	struct wire_jobs j;
	assert_int_equal(wire_jobs_unpack(buf_bytes(&packed), &j), ERR_MALFORMED);
	struct wire_rounds r;
	assert_int_equal(wire_rounds_unpack(buf_bytes(&packed), &r), ERR_MALFORMED);
}

/* Packing more than the buffer's ceiling fails and leaves it as it was. */
static void test_pack_limit(void **state)
{
	(void)state;
	struct buf small;
	struct wire_receipt r = {.digest = digest()};
	buf_init(&small, 20);
	assert_int_equal(buf_append(&small, "abc", 3), ERR_OK);
	assert_int_equal(wire_receipt_pack(&r, &small), ERR_LIMIT);
	assert_string_equal(buf_str(&small), "abc");
	buf_deinit(&small);
	/* And what fits is appended. */
	buf_init(&small, 200);
	assert_int_equal(buf_append(&small, "abc", 3), ERR_OK);
	assert_int_equal(wire_receipt_pack(&r, &small), ERR_OK);
	struct wire_receipt r2;
	assert_int_equal(wire_receipt_unpack(bytes_of(small.p + 3, small.n - 3), &r2), ERR_OK);
	buf_deinit(&small);
}

/* A message that ends early is refused, or is a shorter valid one; reading past its end would be seen by the sanitizer. */
static void test_cut(void **state)
{
	(void)state;
	struct wire_task a = {.kind = WIRE_TASK_TRAIN,
			      .job = 7,
			      .base = digest(),
			      .source = digest(),
			      .job_name = "bearing"},
			 b;
	blob(&a.config, 20, 50 + 200);
	buf_reset(&packed);
	assert_int_equal(wire_task_pack(&a, &packed), ERR_OK);
	for (size_t n = 0; n < packed.n; n++) {
		uint8_t *exact = malloc(n + 1);
		memcpy(exact, packed.p, n);
		uint8_t *tight = n > 0 ? realloc(exact, n) : exact;
		enum err e = wire_task_unpack(bytes_of(tight, n), &b);
		assert_true(e == ERR_OK || e == ERR_MALFORMED);
		if (e == ERR_OK)
			wire_task_free(&b);
		free(tight);
	}
	wire_task_free(&a);
}

/* ---- single bad fields, written by hand: tag, length, content ---- */

static enum err unpack_report(const void *p, size_t n)
{
	struct wire_report r;
	return wire_report_unpack(bytes_of(p, n), &r);
}

static void field(struct buf *b, unsigned number, const void *p, size_t n)
{
	uint8_t head[2] = {(uint8_t)(number << 3 | 2), (uint8_t)n};
	assert_true(n < 128);
	assert_int_equal(buf_append(b, head, 2), ERR_OK);
	assert_int_equal(buf_append(b, p, n), ERR_OK);
}

static void test_bad_digests(void **state)
{
	(void)state;
	uint8_t bytes[64] = {1};
	for (size_t n = 0; n <= 64; n++) {
		buf_reset(&packed);
		field(&packed, 3, bytes, n);
		assert_int_equal(unpack_report(packed.p, packed.n), n == 32 ? ERR_OK : ERR_MALFORMED);
	}
	buf_reset(&packed);
	bytes[0] = 0;
	field(&packed, 3, bytes, 32);
	assert_int_equal(unpack_report(packed.p, packed.n), ERR_MALFORMED);
	bytes[0] = 1;
	assert_int_equal(unpack_report(NULL, 0), ERR_MALFORMED);
	assert_non_null(strstr(err_text(), "model_digest"));
	/* Where a digest may be absent it must still be 0 or 32 bytes. */
	for (size_t n = 0; n <= 64; n++) {
		struct wire_task t;
		buf_reset(&packed);
		field(&packed, 9, bytes, n);
		enum err e = wire_task_unpack(buf_bytes(&packed), &t);
		assert_int_equal(e, n == 32 || n == 0 ? ERR_OK : ERR_MALFORMED);
		if (e == ERR_OK)
			wire_task_free(&t);
	}
	/* A training task needs both. */
	struct wire_task t = {.kind = WIRE_TASK_TRAIN, .base = digest()}, t2;
	buf_reset(&packed);
	assert_int_equal(wire_task_pack(&t, &packed), ERR_OK);
	assert_int_equal(wire_task_unpack(buf_bytes(&packed), &t2), ERR_MALFORMED);
}

static void test_bad_texts(void **state)
{
	(void)state;
	static const struct {
		const char *p;
		size_t n;
		bool name, text; /* good as a name? as a text? */
	} cases[] = {
		{"ok", 2, true, true},
		{"", 0, false, false},
		{"a b-c_d.E", 9, true, true},
		{"a/b", 3, false, true},
		{"../x", 4, false, true},
		{"a\0b", 3, false, false},
		{"ab\0", 3, false, false},
		{"a\nb", 3, false, false},
		{"a\x1b[2J", 5, false, false},
		{"a\x7f", 2, false, false},
		{"\xc3\xa4", 2, false, true},
		{"\xc2\x85", 2, false, false},
		{"\xc3", 1, false, false},
		{"\xff\xfe", 2, false, false},
		{"\xc0\x80", 2, false, false},
		{"\xed\xa0\x80", 3, false, false},
		{"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 63, true, true},
		{"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 64, false, true},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct wire_revoke_request r;
		struct wire_invite_reply y;
		buf_reset(&packed);
		field(&packed, 1, cases[i].p, cases[i].n);
		field(&packed, 2, "plant", 5);
		assert_int_equal(wire_revoke_request_unpack(buf_bytes(&packed), &r),
				 cases[i].name ? ERR_OK : ERR_MALFORMED);
		buf_reset(&packed);
		field(&packed, 1, cases[i].p, cases[i].n);
		assert_int_equal(wire_invite_reply_unpack(buf_bytes(&packed), &y),
				 cases[i].text ? ERR_OK : ERR_MALFORMED);
	}
	static const char *const roles[] = {"",       "coordinator",          "nobody", "Plant",
					    "plant ", "plantplantplantplant", "none"};
	for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++) {
		struct wire_revoke_request r;
		buf_reset(&packed);
		field(&packed, 1, "p", 1);
		field(&packed, 2, roles[i], strlen(roles[i]));
		assert_int_equal(wire_revoke_request_unpack(buf_bytes(&packed), &r), ERR_MALFORMED);
	}
}

static void test_bad_numbers(void **state)
{
	(void)state;
	struct wire_task t;
	static const uint8_t kinds[][11] = {{0x08, 3}, {0x08, 0x7f}, {0x08, 0xff, 0xff, 0xff, 0xff, 0x0f}, {0x70, 4}};
	static const size_t lengths[] = {2, 2, 6, 2};
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(wire_task_unpack(bytes_of(kinds[i], lengths[i]), &t), ERR_MALFORMED);
	static const double reals[] = {NAN, INFINITY, -INFINITY};
	for (size_t i = 0; i < 3; i++) {
		struct wire_report r = {.model = digest(), .metrics = {.n = 1, .v = {{"loss", reals[i]}}}}, r2;
		buf_reset(&packed);
		assert_int_equal(wire_report_pack(&r, &packed), ERR_OK);
		assert_int_equal(wire_report_unpack(buf_bytes(&packed), &r2), ERR_MALFORMED);
		assert_non_null(strstr(err_text(), "finite"));
	}
	/* Seventeen metrics. */
	struct wire_report r = {.model = digest()}, r2;
	buf_reset(&packed);
	assert_int_equal(wire_report_pack(&r, &packed), ERR_OK);
	for (int i = 0; i < WIRE_METRICS_MAX + 1; i++)
		field(&packed, 4, "\x0a\x01m", 3);
	assert_int_equal(wire_report_unpack(buf_bytes(&packed), &r2), ERR_MALFORMED);
	r.metrics.n = WIRE_METRICS_MAX + 1;
	assert_int_equal(wire_report_pack(&r, &packed), ERR_LIMIT);
}

static void test_bad_sizes(void **state)
{
	(void)state;
	struct wire_enroll_request q = {.csr = {NULL, 0}}, q2;
	uint8_t *large = calloc(1, WIRE_CONFIG_MAX + 1);
	q.csr = bytes_of(large, WIRE_CSR_MAX + 1);
	assert_int_equal(wire_enroll_request_pack(&q, &packed), ERR_LIMIT);
	/* No secret, a short one, a long one; no request. */
	for (size_t n = 0; n < 40; n++) {
		buf_reset(&packed);
		field(&packed, 1, large, n);
		field(&packed, 2, "csr", 3);
		assert_int_equal(wire_enroll_request_unpack(buf_bytes(&packed), &q2),
				 n == WIRE_SECRET_SIZE ? ERR_OK : ERR_MALFORMED);
	}
	buf_reset(&packed);
	field(&packed, 1, large, WIRE_SECRET_SIZE);
	assert_int_equal(wire_enroll_request_unpack(buf_bytes(&packed), &q2), ERR_MALFORMED);
	/* Given twice, the last one counts for both parsers. */
	field(&packed, 2, "first", 5);
	field(&packed, 2, "second", 6);
	assert_int_equal(wire_enroll_request_unpack(buf_bytes(&packed), &q2), ERR_OK);
	assert_int_equal(q2.csr.n, 6);
	assert_memory_equal(q2.csr.p, "second", 6);
	/* A configuration one byte too long, written by hand. */
	buf_reset(&packed);
	assert_int_equal(buf_append(&packed, "\x0a\x81\x80\x10", 4), ERR_OK);
	assert_int_equal(buf_append(&packed, large, WIRE_CONFIG_MAX + 1), ERR_OK);
	struct digest d = digest();
	field(&packed, 2, d.b, 32);
	struct wire_start_job s;
	assert_int_equal(wire_start_job_unpack(buf_bytes(&packed), &s), ERR_MALFORMED);
	packed.p[1] = 0x80;
	memmove(packed.p + 4 + WIRE_CONFIG_MAX, packed.p + 4 + WIRE_CONFIG_MAX + 1, 34);
	packed.n--;
	assert_int_equal(wire_start_job_unpack(buf_bytes(&packed), &s), ERR_OK);
	wire_start_job_free(&s);
	free(large);
}

/* Fields that this version does not know are passed over. */
static void test_later_version(void **state)
{
	(void)state;
	struct wire_receipt r = {.job = 5, .digest = digest(), .round = 2}, r2;
	buf_reset(&packed);
	assert_int_equal(buf_append(&packed, "\xa2\x06\x03new", 6), ERR_OK); /* field 100 */
	assert_int_equal(wire_receipt_pack(&r, &packed), ERR_OK);
	assert_int_equal(buf_append(&packed, "\xa8\x06\x05", 3), ERR_OK); /* field 101 */
	assert_int_equal(wire_receipt_unpack(buf_bytes(&packed), &r2), ERR_OK);
	assert_int_equal(r2.job, 5);
	same_digest(&r.digest, &r2.digest);
}

static void test_names(void **state)
{
	(void)state;
	assert_string_equal(wire_job_state_name(WIRE_JOB_RUNNING), "running");
	assert_string_equal(wire_job_state_name(WIRE_JOB_DONE), "done");
	assert_string_equal(wire_job_state_name(WIRE_JOB_STOPPED), "stopped");
	assert_string_equal(wire_job_state_name(WIRE_JOB_FAILED), "failed");
	assert_string_equal(wire_job_state_name((enum wire_job_state)77), "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_enrolment),      cmocka_unit_test(test_tasks),
		cmocka_unit_test(test_plant_messages), cmocka_unit_test(test_heads),
		cmocka_unit_test(test_data_parts),     cmocka_unit_test(test_head_with_data),
		cmocka_unit_test(test_bad_parts),      cmocka_unit_test(test_operator_messages),
		cmocka_unit_test(test_lists),          cmocka_unit_test(test_list_limit),
		cmocka_unit_test(test_pack_limit),     cmocka_unit_test(test_cut),
		cmocka_unit_test(test_bad_digests),    cmocka_unit_test(test_bad_texts),
		cmocka_unit_test(test_bad_numbers),    cmocka_unit_test(test_bad_sizes),
		cmocka_unit_test(test_later_version),  cmocka_unit_test(test_names),
	};
	return cmocka_run_group_tests(tests, begin, end);
}
