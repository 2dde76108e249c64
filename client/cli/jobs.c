/* SPDX-License-Identifier: Apache-2.0 */
#include "client/cli/jobs.h"

#include <errno.h>
#include <string.h>

#include "client/cli/api.h"
#include "client/cli/table.h"

#define SPEC_MAX (1u << 20)

static const struct trib_option no_more[] = { { .name = NULL } };

/* Reads a whole file ("-" = standard input), at most SPEC_MAX. NULL after telling why. */
static char *read_all(const char *path)
{
	FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "rbe");
	char *text = trib_alloc(SPEC_MAX + 1);
	size_t size = 0;

	if (!file || !text) {
		cli_say("%s: %s", path, file ? "out of memory" : strerror(errno));
	} else {
		size = fread(text, 1, SPEC_MAX + 1, file);
		if (ferror(file) || size > SPEC_MAX) {
			cli_say("%s: %s", path,
				size > SPEC_MAX ? "larger than 1 MiB" : "read error");
			size = 0;
		} else if (size == 0) {
			cli_say("%s: empty", path);
		}
	}
	if (file && file != stdin) {
		(void)fclose(file);
	}
	if (size == 0) {
		trib_free(text);
		return NULL;
	}
	text[size] = '\0';
	return text;
}

int cli_submit(const struct cli_command *command, int argc, char **argv)
{
	struct cli_service service = CLI_SERVICE_INIT;
	bool check = false;
	const struct trib_option table[] = {
		CLI_SERVICE_OPTIONS(service),
		{ .name = "validate",
		  .kind = TRIB_OPTION_FLAG,
		  .target = &check,
		  .help = "only check it; print the spec with defaults filled in" },
		{ .name = NULL },
	};
	struct cli_operands rule = { .min = 1, .max = 1 };
	char **operands;
	char reason[160];
	json_t *job = NULL;
	char *text;
	int rc;

	if (cli_parse(command, argc, argv, table, &rule, &operands, &rc) < 0) {
		return rc;
	}
	if (cli_service_check(&service)) {
		return CLI_USAGE;
	}
	text = read_all(operands[0]);
	if (!text) {
		return CLI_USAGE;
	}
	if (trib_json_parse(text, strlen(text), &job, reason)) {
		cli_say("%s: not JSON: %s", operands[0], reason);
		trib_free(text);
		return CLI_USAGE;
	}
	json_decref(job);
	job = NULL;
	rc = cli_api(&service, "POST", check ? "/v1/jobs:validate" : "/v1/jobs", text, &job);
	trib_free(text);
	if (rc == CLI_OK && (check || strcmp(service.format, "json") == 0)) {
		cli_print_json(job);
	} else if (rc == CLI_OK) {
		(void)printf("%s\n", trib_json_text(job, "metadata.id", "?"));
		cli_say("job '%s' created; next: its initial model (PUT %s/v1/jobs/%s/models/0)",
			trib_json_text(job, "metadata.name", "?"),
			trib_json_text(job, "status.endpoints.data", "<data url>"),
			trib_json_text(job, "metadata.id", "?"));
	}
	json_decref(job);
	return rc;
}

static void print_jobs(json_t *jobs)
{
	static const char *const head[] = { "NAME",    "ID",       "PHASE", "ROUND",
					    "VERSION", "REPORTED", "AGE",   NULL };
	struct cli_table table;

	cli_table_init(&table, head);
	for (size_t i = 0; i < json_array_size(jobs); i++) {
		json_t *job = json_array_get(jobs, i);
		char age[16];

		cli_age(trib_json_text(job, "metadata.creationTimestamp", NULL), age);
		cli_table_row(&table);
		cli_table_member(&table, 0, job, "metadata.name");
		cli_table_member(&table, 1, job, "metadata.id");
		cli_table_member(&table, 2, job, "status.phase");
		cli_table_member(&table, 3, job, "status.round");
		cli_table_member(&table, 4, job, "status.version");
		cli_table_set(&table, 5, "%lld/%lld",
			      trib_json_integer(job, "status.progress.accepted", 0),
			      trib_json_integer(job, "status.progress.goal", 0));
		cli_table_set(&table, 6, "%s", age);
	}
	cli_table_print(&table);
}

static void print_job(json_t *job)
{
	static const char *const rows[][2] = {
		{ "name", "metadata.name" },
		{ "id", "metadata.id" },
		{ "created", "metadata.creationTimestamp" },
		{ "phase", "status.phase" },
		{ "reason", "status.reason" },
		{ "round", "status.round" },
		{ "version", "status.version" },
		{ "accepted", "status.progress.accepted" },
		{ "selected", "status.progress.selected" },
		{ "goal", "status.progress.goal" },
		{ "stop after", "spec.stop.rounds" },
		{ "data url", "status.endpoints.data" },
	};

	for (size_t i = 0; i < TRIB_COUNT(rows); i++) {
		const json_t *value = trib_json_at(job, rows[i][1]);

		if (json_is_integer(value)) {
			(void)printf("%-12s %lld\n", rows[i][0],
				     (long long)json_integer_value(value));
		} else if (json_is_string(value) && *json_string_value(value)) {
			(void)printf("%-12s %s\n", rows[i][0], json_string_value(value));
		}
	}
}

