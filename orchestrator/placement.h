/* SPDX-License-Identifier: Apache-2.0
 * Placement: which node takes how many of a round's updates, as a pure function (nodes and demand
 * in, quotas out; no clock, no I/O). The leader asks, and writes the answer into the job's record
 * (placer.h).
 *
 *   room of a node   RC = MC - k * E: what it can aggregate at once, less what it has in hand (by
 *                    Little's law arrivals per second times the time one takes); also no more than
 *                    its network budget lets in within the window
 *                    (what it had of this demand's last round, which is over, is not in hand)
 *   bestfit          the fewest nodes that do: the roomiest one whole, again and again, and for the
 *                    rest the tightest one that it fits into
 *   worstfit         each update to the node with the most room left: all equally full
 *   roundrobin       one each in turn, as long as there is room
 *
 * Of two with the same room the one that had some of the last round goes first: the job's memory
 * and functions are warm there.
 *
 * What fits nowhere is shared out in proportion to MC: an update that has to wait is better than a
 * client that is told to come again. Quotas add up to the demand whenever a node lives that has a
 * capacity.
 */
#ifndef TRIB_ORCHESTRATOR_PLACEMENT_H
#define TRIB_ORCHESTRATOR_PLACEMENT_H

#include "common/base.h"

#define ORC_PLACE_NODES_MAX 4096u

enum orc_place_policy {
	ORC_PLACE_BESTFIT,
	ORC_PLACE_WORSTFIT,
	ORC_PLACE_ROUNDROBIN
};

struct orc_place_node {
	double capacity; /* MC, updates being aggregated at once; 0: unknown, nothing is planned on
			    it */
	double arrivals; /* k, updates per second */
	double seconds;  /* E, mean time of one in the node */
	double nic_bytes_s; /* budget, 0 = no limit */
	uint32_t cores;     /* of two alike the one with more goes first */
	uint32_t last;      /* updates of the last round that it was planned for */
	bool alive;
};

struct orc_place_demand {
	enum orc_place_policy policy;
	uint32_t updates;
	bool over; /* the last round: its updates are not there any more */
	double update_bytes;
	double window_s; /* within which they are expected to arrive; 0: the network sets no limit
			  */
};

/* Whole updates the node can take now. */
uint32_t orc_place_room(const struct orc_place_node *node, const struct orc_place_demand *demand);
/* quotas[count] is written. Returns how many updates fit (the others were shared out all the same).
 * At most ORC_PLACE_NODES_MAX nodes; the others get nothing. */
uint32_t orc_place(const struct orc_place_node *nodes, size_t count,
		   const struct orc_place_demand *demand, uint32_t *quotas);

#endif
