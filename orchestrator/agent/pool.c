/* SPDX-License-Identifier: Apache-2.0
 * Spare functions: forked and sandboxed already, bound to no job, so that a cold start is one
 * message. As many as starts were needed of late, one at least while the node has a job, none
 * when it has none.
 */
#include "orchestrator/agent/agent.h"

#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"

#define PERIOD_MS 1000 /* demand is the number of starts in it, averaged */
#define FORGET    0.3

static void spare_fini(struct agent_spare *spare)
{
	int status;

	spare->io = trib_io_free(spare->io);
	if (spare->pid > 0) {
		(void)kill(spare->pid, SIGKILL);
		(void)waitpid(spare->pid, &status, 0); /* killed: returns at once */
	}
	if (spare->pidfd >= 0) {
		(void)close(spare->pidfd);
	}
	if (spare->control_fd >= 0) {
		(void)close(spare->control_fd);
	}
	*spare = (struct agent_spare){ .pidfd = -1, .control_fd = -1 };
}

static void on_spare_exit(int pidfd, unsigned ready, void *arg)
{
	struct agent_spare *spare = arg;

	(void)pidfd;
	(void)ready;
	log_warn("pool", "event=spare-died pid=%d", spare->pid);
	spare_fini(spare);
}

static uint32_t there(const struct agent_pool *pool)
{
	uint32_t count = pool->asked;

	for (uint32_t i = 0; i < AGENT_SPARES_MAX; i++) {
		count += pool->spares[i].pid > 0;
	}
	return count;
}

static int ask(struct agent *agent)
{
	struct trib_fn_message message = { .magic = TRIB_FN_MAGIC, .kind = TRIB_FN_SPAWN };
	int pair[2];
	int rc;

	if (agent->zygote_fd < 0 || agent->spawn_count == AGENT_SPAWNS_MAX) {
		return -EAGAIN;
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair)) {
		return -errno;
	}
	rc = trib_fd_send(agent->zygote_fd, &message, sizeof(message), &pair[1], 1);
	(void)close(pair[1]);
	if (rc) {
		(void)close(pair[0]);
		return rc;
	}
	agent_spawn_asked(agent, NULL, pair[0]);
	agent->pool.asked++;
	return 0;
}

void agent_pool_answered(struct agent *agent, int pid, int control_fd)
{
	struct agent_pool *pool = &agent->pool;

	pool->asked -= pool->asked > 0;
	for (uint32_t i = 0; i < AGENT_SPARES_MAX && pid > 0; i++) {
		struct agent_spare *spare = &pool->spares[i];

		if (spare->pid > 0) {
			continue;
		}
		*spare = (struct agent_spare){ .pid = pid,
					       .pidfd = agent_pidfd(pid),
					       .control_fd = control_fd };
		if (spare->pidfd < 0 || trib_io_new(agent->loop, spare->pidfd, TRIB_IO_READ,
						    on_spare_exit, spare, &spare->io)) {
			spare_fini(spare);
		}
		return;
	}
	if (control_fd >= 0) {
		(void)close(control_fd);
	}
}

bool agent_pool_take(struct agent *agent, int *ret_pid, int *ret_control_fd)
{
	agent->pool.starts++;
	for (uint32_t i = 0; i < AGENT_SPARES_MAX; i++) {
		struct agent_spare *spare = &agent->pool.spares[i];

		if (spare->pid > 0) {
			*ret_pid = spare->pid;
			*ret_control_fd = spare->control_fd;
			spare->io = trib_io_free(spare->io);
			(void)close(spare->pidfd);
			*spare = (struct agent_spare){ .pidfd = -1, .control_fd = -1 };
			return true;
		}
	}
	return false;
}

bool agent_pool_knows(const struct agent *agent, int pid)
{
	for (uint32_t i = 0; i < AGENT_SPARES_MAX; i++) {
		if (agent->pool.spares[i].pid == pid) {
			return true;
		}
	}
	return false;
}

/* Something has happened in one of the jobs lately: idle jobs cost no process, not even a spare. */
static bool any_awake(const struct agent *agent, uint64_t now_ms)
{
	for (uint32_t i = 0; i < AGENT_JOBS_MAX && agent->job_count > 0; i++) {
		if (agent->jobs[i] && now_ms - agent->jobs[i]->busy_ms < agent->options.idle_ms) {
			return true;
		}
	}
	return false;
}

static uint32_t wanted(const struct agent *agent, uint64_t now_ms)
{
	double demand = agent->pool.demand + agent->pool.starts;
	uint32_t count = 1;

	if (!any_awake(agent, now_ms) && agent->pool.starts == 0) {
		return 0; /* however great the demand was a moment ago */
	}
	while (count < agent->options.spares && count < demand) {
		count++;
	}
	return count < agent->options.spares ? count : (uint32_t)agent->options.spares;
}

void agent_pool_tick(struct agent *agent, uint64_t now_ms)
{
	struct agent_pool *pool = &agent->pool;
	uint64_t periods;
	uint32_t want;

	periods = (now_ms - pool->period_ms + PERIOD_MS / 4) /
		  PERIOD_MS; /* ticks come about so often */
	for (uint64_t i = 0; i < periods && (pool->demand > 0 || pool->starts > 0); i++) {
		pool->demand = (1 - FORGET) * pool->demand + FORGET * pool->starts;
		pool->demand = pool->demand < 0.05 ? 0 : pool->demand;
		pool->starts = 0;
	}
	if (periods > 0) {
		pool->period_ms = now_ms;
	}
	want = wanted(agent, now_ms);
	while (there(pool) < want && ask(agent) == 0) {
	}
	for (uint32_t i = 0; i < AGENT_SPARES_MAX && there(pool) > want; i++) {
		if (pool->spares[i].pid > 0) {
			spare_fini(&pool->spares[i]);
		}
	}
}

void agent_pool_stop(struct agent *agent)
{
	for (uint32_t i = 0; i < AGENT_SPARES_MAX; i++) {
		spare_fini(&agent->pool.spares[i]);
	}
}

void agent_pool_start(struct agent *agent)
{
	for (uint32_t i = 0; i < AGENT_SPARES_MAX; i++) {
		agent->pool.spares[i] = (struct agent_spare){ .pidfd = -1, .control_fd = -1 };
	}
}
