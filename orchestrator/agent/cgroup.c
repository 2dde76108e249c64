/* SPDX-License-Identifier: Apache-2.0
 * A control group (v2) for every function, below a directory that was delegated to the agent. What
 * the kernel or the delegation does not offer is said once and done without.
 */
#include "orchestrator/agent/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"

#define OWN_BYTES (64ull << 20) /* code, stack, page tables; the sums come on top */

static int put(const char *group, const char *file, const char *text)
{
	char path[512];
	int fd;
	int rc = 0;

	(void)snprintf(path, sizeof(path), "%s/%s", group, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0) {
		return -errno;
	}
	if (write(fd, text, strlen(text)) < 0) {
		rc = -errno;
	}
	(void)close(fd);
	return rc;
}

void agent_cgroup_start(struct agent *agent)
{
	const char *path = agent->options.cgroup;
	int memory;
	int cpu;
	int pids;
	char procs[512];

	if (!path[0]) {
		return;
	}
	(void)snprintf(procs, sizeof(procs), "%s/cgroup.procs", path);
	if (access(procs, W_OK)) {
		log_warn("cgroup", "event=none path=%s detail=\"%s: functions run without limits\"",
			 path, strerror(errno));
		return;
	}
	memory = put(path, "cgroup.subtree_control", "+memory");
	cpu = put(path, "cgroup.subtree_control", "+cpu");
	pids = put(path, "cgroup.subtree_control", "+pids");
	log_info("cgroup", "event=ready path=%s memory=%s cpu=%s pids=%s", path,
		 memory ? strerror(-memory) : "yes", cpu ? strerror(-cpu) : "yes",
		 pids ? strerror(-pids) : "yes");
	agent->cgroup = true;
}

static bool group_of(const struct agent_fn *fn, char *out, size_t size)
{
	if (!fn->job->agent->cgroup) {
		return false;
	}
	(void)snprintf(out, size, "%s/fn-%u-%u", fn->job->agent->options.cgroup, fn->job->index,
		       fn->index);
	return true;
}

void agent_cgroup_enter(const struct agent_fn *fn)
{
	char group[480];
	char number[24];

	if (fn->pid <= 0 || !group_of(fn, group, sizeof(group))) {
		return;
	}
	if (mkdir(group, 0755) && errno != EEXIST) {
		log_warn("cgroup", "event=not-made path=%s errno=%d", group, errno);
		return;
	}
	/* Pages of shared memory are charged to whoever touches them first. */
	(void)snprintf(number, sizeof(number), "%llu",
		       (unsigned long long)(OWN_BYTES + fn->partial.size + 2 * fn->job->payload));
	(void)put(group, "memory.max", number);
	(void)put(group, "pids.max", "1");
	(void)put(group, "cpu.weight", "100");
	(void)snprintf(number, sizeof(number), "%d", fn->pid);
	if (put(group, "cgroup.procs", number)) {
		log_warn("cgroup", "event=not-entered path=%s pid=%d", group, fn->pid);
	}
}

void agent_cgroup_leave(const struct agent_fn *fn)
{
	char group[480];

	if (group_of(fn, group, sizeof(group)) && rmdir(group) && errno != ENOENT) {
		log_debug("cgroup", "event=not-removed path=%s errno=%d", group, errno);
	}
}
