/* SPDX-License-Identifier: Apache-2.0
 * What the gateway knows of a job, and the table of jobs shared by all threads. Facts read from
 * Redis never change after loading (reference-counted, any thread reads them); what changes is
 * guarded by the table's lock (attachment) or the job's own (models, live uploads).
 */
#ifndef TRIB_GATEWAY_JOB_H
#define TRIB_GATEWAY_JOB_H

#include <pthread.h>

#include "common/id.h"
#include "common/operators.h"
#include "common/redis.h"
#include "common/safetensors.h"
#include "gateway/slots.h"

#define GW_JOBS_MAX     1024
#define GW_JOB_BUCKETS  256
#define GW_JOB_MODELS   4 /* open model files kept per job */
#define GW_JOB_VERSIONS 8 /* known digests kept per job */
#define GW_JOB_KEY_SIZE 64
#define GW_DIGEST_SIZE  65

struct gw_model;

enum gw_attach {
	GW_ATTACH_NONE,
	GW_ATTACH_WANTED,
	GW_ATTACH_SENT
};

struct gw_version {
	uint32_t version;
	uint64_t bytes;              /* of data */
	char digest[GW_DIGEST_SIZE]; /* "" = empty entry */
};

struct gw_job {
	int refs; /* atomic */
	/* ---- facts, constant ---- */
	char id[TRIB_JOB_ID_SIZE];
	char key[GW_JOB_KEY_SIZE]; /* trib:{id}:job */
	struct trib_id uuid;
	struct trib_layout *layout; /* NULL: no model yet */
	uint64_t payload;           /* data bytes of a model or dense update */
	uint64_t header_size;       /* of the model's header JSON */
	uint64_t header_max;        /* of an update's header */
	uint64_t bytes_max;         /* of the initial model */
	uint64_t max_weight;
	uint64_t update_max; /* whole body of an update */
	double range;
	uint64_t silence_ms; /* a selected client's, when the job was read (client_timeout_s) */
	bool input_weights;  /* else delta */
	bool async;          /* what an update weighs is decided at its commit */
	bool uniform;        /* aggregation.weight_by: every update weighs 1 */
	bool client_tokens;  /* auth.clients: token */
	char tenant[TRIB_TENANT_SIZE];
	char *config; /* client_config as JSON text */
	uint64_t loaded_ms;
	/* ---- atomics ---- */
	uint64_t epoch; /* the table's epoch when last seen in Redis */
	bool gone;
	uint64_t renew_ms; /* how often uploads say that they move; 0: not known yet */
	/* ---- guarded by the table's lock ---- */
	struct gw_job *next;
	struct gw_slots *slots; /* pinned, NULL: not attached */
	enum gw_attach attach;
	int attach_error; /* of the last answer; 0 none */
	/* ---- guarded by lock ---- */
	pthread_mutex_t lock;
	struct gw_model *models[GW_JOB_MODELS]; /* pinned, most recently used first */
	struct gw_version versions[GW_JOB_VERSIONS];
	uint32_t version_next;
	struct gw_live *live;
};

/* An upload under way, so that one ticket cannot hold many slots. Embedded in the upload. */
struct gw_live {
	struct gw_live *next;
	const char *update;
};

struct gw_jobs {
	pthread_mutex_t lock;
	struct gw_job *buckets[GW_JOB_BUCKETS];
	uint32_t count;
	uint64_t epoch; /* atomic; rises when wake messages may have been missed */
};

void gw_jobs_init(struct gw_jobs *jobs);
void gw_jobs_fini(struct gw_jobs *jobs);
/* Pinned, or NULL. */
struct gw_job *gw_jobs_find(struct gw_jobs *jobs, const char *id);
struct gw_job *gw_job_get(struct gw_job *job);
struct gw_job *gw_job_put(struct gw_job *job); /* NULL allowed; returns NULL */
/* Puts `job` (taken) into the table, or keeps the entry that is there when it is as good. Pinned
 * result; -ENOBUFS when the table is full of jobs in use. */
TRIB_MUST_CHECK int gw_jobs_add(struct gw_jobs *jobs, struct gw_job *job, struct gw_job **ret_job);
/* Versions of the job were removed: what is known of them is asked anew. */
void gw_jobs_forget_models(struct gw_jobs *jobs, const char *id);
/* The job does not exist any more: marked gone, its segment retired. */
void gw_jobs_drop(struct gw_jobs *jobs, const char *id);
bool gw_job_gone(const struct gw_job *job);
/* Nothing learnt before now is certain: jobs are read again at their next use. */
void gw_jobs_doubt(struct gw_jobs *jobs);
bool gw_job_certain(struct gw_jobs *jobs, const struct gw_job *job);

/* From HGETALL of the job's hash. -ENOENT: no such job; -EBADMSG: not understood. */
TRIB_MUST_CHECK int gw_job_read(const char *id, const struct trib_value *record,
				struct gw_job **ret_job);

/* ---- models ---- */
bool gw_job_version(struct gw_job *job, uint32_t version, struct gw_version *ret_version);
void gw_job_learn(struct gw_job *job, const struct gw_version *version);
/* "digest|bytes|round|ms" */
TRIB_MUST_CHECK int gw_version_read(uint32_t version, const char *text,
				    struct gw_version *ret_version);

/* ---- live uploads ---- */
/* False when two uploads of this update are under way already. */
bool gw_job_enter(struct gw_job *job, struct gw_live *live);
void gw_job_exit(struct gw_job *job, struct gw_live *live);

#endif
