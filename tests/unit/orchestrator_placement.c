/* SPDX-License-Identifier: Apache-2.0
 * Placement with random nodes: what must hold for every policy, what each promises, a few that are
 * known, and how long it takes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "orchestrator/placement.c"

#define CASES 4000
#define NODES 12

static uint64_t seed = 88172645463325252ull;

static uint32_t any(uint32_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 16) % below;
}

static void random_nodes(struct orc_place_node *nodes, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		nodes[i] = (struct orc_place_node){
			.capacity = any(4) ? any(40) + any(10) / 10.0 : 0,
			.arrivals = any(3) ? 0 : any(20),
			.seconds = any(10) / 5.0,
			.nic_bytes_s = any(3) ? 0 : any(100) * 1e6,
			.cores = any(4),
			.last = any(3) ? 0 : any(30),
			.alive = any(5) != 0,
		};
	}
}

static uint64_t sum(const uint32_t *quotas, size_t count)
{
	uint64_t all = 0;

	for (size_t i = 0; i < count; i++) {
		all += quotas[i];
	}
	return all;
}

static uint32_t used(const uint32_t *quotas, size_t count)
{
	uint32_t n = 0;

	for (size_t i = 0; i < count; i++) {
		n += quotas[i] > 0;
	}
	return n;
}

/* The fewest nodes whose rooms hold `updates`, by trying every set of them. */
static uint32_t fewest(const uint32_t *rooms, size_t count, uint32_t updates)
{
	uint32_t best = UINT32_MAX;

	for (uint32_t set = 0; set < 1u << count; set++) {
		uint64_t held = 0;

		for (size_t i = 0; i < count; i++) {
			held += set >> i & 1 ? rooms[i] : 0;
		}
		if (held >= updates && (uint32_t)__builtin_popcount(set) < best) {
			best = (uint32_t)__builtin_popcount(set);
		}
	}
	return best;
}

static void check_worst_fit(const uint32_t *quotas, const uint32_t *rooms, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		for (size_t j = 0; j < count; j++) {
			/* no update would have more room elsewhere */
			assert_false(quotas[i] && rooms[j] - quotas[j] > rooms[i] - quotas[i] + 1);
		}
	}
}

static void check_round_robin(const uint32_t *quotas, const uint32_t *rooms, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		for (size_t j = 0; j < count; j++) {
			assert_false(quotas[i] > quotas[j] + 1 && quotas[j] < rooms[j]);
		}
	}
}

static void check_case(size_t count)
{
	struct orc_place_node nodes[NODES] = { 0 };
	uint32_t quotas[NODES];
	uint32_t rooms[NODES];
	struct orc_place_demand demand = { .updates = any(200),
					   .policy = (enum orc_place_policy)any(3),
					   .update_bytes = 1e6 * (1 + any(50)),
					   .window_s = any(3) };
	bool usable = false;
	uint64_t room = 0;
	uint32_t fit;

	random_nodes(nodes, count);
	for (size_t i = 0; i < count; i++) {
		rooms[i] = orc_place_room(&nodes[i], &demand);
		assert_true(rooms[i] <= nodes[i].capacity + 0.5);
		room += rooms[i];
		usable = usable || (nodes[i].alive && nodes[i].capacity > 0);
	}
	fit = orc_place(nodes, count, &demand, quotas);
	assert_int_equal(sum(quotas, count), usable ? demand.updates : 0);
	assert_int_equal(fit, room < demand.updates ? room : demand.updates);
	for (size_t i = 0; i < count; i++) {
		assert_true(quotas[i] == 0 || (nodes[i].alive && nodes[i].capacity > 0));
		assert_true(room < demand.updates || quotas[i] <= rooms[i]);
		assert_true(room >= demand.updates || quotas[i] >= rooms[i] || !usable);
	}
	if (room < demand.updates) {
		return;
	}
	switch (demand.policy) {
	case ORC_PLACE_BESTFIT:
		assert_int_equal(used(quotas, count), fewest(rooms, count, demand.updates));
		break;
	case ORC_PLACE_WORSTFIT:
		check_worst_fit(quotas, rooms, count);
		break;
	case ORC_PLACE_ROUNDROBIN:
		check_round_robin(quotas, rooms, count);
		break;
	}
}

