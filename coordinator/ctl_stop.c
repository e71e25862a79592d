/*
 * hansactl job stop: asks, and waits for the end, which comes when the job's present step is done. A coordinator that restarts meanwhile has
 * forgotten what it was asked: it is found again, like by hansactl watch, and asked again.
 */
#include "base/clock.h"
#include "coordinator/commands.h"
#include "coordinator/ctl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WAIT_SECONDS = 60, RETRY_MS = 500, CALL_MS = 100000 /* less than a call that waits may take */ };

struct stop_args {
	struct ctl_args ctl;
	int64_t wait; /* seconds; 0: WAIT_SECONDS */
};

struct stop {
	const struct stop_args *args;
	struct ctl ctl;
	bool open, asked;
	uint64_t job;
	char name[WIRE_NAME_SIZE];
	enum wire_job_state state;
	int64_t until_ms; /* monotonic */
};

static enum err connect_again(struct stop *s)
{
	if (s->open)
		ctl_close(&s->ctl);
	s->open = false;
	TRY(ctl_open(s->args->ctl.dir, &s->ctl));
	s->open = true;
	return ERR_OK;
}

static enum err ask(struct stop *s)
{
	struct buf request, reply = {0};
	buf_init(&request, 64);
	enum err err = wire_job_ref_pack(&(struct wire_job_ref){.job = s->job}, &request);
	if (err == ERR_OK)
		err = ctl_call(&s->ctl, METHOD_STOP_JOB, &request, &reply);
	if (err == ERR_STATE && s->asked)
		err = ERR_OK; /* it has ended meanwhile */
	s->asked |= err == ERR_OK;
	buf_deinit(&request);
	buf_deinit(&reply);
	return err;
}

static enum err wait_for_end(struct stop *s)
{
	struct wire_watch_reply now;
	for (uint64_t seen = 0;;) {
		int64_t left = s->until_ms - clock_monotonic_ms();
		if (left <= 0)
			return err_set(ERR_DEADLINE, "it goes on");
		TRY(ctl_watch(&s->ctl, s->job, seen, left < CALL_MS ? left : CALL_MS, &now));
		seen = now.version;
		s->state = now.job.state;
		wire_watch_reply_free(&now);
		if (s->state != WIRE_JOB_RUNNING)
			return ERR_OK;
	}
}

static enum err too_long(const struct stop *s, enum err err)
{
	char *text = mem_str(err_text());
	int64_t wait = s->args->wait != 0 ? s->args->wait : WAIT_SECONDS;
	if (err == ERR_DEADLINE)
		err_set(err,
			"job %" PRIu64 " (%s) will stop when its present step is done, which takes longer than %" PRId64
			" s; see hansactl job show %" PRIu64,
			s->job, s->name, wait, s->job);
	else
		err_set(err,
			"job %" PRIu64 " (%s) was asked to stop, but the coordinator does not answer: %s; see hansactl "
			"job show %" PRIu64,
			s->job, s->name, text, s->job);
	free(text);
	return err;
}

/* Asks and waits, over restarts of the coordinator. */
static enum err stop(struct stop *s)
{
	enum err err = ERR_OK;
	for (;;) {
		if (err == ERR_OK)
			err = ask(s);
		if (err == ERR_OK)
			err = wait_for_end(s);
		if (err == ERR_OK || !s->asked || !err_is_transient(err))
			return err;
		if (clock_monotonic_ms() >= s->until_ms)
			return too_long(s, err);
		clock_sleep_ms(RETRY_MS);
		err = connect_again(s);
	}
}

static enum err find(struct stop *s, const char *word)
{
	struct wire_jobs job = {.n = 0};
	TRY(connect_again(s));
	TRY(ctl_find_job(&s->ctl, word, &job));
	s->job = job.v[0].job;
	memcpy(s->name, job.v[0].name, sizeof s->name);
	wire_jobs_free(&job);
	return ERR_OK;
}

static enum err job_stop(const void *p, const char *const *words, size_t n_words)
{
	(void)n_words;
	const struct stop_args *args = p;
	struct stop s = {.args = args};
	s.until_ms = clock_monotonic_ms() + (args->wait != 0 ? args->wait : WAIT_SECONDS) * 1000;
	enum err err = find(&s, words[0]);
	if (err == ERR_OK)
		err = stop(&s);
	if (err == ERR_OK && s.state == WIRE_JOB_STOPPED)
		printf("stopped job %" PRIu64 " (%s)\n", s.job, s.name);
	else if (err == ERR_OK)
		printf("job %" PRIu64 " (%s) ended before it could be stopped: it is %s\n", s.job, s.name,
		       wire_job_state_name(s.state));
	if (s.open) {
		char *text = mem_str(err_text());
		ctl_close(&s.ctl);
		err_set(err, "%s", text);
		free(text);
	}
	return err;
}

static const struct cli_option options[] = {
	CTL_DIR_OPTION,
	{"wait", 0, CLI_INT, offsetof(struct stop_args, wait), "SECONDS", "how long to wait for the end (60)", .min = 1,
	 .max = 86400},
	{0},
};

const struct cli_command command_job_stop = {
	.name = "job stop",
	.arguments = "JOB",
	.summary = "end a running job; its last committed model stays",
	.help = "An open round is abandoned; a round that is sealed already is committed first. Returns when the job "
		"has ended.\n\n"
		"Example:\n  hansactl --dir /var/lib/hansa job stop 1\n",
	.options = options,
	.args_size = sizeof(struct stop_args),
	.positional_min = 1,
	.positional_max = 1,
	.run = job_stop,
};
