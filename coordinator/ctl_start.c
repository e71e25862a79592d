/*
 * hansactl job start: from the operator's YAML to a running job. The source model is published first. When the job describes a model with
 * other classes, its base is made here: the source's layers, head rows by class name, the rest new by the job's seed; the same job gives the
 * same bytes.
 */
#include "base/file.h"
#include "coordinator/commands.h"
#include "coordinator/ctl.h"
#include "ml/safetensors.h"
#include "update/job.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A path in the job file is relative to the file. */
static enum err beside(const char *file, const char *path, char out[PATH_SIZE])
{
	const char *slash = strrchr(file, '/');
	size_t n = path[0] != '/' && slash != NULL ? (size_t)(slash - file) + 1 : 0;
	if (n + strlen(path) >= PATH_SIZE)
		return err_set(ERR_LIMIT, "%.100s...: the path is too long", path);
	snprintf(out, PATH_SIZE, "%.*s%s", (int)n, file, path);
	return ERR_OK;
}

static struct json *lineage(const struct digest *parent, size_t carried)
{
	char text[DIGEST_TEXT_SIZE];
	struct json *meta = json_map();
	json_put(meta, "hansa.parent", json_str(digest_format(parent, text)));
	return json_put(meta, "hansa.head", json_str(carried > 0 ? "carried" : "new"));
}

static void say_carried(size_t carried, size_t n)
{
	if (carried == n)
		fprintf(stderr, "base model: all %zu outputs carried over from the source\n", n);
	else if (carried == 0)
		fprintf(stderr, "base model: all %zu outputs are new\n", n);
	else
		fprintf(stderr, "base model: %zu of %zu outputs carried over from the source, the others new\n",
			carried, n);
}

/* The base model for the job's classes, in a file of its own. */
static enum err transfer(const char *source_path, const char *model_path, const struct job_config *config,
			 const char *out)
{
	struct model *source = NULL, *m = NULL;
	struct digest parent;
	size_t carried = 0;
	TRY(digest_file(source_path, &parent, NULL));
	enum err err = safetensors_load(source_path, &source);
	if (err == ERR_OK)
		err = model_load_description(model_path, &m);
	if (err == ERR_OK) {
		model_init(m, (uint64_t)config->seed);
		err = model_transfer(m, source, true, &carried);
		if (err != ERR_OK)
			err_add(err, "%s does not fit the source", model_path);
	}
	if (err == ERR_OK) {
		struct json *meta = lineage(&parent, carried);
		err = safetensors_save(out, m, meta);
		json_free(meta);
	}
	if (err == ERR_OK)
		say_carried(carried, m->n_outputs);
	model_free(source);
	model_free(m);
	return err;
}

static enum err publish_transferred(struct ctl *c, const char *source, const char *model,
				    const struct job_config *config, struct wire_publish_reply *ret_reply)
{
	const char *base = getenv("TMPDIR");
	char dir[PATH_SIZE], path[PATH_SIZE];
	if (base == NULL || base[0] == '\0' || strlen(base) > PATH_SIZE / 2)
		base = "/tmp";
	path_join(dir, base, "hansactl-XXXXXX");
	if (mkdtemp(dir) == NULL)
		return err_errno("%s: cannot make a temporary directory", dir);
	enum err err = transfer(source, model, config, path_join(path, dir, "base.safetensors"));
	if (err == ERR_OK)
		err = ctl_publish(c, path, ret_reply);
	char *text = mem_str(err_text());
	enum err removed = file_remove(path);
	if (removed == ERR_OK && remove(dir) != 0)
		removed = err_errno("%s: cannot remove", dir);
	if (err != ERR_OK)
		err_set(err, "%s", text);
	free(text);
	return err != ERR_OK ? err : removed;
}

static enum err publish_source(struct ctl *c, const char *file, const struct job_config *config,
			       struct wire_publish_reply *ret_reply)
{
	char source[PATH_SIZE], model[PATH_SIZE];
	TRY(beside(file, config->source, source));
	if (config->model == NULL)
		return ctl_publish(c, source, ret_reply);
	TRY(beside(file, config->model, model));
	return publish_transferred(c, source, model, config, ret_reply);
}

static enum err request_start(struct ctl *c, const struct job_config *config, const struct digest *source,
			      uint64_t *ret_job)
{
	struct wire_start_job asked = {.source = *source};
	struct wire_job_ref given;
	struct buf request, reply = {0};
	buf_init(&asked.config, WIRE_CONFIG_MAX);
	buf_init(&request, WIRE_CONFIG_MAX + 1024);
	enum err err = config_canonical(job_wire_rows, config, &asked.config);
	if (err == ERR_OK)
		err = wire_start_job_pack(&asked, &request);
	if (err == ERR_OK)
		err = ctl_call(c, METHOD_START_JOB, &request, &reply);
	if (err == ERR_OK)
		err = wire_job_ref_unpack(buf_bytes(&reply), &given);
	if (err == ERR_OK)
		*ret_job = given.job;
	buf_deinit(&asked.config);
	buf_deinit(&request);
	buf_deinit(&reply);
	return err;
}

static enum err start(const struct ctl_args *args, const char *file, const struct job_config *config)
{
	struct ctl ctl;
	struct wire_publish_reply source;
	uint64_t job = 0;
	char text[DIGEST_TEXT_SIZE];
	TRY(ctl_open(args->dir, &ctl));
	enum err err = publish_source(&ctl, file, config, &source);
	if (err == ERR_OK)
		err = request_start(&ctl, config, &source.digest, &job);
	ctl_close(&ctl);
	TRY(err);
	if (args->json) {
		struct json *v = json_map();
		json_put(v, "job", json_int((int64_t)job));
		json_put(v, "name", json_str(config->name));
		json_put(v, "source_sha256", json_str(digest_format(&source.digest, text)));
		return ctl_print_json(v);
	}
	printf("started job %" PRIu64 " (%s); follow it with: hansactl watch %" PRIu64 "\n", job, config->name, job);
	return ERR_OK;
}

static enum err job_start(const void *p, const char *const *words, size_t n_words)
{
	(void)n_words;
	const struct ctl_args *args = p;
	struct job_config config;
	TRY(config_load(job_rows, words[0], &config));
	enum err err = job_check(&config);
	if (err != ERR_OK)
		err_add(err, "%s", words[0]);
	else
		err = start(args, words[0], &config);
	config_free(job_rows, &config);
	return err;
}

static const struct cli_option options[] = {CTL_DIR_OPTION, CTL_JSON_OPTION, {0}};

const struct cli_command command_job_start = {
	.name = "job start",
	.arguments = "FILE",
	.summary = "publish a source model and start the job that FILE (YAML) describes",
	.help = "A job file names the source model, and says how plants train and when a round is over; paths in it "
		"are relative to it:\n\n"
		"  name: bearings\n"
		"  source: source.safetensors\n"
		"  model: model.yaml            # only when its classes are not the source's\n"
		"  rounds: 10\n"
		"  quorum: 3\n"
		"  deadline: 10m\n"
		"  train: {epochs: 3, batch: 16, optimizer: sgd, lr: 0.01, momentum: 0.9}\n\n"
		"Without `plants: [...]` all plants that are enrolled now take part.\n\n"
		"Example:\n  hansactl --dir /var/lib/hansa job start job.yaml\n",
	.options = options,
	.args_size = sizeof(struct ctl_args),
	.positional_min = 1,
	.positional_max = 1,
	.run = job_start,
};
