/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/agent/plan.h"

#include <stdio.h>
#include <string.h>

#define PASS          8u  /* inputs of one fused pass: TRIB_FOLD_MAX */
#define OVERHEAD      4.0 /* a leaf's own work is at least so many times its hand-over */
#define CREDIT_MIN    2u
#define RESERVE       4u /* a quarter of the slots is kept free for arrivals */
#define SLACK         1.1
#define LATE_MS       25   /* what waits is looked at every 20 ms */
#define GUESS_BYTES   1000 /* folded per us, before the first measurement */
#define BURST_FOLD_US 1000 /* below, an update is not worth splitting */

/* Rounded up, within bounds. */
static uint32_t clamp(double value, uint32_t least, uint32_t most)
{
	uint32_t whole;

	if (!(value > least)) { /* also what is not a number */
		return least;
	}
	if (value >= most) {
		return most;
	}
	whole = (uint32_t)value;
	return whole < value ? whole + 1 : whole;
}

static uint32_t ceil_div(uint32_t a, uint32_t b)
{
	return a / b + (a % b != 0);
}

static uint32_t fan_in_of(const struct agent_plan_state *s)
{
	if (s->wish.fan_in) {
		return clamp(s->wish.fan_in, 1, AGENT_FAN_IN_MAX);
	}
	if (!(s->fold_us > 0) || !(s->hop_us > 0)) {
		return AGENT_FAN_IN;
	}
	/* A merge that was never seen: two passes' worth of reading and writing sums. */
	return clamp(OVERHEAD * ((s->merge_us > 0 ? s->merge_us : 2 * s->fold_us) + s->hop_us) /
			     s->fold_us,
		     2, AGENT_FAN_IN_MAX);
}

static uint32_t lanes_of(const struct agent_plan_state *s)
{
	return s->lanes ? s->lanes : 1;
}

/* Groups are numbered AGENT_TOP.. up to before this. */
static uint32_t groups_end(const struct agent_plan_state *s)
{
	return AGENT_TOP + (AGENT_FUNCTIONS_MAX - AGENT_TOP) / lanes_of(s);
}

static uint32_t leaves_of(const struct agent_plan_state *s, const struct agent_plan *p)
{
	uint32_t most = groups_end(s) - AGENT_TOP - 1;
	uint32_t least = s->wish.levels == AGENT_LEVELS_MAX ? 2 : 1;

	if (s->wish.levels == 1) {
		return 1;
	}
	if (s->wish.leaves) {
		return clamp(s->wish.leaves, 1, most);
	}
	most = clamp(s->leaves_max / lanes_of(s), 1, most);
	return clamp(p->q / p->fan_in, least, most > least ? most : least);
}

/* How long the hand-over takes once every leaf is done, microseconds. */
static double handover_us(const struct agent_plan_state *s, uint32_t leaves, uint32_t middles)
{
	double merge = s->merge_us > 0 ? s->merge_us : 2 * s->fold_us;
	uint32_t together = middles < s->cores ? middles : s->cores;

	if (middles == 0) {
		return s->hop_us + leaves * merge;
	}
	/* A middle is one of its leaves: it merges the others. */
	return 2 * s->hop_us +
	       ceil_div(middles, together ? together : 1) * (ceil_div(leaves, middles) - 1) *
		       merge +
	       middles * merge;
}

static void levels_of(const struct agent_plan_state *s, struct agent_plan *p)
{
	uint32_t middles = ceil_div(p->leaves, PASS);

	p->top_folds = s->wish.levels == 1 || (s->wish.levels == 0 && s->wish.leaves <= 1);
	if (s->wish.levels == 1 || (p->leaves == 1 && p->top_folds)) {
		p->levels = 1;
		return;
	}
	p->levels = 2;
	if (p->leaves > 1 &&
	    (s->wish.levels == AGENT_LEVELS_MAX ||
	     (s->wish.levels == 0 && s->fold_us > 0 &&
	      handover_us(s, p->leaves, middles) < handover_us(s, p->leaves, 0)))) {
		p->middles = middles;
		p->levels = 3;
	}
}

static uint32_t credit_of(const struct agent_plan_state *s)
{
	double under_way = s->fold_us > 0 && s->hop_us > 0 ? s->hop_us / s->fold_us : PASS;

	return clamp(PASS + under_way, CREDIT_MIN,
		     s->credit_max < CREDIT_MIN ? CREDIT_MIN : s->credit_max);
}

