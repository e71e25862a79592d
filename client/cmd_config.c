/*
 * hansa config: the keys of the configuration files, printed from the tables that read them.
 */
#include "client/commands.h"
#include "client/plant.h"
#include "ml/layer.h"
#include "update/job.h"

#include <stdio.h>
#include <string.h>

static enum err describe_layers(struct buf *out)
{
	TRY(buf_printf(out, "A model is  name, input: [channels, length] or [features], classes: [...] or outputs: N, "
			    "layers, head.\n"
			    "The layers, each {op: NAME, name: TENSOR-PREFIX, ...}:\n"));
	for (size_t i = 0; layer_ops[i] != NULL; i++) {
		TRY(buf_printf(out, "\n%s\n", layer_ops[i]->op));
		if (layer_ops[i]->rows != NULL)
			TRY(config_describe(layer_ops[i]->rows, out));
	}
	return ERR_OK;
}

static enum err describe_plant(struct buf *out)
{
	return config_describe(plant_rows, out);
}

static enum err describe_job(struct buf *out)
{
	return config_describe(job_rows, out);
}

static const struct {
	const char *name, *title;
	enum err (*describe)(struct buf *out);
} files[] = {
	{"plant", "plant.yaml, lab.yaml (hansa join, pretrain, finetune, evaluate)", describe_plant},
	{"job", "job.yaml (hansactl job start)", describe_job},
	{"model", "model.yaml (model:)", describe_layers},
};

static enum err config(const void *args, const char *const *words, size_t n_words)
{
	(void)args;
	bool found = false;
	struct buf out;
	enum err err = ERR_OK;
	buf_init(&out, 1 << 20);
	for (size_t i = 0; i < sizeof files / sizeof *files && err == ERR_OK; i++) {
		if (n_words > 0 && strcmp(words[0], files[i].name) != 0)
			continue;
		err = buf_printf(&out, "%s== %s\n", found ? "\n" : "", files[i].title);
		if (err == ERR_OK)
			err = files[i].describe(&out);
		found = true;
	}
	if (err == ERR_OK && !found)
		err = err_set(ERR_USAGE, "no configuration is called '%s' (plant, job, model)", words[0]);
	if (err == ERR_OK)
		fputs(buf_str(&out), stdout);
	buf_deinit(&out);
	return err;
}

const struct cli_command command_config = {
	.name = "config",
	.arguments = "[plant|job|model]",
	.summary = "the keys of the configuration files: types, defaults, bounds, meaning",
	.help = "Example:\n  hansa config plant\n",
	.args_size = 1,
	.positional_max = 1,
	.run = config,
};
