/* SPDX-License-Identifier: Apache-2.0 */
#include "client/cli/access.h"

#include <string.h>

#include "client/cli/api.h"
#include "client/cli/table.h"
#include "common/id.h"
#include "common/labels.h"
#include "common/operators.h"
#include "common/token.h"

#define TTL_S     2592000
#define TTL_MAX_S 31536000
#define COUNT_MAX 1000

static void print_tokens(json_t *items)
{
	for (size_t i = 0; i < json_array_size(items); i++) {
		(void)printf("%s\n", trib_json_text(json_array_get(items, i), "token", "?"));
	}
	cli_say("%zu made; they are shown this once", json_array_size(items));
}

static int issue(const struct cli_service *service, const char *job, json_t *wish)
{
	char path[160];
	char id[CLI_JOB_ID_SIZE];
	char *text = wish ? trib_json_print(wish) : NULL;
	json_t *answer = NULL;
	int rc = text ? cli_job_id(service, job, id) : CLI_FAILED;

	if (rc == CLI_OK) {
		(void)snprintf(path, sizeof(path), "/v1/jobs/%s/tokens", id);
		rc = cli_api(service, "POST", path, text, &answer);
	}
	if (rc == CLI_OK && strcmp(service->format, "json") == 0) {
		cli_print_json(answer);
	} else if (rc == CLI_OK) {
		print_tokens(cli_items(answer));
	}
	json_decref(answer);
	trib_free(text);
	return rc;
}

/* "a=1,b=2"; NULL: said what is wrong. */
static json_t *read_labels(const char *text)
{
	char canonical[TRIB_LABELS_SIZE];
	json_t *labels = trib_labels_json(text);

	if (!labels || trib_labels_read(labels, canonical)) {
		cli_say("--labels: key=value,key=value; " TRIB_LABELS_TEXT);
		json_decref(labels);
		return NULL;
	}
	return labels;
}

int cli_token(const struct cli_command *command, int argc, char **argv)
{
	struct cli_service service = CLI_SERVICE_INIT;
	const char *client = NULL;
	const char *label_text = "";
	json_t *labels;
	uint64_t ttl = TTL_S;
	uint64_t count = 1;
	const struct trib_option table[] = {
		CLI_SERVICE_OPTIONS(service),
		{ .name = "client",
		  .kind = TRIB_OPTION_TEXT,
		  .target = &client,
		  .value_name = "ID",
		  .help = "good for this client id alone" },
		{ .name = "labels",
		  .kind = TRIB_OPTION_TEXT,
		  .target = &label_text,
		  .value_name = "K=V,..",
		  .help = "labels of its clients, for selectors" },
		{ .name = "ttl-s",
		  .kind = TRIB_OPTION_NUMBER,
		  .target = &ttl,
		  .min = 1,
		  .max = TTL_MAX_S,
		  .value_name = "N",
		  .help = "seconds until they expire" },
		{ .name = "count",
		  .kind = TRIB_OPTION_NUMBER,
		  .target = &count,
		  .min = 1,
		  .max = COUNT_MAX,
		  .value_name = "N",
		  .help = "how many" },
		{ .name = NULL },
	};
	struct cli_operands rule = { .min = 1, .max = 1 };
	char **operands;
	json_t *wish;
	int rc;

	if (cli_parse(command, argc, argv, table, &rule, &operands, &rc) < 0) {
		return rc;
	}
	if (cli_service_check(&service)) {
		return CLI_USAGE;
	}
	labels = read_labels(label_text);
	if (!labels) {
		return CLI_USAGE;
	}
	wish = json_pack("{s:s*, s:I, s:I, s:o}", "client", client, "ttl_s", (json_int_t)ttl,
			 "count", (json_int_t)count, "labels", labels);
	rc = issue(&service, operands[0], wish);
	json_decref(wish);
	return rc;
}

/* All pages of the list, at most the 100,000 a job can have. */
static int all_tokens(const struct cli_service *service, const char *id, json_t *all)
{
	char path[256];
	char cursor[64] = "";

	for (int i = 0; i < 1000; i++) {
		json_t *page = NULL;
		int rc;

		(void)snprintf(path, sizeof(path), "/v1/jobs/%s/tokens?limit=500%s%s", id,
			       *cursor ? "&cursor=" : "", cursor);
		rc = cli_api(service, "GET", path, NULL, &page);
		if (rc) {
			return rc;
		}
		(void)json_array_extend(all, cli_items(page));
		rc = trib_copy(cursor, sizeof(cursor), trib_json_text(page, "next", ""));
		json_decref(page);
		if (rc || !*cursor) {
			break;
		}
	}
	return CLI_OK;
}

