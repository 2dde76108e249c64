/* SPDX-License-Identifier: Apache-2.0
 * What a run amounts to: the JSON report (docs/load.md has its members), made from what the threads
 * counted, what the service says it counted and what was seen of its processes.
 */
#ifndef TRIB_CLIENT_LOAD_REPORT_H
#define TRIB_CLIENT_LOAD_REPORT_H

#include "client/load/job.h"
#include "client/load/server.h"
#include "client/load/worker.h"

struct load_row { /* one look, about a second after the last */
	double at_s;
	double seconds;              /* since the last */
	uint64_t counts[LOAD_COUNT]; /* as they stand */
	double p50_ms;               /* receipts of this interval */
	double p99_ms;
	double p999_ms;
	double rss_mb;
	double shmem_mb;
	double cpu_cores;
};

struct load_result {
	const struct load_plan *plan;
	const struct load_run *run;
	const struct load_job *job;
	const struct load_server *server;
	struct load_worker **workers;
	unsigned worker_count;
	struct load_row *rows;
	size_t row_count;
	double seconds;                    /* in which clients began things */
	double own_cpu_s;                  /* of this process */
	struct load_service_round *rounds; /* NULL: could not be fetched */
	size_t round_count;
	bool rounds_known;
};

/* Sums over the threads. */
void load_counts_sum(struct load_worker *const *workers, unsigned count, uint64_t out[LOAD_COUNT]);
void load_latency_sum(struct load_worker *const *workers, unsigned count, enum load_latency which,
		      struct load_histogram *out);

/* Owned; NULL when out of memory. *ret_counts_ok: nothing lost, nothing counted twice, and the
 * published model is what the receipts say. */
json_t *load_report(const struct load_result *result, bool *ret_counts_ok);

#endif
