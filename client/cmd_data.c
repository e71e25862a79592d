/*
 * hansa data bearing: synthetic plants.
 */
#include "client/commands.h"
#include "ml/bearing.h"

#include <stdio.h>

struct data_args {
	int64_t seed, plants;
	double seconds, severity;
};

static enum err data_bearing(const void *p, const char *const *words, size_t n_words)
{
	(void)n_words;
	const struct data_args *args = p;
	struct bearing_config config;
	TRY(config_read(bearing_rows, NULL, &config));
	if (args->seed != 0)
		config.seed = args->seed;
	if (args->plants != 0)
		config.plants = args->plants;
	if (args->seconds != 0)
		config.seconds = args->seconds;
	if (args->severity != 0)
		config.severity = args->severity;
	enum err err = bearing_write(&config, words[0]);
	if (err == ERR_OK)
		printf("%s: load0 (the lab) and load1 to load%lld (the plants), %g s a recording, seed %lld; see "
		       "%s/index.csv\n",
		       words[0], (long long)config.plants, config.seconds, (long long)config.seed, words[0]);
	config_free(bearing_rows, &config);
	return err;
}

static const struct cli_option options[] = {
	{"seed", 0, CLI_INT, offsetof(struct data_args, seed), "N", "same seed, same data (default 1)", .min = 1,
	 .max = 1e15},
	{"plants", 0, CLI_INT, offsetof(struct data_args, plants), "N", "number of plants beside the lab (default 4)",
	 .min = 1, .max = 100},
	{"seconds", 0, CLI_REAL, offsetof(struct data_args, seconds), "S", "length of each recording (default 10)",
	 .min = 1, .max = 600},
	{"severity", 0, CLI_REAL, offsetof(struct data_args, severity), "X",
	 "scale of the differences between plants (default 1; 0.01 makes them nearly alike)", .min = 0.01, .max = 3},
	{0},
};

const struct cli_command command_data_bearing = {
	.name = "data bearing",
	.arguments = "DIR",
	.summary = "make synthetic vibration data of rolling bearings with faults",
	.help = "Writes DIR/loadN/CLASS.npy (float32, 12 000 samples a second) for a lab and its plants: ten classes, "
		"healthy and three faults in\n"
		"three sizes, after the signal models of McFadden & Smith (1984) and Antoni & Randall (2003). Plants "
		"differ in speed, load,\n"
		"transfer path, sensor gain and noise. The same layout as the CWRU recordings.\n\n"
		"Example:\n  hansa data bearing plants --seed 7\n",
	.options = options,
	.args_size = sizeof(struct data_args),
	.positional_min = 1,
	.positional_max = 1,
	.run = data_bearing,
};
