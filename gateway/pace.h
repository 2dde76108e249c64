/* SPDX-License-Identifier: Apache-2.0
 * How long clients that get no place are told to stay away, so that however many they are, only so
 * many ask again a second. Pure; one per worker.
 */
#ifndef TRIB_GATEWAY_PACE_H
#define TRIB_GATEWAY_PACE_H

#include "common/base.h"

#define GW_PACE_PER_S  500 /* answers "wait" a second that a worker wants at most */
#define GW_PACE_MIN_MS 1000
#define GW_PACE_MAX_MS 60000

struct gw_pace { /* all zero to begin with */
	uint64_t since_ms;
	uint64_t told; /* since then */
	uint64_t away_ms;
};

/* One more is told to wait at `now_ms` (monotonic): for how long, on the average. */
static inline uint64_t gw_pace_tell(struct gw_pace *pace, uint64_t now_ms)
{
	uint64_t gone = now_ms - pace->since_ms;

	if (pace->away_ms == 0) {
		pace->away_ms = GW_PACE_MIN_MS;
		pace->since_ms = now_ms;
	} else if (gone >= 1000) {
		uint64_t rate = pace->told * 1000 / gone;

		/* Up quickly, down slowly: what was told takes as long to show. */
		if (rate > GW_PACE_PER_S) {
			pace->away_ms += pace->away_ms / 2;
		} else if (rate < GW_PACE_PER_S / 2) {
			pace->away_ms -= pace->away_ms / 8;
		}
		if (gone > GW_PACE_MAX_MS || pace->away_ms < GW_PACE_MIN_MS) {
			pace->away_ms = GW_PACE_MIN_MS;
		} else if (pace->away_ms > GW_PACE_MAX_MS) {
			pace->away_ms = GW_PACE_MAX_MS;
		}
		pace->since_ms = now_ms;
		pace->told = 0;
	}
	pace->told++;
	return pace->away_ms;
}

#endif
