/* SPDX-License-Identifier: Apache-2.0
 * Files of versions on this node: every node of a job keeps the newest ones (its gateway serves
 * them, and its top may need them), fetched from a node that has them and checked by their digest.
 * The cluster's key, which seals what nodes ask each other, is learnt here as well.
 */
#include "orchestrator/agent/peers.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/crypto.h"
#include "common/log.h"
#include "orchestrator/agent/agent.h"
#include "orchestrator/agent/published.h"

#define KEY_TEXT (2 * TRIB_TICKET_KEY_SIZE)
#define QUIET_MS 200 /* after a failure, of one file */

/* ---- the cluster's key ---- */

static int hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void on_key(const struct trib_value *value, void *arg)
{
	struct agent *agent = arg;
	const char *text = value ? trib_value_text(value) : "";

	agent->key_asked = false;
	if (!value || trib_value_type(value) != TRIB_VALUE_TEXT || strlen(text) != KEY_TEXT) {
		return; /* asked again by the next beat */
	}
	for (size_t i = 0; i < TRIB_TICKET_KEY_SIZE; i++) {
		int high = hex(text[2 * i]);
		int low = hex(text[2 * i + 1]);

		if (high < 0 || low < 0) {
			log_err("models", "event=bad-cluster-key");
			return;
		}
		agent->ticket_key[i] = (uint8_t)(high << 4 | low);
	}
	agent->key_known = true;
}

void agent_key_ask(struct agent *agent)
{
	uint8_t bytes[TRIB_TICKET_KEY_SIZE];
	char text[KEY_TEXT + 1];

	if (agent->key_known || agent->key_asked || trib_random(bytes, sizeof(bytes))) {
		return;
	}
	for (size_t i = 0; i < sizeof(bytes); i++) {
		(void)snprintf(text + 2 * i, 3, "%02x", bytes[i]);
	}
	agent->key_asked =
		trib_redis_send(agent->redis, on_key, agent, "FCALL", "trib_cluster_init", "1",
				"trib:key:ticket", text, NULL) == 0;
}

/* ---- fetching ---- */

struct want {
	struct agent *agent;
	char job[TRIB_JOB_ID_SIZE];
	uint32_t version;
};

static struct agent_wanted *wanted(struct agent *agent, const char *job, uint32_t version)
{
	struct agent_wanted *free_one = NULL;
	uint64_t now = trib_clock_ms();

	for (uint32_t i = 0; i < AGENT_WANTED_MAX; i++) {
		struct agent_wanted *w = &agent->wanted[i];

		if (w->job[0] && w->version == version && strcmp(w->job, job) == 0) {
			return w;
		}
		if (!w->job[0] || (!w->busy && now >= w->quiet_ms)) {
			free_one = w;
		}
	}
	if (free_one) {
		*free_one = (struct agent_wanted){ .version = version };
		(void)snprintf(free_one->job, sizeof(free_one->job), "%s", job);
	}
	return free_one;
}

static void settled(struct agent *agent, const char *job, uint32_t version)
{
	struct agent_wanted *w = wanted(agent, job, version);

	if (w) {
		w->busy = false;
		w->quiet_ms = trib_clock_ms() + QUIET_MS;
	}
}

struct told {
	struct agent *agent;
	char job[TRIB_JOB_ID_SIZE];
	uint32_t version;
	bool fetched;
};

/* The job went while its file was on the way: whoever purged has not seen that one. */
static void on_told(const struct trib_value *value, void *arg)
{
	struct told *told = arg;
	char path[600];

	if (value && told->fetched &&
	    strcmp(trib_value_text(trib_value_at(value, 0)), "NOJOB") == 0) {
		(void)snprintf(path, sizeof(path), "%s/%s/v%u.safetensors",
			       told->agent->options.models, told->job, told->version);
		(void)unlink(path);
		*strrchr(path, '/') = '\0';
		(void)rmdir(path); /* if nothing else is there */
	}
	trib_free(told);
}

static void tell(struct agent *agent, const char *job, uint32_t version, bool fetched)
{
	struct told *told = trib_alloc(sizeof(*told));
	char key[TRIB_JOB_ID_SIZE + 16];
	char number[12];

	if (!told) {
		return;
	}
	told->agent = agent;
	told->version = version;
	told->fetched = fetched;
	(void)snprintf(told->job, sizeof(told->job), "%s", job);
	(void)snprintf(key, sizeof(key), "trib:{%s}:job", job);
	(void)snprintf(number, sizeof(number), "%u", version);
	if (trib_redis_send(agent->redis, on_told, told, "FCALL", "trib_model_at", "1", key, number,
			    agent->options.node, NULL)) {
		log_warn("models", "event=not-told job=%s version=%u", job, version);
		trib_free(told);
	}
}

static void here(struct agent *agent, const char *id, uint32_t version, const char *digest,
		 bool fetched)
{
	struct agent_job *job = agent_job_find(agent, id);

	if (job && version + 1 >= job->peers.have_version) {
		job->peers.have_version = version + 1;
		(void)snprintf(job->peers.have_digest, sizeof(job->peers.have_digest), "%s",
			       digest);
	}
	tell(agent, id, version, fetched);
	agent_gone_found(agent, id, version, digest);
}

