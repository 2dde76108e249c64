/* SPDX-License-Identifier: Apache-2.0
 * Handlers of /v1/jobs/{job}/rounds and /models (the list).
 */
#ifndef TRIB_ORCHESTRATOR_API_ROUNDS_H
#define TRIB_ORCHESTRATOR_API_ROUNDS_H

#include "orchestrator/api.h"

void orc_rounds_list(struct orc_request *r);
void orc_rounds_get(struct orc_request *r);
void orc_rounds_close_body(struct orc_request *r, const char *body, size_t size);
void orc_rounds_updates(struct orc_request *r);
void orc_models_list(struct orc_request *r);

#endif
