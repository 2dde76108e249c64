/* SPDX-License-Identifier: Apache-2.0 */
#include "client/cli/life.h"

#include <errno.h>
#include <string.h>

#include "client/cli/api.h"

#define CHANGES_MAX 32

/* "async.buffer_k=8" into the patch: values are JSON, or else text; "labels.x" is metadata's. */
static int add_change(json_t *patch, const char *change)
{
	const char *end = strchr(change, '=');
	char path[256];
	json_t *at = patch;
	json_t *value;
	char *name;
	char *rest;

	if (!end || end == change || (size_t)(end - change) > sizeof(path) - 16) {
		cli_say("'%s' is not PATH=VALUE", change);
		return -EINVAL;
	}
	(void)snprintf(path, sizeof(path), "%s%.*s",
		       strncmp(change, "labels.", 7) == 0 ? "metadata." : "spec.",
		       (int)(end - change), change);
	value = json_loads(end + 1, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
	value = value ? value : json_string(end + 1);
	rest = path;
	while ((name = strsep(&rest, ".")) != NULL && rest) {
		if (!json_is_object(json_object_get(at, name))) {
			(void)json_object_set_new(at, name, json_object());
		}
		at = json_object_get(at, name);
	}
	if (!value || json_object_set_new(at, name, value)) {
		cli_say("'%s' is not valid UTF-8", change);
		return -EINVAL;
	}
	return 0;
}

static int print_job(const struct cli_service *service, json_t *job, const char *what)
{
	if (strcmp(service->format, "json") == 0) {
		cli_print_json(job);
	} else {
		cli_say("job %s: %s", trib_json_text(job, "metadata.id", "?"), what);
	}
	return CLI_OK;
}

int cli_patch(const struct cli_command *command, int argc, char **argv)
{
	struct cli_service service = CLI_SERVICE_INIT;
	const struct trib_option table[] = { CLI_SERVICE_OPTIONS(service), { .name = NULL } };
	struct cli_operands rule = { .min = 2, .max = 1 + CHANGES_MAX };
	char id[CLI_JOB_ID_SIZE];
	char path[128];
	char **operands;
	char *text = NULL;
	json_t *answer = NULL;
	json_t *patch;
	int count;
	int rc;

	count = cli_parse(command, argc, argv, table, &rule, &operands, &rc);
	if (count < 0) {
		return rc;
	}
	if (cli_service_check(&service)) {
		return CLI_USAGE;
	}
	patch = json_object();
	rc = CLI_OK;
	for (int i = 1; i < count && rc == CLI_OK; i++) {
		rc = add_change(patch, operands[i]) ? CLI_USAGE : CLI_OK;
	}
	rc = rc ? rc : cli_job_id(&service, operands[0], id);
	if (rc == CLI_OK) {
		text = trib_json_print(patch);
		(void)snprintf(path, sizeof(path), "/v1/jobs/%s", id);
		rc = text ? cli_api(&service, "PATCH", path, text, &answer) : CLI_FAILED;
	}
	if (rc == CLI_OK) {
		rc = print_job(&service, answer, "changed");
	}
	trib_free(text);
	json_decref(patch);
	json_decref(answer);
	return rc;
}

static int act(const struct cli_command *command, int argc, char **argv, const char *verb,
	       const char *done)
{
	struct cli_service service = CLI_SERVICE_INIT;
	const struct trib_option table[] = { CLI_SERVICE_OPTIONS(service), { .name = NULL } };
	char id[CLI_JOB_ID_SIZE];
	char path[128];
	json_t *answer = NULL;
	int rc;

	rc = cli_one_job(command, argc, argv, table, &service, id);
	if (rc != CLI_GO_ON) {
		return rc;
	}
	(void)snprintf(path, sizeof(path), "/v1/jobs/%s:%s", id, verb);
	rc = cli_api(&service, "POST", path, NULL, &answer);
	if (rc == CLI_OK) {
		rc = print_job(&service, answer, done);
	}
	json_decref(answer);
	return rc;
}

int cli_pause(const struct cli_command *command, int argc, char **argv)
{
	return act(command, argc, argv, "pause", "paused");
}

int cli_resume(const struct cli_command *command, int argc, char **argv)
{
	return act(command, argc, argv, "resume", "running");
}

int cli_drain(const struct cli_command *command, int argc, char **argv)
{
	return act(command, argc, argv, "drain", "draining");
}
