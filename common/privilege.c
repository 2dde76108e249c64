/* SPDX-License-Identifier: Apache-2.0 */
#include "common/privilege.h"

#include <errno.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

int trib_privilege_drop(uint64_t keep)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || syscall(SYS_capget, &header, data)) {
		return -errno;
	}
	(void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); /* none on old kernels */
	for (int i = 0; i < 2; i++) {
		uint32_t kept = data[i].permitted & (uint32_t)(keep >> (32 * i));

		data[i].permitted = kept;
		data[i].effective = kept;
		data[i].inheritable = 0;
	}
	return syscall(SYS_capset, &header, data) ? -errno : 0;
}

void trib_privilege_share(bool with_group)
{
	(void)umask(with_group ? 0007 : 0077);
}
