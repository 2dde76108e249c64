/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/leader.h"

#include <errno.h>
#include <stdio.h>

#include "common/clock.h"
#include "common/crypto.h"
#include "common/log.h"
#include "orchestrator/orc_metrics.h"

#define RENEW_MS  1500
#define TTL_MS    4000 /* a standby leads so long after the leader's last sign, at the latest */
#define MARGIN_MS 500  /* the lease is trusted so much less long than Redis keeps it */

struct orc_leader {
	struct orc_store *store; /* NULL until started */
	struct trib_timer *timer;
	const char *id;
	const char *url; /* of this API, "" = not told */
	void (*on_lead)(void *arg);
	void *arg;
	uint64_t epoch;
	uint64_t valid_until_ms;
	uint64_t known_until_ms;
	uint64_t asked_ms;
	uint64_t asked_config; /* Sentinel's config epoch then */
	bool asking;
	bool leading; /* as told last */
	bool key_made;
	bool stopping;
	char token[ORC_TOKEN_SIZE];
	char other[ORC_LEADER_URL_SIZE]; /* who leads, "" = we do or it is not known */
};

static void set_leading(struct orc_leader *leader, bool leading)
{
	if (leader->leading != leading) {
		log_info("leader", "%s id=%s epoch=%llu", leading ? "leading" : "not-leading",
			 leader->id, (unsigned long long)leader->epoch);
	}
	leader->leading = leading;
	orc_gauge(ORC_M_LEADER, leading);
}

static void on_key(const struct orc_reply *reply, void *arg)
{
	struct orc_leader *leader = arg;

	leader->key_made = reply->word == ORC_OK;
}

/* The key that seals upload tickets: made once per cluster, by whoever leads first. */
static void make_key(struct orc_leader *leader)
{
	static const char hex[] = "0123456789abcdef";
	uint8_t bytes[32];
	char text[2 * sizeof(bytes) + 1] = "";

	if (leader->key_made || trib_random(bytes, sizeof(bytes))) {
		return;
	}
	for (size_t i = 0; i < sizeof(bytes); i++) {
		text[2 * i] = hex[bytes[i] >> 4];
		text[2 * i + 1] = hex[bytes[i] & 15];
	}
	if (orc_store_cluster_init(leader->store, text, (struct orc_then){ on_key, leader })) {
		return; /* again with the next renewal */
	}
}

static void ask(struct orc_leader *leader);

static void on_lease(const struct orc_reply *reply, void *arg)
{
	struct orc_leader *leader = arg;
	bool fresh;

	leader->asking = false;
	if (reply->word == ORC_ERROR || reply->word == ORC_DOWN || leader->stopping) {
		return; /* what is held runs out by itself */
	}
	orc_count(ORC_M_LEASE_COUNT);
	orc_count_by(ORC_M_LEASE_SECONDS, (int64_t)(trib_clock_ms() - leader->asked_ms));
	leader->known_until_ms = trib_clock_ms() + TTL_MS;
	if (leader->asked_config != orc_store_config_epoch(leader->store)) {
		ask(leader); /* a fail-over on the way: this epoch may have been another's */
		return;
	}
	if (reply->word != ORC_OTHER ||
	    trib_copy(leader->other, sizeof(leader->other), reply->more ? reply->more : "")) {
		leader->other[0] = '\0';
	}
	if (reply->word == ORC_OTHER) {
		leader->valid_until_ms = 0;
		set_leading(leader, false);
		trib_timer_after(leader->timer, reply->number >= 0 && reply->number < RENEW_MS
							? (uint64_t)reply->number + 1
							: RENEW_MS);
		return;
	}
	if (reply->word == ORC_NEW) {
		orc_count(ORC_M_FAILOVERS);
	}
	fresh = !leader->leading || leader->epoch != (uint64_t)reply->number;
	leader->epoch = (uint64_t)reply->number;
	leader->valid_until_ms = leader->asked_ms + TTL_MS - MARGIN_MS;
	(void)snprintf(leader->token, sizeof(leader->token), "%llu|%s",
		       (unsigned long long)leader->epoch, leader->id);
	orc_gauge(ORC_M_EPOCH, (int64_t)leader->epoch);
	set_leading(leader, true);
	make_key(leader);
	if (fresh) {
		leader->on_lead(leader->arg);
	}
}

static void ask(struct orc_leader *leader)
{
	leader->asked_ms = trib_clock_ms();
	leader->asked_config = orc_store_config_epoch(leader->store);
	leader->asking = orc_store_lease_take(leader->store, leader->id, leader->url, TTL_MS,
					      (struct orc_then){ on_lease, leader }) == 0;
}

static void on_timer(void *arg)
{
	struct orc_leader *leader = arg;

	if (leader->leading && !orc_leader_valid(leader)) {
		set_leading(leader, false);
	}
	trib_timer_about(leader->timer, RENEW_MS);
	if (leader->asking || leader->stopping || !leader->store) {
		return;
	}
	ask(leader);
}

int orc_leader_new(struct trib_loop *loop, const struct orc_leader_name *name,
		   void (*on_lead)(void *arg), void *arg, struct orc_leader **ret_leader)
{
	struct orc_leader *leader = trib_alloc(sizeof(*leader));
	int rc;

	if (!leader) {
		return -ENOMEM;
	}
	leader->id = name->id;
	leader->url = name->url ? name->url : "";
	leader->on_lead = on_lead;
	leader->arg = arg;
	rc = trib_timer_new(loop, on_timer, leader, &leader->timer);
	if (rc) {
		trib_free(leader);
		return rc;
	}
	*ret_leader = leader;
	return 0;
}

struct orc_leader *orc_leader_free(struct orc_leader *leader)
{
	if (leader) {
		leader->timer = trib_timer_free(leader->timer);
		trib_free(leader);
	}
	return NULL;
}

void orc_leader_start(struct orc_leader *leader, struct orc_store *store)
{
	leader->store = store;
	leader->key_made = false; /* Redis may have come back empty */
	on_timer(leader);
}

bool orc_leader_valid(const struct orc_leader *leader)
{
	return !leader->stopping && trib_clock_ms() < leader->valid_until_ms;
}

bool orc_leader_known(const struct orc_leader *leader)
{
	return trib_clock_ms() < leader->known_until_ms;
}

const char *orc_leader_elsewhere(const struct orc_leader *leader)
{
	return orc_leader_known(leader) ? leader->other : "";
}

const char *orc_leader_token(const struct orc_leader *leader)
{
	return leader->token;
}

static void on_dropped(const struct orc_reply *reply, void *arg)
{
	if (reply->word != ORC_DOWN) {
		on_timer(arg);
	}
}

void orc_leader_fenced(struct orc_leader *leader)
{
	orc_count(ORC_M_FENCED);
	if (!orc_leader_valid(leader)) {
		return;
	}
	log_warn("leader", "fenced id=%s epoch=%llu", leader->id,
		 (unsigned long long)leader->epoch);
	leader->valid_until_ms = 0;
	set_leading(leader, false);
	if (orc_store_lease_drop(leader->store, leader->id,
				 (struct orc_then){ on_dropped, leader })) {
		return; /* the timer takes it again */
	}
}

int orc_leader_stop(struct orc_leader *leader, struct orc_then then)
{
	bool held = orc_leader_valid(leader);

	leader->stopping = true;
	leader->valid_until_ms = 0;
	trib_timer_stop(leader->timer);
	if (!held || !leader->store) {
		return -ENOENT;
	}
	return orc_store_lease_drop(leader->store, leader->id, then);
}
