/* SPDX-License-Identifier: Apache-2.0
 * `tributary tree JOB`: the job's functions, drawn.
 */
#ifndef TRIB_CLIENT_CLI_TREE_H
#define TRIB_CLIENT_CLI_TREE_H

#include "client/cli/cli.h"

int cli_tree(const struct cli_command *command, int argc, char **argv);

#endif
