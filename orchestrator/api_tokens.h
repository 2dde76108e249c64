/* SPDX-License-Identifier: Apache-2.0
 * Clients' tokens of a job, and the audit log. Loop thread only.
 */
#ifndef TRIB_ORCHESTRATOR_API_TOKENS_H
#define TRIB_ORCHESTRATOR_API_TOKENS_H

#include "orchestrator/api.h"

#define ORC_TOKENS_MAX      1000 /* per request */
#define ORC_TOKEN_TTL_S     2592000
#define ORC_TOKEN_TTL_MAX_S 31536000

void orc_tokens_issue_body(struct orc_request *r, const char *body, size_t size);
void orc_tokens_list(struct orc_request *r);
void orc_tokens_revoke(struct orc_request *r);
void orc_audit_list(struct orc_request *r);

#endif
