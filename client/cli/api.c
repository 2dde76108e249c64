/* SPDX-License-Identifier: Apache-2.0 */
#include "client/cli/api.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/crypto.h"
#include "common/id.h"

#define PAGES_MAX       100
#define LEADER_MS       10000 /* a standby leads after 4 s at the latest */
#define LEADER_PAUSE_NS 500000000
#define PAGE            200 /* answers are parsed up to 1 MiB */

static void tell_problem(const struct cli_service *service, const char *what,
			 const struct trib_client_answer *answer)
{
	char reason[160];
	json_t *problem = NULL;
	const char *detail;
	json_t *errors;

	(void)service;
	if (trib_json_parse(answer->body, answer->size, &problem, reason) ||
	    !json_is_object(problem)) {
		cli_say("%s: answered %ld without saying why", what, answer->status);
		json_decref(problem);
		return;
	}
	detail = trib_json_text(problem, "detail", NULL);
	cli_say("%s: %s%s%s (%s, %ld)", what, trib_json_text(problem, "title", "refused"),
		detail ? ": " : "", detail ? detail : "", trib_json_text(problem, "code", "-"),
		answer->status);
	errors = trib_json_at(problem, "errors");
	for (size_t i = 0; i < json_array_size(errors) && i < 32; i++) {
		const json_t *e = json_array_get(errors, i);

		(void)fprintf(stderr, "  %s: %s\n", trib_json_text(e, "pointer", "?"),
			      trib_json_text(e, "detail", "?"));
	}
	json_decref(problem);
}

int cli_api_told(const struct cli_service *service, const char *what, int rc,
		 const struct trib_client_answer *answer)
{
	if (rc == -EHOSTUNREACH) {
		cli_say("%s: no answer from %s: %s", what, service->api, answer->error);
		return CLI_UNREACHABLE;
	}
	if (answer->status < 300) {
		return CLI_OK;
	}
	if (answer->status < 400 && answer->location[0]) {
		cli_say("%s: sent on to %s, another host: not followed (--hosts names hosts that "
			"may "
			"be)",
			what, answer->location);
		return CLI_REFUSED;
	}
	tell_problem(service, what, answer);
	return answer->status >= 500 ? CLI_SERVER : CLI_REFUSED;
}

/* A standby says who leads, when that is known. Nothing was done: it is asked there when that is a
 * host we may tell what we say here, else here again until there is a leader. */
static int send_to_leader(struct trib_client_request *request, struct trib_client_answer *answer)
{
	const char *first = request->url;
	char leader[sizeof(answer->location)];
	uint64_t end = trib_clock_ms() + LEADER_MS;
	int rc;

	for (;;) {
		rc = trib_client_request(request, answer);
		if (trib_clock_ms() >= end ||
		    (rc == 0 ? answer->status != 503 || !strstr(answer->body, "\"not-leader\"")
			     : request->url == first)) {
			return rc;
		}
		memcpy(leader, rc ? "" : answer->location, rc ? 1 : sizeof(leader));
		if (request->url == first && trib_client_may_follow(first, leader)) {
			request->url = leader;
		} else {
			request->url = first; /* not to be asked, leads no more, or is gone */
			(void)nanosleep(&(struct timespec){ .tv_nsec = LEADER_PAUSE_NS }, NULL);
		}
		trib_client_answer_fini(answer);
	}
}

static int call(const struct cli_service *service, const char *method, const char *path,
		const char *body, struct trib_client_answer *answer)
{
	char url[2048];
	char key[64];
	char id[TRIB_ID_TEXT_SIZE];
	struct trib_client_request request = { .method = method,
					       .url = url,
					       .token = service->token,
					       .body = body,
					       .size = body ? strlen(body) : 0,
					       .headers = { "Accept: application/json" } };

	(void)snprintf(url, sizeof(url), "%s%s", service->api, path);
	*answer = (struct trib_client_answer){ 0 };
	if (strcmp(method, "POST") == 0) {
		struct trib_id fresh = trib_id_make();

		trib_id_print("", &fresh, id);
		(void)snprintf(key, sizeof(key), "Idempotency-Key: %s", id);
		request.headers[1] = key;
		request.headers[2] = "Content-Type: application/json";
		if (!body) {
			request.body = "";
		}
	}
	if (strcmp(method, "PATCH") == 0) {
		request.headers[1] = "Content-Type: application/merge-patch+json";
		request.headers[2] = "If-Match: *";
	}
	return send_to_leader(&request, answer);
}

static int parse(const struct trib_client_answer *answer, json_t **ret_json)
{
	char reason[160];

	*ret_json = NULL;
	if (answer->size == 0) {
		return 0;
	}
	if (trib_json_parse(answer->body, answer->size, ret_json, reason)) {
		cli_say("the answer is not JSON: %s", reason);
		return -EBADMSG;
	}
	return 0;
}

