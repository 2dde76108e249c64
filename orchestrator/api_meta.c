/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/api_meta.h"

#include <stdio.h>
#include <string.h>

#include "common/version.h"
#include "orchestrator/spec.h"

void orc_meta_root(struct orc_request *r)
{
	orc_reply_text(r, 200, "text/plain; charset=utf-8",
		       "Tributary " TRIB_VERSION " orchestrator\n"
		       "API description: /v1/openapi.json\n"
		       "Jobs: /v1/jobs   Nodes: /v1/nodes   Events: /v1/events\n");
}

void orc_meta_version(struct orc_request *r)
{
	orc_reply_json(r, 200,
		       json_pack("{s:s, s:s, s:s}", "version", TRIB_VERSION, "program",
				 "orchestrator", "apiVersion", ORC_API_VERSION),
		       false);
}

void orc_meta_openapi(struct orc_request *r)
{
	orc_reply_text(r, 200, "application/json", r->app->openapi);
}

static void on_nodes(enum orc_word word, json_t *nodes, void *arg)
{
	struct orc_request *r = arg;

	if (!orc_request_failed(r, word)) {
		orc_reply_list(r, json_incref(nodes), "");
	}
	orc_request_release(r);
}

void orc_meta_nodes(struct orc_request *r)
{
	orc_request_hold(r);
	orc_request_sent(r, orc_store_nodes(r->app->store, on_nodes, r));
}

/* ---- OpenAPI ---- */

static json_t *parameter(const char *name, const char *in, const char *type)
{
	return json_pack("{s:s, s:s, s:b, s:{s:s}}", "name", name, "in", in, "required",
			 strcmp(in, "path") == 0, "schema", "type", type);
}

static json_t *parameters_of(const struct orc_route *route)
{
	json_t *list = json_array();

	for (const char *open = strchr(route->pattern, '{'); open; open = strchr(open + 1, '{')) {
		char name[32];

		(void)snprintf(name, sizeof(name), "%.*s", (int)strcspn(open + 1, "}"), open + 1);
		(void)json_array_append_new(
			list,
			parameter(name, "path", strcmp(name, "round") == 0 ? "integer" : "string"));
	}
	if (route->flags & ORC_ROUTE_LIST) {
		(void)json_array_append_new(list, parameter("limit", "query", "integer"));
		(void)json_array_append_new(list, parameter("cursor", "query", "string"));
	}
	if (strcmp(route->name, "listJobs") == 0) {
		(void)json_array_append_new(list, parameter("state", "query", "string"));
	}
	if (strcmp(route->name, "deleteJob") == 0 || strcmp(route->name, "closeRound") == 0) {
		(void)json_array_append_new(list, parameter("force", "query", "boolean"));
	}
	if (strcmp(route->name, "deleteJob") == 0) {
		(void)json_array_append_new(list, parameter("purge", "query", "boolean"));
	}
	if (route->method == TRIB_HTTP_PATCH) {
		(void)json_array_append_new(list, json_pack("{s:s, s:s, s:b, s:{s:s}}", "name",
							    "If-Match", "in", "header", "required",
							    1, "schema", "type", "string"));
	}
	if (strcmp(route->name, "createJob") == 0) {
		(void)json_array_append_new(list, parameter("Idempotency-Key", "header", "string"));
	}
	if (route->answer && strcmp(route->answer, "Events") == 0) {
		(void)json_array_append_new(list, parameter("Last-Event-ID", "header", "string"));
	}
	return list;
}

static json_t *reference(const char *name)
{
	char text[80];

	(void)snprintf(text, sizeof(text), "#/components/schemas/%s", name);
	return json_pack("{s:s}", "$ref", text);
}

