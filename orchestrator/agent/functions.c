/* SPDX-License-Identifier: Apache-2.0
 * Function processes: forked by the zygote, fed by descriptors, watched by pidfd. A function's
 * sums live in its partial, which outlives it; so stopping, crashing and scaling to zero are one
 * path: the process goes, the partial stays, a successor resumes from its journal.
 */
#include "orchestrator/agent/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "orchestrator/agent/published.h"

#define STALL_BYTES_PER_MS 32768
#define ZYGOTE_MIN_MS      20
#define ZYGOTE_MAX_MS      5000

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

int agent_pidfd(int pid)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);

	return fd < 0 ? -errno : fd;
}

/* ---- zygote ---- */

static bool is_known(const struct agent *agent, int pid)
{
	if (agent_pool_knows(agent, pid)) {
		return true;
	}
	for (uint32_t i = 0; i < AGENT_JOBS_MAX; i++) {
		const struct agent_job *job = agent->jobs[i];

		for (uint32_t f = AGENT_TOP; job && f <= job->fn_high; f++) {
			if (job->fns[f].pid == pid) {
				return true;
			}
		}
	}
	return false;
}

static void reap_stranger(int pid)
{
	int status;

	(void)kill(pid, SIGKILL);
	(void)waitpid(pid, &status, 0); /* killed: returns at once */
}

/* Functions that the zygote forked but did not live to tell us of: they are our children and
 * write into partials, which must have one writer. */
static void end_untold(const struct agent *agent)
{
	char path[48];
	char text[16384];
	char *at = text;
	ssize_t n;
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (fd >= 0) {
		(void)close(fd);
	}
	if (n < 0) {
		log_err("functions", "event=no-list-of-children errno=%d", errno);
		return;
	}
	text[n] = '\0';
	for (;;) {
		char *end;
		long pid = strtol(at, &end, 10);

		if (end == at) {
			return;
		}
		at = end;
		if (pid > 0 && !is_known(agent, (int)pid)) {
			log_warn("functions", "event=untold-function-killed pid=%ld", pid);
			reap_stranger((int)pid);
		}
	}
}

static void zygote_lost(struct agent *agent)
{
	uint64_t now = trib_clock_ms();

	log_err("functions", "event=zygote-lost pid=%d", agent->zygote_pid);
	agent_zygote_stop(agent);
	end_untold(agent);
	for (uint32_t i = 0; i < agent->spawn_count; i++) {
		uint32_t at = (agent->spawn_head + i) % AGENT_SPAWNS_MAX;
		struct agent_fn *fn = agent->spawns[at].fn;

		if (agent->spawns[at].spare_fd >= 0) {
			agent_pool_answered(agent, 0, agent->spawns[at].spare_fd);
		}
		if (fn && fn->state == AGENT_FN_LIVE && fn->pid == 0) {
			agent_round_fn_died(fn, false);
		}
	}
	agent->spawn_count = 0;
	/* One that dies at start is tried again later each time. */
	if (now - agent->zygote_ms > ZYGOTE_MAX_MS) {
		agent->zygote_pause_ms = 0;
	}
	agent->zygote_ms = now + agent->zygote_pause_ms;
	agent->zygote_pause_ms =
		agent->zygote_pause_ms ? 2 * agent->zygote_pause_ms : ZYGOTE_MIN_MS;
	if (agent->zygote_pause_ms > ZYGOTE_MAX_MS) {
		agent->zygote_pause_ms = ZYGOTE_MAX_MS;
	}
	agent_zygote_tick(agent, now);
}

void agent_zygote_tick(struct agent *agent, uint64_t now_ms)
{
	if (agent->zygote_fd < 0 && now_ms >= agent->zygote_ms && agent_zygote_start(agent)) {
		log_err("functions", "event=zygote-not-restarted");
		agent->zygote_ms = now_ms + ZYGOTE_MAX_MS;
	}
}

