/* SPDX-License-Identifier: Apache-2.0
 * The newest version of a job has bytes nowhere: keeper and agent of the node that made it were
 * killed together before its file was there, and no other node had a copy. What a node cannot find
 * it tells the record (trib_version_gone), again and again; once nobody who lives has it, the
 * record names an older version to try, and at last gives that one's bytes the next number.
 */
#include "orchestrator/agent/peers.h"

#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "orchestrator/agent/agent.h"
#include "orchestrator/agent/published.h"

#define AGAIN_MS   300
#define FORGET_MS  60000
#define WAIT_LEAST 1000u

struct told {
	struct agent *agent;
	char job[TRIB_JOB_ID_SIZE];
	uint32_t version;
};

static struct agent_gone *find(struct agent *agent, const char *job)
{
	for (uint32_t i = 0; i < AGENT_GONE_MAX; i++) {
		if (agent->gone[i].job[0] && strcmp(agent->gone[i].job, job) == 0) {
			return &agent->gone[i];
		}
	}
	return NULL;
}

/* One per job. NULL: there are many, the next miss tells again. */
static struct agent_gone *get(struct agent *agent, const char *job)
{
	struct agent_gone *g = find(agent, job);

	for (uint32_t i = 0; !g && i < AGENT_GONE_MAX; i++) {
		if (!agent->gone[i].job[0]) {
			g = &agent->gone[i];
			*g = (struct agent_gone){ .next_ms = trib_clock_ms() + AGAIN_MS,
						  .until_ms = trib_clock_ms() + FORGET_MS };
			(void)snprintf(g->job, sizeof(g->job), "%s", job);
		}
	}
	return g;
}

static void settle(struct agent *agent, struct agent_gone *g, const struct trib_value *value)
{
	const char *word = trib_value_text(trib_value_at(value, 0));
	const char *text = trib_value_text(trib_value_at(value, 1));
	uint64_t other = 0;
	bool number = trib_parse_u64(text, strlen(text), 0, UINT32_MAX - 1, &other) == 0;

	if (strcmp(word, "OK") == 0 || strcmp(word, "SAME") == 0) {
		agent_count(AGENT_M_MODELS_LOST, word[0] == 'O');
		log_err("gone", "event=version-lost job=%s version=%u now=%llu of=%u", g->job,
			g->version, (unsigned long long)other, g->trying ? g->trying - 1 : 0);
		g->source = g->trying;
		g->trying = 0;
		g->copies = false;
		g->version = (uint32_t)other;
		agent_models_want(agent, g->job, g->version);
	} else if (number && (strcmp(word, "TRY") == 0 || strcmp(word, "FROM") == 0)) {
		g->trying = (uint32_t)other + 1;
		g->copies = word[0] == 'F';
		agent_models_want(agent, g->job, (uint32_t)other);
	} else if (strcmp(word, "HELD") == 0 || strcmp(word, "LATER") == 0) {
		g->trying = 0;
	} else {
		if (strcmp(word, "NONE") == 0) {
			log_err("gone", "event=nothing-left job=%s version=%u", g->job, g->version);
		}
		g->job[0] = '\0';
	}
}

static void on_told(const struct trib_value *value, void *arg)
{
	struct told *told = arg;
	struct agent_gone *g = find(told->agent, told->job);

	if (g && g->version == told->version) {
		g->calling = false;
		g->next_ms = trib_clock_ms() + AGAIN_MS;
		if (value && trib_value_type(value) == TRIB_VALUE_ARRAY) {
			settle(told->agent, g, value);
		}
	}
	trib_free(told);
}

/* digest: of the older version that was tried, "" when it cannot be had; NULL: none was */
static void tell(struct agent *agent, struct agent_gone *g, const char *digest)
{
	struct told *told = g->calling ? NULL : trib_alloc(sizeof(*told));
	uint64_t lease = agent->options.lease_ms;
	char key[TRIB_JOB_ID_SIZE + 16];
	char version[12];
	char older[12] = "";
	char wait[24];

	if (!told) {
		return;
	}
	told->agent = agent;
	told->version = g->version;
	memcpy(told->job, g->job, sizeof(told->job));
	if (digest) {
		(void)snprintf(older, sizeof(older), "%u", g->trying - 1);
	}
	(void)snprintf(key, sizeof(key), "trib:{%s}:job", g->job);
	(void)snprintf(version, sizeof(version), "%u", g->version);
	(void)snprintf(wait, sizeof(wait), "%llu",
		       (unsigned long long)(lease > WAIT_LEAST ? lease : WAIT_LEAST));
	g->calling = trib_redis_send(agent->redis, on_told, told, "FCALL", "trib_version_gone", "1",
				     key, version, g->digest, agent->options.node, wait, older,
				     digest ? digest : "", NULL) == 0;
	if (!g->calling) {
		trib_free(told);
	}
}

void agent_gone_missed(struct agent *agent, const char *job, uint32_t version, const char *digest)
{
	struct agent_gone *g = find(agent, job);

	if (g && g->trying == version + 1) {
		tell(agent, g, "");
		return;
	}
	if ((g && (g->trying || version < g->version)) ||
	    agent_published_holds(agent, job, version)) {
		return; /* its turn comes; or the record has not told yet that it is published */
	}
	g = get(agent, job);
	if (!g || g->calling) {
		return;
	}
	if (g->version != version) {
		g->source = 0;
	}
	g->version = version;
	g->until_ms = trib_clock_ms() + FORGET_MS;
	(void)snprintf(g->digest, sizeof(g->digest), "%s", digest);
	tell(agent, g, NULL);
}

void agent_gone_found(struct agent *agent, const char *job, uint32_t version, const char *digest)
{
	struct agent_gone *g = find(agent, job);

	if (!g || g->calling) {
		return;
	}
	if (g->trying == version + 1 && g->copies) {
		g->source = g->trying;
		g->trying = 0;
		agent_models_want(agent, job, g->version);
	} else if (g->trying == version + 1) {
		tell(agent, g, digest);
	} else if (version >= g->version) {
		g->job[0] = '\0';
	}
}

uint32_t agent_gone_source(const struct agent *agent, const char *job, uint32_t version)
{
	for (uint32_t i = 0; i < AGENT_GONE_MAX; i++) {
		const struct agent_gone *g = &agent->gone[i];

		if (g->job[0] && g->version == version && strcmp(g->job, job) == 0) {
			return g->source;
		}
	}
	return 0;
}

void agent_gone_tick(struct agent *agent, uint64_t now)
{
	for (uint32_t i = 0; i < AGENT_GONE_MAX; i++) {
		struct agent_gone *g = &agent->gone[i];

		if (!g->job[0] || g->calling || now < g->next_ms) {
			continue;
		}
		if (now >= g->until_ms) {
			g->job[0] = '\0';
			continue;
		}
		g->next_ms = now + AGAIN_MS;
		agent_models_want(agent, g->job, g->trying ? g->trying - 1 : g->version);
	}
}
