/*
 * The oracle's own arithmetic: straightforward loops, by the rule that common/update/fixed.h states, without a line of the code under test.
 */
#include "sim/sim.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int32_t value_at(const uint8_t *content, size_t i)
{
	const uint8_t *p = content + 4 * i;
	uint32_t v = (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
	return (int32_t)v;
}

struct part {
	const uint8_t *content;
	int64_t weight, full;
};

/* What an update weighs that came `late` rounds late, where it would weigh `full` in time. */
static int64_t weigh(int64_t full, uint32_t late, int rule)
{
	const double divisors[] = {
		[JOB_LATE_SQRT] = sqrt(1.0 + late), [JOB_LATE_INVERSE] = 1.0 + late, [JOB_LATE_CONSTANT] = 1};
	double weight = floor((double)full / divisors[rule] + 0.5);
	return weight < 1 ? 1 : (int64_t)weight;
}

/* Where one is late all are scaled up, by up to 8 bits, as far as the largest has room below 2^20. */
static size_t parts_of(const struct sim *s, const struct book_job *j, uint32_t number, uint8_t *const *contents,
		       struct part *out)
{
	const struct book_round *r = &j->rounds[number];
	uint64_t most = 1;
	int bits = 0;
	bool late = false;
	size_t n = 0;
	for (uint32_t who = 0; who < s->n_plants; who++) {
		const struct book_update *u = &r->updates[who];
		if (!u->counted)
			continue;
		most = u->samples > most ? u->samples : most;
		late |= u->base_round < number;
	}
	for (; late && bits < 8 && most * 2 <= 1 << 20; bits++)
		most *= 2;
	for (uint32_t who = 0; who < s->n_plants; who++) {
		const struct book_update *u = &r->updates[who];
		if (!u->counted)
			continue;
		int64_t full = (int64_t)u->samples * (1 << bits);
		out[n++] = (struct part){.content = contents != NULL ? contents[who] : u->content,
					 .weight = weigh(full, number - u->base_round, j->config.late_weight),
					 .full = full};
	}
	if (late)
		cover("a model with late updates");
	return n;
}

static float renew(const struct part *parts, size_t n, const struct manifest_tensor *t, size_t i, float base,
		   double rate)
{
	int64_t sum = 0, total = 0;
	for (size_t k = 0; k < n; k++) {
		sum += parts[k].weight * value_at(parts[k].content, t->at + i);
		total += parts[k].full;
	}
	double unit = ldexp(1, -t->scale);
	double move = (t->role == TENSOR_STATISTIC ? 1.0 : rate) * (double)sum / (double)total * unit;
	return (float)((double)base + move);
}

void sums_model(struct sim *s, const struct book_job *j, uint32_t number, const float *base, uint8_t *const *contents,
		float *ret_theta)
{
	struct part *parts = mem_array(s->n_plants, sizeof *parts);
	size_t n_parts = parts_of(s, j, number, contents, parts);
	memcpy(ret_theta, base, j->manifest->n_theta * sizeof *ret_theta);
	for (size_t k = 0; k < j->manifest->n_tensors; k++) {
		const struct manifest_tensor *t = &j->manifest->tensors[k];
		bool variance = t->role == TENSOR_STATISTIC && strstr(t->name, "running_var") != NULL;
		for (size_t i = 0; t->travels && i < t->n; i++) {
			float v = renew(parts, n_parts, t, i, base[t->offset + i], j->config.server_rate);
			ret_theta[t->offset + i] = variance && v < 0 ? 0 : v;
		}
	}
	free(parts);
}

struct digest sums_seal(struct sim *s, const struct book_job *j, uint32_t number)
{
	const struct book_round *r = &j->rounds[number];
	struct buf text;
	buf_init(&text, (size_t)1 << 20);
	for (uint32_t who = 0; who < s->n_plants; who++) {
		const struct book_update *u = &r->updates[who];
		char hex[DIGEST_TEXT_SIZE];
		if (!u->counted)
			continue;
		digest_format(&u->digest, hex);
		ENSURE(buf_printf(&text, "%s %s %llu", s->plants[who].name, hex, (unsigned long long)u->samples) ==
		       ERR_OK);
		if (u->base_round != number)
			ENSURE(buf_printf(&text, " %lu", (unsigned long)u->base_round) == ERR_OK);
		ENSURE(buf_printf(&text, "\n") == ERR_OK);
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
