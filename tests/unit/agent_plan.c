/* SPDX-License-Identifier: Apache-2.0
 * The planner with random states: what must hold for every one of them, and a few that are known.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "orchestrator/agent/plan.c"

#define STATES 20000

static uint64_t seed = 88172645463325252ull;

static uint32_t any(uint32_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 16) % below;
}

static double any_time(void)
{
	return any(3) ? (double)any(1u << any(24)) : 0;
}

static void random_fn(struct agent_plan_fn *fn)
{
	fn->live = any(2);
	fn->holds = any(2);
	fn->sealed = fn->holds && any(4) == 0;
	fn->merged = fn->sealed && any(2);
	fn->outstanding = fn->live && any(2) ? any(16) : 0;
	fn->idle_ms = any(20000);
}

static struct agent_plan_state random_state(void)
{
	struct agent_plan_state s = {
		.wish = { .levels = any(4),
			  .leaves = any(2) ? 0 : any(65),
			  .fan_in = any(2) ? 0 : any(65),
			  .policy = (enum agent_policy)any(3),
			  .replan_ms = 100,
			  .alpha = 0.01 + 0.99 * any(100) / 99 },
		.q = any(2000),
		.waiting = any(2000),
		.closing = any(2),
		.begun = any(2),
		.arrived = any(100),
		.goal = any(100),
		.gap_ms = any_time(),
		.age_ms = any_time(),
		.round_ms = any_time(),
		.left_ms = any_time(),
		.payload = any(1u << 30),
		.slots = 1 + any(100),
		.fold_us = any_time(),
		.merge_us = any_time(),
		.hop_us = any_time(),
		.cores = any(65),
		.leaves_max = 1 + any(63),
		.credit_max = 1 + any(32),
		.idle_limit_ms = 10000,
		.lanes = any(AGENT_LANES_MAX + 1),
		.chunks = any(40),
		.sum_bytes = any(1u << 30),
		.function_bytes = any(1u << 30),
	};

	s.wish.shards = any(2) ? 0 : 1 + any(AGENT_LANES_MAX);

	s.slots_free = any(s.slots + 1);
	for (uint32_t i = AGENT_TOP, high = any(AGENT_FUNCTIONS_MAX); i <= high; i++) {
		random_fn(&s.fns[i]);
	}
	s.fns[AGENT_TOP].merged = false;
	return s;
}

static uint32_t takers(const struct agent_plan *p)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < AGENT_FUNCTIONS_MAX; i++) {
		count += p->takes[i];
	}
	return count;
}

static void numbers_are_sane(const struct agent_plan_state *s, const struct agent_plan *p)
{
	double q = s->wish.alpha * s->waiting + (1 - s->wish.alpha) * s->q;

	assert_true(p->q > q - 1e-6 && p->q < q + 1e-6);
	assert_in_range(p->fan_in, 1, AGENT_FAN_IN_MAX);
	assert_in_range(p->leaves, 1, AGENT_FUNCTIONS_MAX - 2);
	assert_in_range(p->levels, 1, AGENT_LEVELS_MAX);
	assert_in_range(p->credit, 2, s->credit_max < 2 ? 2 : s->credit_max);
	assert_true(s->wish.fan_in == 0 || p->fan_in == s->wish.fan_in);
	if (s->wish.levels == 1) {
		assert_int_equal(p->leaves, 1);
		assert_int_equal(p->levels, 1);
	} else if (s->wish.leaves) {
		uint32_t most = groups_end(s) - AGENT_TOP - 1;

		assert_int_equal(p->leaves, s->wish.leaves < most ? s->wish.leaves : most);
	} else {
		uint32_t least = s->wish.levels == 3 ? 2 : 1;
		uint32_t want = clamp(p->q / p->fan_in, least, 1000000);

		uint32_t most =
			clamp(s->leaves_max / lanes_of(s), 1, groups_end(s) - AGENT_TOP - 1);

		assert_true(p->leaves == want || p->leaves == most ||
			    (most < least && p->leaves == least));
	}
	assert_true(s->wish.levels != 2 || p->levels == 2);
	assert_true(s->wish.levels != 3 || p->leaves == 1 || p->levels == 3);
	assert_int_equal(p->middles != 0, p->levels == 3);
	assert_true(p->middles * PASS >= p->leaves || p->middles == 0);
	assert_true(strlen(p->why) > 10);
}

static void workers_are_right(const struct agent_plan_state *s, const struct agent_plan *p)
{
	bool cold = false;
	bool warm_left = false;

	assert_true(takers(p) <= p->leaves);
	assert_true(p->top_folds || !p->takes[AGENT_TOP]);
	assert_false(p->takes[0]);
	for (uint32_t i = AGENT_TOP; i < AGENT_FUNCTIONS_MAX; i++) {
		const struct agent_plan_fn *fn = &s->fns[i];

		assert_int_equal(p->takes[i],
				 p->acts[i] == AGENT_ACT_REUSE || p->acts[i] == AGENT_ACT_SPAWN);
		if (p->takes[i]) {
			assert_false(fn->sealed || fn->merged);
			assert_int_equal(fn->live, p->acts[i] == AGENT_ACT_REUSE);
			cold |= !fn->live && i != AGENT_TOP;
		} else if (fn->live && !fn->sealed && !fn->merged && i != AGENT_TOP &&
			   i < groups_end(s)) {
			warm_left = true;
		}
		if (p->acts[i] == AGENT_ACT_RETIRE) {
			assert_true(fn->live && !fn->holds && !fn->outstanding && !s->closing);
			assert_true(fn->idle_ms >= s->idle_limit_ms);
		}
	}
	for (uint32_t i = groups_end(s); i < AGENT_FUNCTIONS_MAX; i++) {
		assert_false(p->takes[i]);
	}
	assert_false(cold && warm_left); /* warm ones before any is spawned */
}

