/* SPDX-License-Identifier: Apache-2.0
 * `tributary load`: synthetic clients against a service, a report and a verdict (docs/load.md).
 */
#ifndef TRIB_CLIENT_LOAD_LOAD_H
#define TRIB_CLIENT_LOAD_LOAD_H

#include "client/cli/cli.h"

enum load_exit {
	LOAD_EXIT_OK = CLI_OK,
	LOAD_EXIT_SLO = CLI_FAILED, /* a limit of --slo was missed */
	/* CLI_USAGE, CLI_UNREACHABLE, CLI_REFUSED, CLI_SERVER as everywhere */
	LOAD_EXIT_COUNTING = 6, /* an update was lost or counted twice, or the model is wrong */
	LOAD_EXIT_NOTHING = 7,  /* not one update was accepted */
};

int cli_load(const struct cli_command *command, int argc, char **argv);

#endif
