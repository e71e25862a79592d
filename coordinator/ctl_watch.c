/*
 * hansactl watch: follows a job to its end. A coordinator that restarts is found again, also at another port: the address is read anew.
 */
#include "base/clock.h"
#include "base/table.h"
#include "coordinator/commands.h"
#include "coordinator/ctl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATIENCE_MS = 120000, RETRY_MS = 500 };

struct watch {
	const struct ctl_args *args;
	struct ctl ctl;
	bool open;
	uint64_t job, seen;
	uint32_t printed;               /* rounds up to this one are on stdout */
	int64_t heard_ms;               /* monotonic: the last answer */
	char trouble[WIRE_REASON_SIZE]; /* told last */
};

/* ---- printing ---- */

static enum err print_round(const struct watch *w, const struct wire_round *r)
{
	char model[CTL_TEXT_SIZE], count[CTL_TEXT_SIZE], loss[48] = "";
	double mean;
	if (w->args->json) {
		TRY(ctl_print_json(ctl_round_json(r)));
	} else {
		if (ctl_round_mean(r, "train_loss", &mean))
			snprintf(loss, sizeof loss, "  training loss %.4f", mean);
		progress("%s", "");
		printf("round %3" PRIu32 "  %-9s  %s plants  %6.1f s  model %s%s%s%s\n", r->round, r->phase,
		       ctl_count(r, count),
		       r->closed_ms > r->opened_ms ? (double)(r->closed_ms - r->opened_ms) / 1000 : 0,
		       ctl_short(&r->model, model), loss, r->reason[0] != '\0' ? "  " : "", r->reason);
	}
	fflush(stdout);
	return ERR_OK;
}

/* Rounds that have closed since. */
static enum err print_closed(struct watch *w)
{
	struct wire_rounds rounds;
	TRY(ctl_list_rounds(&w->ctl, w->job, &rounds));
	enum err err = ERR_OK;
	for (size_t i = 0; err == ERR_OK && i < rounds.n; i++) {
		const struct wire_round *r = &rounds.v[i];
		if (r->round <= w->printed || r->closed_ms == 0)
			continue;
		err = print_round(w, r);
		w->printed = r->round;
	}
	wire_rounds_free(&rounds);
	return err;
}

static enum err print_end(const struct watch *w, const struct wire_job *j)
{
	char model[DIGEST_TEXT_SIZE];
	if (w->args->json)
		TRY(ctl_print_json(ctl_job_json(j)));
	else if (j->state == WIRE_JOB_DONE)
		printf("job %" PRIu64 " (%s) is done; model %s\n", j->job, j->name, digest_format(&j->model, model));
	if (j->state == WIRE_JOB_DONE)
		return ERR_OK;
	bool says_why = j->state == WIRE_JOB_FAILED && j->reason[0] != '\0';
	return err_set(ERR_STATE, "job %" PRIu64 " (%s) %s in round %" PRIu32 "%s%s", j->job, j->name,
		       j->state == WIRE_JOB_FAILED ? "failed" : "was stopped", j->round, says_why ? ": " : "",
		       says_why ? j->reason : "");
}

/* ---- following ---- */

/* On stderr, once: rounds are on stdout, and this may pass. */
static void tell_trouble(struct watch *w, const struct wire_job *j)
{
	if (strcmp(j->trouble, w->trouble) == 0)
		return;
	memcpy(w->trouble, j->trouble, sizeof w->trouble);
	progress("%s", "");
	if (j->trouble[0] != '\0')
		fprintf(stderr, "%s: round %" PRIu32 ": %s\n", j->name, j->round, j->trouble);
}

static enum err follow(struct watch *w, bool *ret_ended, enum err *ret_end)
{
	struct wire_watch_reply now;
	char count[CTL_TEXT_SIZE];
	TRY(ctl_watch(&w->ctl, w->job, w->seen, 0, &now));
	w->heard_ms = clock_monotonic_ms();
	w->seen = now.version;
	bool ended = now.job.state != WIRE_JOB_RUNNING;
	tell_trouble(w, &now.job);
	enum err err = ERR_OK;
	if (ended || now.job.round > w->printed + 1)
		err = print_closed(w);
	if (err == ERR_OK && ended)
		*ret_end = print_end(w, &now.job);
	else if (err == ERR_OK && now.has_round)
		progress("%s: round %" PRIu32 " (%" PRIu32 " to commit): %s plants have reported", now.job.name,
			 now.round.round, now.job.rounds, ctl_count(&now.round, count));
	wire_watch_reply_free(&now);
	TRY(err);
	*ret_ended = ended;
	return ERR_OK;
}

static enum err connect_again(struct watch *w)
{
	if (w->open)
		ctl_close(&w->ctl);
	w->open = false;
	TRY(ctl_open(w->args->dir, &w->ctl));
	w->open = true;
	return ERR_OK;
}

static enum err watch_to_end(struct watch *w)
{
	bool ended = false;
	enum err end = ERR_OK;
	while (!ended) {
		enum err err = follow(w, &ended, &end);
		if (err == ERR_OK)
			continue;
		if (!err_is_transient(err) || clock_monotonic_ms() - w->heard_ms > PATIENCE_MS)
			return err;
		progress("the coordinator does not answer; trying again");
		clock_sleep_ms(RETRY_MS);
		TRY(connect_again(w));
	}
	return end;
}

static enum err watch(const void *p, const char *const *words, size_t n_words)
{
	(void)n_words;
	struct watch w = {.args = p};
	struct wire_jobs job = {.n = 0};
	TRY(connect_again(&w));
	enum err err = ctl_find_job(&w.ctl, words[0], &job);
	if (err == ERR_OK) {
		w.job = job.v[0].job;
		w.heard_ms = clock_monotonic_ms();
		wire_jobs_free(&job);
		err = watch_to_end(&w);
	}
	if (w.open) {
		char *text = mem_str(err_text());
		ctl_close(&w.ctl);
		err_set(err, "%s", text);
		free(text);
	}
	return err;
}

static const struct cli_option options[] = {CTL_DIR_OPTION, CTL_JSON_OPTION, {0}};

const struct cli_command command_watch = {
	.name = "watch",
	.arguments = "JOB",
	.summary = "follow a job until it ends, a line for each round",
	.help = "JOB is a job's number or name. Exits with 0 when the job is done and with 1 when it failed or was "
		"stopped. A coordinator that restarts\n"
		"is waited for; when a round cannot go on (a full disk, say), stderr says why. With --json a line of "
		"JSON for each round, and one for the job at the end.\n\n"
		"Example:\n  hansactl --dir /var/lib/hansa watch 1\n",
	.options = options,
	.args_size = sizeof(struct ctl_args),
	.positional_min = 1,
	.positional_max = 1,
	.run = watch,
};
