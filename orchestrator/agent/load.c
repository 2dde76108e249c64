/* SPDX-License-Identifier: Apache-2.0
 * What this node has in hand, for whoever plans placement: arrivals per second k, and the mean time
 * E that an update stays, so that k * E is how many are there (Little's law, read from that side:
 * the number is sampled, k is counted, E follows).
 */
#include "common/clock.h"
#include "orchestrator/agent/agent.h"

#define NEWEST 0.5 /* weight of the newest period in averages */

static double in_hand(const struct agent *agent)
{
	uint64_t count = 0;

	for (uint32_t i = 0; i < AGENT_JOBS_MAX; i++) {
		const struct agent_job *job = agent->jobs[i];
		uint64_t out = 0;

		for (uint32_t f = AGENT_TOP; job && f <= job->fn_high; f++) {
			out += job->fns[f].outstanding;
		}
		if (job) { /* each shard of a group counts it */
			count += job->pending_count + out / (job->lanes ? job->lanes : 1);
		}
	}
	return (double)count;
}

void agent_load_sample(struct agent *agent, uint64_t now_ms)
{
	struct agent_load *load = &agent->load;

	if (load->sampled_ms) {
		load->area += load->sampled * (double)(now_ms - load->sampled_ms);
	}
	load->sampled = in_hand(agent);
	load->sampled_ms = now_ms;
}

void agent_load_period(struct agent *agent, uint64_t now_ms)
{
	struct agent_load *load = &agent->load;
	int64_t folded = agent_counted(AGENT_M_FOLDED);
	double seconds = (double)(now_ms - load->began_ms) / 1000;

	agent_load_sample(agent, now_ms);
	if (load->began_ms && seconds > 0) {
		double mean = load->area / 1000 / seconds;
		double rate = (double)(folded - load->folded) / seconds;

		load->in_hand += NEWEST * (mean - load->in_hand);
		load->arrivals_s += NEWEST * (rate - load->arrivals_s);
	}
	load->seconds = load->arrivals_s > 0 ? load->in_hand / load->arrivals_s : 0;
	load->area = 0;
	load->began_ms = now_ms;
	load->folded = folded;
}
