/*
 * hansactl job list, job show, job resume, rounds.
 */
#include "base/table.h"
#include "coordinator/commands.h"
#include "coordinator/ctl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_MAX = 64 << 20 };

static const struct cli_option options[] = {CTL_DIR_OPTION, CTL_JSON_OPTION, {0}};

static enum err print_table(struct table *t)
{
	struct buf text;
	buf_init(&text, TEXT_MAX);
	enum err err = table_write(t, &text);
	if (err == ERR_OK)
		printf("%s", buf_str(&text));
	buf_deinit(&text);
	table_free(t);
	return err;
}

/* ---- job list ---- */

static enum err print_jobs(const struct wire_jobs *jobs, bool json)
{
	if (json) {
		struct json *list = json_list();
		for (size_t i = 0; i < jobs->n; i++)
			json_push(list, ctl_job_json(&jobs->v[i]));
		return ctl_print_json(list);
	}
	struct table *t = table_new(">job|name|state|>round|>of|started|ended|model");
	for (size_t i = 0; i < jobs->n; i++) {
		const struct wire_job *j = &jobs->v[i];
		char created[CTL_TEXT_SIZE], ended[CTL_TEXT_SIZE], model[CTL_TEXT_SIZE];
		table_row(t, "%" PRIu64 "|%s|%s|%" PRIu32 "|%" PRIu32 "|%s|%s|%s", j->job, j->name,
			  wire_job_state_name(j->state), j->round, j->rounds, ctl_time(j->created_ms, created),
			  ctl_time(j->ended_ms, ended), ctl_short(&j->model, model));
	}
	return print_table(t);
}

static enum err job_list(const void *p, const char *const *words, size_t n_words)
{
	(void)words, (void)n_words;
	const struct ctl_args *args = p;
	struct wire_jobs jobs = {.n = 0};
	struct wire_job_ref all = {.job = 0};
	struct buf request, reply = {0};
	struct ctl ctl;
	TRY(ctl_open(args->dir, &ctl));
	buf_init(&request, 64);
	enum err err = wire_job_ref_pack(&all, &request);
	if (err == ERR_OK)
		err = ctl_call(&ctl, METHOD_LIST_JOBS, &request, &reply);
	if (err == ERR_OK)
		err = wire_jobs_unpack(buf_bytes(&reply), &jobs);
	if (err == ERR_OK)
		err = print_jobs(&jobs, args->json);
	wire_jobs_free(&jobs);
	buf_deinit(&request);
	buf_deinit(&reply);
	ctl_close(&ctl);
	return err;
}

const struct cli_command command_job_list = {
	.name = "job list",
	.arguments = "",
	.summary = "all jobs, running and ended",
	.help = "Example:\n  hansactl --dir /var/lib/hansa job list\n",
	.options = options,
	.args_size = sizeof(struct ctl_args),
	.run = job_list,
};

/* ---- job show ---- */

static enum err print_job(const struct wire_job *j)
{
	char text[CTL_TEXT_SIZE], digest[DIGEST_TEXT_SIZE];
	struct json *config = NULL;
	struct buf pretty;
	printf("job      %" PRIu64 "\nname     %s\nstate    %s\nround    %" PRIu32 " (%" PRIu32 " to commit)\n", j->job,
	       j->name, wire_job_state_name(j->state), j->round, j->rounds);
	printf("started  %s\n", ctl_time(j->created_ms, text));
	printf("ended    %s\n", ctl_time(j->ended_ms, text));
	if (j->reason[0] != '\0')
		printf("reason   %s\n", j->reason);
	if (j->trouble[0] != '\0')
		printf("trouble  %s\n", j->trouble);
	printf("source   %s\n", digest_format(&j->source, digest));
	printf("model    %s\n", digest_is_zero(&j->model) ? "none yet" : digest_format(&j->model, digest));
	if (j->config.n == 0)
		return ERR_OK;
	TRY(json_parse(buf_bytes(&j->config), &config));
	buf_init(&pretty, TEXT_MAX);
	enum err err = json_write_pretty(config, &pretty);
	if (err == ERR_OK)
		printf("config   %s\n", buf_str(&pretty));
	buf_deinit(&pretty);
	json_free(config);
	return err;
}

