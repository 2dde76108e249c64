/* SPDX-License-Identifier: Apache-2.0
 * `tributary drain-node NODE`: a node leaves in order.
 */
#ifndef TRIB_CLIENT_CLI_DRAIN_NODE_H
#define TRIB_CLIENT_CLI_DRAIN_NODE_H

#include "client/cli/cli.h"

int cli_drain_node(const struct cli_command *command, int argc, char **argv);

#endif
