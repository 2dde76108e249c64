/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/placement.h"

#include <stdlib.h>
#include <string.h>

struct seat {
	uint32_t room;
	uint32_t cores;
	bool warm;
	uint32_t index;
};

struct table {
	struct seat seats[ORC_PLACE_NODES_MAX];
	uint32_t count;
};

uint32_t orc_place_room(const struct orc_place_node *node, const struct orc_place_demand *demand)
{
	double in_hand = node->arrivals * node->seconds - (demand->over ? node->last : 0);
	/* rounded: the trace of a load of some seconds ago is no update */
	double room = node->capacity - (in_hand > 0 ? in_hand : 0) + 0.5;

	if (!node->alive || !(node->capacity > 0)) {
		return 0;
	}
	if (node->nic_bytes_s > 0 && demand->window_s > 0 && demand->update_bytes > 0) {
		double left = node->nic_bytes_s - node->arrivals * demand->update_bytes;
		double fits = left * demand->window_s / demand->update_bytes;

		room = fits < room ? fits : room;
	}
	if (!(room >= 1)) { /* also what is not a number */
		return 0;
	}
	return room < UINT32_MAX ? (uint32_t)room : UINT32_MAX;
}

/* The most room first; of two alike a warm one, then more cores, then the one named first. */
static int by_room(const void *left, const void *right)
{
	const struct seat *a = left;
	const struct seat *b = right;

	if (a->room != b->room) {
		return a->room > b->room ? -1 : 1;
	}
	if (a->warm != b->warm) {
		return a->warm ? -1 : 1;
	}
	if (a->cores != b->cores) {
		return a->cores > b->cores ? -1 : 1;
	}
	return a->index < b->index ? -1 : a->index > b->index;
}

static uint32_t best_fit(const struct table *table, uint32_t left, uint32_t *quotas)
{
	uint32_t next = 0;

	while (left && next < table->count) {
		uint32_t take = next;

		while (take + 1 < table->count && table->seats[take + 1].room >= left) {
			take++; /* the tightest that holds all of the rest */
		}
		while (take > next && table->seats[take - 1].room == table->seats[take].room) {
			take--; /* of those alike the first */
		}
		if (table->seats[take].room >= left) {
			quotas[table->seats[take].index] = left;
			return 0;
		}
		quotas[table->seats[take].index] = table->seats[take].room;
		left -= table->seats[take].room;
		next = take + 1;
	}
	return left;
}

/* All nodes above a common level of room are filled down to it. */
static uint32_t worst_fit(const struct table *table, uint32_t left, uint32_t *quotas)
{
	uint32_t used = 0;
	uint64_t sum = 0;
	uint64_t level;
	uint64_t extra;

	/* `used`: nodes that get something; their rooms down to the next one's do not suffice. */
	while (used < table->count && sum - (uint64_t)used * table->seats[used].room < left) {
		sum += table->seats[used++].room;
	}
	if (used == 0 || sum <= left) {
		for (uint32_t i = 0; i < used; i++) {
			quotas[table->seats[i].index] = table->seats[i].room;
		}
		return left - (uint32_t)sum;
	}
	level = (sum - left) / used;
	extra = (sum - left) % used; /* so many keep one more: those at the end */
	for (uint32_t i = 0; i < used; i++) {
		uint64_t keeps = level + (i >= used - extra);

		quotas[table->seats[i].index] = (uint32_t)(table->seats[i].room - keeps);
	}
	return 0;
}

static uint32_t round_robin(const struct table *table, uint32_t left, uint32_t *quotas)
{
	for (uint32_t n = 1; left; n++) {
		uint32_t before = left;

		for (uint32_t i = 0; i < table->count && left; i++) {
			if (table->seats[i].room >= n) {
				quotas[table->seats[i].index]++;
				left--;
			}
		}
		if (left == before) {
			break;
		}
	}
	return left;
}

/* What fits nowhere: in proportion to MC, what division leaves one each. */
static void overflow(const struct orc_place_node *nodes, size_t count, uint32_t left,
		     uint32_t *quotas)
{
	double all = 0;
	uint32_t rest = left;

	for (size_t i = 0; i < count; i++) {
		all += nodes[i].alive && nodes[i].capacity > 0 ? nodes[i].capacity : 0;
	}
	if (!(all > 0)) {
		return;
	}
	for (size_t i = 0; i < count; i++) {
		if (nodes[i].alive && nodes[i].capacity > 0) {
			uint32_t share = (uint32_t)(left * (nodes[i].capacity / all));

			share = share < rest ? share : rest;
			quotas[i] += share;
			rest -= share;
		}
	}
	while (rest) {
		for (size_t i = 0; i < count && rest; i++) {
			if (nodes[i].alive && nodes[i].capacity > 0) {
				quotas[i]++;
				rest--;
			}
		}
	}
}

uint32_t orc_place(const struct orc_place_node *nodes, size_t count,
		   const struct orc_place_demand *demand, uint32_t *quotas)
{
	static struct table table; /* of the loop thread */
	uint32_t left = demand->updates;

	memset(quotas, 0, count * sizeof(*quotas));
	count = count < ORC_PLACE_NODES_MAX ? count : ORC_PLACE_NODES_MAX;
	table.count = 0;
	for (size_t i = 0; i < count; i++) {
		uint32_t room = orc_place_room(&nodes[i], demand);

		if (room) {
			table.seats[table.count++] =
				(struct seat){ room, nodes[i].cores, nodes[i].last > 0,
					       (uint32_t)i };
		}
	}
	qsort(table.seats, table.count, sizeof(table.seats[0]), by_room);
	switch (demand->policy) {
	case ORC_PLACE_BESTFIT:
		left = best_fit(&table, left, quotas);
		break;
	case ORC_PLACE_WORSTFIT:
		left = worst_fit(&table, left, quotas);
		break;
	case ORC_PLACE_ROUNDROBIN:
		left = round_robin(&table, left, quotas);
		break;
	}
	overflow(nodes, count, left, quotas);
	return demand->updates - left;
}
