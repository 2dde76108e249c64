/* SPDX-License-Identifier: Apache-2.0 */
#include "client/cli/tenants.h"

#include <string.h>

#include "client/cli/api.h"
#include "client/cli/table.h"

static void print_tenants(const json_t *items)
{
	static const char *const head[] = { "TENANT", "JOBS", "CLIENTS", "SLOTS", "BYTES", NULL };
	struct cli_table table;
	char path[32];

	cli_table_init(&table, head);
	for (size_t i = 0; i < json_array_size(items); i++) {
		const json_t *item = json_array_get(items, i);

		cli_table_row(&table);
		cli_table_member(&table, 0, json_array_get(items, i), "tenant");
		for (size_t column = 1; head[column]; column++) {
			static const char *const names[] = { "", "jobs", "clients", "slots",
							     "bytes" };
			long long limit;

			(void)snprintf(path, sizeof(path), "quotas.%s", names[column]);
			limit = trib_json_integer(item, path, 0);
			(void)snprintf(path, sizeof(path), "use.%s", names[column]);
			if (limit) {
				cli_table_set(&table, (unsigned)column, "%lld/%lld",
					      trib_json_integer(item, path, 0), limit);
			} else {
				cli_table_set(&table, (unsigned)column, "%lld",
					      trib_json_integer(item, path, 0));
			}
		}
	}
	cli_table_print(&table);
}

int cli_tenants(const struct cli_command *command, int argc, char **argv)
{
	struct cli_service service = CLI_SERVICE_INIT;
	const struct trib_option table[] = { CLI_SERVICE_OPTIONS(service), { .name = NULL } };
	struct cli_operands rule = { .min = 0, .max = 0 };
	char **operands;
	json_t *answer = NULL;
	int rc;

	if (cli_parse(command, argc, argv, table, &rule, &operands, &rc) < 0) {
		return rc;
	}
	if (cli_service_check(&service)) {
		return CLI_USAGE;
	}
	rc = cli_api(&service, "GET", "/v1/tenants", NULL, &answer);
	if (rc == CLI_OK && strcmp(service.format, "json") == 0) {
		cli_print_json(cli_items(answer));
	} else if (rc == CLI_OK) {
		print_tenants(cli_items(answer));
	}
	json_decref(answer);
	return rc;
}
