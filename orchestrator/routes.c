/* SPDX-License-Identifier: Apache-2.0
 * The table of routes (declared in api.h).
 */
#include "orchestrator/api.h"
#include "orchestrator/api_create.h"
#include "orchestrator/api_jobs.h"
#include "orchestrator/api_meta.h"
#include "orchestrator/api_nodes.h"
#include "orchestrator/api_patch.h"
#include "orchestrator/api_rounds.h"
#include "orchestrator/api_tenants.h"
#include "orchestrator/api_tokens.h"
#include "orchestrator/api_tree.h"
#include "orchestrator/sse.h"

#define READ  ORC_ROUTE_REDIS
#define LIST  (ORC_ROUTE_REDIS | ORC_ROUTE_LIST)
#define WRITE (ORC_ROUTE_REDIS | ORC_ROUTE_WRITE)
#define BODY  ORC_ROUTE_BODY
#define DATA  ORC_ROUTE_DATA
#define GET   TRIB_HTTP_GET
#define POST  TRIB_HTTP_POST
/* scopes */
#define NO_SCOPE   ORC_SCOPE_NONE
#define JOBS_READ  TRIB_SCOPE_JOBS_READ
#define JOBS_WRITE TRIB_SCOPE_JOBS_WRITE
#define JOBS_ADMIN TRIB_SCOPE_JOBS_ADMIN
#define OPS_READ   TRIB_SCOPE_OPS_READ
#define OPS_ADMIN  TRIB_SCOPE_OPS_ADMIN