static json_t *responses_of(const struct orc_route *route)
{
	json_t *success = json_pack("{s:s}", "description", route->summary);
	char status[8];

	(void)snprintf(status, sizeof(status), "%d", route->status);
	if (route->answer && strcmp(route->answer, "Events") == 0) {
		(void)json_object_set_new(success, "content",
					  json_pack("{s:{s:{s:s}}}", "text/event-stream", "schema",
						    "type", "string"));
	} else if (route->answer) {
		(void)json_object_set_new(success, "content",
					  json_pack("{s:{s:o}}", "application/json", "schema",
						    reference(route->answer)));
	}
	return json_pack("{s:o, s:{s:s, s:{s:{s:o}}}}", status, success, "default", "description",
			 "Problem (RFC 9457)", "content", "application/problem+json", "schema",
			 reference("Problem"));
}

static json_t *operation(const struct orc_route *route)
{
	json_t *made = json_pack("{s:s, s:s, s:o, s:o}", "operationId", route->name, "summary",
				 route->summary, "parameters", parameters_of(route), "responses",
				 responses_of(route));

	if (made && (route->flags & ORC_ROUTE_BODY)) {
		bool tokens = strcmp(route->name, "issueTokens") == 0;
		bool patch = route->method == TRIB_HTTP_PATCH;
		bool job = !tokens && strcmp(route->name, "closeRound") != 0;
		const char *schema = tokens  ? "TokenRequest"
				     : patch ? "Any"
				     : job   ? "JobRequest"
					     : "Close";

		(void)json_object_set_new(
			made, "requestBody",
			json_pack("{s:b, s:{s:{s:o}}}", "required", job, "content",
				  patch ? "application/merge-patch+json" : "application/json",
				  "schema", reference(schema)));
	}
	if (made && route->scope != ORC_SCOPE_NONE) {
		(void)json_object_set_new(
			made, "security",
			json_pack("[{s:[s]}]", "operator",
				  trib_scope_text((enum trib_scope)route->scope)));
	}
	return made;
}

static json_t *list_schema(const char *item)
{
	return json_pack("{s:s, s:{s:{s:s, s:o}, s:{s:[s,s]}}}", "type", "object", "properties",
			 "items", "type", "array", "items", reference(item), "next", "type",
			 "string", "null");
}

/* "name:type ..", type one of s(tring) i(nteger) n(umber) o(bject) t(ime, may be null). */
static json_t *plain_schema(const char *fields)
{
	json_t *properties = json_object();

	while (*fields) {
		size_t size = strcspn(fields, ":");
		json_t *type = NULL;

		switch (fields[size + 1]) {
		case 's':
			type = json_pack("{s:s}", "type", "string");
			break;
		case 'i':
			type = json_pack("{s:[s,s]}", "type", "integer", "null");
			break;
		case 'n':
			type = json_pack("{s:s}", "type", "number");
			break;
		case 't':
			type = json_pack("{s:[s,s], s:s}", "type", "string", "null", "format",
					 "date-time");
			break;
		default:
			type = json_pack("{s:s}", "type", "object");
			break;
		}
		(void)json_object_setn_new(properties, fields, size, type);
		fields += size + 2;
		fields += strspn(fields, " ");
	}
	return json_pack("{s:s, s:o}", "type", "object", "properties", properties);
}

