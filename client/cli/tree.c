/* SPDX-License-Identifier: Apache-2.0 */
#include "client/cli/tree.h"

#include <string.h>

#include "client/cli/api.h"

#define DEPTH_MAX   8 /* more is no tree of ours */
#define PREFIX_SIZE (DEPTH_MAX * 3 + 1)

static double milliseconds(const json_t *f, const char *key)
{
	return (double)trib_json_integer(f, key, 0) / 1000;
}

static void print_function(const json_t *f)
{
	long long folded = trib_json_integer(f, "folded", 0);
	long long merged = trib_json_integer(f, "merged", 0);

	(void)printf("%s %lld", trib_json_text(f, "role", "?"), trib_json_integer(f, "index", 0));
	if (trib_json_at(f, "shard")) {
		(void)printf(" shard %lld [%lld, +%lld)", trib_json_integer(f, "shard", 0),
			     trib_json_integer(f, "first", 0), trib_json_integer(f, "elements", 0));
	}
	(void)printf("  %s  holds %lld", trib_json_text(f, "state", "?"),
		     trib_json_integer(f, "updates", 0));
	if (folded) {
		(void)printf("  folded %lld in %lld passes, %.2f ms", folded,
			     trib_json_integer(f, "passes", 0), milliseconds(f, "fold_us"));
	}
	if (merged) {
		(void)printf("  merged %lld, %.2f ms", merged, milliseconds(f, "merge_us"));
	}
	(void)printf("  %lld messages, waited %.2f ms, worked %.2f ms  cpu %.2f ms\n",
		     trib_json_integer(f, "messages", 0), milliseconds(f, "queue_us"),
		     milliseconds(f, "exec_us"), milliseconds(f, "cpu_us"));
}

static void print_children(json_t *functions, long long parent, const char *prefix, int depth)
{
	size_t count = json_array_size(functions);
	size_t last = count;

	for (size_t i = 0; i < count; i++) {
		if (trib_json_integer(json_array_get(functions, i), "parent", -1) == parent) {
			last = i;
		}
	}
	for (size_t i = 0; i < count && last < count && depth < DEPTH_MAX; i++) {
		const json_t *f = json_array_get(functions, i);
		long long index = trib_json_integer(f, "index", 0);
		char below[PREFIX_SIZE];

		if (trib_json_integer(f, "parent", -1) != parent) {
			continue;
		}
		if (parent) {
			(void)printf("%s%s ", prefix, i == last ? "`-" : "|-");
		}
		print_function(f);
		(void)snprintf(below, sizeof(below), "%s%s", prefix,
			       !parent     ? ""
			       : i == last ? "   "
					   : "|  ");
		if (index > 0) {
			print_children(functions, index, below, depth + 1);
		}
	}
}

static void print_node(json_t *node)
{
	(void)printf(
		"node %s: round %lld %s, %s, %lld levels, %lld leaves, credit %lld, %lld waiting\n",
		trib_json_text(node, "node", "?"), trib_json_integer(node, "round", 0),
		trib_json_text(node, "phase", "?"), trib_json_text(node, "policy", "?"),
		trib_json_integer(node, "levels", 0), trib_json_integer(node, "leaves", 0),
		trib_json_integer(node, "credit", 0), trib_json_integer(node, "waiting", 0));
	(void)printf("  why: %s\n", trib_json_text(node, "why", "?"));
	if (trib_json_integer(node, "shards", 1) > 1) {
		(void)printf("  %lld shards of the coordinates: %s\n",
			     trib_json_integer(node, "shards", 1),
			     trib_json_text(node, "shards_why", "?"));
	}
	print_children(trib_json_at(node, "functions"), 0, "", 0);
}

int cli_tree(const struct cli_command *command, int argc, char **argv)
{
	struct cli_service service = CLI_SERVICE_INIT;
	const struct trib_option table[] = { CLI_SERVICE_OPTIONS(service), { .name = NULL } };
	char id[CLI_JOB_ID_SIZE];
	char path[128];
	json_t *tree = NULL;
	json_t *nodes;
	int rc;

	rc = cli_one_job(command, argc, argv, table, &service, id);
	if (rc != CLI_GO_ON) {
		return rc;
	}
	(void)snprintf(path, sizeof(path), "/v1/jobs/%s/tree", id);
	rc = cli_api(&service, "GET", path, NULL, &tree);
	if (rc == CLI_OK && strcmp(service.format, "json") == 0) {
		cli_print_json(tree);
	} else if (rc == CLI_OK) {
		nodes = trib_json_at(tree, "nodes");
		for (size_t i = 0; i < json_array_size(nodes); i++) {
			print_node(json_array_get(nodes, i));
		}
		if (json_array_size(nodes) == 0) {
			cli_say("no node has functions of this job");
		}
	}
	json_decref(tree);
	return rc;
}
