/* SPDX-License-Identifier: Apache-2.0 */
#include "client/cli/model.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "client/cli/api.h"

static int fetch(const struct cli_service *service, const char *path, FILE *file,
		 uint64_t *ret_bytes)
{
	char url[1024];
	struct trib_client_request request = {
		.method = "GET", .url = url, .token = service->token, .file = file
	};
	struct trib_client_answer answer;
	int rc;

	(void)snprintf(url, sizeof(url), "%s%s", service->api, path);
	rc = cli_api_told(service, path, trib_client_request(&request, &answer), &answer);
	*ret_bytes = answer.saved;
	trib_client_answer_fini(&answer);
	return rc;
}

static int save(const struct cli_service *service, const char *path, const char *output)
{
	char partial[4096];
	uint64_t bytes;
	FILE *file;
	int rc;

	if (strcmp(output, "-") == 0) {
		if (isatty(STDOUT_FILENO)) {
			cli_say("a model is binary: not onto a terminal");
			return CLI_USAGE;
		}
		rc = fetch(service, path, stdout, &bytes);
		return rc || fflush(stdout) == 0 ? rc : CLI_FAILED;
	}
	if (snprintf(partial, sizeof(partial), "%s.%d.part", output, (int)getpid()) >=
	    (int)sizeof(partial)) {
		cli_say("--output: too long");
		return CLI_USAGE;
	}
	file = fopen(partial, "wbe");
	if (!file) {
		cli_say("%s: %s", partial, strerror(errno));
		return CLI_FAILED;
	}
	rc = fetch(service, path, file, &bytes);
	if (fclose(file) != 0 && rc == CLI_OK) {
		cli_say("%s: %s", partial, strerror(errno));
		rc = CLI_FAILED;
	}
	if (rc == CLI_OK && rename(partial, output)) {
		cli_say("%s: %s", output, strerror(errno));
		rc = CLI_FAILED;
	}
	if (rc) {
		(void)unlink(partial);
		return rc;
	}
	cli_say("%s: %llu bytes", output, (unsigned long long)bytes);
	return CLI_OK;
}

int cli_model(const struct cli_command *command, int argc, char **argv)
{
	struct cli_service service = CLI_SERVICE_INIT;
	const char *which = "latest";
	const char *output = NULL;
	const struct trib_option table[] = {
		{ .name = "output",
		  .kind = TRIB_OPTION_TEXT,
		  .target = &output,
		  .value_name = "FILE",
		  .help = "where to (- = standard output)" },
		{ .name = "model-version",
		  .kind = TRIB_OPTION_TEXT,
		  .target = &which,
		  .value_name = "N",
		  .help = "which one; 0 is the initial model" },
		CLI_SERVICE_OPTIONS(service),
		{ .name = NULL },
	};
	static const struct cli_short shorts[] = { { 'o', "output" },
						   { 'v', "model-version" },
						   { 0, NULL } };
	struct cli_operands rule = { .min = 1, .max = 1, .shorts = shorts };
	char id[CLI_JOB_ID_SIZE];
	char path[160];
	char **operands;
	uint64_t number;
	int rc;

	if (cli_parse(command, argc, argv, table, &rule, &operands, &rc) < 0) {
		return rc;
	}
	if (cli_service_check(&service)) {
		return CLI_USAGE;
	}
	if (!output) {
		cli_say("-o FILE is needed");
		return CLI_USAGE;
	}
	if (strcmp(which, "latest") != 0 &&
	    trib_parse_u64(which, strlen(which), 0, UINT32_MAX, &number)) {
		cli_say("--model-version: '%s' is neither a number nor 'latest'", which);
		return CLI_USAGE;
	}
	rc = cli_job_id(&service, operands[0], id);
	if (rc) {
		return rc;
	}
	(void)snprintf(path, sizeof(path), "/v1/jobs/%s/models/%s", id, which);
	return save(&service, path, output);
}