const struct orc_route orc_routes[] = {
	{ GET, 0, "/", orc_meta_root, NULL, "root", "What this is", 200, NULL, NO_SCOPE },
	{ GET, 0, "/version", orc_meta_version, NULL, "version", "Version", 200, "Version",
	  NO_SCOPE },
	{ GET, 0, "/v1/openapi.json", orc_meta_openapi, NULL, "openapi", "This document", 200,
	  "Any", NO_SCOPE },
	{ POST, WRITE | BODY, "/v1/jobs", NULL, orc_create_body, "createJob",
	  "Create a job (repeatable with Idempotency-Key)", 201, "Job", JOBS_WRITE },
	{ POST, BODY, "/v1/jobs:validate", NULL, orc_validate_body, "validateJob",
	  "Check a job and fill in its defaults", 200, "Validation", JOBS_READ },
	{ GET, LIST, "/v1/jobs", orc_jobs_list, NULL, "listJobs", "List jobs, newest first", 200,
	  "JobList", JOBS_READ },
	{ GET, READ, "/v1/jobs/{job}", orc_jobs_get, NULL, "getJob", "One job", 200, "Job",
	  JOBS_READ },
	{ TRIB_HTTP_PATCH, WRITE | BODY, "/v1/jobs/{job}", NULL, orc_patch_body, "patchJob",
	  "Change a job's policies by a merge patch (RFC 7396; If-Match), at once", 200, "Job",
	  JOBS_WRITE },
	{ TRIB_HTTP_DELETE, WRITE, "/v1/jobs/{job}", orc_jobs_delete, NULL, "deleteJob",
	  "Delete a job that is over or never began; force=1 stops it first, purge=1 "
	  "removes its model files, too",
	  204, NULL, JOBS_ADMIN },
	{ POST, WRITE, "/v1/jobs/{job}:pause", orc_jobs_pause, NULL, "pauseJob",
	  "No further rounds for now", 202, "Job", JOBS_WRITE },
	{ POST, WRITE, "/v1/jobs/{job}:resume", orc_jobs_resume, NULL, "resumeJob",
	  "Go on with rounds", 202, "Job", JOBS_WRITE },
	{ POST, WRITE, "/v1/jobs/{job}:stop", orc_jobs_stop, NULL, "stopJob", "End a job", 202,
	  "Job", JOBS_WRITE },
	{ POST, WRITE, "/v1/jobs/{job}:drain", orc_jobs_drain, NULL, "drainJob",
	  "End a job in order: nobody is selected any more, who has a place may report", 202, "Job",
	  JOBS_WRITE },
	{ GET, LIST, "/v1/jobs/{job}/rounds", orc_rounds_list, NULL, "listRounds",
	  "Rounds of a job, newest first", 200, "RoundList", JOBS_READ },
	{ GET, READ, "/v1/jobs/{job}/rounds/{round}", orc_rounds_get, NULL, "getRound", "One round",
	  200, "Round", JOBS_READ },
	{ POST, WRITE | BODY, "/v1/jobs/{job}/rounds/{round}:close", NULL, orc_rounds_close_body,
	  "closeRound", "Close a round now: with its quorum, or with one update by force", 202,
	  "Round", JOBS_WRITE },
	{ GET, LIST, "/v1/jobs/{job}/rounds/{round}/updates", orc_rounds_updates, NULL,
	  "listUpdates", "Updates of a round, in no order; pages vary in size", 200, "UpdateList",
	  JOBS_READ },
	{ GET, READ, "/v1/jobs/{job}/tree", orc_tree_get, NULL, "getTree",
	  "The job's functions on every node, and why they are so", 200, "Tree", JOBS_READ },
	{ GET, LIST, "/v1/jobs/{job}/models", orc_models_list, NULL, "listModels",
	  "Published versions, newest first", 200, "ModelList", JOBS_READ },
	{ GET, READ, "/v1/jobs/{job}/events", orc_sse_job, NULL, "jobEvents",
	  "Events of a job (server-sent; resume by Last-Event-ID)", 200, "Events", JOBS_READ },
	{ GET, READ, "/v1/events", orc_sse_all, NULL, "events",
	  "Events of all jobs (server-sent; resume by Last-Event-ID)", 200, "Events", JOBS_READ },
	{ GET, READ, "/v1/tenants", orc_tenants_list, NULL, "listTenants",
	  "Quotas and use of one's tenant (ops:read: of all)", 200, "TenantList", JOBS_READ },
	{ GET, READ, "/v1/tenants/{tenant}", orc_tenants_get, NULL, "getTenant",
	  "Quotas and use of a tenant", 200, "Tenant", JOBS_READ },
	{ GET, READ, "/v1/nodes", orc_meta_nodes, NULL, "listNodes", "Nodes that hold updates", 200,
	  "NodeList", OPS_READ },
	{ POST, WRITE, "/v1/nodes/{node}:drain", orc_nodes_drain, NULL, "drainNode",
	  "A node is to leave: no new clients, its sums go to others (docs/nodes.md)", 202, NULL,
	  OPS_ADMIN },
	{ POST, WRITE, "/v1/nodes/{node}:undrain", orc_nodes_undrain, NULL, "undrainNode",
	  "The node stays after all", 202, NULL, OPS_ADMIN },
	{ POST, DATA, "/v1/jobs/{job}/checkins", NULL, NULL, "checkin", "Served by the gateways",
	  307, NULL, NO_SCOPE },
	{ POST, DATA, "/v1/checkins", NULL, NULL, "poolCheckin",
	  "A check-in for any job of a pool; served by the gateways", 307, NULL, NO_SCOPE },
	{ GET, DATA, "/v1/jobs/{job}/models/{version}", NULL, NULL, "getModel",
	  "Served by the gateways", 307, NULL, NO_SCOPE },
	{ TRIB_HTTP_PUT, DATA, "/v1/jobs/{job}/models/{version}", NULL, NULL, "putModel",
	  "Served by the gateways", 307, NULL, NO_SCOPE },
	{ GET, DATA, "/v1/jobs/{job}/updates/{update}", NULL, NULL, "getUpdate",
	  "Served by the gateways", 307, NULL, NO_SCOPE },
	{ TRIB_HTTP_PUT, DATA, "/v1/jobs/{job}/updates/{update}", NULL, NULL, "putUpdate",
	  "Served by the gateways", 307, NULL, NO_SCOPE },
	{ TRIB_HTTP_HEAD, DATA, "/v1/jobs/{job}/uploads/{update}", NULL, NULL, "whereUpload",
	  "Served by the gateways", 307, NULL, NO_SCOPE },
	{ TRIB_HTTP_PATCH, DATA, "/v1/jobs/{job}/uploads/{update}", NULL, NULL, "continueUpload",
	  "Served by the gateways", 307, NULL, NO_SCOPE },
	{ TRIB_HTTP_DELETE, DATA, "/v1/jobs/{job}/uploads/{update}", NULL, NULL, "dropUpload",
	  "Served by the gateways", 307, NULL, NO_SCOPE },
	{ POST, WRITE | BODY, "/v1/jobs/{job}/tokens", NULL, orc_tokens_issue_body, "issueTokens",
	  "Tokens for clients; shown this once", 201, "IssuedList", JOBS_ADMIN },
	{ GET, LIST, "/v1/jobs/{job}/tokens", orc_tokens_list, NULL, "listTokens",
	  "Tokens of a job (never themselves), in no order; pages vary in size", 200, "TokenList",
	  JOBS_ADMIN },
	{ TRIB_HTTP_DELETE, WRITE, "/v1/jobs/{job}/tokens/{token}", orc_tokens_revoke, NULL,
	  "revokeToken", "Revoke a token, at once", 204, NULL, JOBS_ADMIN },
	{ GET, LIST, "/v1/audit", orc_audit_list, NULL, "listAudit", "Writes, newest first", 200,
	  "AuditList", OPS_ADMIN },
};
const size_t orc_route_count = TRIB_COUNT(orc_routes);
