/* SPDX-License-Identifier: Apache-2.0
 * Who is the master, by Redis Sentinel: the part of a "sentinel://" address that common/redis.c
 * needs. The Sentinels are asked in turn until one knows; the one that knew is then listened to
 * for fail-overs. What it says is a hint: whoever connects checks ROLE.
 *
 * address: sentinel://HOST:PORT[,HOST:PORT ..]/MASTER[?confirm=N], up to 9 Sentinels; "[::1]:26379"
 * for IPv6.
 */
#ifndef TRIB_COMMON_SENTINEL_H
#define TRIB_COMMON_SENTINEL_H

#include "common/loop.h"

#define TRIB_SENTINEL_SCHEME "sentinel://"
#define TRIB_MASTER_HOST_MAX 256

struct trib_master {
	char host[TRIB_MASTER_HOST_MAX];
	int port;
	uint64_t config_epoch; /* rises with every fail-over; read after the address */
	bool steady;           /* neither called down nor being replaced */
	size_t replicas; /* that may be promoted: those which this Sentinel does not call down */
};

struct trib_sentinel;

/* The answer to trib_sentinel_ask; NULL: none of them knows. Must not free the sentinel. */
typedef void trib_sentinel_answer_cb(const struct trib_master *master, void *arg);
/* The master may have changed: ask. Must not free the sentinel. */
typedef void trib_sentinel_hint_cb(void *arg);

/* Is it such an address? Connects to nothing. 0, -EINVAL, -ENOMEM. */
TRIB_MUST_CHECK int trib_sentinel_check(const char *address);
/* 0, -EINVAL (address), -ENOMEM */
TRIB_MUST_CHECK int trib_sentinel_new(struct trib_loop *loop, const char *address,
				      trib_sentinel_answer_cb *answer, trib_sentinel_hint_cb *hint,
				      void *arg, struct trib_sentinel **ret_sentinel);
struct trib_sentinel *trib_sentinel_free(struct trib_sentinel *sentinel); /* no answer any more */
/* One answer follows, from the loop, in at most half a second per Sentinel. No effect while asking.
 */
void trib_sentinel_ask(struct trib_sentinel *sentinel);
/* The same, of the next Sentinel: only the one that leads a fail-over knows of it at first. */
void trib_sentinel_ask_another(struct trib_sentinel *sentinel);
unsigned trib_sentinel_confirm(const struct trib_sentinel *sentinel); /* of the address; 1 */

#endif