int cli_api(const struct cli_service *service, const char *method, const char *path,
	    const char *body, json_t **ret_json)
{
	struct trib_client_answer answer;
	json_t *json = NULL;
	char what[300];
	int rc = call(service, method, path, body, &answer);

	(void)snprintf(what, sizeof(what), "%s %s", method, path);
	rc = cli_api_told(service, what, rc, &answer);
	if (rc == CLI_OK && parse(&answer, &json)) {
		rc = CLI_SERVER;
	}
	trib_client_answer_fini(&answer);
	if (rc == CLI_OK && ret_json) {
		*ret_json = json;
	} else {
		json_decref(json);
	}
	return rc;
}

int cli_api_quiet(const struct cli_service *service, const char *method, const char *path,
		  json_t **ret_json)
{
	struct trib_client_answer answer;
	int rc = call(service, method, path, NULL, &answer);

	if (rc || answer.status >= 500) {
		rc = rc ? CLI_UNREACHABLE : CLI_SERVER;
	} else if (answer.status >= 300) {
		rc = cli_api_told(service, path, 0, &answer);
	} else {
		rc = parse(&answer, ret_json) ? CLI_SERVER : CLI_OK;
	}
	trib_client_answer_fini(&answer);
	return rc;
}

json_t *cli_items(json_t *answer)
{
	static const char *const names[] = { "items", "jobs", "rounds", "models", "updates" };

	if (json_is_array(answer)) {
		return answer;
	}
	for (size_t i = 0; i < TRIB_COUNT(names); i++) {
		json_t *items = json_object_get(answer, names[i]);

		if (json_is_array(items)) {
			return items;
		}
	}
	return NULL;
}

static const char *next_cursor(const json_t *page)
{
	static const char *const names[] = { "next_cursor", "cursor", "next", "metadata.continue" };

	for (size_t i = 0; i < TRIB_COUNT(names); i++) {
		const char *cursor = trib_json_text(page, names[i], NULL);

		if (cursor && *cursor) {
			return cursor;
		}
	}
	return NULL;
}

int cli_job_list(const struct cli_service *service, json_t **ret_array)
{
	json_t *all = json_array();
	char path[512];
	char cursor[256] = "";

	for (int i = 0; i < PAGES_MAX; i++) {
		json_t *page = NULL;
		const char *next;
		int rc;

		(void)snprintf(path, sizeof(path), "/v1/jobs?limit=%d%s%s", PAGE,
			       *cursor ? "&cursor=" : "", cursor);
		rc = cli_api(service, "GET", path, NULL, &page);
		if (rc) {
			json_decref(all);
			return rc;
		}
		(void)json_array_extend(all, cli_items(page));
		next = next_cursor(page);
		rc = next ? trib_copy(cursor, sizeof(cursor), next) : -ENOENT;
		json_decref(page);
		if (rc) {
			break;
		}
	}
	*ret_array = all;
	return CLI_OK;
}

int cli_job_id(const struct cli_service *service, const char *job, char out[CLI_JOB_ID_SIZE])
{
	json_t *jobs = NULL;
	size_t found = 0;
	int rc;

	for (const char *c = job; *c; c++) {
		if (!strchr("abcdefghijklmnopqrstuvwxyz0123456789_-", *c)) {
			cli_say("'%s' is neither a job's id nor a name", job);
			return CLI_USAGE;
		}
	}
	if (strncmp(job, "job_", 4) == 0) {
		return trib_copy(out, CLI_JOB_ID_SIZE, job) ? CLI_USAGE : CLI_OK;
	}
	rc = cli_job_list(service, &jobs);
	if (rc) {
		return rc;
	}
	for (size_t i = 0; i < json_array_size(jobs); i++) {
		const json_t *one = json_array_get(jobs, i);

		if (strcmp(trib_json_text(one, "metadata.name", ""), job) == 0 &&
		    !trib_copy(out, CLI_JOB_ID_SIZE, trib_json_text(one, "metadata.id", ""))) {
			found++;
		}
	}
	json_decref(jobs);
	if (found == 1) {
		return CLI_OK;
	}
	if (found) {
		cli_say("%zu jobs are called '%s': use the id (tributary get)", found, job);
	} else {
		cli_say("no job is called '%s'", job);
	}
	return CLI_REFUSED;
}

int cli_one_job(const struct cli_command *command, int argc, char **argv,
		const struct trib_option *table, struct cli_service *service,
		char id[CLI_JOB_ID_SIZE])
{
	struct cli_operands rule = { .min = 1, .max = 1 };
	char **operands;
	int rc;

	if (cli_parse(command, argc, argv, table, &rule, &operands, &rc) < 0) {
		return rc;
	}
	if (cli_service_check(service)) {
		return CLI_USAGE;
	}
	rc = cli_job_id(service, operands[0], id);
	return rc == CLI_OK ? CLI_GO_ON : rc;
}

bool cli_job_over(const json_t *job)
{
	const char *phase = trib_json_text(job, "status.phase", "");

	return strcmp(phase, "Succeeded") == 0 || strcmp(phase, "Failed") == 0 ||
	       strcmp(phase, "Stopped") == 0;
}

int cli_job_verdict(const json_t *job)
{
	return strcmp(trib_json_text(job, "status.phase", ""), "Failed") == 0 ? CLI_FAILED : CLI_OK;
}

void cli_print_json(const json_t *json)
{
	if (json) {
		(void)json_dumpf(json, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY);
		(void)fputc('\n', stdout);
	}
}
