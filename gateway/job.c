/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/job.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/json.h"
#include "common/log.h"
#include "gateway/model_file.h"

#define LIVE_PER_UPDATE 2
#define MAX_WEIGHT      (1ull << 40)

static uint32_t bucket_of(const char *id)
{
	uint32_t hash = 2166136261u;

	for (; *id; id++) {
		hash = (hash ^ (unsigned char)*id) * 16777619u;
	}
	return hash % GW_JOB_BUCKETS;
}

static void job_free(struct gw_job *job)
{
	for (size_t i = 0; i < GW_JOB_MODELS; i++) {
		job->models[i] = gw_model_put(job->models[i]);
	}
	job->slots = gw_slots_put(job->slots);
	job->layout = trib_layout_free(job->layout);
	trib_free(job->config);
	(void)pthread_mutex_destroy(&job->lock);
	trib_free(job);
}

struct gw_job *gw_job_get(struct gw_job *job)
{
	(void)__atomic_add_fetch(&job->refs, 1, __ATOMIC_RELAXED);
	return job;
}

struct gw_job *gw_job_put(struct gw_job *job)
{
	if (job && __atomic_sub_fetch(&job->refs, 1, __ATOMIC_ACQ_REL) == 0) {
		job_free(job);
	}
	return NULL;
}

void gw_jobs_init(struct gw_jobs *jobs)
{
	*jobs = (struct gw_jobs){ .epoch = 1 };
	(void)pthread_mutex_init(&jobs->lock, NULL);
}

/* Takes *link out of its list and drops the table's reference. Lock held. */
static void unlink_at(struct gw_jobs *jobs, struct gw_job **link)
{
	struct gw_job *job = *link;

	*link = job->next;
	job->next = NULL;
	jobs->count--;
	(void)gw_job_put(job);
}

void gw_jobs_fini(struct gw_jobs *jobs)
{
	for (size_t i = 0; i < GW_JOB_BUCKETS; i++) {
		while (jobs->buckets[i]) {
			unlink_at(jobs, &jobs->buckets[i]);
		}
	}
	(void)pthread_mutex_destroy(&jobs->lock);
}

static struct gw_job **find_link(struct gw_jobs *jobs, const char *id)
{
	struct gw_job **link = &jobs->buckets[bucket_of(id)];

	while (*link && strcmp((*link)->id, id) != 0) {
		link = &(*link)->next;
	}
	return link;
}

struct gw_job *gw_jobs_find(struct gw_jobs *jobs, const char *id)
{
	struct gw_job *job;

	(void)pthread_mutex_lock(&jobs->lock);
	job = *find_link(jobs, id);
	if (job) {
		(void)gw_job_get(job);
	}
	(void)pthread_mutex_unlock(&jobs->lock);
	return job;
}

/* Frees one entry nobody uses but the table. Lock held. */
static bool evict_one(struct gw_jobs *jobs)
{
	for (size_t i = 0; i < GW_JOB_BUCKETS; i++) {
		for (struct gw_job **link = &jobs->buckets[i]; *link; link = &(*link)->next) {
			if (__atomic_load_n(&(*link)->refs, __ATOMIC_ACQUIRE) == 1 &&
			    (*link)->attach == GW_ATTACH_NONE) {
				unlink_at(jobs, link);
				return true;
			}
		}
	}
	return false;
}

int gw_jobs_add(struct gw_jobs *jobs, struct gw_job *job, struct gw_job **ret_job)
{
	struct gw_job **link;
	int rc = 0;

	(void)pthread_mutex_lock(&jobs->lock);
	__atomic_store_n(&job->epoch, __atomic_load_n(&jobs->epoch, __ATOMIC_ACQUIRE),
			 __ATOMIC_RELEASE);
	link = find_link(jobs, job->id);
	if (*link && ((*link)->layout || !job->layout)) {
		__atomic_store_n(&(*link)->epoch, job->epoch, __ATOMIC_RELEASE);
		__atomic_store_n(&(*link)->loaded_ms, job->loaded_ms, __ATOMIC_RELAXED);
		(void)gw_job_put(job);
		*ret_job = gw_job_get(*link);
		goto out;
	}
	if (*link) {
		unlink_at(jobs, link);
	}
	if (jobs->count >= GW_JOBS_MAX && !evict_one(jobs)) {
		(void)gw_job_put(job);
		rc = -ENOBUFS;
		goto out;
	}
	job->next = jobs->buckets[bucket_of(job->id)];
	jobs->buckets[bucket_of(job->id)] = job;
	jobs->count++;
	*ret_job = gw_job_get(job);
out:
	(void)pthread_mutex_unlock(&jobs->lock);
	return rc;
}

