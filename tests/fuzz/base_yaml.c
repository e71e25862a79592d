/*
 * YAML text through yaml_parse() and a configuration table that has a row of every type. Whatever is accepted must have
 * a canonical form that reads back to itself, and lies within its bounds.
 */
#include "base/config.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct inner {
	double clip;
	char *note;
	struct config_list names;
};

struct outer {
	int64_t epochs;
	double rate;
	bool verbose;
	char *model;
	int strategy;
	int64_t deadline_ms;
	struct config_list layers;
	struct inner privacy;
};

static const char *const strategies[] = {"fedavg", "fedavgm", "fedadam", NULL};

static const struct config_row inner_rows[] = {
	{"clip", CONFIG_REAL, offsetof(struct inner, clip), .required = true, .min = 1, .max = 100},
	{"note", CONFIG_STRING, offsetof(struct inner, note)},
	{"names", CONFIG_LIST, offsetof(struct inner, names), .def = "[a, b]"},
	{0},
};

static const struct config_row rows[] = {
	{"epochs", CONFIG_INT, offsetof(struct outer, epochs), .def = "1", .min = 1, .max = 10000},
	{"rate", CONFIG_REAL, offsetof(struct outer, rate), .def = "0.01"},
	{"verbose", CONFIG_BOOL, offsetof(struct outer, verbose)},
	{"model", CONFIG_STRING, offsetof(struct outer, model), .required = true},
	{"strategy", CONFIG_ENUM, offsetof(struct outer, strategy), .def = "fedavg", .names = strategies},
	{"deadline", CONFIG_SECONDS, offsetof(struct outer, deadline_ms), .def = "10m"},
	{"layers", CONFIG_LIST, offsetof(struct outer, layers), .max = 5},
	{"privacy", CONFIG_SECTION, offsetof(struct outer, privacy), .rows = inner_rows},
	{0},
};

static void check_node(const struct yaml_node *node, unsigned level)
{
	ENSURE(level <= 17 && node->line >= 1 && strcmp(node->file, "fuzz") == 0);
	ENSURE(node->kind != YAML_SCALAR || node->text != NULL);
	for (size_t i = 0; i < node->n; i++) {
		ENSURE(node->kind != YAML_MAP || yaml_get(node, node->keys[i]) == node->items[i]);
		check_node(node->items[i], level + 1);
	}
}

static void check_config(const struct outer *config)
{
	struct outer back;
	struct buf text, again;
	buf_init(&text, 8 << 20);
	buf_init(&again, 8 << 20);
	ENSURE(config->epochs >= 1 && config->epochs <= 10000 && config->model != NULL && config->layers.n <= 5);
	double clip = config->privacy.clip;
	ENSURE((clip == 0 || (clip >= 1 && clip <= 100)) && config->deadline_ms >= 0);
	ENSURE(config_canonical(rows, config, &text) == ERR_OK);
	ENSURE(config_from_canonical(rows, buf_bytes(&text), &back) == ERR_OK);
	ENSURE(config_canonical(rows, &back, &again) == ERR_OK);
	ENSURE(text.n == again.n && memcmp(text.p, again.p, text.n) == 0);
	config_free(rows, &back);
	buf_deinit(&text);
	buf_deinit(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct yaml *yaml;
	struct outer config;
	if (yaml_parse("fuzz", bytes_of(data, size), &yaml) != ERR_OK) {
		ENSURE(strncmp(err_text(), "fuzz:", 5) == 0);
		return 0;
	}
	check_node(yaml_root(yaml), 1);
	if (config_read(rows, yaml_root(yaml), &config) == ERR_OK)
		check_config(&config);
	config_free(rows, &config);
	yaml_free(yaml);
	return 0;
}
