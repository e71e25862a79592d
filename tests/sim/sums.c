/*
 * The oracle's own arithmetic: straightforward loops, by the rule that common/update/fixed.h states, without a line of the code under test.
 */
#include "sim/sim.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static int32_t value_at(const uint8_t *content, size_t i)
{
	const uint8_t *p = content + 4 * i;
	uint32_t v = (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
	return (int32_t)v;
}

static float renew(const struct book_round *r, uint32_t n_plants, const struct manifest_tensor *t, size_t i, float base,
		   double rate)
{
	int64_t sum = 0, total = 0;
	for (uint32_t who = 0; who < n_plants; who++) {
		const struct book_update *u = &r->updates[who];
		if (!u->counted)
			continue;
		sum += (int64_t)u->samples * value_at(u->content, t->at + i);
		total += (int64_t)u->samples;
	}
	double unit = ldexp(1, -t->scale);
	double move = (t->role == TENSOR_STATISTIC ? 1.0 : rate) * (double)sum / (double)total * unit;
	return (float)((double)base + move);
}

void sums_model(struct sim *s, const struct book_job *j, const struct book_round *r, float *ret_theta)
{
	const float *base = book_model(s, &r->base);
	ENSURE(base != NULL);
	memcpy(ret_theta, base, j->manifest->n_theta * sizeof *ret_theta);
	for (size_t k = 0; k < j->manifest->n_tensors; k++) {
		const struct manifest_tensor *t = &j->manifest->tensors[k];
		bool variance = t->role == TENSOR_STATISTIC && strstr(t->name, "running_var") != NULL;
		for (size_t i = 0; t->travels && i < t->n; i++) {
			float v = renew(r, s->n_plants, t, i, base[t->offset + i], j->config.server_rate);
			ret_theta[t->offset + i] = variance && v < 0 ? 0 : v;
		}
	}
}

struct digest sums_seal(struct sim *s, const struct book_round *r)
{
	struct buf text;
	buf_init(&text, (size_t)1 << 20);
	for (uint32_t who = 0; who < s->n_plants; who++) {
		const struct book_update *u = &r->updates[who];
		char hex[DIGEST_TEXT_SIZE];
		if (!u->counted)
			continue;
		digest_format(&u->digest, hex);
		ENSURE(buf_printf(&text, "%s %s %llu\n", s->plants[who].name, hex, (unsigned long long)u->samples) ==
		       ERR_OK);
	}
	struct digest seal = digest_of(buf_bytes(&text));
	buf_deinit(&text);
	return seal;
}

long double sums_norm(const struct manifest *m, const uint8_t *content)
{
	long double square = 0;
	for (size_t k = 0; k < m->n_tensors; k++) {
		const struct manifest_tensor *t = &m->tensors[k];
		for (size_t i = 0; t->role == TENSOR_TRAINABLE && i < t->n; i++) {
			long double v = ldexpl((long double)value_at(content, t->at + i), -t->scale);
			square += v * v;
		}
	}
	return sqrtl(square);
}
