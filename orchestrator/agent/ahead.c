/* SPDX-License-Identifier: Apache-2.0
 * The model that a function makes behind an arriving round (docs/adr/0009-cut-through.md) is copied
 * and hashed behind that function: once it says that the model is whole, only the rest is to be
 * done. A free memory of the job is taken for it when the functions get base and out; what comes to
 * nothing gives it back. And the memory that functions finalise into.
 */
#include "orchestrator/agent/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/clock.h"
#include "orchestrator/agent/published.h"
#include "shm/map.h"
#include "shm/out.h"

static bool of_this_round(const struct agent_job *job)
{
	return job->ahead.round == job->round && job->ahead.base == job->base;
}

static void try(struct agent_job *job)
{
	struct agent_write write = {
		.round = job->round,
		.version = job->base + 1,
		.bytes = job->elements * sizeof(float),
		.out = job->out,
		.before = job->ahead.before,
	};

	if (!job->ahead.wanted || !job->out) {
		return;
	}
	write.model = agent_published_fill(job, false);
	if (!write.model) {
		return; /* perhaps in the next tick */
	}
	memcpy(write.job, job->id, sizeof(write.job));
	job->ahead.wanted = false;
	if (agent_writer_follow(job->agent->writer, &write)) {
		agent_published_filled(job->agent, write.model, -ENOBUFS, 0, "");
		return;
	}
	job->out->refs++;
	job->ahead.model = write.model;
}

void agent_ahead_begin(struct agent_job *job)
{
	if (of_this_round(job)) {
		return;
	}
	agent_ahead_drop(job);
	if (job->lanes > 1 || agent_out_make(job)) {
		return; /* lanes go on side by side, the digest from the first float to the last */
	}
	job->ahead = (struct agent_ahead){
		.round = job->round,
		.base = job->base,
		.before = trib_out_generation(trib_out_load(job->out->word)),
		.wanted = true,
	};
	try(job);
}

void agent_ahead_drop(struct agent_job *job)
{
	if (job->ahead.model) {
		agent_writer_cancel(job->agent->writer, job->ahead.model);
	}
	job->ahead = (struct agent_ahead){ 0 };
}

bool agent_ahead_whole(struct agent_job *job)
{
	struct agent_model *model = job->ahead.model;

	job->ahead.wanted = false;
	if (!model) {
		return false;
	}
	if (!of_this_round(job) || job->lanes > 1) {
		agent_ahead_drop(job);
		return false;
	}
	job->ahead.model = NULL;
	agent_writer_whole(job->agent->writer, model);
	return true;
}

void agent_ahead_tick(struct agent_job *job, uint64_t now_ms)
{
	bool working = job->phase == AGENT_COLLECTING || job->phase == AGENT_FLUSHING ||
		       job->phase == AGENT_FINALISING;

	if (!job->ahead.model && !job->ahead.wanted) {
		return;
	}
	if (!working || !of_this_round(job) ||
	    (job->phase == AGENT_COLLECTING &&
	     now_ms - job->busy_ms >= job->agent->options.idle_ms)) {
		agent_ahead_drop(job);
		return;
	}
	try(job);
}

/* ---- out ---- */

int agent_out_make(struct agent_job *job)
{
	struct agent_out *out;
	void *memory;
	int rc;

	if (job->out) {
		return 0;
	}
	out = trib_alloc(sizeof(*out));
	if (!out) {
		return -ENOMEM;
	}
	out->refs = 1;
	out->size = trib_out_size(job->elements);
	out->fd = memfd_create("tributary-out", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (out->fd < 0 || ftruncate(out->fd, (off_t)out->size) ||
	    fcntl(out->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)) {
		rc = -errno;
		(void)agent_out_put(out);
		return rc;
	}
	rc = trib_map_shared(out->fd, out->size, PROT_READ, &memory);
	if (rc) {
		(void)agent_out_put(out);
		return rc;
	}
	out->memory = memory;
	out->word = (const uint64_t *)(const void *)(out->memory + trib_out_at(job->elements));
	job->out = out;
	job->agent->arena_used += out->size;
	job->reserved_bytes += out->size;
	return 0;
}

struct agent_out *agent_out_put(struct agent_out *out)
{
	if (out && --out->refs == 0) {
		if (out->memory) {
			(void)munmap((void *)(uintptr_t)out->memory, out->size);
		}
		if (out->fd >= 0) {
			(void)close(out->fd);
		}
		trib_free(out);
	}
	return NULL;
}
