/* SPDX-License-Identifier: Apache-2.0
 * The walls around a function: no file, no new socket, no exec, no other process, no network; it
 * keeps the descriptors it holds, may receive more, map them (never executable), compute, send.
 * The filter is compiled once in the zygote; entering costs a handful of system calls.
 */
#ifndef TRIB_AGGREGATOR_SANDBOX_H
#define TRIB_AGGREGATOR_SANDBOX_H

#include <linux/filter.h>

#include "common/base.h"

struct agg_sandbox {
	struct sock_filter *filter; /* owned */
	uint16_t count;
};

/* Builds the filter: 0 or -errno. */
TRIB_MUST_CHECK int agg_sandbox_init(struct agg_sandbox *ret_sandbox);
void agg_sandbox_fini(struct agg_sandbox *sandbox);

/* Moves this process (the zygote) into a network namespace of its own, which its children inherit;
 * sockets that exist go on working. 0 or -errno (-EPERM without CAP_SYS_ADMIN: seccomp alone then
 * keeps functions from the network). */
TRIB_MUST_CHECK int agg_sandbox_leave_network(void);

/* In the function, for ever. Landlock is used where the kernel has it; all else must succeed. */
TRIB_MUST_CHECK int agg_sandbox_enter(const struct agg_sandbox *sandbox);

#endif
