/* SPDX-License-Identifier: Apache-2.0
 * Which job has which segment: asked for by workers, answered by the agent through the link (main
 * thread). All of it guarded by the table's lock; any thread.
 */
#ifndef TRIB_GATEWAY_ATTACH_H
#define TRIB_GATEWAY_ATTACH_H

#include "gateway/job.h"

struct gw_slots *gw_job_slots(struct gw_jobs *jobs, struct gw_job *job); /* pinned or NULL */
/* Wants a segment. True when the link must be told (it was not wanted before). */
bool gw_job_want(struct gw_jobs *jobs, struct gw_job *job);
/* The same where an upload is only to be expected: not again after an error. */
bool gw_job_foresee(struct gw_jobs *jobs, struct gw_job *job);
int gw_job_attach_error(struct gw_jobs *jobs, struct gw_job *job);
/* The agent's answer: slots (taken, may be NULL) or an error. Tells whether the job is known. */
bool gw_jobs_attached(struct gw_jobs *jobs, const char *id, struct gw_slots *slots, int error);
/* Next job whose ATTACH is to be sent: pinned and marked SENT, or NULL. */
struct gw_job *gw_jobs_next_wanted(struct gw_jobs *jobs);
void gw_job_unsent(struct gw_jobs *jobs, struct gw_job *job); /* sending failed: WANTED again */
/* The link is new: everything attached or asked for is wanted again. */
void gw_jobs_rewant(struct gw_jobs *jobs);
/* Segment with that node-local job index, pinned or NULL. */
struct gw_slots *gw_jobs_slots_by_index(struct gw_jobs *jobs, uint32_t job_index);
/* Sums slot states over all jobs. */
void gw_jobs_states(struct gw_jobs *jobs, int64_t counts[4]);

#endif
