/* SPDX-License-Identifier: Apache-2.0
 * The planner: what a job's functions on this node should be, as pure functions (state in, plan
 * out; no clock, no memory of its own, no I/O), so that it can be tested with any state. The agent
 * measures, asks, and acts (tree.c, rounds.c).
 *
 *   fan-in I   a leaf should fold so many updates that handing its sum over costs at most a quarter
 *              of its own work:  I = ceil(4 * (merge + hop) / fold)   (8 before anything is known)
 *   leaves     ceil(Q / I), Q the moving average of the updates that wait; as many as may be
 *   middles    one for every eight leaves (one fused pass), when that ends sooner or is asked for
 *   top        one; with one leaf it is that leaf
 *   credit     one fused pass in hand, and what arrives while an acknowledgement is under way
 */
#ifndef TRIB_AGENT_PLAN_H
#define TRIB_AGENT_PLAN_H

#include "common/base.h"

#define AGENT_FUNCTIONS_MAX 65u /* per job; [0] unused, [1] the top, [2..] leaves */
#define AGENT_TOP           1u
#define AGENT_FAN_IN        8u /* before the first measurement */
#define AGENT_FAN_IN_MAX    64u
#define AGENT_LEVELS_MAX    3u
#define AGENT_LANES_MAX     16u
#define AGENT_WHY_SIZE      160

enum agent_policy {
	AGENT_EAGER,       /* fold what comes when it comes */
	AGENT_LAZY,        /* once the round closes, or slots get few */
	AGENT_JUST_IN_TIME /* so that folding ends about when the round closes: last update or
			      deadline */
};

enum agent_role {
	AGENT_ROLE_NONE,
	AGENT_ROLE_LEAF,
	AGENT_ROLE_MIDDLE,
	AGENT_ROLE_TOP
};

enum agent_act {
	AGENT_ACT_NONE,
	AGENT_ACT_REUSE,  /* alive and idle: takes updates */
	AGENT_ACT_SPAWN,  /* to be started when it gets its first update */
	AGENT_ACT_RETIRE, /* alive, empty, idle for long: its process goes */
};

struct agent_plan_wish { /* the spec's `hierarchy`; 0 = the planner's choice */
	uint32_t levels;
	uint32_t leaves;
	uint32_t fan_in;
	uint32_t shards;
	enum agent_policy policy;
	uint32_t replan_ms;
	double alpha; /* weight of the newest sample in Q, (0, 1] */
};

struct agent_plan_fn {
	bool live;   /* a process is there, or coming */
	bool holds;  /* its partial has something of this round that no parent has */
	bool sealed; /* of this round: takes nothing any more */
	bool merged; /* a parent has it: done with in this round */
	uint32_t outstanding;
	uint64_t idle_ms; /* since it had work */
};

struct agent_plan_state {
	struct agent_plan_wish wish;
	double q;         /* the average so far */
	uint32_t waiting; /* updates that wait now */
	bool closing;
	/* for just-in-time */
	bool begun;       /* it began in this round: does not stop again */
	uint32_t arrived; /* of this round, on this node */
	uint32_t goal;    /* updates that close the round; 0 unknown */
	double gap_ms;    /* mean time between arrivals; 0 unknown */
	double age_ms;    /* of the round */
	double round_ms;  /* how long rounds were open so far; 0 unknown */
	double left_ms;   /* to the round's deadline; 0 unknown */
	uint64_t payload; /* bytes of an update */
	uint32_t slots;
	uint32_t slots_free;
	/* measured; 0 unknown */
	double fold_us;  /* one update */
	double merge_us; /* one child's partial */
	double hop_us;   /* a descriptor there and its answer back */
	uint32_t cores;
	uint32_t leaves_max; /* when the plan is automatic */
	uint32_t credit_max;
	uint64_t idle_limit_ms;
	/* the shape: functions come in groups, one of each lane (a range of coordinates) */
	uint32_t lanes;  /* as they are; 0 = 1 */
	uint32_t chunks; /* pieces a vector can be cut into */
	uint64_t sum_bytes;
	uint64_t function_bytes; /* of sums that one function should hold; 0 = any */
	struct agent_plan_fn fns[AGENT_FUNCTIONS_MAX];
};

struct agent_plan {
	double q;
	uint32_t fan_in;
	uint32_t leaves;
	uint32_t middles; /* 0: leaves hand over to the top */
	uint32_t levels;
	uint32_t credit;
	bool top_folds; /* the top is a leaf until the round closes */
	bool takes[AGENT_FUNCTIONS_MAX];
	uint8_t acts[AGENT_FUNCTIONS_MAX]; /* enum agent_act */
	char why[AGENT_WHY_SIZE];
};

struct agent_plan_tree {
	uint32_t levels;                        /* that there are */
	uint8_t parent[AGENT_FUNCTIONS_MAX];    /* 0: none (the top, or nothing to hand over) */
	uint8_t role[AGENT_FUNCTIONS_MAX];      /* enum agent_role */
	uint32_t children[AGENT_FUNCTIONS_MAX]; /* how many hand over to it */
};

/* How many lanes a round should begin with: as asked; as many as it takes for a function to hold
 * its range; or one for each core, if a burst ends sooner when split by coordinates than by
 * clients. Never fewer than there are. Indices of `fns` and of plans are groups, not functions. */
uint32_t agent_plan_lanes(const struct agent_plan_state *state, char why[AGENT_WHY_SIZE]);
void agent_plan_make(const struct agent_plan_state *state, struct agent_plan *ret_plan);
/* Shall updates wait (lazy, just-in-time)? */
bool agent_plan_hold(const struct agent_plan_state *state);
/* Just-in-time: what is here would not be folded by the deadline if it waited longer. */
bool agent_plan_deadline_nears(const struct agent_plan_state *state);
/* The round closed: who hands over to whom. `levels` as planned; a sealed function is nobody's
 * parent, the top is everybody's. */
void agent_plan_tree(const struct agent_plan_state *state, uint32_t levels,
		     struct agent_plan_tree *ret_tree);

#endif
