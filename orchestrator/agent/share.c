/* SPDX-License-Identifier: Apache-2.0
 * Tenants share the node's arena. A job's segment is made once, as large as there is room, so who
 * comes first could keep all of it: when a job of a tenant below its share (the arena divided by
 * the tenants that want some) finds no room, free slots of those above theirs are withdrawn, at
 * once and as they get free, and their memory given back. They are put back when nobody is short.
 */
#include "orchestrator/agent/agent.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"

#define HUNGER_MS  5000 /* how long one that was short is waited for */
#define KEEP_SLOTS 1u   /* of each job */
#define BACK_MAX   256u /* slots put back at a time */

static uint64_t held(const struct agent *agent, const char *tenant)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < AGENT_JOBS_MAX; i++) {
		if (agent->jobs[i] && strcmp(agent->jobs[i]->tenant, tenant) == 0) {
			bytes += agent->jobs[i]->reserved_bytes;
		}
	}
	return bytes;
}

static bool first_of_tenant(const struct agent *agent, uint32_t index)
{
	for (uint32_t i = 0; i < index; i++) {
		if (agent->jobs[i] &&
		    strcmp(agent->jobs[i]->tenant, agent->jobs[index]->tenant) == 0) {
			return false;
		}
	}
	return true;
}

/* `tenant` is one of them, whether it has a job here or not. */
static uint64_t share_with(const struct agent *agent, const char *tenant)
{
	uint64_t tenants = 1;

	for (uint32_t i = 0; i < AGENT_JOBS_MAX; i++) {
		tenants += agent->jobs[i] && strcmp(agent->jobs[i]->tenant, tenant) != 0 &&
			   first_of_tenant(agent, i);
	}
	return agent->options.arena_bytes / tenants;
}

static uint64_t arena_left(const struct agent *agent)
{
	return agent->options.arena_bytes > agent->arena_used
		       ? agent->options.arena_bytes - agent->arena_used
		       : 0;
}

static bool withdraw(struct agent_job *job, uint32_t slot)
{
	struct trib_slot_record *record = trib_segment_record(&job->segment, slot);
	struct trib_slot_view view = trib_slot_load(record);
	uint64_t size = job->segment.header.slot_size;

	if (view.state != TRIB_SLOT_FREE ||
	    job->segment.header.slot_count - job->withdrawn <= KEEP_SLOTS ||
	    !trib_slot_move(record, TRIB_SLOT_FREE, view.gen, TRIB_SLOT_WITHDRAWN)) {
		return false;
	}
	/* Not given back (hugetlb of old kernels): it counts as given all the same, and is bounded
	 * by what it was. */
	(void)fallocate(job->segment.data_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			(off_t)(slot * size), (off_t)size);
	job->withdrawn++;
	job->reserved_bytes -= size;
	job->agent->arena_used -= size;
	agent_count(AGENT_M_WITHDRAWN, 1);
	return true;
}

/* Takes free slots of tenants above `share`, but `tenant`, until `bytes` are left. */
static void take_back(struct agent *agent, const char *tenant, uint64_t share, uint64_t bytes)
{
	for (uint32_t i = 0; i < AGENT_JOBS_MAX && arena_left(agent) < bytes; i++) {
		struct agent_job *job = agent->jobs[i];
		uint64_t over;

		if (!job || !job->ready || strcmp(job->tenant, tenant) == 0) {
			continue;
		}
		over = held(agent, job->tenant);
		over = over > share ? over - share : 0;
		for (uint32_t s = job->segment.header.slot_count;
		     s-- > 0 && over >= job->segment.header.slot_size &&
		     arena_left(agent) < bytes;) {
			over -= withdraw(job, s) ? job->segment.header.slot_size : 0;
		}
	}
}

uint64_t agent_share_left(struct agent_job *job, uint64_t wanted)
{
	struct agent *agent = job->agent;
	uint64_t share = share_with(agent, job->tenant);
	uint64_t mine = held(agent, job->tenant);
	uint64_t room = share > mine ? share - mine : 0;
	bool other = agent->hungry[0] && strcmp(agent->hungry, job->tenant) != 0;

	wanted = wanted < room ? wanted : room;
	if (arena_left(agent) < wanted) {
		take_back(agent, job->tenant, share, wanted);
	}
	if (arena_left(agent) < wanted && !other) {
		(void)snprintf(agent->hungry, sizeof(agent->hungry), "%s", job->tenant);
		agent->hungry_bytes = wanted;
		agent->hungry_share = share;
		agent->hungry_ms = trib_clock_ms();
		log_info("share", "event=short tenant=%s wanted=%llu left=%llu", job->tenant,
			 (unsigned long long)wanted, (unsigned long long)arena_left(agent));
	} else if (!other) {
		agent->hungry[0] = '\0';
	}
	/* What is free just now is for the one that is short. */
	return other && room < arena_left(agent) ? room : arena_left(agent);
}

bool agent_share_withdraws(struct agent_job *job, uint32_t slot)
{
	struct agent *agent = job->agent;

	return agent->hungry[0] && strcmp(agent->hungry, job->tenant) != 0 &&
	       arena_left(agent) < agent->hungry_bytes &&
	       held(agent, job->tenant) >= agent->hungry_share + job->segment.header.slot_size &&
	       withdraw(job, slot);
}

void agent_share_adopted(struct agent_job *job)
{
	for (uint32_t i = 0; i < job->segment.header.slot_count; i++) {
		job->withdrawn += trib_slot_load(trib_segment_record(&job->segment, i)).state ==
				  TRIB_SLOT_WITHDRAWN;
	}
	job->reserved_bytes -= (uint64_t)job->withdrawn * job->segment.header.slot_size;
}

static void put_back(struct agent_job *job)
{
	uint64_t size = job->segment.header.slot_size;
	uint32_t back = 0;

	for (uint32_t i = 0; i < job->segment.header.slot_count && job->withdrawn > 0 &&
			     back < BACK_MAX && arena_left(job->agent) >= size;
	     i++) {
		struct trib_slot_record *record = trib_segment_record(&job->segment, i);
		struct trib_slot_view view = trib_slot_load(record);

		if (view.state == TRIB_SLOT_WITHDRAWN &&
		    trib_slot_move(record, TRIB_SLOT_WITHDRAWN, view.gen, TRIB_SLOT_FREE)) {
			job->withdrawn--;
			job->reserved_bytes += size;
			job->agent->arena_used += size;
			agent_links_freed(job->agent, job, i, view.gen + 1);
			back++;
		}
	}
}

void agent_share_tick(struct agent *agent, uint64_t now)
{
	if (agent->hungry[0] && now - agent->hungry_ms < HUNGER_MS) {
		take_back(agent, agent->hungry, agent->hungry_share, agent->hungry_bytes);
		return;
	}
	agent->hungry[0] = '\0';
	for (uint32_t i = 0; i < AGENT_JOBS_MAX; i++) {
		if (agent->jobs[i] && agent->jobs[i]->ready && agent->jobs[i]->withdrawn > 0) {
			put_back(agent->jobs[i]);
		}
	}
}
