/* SPDX-License-Identifier: Apache-2.0
 * The roots of a round have been told to make the model: which have, and the squared norm of the
 * mean that they tell when a policy wants it (the bits of a double where an answer has its bytes).
 */
#include "orchestrator/agent/agent.h"

#include <math.h>
#include <string.h>

void agent_model_asked(struct agent_job *job)
{
	job->model_left = (uint16_t)((1u << job->lanes) - 1);
	job->mean_norm = job->norms ? 0 : -1;
}

bool agent_model_made(struct agent_job *job, const struct trib_descriptor *d)
{
	uint16_t bit = (uint16_t)(1u << agent_lane_of(job, d->source));
	double norm;

	memcpy(&norm, &d->bytes, sizeof(norm));
	if ((job->model_left & bit) && job->mean_norm >= 0) { /* -1: one has not told it */
		job->mean_norm = d->tag && isfinite(norm) && norm >= 0 ? job->mean_norm + norm : -1;
	}
	job->model_left &= (uint16_t)~bit;
	return job->model_left == 0;
}
