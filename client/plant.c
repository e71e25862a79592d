#include "client/plant.h"

#include "base/file.h"

#include <stdlib.h>
#include <string.h>

const char *const plant_metrics[] = {"loss", "accuracy", "macro_f1", "rmse", NULL};

const struct config_row plant_rows[] = {
	{"identity", CONFIG_STRING, offsetof(struct plant_config, identity), .def = "identity",
	 .help = "folder with key and certificate, made by `hansa enroll`"},
	{"state", CONFIG_STRING, offsetof(struct plant_config, state), .def = "state",
	 .help = "folder for the model in use and received models"},
	{"model", CONFIG_STRING, offsetof(struct plant_config, model),
	 .help = "model description; needed to pretrain or train from scratch"},
	{"share", CONFIG_LIST, offsetof(struct plant_config, share), .def = "[loss, accuracy]",
	 .help = "metrics that may leave the plant: loss, accuracy, macro_f1, rmse; with any of them also "
		 "whether a new model was taken into use; [] for nothing at all"},
	{"seed", CONFIG_INT, offsetof(struct plant_config, seed), .def = "1", .min = 0, .max = 9007199254740992.0,
	 .help = "seed of pretrain and finetune"},
	{"data", CONFIG_SECTION, offsetof(struct plant_config, data), .rows = reader_rows, .required = true,
	 .help = "where the samples are and how they are split"},
	{"train", CONFIG_SECTION, offsetof(struct plant_config, train), .rows = train_rows,
	 .help = "pretrain and finetune; in `join` the job decides"},
	{0},
};

/* Makes *path, if relative, relative to the folder of `file`. */
static void resolve(const char *file, char **path)
{
	if (*path == NULL || (*path)[0] == '/')
		return;
	const char *slash = strrchr(file, '/');
	if (slash == NULL)
		return;
	char *whole = mem_printf("%.*s/%s", (int)(slash - file), file, *path);
	free(*path);
	*path = whole;
}

enum err plant_load(const char *path, struct plant_config *ret_config)
{
	struct plant_config c;
	TRY(config_load(plant_rows, path, &c));
	for (size_t i = 0; i < c.share.n; i++) {
		bool known = false;
		for (size_t k = 0; plant_metrics[k] != NULL; k++)
			known = known || strcmp(plant_metrics[k], c.share.v[i]) == 0;
		if (!known) {
			err_set(ERR_CONFIG, "%s: share: no metric is called '%s' (loss, accuracy, macro_f1, rmse)",
				path, c.share.v[i]);
			plant_free(&c);
			return ERR_CONFIG;
		}
	}
	resolve(path, &c.identity);
	resolve(path, &c.state);
	resolve(path, &c.model);
	resolve(path, &c.data.path);
	*ret_config = c;
	return ERR_OK;
}

void plant_free(struct plant_config *c)
{
	config_free(plant_rows, c);
}

bool plant_shares(const struct plant_config *c, const char *metric)
{
	for (size_t i = 0; i < c->share.n; i++)
		if (strcmp(c->share.v[i], metric) == 0)
			return true;
	return false;
}