static void take(const struct agent_plan_state *s, struct agent_plan *p, uint32_t i)
{
	p->takes[i] = true;
	p->acts[i] = s->fns[i].live ? AGENT_ACT_REUSE : AGENT_ACT_SPAWN;
}

static bool usable(const struct agent_plan_state *s, uint32_t i)
{
	return !s->fns[i].sealed && !s->fns[i].merged;
}

/* Who takes updates: warm ones first, then those whose memory is there, then new ones. */
static void choose_workers(const struct agent_plan_state *s, struct agent_plan *p)
{
	uint32_t first = p->top_folds ? AGENT_TOP : AGENT_TOP + 1;
	uint32_t left = p->leaves;

	if (p->top_folds && usable(s, AGENT_TOP)) {
		take(s, p, AGENT_TOP); /* it is needed in any case */
		left--;
	}
	for (int turn = 0; turn < 3; turn++) {
		for (uint32_t i = first; i < groups_end(s) && left; i++) {
			const struct agent_plan_fn *fn = &s->fns[i];
			bool fits = turn == 0 ? fn->live : turn == 1 ? fn->holds : true;

			if (!p->takes[i] && fits && usable(s, i)) {
				take(s, p, i);
				left--;
			}
		}
	}
}

static void retire(const struct agent_plan_state *s, struct agent_plan *p)
{
	for (uint32_t i = AGENT_TOP; i < AGENT_FUNCTIONS_MAX; i++) {
		const struct agent_plan_fn *fn = &s->fns[i];

		if (fn->live && !p->takes[i] && !fn->holds && !fn->outstanding && !s->closing &&
		    fn->idle_ms >= s->idle_limit_ms) {
			p->acts[i] = AGENT_ACT_RETIRE;
		}
	}
}

static void explain(const struct agent_plan_state *s, struct agent_plan *p)
{
	const char *how = s->wish.leaves > 1           ? "as asked"
			  : s->wish.levels == 1        ? "one level asked"
			  : p->leaves == 1             ? "one keeps up"
			  : p->leaves >= s->leaves_max ? "as many as may be"
						       : "for what waits";

	(void)snprintf(
		p->why, sizeof(p->why),
		"%u %s, %s: Q %.1f, I %u (fold %.0f us, merge %.0f us, hop %.0f us), credit %u",
		p->leaves, p->leaves == 1 ? "leaf" : "leaves", how, p->q, p->fan_in, s->fold_us,
		s->merge_us, s->hop_us, p->credit);
}

/* Milliseconds for what waits: leaves that hand over, or lanes that do not have to. */
static double by_clients_ms(const struct agent_plan_state *s, uint32_t hands)
{
	double merge = s->merge_us > 0 ? s->merge_us : 2 * s->fold_us;

	return (s->q * s->fold_us / hands + hands * merge + s->hop_us) / 1000;
}

static double by_coordinates_ms(const struct agent_plan_state *s, uint32_t hands)
{
	return (s->q * s->fold_us / hands + s->q * s->hop_us / PASS + s->hop_us) / 1000;
}

uint32_t agent_plan_lanes(const struct agent_plan_state *s, char why[AGENT_WHY_SIZE])
{
	uint32_t most = clamp(s->chunks, 1, AGENT_LANES_MAX);
	uint32_t now = clamp(lanes_of(s), 1, most);
	uint32_t hands = clamp(s->cores, 1, most);
	uint32_t need = s->function_bytes
				? clamp((double)s->sum_bytes / (double)s->function_bytes, 1, most)
				: 1;

	if (s->wish.shards) {
		(void)snprintf(why, AGENT_WHY_SIZE, "as asked");
		return clamp(s->wish.shards, 1, most);
	}
	if (need > now) {
		(void)snprintf(why, AGENT_WHY_SIZE, "a function should hold %llu MiB at most",
			       (unsigned long long)(s->function_bytes >> 20));
		return need;
	}
	if (hands > now && s->wish.leaves <= 1 && s->wish.levels == 0 && s->q >= 2 &&
	    s->fold_us >= BURST_FOLD_US && by_coordinates_ms(s, hands) < by_clients_ms(s, hands)) {
		(void)snprintf(why, AGENT_WHY_SIZE,
			       "a burst of %.0f: %.0f ms by coordinates, %.0f ms by clients", s->q,
			       by_coordinates_ms(s, hands), by_clients_ms(s, hands));
		return hands;
	}
	(void)snprintf(why, AGENT_WHY_SIZE, now > 1 ? "as before" : "one function holds all");
	return now;
}