static enum err job_show(const void *p, const char *const *words, size_t n_words)
{
	(void)n_words;
	const struct ctl_args *args = p;
	struct wire_jobs job = {.n = 0};
	struct ctl ctl;
	TRY(ctl_open(args->dir, &ctl));
	enum err err = ctl_find_job(&ctl, words[0], &job);
	if (err == ERR_OK)
		err = args->json ? ctl_print_json(ctl_job_json(&job.v[0])) : print_job(&job.v[0]);
	wire_jobs_free(&job);
	ctl_close(&ctl);
	return err;
}

const struct cli_command command_job_show = {
	.name = "job show",
	.arguments = "JOB",
	.summary = "state, models and configuration of a job",
	.help = "JOB is a job's number, or its name: the latest one that has it.\n\nExample:\n  hansactl --dir "
		"/var/lib/hansa job show 1\n",
	.options = options,
	.args_size = sizeof(struct ctl_args),
	.positional_min = 1,
	.positional_max = 1,
	.run = job_show,
};

/* ---- job resume ---- */

static enum err job_resume(const void *p, const char *const *words, size_t n_words)
{
	(void)n_words;
	const struct ctl_args *args = p;
	struct wire_jobs job = {.n = 0};
	struct buf request, reply = {0};
	struct ctl ctl;
	TRY(ctl_open(args->dir, &ctl));
	buf_init(&request, 64);
	enum err err = ctl_find_job(&ctl, words[0], &job);
	if (err == ERR_OK)
		err = wire_job_ref_pack(&(struct wire_job_ref){.job = job.v[0].job}, &request);
	if (err == ERR_OK)
		err = ctl_call(&ctl, METHOD_RESUME_JOB, &request, &reply);
	if (err == ERR_OK)
		printf("resumed job %" PRIu64 " (%s)\n", job.v[0].job, job.v[0].name);
	buf_deinit(&request);
	buf_deinit(&reply);
	wire_jobs_free(&job);
	ctl_close(&ctl);
	return err;
}

static const struct cli_option resume_options[] = {CTL_DIR_OPTION, {0}};

const struct cli_command command_job_resume = {
	.name = "job resume",
	.arguments = "JOB",
	.summary = "let a stopped or failed job go on",
	.help = "JOB is a job's number, or its name: the latest one that has it. It keeps its number, its "
		"configuration and "
		"its rounds; the next one opens\n"
		"from its last committed model (from the source, when there is none), and failed rounds are counted "
		"anew. A "
		"job that is done cannot go on:\n"
		"start another one from its model.\n\n"
		"Example:\n  hansactl --dir /var/lib/hansa job resume 1\n",
	.options = resume_options,
	.args_size = sizeof(struct ctl_args),
	.positional_min = 1,
	.positional_max = 1,
	.run = job_resume,
};

/* ---- rounds ---- */

static const char *loss_text(const struct wire_round *r, char out[CTL_TEXT_SIZE])
{
	double mean;
	if (ctl_round_mean(r, "train_loss", &mean))
		snprintf(out, CTL_TEXT_SIZE, "%.4f", mean);
	else
		snprintf(out, CTL_TEXT_SIZE, "-");
	return out;
}

static void add_round(struct table *t, const struct wire_round *r)
{
	char time[CTL_TEXT_SIZE], digest[CTL_TEXT_SIZE], loss[CTL_TEXT_SIZE], count[CTL_TEXT_SIZE];
	table_row(t, "%" PRIu32 "|%s|%s|||%s|%s|%s", r->round, r->phase, ctl_count(r, count), loss_text(r, loss),
		  ctl_time(r->closed_ms, time), ctl_short(&r->model, digest));
	for (size_t i = 0; i < r->n_contributions; i++) {
		const struct wire_contribution *c = &r->contributions[i];
		struct wire_round one = {.n_contributions = 1, .contributions = &r->contributions[i]};
		char late[CTL_TEXT_SIZE] = "";
		if (c->base_round != 0 && c->base_round != r->round)
			snprintf(late, sizeof late, " (made in round %" PRIu32 ")", c->base_round);
		table_row(t, "||  %s%s|%" PRIu64 "|%.4g|%s|%s|%s", c->plant, late, c->samples, c->norm,
			  loss_text(&one, loss), ctl_time(c->time_ms, time), ctl_short(&c->digest, digest));
	}
}

