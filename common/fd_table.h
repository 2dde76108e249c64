/* SPDX-License-Identifier: Apache-2.0
 * Tables of descriptors. RLIMIT_NOFILE bounds a table, not a process, and threads may have tables
 * of their own (docs/adr/0012-tables-of-descriptors.md).
 */
#ifndef TRIB_COMMON_FD_TABLE_H
#define TRIB_COMMON_FD_TABLE_H

#include "common/base.h"

/* How many descriptors a table may hold, after the soft limit was raised to the hard one. */
uint64_t trib_fd_table_limit(void);

struct trib_fd_plan {
	uint64_t limit;  /* of a table */
	uint64_t room;   /* for connections in one: some are left for everything else */
	uint64_t tables; /* that so many connections need; more than 1: each thread has its own */
};
struct trib_fd_plan trib_fd_plan(uint64_t conns);
/* From here on the calling thread has a table of its own (threads it makes share that): a copy, so
 * descriptors made before keep their numbers and mean the same. What is made later in one table
 * does not exist in another, and each closes its own copy. 0 or -errno. */
TRIB_MUST_CHECK int trib_fd_table_own(void);

#endif
