/* SPDX-License-Identifier: Apache-2.0
 * What outlives the agent, and taking it up again: the keeper's memfds are put back into jobs and
 * partials; a function of the former agent that still lives is killed first, since a partial has
 * exactly one writer.
 *
 * Names in the keeper: "s:<job>" (data, ctl), "p:<job>:<index>", the sums of peers.h, and versions
 * in memory, "m:<job>:<name>" (published.h).
 */
#include "orchestrator/agent/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "orchestrator/agent/published.h"
#include "shm/keeper.h"

#define STALE_MAX 64 /* names looked at together */

int agent_keeper(struct agent *agent)
{
	if (agent->keeper_fd < 0 && agent->options.keeper[0]) {
		int rc = trib_unix_connect(agent->options.keeper, &agent->keeper_fd);

		if (rc) {
			agent->keeper_fd = -1;
			return rc;
		}
	}
	return agent->keeper_fd >= 0 ? agent->keeper_fd : -ENOENT;
}

/* One retry on a fresh connection: the keeper may have been restarted. */
static int keeper_put(struct agent *agent, const char *name, const int *fds, uint32_t count)
{
	int rc = -ENOENT;

	for (int attempt = 0; attempt < 2; attempt++) {
		int fd = agent_keeper(agent);

		if (fd < 0) {
			return fd;
		}
		rc = trib_keeper_put(fd, name, fds, count);
		if (!rc) {
			return 0;
		}
		(void)close(agent->keeper_fd);
		agent->keeper_fd = -1;
	}
	return rc;
}

int agent_keep(struct agent *agent, const char *name, int fd)
{
	int rc = agent->options.keeper[0] ? keeper_put(agent, name, &fd, 1) : 0;

	if (rc) {
		log_err("adopt", "event=not-kept name=%s rc=%d", name, rc);
	}
	return rc;
}

void agent_keep_segment(struct agent_job *job)
{
	char name[TRIB_KEEPER_NAME];
	int fds[2] = { job->segment.data_fd, job->segment.ctl_fd };
	int rc;

	(void)snprintf(name, sizeof(name), "s:%s", job->id);
	rc = keeper_put(job->agent, name, fds, 2);
	if (rc && job->agent->options.keeper[0]) {
		log_warn("adopt", "event=not-kept name=%s rc=%d", name, rc);
	}
}

int agent_keep_partial(struct agent_fn *fn)
{
	char name[TRIB_KEEPER_NAME];
	int rc;

	if (!fn->job->agent->options.keeper[0]) {
		return 0; /* told at start: a dying agent takes its sums along */
	}
	(void)snprintf(name, sizeof(name), "p:%s:%u", fn->job->id, fn->index);
	rc = keeper_put(fn->job->agent, name, &fn->partial.fd, 1);
	if (rc) {
		log_err("adopt", "event=not-kept name=%s rc=%d", name, rc);
	}
	return rc;
}

int agent_keep_whole(struct agent_job *job, const struct trib_partial *whole)
{
	struct agent_fn as = { .job = job, .index = AGENT_TOP, .partial = *whole };

	return agent_keep_partial(&as);
}

void agent_unkeep(struct agent *agent, const char *format, ...)
{
	char name[TRIB_KEEPER_NAME];
	va_list args;
	int fd = agent_keeper(agent);

	va_start(args, format);
	(void)vsnprintf(name, sizeof(name), format, args);
	va_end(args);
	if (fd >= 0 && trib_keeper_drop(fd, name)) {
		(void)close(agent->keeper_fd);
		agent->keeper_fd = -1;
	}
}

/* Field 22 of /proc/<pid>/stat: start time in ticks; 0 when there is no such process. */
static uint64_t process_start(uint64_t pid)
{
	char path[40];
	char text[1024];
	char *at;
	ssize_t n;
	int fd;
	uint64_t value = 0;

	(void)snprintf(path, sizeof(path), "/proc/%llu/stat", (unsigned long long)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		return 0;
	}
	n = read(fd, text, sizeof(text) - 1);
	(void)close(fd);
	text[n > 0 ? n : 0] = '\0';
	at = strrchr(text, ')');
	for (int field = 2; at && field < 22; field++) {
		at = strchr(at + 1, ' ');
	}
	if (!at || trib_parse_u64(at + 1, strcspn(at + 1, " "), 0, UINT64_MAX, &value)) {
		return 0;
	}
	return value;
}

static void end_former_owner(const struct trib_partial *partial)
{
	const struct trib_partial_header *h = trib_partial_header(partial);
	uint64_t pid = h->owner_pid;
	uint64_t start = h->owner_start;
	struct pollfd p = { .events = POLLIN };

	if (pid == 0 || pid > INT32_MAX || process_start(pid) != start) {
		return;
	}
	p.fd = agent_pidfd((int)pid);
	if (p.fd < 0) {
		return;
	}
	if (process_start(pid) == start) {
		log_warn("adopt", "event=former-function-killed pid=%llu", (unsigned long long)pid);
		(void)kill((pid_t)pid, SIGKILL);
		(void)poll(&p, 1, 2000);
	}
	(void)close(p.fd);
}

static void close_all(const int *fds, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		(void)close(fds[i]);
	}
}

static void adopt_segment(struct agent *agent, int *fds, uint32_t count)
{
	struct trib_segment segment;

	if (count != 2) {
		close_all(fds, count);
		return;
	}
	if (!trib_segment_attach(fds[0], fds[1], true, &segment) &&
	    agent_job_adopt(agent, &segment)) {
		log_info("adopt", "event=segment job=%s", segment.header.job);
	}
}