static void test_any_nodes(void **state)
{
	(void)state;
	for (int i = 0; i < CASES; i++) {
		check_case(1 + any(NODES));
	}
}

static void test_known(void **state)
{
	struct orc_place_node five[5];
	struct orc_place_demand demand = { .updates = 20 };
	uint32_t quotas[5];

	(void)state;
	for (int i = 0; i < 5; i++) {
		five[i] = (struct orc_place_node){ .capacity = 20, .alive = true };
	}
	assert_int_equal(orc_place(five, 5, &demand, quotas), 20);
	assert_int_equal(quotas[0], 20); /* all are tight alike: the first, */
	five[3].last = 20;               /* and once it has worked the same again, */
	five[3].arrivals = 9;            /* whatever it had in hand then */
	five[3].seconds = 2;
	demand.over = true;
	(void)orc_place(five, 5, &demand, quotas);
	assert_int_equal(quotas[3], 20);
	five[3].arrivals = 12; /* 4 of another job's */
	assert_int_equal(orc_place_room(&five[3], &demand), 16);
	(void)orc_place(five, 5, &demand, quotas);
	assert_int_equal(quotas[3], 0);
	five[3] = five[2];
	demand.over = false;
	demand.updates = 60;
	assert_int_equal(orc_place(five, 5, &demand, quotas), 60);
	assert_int_equal(used(quotas, 5), 3);
	demand.policy = ORC_PLACE_WORSTFIT;
	assert_int_equal(orc_place(five, 5, &demand, quotas), 60);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(quotas[i], 12);
	}
	five[4].arrivals = 8; /* RC = 20 - 8 * 2 */
	five[4].seconds = 2;
	assert_int_equal(orc_place_room(&five[4], &demand), 4);
	demand = (struct orc_place_demand){ .updates = 4 };
	(void)orc_place(five, 5, &demand, quotas);
	assert_int_equal(quotas[4], 4); /* fits exactly: the idle ones stay idle */
	five[4].nic_bytes_s = 1e8;      /* 8 * 10 MB/s are taken: 2 more in a second */
	demand.update_bytes = 1e7;
	demand.window_s = 1;
	assert_int_equal(orc_place_room(&five[4], &demand), 2);
	(void)orc_place(five, 5, &demand, quotas);
	assert_int_equal(quotas[4], 0);
	assert_int_equal(used(quotas, 5), 1);
}

static void test_fast(void **state)
{
	static struct orc_place_node nodes[500];
	static uint32_t quotas[500];
	static const char *const names[] = { "bestfit", "worstfit", "roundrobin" };

	(void)state;
	for (int policy = 0; policy < 3; policy++) {
		struct orc_place_demand demand = { .updates = 10000,
						   .policy = (enum orc_place_policy)policy,
						   .update_bytes = 44.7e6,
						   .window_s = 10 };
		uint64_t best = UINT64_MAX;

		for (int turn = 0; turn < 20; turn++) {
			uint64_t began;

			for (int i = 0; i < 500; i++) {
				nodes[i] = (struct orc_place_node){ .capacity = 10 + any(40),
								    .arrivals = any(10),
								    .seconds = 0.5,
								    .nic_bytes_s = 1.25e9,
								    .cores = 8,
								    .alive = true };
			}
			began = trib_clock_ns();
			(void)orc_place(nodes, 500, &demand, quotas);
			began = trib_clock_ns() - began;
			best = began < best ? began : best;
			assert_int_equal(sum(quotas, 500), 10000);
		}
		(void)printf("10000 clients over 500 nodes, %s: %.3f ms\n", names[policy],
			     (double)best / 1e6);
		assert_true(best < 5000000); /* of 20: about 0.05 ms here */
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_any_nodes),
		cmocka_unit_test(test_known),
		cmocka_unit_test(test_fast),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
