/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/link.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "gateway/attach.h"
#include "gateway/metrics.h"
#include "gateway/rings.h"
#include "gateway/worker.h"
#include "shm/descriptor_check.h"
#include "shm/link.h"

#define BACKOFF_MS        50
#define HELLO_MS          2000 /* for the agent to answer HELLO */
#define RESEND_MS         20
#define MESSAGES_PER_TURN 64
#define HINTS_PER_TURN    1024

struct gw_link {
	struct gw *gw;
	int fd; /* -1: none */
	struct trib_io *io;
	struct trib_io *bell_io;
	struct trib_timer *timer; /* reconnect, or the answer to HELLO is late */
	struct trib_timer *resend;
	struct gw_rings *rings; /* pinned; the present ones */
	int agent_bell;         /* -1: none */
	int own_bell;
	struct trib_io *relay; /* of gw->bell, when workers cannot ring the agent's themselves */
	char node[GW_NODE_SIZE];
	bool welcomed; /* once had rings: may own slots that the agent must not take for orphans */
};

static void close_one(int *fd)
{
	if (*fd >= 0) {
		(void)close(*fd);
		*fd = -1;
	}
}

static void link_down(struct gw_link *link, const char *why)
{
	if (link->rings) {
		log_warn("link", "agent link down why=%s", why);
	}
	gw_rings_set(link->gw, NULL);
	link->bell_io = trib_io_free(link->bell_io);
	link->rings = gw_rings_put(link->rings);
	link->io = trib_io_free(link->io);
	close_one(&link->agent_bell);
	close_one(&link->own_bell);
	close_one(&link->fd);
	gw_transfers_down(link->gw);
	gw_offers_down(&link->gw->offers);
	gw_gauge(GW_M_LINK_UP, 0);
	trib_timer_after(link->timer, BACKOFF_MS);
}

bool gw_link_up(const struct gw_link *link)
{
	return link->rings != NULL;
}

/* ---- to the agent ---- */

static int send_message(struct gw_link *link, enum trib_link_kind kind, const char *job)
{
	struct trib_link_message message = { .magic = TRIB_LINK_MAGIC,
					     .kind = kind,
					     .workers = link->gw->worker_count,
					     .reserved = link->welcomed };

	if (job && trib_copy(message.job, sizeof(message.job), job)) {
		return -EINVAL;
	}
	return trib_fd_send(link->fd, &message, sizeof(message), NULL, 0);
}

/* What passes between nodes. False: later. */
static bool send_transfers(struct gw_link *link)
{
	struct trib_link_message message;

	for (int i = 0; link->rings && i < MESSAGES_PER_TURN; i++) {
		int rc;

		if (!gw_transfers_next(link->gw, &message)) {
			return true;
		}
		rc = trib_fd_send(link->fd, &message, sizeof(message), NULL, 0);
		if (rc == -EAGAIN) {
			return false;
		}
		if (rc) {
			link_down(link, "send");
			return true;
		}
		gw_transfers_sent(link->gw, &message);
	}
	return false;
}

static void send_wanted(struct gw_link *link)
{
	if (!send_transfers(link)) {
		trib_timer_after(link->resend, RESEND_MS);
	}
	for (int i = 0; link->rings && i < MESSAGES_PER_TURN; i++) {
		struct gw_job *job = gw_jobs_next_wanted(&link->gw->jobs);
		int rc;

		if (!job) {
			return;
		}
		rc = send_message(link, TRIB_LINK_ATTACH, job->id);
		if (rc) {
			gw_job_unsent(&link->gw->jobs, job);
		}
		(void)gw_job_put(job);
		if (rc == -EAGAIN) {
			break;
		}
		if (rc) {
			link_down(link, "send");
			return;
		}
	}
	trib_timer_after(link->resend, RESEND_MS);
}

static void on_resend(void *arg)
{
	send_wanted(arg);
}

void gw_link_poke(struct gw *gw)
{
	if (trib_loop_wake(gw->loop, on_resend, gw->link)) {
		log_warn("link", "wake queue full"); /* the uploads time out and are tried again */
	}
}

