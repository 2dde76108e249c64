/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/follow.h"

#include "common/clock.h"
#include "gateway/metrics.h"
#include "gateway/rings.h"

#define HINT_BYTES (1u << 20) /* so much is looked at before a rate is believed */
#define HINT_MS    1000       /* a body is followed when the rest of it takes no longer */

void gw_follow_begin(struct gw_upload *u)
{
	uint64_t least = u->worker->gw->options.follow_bytes;

	u->follows = least && u->job->payload >= least && !u->job->async && u->intake.in_order;
	u->hinted = false;
	u->began_ns = trib_clock_ns();
}

static void hint(struct gw_upload *u)
{
	uint32_t job = u->slots->segment.header.job_index;
	struct trib_descriptor d = { .kind = TRIB_DESC_FOLLOW,
				     .route = TRIB_ROUTE(job, 0),
				     .job = job,
				     .round = u->head.round,
				     .base = u->head.base,
				     .slot = u->slot,
				     .gen = u->gen,
				     .weight = u->head.weight_fx,
				     .bytes = u->job->payload,
				     .updates = 1 };

	u->hinted = true;
	gw_count(GW_M_FOLLOW_HINTS, 1);
	gw_rings_push(u->worker->gw, u->worker->index, &d);
}

void gw_follow_landed(struct gw_upload *u)
{
	const struct gw_check *check = &u->intake.check;
	uint64_t here = gw_intake_landed_payload(&u->intake);
	uint64_t took;

	if (!u->follows) {
		return;
	}
	if (!gw_check_finite(check->worst) ||
	    !gw_check_in_range(check->worst, (double)u->head.weight_fx / (1 << TRIB_WEIGHT_BITS),
			       u->job->range)) {
		u->follows = false; /* it will be refused */
		return;
	}
	trib_slot_fill(trib_segment_record(&u->slots->segment, u->slot), u->gen, here,
		       u->job->payload);
	if (u->hinted || here < HINT_BYTES || gw_slots_retired(u->slots)) {
		return;
	}
	took = (trib_clock_ns() - u->began_ns) / 1000;
	if ((double)(u->job->payload - here) * (double)took <= (double)here * HINT_MS * 1000) {
		hint(u);
	}
}
