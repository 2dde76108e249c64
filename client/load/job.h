/* SPDX-License-Identifier: Apache-2.0
 * The job that is loaded: made, or taken as it is; and what the service says it counted. Blocking,
 * main thread. Everything that fails is told on stderr.
 */
#ifndef TRIB_CLIENT_LOAD_JOB_H
#define TRIB_CLIENT_LOAD_JOB_H

#include "client/load/worker.h"

struct load_service_round {
	uint32_t round;
	uint64_t accepted; /* counted, those lost with a node and declared so included */
	uint64_t lost;
	int64_t version; /* -1: none */
	char state[16];
	double collect_s; /* opened to closed; negative: not known */
	double total_s;   /* opened to published */
	char why[24];
};

struct load_job {
	char id[64];
	char data_url[300];
	bool ours; /* made by us */
	bool async;
	bool mean; /* what it publishes can be computed from receipts */
	double lr;
	uint32_t first_round;    /* rounds before it are not ours */
	uint64_t first_accepted; /* what first_round had when we began */
};

/* Makes or finds the job and its model; fills run->payload, run->job. CLI_OK or the exit code. */
int load_job_open(const struct load_plan *plan, struct load_run *run, struct load_job *job);
/* Waits until no round is being aggregated (a while), then lists all rounds since first_round,
 * oldest first. CLI_OK or the exit code; *ret_rounds is owned. */
int load_job_rounds(const struct load_plan *plan, const struct load_job *job,
		    struct load_service_round **ret_rounds, size_t *ret_count);
/* Published model against `factor`, what value 1 has become: {"checked", "version", "worst"}. */
json_t *load_job_model(const struct load_plan *plan, const struct load_run *run,
		       const struct load_job *job, int64_t version, double factor, bool *ret_ok);
/* Stops and forgets a job of ours. */
void load_job_close(const struct load_plan *plan, const struct load_job *job);

#endif
