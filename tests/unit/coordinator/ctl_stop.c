/*
 * hansactl job stop before a coordinator that answers by a script: what it waits for, and for how long.
 */
#include "rpc/fixture.h"

#include "certs/credential.h"
#include "coordinator/commands.h"
#include "coordinator/ctl.h"
#include "temp.h"

#include <pthread.h>
#include <unistd.h>

enum { SCRIPT_MAX = 8, NEVER = -1 };

/* What a Watch is answered with: an error, or a job in that state. */
struct line {
	enum err err;
	int state; /* enum wire_job_state; NEVER: no answer */
};

static struct script {
	pthread_mutex_t lock;
	struct rpc_server *server;
	struct line lines[SCRIPT_MAX]; /* the last one again and again */
	size_t n, next;
	size_t stops;      /* questions to stop */
	size_t ended_at;   /* from this one on the job has ended; 0: never */
	size_t good_stops; /* all others fail so: */
	enum err fail_stops;
	size_t seen;              /* what the last Watch has seen */
	struct rpc_ticket *waits; /* NEVER */
} script;

static char dir[PATH_SIZE];

static struct wire_job job_in(enum wire_job_state state)
{
	struct wire_job job = {.job = 7, .rounds = 3, .state = state};
	snprintf(job.name, sizeof job.name, "bearings");
	return job;
}

static enum err list_jobs(void *ctx, const struct peer *peer, struct bytes request, struct buf *reply)
{
	struct wire_job job = job_in(WIRE_JOB_RUNNING);
	struct wire_jobs jobs = {.n = 1, .v = &job};
	(void)ctx, (void)peer, (void)request;
	return wire_jobs_pack(&jobs, reply);
}

static enum err stop_job(void *ctx, const struct peer *peer, struct bytes request, struct buf *reply)
{
	struct wire_job_ref asked;
	(void)ctx, (void)peer, (void)reply;
	TRY(wire_job_ref_unpack(request, &asked));
	pthread_mutex_lock(&script.lock);
	size_t n = ++script.stops;
	enum err fail = n > script.good_stops ? script.fail_stops : ERR_OK;
	bool ended = script.ended_at != 0 && n >= script.ended_at;
	pthread_mutex_unlock(&script.lock);
	if (asked.job != 7)
		return err_set(ERR_NOT_FOUND, "there is no job %d", (int)asked.job);
	if (fail != ERR_OK)
		return err_set(fail, "said the test");
	return ended ? err_set(ERR_STATE, "job 7 has ended (done)") : ERR_OK;
}

static void watch(void *ctx, const struct peer *peer, struct bytes request, struct rpc_ticket *ticket)
{
	struct wire_watch_request asked;
	struct buf reply;
	(void)ctx, (void)peer;
	buf_init(&reply, 1 << 16);
	pthread_mutex_lock(&script.lock);
	struct line line = script.lines[script.next < script.n ? script.next++ : script.n - 1];
	size_t version = script.next;
	enum err err = wire_watch_request_unpack(request, &asked);
	script.seen = asked.seen;
	if (line.state == NEVER)
		script.waits = ticket;
	pthread_mutex_unlock(&script.lock);
	if (line.state == NEVER)
		return;
	if (err == ERR_OK && line.err != ERR_OK)
		err = err_set(line.err, "said the test");
	if (err == ERR_OK) {
		struct wire_watch_reply now = {.version = version, .job = job_in((enum wire_job_state)line.state)};
		err = wire_watch_reply_pack(&now, &reply);
	}
	rpc_ticket_answer(ticket, err, buf_bytes(&reply));
	buf_deinit(&reply);
}

static bool gone(void *ctx, struct rpc_ticket *ticket)
{
	(void)ctx;
	pthread_mutex_lock(&script.lock);
	bool waits = script.waits == ticket;
	if (waits)
		script.waits = NULL;
	pthread_mutex_unlock(&script.lock);
	return waits;
}

static const struct rpc_handler handlers[METHOD_COUNT] = {
	[METHOD_LIST_JOBS] = {.unary = list_jobs},
	[METHOD_STOP_JOB] = {.unary = stop_job},
	[METHOD_WATCH] = {.parked = watch},
};

/* As hansactl does it: what it ends with, and what it prints. */
static enum err stop(const char *job, int64_t wait, char out[256])
{
	struct {
		struct ctl_args ctl;
		int64_t wait;
	} args = {{.dir = dir}, wait};
	char path[PATH_SIZE];
	const char *words[] = {job};
	struct buf text;
	ENSURE(command_job_stop.args_size == sizeof args);
	path_join(path, dir, "stdout");
	fflush(stdout);
	int before = dup(STDOUT_FILENO);
	assert_non_null(freopen(path, "w", stdout));
	enum err err = command_job_stop.run(&args, words, 1);
	fflush(stdout);
	dup2(before, STDOUT_FILENO);
	close(before);
	assert_int_equal(file_read(path, 255, &text), ERR_OK);
	snprintf(out, 256, "%.*s", (int)text.n, (const char *)text.p);
	buf_deinit(&text);
	return err;
}

static void add(enum err err, int state)
{
	pthread_mutex_lock(&script.lock);
	script.lines[script.n++] = (struct line){err, state};
	pthread_mutex_unlock(&script.lock);
}

static size_t get(const size_t *number)
{
	pthread_mutex_lock(&script.lock);
	size_t n = *number;
	pthread_mutex_unlock(&script.lock);
	return n;
}