void gw_jobs_drop(struct gw_jobs *jobs, const char *id)
{
	struct gw_job **link;

	(void)pthread_mutex_lock(&jobs->lock);
	link = find_link(jobs, id);
	if (*link) {
		__atomic_store_n(&(*link)->gone, true, __ATOMIC_RELEASE);
		if ((*link)->slots) {
			gw_slots_retire((*link)->slots);
			(void)gw_slots_put((*link)->slots);
			__atomic_store_n(&(*link)->slots, NULL, __ATOMIC_RELAXED);
		}
		unlink_at(jobs, link);
	}
	(void)pthread_mutex_unlock(&jobs->lock);
}

bool gw_job_gone(const struct gw_job *job)
{
	return __atomic_load_n(&job->gone, __ATOMIC_ACQUIRE);
}

void gw_jobs_doubt(struct gw_jobs *jobs)
{
	(void)__atomic_add_fetch(&jobs->epoch, 1, __ATOMIC_ACQ_REL);
}

bool gw_job_certain(struct gw_jobs *jobs, const struct gw_job *job)
{
	return !gw_job_gone(job) && __atomic_load_n(&job->epoch, __ATOMIC_ACQUIRE) ==
					    __atomic_load_n(&jobs->epoch, __ATOMIC_ACQUIRE);
}

/* ---- reading ---- */

static uint64_t spec_u64(const json_t *spec, const char *path, long long otherwise, uint64_t max)
{
	long long value = trib_json_integer(spec, path, otherwise);

	if (value < 1) {
		value = otherwise;
	}
	return (uint64_t)value > max ? max : (uint64_t)value;
}

static int read_spec(struct gw_job *job, const char *text, size_t size)
{
	char reason[160];
	json_t *spec = NULL;
	json_t *config;
	int rc = trib_json_parse(text, size, &spec, reason);

	if (rc) {
		log_warn("job", "bad spec job=%s reason=%s", job->id, reason);
		return -EBADMSG;
	}
	job->header_max = spec_u64(spec, "model.max_header_bytes", TRIB_TENSOR_HEADER_MAX,
				   TRIB_TENSOR_HEADER_MAX);
	job->bytes_max = spec_u64(spec, "model.max_bytes", 1ll << 32, 1ull << 40);
	job->max_weight = spec_u64(spec, "aggregation.max_weight", 1000000, MAX_WEIGHT);
	job->silence_ms =
		(uint64_t)(1000 *
			   trib_json_number(spec,
					    strcmp(trib_json_text(spec, "mode", "sync"), "async")
						    ? "sync.client_timeout_s"
						    : "async.client_timeout_s",
					    300));
	job->range = trib_json_number(spec, "aggregation.range", 1048576);
	job->input_weights =
		strcmp(trib_json_text(spec, "aggregation.input", "delta"), "weights") == 0;
	job->async = strcmp(trib_json_text(spec, "mode", "sync"), "async") == 0;
	job->uniform =
		strcmp(trib_json_text(spec, "aggregation.weight_by", "examples"), "uniform") == 0;
	job->client_tokens = strcmp(trib_json_text(spec, "auth.clients", "open"), "open") != 0;
	config = trib_json_at(spec, "client_config");
	job->config = config ? trib_json_print(config) : trib_strdup("{}");
	json_decref(spec);
	if (!job->config) {
		return -ENOMEM;
	}
	return isfinite(job->range) && job->range > 0 ? 0 : -EBADMSG;
}

static int read_layout(struct gw_job *job, const struct trib_value *record)
{
	const char *header = trib_value_field(record, "header", NULL);
	const char *bytes = trib_value_field(record, "bytes", NULL);
	enum trib_problem problem = TRIB_PROBLEM_INTERNAL;
	const char *detail = "";
	int rc;

	if (!header || !bytes) {
		return 0; /* no model yet */
	}
	rc = trib_parse_u64(bytes, strlen(bytes), 0, 1ull << 40, &job->payload);
	if (rc) {
		return -EBADMSG;
	}
	job->header_size = strlen(header);
	rc = trib_layout_parse(header, job->header_size, job->payload, &job->layout, &problem,
			       &detail);
	if (rc) {
		log_warn("job", "bad layout job=%s rc=%d detail=%s", job->id, rc, detail);
		return rc == -ENOMEM ? rc : -EBADMSG;
	}
	job->update_max = 8 + job->header_max + job->payload;
	return 0;
}

