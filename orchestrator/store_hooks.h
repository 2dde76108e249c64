/* SPDX-License-Identifier: Apache-2.0
 * Who is to be notified of what, and how far that has come (store_redis.h for the rules of all).
 */
#ifndef TRIB_ORCHESTRATOR_STORE_HOOKS_H
#define TRIB_ORCHESTRATOR_STORE_HOOKS_H

#include "orchestrator/hook_rule.h"
#include "orchestrator/store_redis.h"

struct orc_hook_row { /* borrowed */
	const char *job;
	const char *hooks; /* spec.notifications as JSON */
	const char *cursors[ORC_HOOKS_MAX];
};
struct orc_hook_rows {
	enum orc_word word;
	const struct orc_hook_row *items;
	size_t count;
};
typedef void orc_hook_rows_cb(const struct orc_hook_rows *rows, void *arg);
/* Of all jobs that have some. */
TRIB_MUST_CHECK int orc_store_hooks(struct orc_store *store, orc_hook_rows_cb *cb, void *arg);
/* Receiver `index` of a job has got everything up to `id`. -> OK | FENCED | NOJOB */
TRIB_MUST_CHECK int orc_store_hook_sent(struct orc_store *store, const char *token, const char *job,
					unsigned index, const struct orc_event_id *id,
					struct orc_then then);

#endif
