/* SPDX-License-Identifier: Apache-2.0
 * Memory made ready while nobody waits for it: the first touch of a page costs 2 to 10 times what
 * writing it again does (docs/performance.md). A job's first slots, the memories of its versions
 * and what its functions finalise into are touched while the first clients train.
 *
 * One thread of its own at SCHED_IDLE: it never takes a core from a round. Memory that was not
 * touched in time costs nothing but the time it would have saved.
 */
#ifndef TRIB_AGENT_WARM_H
#define TRIB_AGENT_WARM_H

#include "common/base.h"

struct agent_warmer;

TRIB_MUST_CHECK int agent_warmer_new(struct agent_warmer **ret_warmer);
struct agent_warmer *agent_warmer_free(struct agent_warmer *warmer); /* NULL allowed; NULL */
/* Touches the first `size` bytes of a memfd (duplicated). Forgotten when too many wait. */
void agent_warmer_touch(struct agent_warmer *warmer, const char *job, int fd, uint64_t size);
/* The job is gone: nothing is touched for it any more. */
void agent_warmer_forget(struct agent_warmer *warmer, const char *job);

#endif