static void on_function_exit(int pidfd, unsigned ready, void *arg)
{
	struct agent_fn *fn = arg;
	siginfo_t info = { .si_pid = 0 };
	bool fault;

	(void)ready;
	if (waitid((idtype_t)P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG) == 0 &&
	    info.si_pid == 0) {
		return;
	}
	fn->pid_io = trib_io_free(fn->pid_io);
	(void)close(fn->pidfd);
	fn->pidfd = -1;
	if (fn->state == AGENT_FN_LIVE) {
		agent_count(AGENT_M_CRASHES, 1);
		log_warn("functions", "event=function-died job=%s fn=%u pid=%d %s=%d", fn->job->id,
			 fn->index, fn->pid, info.si_code == CLD_EXITED ? "status" : "signal",
			 info.si_status);
	}
	fn->pid = 0;
	fault = agent_poison_fault(fn, info.si_code == CLD_EXITED, info.si_status);
	agent_round_fn_died(fn, fault);
}

static void watch_exit(struct agent_fn *fn)
{
	fn->pidfd = agent_pidfd(fn->pid);
	agent_count(AGENT_M_SPAWNS, 1);
	agent_count(AGENT_M_SPAWN_US, (int64_t)((trib_clock_ns() - fn->spawned_ns) / 1000));
	if (fn->pidfd < 0 || trib_io_new(fn->job->agent->loop, fn->pidfd, TRIB_IO_READ,
					 on_function_exit, fn, &fn->pid_io)) {
		log_err("functions", "event=pidfd-failed pid=%d", fn->pid);
	}
	agent_cgroup_enter(fn);
	log_debug("functions", "event=spawned job=%s fn=%u pid=%d", fn->job->id, fn->index,
		  fn->pid);
}

static void spawned(struct agent *agent, const struct trib_fn_message *message)
{
	struct agent_fn *fn;
	uint64_t life;
	int spare_fd;

	if (agent->spawn_count == 0) {
		return;
	}
	fn = agent->spawns[agent->spawn_head].fn;
	life = agent->spawns[agent->spawn_head].life;
	spare_fd = agent->spawns[agent->spawn_head].spare_fd;
	agent->spawn_head = (agent->spawn_head + 1) % AGENT_SPAWNS_MAX;
	agent->spawn_count--;
	if (spare_fd >= 0) {
		agent_pool_answered(agent, message->pid, spare_fd);
		return;
	}
	if (message->pid <= 0) {
		log_err("functions", "event=spawn-failed");
		if (fn && fn->spawned_ns == life && fn->state == AGENT_FN_LIVE) {
			agent_round_fn_died(fn, false); /* tried again, later each time */
		}
		return;
	}
	if (!fn || fn->spawned_ns != life || fn->state != AGENT_FN_LIVE) {
		reap_stranger(message->pid);
		return;
	}
	fn->pid = message->pid;
	watch_exit(fn);
}

static void on_zygote(int fd, unsigned ready, void *arg)
{
	struct agent *agent = arg;

	(void)ready;
	for (uint32_t i = 0; i < 64; i++) {
		struct trib_fn_message message;
		int fds[1];
		uint32_t count;
		int size = trib_fd_receive(fd, &message, sizeof(message), fds, 1, &count);

		if (size == -EAGAIN) {
			return;
		}
		if (count) {
			(void)close(fds[0]);
		}
		if (size != (int)sizeof(message) || message.magic != TRIB_FN_MAGIC ||
		    message.kind != TRIB_FN_SPAWNED) {
			zygote_lost(agent);
			return;
		}
		spawned(agent, &message);
	}
}

static void exec_zygote(const char *program, int fd)
{
	char text[16];
	char *argv[] = { (char *)(uintptr_t)program, (char *)(uintptr_t) "--zygote-fd", text,
			 NULL };

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)snprintf(text, sizeof(text), "%d", fd);
	(void)fcntl(fd, F_SETFD, 0);
	(void)execv(program, argv);
	_exit(127);
}

int agent_zygote_start(struct agent *agent)
{
	int pair[2];
	int parent = (int)getpid();
	int pid;

	if (access(agent->options.aggregator, X_OK)) {
		return -errno;
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair)) {
		return -errno;
	}
	pid = fork();
	if (pid == 0) {
		if (getppid() != parent) {
			_exit(1);
		}
		exec_zygote(agent->options.aggregator, pair[1]);
	}
	(void)close(pair[1]);
	if (pid < 0 || fcntl(pair[0], F_SETFL, O_NONBLOCK)) {
		(void)close(pair[0]);
		return -errno;
	}
	agent->zygote_fd = pair[0];
	agent->zygote_pid = pid;
	return trib_io_new(agent->loop, agent->zygote_fd, TRIB_IO_READ, on_zygote, agent,
			   &agent->zygote_io);
}

