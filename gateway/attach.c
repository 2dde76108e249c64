/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/attach.h"

#include <errno.h>
#include <string.h>

struct gw_slots *gw_job_slots(struct gw_jobs *jobs, struct gw_job *job)
{
	struct gw_slots *slots;

	(void)pthread_mutex_lock(&jobs->lock);
	slots = job->slots ? gw_slots_get(job->slots) : NULL;
	(void)pthread_mutex_unlock(&jobs->lock);
	return slots;
}

bool gw_job_want(struct gw_jobs *jobs, struct gw_job *job)
{
	bool fresh;

	(void)pthread_mutex_lock(&jobs->lock);
	fresh = job->attach == GW_ATTACH_NONE;
	if (fresh) {
		job->attach = GW_ATTACH_WANTED;
		job->attach_error = 0;
	}
	(void)pthread_mutex_unlock(&jobs->lock);
	return fresh;
}

bool gw_job_foresee(struct gw_jobs *jobs, struct gw_job *job)
{
	bool fresh;

	if (__atomic_load_n(&job->slots, __ATOMIC_RELAXED)) { /* at nearly every check-in */
		return false;
	}
	(void)pthread_mutex_lock(&jobs->lock);
	fresh = !job->slots && job->attach == GW_ATTACH_NONE && !job->attach_error;
	if (fresh) {
		job->attach = GW_ATTACH_WANTED;
	}
	(void)pthread_mutex_unlock(&jobs->lock);
	return fresh;
}

int gw_job_attach_error(struct gw_jobs *jobs, struct gw_job *job)
{
	int error;

	(void)pthread_mutex_lock(&jobs->lock);
	error = job->attach_error;
	(void)pthread_mutex_unlock(&jobs->lock);
	return error;
}

/* Lock held. */
static struct gw_job *find_by_id(struct gw_jobs *jobs, const char *id)
{
	for (size_t i = 0; i < GW_JOB_BUCKETS; i++) {
		for (struct gw_job *job = jobs->buckets[i]; job; job = job->next) {
			if (strcmp(job->id, id) == 0) {
				return job;
			}
		}
	}
	return NULL;
}

/* The same segment again (the link was renewed): the mapping in use stays. */
static bool same_segment(const struct gw_slots *a, const struct gw_slots *b)
{
	return memcmp(&a->segment.header, &b->segment.header, sizeof(a->segment.header)) == 0 &&
	       strcmp(a->node, b->node) == 0;
}

bool gw_jobs_attached(struct gw_jobs *jobs, const char *id, struct gw_slots *slots, int error)
{
	struct gw_slots *unused = slots;
	struct gw_job *job;

	(void)pthread_mutex_lock(&jobs->lock);
	job = find_by_id(jobs, id);
	if (job) {
		job->attach = GW_ATTACH_NONE;
		job->attach_error = slots ? 0 : error;
		if (slots && slots->segment.header.payload_size != job->payload) {
			job->attach_error = -EBADMSG;
		} else if (slots && !(job->slots && same_segment(job->slots, slots))) {
			unused = job->slots;
			__atomic_store_n(&job->slots, slots, __ATOMIC_RELAXED);
			if (unused) {
				gw_slots_retire(unused);
			}
		}
	}
	(void)pthread_mutex_unlock(&jobs->lock);
	(void)gw_slots_put(unused);
	return job != NULL;
}

struct gw_job *gw_jobs_next_wanted(struct gw_jobs *jobs)
{
	struct gw_job *found = NULL;

	(void)pthread_mutex_lock(&jobs->lock);
	for (size_t i = 0; i < GW_JOB_BUCKETS && !found; i++) {
		for (struct gw_job *job = jobs->buckets[i]; job && !found; job = job->next) {
			if (job->attach == GW_ATTACH_WANTED) {
				job->attach = GW_ATTACH_SENT;
				found = gw_job_get(job);
			}
		}
	}
	(void)pthread_mutex_unlock(&jobs->lock);
	return found;
}

void gw_job_unsent(struct gw_jobs *jobs, struct gw_job *job)
{
	(void)pthread_mutex_lock(&jobs->lock);
	job->attach = GW_ATTACH_WANTED;
	(void)pthread_mutex_unlock(&jobs->lock);
}

void gw_jobs_rewant(struct gw_jobs *jobs)
{
	(void)pthread_mutex_lock(&jobs->lock);
	for (size_t i = 0; i < GW_JOB_BUCKETS; i++) {
		for (struct gw_job *job = jobs->buckets[i]; job; job = job->next) {
			if (job->slots || job->attach != GW_ATTACH_NONE) {
				job->attach = GW_ATTACH_WANTED;
			}
		}
	}
	(void)pthread_mutex_unlock(&jobs->lock);
}

struct gw_slots *gw_jobs_slots_by_index(struct gw_jobs *jobs, uint32_t job_index)
{
	struct gw_slots *found = NULL;

	(void)pthread_mutex_lock(&jobs->lock);
	for (size_t i = 0; i < GW_JOB_BUCKETS && !found; i++) {
		for (struct gw_job *job = jobs->buckets[i]; job && !found; job = job->next) {
			if (job->slots && job->slots->segment.header.job_index == job_index) {
				found = gw_slots_get(job->slots);
			}
		}
	}
	(void)pthread_mutex_unlock(&jobs->lock);
	return found;
}

void gw_jobs_states(struct gw_jobs *jobs, int64_t counts[4])
{
	(void)pthread_mutex_lock(&jobs->lock);
	for (size_t i = 0; i < GW_JOB_BUCKETS; i++) {
		for (struct gw_job *job = jobs->buckets[i]; job; job = job->next) {
			if (job->slots) {
				gw_slots_states(job->slots, counts);
			}
		}
	}
	(void)pthread_mutex_unlock(&jobs->lock);
}
