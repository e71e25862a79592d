/*
 * hansa pretrain, finetune, evaluate: a model file comes out, or its scores.
 */
#include "base/clock.h"
#include "base/file.h"
#include "client/commands.h"
#include "client/learn.h"
#include "client/report.h"
#include "crypto/digest.h"
#include "ml/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct learn_args {
	const char *config, *out, *source;
	bool scratch, json;
};

/* Everything a run works on. */
struct learn_run {
	struct plant_config config;
	struct reader_split split;
	struct model *model, *source;
	bool head_is_new, has_config, has_split;
};

static void run_free(struct learn_run *r)
{
	if (r->has_split)
		reader_split_free(&r->split);
	if (r->has_config)
		plant_free(&r->config);
	model_free(r->model);
	model_free(r->source);
}

static enum err load_config(struct learn_run *r, const char *path)
{
	TRY(plant_load(path, &r->config));
	r->has_config = true;
	return ERR_OK;
}

static enum err load_split(struct learn_run *r)
{
	TRY(reader_load(&r->config.data, r->model, &r->split));
	r->has_split = true;
	return ERR_OK;
}

/* The model to start from: fresh, or the source's with its head fitted to other classes if the configuration names a
 * model. */
static enum err prepare_model(struct learn_run *r, const char *source)
{
	if (r->config.model != NULL) {
		TRY(model_load_description(r->config.model, &r->model));
		model_init(r->model, (uint64_t)r->config.seed);
	}
	if (source == NULL) {
		if (r->model == NULL)
			return err_set(ERR_CONFIG, "`model:` is missing in the configuration: a model description is "
						   "needed to train from scratch");
		return ERR_OK;
	}
	TRY(safetensors_load(source, &r->source));
	if (r->model == NULL) {
		r->model = model_dup(r->source);
		return ERR_OK;
	}
	size_t carried;
	TRY(model_transfer(r->model, r->source, true, &carried));
	r->head_is_new = carried == 0;
	return ERR_OK;
}

/* What would be found out only after the training. */
static enum err check_before(const struct learn_run *r, const char *out)
{
	const char *slash = strrchr(out, '/');
	char *dir = slash == NULL  ? mem_str(".")
		    : slash == out ? mem_str("/")
				   : mem_printf("%.*s", (int)(slash - out), out);
	bool writable = access(dir, W_OK | X_OK) == 0;
	enum err err = writable ? ERR_OK : err_errno("--out %s: cannot write into the folder '%s'", out, dir);
	free(dir);
	TRY(err);
	struct model *probe = model_dup(r->model);
	err = model_freeze(probe, &r->config.train.freeze);
	bool learns = false;
	for (size_t i = 0; i < probe->n_params; i++)
		learns = learns || (probe->params[i].kind == PARAM_WEIGHT && !probe->params[i].frozen);
	model_free(probe);
	TRY(err);
	if (!learns)
		return err_set(ERR_CONFIG, "train: freeze: every tensor is frozen, so there is nothing to train");
	return ERR_OK;
}

static enum err train_and_save(struct learn_run *r, const struct learn_args *args, const char *label)
{
	struct train_job job = {
		.model = r->model,
		.train = r->split.train,
		.heldout = r->split.heldout,
		.config = &r->config.train,
		.source = r->source,
		.head_is_new = r->head_is_new,
		.seed = (uint64_t)r->config.seed,
		.keep_best = true,
		.progress = learn_progress,
	};
	char *text = mem_str(label);
	job.progress_arg = text;
	struct train_result result;
	int64_t start = clock_monotonic_ms();
	enum err err = train_run(&job, &result);
	free(text);
	TRY(err);
	double seconds = (double)(clock_monotonic_ms() - start) / 1000;
	struct learn_scores scores;
	TRY(learn_score(r->model, &r->split, &scores));
	struct digest digest;
	char digest_text[DIGEST_TEXT_SIZE];
	TRY(safetensors_save(args->out, r->model, NULL));
	TRY(digest_file(args->out, &digest, NULL));
	if (args->json) {
		struct json *v = learn_scores_json(&scores);
		json_put(v, "model_sha256", json_str(digest_format(&digest, digest_text)));
		json_put(v, "train_samples", json_int((int64_t)result.samples));
		json_put(v, "best_epoch", json_int((int64_t)result.best_epoch));
		json_put(v, "epochs", json_int((int64_t)result.epochs));
		json_put(v, "train_loss", json_num(result.loss));
		json_put(v, "seconds", json_num(seconds));
		report_print(v);
		json_free(v);
		return ERR_OK;
	}
	char line[REPORT_TEXT_SIZE];
	printf("trained on %zu samples, %zu epochs in %.1f s; kept epoch %zu\n", result.samples, result.epochs, seconds,
	       result.best_epoch);
	if (scores.heldout.n > 0)
		printf("held out  %s\n", report_format(&scores.heldout, line));
	if (scores.test.n > 0)
		printf("test      %s\n", report_format(&scores.test, line));
	if (scores.unseen.n > 0)
		printf("unseen    %s\n", report_format(&scores.unseen, line));
	printf("%s  sha256 %s\n", args->out, digest_format(&digest, digest_text));
	return ERR_OK;
}

