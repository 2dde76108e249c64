/* SPDX-License-Identifier: Apache-2.0
 * Sub-commands about jobs: submit, get, rounds, stop, delete. Each returns an enum cli_exit.
 */
#ifndef TRIB_CLIENT_CLI_JOBS_H
#define TRIB_CLIENT_CLI_JOBS_H

#include "client/cli/cli.h"

int cli_submit(const struct cli_command *command, int argc, char **argv);
int cli_get(const struct cli_command *command, int argc, char **argv);
int cli_rounds(const struct cli_command *command, int argc, char **argv);
int cli_stop(const struct cli_command *command, int argc, char **argv);
int cli_delete(const struct cli_command *command, int argc, char **argv);

#endif
