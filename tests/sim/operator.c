/*
 * The operators: they start jobs of many kinds, several at a time, stop some, watch them, enrol plants and revoke them.
 */
#include "sim/sim.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { WATCH_MS = SIM_HOLD_MS + 10000 };

/* ---- starting a job ---- */

static uint32_t n_enrolled(const struct sim *s)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < s->n_plants; i++)
		n += s->plants[i].enrolled;
	return n;
}

/* Some of the plants by name; now and then one that is not enrolled. Returns how many are. */
static uint32_t name_plants(struct sim *s, struct buf *out, bool *ret_stranger)
{
	uint32_t n = 0;
	bool stranger = false;
	uint64_t one_in = 2 + rng_below(&s->rng, 12);
	bool careless = rng_below(&s->rng, 20) == 0;
	ENSURE(buf_printf(out, "plants: [") == ERR_OK);
	for (uint32_t i = 0; i < s->n_plants; i++) {
		if (rng_below(&s->rng, one_in) != 0 || (!s->plants[i].enrolled && !careless))
			continue;
		ENSURE(buf_printf(out, "%s%s", n == 0 && !stranger ? "" : ", ", s->plants[i].name) == ERR_OK);
		n += s->plants[i].enrolled;
		stranger |= !s->plants[i].enrolled;
	}
	ENSURE(buf_printf(out, "]\n") == ERR_OK);
	*ret_stranger = stranger;
	return n;
}

static const char *any(struct sim *s, const char *const *texts, size_t n)
{
	return texts[rng_below(&s->rng, n)];
}
#define ANY(s, texts) any(s, texts, sizeof texts / sizeof texts[0])

/* How many are asked, how many are enough, what becomes of those that come late, what is kept. `n`: plants there are. */
static void write_rounds(struct sim *s, struct buf *out, uint64_t quorum, uint64_t n, errors *right)
{
	static const char *const graces[] = {"", "", "grace: 0s\n", "grace: 5s\n", "grace: 20s\n"};
	static const char *const weights[] = {"", "late_weight: inverse\n", "late_weight: constant\n"};
	static const char *const keeps[] = {"",
					    "",
					    "keep_updates: all\n",
					    "keep_updates: \"1\"\n",
					    "keep_updates: \"2\"\nkeep_models: \"1\"\n",
					    "keep_models: \"1\"\n",
					    "keep_models: \"3\"\n"};
	struct rng *r = &s->rng;
	bool sure = quorum <= n, asynchronous = rng_below(r, 3) == 0;
	uint64_t rest = sure ? n - quorum : 0, goal = 0, cohort = 0;
	if (asynchronous || rng_below(r, 3) == 0)
		goal = quorum + rng_below(r, rest + 1);
	if (!asynchronous && rng_below(r, 3) == 0)
		cohort = (goal != 0 ? goal : quorum) + rng_below(r, rest + 1);
	if (goal > n || cohort > n)
		*right = ONLY(ERR_CONFIG);
	cover_expect("a job with late updates");
	cover_expect("a job with a goal");
	cover_expect("a job with a cohort");
	if (goal != 0)
		cover("a job with a goal");
	if (cohort != 0)
		cover("a job with a cohort");
	ENSURE(buf_printf(out, "goal: %" PRIu64 "\ncohort: %" PRIu64 "\nseed: %" PRIu64 "\n%s%s", goal, cohort,
			  rng_below(r, 1000), ANY(s, graces), ANY(s, keeps)) == ERR_OK);
	if (asynchronous || rng_below(r, 8) == 0) {
		cover("a job with late updates");
		ENSURE(buf_printf(out, "late: carry\nlate_max: %" PRIu64 "\n%s", 1 + rng_below(r, 5),
				  ANY(s, weights)) == ERR_OK);
	}
	ENSURE(buf_printf(out, "rounds: %" PRIu64 "\n", 1 + rng_below(r, asynchronous ? 10 : 4)) == ERR_OK);
}

