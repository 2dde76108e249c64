/* SPDX-License-Identifier: Apache-2.0
 * Quotas of tenants (--quotas FILE): read here, enforced in Redis (functions/19_quota.lua), where
 * the leader puts them when it begins to lead and when the file changes. Loop thread only.
 *
 *   {"default": {"jobs": 20, "clients": 5000, "slots": 200, "bytes": 2147483648},
 *    "tenants": {"acme": {"jobs": 100}}}
 */
#ifndef TRIB_ORCHESTRATOR_QUOTAS_H
#define TRIB_ORCHESTRATOR_QUOTAS_H

#include "common/json.h"

#define ORC_QUOTA_TENANTS_MAX 1024
#define ORC_QUOTA_MAX         9007199254740991ull

struct orc_store;
struct orc_leader;
struct orc_quotas;

/* The file's text as trib_quotas_set takes it, owned; NULL and a reason
 * when it is not valid. Pure. */
char *orc_quotas_read(const char *text, size_t size, char reason[160]);
/* path: NULL = no quotas. 0; else -errno, and why is in the log. */
TRIB_MUST_CHECK int orc_quotas_new(const char *path, struct orc_store *store,
				   struct orc_leader *leader, struct orc_quotas **ret_quotas);
struct orc_quotas *orc_quotas_free(struct orc_quotas *quotas);
/* This process leads now. */
void orc_quotas_lead(struct orc_quotas *quotas);
/* About once a second: looks at the file, and sees to it that Redis has what it says. */
void orc_quotas_tick(struct orc_quotas *quotas);

#endif
