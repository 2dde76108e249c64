/* SPDX-License-Identifier: Apache-2.0
 * POST /v1/nodes/{node}:drain and :undrain.
 */
#ifndef TRIB_ORCHESTRATOR_API_NODES_H
#define TRIB_ORCHESTRATOR_API_NODES_H

#include "orchestrator/api.h"

void orc_nodes_drain(struct orc_request *r);
void orc_nodes_undrain(struct orc_request *r);

#endif