static void print_list(const json_t *all)
{
	static const char *const head[] = { "ID", "CLIENT", "CREATED", "EXPIRES", NULL };
	struct cli_table table;

	cli_table_init(&table, head);
	for (size_t i = 0; i < json_array_size(all); i++) {
		json_t *token = json_array_get(all, i);

		cli_table_row(&table);
		cli_table_member(&table, 0, token, "id");
		cli_table_set(&table, 1, "%s", trib_json_text(token, "client", "any"));
		cli_table_member(&table, 2, token, "created");
		cli_table_member(&table, 3, token, "expires");
	}
	cli_table_print(&table);
}

int cli_tokens(const struct cli_command *command, int argc, char **argv)
{
	struct cli_service service = CLI_SERVICE_INIT;
	const struct trib_option table[] = { CLI_SERVICE_OPTIONS(service), { .name = NULL } };
	char id[CLI_JOB_ID_SIZE];
	json_t *all;
	int rc;

	rc = cli_one_job(command, argc, argv, table, &service, id);
	if (rc != CLI_GO_ON) {
		return rc;
	}
	all = json_array();
	rc = all_tokens(&service, id, all);
	if (rc == CLI_OK && strcmp(service.format, "json") == 0) {
		cli_print_json(all);
	} else if (rc == CLI_OK) {
		print_list(all);
	}
	json_decref(all);
	return rc;
}

int cli_revoke(const struct cli_command *command, int argc, char **argv)
{
	struct cli_service service = CLI_SERVICE_INIT;
	const struct trib_option table[] = { CLI_SERVICE_OPTIONS(service), { .name = NULL } };
	struct cli_operands rule = { .min = 2, .max = 2 };
	char id[CLI_JOB_ID_SIZE];
	char path[160];
	char **operands;
	int rc;

	if (cli_parse(command, argc, argv, table, &rule, &operands, &rc) < 0) {
		return rc;
	}
	if (cli_service_check(&service)) {
		return CLI_USAGE;
	}
	if (strlen(operands[1]) != 12 || strspn(operands[1], "0123456789abcdef") != 12) {
		cli_say("'%s' is no token's id (tributary tokens %s)", operands[1], operands[0]);
		return CLI_USAGE;
	}
	rc = cli_job_id(&service, operands[0], id);
	if (rc == CLI_OK) {
		(void)snprintf(path, sizeof(path), "/v1/jobs/%s/tokens/%s", id, operands[1]);
		rc = cli_api(&service, "DELETE", path, NULL, NULL);
	}
	return rc;
}

/* "a b" -> ["a", "b"]; NULL (said so) when one is no scope. */
static json_t *read_scopes(const char *text)
{
	json_t *list = json_array();

	while (*text) {
		size_t size = strcspn(text, " ,");

		if (size && !trib_scope_parse(text, size)) {
			cli_say("--scopes: of jobs:read jobs:write jobs:admin ops:read ops:admin");
			json_decref(list);
			return NULL;
		}
		if (size) {
			(void)json_array_append_new(list, json_stringn(text, size));
		}
		text += size;
		text += strspn(text, " ,");
	}
	return list;
}

int cli_operator(const struct cli_command *command, int argc, char **argv)
{
	const char *tenant = TRIB_TENANT_DEFAULT;
	const char *scopes = "jobs:read";
	const struct trib_option table[] = {
		{ .name = "tenant",
		  .kind = TRIB_OPTION_TEXT,
		  .target = &tenant,
		  .value_name = "NAME",
		  .help = "whose jobs" },
		{ .name = "scopes",
		  .kind = TRIB_OPTION_TEXT,
		  .target = &scopes,
		  .value_name = "\"A B\"",
		  .help = "what is allowed" },
		{ .name = NULL },
	};
	struct cli_operands rule = { .min = 1, .max = 1 };
	char key[TRIB_TOKEN_TEXT_SIZE];
	char hash[TRIB_SHA256_TEXT_SIZE];
	char **operands;
	json_t *list;
	json_t *row;
	int rc;

	if (cli_parse(command, argc, argv, table, &rule, &operands, &rc) < 0) {
		return rc;
	}
	if (!trib_client_id_valid(operands[0]) || !trib_name_valid(tenant)) {
		cli_say("the name is 1 to 64 of A-Z a-z 0-9 . _ : -, the tenant of a-z 0-9 -");
		return CLI_USAGE;
	}
	list = read_scopes(scopes);
	if (!list) {
		return CLI_USAGE;
	}
	if (trib_token_make(TRIB_TOKEN_OPERATOR, key) || trib_sha256(key, strlen(key), hash)) {
		json_decref(list);
		cli_say("no key could be made");
		return CLI_FAILED;
	}
	row = json_pack("{s:s, s:s, s:o, s:s}", "name", operands[0], "tenant", tenant, "scopes",
			list, "sha256", hash);
	(void)json_dumpf(row, stdout, 0);
	(void)printf("\n");
	json_decref(row);
	cli_say("the key, shown this once: %s", key);
	return CLI_OK;
}
