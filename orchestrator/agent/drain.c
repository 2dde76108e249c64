/* SPDX-License-Identifier: Apache-2.0
 * A node that is to leave in order (24_drain.lua, docs/nodes.md). The record closes its share of
 * open rounds, rounds.c and peers.c move the sums as ever; here it is watched until nothing is
 * left: no share, no round gathered here, no file that only this node has, no slot in use. A signal
 * then ends the agent with a word to the record, so that nobody has to find out by silence.
 */
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "orchestrator/agent/agent.h"

#define LOOK_MS  200
#define CALM_MS  1000 /* once nothing is left */
#define PAGE     "16"
#define PAGE_N   16
#define LEAVE_MS 3000 /* after a signal: for what came last, and the word */

static bool slots_busy(const struct agent *agent)
{
	for (uint32_t j = 0; j < AGENT_JOBS_MAX; j++) {
		const struct agent_job *job = agent->jobs[j];

		for (uint32_t i = 0;
		     job && job->segment.data_fd >= 0 && i < job->segment.header.slot_count; i++) {
			if (trib_slot_load(trib_segment_record(&job->segment, i)).state !=
			    TRIB_SLOT_FREE) {
				return true;
			}
		}
	}
	return false;
}

static void tell(struct agent *agent, const char *word, trib_redis_cb *cb)
{
	if (trib_redis_send(agent->redis, cb, agent, "FCALL", "trib_node_drained", "1",
			    "trib:nodes:draining", agent->options.node, word, NULL) &&
	    cb) {
		trib_loop_stop(agent->loop);
	}
}

static void on_left(const struct trib_value *value, void *arg)
{
	struct agent *agent = arg;

	(void)value;
	trib_loop_stop(agent->loop);
}

static void leave(struct agent *agent)
{
	struct agent_drain *d = &agent->drain;

	if (!d->left) {
		d->left = true;
		log_info("drain", "event=leaving node=%s", agent->options.node);
		tell(agent, "leaving", on_left);
	}
}

static void on_page(const struct trib_value *value, void *arg);

static void next_page(struct agent *agent)
{
	struct agent_drain *d = &agent->drain;
	char offset[24];

	(void)snprintf(offset, sizeof(offset), "%llu", (unsigned long long)d->offset);
	d->asking = trib_redis_send(agent->redis, on_page, agent, "FCALL", "trib_node_left", "1",
				    "trib:jobs", agent->options.node, offset, PAGE, NULL) == 0;
}

/* All jobs were looked at. */
static void judge(struct agent *agent)
{
	struct agent_drain *d = &agent->drain;
	bool empty = d->rounds == 0 && d->files == 0 && !slots_busy(agent);

	if (empty != d->empty) {
		log_info("drain", "event=%s node=%s", empty ? "drained" : "in-use-again",
			 agent->options.node);
		tell(agent, empty ? "drained" : "draining", NULL);
	}
	d->empty = empty;
	d->next_ms = trib_clock_ms() + (empty && !d->until_ms ? CALM_MS : LOOK_MS);
	if (empty && d->until_ms) {
		leave(agent);
	}
}

static void on_page(const struct trib_value *value, void *arg)
{
	struct agent *agent = arg;
	struct agent_drain *d = &agent->drain;

	d->asking = false;
	if (!d->on || !value || trib_value_type(value) != TRIB_VALUE_ARRAY) {
		d->offset = 0; /* from the beginning, at the next look */
		return;
	}
	d->rounds += (uint64_t)trib_value_integer(trib_value_at(value, 1));
	d->files += (uint64_t)trib_value_integer(trib_value_at(value, 2));
	d->offset += PAGE_N;
	if (trib_value_integer(trib_value_at(value, 0)) >= PAGE_N) {
		next_page(agent);
		return;
	}
	judge(agent);
}

void agent_drain_tick(struct agent *agent, uint64_t now_ms)
{
	struct agent_drain *d = &agent->drain;

	if (d->until_ms && now_ms >= d->until_ms) {
		leave(agent);
		if (now_ms >= d->until_ms + LEAVE_MS / 2) {
			trib_loop_stop(agent->loop);
		}
	}
	if (d->on && !d->asking && !d->left && now_ms >= d->next_ms) {
		d->offset = 0;
		d->rounds = 0;
		d->files = 0;
		d->next_ms = now_ms + LOOK_MS;
		next_page(agent);
	}
}

void agent_drain_told(struct agent *agent, bool on)
{
	struct agent_drain *d = &agent->drain;

	if (on == d->on) {
		return;
	}
	log_info("drain", "event=%s node=%s", on ? "begins" : "ends", agent->options.node);
	*d = (struct agent_drain){ .on = on };
	for (uint32_t i = 0; i < AGENT_JOBS_MAX; i++) {
		if (agent->jobs[i]) {
			agent_job_sync(agent->jobs[i]); /* its share is closed, or open again */
		}
	}
}

static void on_asked(const struct trib_value *value, void *arg)
{
	struct agent *agent = arg;
	const char *word = value ? trib_value_text(trib_value_at(value, 0)) : "";

	agent->drain.why = strcmp(word, "ALONE") == 0    ? "no other node is up"
			   : strcmp(word, "NONODE") == 0 ? "the record does not know this node"
							 : "";
	agent_drain_told(agent, strcmp(word, "OK") == 0 || strcmp(word, "SAME") == 0);
}

int agent_drain_ask(struct agent *agent)
{
	return trib_redis_send(agent->redis, on_asked, agent, "FCALL", "trib_node_drain", "1",
			       "trib:nodes:draining", agent->options.node, "0", NULL);
}

const char *agent_drain_word(const struct agent *agent)
{
	return !agent->drain.on ? "" : agent->drain.empty ? "drained" : "draining";
}

bool agent_drain_stop(struct agent *agent)
{
	struct agent_drain *d = &agent->drain;

	if (!d->on || d->until_ms) { /* a second signal waits for nothing */
		return true;
	}
	d->until_ms = trib_clock_ms() + LEAVE_MS;
	d->next_ms = 0;
	return false;
}

/* "carry <job> <version> <node>": that node is asked to fetch the file of a version. */
void agent_drain_carry(struct agent *agent, const char *message)
{
	char job[TRIB_JOB_ID_SIZE];
	char node[TRIB_PEER_NODE_SIZE];
	unsigned version;

	if (sscanf(message, "carry %31s %u %63s", job, &version, node) == 3 &&
	    strcmp(node, agent->options.node) == 0) {
		agent_models_want(agent, job, version);
	}
}