int cli_get(const struct cli_command *command, int argc, char **argv)
{
	struct cli_service service = CLI_SERVICE_INIT;
	const struct trib_option table[] = { CLI_SERVICE_OPTIONS(service), { .name = NULL } };
	struct cli_operands rule = { .min = 0, .max = 1 };
	char id[CLI_JOB_ID_SIZE];
	char path[128];
	char **operands;
	json_t *answer = NULL;
	int count;
	int rc;

	count = cli_parse(command, argc, argv, table, &rule, &operands, &rc);
	if (count < 0) {
		return rc;
	}
	if (cli_service_check(&service)) {
		return CLI_USAGE;
	}
	if (count == 0) {
		rc = cli_job_list(&service, &answer);
	} else {
		rc = cli_job_id(&service, operands[0], id);
		(void)snprintf(path, sizeof(path), "/v1/jobs/%s", rc ? "" : id);
		rc = rc ? rc : cli_api(&service, "GET", path, NULL, &answer);
	}
	if (rc) {
		return rc;
	}
	if (strcmp(service.format, "json") == 0) {
		cli_print_json(answer);
	} else if (count == 0) {
		print_jobs(answer);
	} else {
		print_job(answer);
	}
	json_decref(answer);
	return CLI_OK;
}

static void print_rounds(json_t *rounds)
{
	static const char *const head[] = { "ROUND",    "STATE",      "BASE", "VERSION", "ACCEPTED",
					    "SELECTED", "STRAGGLERS", "LATE", "LOST",    "MS",
					    "WHY",      "METRICS",    NULL };
	static const char *const members[] = {
		"round",      "state", "base_version", "version",          "accepted", "selected",
		"stragglers", "late",  "lost",         "timings.total_ms", "why"
	};
	struct cli_table table;
	char metrics[CLI_CELL_SIZE];

	cli_table_init(&table, head);
	for (size_t i = 0; i < json_array_size(rounds); i++) {
		cli_table_row(&table);
		for (size_t c = 0; c < TRIB_COUNT(members); c++) {
			cli_table_member(&table, c, json_array_get(rounds, i), members[c]);
		}
		cli_metrics(json_object_get(json_array_get(rounds, i), "metrics"), metrics);
		cli_table_set(&table, TRIB_COUNT(members), "%s", metrics);
	}
	cli_table_print(&table);
}

int cli_rounds(const struct cli_command *command, int argc, char **argv)
{
	struct cli_service service = CLI_SERVICE_INIT;
	uint64_t limit = 0;
	const struct trib_option table[] = {
		CLI_SERVICE_OPTIONS(service),
		{ .name = "limit",
		  .kind = TRIB_OPTION_NUMBER,
		  .target = &limit,
		  .max = 500,
		  .value_name = "N",
		  .help = "how many; 0 = as many as the service keeps" },
		{ .name = NULL },
	};
	char id[CLI_JOB_ID_SIZE];
	char path[160];
	json_t *answer = NULL;
	int rc;

	rc = cli_one_job(command, argc, argv, table, &service, id);
	if (rc != CLI_GO_ON) {
		return rc;
	}
	(void)snprintf(path, sizeof(path), "/v1/jobs/%s/rounds?limit=%llu", id,
		       (unsigned long long)(limit ? limit : 500));
	rc = cli_api(&service, "GET", path, NULL, &answer);
	if (rc == CLI_OK && strcmp(service.format, "json") == 0) {
		cli_print_json(answer);
	} else if (rc == CLI_OK) {
		print_rounds(cli_items(answer));
	}
	json_decref(answer);
	return rc;
}

/* stop and delete: one request on one job. */
static int act(const struct cli_command *command, int argc, char **argv, const char *method,
	       const char *suffix)
{
	struct cli_service service = CLI_SERVICE_INIT;
	const struct trib_option table[] = { CLI_SERVICE_OPTIONS(service), no_more[0] };
	char id[CLI_JOB_ID_SIZE];
	char path[128];
	json_t *answer = NULL;
	int rc;

	rc = cli_one_job(command, argc, argv, table, &service, id);
	if (rc != CLI_GO_ON) {
		return rc;
	}
	(void)snprintf(path, sizeof(path), "/v1/jobs/%s%s", id, suffix);
	rc = cli_api(&service, method, path, NULL, &answer);
	if (rc == CLI_OK && strcmp(service.format, "json") == 0) {
		cli_print_json(answer);
	} else if (rc == CLI_OK) {
		cli_say("job %s: %s", id, strcmp(method, "DELETE") == 0 ? "deleted" : "stopped");
	}
	json_decref(answer);
	return rc;
}

int cli_stop(const struct cli_command *command, int argc, char **argv)
{
	return act(command, argc, argv, "POST", ":stop");
}

int cli_delete(const struct cli_command *command, int argc, char **argv)
{
	return act(command, argc, argv, "DELETE", "");
}
