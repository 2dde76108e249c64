/* SPDX-License-Identifier: Apache-2.0
 * The ranges of a split vector become one sum before it travels: a copy of all sums, in a thread of
 * its own, so that the loop goes on with other jobs. The lanes' partials stay what counts until the
 * whole is with the keeper; if one of them changed meanwhile (the round went on) the copy is thrown
 * away.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "orchestrator/agent/agent.h"

#define WAKE_RETRY_MS 5

struct join {
	struct agent *agent;
	uint64_t serial;
	char job[TRIB_JOB_ID_SIZE];
	char boot[TRIB_BOOT_SIZE + 1];
	uint32_t job_index;
	uint32_t round;
	uint64_t elements;
	enum trib_accumulate accumulate;
	uint32_t lanes;
	int fds[AGENT_LANES_MAX];        /* owned, -1 none */
	uint64_t marks[AGENT_LANES_MAX]; /* done_seq when it began */
	struct trib_partial whole;
	uint64_t took_ns;
	int rc;
};

static void join_free(struct join *join)
{
	for (uint32_t i = 0; i < AGENT_LANES_MAX; i++) {
		if (join->fds[i] >= 0) {
			(void)close(join->fds[i]);
		}
	}
	if (join->whole.fd >= 0) {
		trib_partial_fini(&join->whole);
	}
	trib_free(join);
}

/* ---- the thread ---- */

static int copy(struct join *join)
{
	int rc = trib_partial_create(join->job, join->boot, join->job_index, AGENT_TOP,
				     join->elements, join->accumulate, &join->whole);

	if (rc) {
		join->whole.fd = -1;
	}
	for (uint32_t i = 0; i < join->lanes && !rc; i++) {
		struct trib_partial lane;

		rc = trib_partial_attach(join->fds[i], false, &lane);
		join->fds[i] = -1;
		if (!rc) {
			trib_partial_join(&join->whole, &lane);
			trib_partial_fini(&lane);
		}
	}
	return rc;
}

static void on_done(void *arg);

static void *join_main(void *arg)
{
	struct join *join = arg;
	uint64_t began = trib_clock_ns();

	join->rc = copy(join);
	join->took_ns = trib_clock_ns() - began;
	while (trib_loop_wake(join->agent->loop, on_done, join) == -ENOBUFS) {
		(void)poll(NULL, 0, WAKE_RETRY_MS);
	}
	return NULL;
}

/* ---- the loop ---- */

static uint64_t mark_of(const struct agent_fn *root)
{
	return __atomic_load_n(&trib_partial_header(&root->partial)->done_seq, __ATOMIC_ACQUIRE);
}

static bool still_so(struct agent_job *job, const struct join *join)
{
	if (job->round != join->round || job->lanes != join->lanes ||
	    job->phase != AGENT_FLUSHING ||
	    strncmp(job->segment.header.boot, join->boot, TRIB_BOOT_SIZE) != 0) {
		return false;
	}
	for (uint32_t i = 0; i < join->lanes; i++) {
		const struct agent_fn *root = &job->fns[AGENT_TOP + i];

		if (!agent_tree_holds(job, root->index) || mark_of(root) != join->marks[i] ||
		    trib_partial_op_active(&root->partial)) {
			return false;
		}
	}
	return true;
}

/* The whole is complete before the keeper gets it in place of the first root's: whoever finds it
 * there needs no other (adopt.c). */
static void take(struct agent_job *job, struct join *join)
{
	uint64_t began = trib_clock_ns();

	if (join->rc || !still_so(job, join)) {
		log_info("join", "event=join-void job=%s round=%u rc=%d", job->id, join->round,
			 join->rc);
		return;
	}
	agent_tree_put_away(job); /* nobody else writes now */
	if (agent_keep_whole(job, &join->whole)) {
		return;
	}
	agent_tree_joined(job, &join->whole);
	join->whole.fd = -1;
	log_info("join", "event=joined job=%s round=%u lanes=%u copy_us=%llu loop_us=%llu", job->id,
		 join->round, join->lanes, (unsigned long long)(join->took_ns / 1000),
		 (unsigned long long)((trib_clock_ns() - began) / 1000));
}

static void on_done(void *arg)
{
	struct join *join = arg;
	struct agent_job *job = agent_job_find(join->agent, join->job);

	if (job && job->joining == join->serial) {
		job->joining = 0;
		take(job, join);
		agent_round_advance(job);
	}
	join_free(join);
}

static int launch(struct join *join)
{
	pthread_attr_t attr;
	pthread_t thread;
	int rc;

	(void)pthread_attr_init(&attr);
	(void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	rc = -pthread_create(&thread, &attr, join_main, join);
	(void)pthread_attr_destroy(&attr);
	return rc;
}

int agent_join(struct agent_job *job)
{
	static uint64_t serial;
	struct join *join;
	int rc = 0;

	if (job->joining) {
		return -EAGAIN;
	}
	join = trib_alloc(sizeof(*join));
	if (!join) {
		return -ENOMEM;
	}
	agent_tree_put_away(job); /* nobody else writes now */
	*join = (struct join){ .agent = job->agent,
			       .serial = ++serial,
			       .job_index = job->index,
			       .round = job->round,
			       .elements = job->elements,
			       .accumulate = job->accumulate,
			       .lanes = job->lanes,
			       .whole.fd = -1 };
	memcpy(join->job, job->id, sizeof(join->job));
	(void)snprintf(join->boot, sizeof(join->boot), "%.*s", TRIB_BOOT_SIZE,
		       job->segment.header.boot);
	for (uint32_t i = 0; i < AGENT_LANES_MAX; i++) {
		const struct agent_fn *root = &job->fns[AGENT_TOP + i];
		bool used = i < job->lanes && root->has_partial;

		join->fds[i] = used ? fcntl(root->partial.fd, F_DUPFD_CLOEXEC, 3) : -1;
		join->marks[i] = used ? mark_of(root) : 0;
		rc = i < job->lanes && join->fds[i] < 0 ? -EMFILE : rc;
	}
	rc = rc ? rc : launch(join);
	if (rc) {
		join_free(join);
		return rc;
	}
	job->joining = join->serial;
	return -EAGAIN;
}
