/* SPDX-License-Identifier: Apache-2.0
 * What a run of `tributary load` is to do: its options, checked. Read only once the run has begun.
 */
#ifndef TRIB_CLIENT_LOAD_PLAN_H
#define TRIB_CLIENT_LOAD_PLAN_H

#include "client/cli/cli.h"
#include "client/load/arrivals.h"
#include "common/json.h"

#define LOAD_THREADS_MAX 64
#define LOAD_CLASSES_MAX 8
#define LOAD_LABELS_MAX  8
#define LOAD_LABELS_SIZE 512
#define LOAD_LIST_MAX    16

struct load_class {
	double share;
	uint64_t bytes_per_s; /* 0: as fast as it goes */
};

struct load_labels { /* of a share of the clients */
	double share;
	char json[LOAD_LABELS_SIZE]; /* the object */
};

struct load_plan {
	struct cli_service service;
	/* texts as given; NULL = not given */
	const char *dir;
	const char *job_text;
	const char *spec_file;
	const char *model_name;
	const char *mode;
	const char *arrivals_text;
	const char *rate_text;
	const char *think_text;
	const char *duration_text;
	const char *ramp_text;
	const char *die_text;
	const char *slow_text;
	const char *duplicate_text;
	const char *corrupt_text;
	const char *hostile_text;
	const char *bandwidth_text;
	const char *labels_text;
	const char *over_select_text;
	const char *data_url; /* where clients talk to; the job's own when NULL */
	const char *token_file;
	const char *admin_text;
	const char *pid_text;
	const char *report_file;
	const char *html_file;
	const char *slo_file;
	/* numbers */
	uint64_t clients;
	uint64_t threads;
	uint64_t bytes;
	uint64_t goal;
	uint64_t rounds;
	uint64_t updates;
	uint64_t slow_factor;
	uint64_t slots; /* 0: the service chooses */
	uint64_t wait_s;
	uint64_t conns_max; /* 0: as many as descriptors allow */
	uint64_t seed;
	uint64_t drain_s;
	uint64_t weight_max;
	bool close;    /* no connection while a client waits or trains */
	bool download; /* clients fetch each new model */
	bool keep;     /* leave the job there */
	bool quiet;
	/* derived */
	enum load_arrivals_kind arrivals;
	struct load_trace trace;
	double rate;
	double think_s;
	double duration_s;
	double ramp_s;
	double die;
	double slow;
	double duplicate;
	double corrupt;
	double hostile;
	double over_select;
	struct load_class classes[LOAD_CLASSES_MAX];
	unsigned class_count;
	struct load_labels labels[LOAD_LABELS_MAX];
	unsigned labels_count;
	bool async;
	bool threads_free; /* as many as the connections need */
	bool own_tables;   /* of descriptors, one per thread (common/fd_table.h) */
	char *token;       /* owned; NULL: none */
	json_t *slo;       /* owned; NULL: none */
};

/* Reads the options. True: go on; else *ret_exit says how to leave. load_plan_fini either way. */
bool load_plan_read(struct load_plan *plan, const struct cli_command *command, int argc,
		    char **argv, int *ret_exit);
void load_plan_fini(struct load_plan *plan);
/* What of it belongs into the report. Owned by the caller. */
json_t *load_plan_json(const struct load_plan *plan);

#endif
