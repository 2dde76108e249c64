/* SPDX-License-Identifier: Apache-2.0 */
#include "client/cli/keep.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "common/loop.h"
#include "shm/keeper.h"
#include "shm/link.h"

static void on_end(int signal_number, void *arg)
{
	(void)signal_number;
	trib_loop_stop(arg);
}

/* Whether one is listening there: for a probe of a container that has nothing else to ask with. */
static int ask(const char *socket_path)
{
	int fd = -1;
	int rc = trib_unix_connect(socket_path, &fd);

	if (rc) {
		cli_say("keep: %s: %s", socket_path, strerror(-rc));
		return CLI_FAILED;
	}
	(void)close(fd);
	return CLI_OK;
}

int cli_keep(const struct cli_command *command, int argc, char **argv)
{
	const char *socket_path = NULL;
	bool probe = false;
	const struct trib_option table[] = {
		{ .name = "socket",
		  .kind = TRIB_OPTION_TEXT,
		  .target = &socket_path,
		  .value_name = "PATH",
		  .help = "unix socket to listen on" },
		{ .name = "probe",
		  .kind = TRIB_OPTION_FLAG,
		  .target = &probe,
		  .help = "only ask whether one listens there" },
		{ .name = NULL },
	};
	struct cli_operands rule = { .min = 0, .max = 0 };
	struct trib_keeper *keeper = NULL;
	struct trib_loop *loop = NULL;
	char **operands;
	int rc;

	if (cli_parse(command, argc, argv, table, &rule, &operands, &rc) < 0) {
		return rc;
	}
	if (!socket_path) {
		cli_say("--socket is needed");
		return CLI_USAGE;
	}
	if (probe) {
		return ask(socket_path);
	}
	rc = trib_loop_new(&loop);
	rc = rc ? rc : trib_loop_on_signal(loop, SIGTERM, on_end, loop);
	rc = rc ? rc : trib_loop_on_signal(loop, SIGINT, on_end, loop);
	rc = rc ? rc : trib_keeper_new(loop, socket_path, &keeper);
	if (rc) {
		cli_say("keep: %s: %s", socket_path, strerror(-rc));
	} else {
		cli_say("keep: listening on %s", socket_path);
		rc = trib_loop_run(loop);
	}
	(void)trib_keeper_free(keeper);
	trib_loop_free(loop);
	return rc ? CLI_FAILED : CLI_OK;
}