void agent_zygote_stop(struct agent *agent)
{
	int status;

	agent->zygote_io = trib_io_free(agent->zygote_io);
	if (agent->zygote_fd >= 0) {
		(void)close(agent->zygote_fd);
		agent->zygote_fd = -1;
	}
	if (agent->zygote_pid > 0) {
		(void)kill(agent->zygote_pid, SIGKILL);
		(void)waitpid(agent->zygote_pid, &status, 0);
		agent->zygote_pid = 0;
	}
}

/* ---- one function ---- */

static int control(struct agent_fn *fn, struct trib_fn_message *message, const int *fds,
		   uint32_t count)
{
	message->magic = TRIB_FN_MAGIC;
	message->job_index = fn->job->index;
	message->accumulate = fn->job->accumulate;
	message->scale_bits = fn->job->scale_bits;
	message->input = fn->job->input;
	message->elements = fn->job->elements;
	message->lr = fn->job->lr;
	message->test_delay_us = (uint32_t)fn->job->agent->options.fold_delay_us;
	message->test_poison = (uint32_t)fn->job->agent->options.poison_bits;
	return trib_fd_send(fn->control_fd, message, sizeof(*message), fds, count);
}

static int ensure_partial(struct agent_fn *fn)
{
	struct agent_job *job = fn->job;
	uint32_t lane = agent_lane_of(job, fn->index);
	uint64_t first;
	uint64_t elements = trib_partial_range(job->elements, lane, job->lanes, &first);
	int rc;

	if (fn->has_partial) {
		return 0;
	}
	rc = trib_partial_create(job->id, job->segment.header.boot, job->index, fn->index, elements,
				 job->accumulate, &fn->partial);
	if (rc) {
		return rc;
	}
	trib_partial_place(&fn->partial, first, lane, job->lanes);
	fn->has_partial = true;
	fn->reset_round = 0;
	job->agent->arena_used += fn->partial.size;
	job->reserved_bytes += fn->partial.size;
	rc = agent_keep_partial(fn);
	if (rc) {
		agent_fn_drop_partial(fn);
	}
	return rc;
}

void agent_fn_drop_partial(struct agent_fn *fn)
{
	if (!fn->has_partial) {
		return;
	}
	agent_unkeep(fn->job->agent, "p:%s:%u", fn->job->id, fn->index);
	fn->job->agent->arena_used -= fn->partial.size;
	fn->job->reserved_bytes -= fn->partial.size;
	trib_partial_fini(&fn->partial);
	fn->has_partial = false;
	if (fn->index == AGENT_TOP) {
		agent_carve_forget(fn->job);
	}
	for (uint32_t i = AGENT_TOP; i <= fn->job->fn_high; i++) {
		fn->job->fns[i].children_known[fn->index] = false;
	}
}

/* The owner's socket closed; the pidfd tells the same, with the reason: wait for that. */
static void endpoint_closed(void *arg)
{
	struct agent_fn *fn = arg;

	log_debug("functions", "event=socket-closed job=%s fn=%u", fn->job->id, fn->index);
}

static int give_segment(struct agent_fn *fn)
{
	struct trib_fn_message message = { .kind = TRIB_FN_JOB, .index = fn->index };
	int fds[2] = { trib_fd_read_only(fn->job->segment.data_fd),
		       trib_fd_read_only(fn->job->segment.ctl_fd) };
	int rc = fds[0] < 0 ? fds[0] : fds[1];

	if (fds[0] >= 0 && fds[1] >= 0) {
		rc = control(fn, &message, fds, 2);
	}
	for (int i = 0; i < 2; i++) {
		if (fds[i] >= 0) {
			(void)close(fds[i]);
		}
	}
	return rc;
}

void agent_spawn_asked(struct agent *agent, struct agent_fn *fn, int spare_fd)
{
	uint32_t at = (agent->spawn_head + agent->spawn_count) % AGENT_SPAWNS_MAX;

	agent->spawns[at].fn = fn;
	agent->spawns[at].life = fn ? fn->spawned_ns : 0;
	agent->spawns[at].spare_fd = spare_fd;
	agent->spawn_count++;
}

