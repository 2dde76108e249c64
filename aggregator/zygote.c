/* SPDX-License-Identifier: Apache-2.0 */
#include "aggregator/zygote.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "aggregator/function.h"
#include "aggregator/sandbox.h"
#include "common/log.h"
#include "shm/function.h"
#include "shm/link.h"

#define DATA_FD        3
#define CONTROL_FD     4
#define FREE_FD        (CONTROL_FD + 1)
#define PARKED_FD_MIN  10
#define START_FIELD    20 /* of those after the ')' that ends the name: field 22 of the line */
#define STAT_LINE_SIZE 1024
#define EXIT_GOING_ON  (-1)

/* Start time of this process in clock ticks since boot; 0 when /proc is not there. */
static uint64_t start_time(void)
{
	char line[STAT_LINE_SIZE];
	int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
	uint64_t value = 0;
	ssize_t got;
	char *at;

	if (fd < 0) {
		return 0;
	}
	got = read(fd, line, sizeof(line) - 1);
	(void)close(fd);
	line[got > 0 ? got : 0] = '\0';
	at = strrchr(line, ')');
	for (int field = 0; at && field < START_FIELD; field++) {
		at = strchr(at + 1, ' ');
	}
	if (!at || trib_parse_u64(at + 1, strcspn(at + 1, " "), 0, UINT64_MAX, &value)) {
		return 0;
	}
	return value;
}

/* The sockets to their numbers, everything else but stdio closed. A spare has no data socket. */
static int descriptors_arrange(int data_fd, int control_fd)
{
	int data = data_fd < 0 ? -1 : fcntl(data_fd, F_DUPFD_CLOEXEC, PARKED_FD_MIN);
	int control = fcntl(control_fd, F_DUPFD_CLOEXEC, PARKED_FD_MIN);

	if ((data_fd >= 0 && (data < 0 || dup2(data, DATA_FD) < 0)) || control < 0 ||
	    dup2(control, CONTROL_FD) < 0 || close_range(FREE_FD, ~0u, 0) < 0) {
		return -errno;
	}
	if (data_fd < 0) {
		(void)close(DATA_FD);
	}
	return 0;
}

/* Straight to the kernel: what hooks _exit (a sanitizer's leak check) could not work in here. */
__attribute__((noreturn)) static void leave(int status)
{
	for (;;) {
		(void)syscall(SYS_exit_group, status);
	}
}

__attribute__((noreturn)) static void function_main(const struct agg_sandbox *sandbox,
						    const struct trib_fn_message *m, const int *fds,
						    uint32_t count, pid_t agent)
{
	bool spare = count == 1;
	char name[16];
	uint64_t start;
	int rc;

	/* The agent is the parent. If it died before the prctl, nobody would tell us. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 || getppid() != agent) {
		leave(1);
	}
	(void)snprintf(name, sizeof(name), spare ? "trib-fn" : "trib-fn-%u", m->index % 10000000u);
	(void)prctl(PR_SET_NAME, name, 0, 0, 0);
	start = start_time();
	rc = descriptors_arrange(spare ? -1 : fds[0], fds[count - 1]);
	if (!rc) {
		rc = agg_sandbox_enter(sandbox);
	}
	if (rc) {
		log_err("zygote", "sandbox failed rc=%d", rc);
		leave(1);
	}
	leave(agg_function_run(spare ? -1 : DATA_FD, CONTROL_FD, start));
}

/* Not fork(): the child must be the agent's. libc is told nothing, which a single-threaded
 * process that never makes threads can bear. */
static pid_t spawn(const struct agg_sandbox *sandbox, const struct trib_fn_message *m,
		   const int *fds, uint32_t count, pid_t agent)
{
	long pid = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, NULL, NULL, NULL, NULL);

	if (pid == 0) {
		function_main(sandbox, m, fds, count, agent);
	}
	return pid < 0 ? (pid_t)-errno : (pid_t)pid;
}

static void on_message(const struct agg_sandbox *sandbox, int fd, const struct trib_fn_message *m,
		       const int *fds, uint32_t count, pid_t agent)
{
	struct trib_fn_message reply = {
		.magic = TRIB_FN_MAGIC,
		.kind = TRIB_FN_SPAWNED,
		.job_index = m->job_index,
		.index = m->index,
		.pid = -EBADMSG,
	};
	int rc;

	if (m->magic == TRIB_FN_MAGIC && m->kind == TRIB_FN_SPAWN && count >= 1) {
		reply.pid = spawn(sandbox, m, fds, count, agent);
	}
	for (uint32_t i = 0; i < count; i++) {
		(void)close(fds[i]);
	}
	do {
		struct pollfd wait = { .fd = fd, .events = POLLOUT };

		rc = trib_fd_send(fd, &reply, sizeof(reply), NULL, 0);
		if (rc == -EAGAIN) {
			(void)poll(&wait, 1, -1); /* ends with the agent, too: POLLHUP */
		}
	} while (rc == -EAGAIN);
	if (rc) {
		log_warn("zygote", "reply failed rc=%d", rc);
	}
}

/* One message: EXIT_GOING_ON or an exit status. */
static int turn(const struct agg_sandbox *sandbox, int fd, pid_t agent)
{
	struct trib_fn_message message;
	int fds[2];
	uint32_t count = 0;
	int got = trib_fd_receive(fd, &message, sizeof(message), fds, TRIB_COUNT(fds), &count);

	if (got == 0 || got == -ECONNRESET) {
		return 0; /* the agent is gone */
	}
	if (got == -EAGAIN) {
		return EXIT_GOING_ON;
	}
	if (got < 0 && got != -EBADMSG) {
		log_err("zygote", "receive failed rc=%d", got);
		return 1;
	}
	if (got != (int)sizeof(message)) {
		memset(&message, 0, sizeof(message)); /* answered -EBADMSG */
		count = got < 0 ? 0 : count;
	}
	on_message(sandbox, fd, &message, fds, count, agent);
	return EXIT_GOING_ON;
}

static int serve(const struct agg_sandbox *sandbox, int fd, pid_t agent)
{
	int status = EXIT_GOING_ON;

	while (status == EXIT_GOING_ON) {
		struct pollfd wait = { .fd = fd, .events = POLLIN };

		if (poll(&wait, 1, -1) >= 0) {
			status = turn(sandbox, fd, agent);
		} else if (errno != EINTR) {
			status = 1;
		}
	}
	return status;
}

int agg_zygote_run(int fd)
{
	struct agg_sandbox sandbox = { 0 };
	pid_t agent = getppid();
	sigset_t none;
	int rc;

	(void)sigemptyset(&none);
	(void)pthread_sigmask(SIG_SETMASK, &none, NULL); /* the agent's mask came through exec */
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGINT, SIG_IGN); /* a terminal's ^C is for the supervisor */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0) {
		return 1;
	}
	rc = agg_sandbox_init(&sandbox);
	if (rc) {
		log_err("zygote", "no seccomp filter rc=%d", rc);
		return 1;
	}
	rc = agg_sandbox_leave_network();
	log_info("zygote", "ready netns=%s filter=%u", rc ? "shared" : "own", sandbox.count);
	rc = serve(&sandbox, fd, agent);
	agg_sandbox_fini(&sandbox);
	return rc;
}
