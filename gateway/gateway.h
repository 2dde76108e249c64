/* SPDX-License-Identifier: Apache-2.0
 * The process: options, what all threads share, who is who. Main thread: admin listener, agent
 * link, wake subscriber. Worker threads: the data plane, one loop each. With more connections than
 * a table of descriptors has room for, each worker has a table of its own (own_tables, ADR 12):
 * then nothing but listening sockets, bells and wake-ups, made before, has a number that all
 * understand.
 */
#ifndef TRIB_GATEWAY_GATEWAY_H
#define TRIB_GATEWAY_GATEWAY_H

#include <pthread.h>

#include "common/access.h"
#include "common/httpd.h"
#include "common/loop.h"
#include "common/redis.h"
#include "common/redis_login.h"
#include "common/ticket.h"
#include "gateway/job.h"
#include "gateway/model_offer.h"
#include "gateway/transfers.h"
#include "shm/channel.h"

#define GW_WORKERS_MAX (TRIB_CHANNELS_MAX - 1)

struct gw_worker;
struct gw_link;

struct gw_options {
	const char *listen;
	const char *admin;
	const char *agent;
	const char *redis;
	struct trib_redis_login login;
	const char *models;
	const char *node;
	const char *addr_file;
	struct trib_tls_files tls;
	uint64_t workers;
	uint64_t body_rate_min;
	uint64_t follow_bytes;
	uint64_t body_grace_ms;
	uint64_t head_timeout_ms;
	uint64_t idle_timeout_ms;
	uint64_t conns_max;
	uint64_t drain_ms;
	struct trib_access_config access;
	bool share; /* files are for the group, too */
	bool check;
};

/* The rings of one connection to the agent. Reference-counted: main and pushing workers. */
struct gw_rings {
	int refs;                      /* atomic */
	struct trib_channels channels; /* mapped only: no descriptor of it is open */
};

struct gw {
	uint32_t conns_open; /* atomic: all workers' */
	struct gw_options options;
	struct gw_jobs jobs;
	struct gw_transfers transfers;
	struct gw_offers offers;
	struct trib_access *access;
	struct trib_loop *loop; /* main's */
	struct trib_tls *tls;   /* NULL: plain */
	struct gw_link *link;
	bool own_tables;        /* of workers; constant once they run */
	uint32_t conns_of_each; /* connections a worker may have, 0: no bound of its own */
	int bell;               /* rings the agent, in every table; see link.c */
	pthread_mutex_t lock;   /* guards rings */
	struct gw_rings *rings; /* pinned; NULL: no link */
	uint8_t ticket_key[TRIB_TICKET_KEY_SIZE]; /* constant once key_known */
	bool key_known;                           /* atomic, release */
	bool stopping;                            /* atomic */
	uint32_t worker_count;
	struct gw_worker *workers[GW_WORKERS_MAX];
};

static inline bool gw_key_known(const struct gw *gw)
{
	return __atomic_load_n(&gw->key_known, __ATOMIC_ACQUIRE);
}

static inline bool gw_stopping(const struct gw *gw)
{
	return __atomic_load_n(&gw->stopping, __ATOMIC_ACQUIRE);
}

#endif
