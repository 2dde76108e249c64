/* SPDX-License-Identifier: Apache-2.0
 * `tributary up`: the whole service on one machine, supervised in the foreground. One thread, one
 * loop; serves the keeper of shared memory in it.
 *
 *   REDIS     redis-server is started (unless --redis); PONG -> SERVICES
 *   SERVICES  orchestrator, agent, gateway are started and kept alive; readyz of all ok = "ready"
 *   STOPPING  gateway, then agent and orchestrator, then redis: SIGTERM, 5 s, SIGKILL each
 *
 * The listening sockets of the two public interfaces are bound here and inherited, so that
 * connections wait in the backlog while a program is started again.
 */
#ifndef TRIB_CLIENT_CLI_UP_H
#define TRIB_CLIENT_CLI_UP_H

#include "client/cli/cli.h"

int cli_up(const struct cli_command *command, int argc, char **argv);

#endif
