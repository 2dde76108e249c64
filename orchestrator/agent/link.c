/* SPDX-License-Identifier: Apache-2.0
 * The gateway's connection: rings out, segments out, descriptors in. A gateway that goes away
 * leaves slots behind; they are settled at once (slots.c).
 */
#include "orchestrator/agent/agent.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/id.h"
#include "common/log.h"
#include "orchestrator/agent/published.h"

static void settle_orphans(struct agent *agent)
{
	for (uint32_t i = 0; i < AGENT_JOBS_MAX; i++) {
		struct agent_job *job = agent->jobs[i];

		if (job && job->ready) {
			agent_slots_orphans(job);
			agent_round_dispatch(job);
		}
	}
}

bool agent_links_any(const struct agent *agent)
{
	for (uint32_t i = 0; i < AGENT_LINKS_MAX; i++) {
		if (agent->links[i].fd >= 0) {
			return true;
		}
	}
	return false;
}

static void forget_waiting(struct agent *agent, const struct agent_link *link)
{
	for (uint32_t i = 0; i < AGENT_JOBS_MAX; i++) {
		struct agent_job *job = agent->jobs[i];
		uint32_t kept = 0;

		for (uint32_t k = 0; job && k < job->waiting_count; k++) {
			if (job->waiting[k] != link) {
				job->waiting[kept++] = job->waiting[k];
			}
		}
		if (job) {
			job->waiting_count = kept;
		}
	}
}

static void link_fini(struct agent_link *link)
{
	link->io = trib_io_free(link->io);
	link->bell_io = trib_io_free(link->bell_io);
	(void)close(link->fd);
	link->fd = -1;
	agent_imports_unlink(link->agent, (uint32_t)(link - link->agent->links));
	agent_published_unlink(link->agent, link);
	if (link->greeted) {
		trib_channels_fini(&link->channels);
		(void)close(link->agent_bell);
		(void)close(link->gateway_bell);
	}
	link->greeted = false;
}

static void link_close(struct agent_link *link)
{
	struct agent *agent = link->agent;

	link_fini(link);
	forget_waiting(agent, link);
	log_warn("link", "event=gateway-gone pid=%d", link->pid);
	/* A gateway that only lost its connection still owns its slots; a dead one owns nothing.
	 * Its sockets close a moment before it counts as dead, so the tick looks again. */
	agent->mourned_pid = link->pid;
	agent_links_tick(agent);
}

/* Has the process ended? A zombie has. */
static bool process_dead(int pid)
{
	struct pollfd p = { .events = POLLIN };
	bool dead;

	p.fd = agent_pidfd(pid);
	if (p.fd < 0) {
		return p.fd == -ESRCH;
	}
	dead = poll(&p, 1, 0) == 1;
	(void)close(p.fd);
	return dead;
}

void agent_links_tick(struct agent *agent)
{
	int pid = agent->mourned_pid;

	if (pid <= 0 || !process_dead(pid)) {
		return;
	}
	agent->mourned_pid = 0;
	log_info("link", "event=gateway-dead pid=%d", pid);
	settle_orphans(agent);
}

static void channel_drain(struct agent_link *link, uint32_t worker)
{
	struct trib_descriptor descriptors[64];
	uint32_t n;

	for (uint32_t turn = 0; turn < 16; turn++) {
		n = trib_channel_pop(&link->channels.channel[worker], descriptors, 64);
		for (uint32_t i = 0; i < n; i++) {
			const struct trib_descriptor d = descriptors[i];
			struct agent_job *job =
				d.job < AGENT_JOBS_MAX ? link->agent->jobs[d.job] : NULL;

			if (!trib_descriptor_valid(&d) || !job || !job->ready ||
			    (d.kind != TRIB_DESC_UPDATE && d.kind != TRIB_DESC_FOLLOW) ||
			    d.slot >= job->segment.header.slot_count) {
				agent_count(AGENT_M_BAD, 1);
			} else if (d.kind == TRIB_DESC_FOLLOW) {
				agent_follow_hint(job, &d);
			} else {
				agent_slot_claimed(job, d.slot, d.gen);
			}
		}
		if (n == 0) {
			return;
		}
	}
	/* Budget spent: ring our own bell. */
	(void)eventfd_write(link->agent_bell, 1);
}

