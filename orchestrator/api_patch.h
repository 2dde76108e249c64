/* SPDX-License-Identifier: Apache-2.0
 * PATCH /v1/jobs/{job}: a merge patch of the spec, applied at once to the open round or buffer.
 * If-Match is needed; of the job's ETag only the generation of the spec is compared (what a patch
 * changes), so that a job's counters, which move all the time, fail nobody.
 */
#ifndef TRIB_ORCHESTRATOR_API_PATCH_H
#define TRIB_ORCHESTRATOR_API_PATCH_H

#include "orchestrator/api.h"

void orc_patch_body(struct orc_request *r, const char *body, size_t size);

#endif
