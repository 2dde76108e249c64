/* SPDX-License-Identifier: Apache-2.0
 * `tributary keep`: the keeper (shm/keeper.h) as a process of its own, until SIGTERM.
 */
#ifndef TRIB_CLIENT_CLI_KEEP_H
#define TRIB_CLIENT_CLI_KEEP_H

#include "client/cli/cli.h"

int cli_keep(const struct cli_command *command, int argc, char **argv);

#endif