static void on_bell(int fd, unsigned ready, void *arg)
{
	struct agent_link *link = arg;
	struct agent *agent = link->agent;
	eventfd_t count;

	(void)ready;
	(void)eventfd_read(fd, &count);
	for (uint32_t w = 0; w < link->workers; w++) {
		channel_drain(link, w);
	}
	for (uint32_t i = 0; i < AGENT_JOBS_MAX; i++) {
		struct agent_job *job = agent->jobs[i];

		if (job && job->ready && (job->pending_count || job->closing)) {
			agent_round_dispatch(job);
			agent_round_advance(job);
		}
	}
}

static int greet(struct agent_link *link, const struct trib_link_message *hello)
{
	struct trib_link_message rings = { .magic = TRIB_LINK_MAGIC,
					   .kind = TRIB_LINK_RINGS,
					   .workers = hello->workers };
	int fds[3];
	int rc;

	if (link->greeted || hello->workers == 0 || hello->workers >= TRIB_CHANNELS_MAX) {
		return -EBADMSG;
	}
	rc = trib_channels_create(hello->workers + 1, &link->channels);
	if (rc) {
		return rc;
	}
	link->greeted = true;
	link->workers = hello->workers;
	link->agent_bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	link->gateway_bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (link->agent_bell < 0 || link->gateway_bell < 0) {
		return -errno;
	}
	link->channels.channel[link->workers].doorbell = link->gateway_bell;
	fds[0] = link->channels.fd;
	fds[1] = link->agent_bell;
	fds[2] = link->gateway_bell;
	(void)snprintf(rings.node, sizeof(rings.node), "%s", link->agent->options.node);
	rc = trib_io_new(link->agent->loop, link->agent_bell, TRIB_IO_READ, on_bell, link,
			 &link->bell_io);
	if (!rc) {
		rc = trib_fd_send(link->fd, &rings, sizeof(rings), fds, 3);
	}
	/* A gateway in its first life owns no slot: what is half-filled is its predecessor's. */
	link->agent->gateway_fresh = !hello->reserved;
	link->agent->mourned_pid = 0; /* settled below, or alive after all */
	if (!rc && !hello->reserved) {
		settle_orphans(link->agent);
	}
	log_info("link", "event=gateway pid=%d workers=%u again=%u", link->pid, link->workers,
		 hello->reserved);
	if (!rc) {
		agent_published_link(link->agent, link);
	}
	return rc;
}

static int attach(struct agent_link *link, const struct trib_link_message *m)
{
	struct trib_id id;
	struct agent_job *job;

	if (trib_id_parse("job_", m->job, &id)) {
		return -EBADMSG;
	}
	job = agent_job_get(link->agent, m->job);
	if (!job) {
		agent_link_segment(link, NULL, m->job, -ENOSPC);
		return 0;
	}
	agent_job_attach(job, link);
	return 0;
}

static int transfer(struct agent_link *link, const struct trib_link_message *m)
{
	struct trib_id id;

	if (trib_id_parse("job_", m->job, &id)) {
		return -EBADMSG;
	}
	if (m->kind == TRIB_LINK_IMPORT) {
		agent_import_begin(link, m);
	} else if (m->kind == TRIB_LINK_IMPORTED) {
		agent_import_done(link, m);
	} else if (m->kind == TRIB_LINK_FETCH) {
		agent_models_want(link->agent, m->job, m->sum.round);
	} else if (m->kind == TRIB_LINK_RELEASED) {
		agent_published_released(link->agent, link, m);
	} else {
		return -EBADMSG;
	}
	return 0;
}

static void on_message(int fd, unsigned ready, void *arg)
{
	struct agent_link *link = arg;

	(void)ready;
	for (uint32_t i = 0; i < 64; i++) {
		struct trib_link_message m;
		int fds[1];
		uint32_t count;
		int size = trib_fd_receive(fd, &m, sizeof(m), fds, 1, &count);
		int rc = -EBADMSG;

		if (size == -EAGAIN) {
			return;
		}
		if (count) {
			(void)close(fds[0]);
		} else if (size == (int)sizeof(m) && m.magic == TRIB_LINK_MAGIC) {
			m.job[TRIB_JOB_ID_SIZE - 1] = '\0';
			rc = m.kind == TRIB_LINK_HELLO    ? greet(link, &m)
			     : m.kind == TRIB_LINK_ATTACH ? attach(link, &m)
							  : transfer(link, &m);
		}
		if (rc) {
			link_close(link);
			return;
		}
	}
}