/* ---- from the agent: free slots ---- */

static void on_bell(int fd, unsigned ready, void *arg)
{
	struct gw_link *link = arg;
	struct trib_channel *down = &link->rings->channels.channel[link->gw->worker_count];
	struct trib_descriptor hints[64];
	struct gw_slots *slots = NULL;
	uint64_t one;
	uint32_t total = 0;
	uint32_t n = 1;

	(void)ready;
	if (read(fd, &one, sizeof(one)) < 0 && errno != EAGAIN) {
		link_down(link, "doorbell");
		return;
	}
	for (; total < HINTS_PER_TURN && n > 0; total += n) {
		n = trib_channel_pop(down, hints, TRIB_COUNT(hints));
		for (uint32_t i = 0; i < n; i++) {
			struct trib_descriptor d = hints[i];

			if (!trib_descriptor_valid(&d) || d.kind != TRIB_DESC_ACK) {
				continue;
			}
			if (!slots || slots->segment.header.job_index != d.job) {
				(void)gw_slots_put(slots);
				slots = gw_jobs_slots_by_index(&link->gw->jobs, d.job);
			}
			if (slots) {
				gw_slots_hint(slots, d.slot);
				gw_count(GW_M_FREE_HINTS, 1);
			}
		}
	}
	(void)gw_slots_put(slots);
	one = 1;
	if (n > 0 && write(fd, &one, sizeof(one)) < 0) { /* more to come: next turn */
		log_debug("link", "doorbell rc=%d", errno);
	}
}

/* ---- the bell of the workers ---- */

/* Workers ring by one number, for ever. In a table that is shared with them it is made the agent's
 * bell itself; in tables of their own it is ours, and on_relay passes the ringing on. */
static int point_bell(const struct gw_link *link)
{
	if (link->gw->own_tables) {
		return 0;
	}
	return dup3(link->agent_bell, link->gw->bell, O_CLOEXEC) < 0 ? -errno : 0;
}

static void on_relay(int fd, unsigned ready, void *arg)
{
	struct gw_link *link = arg;
	uint64_t rung;

	(void)ready;
	if (read(fd, &rung, sizeof(rung)) == (ssize_t)sizeof(rung) && link->agent_bell >= 0 &&
	    write(link->agent_bell, &rung, sizeof(rung)) < 0) {
		log_debug("link", "bell rc=%d", errno); /* full: it rings already */
	}
}

/* ---- from the agent: messages ---- */

static int on_rings(struct gw_link *link, const struct trib_link_message *message, int *fds,
		    uint32_t *count)
{
	struct gw_rings *rings = NULL;
	int rc;

	if (link->rings || *count != 3 || message->result || message->node[0] == '\0') {
		return -EBADMSG;
	}
	*count = 0; /* taken */
	close_one(&link->agent_bell);
	close_one(&link->own_bell);
	link->agent_bell = fds[1];
	link->own_bell = fds[2];
	rc = gw_rings_new(fds[0], link->gw->worker_count, link->gw->bell, &rings);
	if (rc) {
		return rc;
	}
	if (fcntl(link->own_bell, F_SETFL, O_NONBLOCK) < 0 ||
	    fcntl(link->agent_bell, F_SETFL, O_NONBLOCK) < 0 || point_bell(link) ||
	    trib_copy(link->node, sizeof(link->node), message->node)) {
		(void)gw_rings_put(rings);
		return -EBADMSG;
	}
	link->rings = rings;
	link->welcomed = true;
	rc = trib_io_new(link->gw->loop, link->own_bell, TRIB_IO_READ, on_bell, link,
			 &link->bell_io);
	if (rc) {
		return rc;
	}
	trib_timer_stop(link->timer);
	(void)__atomic_add_fetch(&rings->refs, 1, __ATOMIC_RELAXED);
	gw_rings_set(link->gw, rings);
	gw_gauge(GW_M_LINK_UP, 1);
	gw_count(GW_M_LINKS, 1);
	log_info("link", "agent link up node=%s", link->node);
	if (link->gw->options.node && strcmp(link->gw->options.node, link->node) != 0) {
		log_warn("link", "the agent is node=%s, options say node=%s", link->node,
			 link->gw->options.node);
	}
	gw_jobs_rewant(&link->gw->jobs);
	send_wanted(link);
	if (link->rings) {                                   /* still: */
		on_bell(link->own_bell, TRIB_IO_READ, link); /* sets the sleep flag */
	}
	return 0;
}

