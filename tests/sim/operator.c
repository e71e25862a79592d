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
	/* Mostly a part of the plants is enough; sometimes it takes all of them, sometimes one more. */
	uint64_t quorum = rng_below(r, 3) == 0 ? n : 1 + rng_below(r, n > 1 ? (n + 1) / 2 : 1);
	quorum += rng_below(r, 30) == 0 ? n + 1 : 0;
	quorum = quorum > 0 ? quorum : 1;
	/* A list without names is one of all plants, and fewer names than the quorum cannot be read. */
	ENSURE(buf_printf(out, "name: job %zu\nrounds: %" PRIu64 "\nquorum: %" PRIu64 "\ndeadline: %" PRIu64 "s\n",
			  s->book.n_jobs, 1 + rng_below(r, 4), quorum, 15 + rng_below(r, 60)) == ERR_OK);
	ENSURE(buf_printf(out, "failures_max: %" PRIu64 "\n%s", 1 + rng_below(r, 3),
			  variety[rng_below(r, sizeof variety / sizeof variety[0])]) == ERR_OK);
	if (stranger || n == 0 || quorum > n)
		right = ONLY(ERR_CONFIG);
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
	if (config.plants.n == 0 && right != ONLY(ERR_OK) && config.quorum <= (int64_t)n_enrolled(s))
		right = ONLY(ERR_OK);
	s->starting = &request;
	enum err err = engine_job_start(s->host.engine, &request, &id);
	check_error(s, "jobs are judged rightly", "starting a job", err, right);
	look_at_database(s);
	s->starting = NULL;
	sim_say(s, "operator: starts job %" PRIu64 " (quorum %" PRId64 "): %s", id, config.quorum, err_name(err));
	if (err == ERR_OK && id != s->book.n_jobs)
		sim_violated(s, "a job that has started is durable", "job %" PRIu64 " is not in the database", id);
	/* Once more, as who has not heard of the answer does. */
	if (err == ERR_OK && rng_below(&s->rng, 4) == 0) {
		err = engine_job_start(s->host.engine, &request, &id);
		check_error(s, "jobs are judged rightly", "starting a job twice", err, ONLY(ERR_STATE));
		cover("a job that is started twice");
	}
	config_free(job_wire_rows, &config);
	yaml_free(yaml);
	buf_deinit(&text);
	buf_deinit(&request.config);
}

/* ---- stopping, watching ---- */

void operator_stop(struct sim *s, uint64_t job)
{
	struct book_job *j = s->book.jobs[job];
	bool running = j->state == WIRE_JOB_RUNNING;
	enum err err = engine_job_stop(s->host.engine, j->id);
	check_error(s, "jobs are judged rightly", "stopping a job", err, running ? ONLY(ERR_OK) : ONLY(ERR_STATE));
	sim_say(s, "operator: stops job %" PRIu64 ": %s", j->id, err_name(err));
	j->stop_asked |= running;
	host_touch(s);
}

static void stop_job(struct sim *s)
{
	if (s->book.n_jobs > 0)
		operator_stop(s, 1 + rng_below(&s->rng, s->book.n_jobs));
}

static void watch(struct sim *s)
{
	if (s->book.n_jobs > 0) {
		s->watched = 1 + rng_below(&s->rng, s->book.n_jobs + 1);
		net_ask(s, SIM_NOBODY, ++s->watch_request, 0, s->watched);
	}
}

void operator_answer(struct sim *s, const struct answer *a)
{
	if (a->request != s->watch_request || a->code != ERR_OK || a->state != WIRE_JOB_RUNNING)
		return;
	net_ask(s, SIM_NOBODY, ++s->watch_request, a->version, s->watched);
}

void operator_acts(struct sim *s, const struct event *e)
{
	static void (*const deeds[DEED_COUNT])(struct sim * s) = {
		[DEED_START] = start_job,
		[DEED_STOP] = stop_job,
		[DEED_WATCH] = watch,
	};
	static const char *const names[DEED_COUNT] = {
		[DEED_START] = "a job is started",
		[DEED_STOP] = "a job is stopped",
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
	ENSURE(db_member_put(s->host.db, &m) == ERR_OK);
	ENSURE(registry_reload(s->host.registry) == ERR_OK);
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
	ENSURE(db_member_revoke(s->host.db, ROLE_PLANT, p->name, sim_wall(s)) == ERR_OK);
	ENSURE(registry_reload(s->host.registry) == ERR_OK);
	p->enrolled = false;
	book_revoked(s, who);
	engine_revoked(s->host.engine, p->name);
	host_touch(s);
}
