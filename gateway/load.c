/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/load.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "gateway/metrics.h"

#define WAITERS_MAX 512
#define NO_MODEL_MS 200 /* how long "no model yet" is believed */

struct gw_load_waiter {
	gw_load_cb *cb;
	void *arg;
};

struct gw_load {
	TAILQ_ENTRY(gw_load) entry;
	struct gw_worker *worker;
	char id[TRIB_JOB_ID_SIZE];
	uint32_t count;
	struct gw_load_waiter waiters[WAITERS_MAX];
};

static void load_done(struct gw_load *load, struct gw_job *job, enum trib_problem problem,
		      const char *detail)
{
	struct gw_worker *worker = load->worker;

	TAILQ_REMOVE(&worker->loads, load, entry);
	worker->load_count--;
	for (uint32_t i = 0; i < load->count; i++) {
		load->waiters[i].cb(job ? gw_job_get(job) : NULL, problem, detail,
				    load->waiters[i].arg);
	}
	trib_free(load);
	(void)gw_job_put(job);
}

static void on_record(const struct trib_value *value, void *arg)
{
	struct gw_load *load = arg;
	struct gw *gw = load->worker->gw;
	struct gw_job *job = NULL;
	int rc;

	if (!value || trib_value_type(value) != TRIB_VALUE_ARRAY) {
		load_done(load, NULL, TRIB_PROBLEM_UNAVAILABLE, "Redis refused");
		return;
	}
	rc = gw_job_read(load->id, value, &job);
	if (rc == -ENOENT) {
		gw_jobs_drop(&gw->jobs, load->id);
		load_done(load, NULL, TRIB_PROBLEM_NO_SUCH_JOB, NULL);
		return;
	}
	if (rc == 0) {
		struct gw_job *kept = NULL;

		rc = gw_jobs_add(&gw->jobs, job, &kept);
		job = kept;
	}
	if (rc) {
		log_warn("load", "job=%s rc=%d", load->id, rc);
		load_done(load, NULL,
			  rc == -EBADMSG ? TRIB_PROBLEM_INTERNAL : TRIB_PROBLEM_UNAVAILABLE,
			  "the job's record cannot be used");
		return;
	}
	load_done(load, job, TRIB_PROBLEM_INTERNAL, NULL);
}

static struct gw_load *load_begin(struct gw_worker *worker, const char *id)
{
	char key[GW_JOB_KEY_SIZE];
	struct gw_load *load;

	if (worker->load_count >= GW_LOADS_MAX) {
		return NULL;
	}
	load = trib_alloc(sizeof(*load));
	if (!load || trib_copy(load->id, sizeof(load->id), id)) {
		trib_free(load);
		return NULL;
	}
	load->worker = worker;
	(void)snprintf(key, sizeof(key), "trib:{%s}:job", id);
	if (trib_redis_send(worker->redis, on_record, load, "HGETALL", key, NULL)) {
		trib_free(load);
		return NULL;
	}
	gw_count(GW_M_JOB_LOADS, 1);
	TAILQ_INSERT_TAIL(&worker->loads, load, entry);
	worker->load_count++;
	return load;
}

static bool good_enough(struct gw_worker *worker, const struct gw_job *job, bool need_model)
{
	uint64_t loaded = __atomic_load_n(&job->loaded_ms, __ATOMIC_RELAXED);

	if (!gw_job_certain(&worker->gw->jobs, job)) {
		return false;
	}
	return job->layout || (!need_model && trib_clock_ms() - loaded < NO_MODEL_MS);
}

void gw_load(struct gw_worker *worker, const char *id, bool need_model, gw_load_cb *cb, void *arg)
{
	struct gw_job *job = gw_jobs_find(&worker->gw->jobs, id);
	struct gw_load *load;

	if (job && good_enough(worker, job, need_model)) {
		cb(job, TRIB_PROBLEM_INTERNAL, NULL, arg);
		return;
	}
	(void)gw_job_put(job);
	TAILQ_FOREACH(load, &worker->loads, entry) {
		if (strcmp(load->id, id) == 0) {
			break;
		}
	}
	if (!load) {
		load = load_begin(worker, id);
	}
	if (!load || load->count == WAITERS_MAX) {
		cb(NULL, TRIB_PROBLEM_UNAVAILABLE, "too many requests wait for this job", arg);
		return;
	}
	load->waiters[load->count++] = (struct gw_load_waiter){ cb, arg };
}

void gw_loads_fini(struct gw_worker *worker)
{
	TRIB_ASSERT(TAILQ_EMPTY(&worker->loads)); /* freeing Redis answered them all */
}
