/*
 * hansa-swarm model: a source model of a given size, so that a job can be started without training one.
 */
#include "base/rng.h"
#include "base/yaml.h"
#include "ml/safetensors.h"
#include "swarm/commands.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct model_args {
	int64_t parameters, seed;
	const char *out;
};

/* One square layer and a head with one output: (side + 1)^2 parameters. */
static enum err build(int64_t parameters, struct model **ret_model)
{
	struct yaml *yaml;
	unsigned side = (unsigned)lround(sqrt((double)parameters)) - 1;
	char *text = mem_printf("{name: swarm, input: [%u], outputs: 1, layers: [{op: linear, name: body, out: %u}, "
				"{op: relu}, {op: linear, name: head, out: outputs}]}",
				side, side);
	enum err err = yaml_parse("model", bytes_str(text), &yaml);
	free(text);
	TRY(err);
	err = model_from_yaml(yaml_root(yaml), ret_model);
	yaml_free(yaml);
	return err;
}

static enum err write_model(const void *p, const char *const *words, size_t n_words)
{
	(void)words, (void)n_words;
	const struct model_args *args = p;
	struct model *m;
	struct rng rng;
	TRY(build(args->parameters, &m));
	rng_seed(&rng, (uint64_t)args->seed);
	for (size_t i = 0; i < m->n_theta; i++)
		m->theta[i] = (float)(rng_uniform(&rng) * 2 - 1);
	enum err err = safetensors_save(args->out, m, NULL);
	if (err == ERR_OK)
		printf("%zu parameters, %zu bytes of them\n", m->n_theta, m->n_theta * sizeof(float));
	model_free(m);
	return err;
}

static const struct cli_option options[] = {
	{"parameters", 'n', CLI_INT, offsetof(struct model_args, parameters), "N", "about how many float32",
	 .required = true, .min = 4, .max = 200e6},
	{"seed", 0, CLI_INT, offsetof(struct model_args, seed), "N", "of the random values (0)", .required = false,
	 .min = 0, .max = 1e9},
	{"out", 'o', CLI_STRING, offsetof(struct model_args, out), "FILE", "safetensors", .required = true},
	{0},
};

const struct cli_command command_model = {
	.name = "model",
	.arguments = "",
	.summary = "write a model of random float32, to start jobs of a given size with",
	.help = "The number of parameters is rounded to the nearest square.\n\n"
		"Example:\n  hansa-swarm model --parameters 11700000 -o source.safetensors\n",
	.options = options,
	.args_size = sizeof(struct model_args),
	.run = write_model,
};