static void on_fetched(struct agent_transfer *t)
{
	struct agent_job *job;

	settled(t->agent, t->job, t->round);
	if (t->rc) {
		agent_count(AGENT_M_FETCHES_FAILED, 1);
		log_info("models", "event=not-fetched job=%s version=%u rc=%d status=%ld %s",
			 t->job, t->round, t->rc, t->status, t->error);
		if (t->absent) {
			agent_gone_missed(t->agent, t->job, t->round, t->digest);
		}
		return;
	}
	if (t->fetched) {
		agent_count(AGENT_M_MODELS_FETCHED, 1);
		agent_count(AGENT_M_MODEL_BYTES_FETCHED, (int64_t)t->bytes);
		log_info("models", "event=fetched job=%s version=%u", t->job, t->round);
	}
	here(t->agent, t->job, t->round, t->digest, t->fetched);
	job = agent_job_find(t->agent, t->job);
	if (job) {
		agent_round_advance(job); /* a top may have waited for its base */
	}
}

static void on_where(const struct trib_value *value, void *arg)
{
	struct want *want = arg;
	struct agent_transfer *t = NULL;
	uint64_t bytes = 0;

	if (value && trib_value_type(value) == TRIB_VALUE_ARRAY && trib_value_count(value) >= 2) {
		t = agent_transfer_new(want->agent, on_fetched);
		bytes = (uint64_t)trib_value_integer(trib_value_at(value, 1));
	}
	if (t &&
	    (trib_copy(t->digest, sizeof(t->digest), trib_value_text(trib_value_at(value, 0))) ||
	     bytes == 0 || bytes > 1ull << 40)) {
		agent_transfer_free(t);
		t = NULL;
	}
	if (t) {
		memcpy(t->job, want->job, sizeof(t->job));
		t->round = want->version;
		t->source = agent_gone_source(want->agent, want->job, want->version);
		t->bytes = bytes;
		for (size_t i = 2; i < trib_value_count(value) && t->url_count < 8; i++) {
			if (trib_copy(t->url[t->url_count], sizeof(t->url[0]),
				      trib_value_text(trib_value_at(value, i))) == 0) {
				t->url_count++;
			}
		}
		if (agent_transfer_model(t)) {
			agent_transfer_free(t);
			t = NULL;
		}
	}
	if (!t) {
		settled(want->agent, want->job, want->version);
	}
	trib_free(want);
}

void agent_models_want(struct agent *agent, const char *job, uint32_t version)
{
	struct agent_model *model = agent_published_find(agent, job, version);
	struct agent_wanted *w = wanted(agent, job, version);
	struct want *want;
	char key[TRIB_JOB_ID_SIZE + 16];
	char number[12];

	if (model) {
		agent_published_offer(agent, model);
		here(agent, model->job, version, model->digest, false);
		return;
	}
	if (!agent->key_known || !w || w->busy || trib_clock_ms() < w->quiet_ms) {
		return;
	}
	want = trib_alloc(sizeof(*want));
	if (!want) {
		return;
	}
	want->agent = agent;
	want->version = version;
	memcpy(want->job, w->job, sizeof(want->job));
	(void)snprintf(key, sizeof(key), "trib:{%s}:job", job);
	(void)snprintf(number, sizeof(number), "%u", version);
	if (trib_redis_send(agent->redis, on_where, want, "FCALL", "trib_model_where", "1", key,
			    number, agent->options.node, NULL)) {
		trib_free(want);
		return;
	}
	w->busy = true;
}

bool agent_models_ready(struct agent_job *job)
{
	const uint32_t versions[2] = { 0, job->base }; /* v0's header, the base's data */
	bool ready = true;

	for (uint32_t i = 0; i < 2; i++) {
		uint64_t offset;
		int fd = agent_model_open(job->agent, job->id, versions[i], &offset);

		if (fd >= 0) {
			(void)close(fd);
		} else {
			ready = false;
			agent_models_want(job->agent, job->id, versions[i]);
		}
	}
	return ready;
}

void agent_models_synced(struct agent_job *job, const struct trib_value *sync)
{
	struct agent_peers *p = &job->peers;
	const char *text = trib_value_text(trib_value_at(sync, 1));
	const char *task = trib_value_text(trib_value_at(sync, 18));
	uint32_t base = (uint32_t)trib_value_integer(trib_value_at(sync, 6));
	uint64_t version;

	if (trib_parse_u64(text, strlen(text), 0, UINT32_MAX - 2, &version)) {
		return; /* no model yet */
	}
	if (task[0] && base + 1 > version && strcmp(p->top, job->agent->options.node) != 0) {
		if (p->have_version != base + 2 || strcmp(p->have_digest, task) != 0) {
			agent_models_want(job->agent, job->id, base + 1); /* the second copy */
		}
		return;
	}
	if (p->have_version > version + 1 && !task[0]) {
		p->have_version = 0; /* it was never published */
	}
	if (p->have_version < version + 1) {
		agent_models_want(job->agent, job->id, (uint32_t)version);
	}
}