static int on_segment(struct gw_link *link, const struct trib_link_message *message, int *fds,
		      uint32_t *count)
{
	struct trib_segment segment;
	struct gw_slots *slots = NULL;
	int rc = message->result;

	if (rc == 0 && *count != 2) {
		return -EBADMSG;
	}
	if (rc == 0) {
		*count = 0; /* taken */
		rc = trib_segment_attach(fds[0], fds[1], true, &segment);
		if (rc == 0 && strcmp(segment.header.job, message->job) != 0) {
			trib_segment_fini(&segment);
			rc = -EBADMSG;
		}
		if (rc == 0) {
			rc = gw_slots_new(&segment, link->node, &slots);
		}
	}
	if (rc) {
		log_warn("link", "attach job=%s rc=%d", message->job, rc);
	}
	if (gw_jobs_attached(&link->gw->jobs, message->job, slots, rc < 0 ? rc : -EBADMSG)) {
		gw_workers_note(link->gw, GW_NOTE_ATTACH, message->job);
	}
	return 0;
}

/* TARGET or MOVED. */
static int on_transfer(struct gw_link *link, const struct trib_link_message *message, int *fds,
		       uint32_t *count)
{
	bool target = message->kind == TRIB_LINK_TARGET;
	struct trib_link_message cancel = { .magic = TRIB_LINK_MAGIC,
					    .kind = TRIB_LINK_IMPORTED,
					    .result = -ECANCELED,
					    .sum.transfer = message->sum.transfer };
	int fd = -1;

	if (!link->rings || *count != (target && message->result == 0 ? 1 : 0)) {
		return -EBADMSG;
	}
	if (*count) {
		fd = fds[0];
		*count = 0; /* taken */
	}
	if (!gw_transfers_answer(link->gw, message, fd) && fd >= 0) {
		memcpy(cancel.job, message->job, sizeof(cancel.job));
		if (trib_fd_send(link->fd, &cancel, sizeof(cancel), NULL, 0)) {
			log_debug("link", "cancel not sent"); /* the next attempt replaces it */
		}
	}
	return 0;
}

static int on_model(struct gw_link *link, const struct trib_link_message *message, int *fds,
		    uint32_t *count)
{
	int rc;

	if (!link->rings || *count != 1) {
		return -EBADMSG;
	}
	*count = 0; /* taken */
	rc = gw_offer_take(&link->gw->offers, message, fds[0]);
	if (rc) {
		log_warn("link", "model job=%s version=%u rc=%d", message->job,
			 message->model.version, rc);
	}
	return 0;
}

static int on_release(struct gw_link *link, const struct trib_link_message *message)
{
	struct trib_link_message answer = { .magic = TRIB_LINK_MAGIC,
					    .kind = TRIB_LINK_RELEASED,
					    .model.memory = message->model.memory };

	memcpy(answer.job, message->job, sizeof(answer.job));
	answer.result = gw_offer_release(&link->gw->offers, link->gw->options.models, message);
	return trib_fd_send(link->fd, &answer, sizeof(answer), NULL, 0);
}