static enum err pretrain(const void *p, const char *const *words, size_t n_words)
{
	(void)words;
	(void)n_words;
	const struct learn_args *args = p;
	struct learn_run r = {0};
	enum err err = load_config(&r, args->config);
	if (err == ERR_OK)
		err = prepare_model(&r, NULL);
	if (err == ERR_OK)
		err = check_before(&r, args->out);
	if (err == ERR_OK)
		err = load_split(&r);
	if (err == ERR_OK)
		err = train_and_save(&r, args, "pretrain");
	run_free(&r);
	return err;
}

static enum err finetune(const void *p, const char *const *words, size_t n_words)
{
	(void)words;
	(void)n_words;
	const struct learn_args *args = p;
	if (args->scratch == (args->source != NULL))
		return err_set(ERR_USAGE, "give either --source FILE or --scratch");
	struct learn_run r = {0};
	enum err err = load_config(&r, args->config);
	if (err == ERR_OK)
		err = prepare_model(&r, args->source);
	if (err == ERR_OK)
		err = check_before(&r, args->out);
	if (err == ERR_OK)
		err = load_split(&r);
	if (err == ERR_OK)
		err = train_and_save(&r, args, args->scratch ? "from scratch" : "finetune");
	run_free(&r);
	return err;
}

static enum err evaluate_command(const void *p, const char *const *words, size_t n_words)
{
	(void)n_words;
	const struct learn_args *args = p;
	struct learn_run r = {0};
	struct learn_scores scores;
	enum err err = load_config(&r, args->config);
	if (err == ERR_OK && r.config.model != NULL)
		/* A model that knows other classes is judged with the classes of the configuration. */
		err = prepare_model(&r, words[0]);
	else if (err == ERR_OK)
		err = safetensors_load(words[0], &r.model);
	if (err == ERR_OK)
		err = load_split(&r);
	if (err == ERR_OK)
		err = learn_score(r.model, &r.split, &scores);
	if (err == ERR_OK && args->json) {
		struct json *v = learn_scores_json(&scores);
		report_print(v);
		json_free(v);
	} else if (err == ERR_OK) {
		char line[REPORT_TEXT_SIZE];
		printf("held out  %s\n", report_format(&scores.heldout, line));
		printf("test      %s\n", report_format(&scores.test, line));
		if (scores.unseen.n > 0)
			printf("unseen    %s\n", report_format(&scores.unseen, line));
	}
	run_free(&r);
	return err;
}

#define CONFIG_OPTION                                                                                                  \
	{                                                                                                              \
		"config", 'c', CLI_STRING, offsetof(struct learn_args, config), "FILE",                                \
			"plant or lab configuration (YAML)", .required = true                                          \
	}
#define OUT_OPTION                                                                                                     \
	{                                                                                                              \
		"out", 'o', CLI_STRING, offsetof(struct learn_args, out), "FILE",                                      \
			"where to write the model (safetensors)", .required = true                                     \
	}
#define JSON_OPTION                                                                                                    \
	{                                                                                                              \
		"json", 0, CLI_FLAG, offsetof(struct learn_args, json), NULL, "print one line of JSON",                \
			.required = false                                                                              \
	}

static const struct cli_option pretrain_options[] = {CONFIG_OPTION, OUT_OPTION, JSON_OPTION, {0}};
static const struct cli_option finetune_options[] = {
	CONFIG_OPTION,
	OUT_OPTION,
	{"source", 's', CLI_STRING, offsetof(struct learn_args, source), "FILE", "model to start from (safetensors)",
	 .required = false},
	{"scratch", 0, CLI_FLAG, offsetof(struct learn_args, scratch), NULL, "start from random weights instead",
	 .required = false},
	JSON_OPTION,
	{0},
};
static const struct cli_option evaluate_options[] = {CONFIG_OPTION, JSON_OPTION, {0}};

const struct cli_command command_pretrain = {
	.name = "pretrain",
	.arguments = "",
	.summary = "train a source model on the lab's data",
	.help = "Trains the model that the configuration describes (model:, data:, train:) and writes it with its "
		"architecture, so that the\n"
		"file alone is enough to use it. The best epoch on the held-out windows is kept.\n\n"
		"Example:\n  hansa pretrain --config lab.yaml -o source.safetensors\n",
	.options = pretrain_options,
	.args_size = sizeof(struct learn_args),
	.run = pretrain,
};

const struct cli_command command_finetune = {
	.name = "finetune",
	.arguments = "",
	.summary = "train a source model further on this plant's data, without a coordinator",
	.help = "Starts from --source (or from random weights with --scratch) and trains as the configuration says "
		"(train:), with freezing, L2-SP\n"
		"and the rest. If `model:` names other classes than the source has, the head is fitted to them: rows "
		"of classes that both know\n"
		"are carried over by name.\n\n"
		"Example:\n  hansa finetune --config plant.yaml --source source.safetensors -o mine.safetensors\n",
	.options = finetune_options,
	.args_size = sizeof(struct learn_args),
	.run = finetune,
};

const struct cli_command command_evaluate = {
	.name = "evaluate",
	.arguments = "MODEL",
	.summary = "scores of a model on this plant's held-out and test windows",
	.help = "Prints accuracy, macro-F1 and loss; `unseen` are the test windows of classes that this plant has no "
		"labels of.\n\n"
		"Example:\n  hansa evaluate state/model.safetensors --config plant.yaml\n",
	.options = evaluate_options,
	.args_size = sizeof(struct learn_args),
	.positional_min = 1,
	.positional_max = 1,
	.run = evaluate_command,
};