static void add_report(struct table *t, uint32_t round, const struct wire_plant_report *r)
{
	char text[WIRE_METRICS_MAX * (WIRE_NAME_SIZE + CTL_TEXT_SIZE)] = "-", time[CTL_TEXT_SIZE];
	for (size_t i = 0, at = 0; i < r->metrics.n; i++)
		at += (size_t)snprintf(text + at, sizeof text - at, "%s%s %.4g", i > 0 ? ", " : "",
				       r->metrics.v[i].name, r->metrics.v[i].value);
	table_row(t, "%" PRIu32 "|%s|%s|%s|%s", round, r->plant, r->taken ? "yes" : "no", ctl_time(r->time_ms, time),
		  text);
}

/* Why rounds were abandoned, and what plants make of the models. */
static enum err print_details(const struct wire_rounds *rounds)
{
	size_t n_reports = 0;
	for (size_t i = 0; i < rounds->n; i++) {
		const struct wire_round *r = &rounds->v[i];
		if (r->reason[0] != '\0')
			printf("round %" PRIu32 " was %s: %s\n", r->round, r->phase, r->reason);
		n_reports += r->n_reports;
	}
	if (n_reports == 0)
		return ERR_OK;
	struct table *t = table_new(">model of round|plant|taken into use|reported|on its held-out data");
	for (size_t i = 0; i < rounds->n; i++) {
		for (size_t k = 0; k < rounds->v[i].n_reports; k++)
			add_report(t, rounds->v[i].round, &rounds->v[i].reports[k]);
	}
	printf("\n");
	return print_table(t);
}

static enum err print_rounds(const struct wire_rounds *rounds, bool json)
{
	if (json) {
		struct json *list = json_list();
		for (size_t i = 0; i < rounds->n; i++)
			json_push(list, ctl_round_json(&rounds->v[i]));
		return ctl_print_json(list);
	}
	struct table *t = table_new(">round|phase|plant|>samples|>norm|>loss|time|digest");
	for (size_t i = 0; i < rounds->n; i++)
		add_round(t, &rounds->v[i]);
	TRY(print_table(t));
	return print_details(rounds);
}

static enum err rounds(const void *p, const char *const *words, size_t n_words)
{
	(void)n_words;
	const struct ctl_args *args = p;
	struct wire_jobs job = {.n = 0};
	struct wire_rounds list = {.n = 0};
	struct ctl ctl;
	TRY(ctl_open(args->dir, &ctl));
	enum err err = ctl_find_job(&ctl, words[0], &job);
	if (err == ERR_OK)
		err = ctl_list_rounds(&ctl, job.v[0].job, &list);
	if (err == ERR_OK)
		err = print_rounds(&list, args->json);
	wire_rounds_free(&list);
	wire_jobs_free(&job);
	ctl_close(&ctl);
	return err;
}

const struct cli_command command_rounds = {
	.name = "rounds",
	.arguments = "JOB",
	.summary = "who contributed what to which round",
	.help = "JOB is a job's number or name. A line for each round (how many updates of how many, mean training "
		"loss "
		"where plants share it, the new\n"
		"model's digest), and below it one for each accepted update. Then why rounds were abandoned, and what "
		"plants report about the models.\n\n"
		"Example:\n  hansactl --dir /var/lib/hansa rounds 1\n",
	.options = options,
	.args_size = sizeof(struct ctl_args),
	.positional_min = 1,
	.positional_max = 1,
	.run = rounds,
};