/* A job's configuration as an operator writes it. *ret_right: what the engine must say to it. */
static void write_job(struct sim *s, struct buf *out, errors *ret_right)
{
	static const char *const variety[] = {
		"",
		"local: [\"head.*\"]\n",
		"train: {freeze: [\"conv1.*\"]}\n",
		"train: {freeze: [\"conv1.*\", \"bn1.*\"]}\n",
		"server_rate: 0.5\n",
		"clip_norm: 0.25\n",
		"norm_max: 200\n",
		"norm_max: 200\nclip_norm: 1\nserver_rate: 1.5\n",
	};
	struct rng *r = &s->rng;
	bool stranger = false;
	uint32_t n = n_enrolled(s);
	errors right = ONLY(ERR_OK);
	if (rng_below(r, 3) == 0)
		n = name_plants(s, out, &stranger);
	/* A list without names is one of all plants. */
	if (n == 0 && !stranger)
		n = n_enrolled(s);
	/* Mostly a part of the plants is enough; sometimes it takes all of them, sometimes one more. */
	uint64_t quorum = rng_below(r, 3) == 0 ? n : 1 + rng_below(r, n > 1 ? (n + 1) / 2 : 1);
	quorum += rng_below(r, 30) == 0 ? n + 1 : 0;
	quorum = quorum > 0 ? quorum : 1;
	if (stranger || n == 0 || quorum > n)
		right = ONLY(ERR_CONFIG);
	write_rounds(s, out, quorum, n, &right);
	ENSURE(buf_printf(out, "name: job %zu\nquorum: %" PRIu64 "\ndeadline: %" PRIu64 "s\n", s->book.n_jobs, quorum,
			  15 + rng_below(r, 60)) == ERR_OK);
	ENSURE(buf_printf(out, "failures_max: %" PRIu64 "\n%s", 1 + rng_below(r, 3), ANY(s, variety)) == ERR_OK);
	*ret_right = right;
}

static void start_job(struct sim *s)
{
	struct yaml *yaml;
	struct job_config config;
	struct wire_start_job request = {.source = s->book.sources[rng_below(&s->rng, SIM_SOURCES)]};
	struct buf text;
	errors right;
	uint64_t id = 0;
	buf_init(&text, 64 << 10);
	buf_init(&request.config, WIRE_CONFIG_MAX);
	write_job(s, &text, &right);
	ENSURE(yaml_parse("job", buf_bytes(&text), &yaml) == ERR_OK);
	ENSURE(config_read(job_wire_rows, yaml_root(yaml), &config) == ERR_OK);
	ENSURE(config_canonical(job_wire_rows, &config, &request.config) == ERR_OK);
	s->starting = &request;
	enum err err = engine_job_start(s->host.engine, &request, &id);
	check_operator_error(s, "starting a job", err, right);
	look_at_database(s);
	s->starting = NULL;
	if (err != ERR_OK && host_disk_failed(s))
		doubt_start(s, &request);
	sim_say(s, "operator: starts job %" PRIu64 " (quorum %" PRId64 "): %s", id, config.quorum, err_name(err));
	if (err == ERR_OK && id != s->book.n_jobs)
		sim_violated(s, "a job that has started is durable", "job %" PRIu64 " is not in the database", id);
	/* Once more, as who has not heard of the answer does. */
	if (err == ERR_OK && rng_below(&s->rng, 4) == 0) {
		err = engine_job_start(s->host.engine, &request, &id);
		check_operator_error(s, "starting a job twice", err, ONLY(ERR_STATE));
		cover("a job that is started twice");
	}
	config_free(job_wire_rows, &config);
	yaml_free(yaml);
	buf_deinit(&text);
	buf_deinit(&request.config);
}

/* ---- stopping, resuming, watching ---- */

void operator_stop(struct sim *s, uint64_t job)
{
	struct book_job *j = s->book.jobs[job];
	bool running = j->state == WIRE_JOB_RUNNING;
	enum err err = engine_job_stop(s->host.engine, j->id);
	check_operator_error(s, "stopping a job", err, running ? ONLY(ERR_OK) : ONLY(ERR_STATE));
	sim_say(s, "operator: stops job %" PRIu64 ": %s", j->id, err_name(err));
	j->stop_asked |= running;
	host_touch(s);
}

static void stop_job(struct sim *s)
{
	if (s->book.n_jobs > 0)
		operator_stop(s, 1 + rng_below(&s->rng, s->book.n_jobs));
}

static errors judge_resume(struct sim *s, const struct book_job *j)
{
	uint32_t n = 0;
	if (j->state != WIRE_JOB_STOPPED && j->state != WIRE_JOB_FAILED)
		return ONLY(ERR_STATE);
	for (size_t i = 1; i <= s->book.n_jobs; i++) {
		const struct book_job *other = s->book.jobs[i];
		if (other->state == WIRE_JOB_RUNNING && strcmp(other->config.name, j->config.name) == 0)
			return ONLY(ERR_STATE);
	}
	for (uint32_t i = 0; i < s->n_plants; i++)
		n += j->cohort[i] && s->plants[i].enrolled;
	return ONLY(n < j->config.quorum ? ERR_STATE : ERR_OK);
}

