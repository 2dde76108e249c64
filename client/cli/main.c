/* SPDX-License-Identifier: Apache-2.0
 * `tributary`: one table of sub-commands.
 */
#include <signal.h>
#include <string.h>

#include "client/cli/access.h"
#include "client/cli/calibrate.h"
#include "client/cli/cli.h"
#include "client/cli/drain_node.h"
#include "client/cli/jobs.h"
#include "client/cli/keep.h"
#include "client/cli/life.h"
#include "client/cli/model.h"
#include "client/cli/tenants.h"
#include "client/cli/tree.h"
#include "client/cli/up.h"
#include "client/cli/watch.h"
#include "client/load/load.h"
#include "common/log.h"
#include "common/version.h"

static int print_version(const struct cli_command *command, int argc, char **argv);
static int print_help(const struct cli_command *command, int argc, char **argv);

static const struct cli_command commands[] = {
	{ "up", "", "Runs the whole service on this machine, in the foreground",
	  "Supervises a private redis-server, the orchestrator, the agent and the gateway, and\n"
	  "keeps the node's shared memory. Ctrl-C ends it in order; a second one at once.\n"
	  "Writes DIR/endpoints.json (addresses and process ids). Every option of which no\n"
	  "default is shown is handed on as it is to the program that has it.",
	  cli_up },
	{ "submit", "FILE|-", "Creates a job from a JSON spec; prints its id", NULL, cli_submit },
	{ "get", "[JOB]", "Shows all jobs, or one (by id or unique name)", NULL, cli_get },
	{ "watch", "JOB", "Follows a job until it is over",
	  "One line that moves on a terminal, else one line per event on stdout. Exit code 0\n"
	  "when the job finished or was stopped, 1 when it failed.",
	  cli_watch },
	{ "rounds", "JOB", "Shows the rounds of a job", NULL, cli_rounds },
	{ "tree", "JOB", "Draws the job's functions on every node, and why they are so", NULL,
	  cli_tree },
	{ "model", "JOB", "Fetches a published model as a safetensors file", NULL, cli_model },
	{ "patch", "JOB PATH=VALUE...", "Changes a job's policies while it runs",
	  "PATH is below the spec (mode, sync.goal, async.buffer_k, stop.rounds, ..) or "
	  "labels.NAME;\n"
	  "VALUE is JSON, or else text; null takes the default. In force at once (docs/jobs.md).",
	  cli_patch },
	{ "pause", "JOB", "No further rounds for now", NULL, cli_pause },
	{ "resume", "JOB", "Goes on with rounds", NULL, cli_resume },
	{ "drain", "JOB", "Ends a job in order: who has a place may still report", NULL,
	  cli_drain },
	{ "drain-node", "[NODE]", "Takes a node out of service in order (docs/nodes.md)",
	  "No new clients are sent to it, its sums go to other nodes; returns once nothing is "
	  "left\n"
	  "there, so that ending it costs nothing. Its next start takes part again.",
	  cli_drain_node },
	{ "stop", "JOB", "Ends a job; its last model stays", NULL, cli_stop },
	{ "delete", "JOB", "Forgets a job that is over", NULL, cli_delete },
	{ "token", "JOB", "Makes tokens for clients of a job and prints them",
	  "Jobs whose spec says auth.clients: token want one of their clients (docs/access.md).",
	  cli_token },
	{ "tokens", "JOB", "Shows the tokens of a job (never themselves)", NULL, cli_tokens },
	{ "revoke", "JOB ID", "Revokes a token, at once", NULL, cli_revoke },
	{ "tenants", "", "Shows what tenants use, and their quotas", NULL, cli_tenants },
	{ "operator", "NAME", "Makes an operator's key; prints the row for --operators",
	  "The row goes to stdout, the key to stderr. Nothing is sent anywhere.", cli_operator },
	{ "calibrate", "", "Measures how many updates this machine aggregates at once",
	  "Rounds of 1, 2, 4, .. updates through a private node: JSON with `capacity`, the most\n"
	  "whose time per update is within 1.25 of the best, for tributary up --capacity.",
	  cli_calibrate },
	{ "load", "", "Loads a service with synthetic clients and judges it (docs/load.md)",
	  "Closed loop with --clients alone, open loop with --arrivals and --rate. Compares what\n"
	  "the service counted with the receipts it gave. Exit codes of its own: 1 a limit of\n"
	  "--slo was missed, 6 an update was lost or counted twice, 7 none was accepted.",
	  cli_load },
	{ "keep", "", "Runs the keeper of shared memory alone (up has one built in)", NULL,
	  cli_keep },
	{ "version", "", "Prints the version", NULL, print_version },
	{ "help", "[COMMAND]", "Prints this, or the help of a command", NULL, print_help },
};

static const struct cli_command *find(const char *name)
{
	for (size_t i = 0; i < TRIB_COUNT(commands); i++) {
		if (strcmp(commands[i].name, name) == 0) {
			return &commands[i];
		}
	}
	return NULL;
}

static void print_overview(FILE *out)
{
	(void)fputs("usage: tributary COMMAND [operands] [options]\n\n", out);
	for (size_t i = 0; i < TRIB_COUNT(commands); i++) {
		char left[64];

		(void)snprintf(left, sizeof(left), "%s %s", commands[i].name, commands[i].operands);
		(void)fprintf(out, "  %-18s %s\n", left, commands[i].help);
	}
	(void)fputs("\n`tributary COMMAND --help` lists a command's options. Data is printed on\n"
		    "stdout, messages on stderr. The service is --api URL or TRIBUTARY_API\n"
		    "(http://127.0.0.1:8080), the operator's key TRIBUTARY_TOKEN. NO_COLOR is "
		    "respected.\n\n" CLI_EXITS_TEXT,
		    out);
}

static int print_version(const struct cli_command *command, int argc, char **argv)
{
	(void)command;
	(void)argc;
	(void)argv;
	(void)printf("tributary %s\n", TRIB_VERSION);
	return CLI_OK;
}

static int print_help(const struct cli_command *command, int argc, char **argv)
{
	char *words[] = { argv[0], "--help", NULL };

	if (argc < 2 || argv[1][0] == '-') {
		print_overview(stdout);
		return CLI_OK;
	}
	command = find(argv[1]);
	if (!command) {
		cli_say("no command '%s'", argv[1]);
		return CLI_USAGE;
	}
	if (command->run == print_help || command->run == print_version) {
		print_overview(stdout);
		return CLI_OK;
	}
	return command->run(command, 2, words);
}

int main(int argc, char **argv)
{
	const struct cli_command *command;
	static char name[] = "tributary";
	int rc;

	trib_log_init("tributary", TRIB_LOG_WARN);
	(void)signal(SIGPIPE, SIG_IGN);
	if (argc < 2) {
		print_overview(stderr);
		return CLI_USAGE;
	}
	if (strcmp(argv[1], "--version") == 0) {
		return print_version(NULL, 0, NULL);
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
		print_overview(stdout);
		return CLI_OK;
	}
	command = find(argv[1]);
	if (!command) {
		cli_say("no command '%s' (try: tributary help)", argv[1]);
		return CLI_USAGE;
	}
	argv[1] = name;
	rc = command->run(command, argc - 1, argv + 1);
	if (fflush(stdout) != 0 || ferror(stdout)) {
		return rc ? rc : CLI_FAILED; /* disk full, pipe closed */
	}
	return rc;
}