/* Its range is the one it must have; the first one says how many lanes there are. */
static bool fits(struct agent_job *job, const struct trib_partial *partial)
{
	uint64_t elements = job->segment.header.payload_size / sizeof(float);
	uint64_t first;
	bool any = false;

	for (uint32_t i = AGENT_TOP; i <= job->fn_high; i++) {
		any |= job->fns[i].has_partial;
	}
	if (partial->lanes > AGENT_LANES_MAX || (any && partial->lanes != job->lanes) ||
	    (partial->index - AGENT_TOP) % partial->lanes != partial->lane ||
	    trib_partial_range(elements, partial->lane, partial->lanes, &first) !=
		    partial->elements ||
	    first != partial->first) {
		return false;
	}
	job->lanes = partial->lanes;
	return true;
}

/* A whole function 1 is taken before all others: beside lanes, it has their sums already
 * (join.c), and they are refused. True: the keeper shall forget it. Else the agent after
 * this one would take it up once the whole one is on its way to another node. */
static bool adopt_partial(struct agent *agent, int *fds, uint32_t count, bool whole)
{
	struct trib_partial partial;
	const struct trib_partial_header *h;
	struct agent_job *job;
	struct agent_fn *fn;
	char id[sizeof(h->job)];
	bool stale = false;

	if (count != 1) {
		close_all(fds, count);
		return false;
	}
	if (trib_partial_attach(fds[0], true, &partial)) {
		return false;
	}
	if ((partial.index == AGENT_TOP && partial.lanes == 1) != whole) {
		trib_partial_fini(&partial);
		return false; /* of the other pass */
	}
	h = trib_partial_header(&partial);
	memcpy(id, h->job, sizeof(id));
	id[sizeof(id) - 1] = '\0';
	job = agent_job_find(agent, id);
	if (!job || partial.index == 0 || partial.index >= AGENT_FUNCTIONS_MAX ||
	    job->fns[partial.index].has_partial || h->job_index != job->index ||
	    strncmp(h->boot, job->segment.header.boot, TRIB_BOOT_SIZE) != 0 ||
	    (stale = !fits(job, &partial))) {
		log_warn("adopt", "event=partial-refused job=%s", id);
		trib_partial_fini(&partial);
		return stale;
	}
	end_former_owner(&partial);
	fn = &job->fns[partial.index];
	fn->partial = partial;
	fn->has_partial = true;
	if (partial.index > job->fn_high) {
		job->fn_high = partial.index;
	}
	agent->arena_used += partial.size;
	job->reserved_bytes += partial.size;
	log_info("adopt", "event=partial job=%s fn=%u updates=%llu", id, partial.index,
		 (unsigned long long)trib_partial_totals(&partial).updates);
	return false;
}

struct pass {
	struct agent *agent;
	char kind;
	bool whole;
	uint32_t stale_count; /* stale: names */
	char stale[STALE_MAX][TRIB_KEEPER_NAME];
};

static void on_entry(const char *name, int *fds, uint32_t count, void *arg)
{
	struct pass *pass = arg;

	if (name[0] != pass->kind) {
		close_all(fds, count);
	} else if (pass->kind == 'm' && count == 1) {
		if (!agent_published_adopt(pass->agent, fds[0]) && pass->stale_count < STALE_MAX) {
			(void)snprintf(pass->stale[pass->stale_count++], TRIB_KEEPER_NAME, "%s",
				       name);
		}
	} else if (pass->kind == 's') {
		adopt_segment(pass->agent, fds, count);
	} else if (pass->kind != 'p' && count == 1) {
		agent_peers_adopt(pass->agent, name, fds[0]);
	} else if (pass->kind != 'p') {
		close_all(fds, count);
	} else if (adopt_partial(pass->agent, fds, count, pass->whole) &&
		   pass->stale_count < STALE_MAX) {
		(void)snprintf(pass->stale[pass->stale_count++], TRIB_KEEPER_NAME, "%s", name);
	}
}

/* What is not wanted leaves the keeper. Those that were taken before are refused by the next pass.
 */
static int adopt_kind(struct agent *agent, char kind, bool whole)
{
	struct pass pass = { .agent = agent, .kind = kind, .whole = whole };
	int rc;

	do {
		pass.stale_count = 0;
		rc = trib_keeper_list(agent_keeper(agent), on_entry, &pass);
		for (uint32_t i = 0; i < pass.stale_count; i++) {
			agent_unkeep(agent, "%s", pass.stale[i]);
		}
	} while (!rc && pass.stale_count == STALE_MAX);
	return rc;
}

void agent_adopt(struct agent *agent)
{
	struct pass segments = { .agent = agent, .kind = 's' };
	struct pass exports = { .agent = agent, .kind = 'x' };
	struct pass imports = { .agent = agent, .kind = 'i' };
	int fd = agent_keeper(agent);

	if (fd < 0) {
		log_warn("adopt", "event=no-keeper rc=%d detail=\"sums die with the agent\"", fd);
		return;
	}
	if (trib_keeper_list(fd, on_entry, &segments) || adopt_kind(agent, 'p', true) ||
	    adopt_kind(agent, 'p', false) || adopt_kind(agent, 'm', false) ||
	    trib_keeper_list(agent_keeper(agent), on_entry, &exports) ||
	    trib_keeper_list(agent_keeper(agent), on_entry, &imports)) {
		log_err("adopt", "event=keeper-list-failed");
	}
	for (uint32_t i = 0; i < AGENT_JOBS_MAX; i++) {
		if (agent->jobs[i]) {
			agent_job_sync(agent->jobs[i]);
		}
	}
}
