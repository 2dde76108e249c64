/* SPDX-License-Identifier: Apache-2.0
 * One journaled op on a partial: up to TRIB_OP_MAX inputs, chunk by chunk through fused kernels. No
 * I/O, no descriptors: memory in, accumulator out. Blocking for as long as the sums take; owner's
 * thread only.
 */
#ifndef TRIB_AGGREGATOR_FOLD_H
#define TRIB_AGGREGATOR_FOLD_H

#include "aggregator/kernels.h"
#include "shm/partial.h"

_Static_assert(AGG_KERNEL_INPUTS == TRIB_FOLD_MAX, "a kernel for every op");

struct agg_input {
	/* UPDATE: `elements` floats; PARTIAL: a child's accumulator of the same kind; NULL: a child
	 * that holds nothing. Borrowed, read in place. */
	const void *data;
	bool partial;
	bool minus;      /* UPDATE: taken out again instead of folded in; exact: the same sums */
	uint64_t weight; /* fixed point; UPDATE only (a partial's sums are weighted already) */
};

struct agg_folder {
	const struct agg_kernels *kernels;
	struct trib_partial *partial; /* writable */
	uint32_t scale_bits;
	uint32_t delay_us; /* tests: pause after each chunk */
	uint32_t poison;   /* tests: a chunk that begins with these bits kills; 0 = none */
	/* Tests: told after every step; NULL in production. */
	void (*on_step)(void *arg, const char *step, uint32_t chunk);
	void *arg;
};

/* Carries the partial's active op on from `chunk` to its end. inputs[i] is what op item i names. */
void agg_fold_run(const struct agg_folder *folder, const struct agg_input *inputs, uint32_t count,
		  uint32_t chunk);
/* Takes the active op out of the sums again (trib_partial_back), from wherever that stands. */
void agg_fold_back(const struct agg_folder *folder, const struct agg_input *inputs, uint32_t count);
/* Updates into elements [from, from + size) of the sums, at once and without a journal: for sums
 * that nothing depends on yet (follow.h). first: overwrites. */
void agg_fold_plain(const struct agg_folder *folder, const struct agg_input *inputs, uint32_t count,
		    bool first, uint64_t from, size_t size);

#endif
