/* SPDX-License-Identifier: Apache-2.0
 * Handlers that are about the service rather than a job; the table of routes; OpenAPI from it.
 */
#ifndef TRIB_ORCHESTRATOR_API_META_H
#define TRIB_ORCHESTRATOR_API_META_H

#include "orchestrator/api.h"

void orc_meta_root(struct orc_request *r);
void orc_meta_version(struct orc_request *r);
void orc_meta_openapi(struct orc_request *r);
void orc_meta_nodes(struct orc_request *r);
/* OpenAPI 3.1 as text, caller trib_free's; NULL when out of memory. */
char *orc_openapi_print(void);

#endif