static void tree_is_one(const struct agent_plan_state *s, uint32_t levels)
{
	struct agent_plan_tree t;
	uint32_t deepest = 1;

	agent_plan_tree(s, levels, &t);
	assert_int_equal(t.parent[AGENT_TOP], 0);
	assert_int_equal(t.role[AGENT_TOP], AGENT_ROLE_TOP);
	for (uint32_t i = AGENT_TOP + 1; i < AGENT_FUNCTIONS_MAX; i++) {
		bool in = s->fns[i].holds && !s->fns[i].merged;
		uint32_t steps = 1;

		assert_int_equal(in, t.parent[i] != 0);
		assert_int_equal(in, t.role[i] != AGENT_ROLE_NONE);
		assert_int_equal(t.children[i] > 0, t.role[i] == AGENT_ROLE_MIDDLE);
		assert_false(t.children[i] && s->fns[i].sealed);
		assert_true(t.children[i] < PASS);
		for (uint32_t at = i; in && at != AGENT_TOP; at = t.parent[at]) {
			assert_int_not_equal(t.parent[at], 0);
			assert_true(++steps <= levels || levels < 2);
		}
		deepest = in && steps > deepest ? steps : deepest;
	}
	assert_int_equal(t.levels, deepest);
}

static void test_any_state_gives_a_sound_plan(void **state)
{
	(void)state;
	for (int i = 0; i < STATES; i++) {
		struct agent_plan_state s = random_state();
		struct agent_plan p;
		struct agent_plan again;

		agent_plan_make(&s, &p);
		numbers_are_sane(&s, &p);
		workers_are_right(&s, &p);
		tree_is_one(&s, 1 + any(3));
		agent_plan_make(&s, &again);
		assert_memory_equal(&p, &again, sizeof(p));
	}
}

static void test_more_waiting_never_means_fewer_leaves(void **state)
{
	(void)state;
	for (int i = 0; i < STATES; i++) {
		struct agent_plan_state s = random_state();
		struct agent_plan few;
		struct agent_plan many;

		agent_plan_make(&s, &few);
		s.waiting += any(500);
		agent_plan_make(&s, &many);
		assert_true(many.leaves >= few.leaves);
		s.hop_us *= 2; /* a dearer hand-over: leaves that do more */
		agent_plan_make(&s, &few);
		assert_true(few.fan_in >= many.fan_in);
		assert_true(few.leaves <= many.leaves);
	}
}

