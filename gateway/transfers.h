/* SPDX-License-Identifier: Apache-2.0
 * Between nodes: PUT /v1/internal/.../partials/{node} (another node's sum, received straight into a
 * memfd of our agent), GET /v1/internal/.../models/{v} (a version's file), and asking our agent to
 * fetch a version. Requests prove themselves by FL-Peer (common/peer.h), not by tokens.
 *
 *   ASKING (agent: where to?) -> RECEIVING -> CLAIMING (agent and record: whose is it?) -> answer
 *
 * A transfer belongs to its worker; the table links it with the agent's connection, which is
 * main's.
 */
#ifndef TRIB_GATEWAY_TRANSFERS_H
#define TRIB_GATEWAY_TRANSFERS_H

#include <pthread.h>

#include "common/httpd.h"
#include "shm/link.h"

#define GW_TRANSFERS_MAX 64 /* under way; also of fetches wanted */

struct gw;
struct gw_worker;
struct gw_transfer;

struct gw_fetch {
	char job[TRIB_JOB_ID_SIZE];
	uint32_t version;
};

struct gw_transfers {
	pthread_mutex_t lock;
	uint64_t number; /* last one given */
	struct gw_transfer *table[GW_TRANSFERS_MAX];
	struct gw_fetch fetches[GW_TRANSFERS_MAX];
	uint32_t fetch_count;
};

#define GW_INTERNAL "/v1/internal/"
/* A request whose path begins with GW_INTERNAL. Worker thread. */
void gw_internal_request(struct gw_worker *worker, struct trib_exchange *x,
			 const struct trib_http_request *request);
/* Any thread: the agent shall see that this version comes here. */
void gw_fetch_want(struct gw *gw, const char *job, uint32_t version);

/* ---- main thread, for the link ---- */
/* The next message that is due, or false. Sent: gw_transfers_sent, else it is due again. */
bool gw_transfers_next(struct gw *gw, struct trib_link_message *ret_message);
void gw_transfers_sent(struct gw *gw, const struct trib_link_message *message);
/* TARGET (fd: taken, or -1) or MOVED has come. False: nobody waits for it any more. */
bool gw_transfers_answer(struct gw *gw, const struct trib_link_message *message, int fd);
/* The connection is gone, and with it every transfer. */
void gw_transfers_down(struct gw *gw);

#endif
