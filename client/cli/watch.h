/* SPDX-License-Identifier: Apache-2.0
 * `tributary watch`: follows a job until it is over. The event stream tells that something
 * happened; what is shown is the job's own record, fetched again then and every few seconds, so a
 * lost event costs nothing.
 */
#ifndef TRIB_CLIENT_CLI_WATCH_H
#define TRIB_CLIENT_CLI_WATCH_H

#include "client/cli/cli.h"

int cli_watch(const struct cli_command *command, int argc, char **argv);

#endif