static void test_updates_wait_only_as_the_policy_says(void **state)
{
	(void)state;
	for (int i = 0; i < STATES; i++) {
		struct agent_plan_state s = random_state();
		bool hold = agent_plan_hold(&s);

		if (s.closing || s.wish.policy == AGENT_EAGER || s.slots_free * 4 <= s.slots) {
			assert_false(hold);
		} else if (s.wish.policy == AGENT_LAZY) {
			assert_true(hold);
		} else {
			assert_false(hold && s.begun);
			assert_false(hold && s.goal && s.arrived >= s.goal);
		}
		if (!hold) { /* time passes: what was due stays due */
			s.age_ms += any(10000);
			assert_false(agent_plan_hold(&s));
		}
	}
}

static void test_just_in_time_begins_when_the_work_left_fills_the_time_left(void **state)
{
	struct agent_plan_state s = {
		.wish = { .policy = AGENT_JUST_IN_TIME },
		.arrived = 10,
		.goal = 110,
		.waiting = 10,
		.gap_ms = 10, /* the last one in a second */
		.slots = 200,
		.slots_free = 190,
		.cores = 1,
		.leaves_max = 1,
	};

	(void)state;
	s.fold_us = 1000; /* 110 ms of work */
	assert_true(agent_plan_hold(&s));
	s.fold_us = 10000; /* 1.1 s */
	assert_false(agent_plan_hold(&s));
	s.cores = 4;
	s.leaves_max = 4; /* 0.3 s */
	assert_true(agent_plan_hold(&s));
	s.arrived = 90;
	s.waiting = 90;
	assert_false(agent_plan_hold(&s));
}

/* A round of random arrivals that ends with its goal or its deadline, looked at every 20 ms:
 * folding begins so that it is over by then, and not long before it must. */
static void test_just_in_time_is_over_when_the_round_is(void **state)
{
	(void)state;
	for (int i = 0; i < 2000; i++) {
		double gap = 1 + any(60);
		uint32_t goal = 4 + any(200);
		double deadline = 200 + any(8000);
		uint32_t hands = 1 + any(8);
		double close = goal * gap < deadline ? goal * gap : deadline;
		double most = 1e3 * hands * close / 2 / goal; /* half of the time, to be feasible */
		struct agent_plan_state s = {
			.wish = { .policy = AGENT_JUST_IN_TIME },
			.goal = goal,
			.gap_ms = gap,
			.slots = 1000,
			.slots_free = 999,
			.cores = hands,
			.leaves_max = hands,
			.fold_us = 1 + any((uint32_t)most + 1),
			.payload = 4,
		};
		double now = 0;
		double all;
		double work;

		do {
			now += 20;
			s.arrived = (uint32_t)(now / gap) < goal ? (uint32_t)(now / gap) : goal;
			s.waiting = s.arrived;
			s.left_ms = deadline > now ? deadline - now : 1;
		} while (now < close && agent_plan_hold(&s));
		all = close / gap < goal ? close / gap : goal;
		work = all * s.fold_us / hands / 1e3;
		assert_true(now + work <= close + 25 + gap + 0.02 * work);
		/* Not before it must: a tenth to be safe, and what its grain is. */
		assert_true(now >= close - 1.1 * (work + s.fold_us / 1e3) - 45 - 2 * gap);
	}
}

static void test_the_deadline_of_a_first_round_is_met_by_a_guess(void **state)
{
	struct agent_plan_state s = {
		.wish = { .policy = AGENT_JUST_IN_TIME },
		.waiting = 100,
		.goal = 1000,
		.arrived = 100,
		.slots = 1000,
		.slots_free = 900,
		.cores = 1,
		.leaves_max = 1,
		.payload = 10000000, /* 10 ms each */
		.left_ms = 2000,
	};

	(void)state;
	assert_true(agent_plan_hold(&s));
	s.left_ms = 1100;
	assert_false(agent_plan_hold(&s));
	s.left_ms = 0; /* nobody knows: when it closes */
	assert_true(agent_plan_hold(&s));
}

static void test_lanes_fit_the_model_and_never_shrink_by_themselves(void **state)
{
	char why[AGENT_WHY_SIZE];

	(void)state;
	for (int i = 0; i < STATES; i++) {
		struct agent_plan_state s = random_state();
		uint32_t most = clamp(s.chunks, 1, AGENT_LANES_MAX);
		uint32_t lanes = agent_plan_lanes(&s, why);

		assert_in_range(lanes, 1, most);
		if (s.wish.shards) {
			assert_int_equal(lanes, s.wish.shards < most ? s.wish.shards : most);
		} else {
			assert_true(lanes >= lanes_of(&s) || lanes == most);
			assert_true(!s.function_bytes || lanes == most ||
				    (uint64_t)lanes * s.function_bytes >= s.sum_bytes);
		}
		assert_true(why[0]);
	}
}