static json_t *schemas(void)
{
	static const struct {
		const char *name;
		const char *fields;
	} plain[] = {
		{ "Any", "" },
		{ "Version", "version:s program:s apiVersion:s" },
		{ "Validation", "spec:o warnings:o" },
		{ "Job", "apiVersion:s kind:s metadata:o spec:o status:o" },
		{ "Round", "round:i state:s base_version:i version:i goal:i quorum:i "
			   "selected_max:i selected:i accepted:i inflight:i stragglers:i late:i "
			   "lost:i expired:i quarantined:o partial:i extended:i weight_sum:n "
			   "opened:t deadline:t closed:t "
			   "published:t "
			   "why:s digest:s metrics:o timings:o" },
		{ "Update", "update:s job:s round:i client:s state:s digest:s weight:n bytes:i "
			    "accepted_at:t lease_ends:t place:s" },
		{ "Model", "version:i digest:s etag:s data_bytes:i round:i metrics:o url:s "
			   "created:t" },
		{ "Node", "name:s state:s" },
		{ "Issued", "id:s token:s client:s expires:t labels:o" },
		{ "Token", "id:s client:s scope:s created:t expires:t labels:o" },
		{ "TokenRequest", "client:s ttl_s:i count:i labels:o" },
		{ "Tenant", "tenant:s quotas:o use:o" },
		{ "Audit", "id:s at:t program:s who:s tenant:s method:s path:s status:i trace:s "
			   "peer:s" },
		{ "Problem", "type:s title:s status:i code:s detail:s retry_after:n" },
	};
	static const char *const lists[] = { "Job",    "Round", "Update", "Model", "Node",
					     "Issued", "Token", "Audit",  "Tenant" };
	json_t *all = json_object();
	char name[32];

	for (size_t i = 0; i < TRIB_COUNT(plain); i++) {
		(void)json_object_set_new(all, plain[i].name, plain_schema(plain[i].fields));
	}
	for (size_t i = 0; i < TRIB_COUNT(lists); i++) {
		(void)snprintf(name, sizeof(name), "%sList", lists[i]);
		(void)json_object_set_new(all, name, list_schema(lists[i]));
	}
	(void)json_object_set_new(all, "Close",
				  json_pack("{s:s, s:{s:{s:s}}}", "type", "object", "properties",
					    "force", "type", "boolean"));
	(void)json_object_set_new(
		all, "TreeNode",
		plain_schema("node:s at_ms:i round:i phase:s policy:s levels:i leaves:i middles:i "
			     "fan_in:i credit:i q:n waiting:i fold_us:n merge_us:n hop_us:n why:s "
			     "shards:i shards_why:s"));
	(void)json_object_set_new(
		json_object_get(json_object_get(all, "TreeNode"), "properties"), "functions",
		json_pack("{s:s, s:o}", "type", "array", "items",
			  plain_schema("index:i role:s parent:i state:s pid:i outstanding:i "
				       "updates:i messages:i bytes:i queue_us:i exec_us:i folded:i "
				       "passes:i "
				       "fold_us:i merged:i merge_us:i cpu_us:i crashes:i "
				       "shard:i first:i elements:i")));
	(void)json_object_set_new(all, "Tree",
				  json_pack("{s:s, s:{s:{s:s}, s:{s:s, s:o}}}", "type", "object",
					    "properties", "job", "type", "string", "nodes", "type",
					    "array", "items", reference("TreeNode")));
	(void)json_object_set_new(all, "JobRequest", orc_spec_schema());
	return all;
}

char *orc_openapi_print(void)
{
	static const char *const methods[] = {
		[TRIB_HTTP_GET] = "get",         [TRIB_HTTP_HEAD] = "head",
		[TRIB_HTTP_POST] = "post",       [TRIB_HTTP_PUT] = "put",
		[TRIB_HTTP_PATCH] = "patch",     [TRIB_HTTP_DELETE] = "delete",
		[TRIB_HTTP_OPTIONS] = "options",
	};
	json_t *paths = json_object();
	json_t *document;
	char *text;

	for (size_t i = 0; i < orc_route_count; i++) {
		const struct orc_route *route = &orc_routes[i];

		if (!json_object_get(paths, route->pattern)) {
			(void)json_object_set_new(paths, route->pattern, json_object());
		}
		(void)json_object_set_new(json_object_get(paths, route->pattern),
					  methods[route->method], operation(route));
	}
	document = json_pack("{s:s, s:{s:s, s:s, s:s}, s:o, s:{s:o, s:{s:{s:s, s:s}}}}", "openapi",
			     "3.1.0", "info", "title", "Tributary", "version", TRIB_VERSION,
			     "description",
			     "Control plane of a federated-learning aggregation platform", "paths",
			     paths, "components", "schemas", schemas(), "securitySchemes",
			     "operator", "type", "http", "scheme", "bearer");
	text = document ? trib_json_print(document) : NULL;
	json_decref(document);
	return text;
}
