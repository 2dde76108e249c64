/* SPDX-License-Identifier: Apache-2.0
 * `tributary token`, `tokens`, `revoke` (clients' tokens of a job) and `operator` (a new key).
 */
#ifndef TRIB_CLIENT_CLI_ACCESS_H
#define TRIB_CLIENT_CLI_ACCESS_H

#include "client/cli/cli.h"

int cli_token(const struct cli_command *command, int argc, char **argv);
int cli_tokens(const struct cli_command *command, int argc, char **argv);
int cli_revoke(const struct cli_command *command, int argc, char **argv);
int cli_operator(const struct cli_command *command, int argc, char **argv);

#endif
