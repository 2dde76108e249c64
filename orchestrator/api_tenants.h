/* SPDX-License-Identifier: Apache-2.0
 * GET /v1/tenants and /v1/tenants/{tenant}: quotas and use. Loop thread only.
 */
#ifndef TRIB_ORCHESTRATOR_API_TENANTS_H
#define TRIB_ORCHESTRATOR_API_TENANTS_H

#include "orchestrator/api.h"

void orc_tenants_list(struct orc_request *r);
void orc_tenants_get(struct orc_request *r);

#endif
