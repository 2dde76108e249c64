/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/upload_receive.h"

#include <errno.h>
#include <string.h>

#include "common/clock.h"
#include "gateway/follow.h"
#include "gateway/metrics.h"
#include "gateway/resume.h"
#include "shm/descriptor_check.h"

static double weight_of(const struct gw_upload *u)
{
	return (double)u->head.weight_fx / (1 << TRIB_WEIGHT_BITS);
}

/* ---- into the slot ---- */

static int on_next(struct trib_exchange *x, struct iovec *vectors, int max)
{
	struct gw_upload *u = trib_exchange_data(x);

	return gw_intake_next(&u->intake, vectors, max);
}

static int header_complete(struct gw_upload *u)
{
	enum trib_problem problem = TRIB_PROBLEM_INTERNAL;
	const char *detail = NULL;
	int rc =
		gw_header_find(&u->worker->headers, u->job, u->intake.header, u->intake.header_size,
			       gw_intake_payload(&u->intake), &u->header, &problem, &detail);

	gw_intake_fini(&u->intake);
	if (rc) {
		gw_upload_refuse(u, rc == -EBADMSG ? problem : TRIB_PROBLEM_INTERNAL, detail);
		return -ECANCELED;
	}
	gw_intake_target(&u->intake, trib_segment_slot(&u->slots->segment, u->slot),
			 u->header->pieces, u->header->piece_count);
	gw_follow_begin(u);
	return 0;
}

static int on_landed(struct trib_exchange *x, size_t size)
{
	struct gw_upload *u = trib_exchange_data(x);
	bool payload = u->intake.phase == GW_INTAKE_PAYLOAD;
	const char *detail = NULL;
	int rc;

	if (u->intake.received + size == u->head.total) {
		gw_gauge(GW_M_RECEIVED_NS, (int64_t)trib_clock_ns());
	}
	if (payload) {
		gw_count(GW_M_UPLOAD_BYTES, (int64_t)size);
	}
	rc = gw_intake_landed(&u->intake, size, &detail);
	if (rc) {
		gw_upload_refuse(u,
				 rc == -EBADMSG    ? TRIB_PROBLEM_INVALID_HEADER
				 : rc == -EMSGSIZE ? TRIB_PROBLEM_BAD_REQUEST
						   : TRIB_PROBLEM_INTERNAL,
				 detail);
		return rc;
	}
	gw_upload_moves(u);
	if (payload) {
		gw_follow_landed(u);
	}
	return u->intake.phase == GW_INTAKE_PARSED ? header_complete(u) : 0;
}

static void on_broken(struct trib_exchange *x, enum trib_problem code)
{
	(void)x; /* on_gone follows and gives everything back */
	gw_count_rejected(code);
}

static void on_complete(struct trib_exchange *x)
{
	struct gw_upload *u = trib_exchange_data(x);
	const struct gw_check *check = &u->intake.check;

	if (u->listed && (u->intake.phase != GW_INTAKE_FULL || !u->head.completes)) {
		gw_resume_answer(u);
	} else if (u->intake.phase != GW_INTAKE_FULL) {
		gw_upload_refuse(u, TRIB_PROBLEM_TRUNCATED, "body is shorter than announced");
	} else if (u->head.has_crc && u->head.crc != check->crc) {
		gw_upload_refuse(u, TRIB_PROBLEM_DIGEST_MISMATCH, "crc32c differs; send it again");
	} else if (!gw_check_finite(check->worst)) {
		gw_upload_refuse(u, TRIB_PROBLEM_NON_FINITE, NULL);
	} else if (!gw_check_in_range(check->worst, weight_of(u), u->job->range)) {
		gw_upload_refuse(u, TRIB_PROBLEM_OUT_OF_RANGE,
				 "largest |value| x FL-Weight exceeds aggregation.range");
	} else {
		gw_upload_commit(u);
	}
}

void gw_upload_go_on(struct gw_upload *u)
{
	static const struct trib_http_sink sink = { on_next, on_landed, on_complete, on_broken };

	u->state = GW_UPLOAD_RECEIVING;
	u->renew_ms = 0;
	trib_http_want_sink(u->x, &sink);
}

void gw_upload_receive(struct gw_upload *u)
{
	gw_intake_init(&u->intake, u->head.total, u->job->header_max);
	u->intake.check.wants_norm = u->norms;
	gw_upload_go_on(u);
}

/* ---- replays ---- */

static int on_drained(struct trib_exchange *x, size_t size)
{
	struct gw_upload *u = trib_exchange_data(x);
	const char *detail = NULL;
	int rc = gw_intake_landed(&u->intake, size, &detail);

	if (rc) {
		gw_upload_refuse(u, TRIB_PROBLEM_BAD_REQUEST, detail);
	}
	return rc;
}

static void on_drain_complete(struct trib_exchange *x)
{
	struct gw_upload *u = trib_exchange_data(x);
	struct gw_upload_head head = u->head;
	char job[TRIB_JOB_ID_SIZE];
	char digest[GW_BODY_DIGEST_SIZE];
	struct gw_receipt receipt = { .update = head.update,
				      .job = job,
				      .client = head.client,
				      .digest = digest,
				      .round = head.round,
				      .weight_fx = head.weight_fx,
				      .counted_fx = u->counted_weight,
				      .counted_round = u->counted_round,
				      .bytes = head.total,
				      .accepted_ms = u->dup_ms,
				      .replay = true };

	gw_body_digest(u->intake.check.crc, u->intake.received, digest);
	if (u->intake.phase != GW_INTAKE_FULL) {
		gw_upload_refuse(u, TRIB_PROBLEM_TRUNCATED, "body is shorter than announced");
		return;
	}
	if (strcmp(digest, u->dup_digest) != 0) {
		gw_upload_refuse(u, TRIB_PROBLEM_ALREADY_REPORTED, NULL);
		return;
	}
	memcpy(job, u->job_id, sizeof(job));
	gw_count(GW_M_DUPLICATE, 1);
	gw_receipt_reply(gw_upload_leave(u), 200, &receipt);
}

void gw_upload_drain(struct gw_upload *u)
{
	static const struct trib_http_sink sink = { on_next, on_drained, on_drain_complete,
						    on_broken };

	u->state = GW_UPLOAD_DRAINING;
	gw_intake_init(&u->intake, u->head.total, 0);
	gw_intake_drain(&u->intake, u->worker->scratch, GW_SCRATCH_SIZE);
	trib_http_want_sink(u->x, &sink);
}
