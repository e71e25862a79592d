/*
 * hansactl: what an operator does with a coordinator.
 */
#include "base/cli.h"
#include "coordinator/commands.h"
#include "crypto/tls.h"

#include <stdio.h>

int main(int argc, char **argv)
{
	const struct cli_command commands[] = {
		command_invite,
		command_revoke,
		command_plants,
		command_job_start,
		command_job_list,
		command_job_show,
		command_job_stop,
		command_job_resume,
		command_rounds,
		command_watch,
		command_model_get,
		command_model_publish,
		{0},
	};
	const struct cli_program program = {
		.name = "hansactl",
		.summary = "Invite plants, start and watch jobs, fetch models: the operator's side of a federation.",
		.version = HANSA_VERSION,
		.commands = commands,
	};
	if (tls_policy_install() != ERR_OK) {
		fprintf(stderr, "hansactl: %s\n", err_text());
		return 1;
	}
	argv = command_line(argc, argv, "--dir", &argc);
	return cli_main(&program, argc, argv);
}
