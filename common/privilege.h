/* SPDX-License-Identifier: Apache-2.0
 * Giving up what a process may do and does not need. Call once, before threads are started.
 */
#ifndef TRIB_COMMON_PRIVILEGE_H
#define TRIB_COMMON_PRIVILEGE_H

#include "common/base.h"

/* Bit of a capability for `keep`: 1ull << CAP_BPF ... (linux/capability.h). Keeps of the present
 * capabilities only those in `keep`, for good: permitted, effective, inheritable, ambient, and no
 * new ones by exec. As an ordinary user there is nothing to lose. 0 or -errno. */
TRIB_MUST_CHECK int trib_privilege_drop(uint64_t keep);

/* What this process makes from here on is for its owner alone, or also for its group: sets the
 * umask. A gateway under a user of its own shares a group with the agent. */
void trib_privilege_share(bool with_group);
#define TRIB_SHARE_OPTION(sharing)                                            \
	{                                                                     \
		"share-with-group", TRIB_OPTION_FLAG, &(sharing), 0, 0, NULL, \
			"what is written is for the group, too"               \
	}

#endif
