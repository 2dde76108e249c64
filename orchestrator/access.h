/* SPDX-License-Identifier: Apache-2.0
 * Access control of the REST API: who asks, may they, is the job one of theirs; and the audit of
 * what they changed. A job of another tenant does not exist for them (404). Loop thread only.
 */
#ifndef TRIB_ORCHESTRATOR_ACCESS_H
#define TRIB_ORCHESTRATOR_ACCESS_H

#include "orchestrator/api.h"

/* Fills r->who and checks the route's scope. False: answered 401 or 403. */
bool orc_access_identify(struct orc_request *r);
/* Must the job's tenant be looked at before the handler runs? */
bool orc_access_needs_job(const struct orc_request *r);
/* Looks at it; calls `then` if the job is there and theirs, else answers. */
void orc_access_job(struct orc_request *r, void (*then)(struct orc_request *r));
/* May they see a job of that tenant? */
bool orc_access_sees(const struct orc_request *r, const char *tenant);
/* The request is answered with `status`: a write is written down, once. */
void orc_access_audit(struct orc_request *r, int status);

/* Tenants of jobs met before: they never change. Bounded; forgets. */
struct orc_tenants;
TRIB_MUST_CHECK int orc_tenants_new(struct orc_tenants **ret_tenants);
struct orc_tenants *orc_tenants_free(struct orc_tenants *tenants);
const char *orc_tenants_find(const struct orc_tenants *tenants, const char *job); /* or NULL */
void orc_tenants_learn(struct orc_tenants *tenants, const char *job, const char *tenant);

#endif
