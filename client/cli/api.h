/* SPDX-License-Identifier: Apache-2.0
 * The orchestrator's REST interface as the sub-commands need it: JSON in, JSON out, refusals told
 * on stderr with the problem's detail (RFC 9457) and turned into exit codes. Single thread.
 */
#ifndef TRIB_CLIENT_CLI_API_H
#define TRIB_CLIENT_CLI_API_H

#include "client/cli/cli.h"
#include "common/http_client.h"
#include "common/json.h"

#define CLI_JOB_ID_SIZE 64

/* method on api + path; body may be NULL. CLI_OK and *ret_json (owned, NULL on an empty answer),
 * else the exit code, told on stderr. ret_json may be NULL. */
int cli_api(const struct cli_service *service, const char *method, const char *path,
	    const char *body, json_t **ret_json);
/* The same without telling a failure to reach the service or a 5xx (for loops that try again). */
int cli_api_quiet(const struct cli_service *service, const char *method, const char *path,
		  json_t **ret_json);
/* Tells why on stderr; the exit code that fits. `what` = method and path, for the message. */
int cli_api_told(const struct cli_service *service, const char *what, int rc,
		 const struct trib_client_answer *answer);

/* id or unique name -> id. CLI_OK or exit code (told). */
int cli_job_id(const struct cli_service *service, const char *job, char out[CLI_JOB_ID_SIZE]);
/* The beginning of commands whose one operand is a job: options, service, the job's id. CLI_GO_ON,
 * or what to leave with (said so). */
#define CLI_GO_ON (-1)
int cli_one_job(const struct cli_command *command, int argc, char **argv,
		const struct trib_option *table, struct cli_service *service,
		char id[CLI_JOB_ID_SIZE]);
/* All jobs, all pages (at most 50000), as one owned array. CLI_OK or exit code (told). */
int cli_job_list(const struct cli_service *service, json_t **ret_array);
/* The array in a list answer, whatever its member is called. Borrowed, NULL if there is none. */
json_t *cli_items(json_t *answer);

/* Succeeded, Failed, Stopped. */
bool cli_job_over(const json_t *job);
/* What `watch` ends with: CLI_OK for Succeeded and Stopped, CLI_FAILED for Failed. */
int cli_job_verdict(const json_t *job);
void cli_print_json(const json_t *json);

#endif
