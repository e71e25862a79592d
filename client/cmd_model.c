/*
 * hansa model show: what is in a model file.
 */
#include "base/file.h"
#include "client/commands.h"
#include "client/report.h"
#include "crypto/digest.h"
#include "ml/safetensors.h"

#include <stdio.h>

struct show_args {
	bool json;
};

/* Metadata that another layer may have put into the file, in this order. */
static const char *const lineage[] = {"hansa.federation", "hansa.job",  "hansa.round",
				      "hansa.parent",     "hansa.head", NULL};

static enum err show_json(const struct model *m, const struct safetensors *st, const struct digest *digest,
			  uint64_t size)
{
	char text[DIGEST_TEXT_SIZE];
	struct buf description;
	struct json *architecture = NULL;
	buf_init(&description, 1 << 20);
	enum err err = model_describe(m, &description);
	if (err == ERR_OK)
		err = json_parse(buf_bytes(&description), &architecture);
	buf_deinit(&description);
	TRY(err);
	struct json *v = json_map();
	json_put(v, "sha256", json_str(digest_format(digest, text)));
	json_put(v, "bytes", json_int((int64_t)size));
	json_put(v, "parameters", json_int((int64_t)m->n_theta));
	json_put(v, "model", architecture);
	for (size_t i = 0; lineage[i] != NULL; i++)
		if (safetensors_meta(st, lineage[i]) != NULL)
			json_put(v, lineage[i], json_str(safetensors_meta(st, lineage[i])));
	report_print(v);
	json_free(v);
	return ERR_OK;
}

static enum err show_text(const struct model *m, const struct safetensors *st, const struct digest *digest,
			  uint64_t size)
{
	char text[DIGEST_TEXT_SIZE];
	struct buf summary;
	buf_init(&summary, 1 << 20);
	enum err err = model_summary(m, &summary);
	if (err == ERR_OK) {
		printf("%s", buf_str(&summary));
		printf("\nbytes   %llu\nsha256  %s\n", (unsigned long long)size, digest_format(digest, text));
		for (size_t i = 0; lineage[i] != NULL; i++)
			if (safetensors_meta(st, lineage[i]) != NULL)
				printf("%-17s %s\n", lineage[i], safetensors_meta(st, lineage[i]));
	}
	buf_deinit(&summary);
	return err;
}

static enum err model_show(const void *p, const char *const *words, size_t n_words)
{
	(void)n_words;
	const struct show_args *args = p;
	struct file_map map;
	struct safetensors *st = NULL;
	struct model *m = NULL;
	TRY(file_map(words[0], &map));
	enum err err = safetensors_parse(words[0], map.content, &st);
	if (err == ERR_OK)
		err = safetensors_model(st, words[0], &m);
	if (err == ERR_OK) {
		struct digest digest = digest_of(map.content);
		err = args->json ? show_json(m, st, &digest, map.content.n) : show_text(m, st, &digest, map.content.n);
	}
	model_free(m);
	safetensors_free(st);
	file_unmap(&map);
	return err;
}

static const struct cli_option options[] = {
	{"json", 0, CLI_FLAG, offsetof(struct show_args, json), NULL, "print one line of JSON", .required = false},
	{0},
};

const struct cli_command command_model_show = {
	.name = "model show",
	.arguments = "FILE",
	.summary = "layers, size, digest and lineage of a model file",
	.help = "Example:\n  hansa model show source.safetensors\n",
	.options = options,
	.args_size = sizeof(struct show_args),
	.positional_min = 1,
	.positional_max = 1,
	.run = model_show,
};