static void test_a_burst_of_large_updates_is_split_by_coordinates(void **state)
{
	struct agent_plan_state s = { .cores = 4,
				      .leaves_max = 4,
				      .chunks = 1000,
				      .q = 8,
				      .fold_us = 20000,
				      .merge_us = 50000,
				      .hop_us = 100 };
	char why[AGENT_WHY_SIZE];

	(void)state;
	assert_int_equal(agent_plan_lanes(&s, why), 4);
	assert_non_null(strstr(why, "burst"));
	s.cores = 1; /* nobody to share with */
	assert_int_equal(agent_plan_lanes(&s, why), 1);
	s.cores = 4;
	s.q = 1; /* no burst */
	assert_int_equal(agent_plan_lanes(&s, why), 1);
	s.q = 8;
	s.fold_us = 10; /* not worth it */
	assert_int_equal(agent_plan_lanes(&s, why), 1);
}

static void test_known_states(void **state)
{
	struct agent_plan_state s = { .wish = { .alpha = 0.7 },
				      .waiting = 40,
				      .cores = 8,
				      .leaves_max = 16,
				      .credit_max = 32 };
	struct agent_plan p;

	(void)state;
	agent_plan_make(&s, &p); /* nothing measured: Q = 28, I = 8 */
	assert_int_equal(p.leaves, 4);
	assert_int_equal(p.acts[AGENT_TOP], AGENT_ACT_SPAWN);
	s.fold_us = 2; /* a tiny model: handing over costs more than folding */
	s.merge_us = 4;
	s.hop_us = 60;
	agent_plan_make(&s, &p);
	assert_int_equal(p.leaves, 1);
	assert_int_equal(p.levels, 1);
	s.fold_us = 20000; /* a large one: more leaves, less in hand */
	s.merge_us = 40000;
	agent_plan_make(&s, &p);
	assert_int_equal(p.fan_in, 9);
	assert_int_equal(p.leaves, 4);
	assert_int_equal(p.credit, 9);
	s.waiting = 1000; /* 64 children in one row would take longer than two levels */
	s.leaves_max = 63;
	agent_plan_make(&s, &p);
	assert_int_equal(p.levels, 3);
	assert_int_equal(p.middles, 8);
	s.wish.levels = 2;
	agent_plan_make(&s, &p);
	assert_int_equal(p.middles, 0);
}

static void test_a_warm_leaf_becomes_the_parent_of_others(void **state)
{
	struct agent_plan_state s = { 0 };
	struct agent_plan_tree t;

	(void)state;
	for (uint32_t i = 2; i <= 5; i++) {
		s.fns[i].live = true;
		s.fns[i].holds = true;
	}
	s.fns[2].sealed = true; /* has been told to hand over: cannot take others */
	agent_plan_tree(&s, 3, &t);
	assert_int_equal(t.role[3], AGENT_ROLE_MIDDLE);
	assert_int_equal(t.parent[3], AGENT_TOP);
	assert_int_equal(t.parent[2], 3);
	assert_int_equal(t.parent[4], 3);
	assert_int_equal(t.parent[5], 3);
	assert_int_equal(t.levels, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_any_state_gives_a_sound_plan),
		cmocka_unit_test(test_more_waiting_never_means_fewer_leaves),
		cmocka_unit_test(test_updates_wait_only_as_the_policy_says),
		cmocka_unit_test(test_just_in_time_begins_when_the_work_left_fills_the_time_left),
		cmocka_unit_test(test_just_in_time_is_over_when_the_round_is),
		cmocka_unit_test(test_the_deadline_of_a_first_round_is_met_by_a_guess),
		cmocka_unit_test(test_lanes_fit_the_model_and_never_shrink_by_themselves),
		cmocka_unit_test(test_a_burst_of_large_updates_is_split_by_coordinates),
		cmocka_unit_test(test_known_states),
		cmocka_unit_test(test_a_warm_leaf_becomes_the_parent_of_others),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
