/* SPDX-License-Identifier: Apache-2.0
 * POST checkins: asks Redis whether the client takes part, answers with model and upload ticket,
 * or holds the request (Prefer: wait) and asks again when something changed. Worker thread.
 */
#ifndef TRIB_GATEWAY_CHECKIN_H
#define TRIB_GATEWAY_CHECKIN_H

#include "gateway/guard.h"
#include "gateway/worker.h"

void gw_checkin_begin(struct gw_worker *worker, struct trib_exchange *x, const char *job,
		      const struct gw_grant *grant);
/* POST /v1/checkins: for the job of a pool that Redis chooses; it checks the token there, too. */
void gw_checkin_pool(struct gw_worker *worker, struct trib_exchange *x);
/* Something changed for `job` ("" = for any): the held check-ins of it ask again. */
void gw_checkins_wake(struct gw_worker *worker, const char *job);
void gw_checkins_tick(struct gw_worker *worker);
void gw_checkins_stop(struct gw_worker *worker); /* answers all that are held */

#endif
