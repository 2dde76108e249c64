/* SPDX-License-Identifier: Apache-2.0
 * GET /v1/jobs/{job}/tree: what the agents told of the job's functions.
 */
#ifndef TRIB_ORCHESTRATOR_API_TREE_H
#define TRIB_ORCHESTRATOR_API_TREE_H

#include "orchestrator/api.h"

void orc_tree_get(struct orc_request *r);

#endif
