#include "swarm/tally.h"

#include "base/log.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { TIMES_MAX = 4 << 20, ROUNDS_MAX = 1 << 18 };

struct times {
	double *v; /* owned */
	size_t n, cap;
};

struct round_seen {
	uint64_t job;
	uint32_t round;
	uint64_t told, accepted;
	double first_told, last_told, first_begin, last_end;
};

struct tally {
	pthread_mutex_t lock; /* guards all that follows */
	int receipts;         /* file; -1: none */
	size_t plants;
	struct round_seen *rounds;
	size_t n_rounds, cap_rounds;
	struct times upload, acknowledgement;
	uint64_t refused[ERR_COUNT], provoked[MISCHIEF_COUNT], retries[ERR_COUNT], wrong[MISCHIEF_COUNT];
	uint64_t accepted, repeated, cuts, hangups, resumed, resumed_bytes, connected, job_ends;
	uint64_t bases_inside, bases_fetched, payload_up, payload_down, sent, received;
};

double tally_now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

enum err tally_open(const char *receipts_path, size_t plants, struct tally **ret_tally)
{
	int fd = -1;
	if (receipts_path != NULL) {
		fd = open(receipts_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
		if (fd < 0)
			return err_errno("%s: cannot write", receipts_path);
	}
	struct tally *t = mem_new(sizeof *t);
	pthread_mutex_init(&t->lock, NULL);
	t->receipts = fd;
	t->plants = plants;
	*ret_tally = t;
	return ERR_OK;
}

void tally_close(struct tally *t)
{
	if (t == NULL)
		return;
	if (t->receipts >= 0)
		close(t->receipts);
	pthread_mutex_destroy(&t->lock);
	free(t->rounds);
	free(t->upload.v);
	free(t->acknowledgement.v);
	free(t);
}

static void times_add(struct times *s, double ms)
{
	if (s->n == TIMES_MAX)
		return;
	if (s->n == s->cap) {
		s->cap = s->cap == 0 ? 1024 : s->cap * 2;
		s->v = mem_grow(s->v, s->cap, sizeof *s->v);
	}
	s->v[s->n++] = ms;
}

/* The latest are at the end; NULL when there are too many. */
static struct round_seen *round_of(struct tally *t, uint64_t job, uint32_t round)
{
	for (size_t i = t->n_rounds; i-- > 0;) {
		if (t->rounds[i].job == job && t->rounds[i].round == round)
			return &t->rounds[i];
	}
	if (t->n_rounds == ROUNDS_MAX)
		return NULL;
	if (t->n_rounds == t->cap_rounds) {
		t->cap_rounds = t->cap_rounds == 0 ? 64 : t->cap_rounds * 2;
		t->rounds = mem_grow(t->rounds, t->cap_rounds, sizeof *t->rounds);
	}
	struct round_seen *r = &t->rounds[t->n_rounds++];
	*r = (struct round_seen){.job = job, .round = round};
	return r;
}

void tally_told(struct tally *t, uint64_t job, uint32_t round)
{
	double now = tally_now();
	pthread_mutex_lock(&t->lock);
	struct round_seen *r = round_of(t, job, round);
	if (r != NULL) {
		r->first_told = r->told == 0 || now < r->first_told ? now : r->first_told;
		r->last_told = now > r->last_told ? now : r->last_told;
		r->told++;
		if (t->plants > 1 && r->told == t->plants)
			log_info("swarm", "round %u of job %llu reached all %zu plants", round, (unsigned long long)job,
				 t->plants);
	}
	pthread_mutex_unlock(&t->lock);
}

/* One write(2): lines of several processes do not mix, and a killed process has written all that it got. */
static void write_receipt(const struct tally *t, const struct tally_upload *u)
{
	char digest[DIGEST_TEXT_SIZE], line[256 + DIGEST_TEXT_SIZE + WIRE_NAME_SIZE];
	int n = snprintf(line, sizeof line, "{\"job\":%llu,\"round\":%u,\"plant\":\"%s\",\"digest\":\"%s\"}\n",
			 (unsigned long long)u->receipt->job, u->receipt->round, u->plant,
			 digest_format(&u->receipt->digest, digest));
	ENSURE(n > 0 && (size_t)n < sizeof line);
	if (write(t->receipts, line, (size_t)n) != n) {
		fprintf(stderr, "hansa-swarm: cannot write a receipt; what follows would not be judged rightly\n");
		_exit(1);
	}
}

void tally_accepted(struct tally *t, const struct tally_upload *u)
{
	pthread_mutex_lock(&t->lock);
	if (t->receipts >= 0)
		write_receipt(t, u);
	t->accepted += !u->receipt->repeated;
	t->repeated += u->receipt->repeated;
	t->payload_up += u->bytes;
	struct round_seen *r = round_of(t, u->receipt->job, u->receipt->round);
	if (r != NULL && !u->receipt->repeated) {
		times_add(&t->upload, u->end_ms - u->begin_ms);
		times_add(&t->acknowledgement, u->end_ms - u->sent_ms);
		r->first_begin = r->accepted == 0 || u->begin_ms < r->first_begin ? u->begin_ms : r->first_begin;
		r->last_end = u->end_ms > r->last_end ? u->end_ms : r->last_end;
		r->accepted++;
	}
	pthread_mutex_unlock(&t->lock);
}

static void add(struct tally *t, uint64_t *counter, uint64_t n)
{
	pthread_mutex_lock(&t->lock);
	*counter += n;
	pthread_mutex_unlock(&t->lock);
}

void tally_base(struct tally *t, bool inside, uint64_t bytes)
{
	add(t, inside ? &t->bases_inside : &t->bases_fetched, 1);
	add(t, &t->payload_down, bytes);
}

void tally_refused(struct tally *t, enum mischief why, enum err code)
{
	add(t, why == MISCHIEF_NONE ? &t->refused[code] : &t->provoked[why], 1);
}

void tally_retry(struct tally *t, enum err code)
{
	add(t, &t->retries[code], 1);
}

void tally_cut(struct tally *t)
{
	add(t, &t->cuts, 1);
}

void tally_hangup(struct tally *t)
{
	add(t, &t->hangups, 1);
}

void tally_resumed(struct tally *t, uint64_t offset)
{
	add(t, &t->resumed, 1);
	add(t, &t->resumed_bytes, offset);
}

void tally_wrongly_accepted(struct tally *t, enum mischief why)
{
	add(t, &t->wrong[why], 1);
}

void tally_connected(struct tally *t)
{
	add(t, &t->connected, 1);
}

void tally_job_end(struct tally *t)
{
	add(t, &t->job_ends, 1);
}

void tally_bytes(struct tally *t, uint64_t sent, uint64_t received)
{
	add(t, &t->sent, sent);
	add(t, &t->received, received);
}

size_t tally_count_connected(struct tally *t)
{
	pthread_mutex_lock(&t->lock);
	size_t n = (size_t)t->connected;
	pthread_mutex_unlock(&t->lock);
	return n;
}

uint64_t tally_count_wrong(struct tally *t)
{
	uint64_t n = 0;
	pthread_mutex_lock(&t->lock);
	for (int m = 0; m < MISCHIEF_COUNT; m++)
		n += t->wrong[m];
	pthread_mutex_unlock(&t->lock);
	return n;
}

/* ---- the report ---- */

static int order(const void *a, const void *b)
{
	const double *x = a, *y = b;
	return (*x > *y) - (*x < *y);
}

static struct json *quantiles(struct times *s)
{
	struct json *v = json_map();
	if (s->n == 0)
		return v;
	qsort(s->v, s->n, sizeof *s->v, order);
	json_put(v, "p50", json_num(s->v[s->n / 2]));
	json_put(v, "p99", json_num(s->v[(size_t)((double)(s->n - 1) * 0.99)]));
	return json_put(v, "max", json_num(s->v[s->n - 1]));
}

static struct json *by_error(const uint64_t counts[ERR_COUNT])
{
	struct json *v = json_map();
	for (int e = 0; e < ERR_COUNT; e++) {
		if (counts[e] > 0)
			json_put(v, err_name((enum err)e), json_int((int64_t)counts[e]));
	}
	return v;
}

static struct json *by_mischief(const uint64_t counts[MISCHIEF_COUNT])
{
	struct json *v = json_map();
	for (int m = 0; m < MISCHIEF_COUNT; m++) {
		if (counts[m] > 0)
			json_put(v, mischief_name((enum mischief)m), json_int((int64_t)counts[m]));
	}
	return v;
}

static struct json *time_or_null(double ms)
{
	return ms > 0 ? json_num(ms) : json_str(NULL);
}

static struct json *rounds(const struct tally *t)
{
	struct json *list = json_list();
	for (size_t i = 0; i < t->n_rounds; i++) {
		const struct round_seen *r = &t->rounds[i];
		struct json *v = json_map();
		json_put(v, "job", json_int((int64_t)r->job));
		json_put(v, "round", json_int(r->round));
		json_put(v, "told", json_int((int64_t)r->told));
		json_put(v, "first_told_ms", time_or_null(r->first_told));
		json_put(v, "last_told_ms", time_or_null(r->last_told));
		json_put(v, "accepted", json_int((int64_t)r->accepted));
		json_put(v, "first_begin_ms", time_or_null(r->first_begin));
		json_push(list, json_put(v, "last_end_ms", time_or_null(r->last_end)));
	}
	return list;
}

struct json *tally_report(struct tally *t)
{
	struct json *v = json_map();
	pthread_mutex_lock(&t->lock);
	const struct {
		const char *name;
		uint64_t n;
	} counts[] = {
		{"accepted", t->accepted},
		{"repeated", t->repeated},
		{"cuts", t->cuts},
		{"hangups", t->hangups},
		{"resumed", t->resumed},
		{"resumed_bytes", t->resumed_bytes},
		{"connected", t->connected},
		{"job_ends", t->job_ends},
		{"bases_inside", t->bases_inside},
		{"bases_fetched", t->bases_fetched},
		{"update_bytes", t->payload_up},
		{"base_bytes", t->payload_down},
		{"bytes_sent", t->sent},
		{"bytes_received", t->received},
	};
	for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
		json_put(v, counts[i].name, json_int((int64_t)counts[i].n));
	json_put(v, "refused", by_error(t->refused));
	json_put(v, "tried_again", by_error(t->retries));
	json_put(v, "provoked", by_mischief(t->provoked));
	json_put(v, "wrongly_accepted", by_mischief(t->wrong));
	json_put(v, "upload_ms", quantiles(&t->upload));
	json_put(v, "acknowledgement_ms", quantiles(&t->acknowledgement));
	json_put(v, "rounds", rounds(t));
	pthread_mutex_unlock(&t->lock);
	return v;
}
