/* SPDX-License-Identifier: Apache-2.0
 * Sub-commands that change a job while it lives: patch, pause, resume, drain. Each returns an enum
 * cli_exit.
 */
#ifndef TRIB_CLIENT_CLI_LIFE_H
#define TRIB_CLIENT_CLI_LIFE_H

#include "client/cli/cli.h"

int cli_patch(const struct cli_command *command, int argc, char **argv);
int cli_pause(const struct cli_command *command, int argc, char **argv);
int cli_drain(const struct cli_command *command, int argc, char **argv);
int cli_resume(const struct cli_command *command, int argc, char **argv);

#endif
