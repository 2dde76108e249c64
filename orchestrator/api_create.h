/* SPDX-License-Identifier: Apache-2.0
 * POST /v1/jobs and POST /v1/jobs:validate.
 *
 * With an Idempotency-Key a job is made exactly once, whoever dies in between:
 *   idem_begin NEW -> the id is chosen and written down ("P <id>") -> job_create -> the answer is
 *   written down ("<status> <id>\n<body>") -> answered.
 * A repeat finds the answer and gives it again, or finds the id and goes on from there
 * (job_create says EXISTS), or finds that the first request has just begun: 409.
 */
#ifndef TRIB_ORCHESTRATOR_API_CREATE_H
#define TRIB_ORCHESTRATOR_API_CREATE_H

#include "orchestrator/api.h"

void orc_create_body(struct orc_request *r, const char *body, size_t size);
void orc_validate_body(struct orc_request *r, const char *body, size_t size);

#endif
