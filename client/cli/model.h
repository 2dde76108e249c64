/* SPDX-License-Identifier: Apache-2.0
 * `tributary model`: fetches a published model into a file, which appears whole or not at all.
 */
#ifndef TRIB_CLIENT_CLI_MODEL_H
#define TRIB_CLIENT_CLI_MODEL_H

#include "client/cli/cli.h"

int cli_model(const struct cli_command *command, int argc, char **argv);

#endif
