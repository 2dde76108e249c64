/* SPDX-License-Identifier: Apache-2.0
 * Versions that the agent keeps in memory (shm/link.h, MODEL .. RELEASED): served from there
 * instead of from their files, which follow. Found by version and digest, so that what is served is
 * what the record says was published.
 *
 * When the agent wants a memory back, a download that still reads from it gets the version's file
 * mapped over it, at the same addresses: it goes on, and the memory is free at once.
 */
#ifndef TRIB_GATEWAY_MODEL_OFFER_H
#define TRIB_GATEWAY_MODEL_OFFER_H

#include <pthread.h>

#include "gateway/job.h"
#include "shm/link.h"

#define GW_OFFER_BUCKETS 256

struct gw_offer;

struct gw_offers {
	pthread_mutex_t lock;
	struct gw_offer *buckets[GW_OFFER_BUCKETS];
};

void gw_offers_init(struct gw_offers *offers);
void gw_offers_fini(struct gw_offers *offers);
/* Pinned or NULL. version->digest "": whatever is there of that version. Any thread. */
struct gw_model *gw_offer_find(struct gw_offers *offers, const char *job,
			       const struct gw_version *version);

/* ---- main thread, for the link ---- */
/* MODEL; fd is taken. 0 or -errno (then the agent keeps what it has given for nothing). */
TRIB_MUST_CHECK int gw_offer_take(struct gw_offers *offers, const struct trib_link_message *message,
				  int fd);
/* RELEASE: what RELEASED is to say. 0: nothing maps that memory any more; -EBUSY: a download does,
 * and there is no file to put in its place. */
int gw_offer_release(struct gw_offers *offers, const char *models,
		     const struct trib_link_message *message);
/* The connection is gone: what was offered on it is served until it is offered anew. */
void gw_offers_down(struct gw_offers *offers);

#endif
