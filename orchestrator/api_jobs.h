/* SPDX-License-Identifier: Apache-2.0
 * Handlers of /v1/jobs and the jobs below it. Creation (with its Idempotency-Key) is in
 * api_create.c.
 */
#ifndef TRIB_ORCHESTRATOR_API_JOBS_H
#define TRIB_ORCHESTRATOR_API_JOBS_H

#include "orchestrator/api.h"

/* The job as the API shows it; NULL when out of memory. */
json_t *orc_job_json(const struct orc_app *app, const struct orc_view *view);

void orc_jobs_list(struct orc_request *r);
void orc_jobs_get(struct orc_request *r);
void orc_jobs_delete(struct orc_request *r);
void orc_jobs_pause(struct orc_request *r);
void orc_jobs_resume(struct orc_request *r);
void orc_jobs_stop(struct orc_request *r);
void orc_jobs_drain(struct orc_request *r);

#endif
