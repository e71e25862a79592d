/*
 * The commands of `hansad` and `hansactl`, one row each; coordinator/main/ holds the tables' only readers.
 */
#ifndef HANSA_COORDINATOR_COMMANDS_H
#define HANSA_COORDINATOR_COMMANDS_H

#include "base/cli.h"

/* hansad */
extern const struct cli_command command_init, command_serve, command_check;

/* hansactl */
extern const struct cli_command command_invite, command_revoke, command_plants, command_job_start, command_job_list,
	command_job_show, command_job_stop, command_job_resume, command_rounds, command_watch, command_model_get,
	command_model_publish;

/*
 * What the table of options cannot say, put into its form before it is read: an option with a value in front of the command becomes one word
 * ("--dir DIR" -> "--dir=DIR"), and an option that stands there several times becomes one ("--host a --host b" -> "--host=a,b").
 * Returns an argv for cli_main(); it lives until the next call.
 */
char **command_line(int argc, char **argv, const char *option, int *ret_argc);

#endif
