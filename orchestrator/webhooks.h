/* SPDX-License-Identifier: Apache-2.0
 * Notifications: events of jobs as CloudEvents 1.0 (structured JSON) to the URLs of
 * spec.notifications, by the leader alone. At least once, in order for each receiver: the id of the
 * last event a receiver has taken is kept in Redis, so that a successor goes on from there; the
 * event's id (the stream's) lets receivers drop what they have. One post at a time per receiver;
 * failed ones are sent again after 0.5 s, twice as much each time up to 60 s, ORC_HOOK_TRIES times.
 *
 * Bounds: ORC_HOOKS_LIVE_MAX receivers, ORC_POSTS_MAX posts waiting (hook_pool.h), the 10000 events
 * that a job's stream holds. Loop thread only.
 */
#ifndef TRIB_ORCHESTRATOR_WEBHOOKS_H
#define TRIB_ORCHESTRATOR_WEBHOOKS_H

#include "common/loop.h"
#include "orchestrator/leader.h"
#include "orchestrator/store_redis.h"

#define ORC_HOOKS_LIVE_MAX 1024
#define ORC_HOOK_TRIES     16 /* over about ten minutes */

struct orc_hooks;

TRIB_MUST_CHECK int orc_hooks_new(struct trib_loop *loop, struct orc_store *store,
				  struct orc_leader *leader, struct orc_hooks **ret_hooks);
/* The store is freed before. */
struct orc_hooks *orc_hooks_free(struct orc_hooks *hooks);
/* A message of trib:wake. */
void orc_hooks_wake(struct orc_hooks *hooks, const char *what, const char *job);
/* This process leads now: reads who is to be told what. */
void orc_hooks_lead(struct orc_hooks *hooks);

#endif
