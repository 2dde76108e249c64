/* SPDX-License-Identifier: Apache-2.0
 * What access control keeps in Redis: tenants of jobs, clients' tokens (hashes), the audit log.
 * Calls and callbacks as in store_redis.h. Loop thread only.
 */
#ifndef TRIB_ORCHESTRATOR_STORE_ACCESS_H
#define TRIB_ORCHESTRATOR_STORE_ACCESS_H

#include "common/audit.h"
#include "orchestrator/store_redis.h"

/* -> OK (text = tenant) | NOJOB */
TRIB_MUST_CHECK int orc_store_tenant(struct orc_store *store, const char *job,
				     struct orc_then then);

/* text: of orc_quotas_read, "" = no quotas. -> OK | FENCED */
TRIB_MUST_CHECK int orc_store_quotas_set(struct orc_store *store, const char *token,
					 const char *text, struct orc_then then);
/* -> OK (text = "tenant;quota=limit|used,.. ", see functions/19_quota.lua); tenant "" = all */
TRIB_MUST_CHECK int orc_store_tenants(struct orc_store *store, const char *tenant,
				      struct orc_then then);

struct orc_tokens_new {
	const char *job;
	const char *client; /* "" = any */
	const char *labels; /* common/labels.h, "" = none */
	const char *scope;
	const char *hashes; /* 64 hex digits each, one after the other */
	uint64_t ttl_ms;
};
/* -> OK (number = when they expire, ms) | FULL | FENCED | NOJOB */
TRIB_MUST_CHECK int orc_store_tokens_issue(struct orc_store *store, const char *token,
					   const struct orc_tokens_new *tokens,
					   struct orc_then then);
/* id: the first 12 digits of the hash. -> OK | NOOP (there is none) | FENCED | NOJOB */
TRIB_MUST_CHECK int orc_store_token_revoke(struct orc_store *store, const char *token,
					   const char *job, const char *id, struct orc_then then);

/* A page of something: items is an array of objects, borrowed; next "" = that was all. */
typedef void orc_page_cb(enum orc_word word, json_t *items, const char *next, void *arg);
TRIB_MUST_CHECK int orc_store_tokens(struct orc_store *store, const char *job, uint64_t cursor,
				     size_t count, orc_page_cb *cb, void *arg);
/* Newest first; `before` = id of the last record of the page before, "" = the newest. */
TRIB_MUST_CHECK int orc_store_audit_list(struct orc_store *store, const char *before, size_t count,
					 orc_page_cb *cb, void *arg);
/* Writes a record down; nobody waits for it. */
TRIB_MUST_CHECK int orc_store_audit(struct orc_store *store, struct trib_audit *audit);

#endif
