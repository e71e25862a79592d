#include "swarm/mischief.h"

#include "base/mem.h"
#include "base/text.h"

#include <stdlib.h>
#include <string.h>

static const struct {
	const char *name;
	bool refused;
} rows[MISCHIEF_COUNT] = {
	[MISCHIEF_NONE] = {"none", false},     [MISCHIEF_STALL] = {"stall", false},
	[MISCHIEF_CUT] = {"cut", false},       [MISCHIEF_DIGEST] = {"digest", true},
	[MISCHIEF_RANGE] = {"range", true},    [MISCHIEF_BASE] = {"base", true},
	[MISCHIEF_REPEAT] = {"repeat", false}, [MISCHIEF_LATE] = {"late", false},
	[MISCHIEF_HANGUP] = {"hangup", false},
};

const char *mischief_name(enum mischief m)
{
	return rows[m].name;
}

bool mischief_is_refused(enum mischief m)
{
	return rows[m].refused;
}

static enum err parse_one(char *word, struct mischief_plan *plan)
{
	char *share = strchr(word, '=');
	double v;
	if (share == NULL)
		return err_set(ERR_USAGE, "--misbehave: expected KIND=SHARE, not '%.40s'", word);
	*share++ = '\0';
	if (!text_to_real(share, &v) || v < 0 || v > 1)
		return err_set(ERR_USAGE, "--misbehave %.20s: a share is from 0 to 1, not '%.40s'", word, share);
	for (int m = MISCHIEF_NONE + 1; m < MISCHIEF_COUNT; m++) {
		if (strcmp(rows[m].name, word) == 0) {
			plan->share[m] = v;
			return ERR_OK;
		}
	}
	return err_set(ERR_USAGE,
		       "--misbehave: nothing is called '%.40s' (stall, cut, digest, range, base, repeat, late, hangup)",
		       word);
}

enum err mischief_parse(const char *text, struct mischief_plan *ret_plan)
{
	struct mischief_plan plan = {{0}};
	enum err err = ERR_OK;
	char *copy = mem_str(text != NULL ? text : ""), *save = NULL;
	for (char *word = strtok_r(copy, ",", &save); word != NULL && err == ERR_OK; word = strtok_r(NULL, ",", &save))
		err = parse_one(word, &plan);
	free(copy);
	double sum = 0;
	for (int m = MISCHIEF_NONE + 1; m < MISCHIEF_HANGUP; m++)
		sum += plan.share[m];
	if (err == ERR_OK && sum > 1)
		err = err_set(ERR_USAGE, "--misbehave: the shares add up to more than 1");
	if (err == ERR_OK)
		*ret_plan = plan;
	return err;
}

enum mischief mischief_draw(const struct mischief_plan *plan, struct rng *rng)
{
	double u = rng_uniform(rng);
	for (int m = MISCHIEF_NONE + 1; m < MISCHIEF_HANGUP; m++) {
		if (u < plan->share[m])
			return (enum mischief)m;
		u -= plan->share[m];
	}
	return MISCHIEF_NONE;
}
