/* SPDX-License-Identifier: Apache-2.0
 * What all sub-commands of `tributary` share: exit codes, common options, messages. Single thread.
 * Data goes to stdout, messages to stderr.
 */
#ifndef TRIB_CLIENT_CLI_CLI_H
#define TRIB_CLIENT_CLI_CLI_H

#include <stdio.h>

#include "common/base.h"
#include "common/options.h"

enum cli_exit {
	CLI_OK = 0,
	CLI_FAILED = 1, /* the job or the operation failed */
	CLI_USAGE = 2,
	CLI_UNREACHABLE = 3, /* no answer from the service */
	CLI_REFUSED = 4,     /* 4xx */
	CLI_SERVER = 5,      /* 5xx */
};

#define CLI_EXITS_TEXT                                                                       \
	"exit codes: 0 ok, 1 the job or operation failed, 2 usage, 3 service unreachable,\n" \
	"            4 refused by the service (4xx), 5 error of the service (5xx)\n"

/* A sub-command: name, operands, one line of help, one of detail, and what runs. argv[0] is
 * "tributary <name>" as shown in messages. */
struct cli_command {
	const char *name;
	const char *operands;
	const char *help;
	const char *detail; /* NULL or more lines, printed above the options */
	int (*run)(const struct cli_command *command, int argc, char **argv);
};

/* Options every command that talks to the service has. */
struct cli_service {
	const char *api;    /* without a trailing '/' once parsed */
	const char *format; /* "table" or "json" */
	const char *cacert; /* PEM files for https, or NULL */
	const char *cert;
	const char *key;
	const char *token; /* operator's key or JWT, NULL = none */
	const char *hosts; /* that it may be sent on to, or NULL */
	char api_text[512];
};
#define CLI_SERVICE_OPTIONS(s)                                                     \
	{ .name = "api",                                                           \
	  .kind = TRIB_OPTION_TEXT,                                                \
	  .target = &(s).api,                                                      \
	  .value_name = "URL",                                                     \
	  .help = "the orchestrator" },                                            \
		{ .name = "cacert",                                                \
		  .kind = TRIB_OPTION_TEXT,                                        \
		  .target = &(s).cacert,                                           \
		  .value_name = "FILE",                                            \
		  .help = "certificates to trust (https)" },                       \
		{ .name = "cert",                                                  \
		  .kind = TRIB_OPTION_TEXT,                                        \
		  .target = &(s).cert,                                             \
		  .value_name = "FILE",                                            \
		  .help = "our own certificate (https)" },                         \
		{ .name = "key",                                                   \
		  .kind = TRIB_OPTION_TEXT,                                        \
		  .target = &(s).key,                                              \
		  .value_name = "FILE",                                            \
		  .help = "its private key" },                                     \
		{ .name = "token",                                                 \
		  .kind = TRIB_OPTION_TEXT,                                        \
		  .target = &(s).token,                                            \
		  .value_name = "KEY",                                             \
		  .help = "operator's key or JWT; better as TRIBUTARY_TOKEN" },    \
		{ .name = "hosts",                                                 \
		  .kind = TRIB_OPTION_TEXT,                                        \
		  .target = &(s).hosts,                                            \
		  .value_name = "HOST,..",                                         \
		  .help = "who else may get it (gateways, the leader)" },          \
	{                                                                          \
		.name = "format", .kind = TRIB_OPTION_TEXT, .target = &(s).format, \
		.value_name = "table|json", .help = "how data is printed"          \
	}
#define CLI_SERVICE_INIT                                          \
	{                                                         \
		.api = "http://127.0.0.1:8080", .format = "table" \
	}

/* Checks and tidies --api and --format, and makes the certificates known to http.h: CLI_OK or
 * CLI_USAGE (said so). */
int cli_service_check(struct cli_service *service);

/* Parses options that may stand anywhere among the operands (short ones by `shorts`, pairs such as
 * "o" -> "output", ended by NULL). Operand count must be in [min, max]. On success *ret_operands
 * (argv's own strings, in an array that lives as long as the process) holds them and the count is
 * returned; else -1 and *ret_exit says how to leave. */
struct cli_short {
	char letter;
	const char *name;
};
struct cli_operands {
	int min;
	int max;
	const struct cli_short *shorts;
};
int cli_parse(const struct cli_command *command, int argc, char **argv,
	      const struct trib_option *table, const struct cli_operands *rule,
	      char ***ret_operands, int *ret_exit);

/* "tributary: text" on stderr. */
void cli_say(const char *format, ...) TRIB_PRINTF(1, 2);
/* True when escape sequences are welcome on this stream (terminal, no NO_COLOR, TERM not dumb). */
bool cli_colour(FILE *stream);

#endif
