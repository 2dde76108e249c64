/* SPDX-License-Identifier: Apache-2.0
 * Leadership by a lease in Redis: taken or extended every 1.5 s for 5 s, under the name --id, so
 * that a restarted process goes on at once (two processes must never share a name). Whoever
 * leads writes with a token "<epoch>|<id>"; Redis refuses older ones. Loop thread only.
 */
#ifndef TRIB_ORCHESTRATOR_LEADER_H
#define TRIB_ORCHESTRATOR_LEADER_H

#include "common/loop.h"
#include "orchestrator/store_redis.h"

#define ORC_TOKEN_SIZE      96
#define ORC_LEADER_URL_SIZE 257

struct orc_leader;

struct orc_leader_name {
	const char *id;
	const char *url; /* where others reach this API; NULL: not told */
};

/* on_lead: this process leads now (also once after a change of epoch). */
TRIB_MUST_CHECK int orc_leader_new(struct trib_loop *loop, const struct orc_leader_name *name,
				   void (*on_lead)(void *arg), void *arg,
				   struct orc_leader **ret_leader);
/* The store may answer until it is freed: free the store first. */
struct orc_leader *orc_leader_free(struct orc_leader *leader);
/* The functions are loaded: take the lease now. Called again after each reload. */
void orc_leader_start(struct orc_leader *leader, struct orc_store *store);
/* True while the lease is surely held. */
bool orc_leader_valid(const struct orc_leader *leader);
/* URL of the API of whoever else leads, "" when that is not known. */
const char *orc_leader_elsewhere(const struct orc_leader *leader);
/* True when somebody, we or another, was seen holding the lease in the last 5 s. */
bool orc_leader_known(const struct orc_leader *leader);
const char *orc_leader_token(const struct orc_leader *leader); /* of the epoch held last */
/* A write was refused as a former leader's: give the lease up, take a new one. */
void orc_leader_fenced(struct orc_leader *leader);
/* Gives the lease up for good; then.cb as of orc_store_lease_drop, -errno if nothing is to wait
 * for. */
TRIB_MUST_CHECK int orc_leader_stop(struct orc_leader *leader, struct orc_then then);

#endif
