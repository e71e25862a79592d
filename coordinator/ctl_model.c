/*
 * hansactl model get, model publish.
 */
#include "base/file.h"
#include "base/table.h"
#include "base/text.h"
#include "coordinator/commands.h"
#include "coordinator/ctl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- model get ---- */

struct get_args {
	struct ctl_args ctl;
	const char *round, *out;
};

struct sink {
	struct file *file;
	struct digester *digester;
	const struct digest *digest;
	uint64_t size;
};

static enum err take_head(void *arg, const struct wire_head *head)
{
	struct sink *s = arg;
	if (head->offset != 0 || !digest_equal(&head->digest, s->digest))
		return err_set(ERR_CORRUPT, "the coordinator sends another model than was asked for");
	s->size = head->size;
	return ERR_OK;
}

static enum err take_data(void *arg, const struct bytes *pieces, size_t n)
{
	struct sink *s = arg;
	for (size_t i = 0; i < n; i++)
		digest_add(s->digester, pieces[i].p, pieces[i].n);
	TRY(file_writev(s->file, pieces, n));
	progress("%.1f of %.1f MB", (double)file_offset(s->file) / 1e6, (double)s->size / 1e6);
	return ERR_OK;
}

static enum err download(struct ctl *c, const struct digest *digest, struct file *f)
{
	struct wire_fetch_request asked = {.digest = *digest};
	struct sink state = {.file = f, .digester = digest_begin(), .digest = digest};
	struct rpc_sink sink = {.head = take_head, .data = take_data, .arg = &state};
	struct buf request;
	buf_init(&request, 256);
	enum err err = wire_fetch_request_pack(&asked, &request);
	if (err == ERR_OK)
		err = rpc_client_download(c->client, METHOD_FETCH, buf_bytes(&request), &sink);
	struct digest got = digest_end(state.digester);
	if (err == ERR_OK && !digest_equal(&got, digest))
		err = err_set(ERR_CORRUPT, "the model that arrived does not have the digest it was asked by");
	buf_deinit(&request);
	return err == ERR_OK ? file_sync(f) : err;
}

/* Under the final name only when it is whole. */
static enum err fetch(struct ctl *c, const struct digest *digest, const char *out)
{
	struct file *f;
	char *temp = mem_printf("%s.part", out);
	enum err err = file_create(temp, 0644, &f);
	if (err == ERR_OK) {
		err = download(c, digest, f);
		file_close(f);
		if (err == ERR_OK)
			err = file_rename(temp, out);
		if (err != ERR_OK) {
			char *text = mem_str(err_text());
			if (file_remove(temp) == ERR_OK)
				err_set(err, "%s", text);
			else
				err_set(err, "%s; and %s stays behind", text, temp);
			free(text);
		}
	}
	free(temp);
	return err;
}

static enum err model_of_round(struct ctl *c, uint64_t job, int64_t number, struct digest *ret_digest)
{
	struct wire_rounds rounds;
	struct digest found = {{0}};
	TRY(ctl_list_rounds(c, job, &rounds));
	for (size_t i = 0; i < rounds.n; i++) {
		if ((int64_t)rounds.v[i].round == number)
			found = rounds.v[i].model;
	}
	wire_rounds_free(&rounds);
	if (digest_is_zero(&found))
		return err_set(ERR_NOT_FOUND,
			       "round %" PRId64 " of job %" PRIu64 " has no model; see hansactl rounds %" PRIu64,
			       number, job, job);
	*ret_digest = found;
	return ERR_OK;
}

static enum err choose_model(struct ctl *c, const struct wire_job *j, const char *round, struct digest *ret_digest)
{
	int64_t number = 0;
	if (round != NULL && (!text_to_int(round, &number) || number < 0 || number > UINT32_MAX))
		return err_set(ERR_USAGE, "--round expects the number of a round, or 0 for the source");
	if (round != NULL && number > 0)
		return model_of_round(c, j->job, number, ret_digest);
	if (round == NULL && digest_is_zero(&j->model))
		return err_set(ERR_NOT_FOUND,
			       "job %" PRIu64 " has no model yet; --round 0 gives the one it started from", j->job);
	*ret_digest = round == NULL ? j->model : j->source;
	return ERR_OK;
}

static enum err get_one(struct ctl *c, const char *word, const struct get_args *args, struct digest *ret_digest)
{
	struct wire_jobs job;
	TRY(ctl_find_job(c, word, &job));
	enum err err = choose_model(c, &job.v[0], args->round, ret_digest);
	wire_jobs_free(&job);
	TRY(err);
	return fetch(c, ret_digest, args->out);
}

static enum err model_get(const void *p, const char *const *words, size_t n_words)
{
	(void)n_words;
	const struct get_args *args = p;
	struct digest digest;
	struct ctl ctl;
	char text[DIGEST_TEXT_SIZE];
	TRY(ctl_open(args->ctl.dir, &ctl));
	enum err err = get_one(&ctl, words[0], args, &digest);
	ctl_close(&ctl);
	TRY(err);
	progress("%s", "");
	printf("%s  %s\n", digest_format(&digest, text), args->out);
	return ERR_OK;
}

static const struct cli_option get_options[] = {
	CTL_DIR_OPTION,
	{"round", 0, CLI_STRING, offsetof(struct get_args, round), "R",
	 "the model of that round; 0: the source (the last committed one)", .required = false},
	{"output", 'o', CLI_STRING, offsetof(struct get_args, out), "FILE", "where to put it", .required = true},
	{0},
};

const struct cli_command command_model_get = {
	.name = "model get",
	.arguments = "JOB",
	.summary = "fetch a job's model, checked by its digest",
	.help = "JOB is a job's number or name. Prints the SHA-256 and the file; FILE appears only when it is "
		"complete.\n\n"
		"Example:\n  hansactl --dir /var/lib/hansa model get 1 -o global.safetensors\n",
	.options = get_options,
	.args_size = sizeof(struct get_args),
	.positional_min = 1,
	.positional_max = 1,
	.run = model_get,
};

/* ---- model publish ---- */

static enum err model_publish(const void *p, const char *const *words, size_t n_words)
{
	(void)n_words;
	const struct ctl_args *args = p;
	struct wire_publish_reply given;
	struct ctl ctl;
	char text[DIGEST_TEXT_SIZE];
	TRY(ctl_open(args->dir, &ctl));
	enum err err = ctl_publish(&ctl, words[0], &given);
	ctl_close(&ctl);
	TRY(err);
	printf("%s  %s\n", digest_format(&given.digest, text), words[0]);
	return ERR_OK;
}

static const struct cli_option publish_options[] = {CTL_DIR_OPTION, {0}};

const struct cli_command command_model_publish = {
	.name = "model publish",
	.arguments = "FILE",
	.summary = "put a model into the coordinator's store, by its digest",
	.help = "`job start` does this by itself. Publishing what is there already changes nothing.\n\n"
		"Example:\n  hansactl --dir /var/lib/hansa model publish source.safetensors\n",
	.options = publish_options,
	.args_size = sizeof(struct ctl_args),
	.positional_min = 1,
	.positional_max = 1,
	.run = model_publish,
};