void agent_plan_make(const struct agent_plan_state *s, struct agent_plan *p)
{
	double alpha = s->wish.alpha > 0 && s->wish.alpha <= 1 ? s->wish.alpha : 1;
	double before = s->q >= 0 && s->q < 1e9 ? s->q : 0;

	memset(p, 0, sizeof(*p));
	p->q = alpha * s->waiting + (1 - alpha) * before;
	p->fan_in = fan_in_of(s);
	p->leaves = leaves_of(s, p);
	levels_of(s, p);
	p->credit = credit_of(s);
	choose_workers(s, p);
	retire(s, p);
	explain(s, p);
}

/* ---- when ---- */

/* Milliseconds until the last update is here; negative: nobody knows. */
static double time_left_ms(const struct agent_plan_state *s)
{
	if (s->goal > s->arrived && s->arrived >= 2 && s->gap_ms > 0) {
		return (s->goal - s->arrived) * s->gap_ms;
	}
	if (s->goal && s->goal <= s->arrived) {
		return 0;
	}
	if (!(s->round_ms > 0)) {
		return -1;
	}
	return s->round_ms > s->age_ms ? s->round_ms - s->age_ms : 0;
}

/* Of those that wait and `coming` ones. */
static double work_ms(const struct agent_plan_state *s, double coming, double fold_us)
{
	uint32_t hands = s->cores < s->leaves_max ? s->cores : s->leaves_max;

	return SLACK * (s->waiting + coming) * fold_us / (hands ? hands : 1) / 1000;
}

static uint32_t to_come(const struct agent_plan_state *s)
{
	return s->goal > s->arrived ? s->goal - s->arrived : 0;
}

bool agent_plan_deadline_nears(const struct agent_plan_state *s)
{
	double fold_us = s->fold_us > 0 ? s->fold_us : (double)s->payload / GUESS_BYTES;
	double coming = s->gap_ms > 0 ? s->left_ms / s->gap_ms : 0;

	if (!(s->left_ms > 0)) {
		return false;
	}
	coming = coming < to_come(s) ? coming : to_come(s);
	return s->left_ms <= work_ms(s, coming, fold_us) + LATE_MS;
}

bool agent_plan_hold(const struct agent_plan_state *s)
{
	double left;

	if (s->wish.policy == AGENT_EAGER || s->closing ||
	    (uint64_t)s->slots_free * RESERVE <= s->slots) {
		return false;
	}
	if (s->wish.policy == AGENT_LAZY) {
		return true;
	}
	if (s->begun) {
		return false;
	}
	left = time_left_ms(s);
	return (left < 0 || left > work_ms(s, to_come(s), s->fold_us)) &&
	       !agent_plan_deadline_nears(s);
}

/* ---- the tree ---- */

void agent_plan_tree(const struct agent_plan_state *s, uint32_t levels, struct agent_plan_tree *t)
{
	uint32_t members[AGENT_FUNCTIONS_MAX];
	uint32_t middle[AGENT_FUNCTIONS_MAX] = { 0 };
	uint32_t count = 0;
	uint32_t groups;

	memset(t, 0, sizeof(*t));
	t->role[AGENT_TOP] = AGENT_ROLE_TOP;
	t->levels = 1;
	for (uint32_t i = AGENT_TOP + 1; i < AGENT_FUNCTIONS_MAX; i++) {
		if (s->fns[i].holds && !s->fns[i].merged) {
			members[count++] = i;
		}
	}
	groups = levels >= AGENT_LEVELS_MAX && count > 1 ? ceil_div(count, PASS) : 0;
	for (uint32_t k = 0; k < count && groups; k++) {
		if (!s->fns[members[k]].sealed && !middle[k % groups]) {
			middle[k % groups] = members[k];
		}
	}
	for (uint32_t k = 0; k < count; k++) {
		uint32_t i = members[k];
		uint32_t above = groups ? middle[k % groups] : 0;

		t->parent[i] = (uint8_t)(above && above != i ? above : AGENT_TOP);
		t->children[t->parent[i]]++;
	}
	for (uint32_t k = 0; k < count; k++) {
		uint32_t i = members[k];
		bool parent = t->children[i] > 0;

		t->role[i] = parent ? AGENT_ROLE_MIDDLE : AGENT_ROLE_LEAF;
		t->levels = parent ? 3 : t->levels < 2 ? 2 : t->levels;
	}
}
