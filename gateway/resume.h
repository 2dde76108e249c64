/* SPDX-License-Identifier: Apache-2.0
 * Resumable uploads (draft-ietf-httpbis-resumable-upload: field names and the meaning of HEAD,
 * PATCH and DELETE). An upload whose request says `Upload-Complete` survives its connection: what
 * has landed in its slot stays, parked, and a later request goes on from there, on any worker.
 *
 *   PUT updates/{u}  Upload-Complete: ?0, Upload-Length: n    creates, takes the body's bytes
 *   PUT updates/{u}  Upload-Complete: ?1                      one shot that may be resumed if cut
 *   HEAD, PATCH, DELETE uploads/{u}                           (the check-in's upload.resume)
 *
 * Parked uploads are bounded in number and age, and the oldest gives its slot up when the job has
 * none left. They do not survive the gateway process: 404, and the client begins anew.
 */
#ifndef TRIB_GATEWAY_RESUME_H
#define TRIB_GATEWAY_RESUME_H

#include "gateway/router.h"
#include "gateway/upload.h"

#define GW_RESUMABLE_MAX  4096
#define GW_RESUMABLE_AGE  600000 /* ms without progress */
#define GW_RESUMABLE_IDLE 5000   /* ms parked before another upload may have its slot */

/* HEAD, PATCH, DELETE uploads/{u}. */
void gw_resume_serve(struct gw_worker *worker, struct trib_exchange *x, const struct gw_path *path);
/* A new upload of the same update begins: a parked one makes way. */
void gw_resume_supersede(struct gw_worker *worker, const char *update);
/* Enters a resumable upload whose slot is taken. False: too many; it goes on as a plain one. */
bool gw_resume_enter(struct gw_upload *u);
/* Takes it out again (no-op when it is not in). */
void gw_resume_leave(struct gw_upload *u);
/* Its exchange has ended with bytes missing: kept for later. False when it is not resumable. */
bool gw_resume_park(struct gw_upload *u);
/* The request's body is over, the upload is not: parks and answers where it stands. */
void gw_resume_answer(struct gw_upload *u);
/* Frees the slot of the longest parked upload of this job. True: try again. */
bool gw_resume_evict(struct gw_worker *worker, const struct gw_slots *slots);
void gw_resume_tick(struct gw_worker *worker);
/* The job is gone, or "" all (shutting down). */
void gw_resume_forget(struct gw_worker *worker, const char *job);

#endif