int gw_job_read(const char *id, const struct trib_value *record, struct gw_job **ret_job)
{
	const char *spec = trib_value_field(record, "spec", NULL);
	struct gw_job *job;
	int rc;

	if (!spec) {
		return -ENOENT;
	}
	job = trib_alloc(sizeof(*job));
	if (!job) {
		return -ENOMEM;
	}
	job->refs = 1;
	(void)pthread_mutex_init(&job->lock, NULL);
	job->loaded_ms = trib_clock_ms();
	rc = trib_copy(job->id, sizeof(job->id), id);
	(void)snprintf(job->key, sizeof(job->key), "trib:{%s}:job", id);
	if (rc == 0) {
		rc = trib_copy(job->tenant, sizeof(job->tenant),
			       trib_value_field(record, "tenant", TRIB_TENANT_DEFAULT));
	}
	if (rc == 0) {
		rc = trib_id_parse("job_", id, &job->uuid);
	}
	if (rc == 0) {
		rc = read_spec(job, spec, strlen(spec));
	}
	if (rc == 0) {
		rc = read_layout(job, record);
	}
	if (rc) {
		(void)gw_job_put(job);
		return rc;
	}
	*ret_job = job;
	return 0;
}

/* ---- models ---- */

int gw_version_read(uint32_t version, const char *text, struct gw_version *ret_version)
{
	const char *bar = strchr(text, '|');
	const char *end = bar ? strchr(bar + 1, '|') : NULL;
	struct gw_version found = { .version = version };

	if (!end || bar == text || (size_t)(bar - text) >= sizeof(found.digest)) {
		return -EBADMSG;
	}
	for (const char *c = text; c < bar; c++) {
		if (!((*c >= '0' && *c <= '9') || (*c >= 'a' && *c <= 'z') || *c == '-')) {
			return -EBADMSG; /* it goes into a header line */
		}
		found.digest[c - text] = *c;
	}
	if (trib_parse_u64(bar + 1, (size_t)(end - bar - 1), 0, 1ull << 40, &found.bytes)) {
		return -EBADMSG;
	}
	*ret_version = found;
	return 0;
}

bool gw_job_version(struct gw_job *job, uint32_t version, struct gw_version *ret_version)
{
	bool found = false;

	(void)pthread_mutex_lock(&job->lock);
	for (size_t i = 0; i < GW_JOB_VERSIONS && !found; i++) {
		if (job->versions[i].digest[0] && job->versions[i].version == version) {
			*ret_version = job->versions[i];
			found = true;
		}
	}
	(void)pthread_mutex_unlock(&job->lock);
	return found;
}

void gw_job_learn(struct gw_job *job, const struct gw_version *version)
{
	(void)pthread_mutex_lock(&job->lock);
	for (size_t i = 0; i < GW_JOB_VERSIONS; i++) {
		if (job->versions[i].digest[0] && job->versions[i].version == version->version) {
			goto out;
		}
	}
	job->versions[job->version_next++ % GW_JOB_VERSIONS] = *version;
out:
	(void)pthread_mutex_unlock(&job->lock);
}

void gw_jobs_forget_models(struct gw_jobs *jobs, const char *id)
{
	struct gw_model *models[GW_JOB_MODELS];
	struct gw_job *job = gw_jobs_find(jobs, id);

	if (!job) {
		return;
	}
	(void)pthread_mutex_lock(&job->lock);
	memset(job->versions, 0, sizeof(job->versions));
	memcpy(models, job->models, sizeof(models));
	memset(job->models, 0, sizeof(job->models));
	(void)pthread_mutex_unlock(&job->lock);
	for (size_t i = 0; i < GW_JOB_MODELS; i++) {
		(void)gw_model_put(models[i]);
	}
	(void)gw_job_put(job);
}

/* ---- live uploads ---- */

bool gw_job_enter(struct gw_job *job, struct gw_live *live)
{
	unsigned same = 0;

	(void)pthread_mutex_lock(&job->lock);
	for (const struct gw_live *other = job->live; other; other = other->next) {
		same += strcmp(other->update, live->update) == 0;
	}
	if (same < LIVE_PER_UPDATE) {
		live->next = job->live;
		job->live = live;
	}
	(void)pthread_mutex_unlock(&job->lock);
	return same < LIVE_PER_UPDATE;
}

void gw_job_exit(struct gw_job *job, struct gw_live *live)
{
	struct gw_live **link = &job->live;

	(void)pthread_mutex_lock(&job->lock);
	while (*link && *link != live) {
		link = &(*link)->next;
	}
	if (*link) {
		*link = live->next;
	}
	(void)pthread_mutex_unlock(&job->lock);
}
