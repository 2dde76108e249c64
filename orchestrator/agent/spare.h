/* SPDX-License-Identifier: Apache-2.0
 * Memory made ready while nobody waits for it. First the next model file, made ready while nobody
 * waits for it: <models>/<job>/spare.tmp, its blocks reserved and its pages in the page cache.
 * Writing 44.7 MB into pages that have to be found (and, on a virtual machine, fetched from the
 * host) took 110 ms of a round's end, into these 12 ms.
 *
 * Second, a job's slots: touching fresh memory costs 2 to 10 times what receiving into it does
 * (docs/performance.md), so the first ones are touched while the first clients train.
 *
 * One thread of its own at SCHED_IDLE: it never takes a core from a round. A spare that is not
 * there, too short or of another size costs nothing but the time it would have saved.
 */
#ifndef TRIB_AGENT_SPARE_H
#define TRIB_AGENT_SPARE_H

#include "common/base.h"

struct agent_spares;

TRIB_MUST_CHECK int agent_spares_new(const char *models, struct agent_spares **ret_spares);
struct agent_spares *agent_spares_free(struct agent_spares *spares);
/* Asks for one of `size` bytes (the whole file's). Forgotten when too many wait. */
void agent_spares_want(struct agent_spares *spares, const char *job, uint64_t size);
/* Touches the first `size` bytes of a memfd (duplicated). */
void agent_spares_touch(struct agent_spares *spares, const char *job, int fd, uint64_t size);
/* The job is gone: nothing is made ready for it any more. */
void agent_spares_forget(struct agent_spares *spares, const char *job);
/* Takes the job's spare: open for writing at 0, under `path` from now on (renamed; an existing
 * file there is replaced), cut to `size`. -ENOENT: there is none. Any thread. */
TRIB_MUST_CHECK int agent_spares_take(struct agent_spares *spares, const char *job, uint64_t size,
				      const char *path, int *ret_fd);

#endif
