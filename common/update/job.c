#include "update/job.h"

#include "crypto/identity.h"
#include "update/fixed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_SIZE = 64, KEEP_MAX = 100000 };

static const char *const strategies[] = {"fedavg", NULL};
static const char *const lates[] = {[JOB_LATE_REFUSE] = "refuse", [JOB_LATE_CARRY] = "carry", NULL};
static const char *const late_weights[] = {
	[JOB_LATE_SQRT] = "sqrt", [JOB_LATE_INVERSE] = "inverse", [JOB_LATE_CONSTANT] = "constant", NULL};

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
	{"cohort", CONFIG_INT, AT(cohort), .def = "0", .max = FIXED_PLANTS_MAX, .young = true,
	 .help = "plants asked in each round, drawn by seed and round; 0: all"},
	{"goal", CONFIG_INT, AT(goal), .def = "0", .max = FIXED_PLANTS_MAX, .young = true,
	 .help = "updates with which a round closes before its deadline; 0: one of each plant asked"},
	{"grace", CONFIG_SECONDS, AT(grace), .def = "30s", .max = 86400, .young = true,
	 .help = "beyond the deadline, for updates whose bytes still flow in"},
	{"late", CONFIG_ENUM, AT(late), .def = "refuse", .names = lates, .young = true,
	 .help = "an update of an earlier round: refused, or counted in the one that is open"},
	{"late_weight", CONFIG_ENUM, AT(late_weight), .def = "sqrt", .names = late_weights, .young = true,
	 .help = "what it counts s rounds late: 1/sqrt(1+s), 1/(1+s), 1"},
	{"late_max", CONFIG_INT, AT(late_max), .def = "10", .min = 1, .max = JOB_LATE_MAX, .young = true,
	 .help = "by how many rounds an update may be late"},
	{"keep_updates", CONFIG_STRING, AT(keep_updates), .def = "none", .young = true,
	 .help = "updates of how many committed rounds the coordinator keeps: none, all, or a number"},
	{"keep_models", CONFIG_STRING, AT(keep_models), .def = "all", .young = true,
	 .help = "models of how many rounds the coordinator keeps: all, or a number; with late: carry at least "
		 "late_max + 1"},
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

/* A number of rounds, written in one way only: the texts are part of what is hashed. */
static bool parse_rounds(const char *text, uint32_t *ret_rounds)
{
	uint32_t rounds = 0;
	size_t n = strlen(text);
	if (n == 0 || n > 6 || text[0] == '0')
		return false;
	for (size_t i = 0; i < n; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		rounds = rounds * 10 + (uint32_t)(text[i] - '0');
	}
	*ret_rounds = rounds;
	return rounds <= KEEP_MAX;
}

static bool parse_keep(const char *text, bool or_none, uint32_t *ret_rounds)
{
	if (strcmp(text, "all") == 0) {
		*ret_rounds = JOB_KEEP_ALL;
		return true;
	}
	if (or_none && strcmp(text, "none") == 0) {
		*ret_rounds = 0;
		return true;
	}
	return parse_rounds(text, ret_rounds);
}

uint32_t job_keep_updates(const struct job_config *c)
{
	uint32_t rounds = 0;
	ENSURE(parse_keep(c->keep_updates, true, &rounds));
	return rounds;
}

uint32_t job_keep_models(const struct job_config *c)
{
	uint32_t rounds = 0;
	ENSURE(parse_keep(c->keep_models, false, &rounds));
	/* Plants may still fetch, or train from, what a late update may be made from. */
	uint32_t late = c->late == JOB_LATE_CARRY ? (uint32_t)c->late_max + 1 : 0;
	return rounds > late ? rounds : late;
}

static enum err check_keep(const struct job_config *c)
{
	uint32_t rounds;
	if (c->keep_updates == NULL || !parse_keep(c->keep_updates, true, &rounds))
		return err_set(ERR_CONFIG, "keep_updates: none, all, or a number of rounds from 1 to %d", KEEP_MAX);
	if (c->keep_models == NULL || !parse_keep(c->keep_models, false, &rounds))
		return err_set(ERR_CONFIG, "keep_models: all, or a number of rounds from 1 to %d", KEEP_MAX);
	return ERR_OK;
}

/* quorum <= goal <= cohort <= plants, of those that are said. */
static enum err check_sizes(const struct job_config *c)
{
	const struct {
		const char *name;
		int64_t n;
	} sizes[] = {{"quorum", c->quorum}, {"goal", c->goal}, {"cohort", c->cohort}};
	int64_t plants = (int64_t)c->plants.n;
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		if (plants > 0 && sizes[i].n > plants)
			return err_set(ERR_CONFIG, "%s: %lld updates cannot come from %lld plants", sizes[i].name,
				       (long long)sizes[i].n, (long long)plants);
		for (size_t k = 0; k < i; k++) {
			if (sizes[i].n != 0 && sizes[k].n > sizes[i].n)
				return err_set(ERR_CONFIG, "%s: %lld is more than %s %lld", sizes[k].name,
					       (long long)sizes[k].n, sizes[i].name, (long long)sizes[i].n);
		}
	}
	return ERR_OK;
}

enum err job_check(const struct job_config *c)
{
	if (c->name == NULL || !name_fits(c->name))
		return err_set(ERR_CONFIG, "name: 1 to %d letters, digits, '-', '_', '.' and blanks between them",
			       NAME_SIZE - 1);
	TRY(check_plants(&c->plants));
	TRY(check_sizes(c));
	TRY(check_keep(c));
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