static int ask_zygote(struct agent_fn *fn, int data_fd, int control_fd)
{
	struct agent *agent = fn->job->agent;
	struct trib_fn_message message = { .magic = TRIB_FN_MAGIC,
					   .kind = TRIB_FN_SPAWN,
					   .job_index = fn->job->index,
					   .index = fn->index };
	int fds[2] = { data_fd, control_fd };
	int rc;

	if (agent->spawn_count == AGENT_SPAWNS_MAX) {
		return -ENOBUFS;
	}
	rc = trib_fd_send(agent->zygote_fd, &message, sizeof(message), fds, 2);
	if (rc) {
		return rc;
	}
	fn->spawned_ns = trib_clock_ns();
	agent_spawn_asked(agent, fn, -1);
	return 0;
}

/* One that is there already: it only has to be told where it belongs. */
static int bind_spare(struct agent_fn *fn, int data_fd)
{
	struct trib_fn_message bind = { .kind = TRIB_FN_BIND, .index = fn->index };

	fn->spawned_ns = trib_clock_ns();
	if (!agent_pool_take(fn->job->agent, &fn->pid, &fn->control_fd)) {
		return -ENOENT;
	}
	agent_count(AGENT_M_POOLED, 1);
	watch_exit(fn);
	return control(fn, &bind, &data_fd, 1);
}

static int spawn(struct agent_fn *fn)
{
	struct agent_job *job = fn->job;
	int pair[2] = { -1, -1 };
	int data_fd = -1;
	int rc = trib_endpoint_new(job->agent->transport, TRIB_ROUTE(job->index, fn->index),
				   job->index, endpoint_closed, fn, &data_fd, &fn->endpoint);

	if (rc) {
		return rc;
	}
	rc = bind_spare(fn, data_fd);
	if (rc != -ENOENT) {
		(void)close(data_fd);
		return rc;
	}
	rc = 0;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair)) {
		rc = -errno;
	}
	if (!rc) {
		rc = ask_zygote(fn, data_fd, pair[1]);
	}
	(void)close(data_fd);
	if (pair[1] >= 0) {
		(void)close(pair[1]);
	}
	fn->control_fd = pair[0];
	return rc;
}

int agent_fn_give_own(struct agent_fn *fn)
{
	struct trib_fn_message own = { .kind = TRIB_FN_OWN, .index = fn->index };

	return control(fn, &own, &fn->partial.fd, 1);
}

int agent_fn_start(struct agent_job *job, uint32_t index)
{
	struct agent_fn *fn = &job->fns[index];
	int rc;

	if (fn->state == AGENT_FN_LIVE) {
		return 0;
	}
	if (fn->state == AGENT_FN_WAIT && trib_clock_ms() < fn->respawn_ms) {
		return -EAGAIN;
	}
	if (index > job->fn_high) {
		job->fn_high = index;
	}
	rc = ensure_partial(fn);
	if (!rc) {
		rc = spawn(fn);
	}
	if (!rc) {
		rc = give_segment(fn);
	}
	if (!rc) {
		rc = agent_fn_give_own(fn);
	}
	if (rc) {
		log_err("functions", "event=start-failed job=%s fn=%u rc=%d", job->id, index, rc);
		agent_fn_stop(fn);
		fn->state = AGENT_FN_WAIT;
		fn->respawn_ms = trib_clock_ms() + 200;
		return rc;
	}
	fn->state = AGENT_FN_LIVE;
	fn->worked_ms = trib_clock_ms();
	fn->stalled = false;
	fn->reset_ns = 0;
	fn->flushed = false;
	fn->reset_round = 0;
	fn->has_base = false;
	memset(fn->children_known, 0, sizeof(fn->children_known));
	return 0;
}

void agent_fn_account(struct agent_fn *fn)
{
	struct trib_route_stats now;
	struct trib_route_stats *had = &fn->counted;

	if (!fn->endpoint ||
	    trib_transport_route_stats(fn->job->agent->transport,
				       TRIB_ROUTE(fn->job->index, fn->index), &now)) {
		return;
	}
	agent_count(AGENT_M_MESSAGES, (int64_t)(now.messages - had->messages));
	agent_count(AGENT_M_MESSAGE_BYTES, (int64_t)(now.bytes - had->bytes));
	agent_count(AGENT_M_QUEUE_US, (int64_t)(now.queue_us - had->queue_us));
	agent_count(AGENT_M_EXEC_US, (int64_t)(now.exec_us - had->exec_us));
	*had = now;
}

