/*
 * hansad: the coordinator.
 */
#include "base/cli.h"
#include "coordinator/commands.h"
#include "crypto/tls.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
	const struct cli_command commands[] = {command_init, command_serve, command_check, {0}};
	const struct cli_program program = {
		.name = "hansad",
		.summary = "Bring together what plants learn: the coordinator of a federation.",
		.version = HANSA_VERSION,
		.commands = commands,
	};
	if (tls_policy_install() != ERR_OK) {
		fprintf(stderr, "hansad: %s\n", err_text());
		return 1;
	}
	argv = command_line(argc, argv, "--host", &argc);
	return cli_main(&program, argc, argv);
}
