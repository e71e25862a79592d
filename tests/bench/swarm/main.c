/*
 * hansa-swarm: many plants in one process, for benchmarks and soak tests. Real connections, real certificates, random
 * updates; nothing is trained.
 */
#include "base/signals.h"
#include "crypto/tls.h"
#include "swarm/commands.h"

#include <stdio.h>

int main(int argc, char **argv)
{
	const struct cli_command commands[] = {command_run, command_enrol, command_model, {0}};
	const struct cli_program program = {
		.name = "hansa-swarm",
		.summary = "Act as many plants of a federation, to measure and to try its coordinator.",
		.version = HANSA_VERSION,
		.commands = commands,
	};
	signals_catch();
	if (tls_policy_install() != ERR_OK) {
		fprintf(stderr, "hansa-swarm: %s\n", err_text());
		return 1;
	}
	return cli_main(&program, argc, argv);
}