void agent_fn_stop(struct agent_fn *fn)
{
	struct agent *agent = fn->job->agent;

	agent_fn_account(fn);
	fn->counted = (struct trib_route_stats){ 0 };

	for (uint32_t i = 0; i < agent->spawn_count; i++) {
		uint32_t at = (agent->spawn_head + i) % AGENT_SPAWNS_MAX;

		if (agent->spawns[at].fn == fn) {
			agent->spawns[at].fn = NULL; /* reaped as a stranger when it is told */
		}
	}
	fn->pid_io = trib_io_free(fn->pid_io);
	if (fn->pid > 0) {
		reap_stranger(fn->pid);
		fn->pid = 0;
	}
	if (fn->pidfd >= 0) {
		(void)close(fn->pidfd);
		fn->pidfd = -1;
	}
	agent_cgroup_leave(fn);
	fn->endpoint = trib_endpoint_free(fn->endpoint);
	if (fn->control_fd >= 0) {
		(void)close(fn->control_fd);
		fn->control_fd = -1;
	}
	fn->state = AGENT_FN_NONE;
}

int agent_fn_give_child(struct agent_fn *parent, uint32_t index, int child)
{
	struct trib_fn_message message = { .kind = TRIB_FN_CHILD, .index = index };
	int fd = trib_fd_read_only(child);
	int rc;

	if (fd < 0) {
		return fd;
	}
	rc = control(parent, &message, &fd, 1);
	(void)close(fd);
	return rc;
}

/* A merge under way names its children, whatever the tree says by now. */
static bool op_names(const struct agent_fn *fn, uint32_t child)
{
	const struct trib_partial_header *h;

	if (!fn->has_partial || !trib_partial_op_active(&fn->partial)) {
		return false;
	}
	h = trib_partial_header(&fn->partial);
	for (uint32_t k = 0; k < h->op_count && k < TRIB_OP_MAX; k++) {
		if (h->op[k].slot == (TRIB_ITEM_PARTIAL | child)) {
			return true;
		}
	}
	return false;
}

int agent_fn_equip(struct agent_fn *parent)
{
	struct agent_job *job = parent->job;

	for (uint32_t i = AGENT_TOP; i <= job->fn_high; i++) {
		int rc;

		if (i == parent->index || !job->fns[i].has_partial || parent->children_known[i] ||
		    (agent_tree_parent(job, i) != parent->index && !op_names(parent, i))) {
			continue;
		}
		rc = agent_fn_give_child(parent, i, job->fns[i].partial.fd);
		if (rc) {
			return rc;
		}
		parent->children_known[i] = true;
	}
	return 0;
}

static int give_model(struct agent_fn *top)
{
	struct agent_job *job = top->job;
	struct trib_fn_message base = { .kind = TRIB_FN_BASE,
					.version = job->base,
					.divisor = job->divisor };
	struct trib_fn_message out = { .kind = TRIB_FN_OUT };
	int fd;
	int rc = agent_out_make(job);

	if (rc) {
		return rc;
	}
	fd = agent_model_open(job->agent, job->id, job->base, &base.offset);
	if (fd < 0) {
		return fd;
	}
	rc = control(top, &base, &fd, 1);
	(void)close(fd);
	if (!rc) {
		rc = control(top, &out, &job->out->fd, 1);
	}
	top->has_base = rc == 0;
	top->divisor = job->divisor;
	return rc;
}

static bool lacks_model(const struct agent_fn *top)
{
	return !top->has_base || top->divisor != top->job->divisor;
}

void agent_fn_model_ahead(struct agent_job *job)
{
	agent_ahead_begin(job);
	for (uint32_t i = AGENT_TOP; agent_is_top(job, i); i++) {
		if (job->fns[i].state == AGENT_FN_LIVE && lacks_model(&job->fns[i]) &&
		    give_model(&job->fns[i])) {
			return; /* at the end of the round, then */
		}
	}
}

