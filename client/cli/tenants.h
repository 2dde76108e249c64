/* SPDX-License-Identifier: Apache-2.0
 * `tributary tenants`: quotas and use. Returns an enum cli_exit.
 */
#ifndef TRIB_CLIENT_CLI_TENANTS_H
#define TRIB_CLIENT_CLI_TENANTS_H

#include "client/cli/cli.h"

int cli_tenants(const struct cli_command *command, int argc, char **argv);

#endif
