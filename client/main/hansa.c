/*
 * hansa: what runs at a plant or in a lab.
 */
#include "base/cli.h"
#include "base/signals.h"
#include "client/commands.h"
#include "crypto/tls.h"

#include <stdio.h>

int main(int argc, char **argv)
{
	const struct cli_command commands[] = {
		command_enroll,       command_join,     command_pretrain,
		command_finetune,     command_evaluate, command_model_show,
		command_data_bearing, command_config,   {0},
	};
	const struct cli_program program = {
		.name = "hansa",
		.summary = "Share what factories learn, not their data: the plant's and the lab's side.",
		.version = HANSA_VERSION,
		.commands = commands,
	};
	signals_catch();
	if (tls_policy_install() != ERR_OK) {
		fprintf(stderr, "hansa: %s\n", err_text());
		return 1;
	}
	return cli_main(&program, argc, argv);
}
