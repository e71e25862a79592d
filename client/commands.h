/*
 * The commands of `hansa`, one row each; client/main/hansa.c is the table's only reader.
 */
#ifndef HANSA_CLIENT_COMMANDS_H
#define HANSA_CLIENT_COMMANDS_H

#include "base/cli.h"

extern const struct cli_command command_pretrain, command_finetune, command_evaluate, command_data_bearing,
	command_model_show, command_enroll, command_join, command_config;

#endif
