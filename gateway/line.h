/* SPDX-License-Identifier: Apache-2.0
 * Clients that found every slot taken stand in a line: each is told to come back when its turn is,
 * at the pace at which slots become free (how many there are, and how long one is held). The more
 * wait, the longer; when none becomes free, ever longer. Pure; one per segment, under its lock.
 */
#ifndef TRIB_GATEWAY_LINE_H
#define TRIB_GATEWAY_LINE_H

#include <math.h>

#include "common/base.h"

#define GW_LINE_GUESS_MS 600 /* while no slot was ever given back; longer as that lasts */
#define GW_LINE_MIN_MS   10
#define GW_LINE_MAX_MS   30000
#define GW_LINE_PER_MS   2.0 /* come back at most: to say no costs processor time, too */

struct gw_line {           /* all zero to begin with; times are monotonic milliseconds, > 0 */
	double held_ms;    /* a slot is, on the average of the last few */
	uint64_t moved_ms; /* when one was last taken or became free */
	double end_ms;     /* turn of the last one told */
};

static inline void gw_line_taken(struct gw_line *line, uint64_t now_ms)
{
	line->moved_ms = now_ms;
}

/* A slot became free that was taken held_ms ago. */
static inline void gw_line_freed(struct gw_line *line, uint64_t now_ms, uint64_t held_ms)
{
	line->held_ms +=
		line->held_ms > 0 ? ((double)held_ms - line->held_ms) / 16 : (double)held_ms + 0.01;
	line->moved_ms = now_ms;
}

/* How many are called for a slot, since some come late: the fewer slots, the more one of them
 * stands idle by chance (square-root staffing). */
static inline double gw_line_calls(uint32_t slots)
{
	return 1 + 1.5 / sqrt(slots);
}

/* One more found none of `slots` (> 0): for how long it is told to stay away, before jitter. */
static inline uint64_t gw_line_join(struct gw_line *line, uint32_t slots, uint64_t now_ms)
{
	double now = (double)now_ms;
	double silence = (double)(now_ms - line->moved_ms);
	double held = line->held_ms > silence ? line->held_ms : silence;
	double step = held / (gw_line_calls(slots) * slots);

	line->end_ms = line->end_ms > now ? line->end_ms : now;
	if (line->held_ms > 0) {
		line->end_ms += step > 1 / GW_LINE_PER_MS ? step : 1 / GW_LINE_PER_MS;
	} else { /* nothing to reckon with: all in a heap, no line */
		line->end_ms = now + (held > GW_LINE_GUESS_MS ? held : GW_LINE_GUESS_MS);
	}
	if (line->end_ms > now + GW_LINE_MAX_MS) {
		line->end_ms = now + GW_LINE_MAX_MS;
	}
	return line->end_ms - now > GW_LINE_MIN_MS ? (uint64_t)(line->end_ms - now)
						   : GW_LINE_MIN_MS;
}

#endif