static int on_message(struct gw_link *link, struct trib_link_message *message, int *fds,
		      uint32_t *count)
{
	if (message->magic != TRIB_LINK_MAGIC) {
		return -EBADMSG;
	}
	message->job[sizeof(message->job) - 1] = '\0';
	message->node[sizeof(message->node) - 1] = '\0';
	message->model.digest[sizeof(message->model.digest) - 1] = '\0';
	switch (message->kind) {
	case TRIB_LINK_RINGS:
		return on_rings(link, message, fds, count);
	case TRIB_LINK_SEGMENT:
		return link->rings ? on_segment(link, message, fds, count) : -EBADMSG;
	case TRIB_LINK_DETACH:
		log_info("link", "detach job=%s", message->job);
		gw_jobs_drop(&link->gw->jobs, message->job);
		gw_workers_note(link->gw, GW_NOTE_GONE, message->job);
		return 0;
	case TRIB_LINK_MODEL:
		return on_model(link, message, fds, count);
	case TRIB_LINK_RELEASE:
		return *count ? -EBADMSG : on_release(link, message);
	case TRIB_LINK_TARGET:
	case TRIB_LINK_MOVED:
		return on_transfer(link, message, fds, count);
	default:
		return -EBADMSG;
	}
}

static void on_readable(int fd, unsigned ready, void *arg)
{
	struct gw_link *link = arg;

	(void)ready;
	for (int i = 0; i < MESSAGES_PER_TURN; i++) {
		struct trib_link_message message;
		int fds[4];
		uint32_t count = 0;
		int rc = trib_fd_receive(fd, &message, sizeof(message), fds, TRIB_COUNT(fds),
					 &count);

		if (rc == -EAGAIN) {
			return;
		}
		rc = rc == (int)sizeof(message) ? on_message(link, &message, fds, &count)
		     : rc == 0                  ? -ENOTCONN
		     : rc < 0                   ? rc
						: -EBADMSG;
		for (uint32_t k = 0; k < count; k++) {
			(void)close(fds[k]);
		}
		if (rc) {
			log_debug("link", "message refused rc=%d", rc);
			link_down(link, rc == -ENOTCONN ? "eof" : "message");
			return;
		}
		if (link->fd != fd) {
			return; /* went down on the way */
		}
	}
}

static void on_timer(void *arg)
{
	struct gw_link *link = arg;
	int rc;

	if (link->fd >= 0) {
		link_down(link, "no answer to HELLO");
		return;
	}
	rc = trib_unix_connect(link->gw->options.agent, &link->fd);
	if (rc) {
		link->fd = -1;
		trib_timer_after(link->timer, BACKOFF_MS);
		return;
	}
	if (fcntl(link->fd, F_SETFL, O_NONBLOCK) < 0 ||
	    trib_io_new(link->gw->loop, link->fd, TRIB_IO_READ, on_readable, link, &link->io) ||
	    send_message(link, TRIB_LINK_HELLO, NULL)) {
		link_down(link, "hello");
		return;
	}
	trib_timer_after(link->timer, HELLO_MS);
}

int gw_link_new(struct gw *gw, struct gw_link **ret_link)
{
	struct gw_link *link = trib_alloc(sizeof(*link));
	int rc;

	if (!link) {
		return -ENOMEM;
	}
	link->gw = gw;
	link->fd = -1;
	link->agent_bell = -1;
	link->own_bell = -1;
	rc = trib_timer_new(gw->loop, on_timer, link, &link->timer);
	if (rc == 0 && gw->own_tables) {
		rc = trib_io_new(gw->loop, gw->bell, TRIB_IO_READ, on_relay, link, &link->relay);
	}
	if (rc == 0) {
		rc = trib_timer_new(gw->loop, on_resend, link, &link->resend);
	}
	if (rc) {
		(void)gw_link_free(link);
		return rc;
	}
	trib_timer_after(link->timer, 0);
	*ret_link = link;
	return 0;
}

struct gw_link *gw_link_free(struct gw_link *link)
{
	if (link) {
		gw_rings_set(link->gw, NULL);
		link->bell_io = trib_io_free(link->bell_io);
		link->rings = gw_rings_put(link->rings);
		link->io = trib_io_free(link->io);
		link->relay = trib_io_free(link->relay);
		close_one(&link->agent_bell);
		close_one(&link->own_bell);
		close_one(&link->fd);
		link->timer = trib_timer_free(link->timer);
		link->resend = trib_timer_free(link->resend);
		trib_free(link);
	}
	return NULL;
}
