/* SPDX-License-Identifier: Apache-2.0 */
#include "aggregator/sandbox.h"

#include "common/privilege.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <linux/memfd.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FDS_MAX        512
#define FILTER_MAX     4096u
#define LANDLOCK_ABI_1 ((1ull << 13) - 1) /* every access right of ABI 1 */

/* What a function calls, and what libc calls for it. Everything else: EPERM. */
static const int allowed[] = {
	SCMP_SYS(read),
	SCMP_SYS(recvmsg),
	SCMP_SYS(recvfrom),
	SCMP_SYS(poll),
	SCMP_SYS(ppoll),
	SCMP_SYS(munmap),
	SCMP_SYS(madvise),
	SCMP_SYS(brk),
	SCMP_SYS(close),
	SCMP_SYS(fstat),
	SCMP_SYS(newfstatat), /* glibc's fstat(fd) is newfstatat(fd, "", AT_EMPTY_PATH) */
	SCMP_SYS(clock_gettime),
	SCMP_SYS(clock_nanosleep), /* test_delay_us */
	SCMP_SYS(nanosleep),
	SCMP_SYS(futex),
	SCMP_SYS(rt_sigreturn),
	SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(restart_syscall), /* poll after SIGSTOP, SIGCONT */
	SCMP_SYS(getpid),
	SCMP_SYS(getppid),
	SCMP_SYS(gettid),
	SCMP_SYS(exit),
	SCMP_SYS(exit_group),
};

/* Calls allowed with one argument of one value (mask 0), or with `mask` bits all zero. */
struct argument_rule {
	int call;
	unsigned argument;
	uint64_t mask;
	uint64_t value;
};

static const struct argument_rule argument_rules[] = {
	{ SCMP_SYS(fcntl), 1, 0, F_GETFD },
	{ SCMP_SYS(fcntl), 1, 0, F_SETFD },
	{ SCMP_SYS(fcntl), 1, 0, F_GETFL },
	{ SCMP_SYS(fcntl), 1, 0, F_GET_SEALS },
	{ SCMP_SYS(mmap), 2, PROT_EXEC, 0 }, /* nothing executable */
	{ SCMP_SYS(mprotect), 2, PROT_EXEC, 0 },
	{ SCMP_SYS(sendto), 4, 0, 0 },            /* no address: only on what is connected */
	{ SCMP_SYS(write), 0, 0, STDERR_FILENO }, /* the log */
};

static int rules_add(scmp_filter_ctx ctx)
{
	int rc = 0;

	for (size_t i = 0; i < TRIB_COUNT(allowed) && !rc; i++) {
		rc = seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, allowed[i], 0, NULL);
	}
	for (size_t i = 0; i < TRIB_COUNT(argument_rules) && !rc; i++) {
		const struct argument_rule *rule = &argument_rules[i];
		struct scmp_arg_cmp compare = {
			.arg = rule->argument,
			.op = rule->mask ? SCMP_CMP_MASKED_EQ : SCMP_CMP_EQ,
			.datum_a = rule->mask ? rule->mask : rule->value,
			.datum_b = rule->mask ? rule->value : 0,
		};

		rc = seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, rule->call, 1, &compare);
	}
	return rc;
}

/* libseccomp 2.5 writes the program to a file only: a memfd is one. */
static int filter_read(int fd, struct agg_sandbox *ret_sandbox)
{
	struct sock_filter *filter;
	struct stat st;
	size_t count;

	if (fstat(fd, &st) < 0) {
		return -errno;
	}
	count = (size_t)st.st_size / sizeof(*filter);
	if (count == 0 || count > FILTER_MAX) {
		return -EINVAL;
	}
	filter = trib_alloc_array(count, sizeof(*filter));
	if (!filter) {
		return -ENOMEM;
	}
	if (pread(fd, filter, count * sizeof(*filter), 0) != (ssize_t)(count * sizeof(*filter))) {
		trib_free(filter);
		return -EIO;
	}
	ret_sandbox->filter = filter;
	ret_sandbox->count = (uint16_t)count;
	return 0;
}

int agg_sandbox_init(struct agg_sandbox *ret_sandbox)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int fd = memfd_create("tributary-filter", MFD_CLOEXEC);
	int rc = ctx && fd >= 0 ? 0 : -ENOMEM;

	if (!rc) {
		/* Bad architecture: the default kills the thread; that is what we want. */
		rc = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	}
	if (!rc) {
		rc = rules_add(ctx);
	}
	if (!rc) {
		rc = seccomp_export_bpf(ctx, fd);
	}
	if (!rc) {
		rc = filter_read(fd, ret_sandbox);
	}
	if (fd >= 0) {
		(void)close(fd);
	}
	if (ctx) {
		seccomp_release(ctx);
	}
	return rc;
}

void agg_sandbox_fini(struct agg_sandbox *sandbox)
{
	trib_free(sandbox->filter);
	sandbox->filter = NULL;
	sandbox->count = 0;
}

int agg_sandbox_leave_network(void)
{
	return unshare(CLONE_NEWNET) < 0 ? -errno : 0;
}

static int limit(int resource, rlim_t value)
{
	struct rlimit now;

	if (getrlimit(resource, &now) < 0) {
		return -errno;
	}
	if (now.rlim_max > value) {
		now.rlim_max = value;
	}
	now.rlim_cur = now.rlim_max;
	return setrlimit(resource, &now) < 0 ? -errno : 0;
}

/* A ruleset that handles every access and allows none. */
static int landlock_close(void)
{
	struct landlock_ruleset_attr attr = { .handled_access_fs = LANDLOCK_ABI_1 };
	int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
	int rc = 0;

	if (ruleset < 0) {
		return errno == ENOSYS || errno == EOPNOTSUPP || errno == EPERM ? 0 : -errno;
	}
	if (syscall(SYS_landlock_restrict_self, ruleset, 0) < 0) {
		rc = -errno;
	}
	(void)close(ruleset);
	return rc;
}

int agg_sandbox_enter(const struct agg_sandbox *sandbox)
{
	struct sock_fprog program = { .len = sandbox->count, .filter = sandbox->filter };
	int rc = limit(RLIMIT_NOFILE, FDS_MAX);

	if (!rc) {
		rc = limit(RLIMIT_CORE, 0);
	}
	if (!rc) {
		rc = trib_privilege_drop(0);
	}
	if (!rc) {
		rc = landlock_close();
	}
	if (!rc && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0) {
		rc = -errno;
	}
	if (!rc && syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0) {
		rc = -errno;
	}
	return rc;
}
