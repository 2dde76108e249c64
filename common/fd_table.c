/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd_table.h"

#include <errno.h>
#include <linux/close_range.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#define LIMIT_UNKNOWN 1024
#define SPARE_FILES   256 /* of a table, for what is no connection */

uint64_t trib_fd_table_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit)) {
		return LIMIT_UNKNOWN;
	}
	if (limit.rlim_cur < limit.rlim_max) {
		struct rlimit more = { limit.rlim_max, limit.rlim_max };

		if (setrlimit(RLIMIT_NOFILE, &more) == 0) {
			limit = more;
		}
	}
	return limit.rlim_cur;
}

struct trib_fd_plan trib_fd_plan(uint64_t conns)
{
	struct trib_fd_plan plan = { .limit = trib_fd_table_limit(), .room = SPARE_FILES };

	if (plan.limit > 2 * SPARE_FILES) {
		plan.room = plan.limit - SPARE_FILES;
	}
	plan.tables = (conns + plan.room - 1) / plan.room;
	return plan;
}

int trib_fd_table_own(void)
{
	/* Closes nothing there is. Containers whose filters know no unshare(2) know this one. */
	if (close_range(~0u, ~0u, CLOSE_RANGE_UNSHARE) == 0 || unshare(CLONE_FILES) == 0) {
		return 0;
	}
	return -errno;
}