/* A gateway that missed a message would wait for it, or fill memory that is gone: it connects again
 * and asks for everything anew. Ends by the end of file, never within the caller. */
static void begin_anew(struct agent_link *link)
{
	(void)shutdown(link->fd, SHUT_RDWR);
}

int agent_link_send(struct agent_link *link, const struct trib_link_message *message, int fd)
{
	int rc = trib_fd_send(link->fd, message, sizeof(*message), &fd, fd >= 0 ? 1 : 0);

	if (rc && rc != -EAGAIN) {
		begin_anew(link);
	}
	return rc;
}

void agent_link_segment(struct agent_link *link, const struct agent_job *job, const char *id,
			int result)
{
	struct trib_link_message m = { .magic = TRIB_LINK_MAGIC,
				       .kind = TRIB_LINK_SEGMENT,
				       .result = result };
	int fds[2];

	(void)snprintf(m.job, sizeof(m.job), "%s", id);
	if (result == 0) {
		m.job_index = job->index;
		fds[0] = job->segment.data_fd;
		fds[1] = job->segment.ctl_fd;
	}
	if (trib_fd_send(link->fd, &m, sizeof(m), fds, result == 0 ? 2 : 0)) {
		log_warn("link", "event=segment-not-sent job=%s", id);
		begin_anew(link);
	}
}

void agent_links_detach(struct agent *agent, const char *id)
{
	struct trib_link_message m = { .magic = TRIB_LINK_MAGIC, .kind = TRIB_LINK_DETACH };

	(void)snprintf(m.job, sizeof(m.job), "%s", id);
	for (uint32_t i = 0; i < AGENT_LINKS_MAX; i++) {
		if (agent->links[i].fd >= 0 &&
		    trib_fd_send(agent->links[i].fd, &m, sizeof(m), NULL, 0)) {
			log_warn("link", "event=detach-not-sent job=%s", id);
			begin_anew(&agent->links[i]);
		}
	}
}

void agent_links_freed(struct agent *agent, const struct agent_job *job, uint32_t slot,
		       uint32_t gen)
{
	struct trib_descriptor d = {
		.kind = TRIB_DESC_ACK, .job = job->index, .slot = slot, .gen = gen
	};

	trib_descriptor_seal(&d);
	for (uint32_t i = 0; i < AGENT_LINKS_MAX; i++) {
		struct agent_link *link = &agent->links[i];

		if (link->fd >= 0 && link->greeted &&
		    trib_channel_push(&link->channels.channel[link->workers], &d)) {
			agent_count(AGENT_M_RING_MISSED,
				    1); /* the gateway scans when it runs dry */
		}
	}
}

static void on_accept(int fd, unsigned ready, void *arg)
{
	struct agent *agent = arg;
	int connection = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct ucred cred = { .pid = 0 };
	socklen_t size = sizeof(cred);

	(void)ready;
	if (connection < 0) {
		return;
	}
	(void)getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &cred, &size);
	for (uint32_t i = 0; i < AGENT_LINKS_MAX; i++) {
		struct agent_link *link = &agent->links[i];

		if (link->fd >= 0) {
			continue;
		}
		*link = (struct agent_link){ .agent = agent, .fd = connection, .pid = cred.pid };
		if (trib_io_new(agent->loop, connection, TRIB_IO_READ, on_message, link,
				&link->io)) {
			break;
		}
		return;
	}
	(void)close(connection);
}

int agent_links_start(struct agent *agent)
{
	int rc;

	for (uint32_t i = 0; i < AGENT_LINKS_MAX; i++) {
		agent->links[i].fd = -1;
		agent->links[i].agent = agent;
	}
	rc = trib_unix_listen(agent->options.socket, &agent->link_fd);
	if (!rc && agent->options.share && chmod(agent->options.socket, 0660)) {
		rc = -errno;
	}
	if (rc) {
		return rc;
	}
	return trib_io_new(agent->loop, agent->link_fd, TRIB_IO_READ, on_accept, agent,
			   &agent->link_io);
}

void agent_links_stop(struct agent *agent)
{
	agent->link_io = trib_io_free(agent->link_io);
	for (uint32_t i = 0; i < AGENT_LINKS_MAX; i++) {
		if (agent->links[i].fd >= 0) {
			link_fini(&agent->links[i]);
		}
	}
	if (agent->link_fd >= 0) {
		(void)close(agent->link_fd);
		(void)unlink(agent->options.socket);
	}
}
