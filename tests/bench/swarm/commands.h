/*
 * The commands of `hansa-swarm`, one row each; main.c is the table's only reader.
 */
#ifndef HANSA_SWARM_COMMANDS_H
#define HANSA_SWARM_COMMANDS_H

#include "base/cli.h"

extern const struct cli_command command_run, command_enrol, command_model;

#endif
