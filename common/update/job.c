#include "update/job.h"

#include "crypto/identity.h"
#include "update/fixed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_SIZE = 64 };

static const char *const strategies[] = {"fedavg", NULL};

#define AT(member)             offsetof(struct job_config, member)
#define IN_PERSONALISE(member) offsetof(struct job_personalise, member)

static const struct config_row personalise_rows[] = {
	{"epochs", CONFIG_INT, IN_PERSONALISE(epochs), .def = "0", .max = 10000,
	 .help = "local epochs after the last round; 0: off"},
	{"lr", CONFIG_REAL, IN_PERSONALISE(lr), .def = "0", .max = 10, .help = "learning rate; 0: as in train"},
	{"freeze", CONFIG_LIST, IN_PERSONALISE(freeze),
	 .help = "tensors that keep the global value; none: as in train"},
	{0},
};

const struct config_row job_rows[] = {
	/* Paths at the operator: job_wire_rows begins after them. */
	{"source", CONFIG_STRING, AT(source), .required = true, .help = "source model (safetensors)"},
	{"model", CONFIG_STRING, AT(model), .help = "model description (YAML), when its classes are not the source's"},

	{"name", CONFIG_STRING, AT(name), .required = true,
	 .help = "the job's name; part of every plant's training seed"},
	{"strategy", CONFIG_ENUM, AT(strategy), .def = "fedavg", .names = strategies,
	 .help = "how updates are combined"},
	{"rounds", CONFIG_INT, AT(rounds), .def = "10", .min = 1, .max = 100000, .help = "rounds to commit"},
	{"quorum", CONFIG_INT, AT(quorum), .def = "2", .min = 1, .max = FIXED_PLANTS_MAX,
	 .help = "updates that a round needs at its deadline"},
	{"deadline", CONFIG_SECONDS, AT(deadline), .def = "10m", .min = 1, .max = 30 * 86400,
	 .help = "time of a round"},
	{"failures_max", CONFIG_INT, AT(failures_max), .def = "3", .min = 1, .max = 1000,
	 .help = "rounds in a row without quorum before the job fails"},
	{"plants", CONFIG_LIST, AT(plants), .max = FIXED_PLANTS_MAX, .help = "the cohort; none: all enrolled plants"},
	{"local", CONFIG_LIST, AT(local), .help = "patterns of tensors that stay at the plant"},
	{"server_rate", CONFIG_REAL, AT(server_rate), .def = "1", .min = 0.001, .max = 10,
	 .help = "factor on the mean update; 1: plain average"},
	{"clip_norm", CONFIG_REAL, AT(clip_norm), .def = "0", .max = 1e9,
	 .help = "plants scale updates down to this L2 norm; 0: off"},
	{"norm_max", CONFIG_REAL, AT(norm_max), .def = "0", .max = 1e9,
	 .help = "updates of a larger L2 norm are refused; 0: off"},
	{"seed", CONFIG_INT, AT(seed), .def = "1", .max = 9007199254740991,
	 .help = "of all randomness of the job's training"},
	{"train", CONFIG_SECTION, AT(train), .rows = train_rows, .help = "a round's local training"},
	{"personalise", CONFIG_SECTION, AT(personalise), .rows = personalise_rows,
	 .help = "local training after the last round"},
	{0},
};
const struct config_row *const job_wire_rows = job_rows + 2;

static bool name_fits(const char *name)
{
	size_t n = strlen(name);
	for (size_t i = 0; i < n; i++) {
		char c = name[i];
		bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
		if (!alnum && (i == 0 || strchr("-_. ", c) == NULL))
			return false;
	}
	return n > 0 && n < NAME_SIZE && name[n - 1] != ' ';
}

static int name_order(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static enum err check_plants(const struct config_list *plants)
{
	struct identity id;
	for (size_t i = 0; i < plants->n; i++) {
		if (identity_make(ROLE_PLANT, "federation", plants->v[i], &id) != ERR_OK)
			return err_set(ERR_CONFIG, "plants: '%.100s' is not a plant's name: %s", plants->v[i],
				       err_text());
	}
	const char **sorted = mem_array(plants->n, sizeof *sorted);
	for (size_t i = 0; i < plants->n; i++)
		sorted[i] = plants->v[i];
	qsort(sorted, plants->n, sizeof *sorted, name_order);
	enum err e = ERR_OK;
	for (size_t i = 1; e == ERR_OK && i < plants->n; i++) {
		if (strcmp(sorted[i - 1], sorted[i]) == 0)
			e = err_set(ERR_CONFIG, "plants: '%s' stands there twice", sorted[i]);
	}
	free(sorted);
	return e;
}

enum err job_check(const struct job_config *c)
{
	if (c->name == NULL || !name_fits(c->name))
		return err_set(ERR_CONFIG, "name: 1 to %d letters, digits, '-', '_', '.' and blanks between them",
			       NAME_SIZE - 1);
	TRY(check_plants(&c->plants));
	if (c->plants.n > 0 && c->quorum > (int64_t)c->plants.n)
		return err_set(ERR_CONFIG, "quorum: %lld updates cannot come from %zu plants", (long long)c->quorum,
			       c->plants.n);
	if (c->norm_max > 0 && c->clip_norm > c->norm_max)
		return err_set(ERR_CONFIG, "norm_max: %g would refuse updates that plants clip to clip_norm %g",
			       c->norm_max, c->clip_norm);
	return ERR_OK;
}

struct digest job_hash(struct bytes canonical)
{
	return digest_of(canonical);
}

struct train_config job_personalise_train(const struct job_config *c)
{
	struct train_config train = c->train;
	train.epochs = c->personalise.epochs;
	if (c->personalise.lr > 0)
		train.optim.lr = c->personalise.lr;
	if (c->personalise.freeze.n > 0)
		train.freeze = c->personalise.freeze;
	return train;
}

uint64_t job_plant_seed(const struct job_config *c, uint32_t round, const char *plant)
{
	/* Neither name can hold a line feed, so different inputs are different texts. */
	char *text = mem_printf("hansa plant seed\n%lld\n%s\n%lu\n%s\n", (long long)c->seed, c->name,
				(unsigned long)round, plant);
	struct digest d = digest_of(bytes_str(text));
	free(text);
	uint64_t seed = 0;
	for (unsigned i = 0; i < sizeof seed; i++)
		seed |= (uint64_t)d.b[i] << (8 * i);
	return seed;
}