static void it_returns_when_the_job_has_ended(void **state)
{
	(void)state;
	char out[256];
	add(ERR_OK, WIRE_JOB_RUNNING);
	add(ERR_OK, WIRE_JOB_RUNNING);
	add(ERR_OK, WIRE_JOB_STOPPED);
	assert_ok(stop("bearings", 0, out));
	assert_string_equal(out, "stopped job 7 (bearings)\n");
	assert_int_equal(get(&script.stops), 1);
	assert_int_equal(get(&script.next), 3);
	assert_int_equal(get(&script.seen), 2);
}

static void a_job_that_ends_by_itself_is_no_failure(void **state)
{
	(void)state;
	char out[256];
	add(ERR_OK, WIRE_JOB_DONE);
	assert_ok(stop("7", 0, out));
	assert_string_equal(out, "job 7 (bearings) ended before it could be stopped: it is done\n");
}

static void one_that_had_ended_is_said_so(void **state)
{
	(void)state;
	char out[256];
	script.ended_at = 1;
	add(ERR_OK, WIRE_JOB_DONE);
	assert_err(ERR_STATE, stop("7", 0, out));
	assert_string_equal(err_text(), "job 7 has ended (done)");
	assert_string_equal(out, "");
	assert_int_equal(get(&script.next), 0);
}

/* It may have forgotten that it was asked. */
static void a_coordinator_that_goes_away_is_asked_again(void **state)
{
	(void)state;
	char out[256];
	add(ERR_OK, WIRE_JOB_RUNNING);
	add(ERR_UNAVAILABLE, 0);
	add(ERR_OK, WIRE_JOB_STOPPED);
	assert_ok(stop("7", 0, out));
	assert_string_equal(out, "stopped job 7 (bearings)\n");
	assert_int_equal(get(&script.stops), 2);
}

static void one_that_has_not_forgotten_says_that_it_has_ended(void **state)
{
	(void)state;
	char out[256];
	script.ended_at = 2;
	add(ERR_UNAVAILABLE, 0);
	add(ERR_OK, WIRE_JOB_STOPPED);
	assert_ok(stop("7", 0, out));
	assert_string_equal(out, "stopped job 7 (bearings)\n");
	assert_int_equal(get(&script.stops), 2);
}

static void a_first_question_without_an_answer_is_not_repeated(void **state)
{
	(void)state;
	char out[256];
	script.fail_stops = ERR_UNAVAILABLE;
	assert_err(ERR_UNAVAILABLE, stop("7", 0, out));
	assert_int_equal(get(&script.stops), 1);
}

static void it_does_not_wait_for_ever(void **state)
{
	(void)state;
	char out[256];
	add(ERR_OK, WIRE_JOB_RUNNING);
	add(ERR_OK, NEVER);
	assert_err(ERR_DEADLINE, stop("7", 1, out));
	assert_string_equal(err_text(),
			    "job 7 (bearings) will stop when its present step is done, which takes longer than "
			    "1 s; see hansactl job show 7");
	assert_string_equal(out, "");
	pthread_mutex_lock(&script.lock);
	script.n = script.next = 0;
	script.good_stops = script.stops + 1;
	script.fail_stops = ERR_UNAVAILABLE;
	pthread_mutex_unlock(&script.lock);
	add(ERR_UNAVAILABLE, 0);
	assert_err(ERR_UNAVAILABLE, stop("7", 1, out));
	assert_non_null(strstr(err_text(), "does not answer: said the test; see hansactl job show 7"));
}

static void refusals_are_final(void **state)
{
	(void)state;
	char out[256];
	add(ERR_DENIED, 0);
	assert_err(ERR_DENIED, stop("7", 0, out));
	assert_int_equal(get(&script.stops), 1);
}

static int fresh(void **state)
{
	(void)state;
	struct rpc_server_config config = fixture_server_config(handlers, NULL);
	struct identity id;
	struct key *key;
	struct cert *cert;
	char address[64];
	temp_make(dir);
	script = (struct script){0};
	pthread_mutex_init(&script.lock, NULL);
	config.gone = gone;
	assert_ok(rpc_server_start(&config, &script.server));
	snprintf(address, sizeof address, "127.0.0.1:%d", rpc_server_port(script.server));
	assert_ok(identity_make(ROLE_OPERATOR, FEDERATION, "admin", &id));
	assert_ok(key_generate(KEY_P256, &key));
	assert_ok(cert_issue(fixture.ca.cert, fixture.ca.key, key, &id, NULL, clock_wall_ms() - DAY_MS,
			     clock_wall_ms() + DAY_MS, &cert));
	assert_ok(credential_save(dir, key, cert, buf_bytes(&fixture.ca.pem), address));
	key_free(key);
	cert_free(cert);
	return 0;
}

static int clean(void **state)
{
	(void)state;
	rpc_server_stop(script.server, 1000);
	pthread_mutex_destroy(&script.lock);
	temp_remove(dir);
	return 0;
}

#define SCENARIO(name) cmocka_unit_test_setup_teardown(name, fresh, clean)

int main(void)
{
	const struct CMUnitTest tests[] = {
		SCENARIO(it_returns_when_the_job_has_ended),
		SCENARIO(a_job_that_ends_by_itself_is_no_failure),
		SCENARIO(one_that_had_ended_is_said_so),
		SCENARIO(a_coordinator_that_goes_away_is_asked_again),
		SCENARIO(one_that_has_not_forgotten_says_that_it_has_ended),
		SCENARIO(a_first_question_without_an_answer_is_not_repeated),
		SCENARIO(it_does_not_wait_for_ever),
		SCENARIO(refusals_are_final),
	};
	return cmocka_run_group_tests(tests, fixture_begin, fixture_end);
}
