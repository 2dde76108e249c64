/* SPDX-License-Identifier: Apache-2.0
 * What a function has been given: its job's segment, its own partial, its children's, base and
 * out. Fed by the agent's messages on the control socket; every message is checked, and one that
 * makes no sense leaves things as they were. Not: descriptors, folding. Owns every fd and mapping.
 */
#ifndef TRIB_AGGREGATOR_JOB_H
#define TRIB_AGGREGATOR_JOB_H

#include "shm/function.h"
#include "shm/partial.h"
#include "shm/segment.h"

#define AGG_CHILDREN_MAX 192u

struct agg_job {
	bool known; /* a JOB has come; the fields up to lr are valid */
	uint32_t job_index;
	uint32_t route_index; /* of this function */
	enum trib_accumulate accumulate;
	uint32_t scale_bits;
	bool input_weights;
	uint64_t elements;
	double lr;
	uint64_t divisor; /* with the base; fixed point, 0 = the sum's own weights */
	uint32_t test_delay_us;
	uint32_t test_poison;
	uint64_t owner_start; /* of this process, set by the caller */

	bool has_segment;
	bool has_own;
	struct trib_segment segment;                    /* read-only */
	struct trib_partial own;                        /* writable */
	struct trib_partial children[AGG_CHILDREN_MAX]; /* read-only */
	uint32_t child_count;
	uint8_t *base_memory; /* read-only */
	uint64_t base_size;
	const float *base;
	uint32_t base_version;
	float *out;
	uint64_t out_size;
	uint64_t *out_word; /* shm/out.h; NULL: nobody follows */
	uint64_t out_inode; /* the same memory given again keeps its mapping, page tables and all */
};

void agg_job_init(struct agg_job *job, uint64_t owner_start);
void agg_job_fini(struct agg_job *job);

/* fds are taken. 0, or why the message was refused: -EINVAL, -EBADMSG, -ENOSPC, -errno. */
TRIB_MUST_CHECK int agg_job_message(struct agg_job *job, const struct trib_fn_message *message,
				    const int *fds, uint32_t count);

/* The child's partial, of this job's shape and our own range, or NULL. */
const struct trib_partial *agg_job_child(const struct agg_job *job, uint32_t index);
/* The payload of a committed slot of this generation from our range's first element on, or NULL. */
const float *agg_job_update(const struct agg_job *job, uint32_t slot, uint32_t gen);
/* The same of a slot that is still being filled: what lies below *ret_filled (whole chunks of our
 * range) is as it will be if the generation is committed. NULL: no such generation (any more). */
const float *agg_job_arriving(const struct agg_job *job, uint32_t slot, uint32_t gen,
			      uint32_t *ret_filled);
/* Own partial has come and sums this job's vector or a part of it. */
bool agg_job_ready(const struct agg_job *job);

#endif
