/*
 * Descriptions of models from foreign bytes: what is accepted describes itself, is read back as the same model, and can
 * run.
 */
#include "base/rng.h"
#include "base/yaml.h"
#include "ml/net.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RUN_FLOATS_MAX = 1 << 16 };

static void check_description(const struct model *m)
{
	struct buf text;
	struct yaml *yaml;
	struct model *again;
	buf_init(&text, MODEL_DESCRIPTION_MAX);
	ENSURE(model_describe(m, &text) == ERR_OK);
	ENSURE(yaml_parse("again", buf_bytes(&text), &yaml) == ERR_OK);
	ENSURE(model_from_yaml(yaml_root(yaml), &again) == ERR_OK);
	ENSURE(model_same(m, again) && m->n_theta == again->n_theta && m->n_weights == again->n_weights);
	model_free(again);
	yaml_free(yaml);
	buf_deinit(&text);
}

static void run(struct model *m)
{
	struct net *net;
	size_t width;
	ENSURE(shape_count(&m->input, &width) == ERR_OK);
	if (m->n_theta > RUN_FLOATS_MAX || width > RUN_FLOATS_MAX)
		return;
	model_init(m, 1);
	if (net_new(m, 2, true, &net) != ERR_OK)
		return;
	if (net_memory_bytes(net) <= 4 * RUN_FLOATS_MAX * sizeof(float)) {
		float *x = mem_array(2 * width, sizeof *x);
		net_forward(net, x, 2, NET_TRAIN_FIXED_NORM, &(struct rng){.s = {1}});
		net_zero_gradient(net);
		net_backward(net);
		free(x);
	}
	net_free(net);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct yaml *yaml;
	struct model *m;
	if (yaml_parse("fuzz", (struct bytes){data, size}, &yaml) != ERR_OK)
		return 0;
	if (model_from_yaml(yaml_root(yaml), &m) == ERR_OK) {
		struct buf text;
		buf_init(&text, 1 << 20);
		check_description(m);
		ENSURE(model_summary(m, &text) == ERR_OK);
		buf_deinit(&text);
		run(m);
		model_free(m);
	}
	yaml_free(yaml);
	return 0;
}
