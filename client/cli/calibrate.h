/* SPDX-License-Identifier: Apache-2.0
 * `tributary calibrate`: how many updates this machine aggregates at once (MC of placement).
 */
#ifndef TRIB_CLIENT_CLI_CALIBRATE_H
#define TRIB_CLIENT_CLI_CALIBRATE_H

#include "client/cli/cli.h"

int cli_calibrate(const struct cli_command *command, int argc, char **argv);

#endif
