/* SPDX-License-Identifier: Apache-2.0 */
#include "client/cli/drain_node.h"

#include <poll.h>
#include <string.h>

#include "client/cli/api.h"
#include "common/clock.h"
#include "common/id.h"

#define LOOK_MS 200

struct drain {
	struct cli_service service;
	const char *agent; /* URL of its agent's admin port; "" = through the service */
	const char *node;
	uint64_t wait_s;
	uint64_t linger_s;
	bool undo;
};

/* One request to the agent's /drain, which is at a URL or "unix:PATH". */
static int ask_agent(const struct drain *d, const char *method, json_t **ret_json)
{
	bool local = strncmp(d->agent, "unix:", 5) == 0;
	char url[512];
	struct trib_client_request request = {
		.method = method,
		.url = url,
		.unix_socket = local ? d->agent + 5 : NULL,
		.timeout_ms = 5000,
	};
	struct trib_client_answer answer;
	char reason[160];
	int rc;

	(void)snprintf(url, sizeof(url), "%s/drain", local ? "http://agent" : d->agent);
	rc = trib_client_request(&request, &answer);
	if (rc || answer.status / 100 != 2) {
		rc = cli_api_told(&d->service, "agent /drain", rc, &answer);
	} else {
		rc = trib_json_parse(answer.body, answer.size, ret_json, reason) ? CLI_SERVER
										 : CLI_OK;
	}
	trib_client_answer_fini(&answer);
	return rc;
}

static int look_at_agent(const struct drain *d, char word[16])
{
	json_t *answer = NULL;
	int rc = ask_agent(d, "GET", &answer);

	if (rc == CLI_OK && trib_json_text(answer, "why", "")[0]) {
		cli_say("not drained: %s", trib_json_text(answer, "why", ""));
		rc = CLI_REFUSED;
	}
	(void)snprintf(word, 16, "%.15s", rc ? "" : trib_json_text(answer, "drain", ""));
	json_decref(answer);
	return rc;
}

/* up, draining, drained, lost; "gone" when the service does not know the node any more. */
static int look(const struct drain *d, char word[16])
{
	json_t *answer = NULL;
	json_t *items;
	int rc = cli_api_quiet(&d->service, "GET", "/v1/nodes", &answer);

	items = rc ? NULL : cli_items(answer);
	(void)snprintf(word, 16, "%s", rc ? "" : "gone");
	for (size_t i = 0; i < json_array_size(items); i++) {
		const json_t *node = json_array_get(items, i);

		if (strcmp(trib_json_text(node, "name", ""), d->node) == 0) {
			(void)snprintf(word, 16, "%.15s", trib_json_text(node, "state", ""));
		}
	}
	json_decref(answer);
	return rc;
}

static int wait_for(const struct drain *d)
{
	uint64_t end = trib_clock_ms() + d->wait_s * 1000;
	char word[16] = "";
	int rc;

	for (;;) {
		rc = d->agent[0] ? look_at_agent(d, word) : look(d, word);
		if (rc == CLI_REFUSED ||
		    (rc == CLI_OK && (strcmp(word, "drained") == 0 || strcmp(word, "gone") == 0))) {
			return rc;
		}
		if (rc == CLI_OK && strcmp(word, "lost") == 0) {
			cli_say("the node is lost: it was not drained");
			return CLI_FAILED;
		}
		if (trib_clock_ms() >= end) {
			cli_say("not drained within %llu s (%s)", (unsigned long long)d->wait_s,
				rc ? "no answer" : word);
			return CLI_FAILED;
		}
		(void)poll(NULL, 0, LOOK_MS);
	}
}

static int run(struct drain *d)
{
	json_t *answer = NULL;
	char path[128];
	int rc = cli_service_check(&d->service) ? CLI_USAGE : CLI_OK;

	(void)snprintf(path, sizeof(path), "/v1/nodes/%s:%s", d->node,
		       d->undo ? "undrain" : "drain");
	if (rc == CLI_OK) {
		rc = d->agent[0] ? ask_agent(d, "POST", &answer)
				 : cli_api(&d->service, "POST", path, NULL, NULL);
	}
	json_decref(answer);
	if (rc || d->undo || !d->wait_s) {
		return rc;
	}
	rc = wait_for(d);
	if (!rc) {
		cli_say("drained");
	}
	return rc;
}

int cli_drain_node(const struct cli_command *command, int argc, char **argv)
{
	struct drain d = { .service = CLI_SERVICE_INIT, .agent = "", .wait_s = 300 };
	const struct trib_option table[] = {
		CLI_SERVICE_OPTIONS(d.service),
		{ "agent", TRIB_OPTION_TEXT, &d.agent, 0, 0, "URL",
		  "of this node's agent (its admin address: http://.. or unix:PATH), instead of "
		  "NODE" },
		{ "wait", TRIB_OPTION_NUMBER, &d.wait_s, 0, 86400, "S",
		  "until it is drained, so long at most; 0 = do not wait" },
		{ "linger", TRIB_OPTION_NUMBER, &d.linger_s, 0, 3600, "S",
		  "return after so long at the earliest" },
		{ .name = "undo",
		  .kind = TRIB_OPTION_FLAG,
		  .target = &d.undo,
		  .help = "the node stays after all" },
		{ .name = NULL },
	};
	struct cli_operands rule = { .min = 0, .max = 1 };
	uint64_t began = trib_clock_ms();
	char **operands;
	int count;
	int rc;

	count = cli_parse(command, argc, argv, table, &rule, &operands, &rc);
	if (count < 0) {
		return rc;
	}
	if ((count == 1) == (d.agent[0] != '\0') || (d.agent[0] && d.undo) ||
	    (count && !trib_name_valid(operands[0]))) {
		cli_say("either NODE or --agent URL");
		return CLI_USAGE;
	}
	d.node = count ? operands[0] : "";
	rc = run(&d);
	while (trib_clock_ms() < began + d.linger_s * 1000) {
		(void)poll(NULL, 0, LOOK_MS);
	}
	return rc;
}
