/* SPDX-License-Identifier: Apache-2.0
 * A round's end on the node that gathers it: the functions that hold its sum finalise it, the
 * writer makes a version of it, the record is told.
 */
#include "orchestrator/agent/agent.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "orchestrator/agent/published.h"

void agent_finalise(struct agent_job *job)
{
	struct trib_descriptor model = { .kind = TRIB_DESC_MODEL,
					 .round = job->round,
					 .base = job->base,
					 .tag = job->norms,
					 .sent_us = trib_descriptor_now_us() };

	if (agent_fn_equip_top(job, true)) {
		return;
	}
	for (uint32_t lane = 0; lane < job->lanes; lane++) {
		if (agent_fn_send(&job->fns[AGENT_TOP + lane], &model)) {
			return; /* all of them once more, later */
		}
	}
	agent_model_asked(job);
	job->phase = AGENT_FINALISING;
	log_debug("rounds", "event=finalising job=%s round=%u", job->id, job->round);
}

void agent_finalise_acked(struct agent_job *job, const struct trib_descriptor *d)
{
	struct agent_write write = {
		.round = job->round,
		.version = job->base + 1,
		.bytes = job->elements * sizeof(float),
		.out = job->out,
	};

	if (job->phase != AGENT_FINALISING || !agent_model_made(job, d)) {
		return; /* other ranges are still to come */
	}
	if (agent_ahead_whole(job)) {
		job->phase = AGENT_WRITING;
		log_debug("rounds", "event=writing job=%s round=%u ahead=1", job->id, job->round);
		return;
	}
	memcpy(write.job, job->id, sizeof(write.job));
	write.model = agent_published_fill(job, true);
	if (!write.model || agent_writer_put(job->agent->writer, &write)) {
		log_err("rounds", "event=writer-refused job=%s", job->id);
		if (write.model) {
			agent_published_filled(job->agent, write.model, -ENOBUFS, 0, "");
		}
		job->phase = AGENT_FLUSHING; /* the tick tries again */
		return;
	}
	job->out->refs++;
	job->phase = AGENT_WRITING;
	log_debug("rounds", "event=writing job=%s round=%u", job->id, job->round);
}

struct report {
	struct agent *agent;
	char id[TRIB_JOB_ID_SIZE];
	uint32_t round;
};

static void on_reported(const struct trib_value *value, void *arg)
{
	struct report *report = arg;
	struct agent_job *job = agent_job_find(report->agent, report->id);
	const char *word = value ? trib_value_text(trib_value_at(value, 0)) : "";

	if (value && job && job->round == report->round && job->phase == AGENT_REPORTING) {
		if (strcmp(word, "OK") == 0) {
			agent_count(AGENT_M_ROUNDS, 1);
		} else if (strcmp(word, "DUP") != 0) {
			log_warn("rounds", "event=report-answer job=%s round=%u answer=%s", job->id,
				 job->round, word);
			if (strcmp(word, "COUNT") == 0) {
				job->phase = AGENT_COLLECTING;
			}
			/* An error is no decision: the tick reports again. */
			job->report_sent = trib_value_type(value) == TRIB_VALUE_ARRAY;
			agent_job_sync(job);
		}
	}
	trib_free(report);
}

void agent_finalise_report(struct agent_job *job)
{
	struct report *report;
	char round[12];
	char count[24];
	char weight[24];
	char norm[TRIB_NORM_SIZE];

	if (agent_published_waits(job, job->base + 1)) {
		return; /* for the file of the version before: a power failure takes one at most */
	}
	report = trib_alloc(sizeof(*report));
	if (!report) {
		return;
	}
	report->agent = job->agent;
	report->round = job->round;
	memcpy(report->id, job->id, sizeof(report->id));
	(void)snprintf(round, sizeof(round), "%u", job->round);
	(void)snprintf(count, sizeof(count), "%llu", (unsigned long long)job->expected);
	(void)snprintf(weight, sizeof(weight), "%llu", (unsigned long long)job->weight_expected);
	if (trib_redis_send(job->agent->redis, on_reported, report, "FCALL", "trib_task_report",
			    "1", job->key, round, count, weight, job->digest,
			    job->agent->options.node, job->segment.header.boot,
			    trib_norm_text(job->norms ? job->mean_norm : -1, norm), NULL)) {
		trib_free(report);
		return;
	}
	job->report_sent = true;
}

void agent_round_written(struct agent_write *write, void *arg)
{
	struct agent *agent = arg;
	struct agent_job *job = agent_job_find(agent, write->job);

	(void)agent_out_put(write->out);
	agent_published_filled(agent, write->model, write->rc, write->version, write->digest);
	if (!job || job->round != write->round || job->phase != AGENT_WRITING ||
	    write->rc == -ECANCELED) {
		return;
	}
	if (write->rc) {
		log_err("rounds", "event=write-failed job=%s round=%u rc=%d", job->id, job->round,
			write->rc);
		job->phase = AGENT_FLUSHING; /* the tick tries again */
		return;
	}
	memcpy(job->digest, write->digest, sizeof(job->digest));
	job->peers.have_version = write->version + 1;
	memcpy(job->peers.have_digest, write->digest, sizeof(job->peers.have_digest));
	job->phase = AGENT_REPORTING;
	log_debug("rounds", "event=reporting job=%s round=%u", job->id, job->round);
	job->report_sent = false;
	agent_finalise_report(job);
}