int agent_fn_equip_top(struct agent_job *job, bool with_model)
{
	int rc = 0;

	for (uint32_t lane = 0; lane < job->lanes && !rc; lane++) {
		struct agent_fn *top = &job->fns[AGENT_TOP + lane];

		rc = agent_fn_equip(top);
		if (!rc && job->lanes == 1) {
			rc = agent_peers_equip(job);
		}
		if (!rc && with_model && lacks_model(top)) {
			rc = give_model(top);
		}
	}
	return rc;
}

int agent_fn_send(struct agent_fn *fn, struct trib_descriptor *descriptor)
{
	descriptor->route = TRIB_ROUTE(fn->job->index, fn->index);
	descriptor->job = fn->job->index;
	descriptor->source = 0;
	if (!descriptor->sent_us) {
		descriptor->sent_us = trib_descriptor_now_us(); /* it has not waited */
	}
	trib_descriptor_seal(descriptor);
	return trib_descriptor_send(fn->job->hub_fd, descriptor);
}

/* ---- functions that hang ---- */

static bool in_hand(const struct agent_job *job, const struct agent_fn *fn)
{
	return fn->outstanding || (job->phase == AGENT_FLUSHING && !job->peers.waits) ||
	       (fn->index == AGENT_TOP && !agent_carved(job)) || job->phase == AGENT_FINALISING ||
	       (job->closing && fn->has_partial && trib_partial_op_active(&fn->partial));
}

/* Something that changes whenever any function of the job gets on. */
static uint64_t progress(const struct agent_job *job)
{
	uint64_t mark = job->phase;

	for (uint32_t i = AGENT_TOP; i <= job->fn_high; i++) {
		const struct agent_fn *fn = &job->fns[i];

		mark = mark * 1099511628211u + fn->outstanding;
		mark = mark * 1099511628211u + (uint32_t)fn->pid;
		if (fn->has_partial) {
			const struct trib_partial_header *h = trib_partial_header(&fn->partial);

			mark = mark * 1099511628211u + h->done_seq;
			mark = mark * 1099511628211u + h->cursor;
			mark = mark * 1099511628211u + (uint32_t)trib_partial_state(&fn->partial);
		}
	}
	return mark;
}

/* A function that was given work and stands still (stopped, looping) holds the round up for ever:
 * it is killed, its successor goes on. Time enough for the model to be finalised at 32 MB/s. */
static void watch(struct agent_job *job, uint64_t now_ms)
{
	uint64_t mark = progress(job);
	uint64_t limit = job->agent->options.stall_ms + job->payload / STALL_BYTES_PER_MS;
	bool busy = false;

	for (uint32_t i = AGENT_TOP; i <= job->fn_high; i++) {
		busy |= job->fns[i].state == AGENT_FN_LIVE && in_hand(job, &job->fns[i]);
	}
	if (!busy || mark != job->progress || !job->progress_ms) {
		job->progress = mark;
		job->progress_ms = now_ms;
		return;
	}
	if (now_ms - job->progress_ms < limit) {
		return;
	}
	job->progress_ms = now_ms;
	for (uint32_t i = AGENT_TOP; i <= job->fn_high; i++) {
		const struct agent_fn *fn = &job->fns[i];
		int pid = fn->pid ? fn->pid : job->agent->zygote_pid; /* it never answered */

		if (fn->state == AGENT_FN_LIVE && in_hand(job, fn) && pid > 0) {
			agent_count(AGENT_M_STALLED, 1);
			log_warn("functions", "event=function-stalled job=%s fn=%u pid=%d", job->id,
				 i, pid);
			job->fns[i].stalled = fn->pid > 0;
			(void)kill(pid, SIGKILL); /* the pidfd tells the rest */
		}
	}
}

void agent_fn_tick(struct agent_job *job, uint64_t now_ms)
{
	bool any = false;

	watch(job, now_ms);
	for (uint32_t i = AGENT_TOP; i <= job->fn_high; i++) {
		struct agent_fn *fn = &job->fns[i];

		if (fn->state == AGENT_FN_WAIT && now_ms >= fn->respawn_ms) {
			any = true;
		}
	}
	if (any || job->pending_count || job->closing) {
		agent_round_dispatch(job);
		agent_round_advance(job);
	}
}