/* Mostly one for which it makes sense. */
static void resume_job(struct sim *s)
{
	uint64_t id = s->book.n_jobs;
	const struct book_job *j = book_job(s, id);
	while (j != NULL && rng_below(&s->rng, 8) != 0 && j->state != WIRE_JOB_STOPPED && j->state != WIRE_JOB_FAILED)
		j = book_job(s, --id);
	if (j == NULL || j->round + (j->config.rounds + 1) * j->config.failures_max > SIM_ROUNDS_MAX)
		return;
	errors right = judge_resume(s, j);
	s->resuming = id;
	enum err err = engine_job_resume(s->host.engine, id);
	check_operator_error(s, "resuming a job", err, right);
	look_at_database(s);
	s->resuming = 0;
	if (err != ERR_OK && host_disk_failed(s)) {
		doubt_clear(s);
		s->doubt.resumes = id;
	}
	sim_say(s, "operator: resumes job %" PRIu64 ": %s", id, err_name(err));
	cover_expect("a job that goes on");
	cover(err == ERR_OK ? "a job that goes on" : "a job that cannot go on");
	if (err == ERR_OK && j->state != WIRE_JOB_RUNNING)
		sim_violated(s, "a job that goes on runs", "job %" PRIu64, id);
}

static void watch(struct sim *s)
{
	if (s->book.n_jobs > 0) {
		s->watched = 1 + rng_below(&s->rng, s->book.n_jobs + 1);
		net_ask(s, SIM_NOBODY, ++s->watch_request, 0, 0, s->watched);
	}
}

void operator_answer(struct sim *s, const struct answer *a)
{
	if (a->request != s->watch_request || a->code != ERR_OK || a->state != WIRE_JOB_RUNNING)
		return;
	net_ask(s, SIM_NOBODY, ++s->watch_request, a->version, 0, s->watched);
}

void operator_acts(struct sim *s, const struct event *e)
{
	static void (*const deeds[DEED_COUNT])(struct sim * s) = {
		[DEED_START] = start_job,
		[DEED_STOP] = stop_job,
		[DEED_RESUME] = resume_job,
		[DEED_WATCH] = watch,
	};
	static const char *const names[DEED_COUNT] = {
		[DEED_START] = "a job is started",
		[DEED_STOP] = "a job is stopped",
		[DEED_RESUME] = "a job is resumed",
		[DEED_WATCH] = "a job is watched",
	};
	if (!s->host.up) {
		sim_later(s, 1000, EVENT_OPERATOR, SIM_NOBODY, e->ref, NULL);
		return;
	}
	if (e->ref == DEED_START && s->book.n_jobs == SIM_JOBS_MAX)
		return;
	cover(names[e->ref]);
	deeds[e->ref](s);
	host_touch(s);
}

/* ---- members ---- */

void operator_enrol(struct sim *s, uint32_t who)
{
	struct plant *p = &s->plants[who];
	struct member m = {.role = ROLE_PLANT, .expires_ms = sim_wall(s) + 1000000000};
	m.enrolled_ms = sim_wall(s) + ++p->enrolments;
	memcpy(m.name, p->name, sizeof p->name);
	char *key = mem_printf("%s %u", p->name, p->enrolments);
	m.key = digest_of(bytes_str(key));
	free(key);
	host_quiet(s, true);
	ENSURE(db_member_put(s->host.db, &m) == ERR_OK);
	ENSURE(registry_reload(s->host.registry) == ERR_OK);
	host_quiet(s, false);
	p->enrolled = true;
	sim_say(s, "operator: enrols %s", p->name);
	if (p->state == PLANT_GONE)
		plant_start(s, who);
}

/* As the service does it: the roster first, then the disk, then the rounds. */
void operator_revoke(struct sim *s, uint32_t who)
{
	struct plant *p = &s->plants[who];
	sim_say(s, "operator: revokes %s", p->name);
	registry_revoke(s->host.registry, ROLE_PLANT, p->name);
	host_quiet(s, true);
	ENSURE(db_member_revoke(s->host.db, ROLE_PLANT, p->name, sim_wall(s)) == ERR_OK);
	ENSURE(registry_reload(s->host.registry) == ERR_OK);
	host_quiet(s, false);
	p->enrolled = false;
	book_revoked(s, who);
	engine_revoked(s->host.engine, p->name);
	host_touch(s);
}
