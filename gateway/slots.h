/* SPDX-License-Identifier: Apache-2.0
 * A job's mapped segment and the stack of its slots believed free (process memory, LIFO so that
 * warm pages are used first). The truth is the slot word: whatever the stack says, a slot is ours
 * only after the compare-and-swap FREE -> FILLING. Reference-counted, any thread.
 */
#ifndef TRIB_GATEWAY_SLOTS_H
#define TRIB_GATEWAY_SLOTS_H

#include <pthread.h>

#include "gateway/line.h"
#include "shm/segment.h"

#define GW_NODE_SIZE 64
#define GW_RESCAN_MS 20 /* at most 50 scans of ctl a second */

struct gw_slots {
	int refs;     /* atomic */
	bool retired; /* atomic: replaced by another segment, or the job is gone */
	struct trib_segment segment;
	char node[GW_NODE_SIZE]; /* the agent's name for this node: part of `place` */
	pthread_mutex_t lock;    /* guards what follows */
	uint32_t *stack;
	uint32_t count;
	uint8_t *flags;     /* per slot: in the stack, held by an upload of this process */
	uint32_t *taken_ms; /* per slot: when, modulo 2^32; 0: not by this process */
	uint64_t scanned_ms;
	struct gw_line line;
};

/* Takes the segment (also on failure), one reference for the caller. Scans for free slots. Main. */
TRIB_MUST_CHECK int gw_slots_new(struct trib_segment *segment, const char *node,
				 struct gw_slots **ret_slots);
struct gw_slots *gw_slots_get(struct gw_slots *slots);
struct gw_slots *gw_slots_put(struct gw_slots *slots); /* NULL allowed; returns NULL */
void gw_slots_retire(struct gw_slots *slots);
bool gw_slots_retired(const struct gw_slots *slots);

/* A slot FILLING and ours: 0, or -ENOBUFS (none free now). */
TRIB_MUST_CHECK int gw_slots_take(struct gw_slots *slots, uint32_t *ret_slot, uint32_t *ret_gen);
/* For a client that got none: how long it stays away, before jitter. */
uint64_t gw_slots_wait_ms(struct gw_slots *slots);
/* Our slot goes back from state `from` to FREE. */
void gw_slots_abort(struct gw_slots *slots, uint32_t slot, uint32_t gen, enum trib_slot_state from);
/* Our slot belongs to the agent from now on (CLAIMED, or lost). */
void gw_slots_leave(struct gw_slots *slots, uint32_t slot);
/* The agent says the slot is free: only a hint. */
void gw_slots_hint(struct gw_slots *slots, uint32_t slot);
/* Adds how many slots are in each state to counts. */
void gw_slots_states(const struct gw_slots *slots, int64_t counts[4]);

#endif
