/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/upload_commit.h"

#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "gateway/metrics.h"
#include "gateway/resume.h"
#include "gateway/rings.h"
#include "shm/descriptor_check.h"

#define RETRY_MS   200
#define TRIES_MAX  50
#define PLACE_SIZE 160

static void send_commit(struct gw_upload *u);

/* The record tells a successor of ours what to commit: complete before READY. */
static void write_record(struct gw_upload *u, struct trib_slot_record *record)
{
	record->weight = u->head.weight_fx;
	record->counted = u->head.weight_fx;
	record->counted_round = u->head.round;
	record->bytes = u->job->payload;
	record->round = u->head.round;
	record->base = u->head.base;
	record->crc = u->intake.check.crc;
	record->body_bytes = u->head.total;
	record->norm = u->intake.check.wants_norm ? u->intake.check.norm : -1;
	record->ready_us = trib_descriptor_now_us();
	memset(record->client, 0, sizeof(record->client));
	memcpy(record->client, u->head.client, sizeof(u->head.client));
	memcpy(record->update, u->head.update, sizeof(record->update));
}

/* What Redis counted it as: the weight after its staleness, and the round (buffer) it is in. Ours
 * until CLAIMED; a successor of ours that commits again learns the same. */
static void take_over_decision(struct gw_upload *u, struct trib_slot_record *record,
			       const struct trib_value *answer, size_t at)
{
	if (gw_upload_decision(u, answer, at)) {
		record->counted = u->counted_weight;
		record->counted_round = u->counted_round;
	}
}

/* Committed: the slot is the agent's from here on. */
static void hand_over(struct gw_upload *u, const struct trib_value *answer, size_t at)
{
	const struct trib_segment *segment = &u->slots->segment;
	struct trib_slot_record *record = trib_segment_record(segment, u->slot);
	struct trib_descriptor d = { .kind = TRIB_DESC_UPDATE,
				     .route = TRIB_ROUTE(segment->header.job_index, 0),
				     .job = segment->header.job_index,
				     .base = u->head.base,
				     .slot = u->slot,
				     .gen = u->gen,
				     .bytes = u->job->payload,
				     .updates = 1,
				     .sent_us = record->ready_us };

	take_over_decision(u, record, answer, at);
	d.round = record->counted_round;
	d.weight = record->counted;
	if (!trib_slot_move(record, TRIB_SLOT_READY, u->gen, TRIB_SLOT_CLAIMED)) {
		struct trib_slot_view view = trib_slot_load(record);

		if (view.state != TRIB_SLOT_CLAIMED || view.gen != u->gen) {
			gw_count(GW_M_SLOT_LOST, 1);
			log_warn("commit", "slot lost job=%s slot=%u gen=%u state=%d", u->job_id,
				 u->slot, u->gen, (int)view.state);
		}
	}
	gw_slots_leave(u->slots, u->slot);
	u->holds = false;
	if (!gw_slots_retired(u->slots)) {
		gw_rings_push(u->worker->gw, u->worker->index, &d);
	}
}

/* Answers 201 or 200; the upload ends. */
static void accept(struct gw_upload *u, int status, uint64_t ms, long long counted)
{
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
				      .accepted_ms = ms,
				      .counted = counted,
				      .replay = status == 200 };
	struct trib_exchange *x;

	memcpy(job, u->job_id, sizeof(job));
	gw_body_digest(u->intake.check.crc, u->head.total, digest);
	gw_count(status == 201 ? GW_M_ACCEPTED : GW_M_DUPLICATE, 1);
	u->reserved = false;
	x = gw_upload_leave(u);
	if (x) {
		gw_receipt_reply(x, status, &receipt);
	}
}

/* No decision can be had: the slot stays READY and the agent commits it. Freed, it might be one
 * that an earlier, unanswered attempt has counted. */
static void leave_ready(struct gw_upload *u, const char *why)
{
	gw_slots_leave(u->slots, u->slot);
	u->holds = false;
	u->reserved = false;
	gw_upload_refuse(u, TRIB_PROBLEM_UNAVAILABLE, why);
}

static void on_retry(void *arg)
{
	send_commit(arg);
}

/* Redis said an error (disk full, out of memory ..), or that no round is open which a late update
 * could go to (text ""). Neither is a decision: ask again. */
static void commit_later(struct gw_upload *u, const char *text)
{
	if (u->tries++ == 0 && *text) {
		log_warn("commit", "redis error job=%s text=%s", u->job_id, text);
	}
	if (u->tries == TRIES_MAX && u->x) { /* the client need not wait; the slot has to */
		struct trib_exchange *x = u->x;

		u->x = NULL;
		trib_exchange_attach(x, NULL, NULL);
		gw_count_rejected(TRIB_PROBLEM_UNAVAILABLE);
		gw_unavailable(u->worker, x, *text ? "Redis refused" : "no round is open");
	}
	if (u->retry || trib_timer_new(u->worker->loop, on_retry, u, &u->retry) == 0) {
		trib_timer_after(u->retry, RETRY_MS);
		return;
	}
	leave_ready(u, "out of memory");
}

static void on_commit(const struct trib_value *value, void *arg)
{
	struct gw_upload *u = arg;
	const char *word = value ? trib_value_text(trib_value_at(value, 0)) : "";
	long long first = value ? trib_value_integer(trib_value_at(value, 1)) : 0;
	long long second = value ? trib_value_integer(trib_value_at(value, 2)) : 0;

	gw_count(GW_M_COMMITS_OUTSTANDING, -1);
	log_debug("commit", "event=answered update=%s answer=%s", u->head.update, word);
	if (!value) { /* we are shutting down: the slot stays READY and is committed again */
		leave_ready(u, "shutting down");
	} else if (trib_value_type(value) != TRIB_VALUE_ARRAY) {
		commit_later(u, trib_value_text(value));
	} else if (strcmp(word, "OK") == 0 || strcmp(word, "CLOSE") == 0) {
		hand_over(u, value, 3);
		accept(u, 201, (uint64_t)second, first);
	} else if (strcmp(word, "SAME") == 0) {
		hand_over(u, value, 4);
		accept(u, 201, (uint64_t)first, 0);
	} else if (strcmp(word, "LATER") == 0) {
		gw_count(GW_M_LATE_WAITS, 1);
		commit_later(u, "");
	} else if (strcmp(word, "DUP") == 0) {
		(void)gw_upload_decision(u, value, 4);
		accept(u, 200, (uint64_t)first, 0); /* the slot goes back: another one counted */
	} else {
		/* None of these leaves a reservation. */
		u->reserved = false;
		if (strcmp(word, "CONFLICT") == 0) {
			gw_upload_refuse(u, TRIB_PROBLEM_ALREADY_REPORTED, NULL);
		} else if (strcmp(word, "CLOSED") == 0) {
			gw_upload_refuse(u,
					 gw_upload_closed(trib_value_text(trib_value_at(value, 1))),
					 "closed while the update arrived");
		} else if (strcmp(word, "STALE") == 0) {
			gw_upload_refuse(u, TRIB_PROBLEM_STALE, NULL);
		} else if (strcmp(word, "NORES") == 0) {
			gw_upload_refuse(u, TRIB_PROBLEM_NOT_SELECTED, "selection has expired");
		} else if (strcmp(word, "NOJOB") == 0) {
			gw_jobs_drop(&u->worker->gw->jobs, u->job_id);
			gw_upload_refuse(u, TRIB_PROBLEM_NO_SUCH_JOB, NULL);
		} else {
			gw_upload_refuse(u, TRIB_PROBLEM_INTERNAL, "the answer is not understood");
		}
	}
}

static void send_commit(struct gw_upload *u)
{
	char place[PLACE_SIZE];
	char digest[GW_BODY_DIGEST_SIZE];
	char round[16];
	char weight[24];
	char norm[TRIB_NORM_SIZE];

	(void)snprintf(place, sizeof(place), "%s:%s:%u:%u", u->slots->node,
		       u->slots->segment.header.boot, u->slot, u->gen);
	gw_body_digest(u->intake.check.crc, u->head.total, digest);
	(void)snprintf(round, sizeof(round), "%u", u->head.round);
	(void)snprintf(weight, sizeof(weight), "%llu", (unsigned long long)u->head.weight_fx);
	if (gw_batch_call(
		    u->worker->batches, GW_BATCH_COMMIT, u->job->key, on_commit, u, u->head.client,
		    u->head.update, round, digest, weight, place, u->slots->node,
		    u->metrics ? u->metrics : "",
		    trib_norm_text(u->intake.check.wants_norm ? u->intake.check.norm : -1, norm),
		    NULL)) {
		if (u->tries) { /* an earlier attempt may have counted */
			commit_later(u, "too many calls outstanding");
			return;
		}
		gw_upload_refuse(u, TRIB_PROBLEM_UNAVAILABLE, "too many calls outstanding");
		return;
	}
	log_debug("commit", "event=asked update=%s", u->head.update);
	gw_count(GW_M_COMMITS, 1);
	gw_count(GW_M_COMMITS_OUTSTANDING, 1);
}

void gw_upload_commit(struct gw_upload *u)
{
	struct trib_slot_record *record = trib_segment_record(&u->slots->segment, u->slot);

	gw_resume_leave(u); /* complete: nothing to go on with */
	u->resuming = false;
	if (gw_slots_retired(u->slots)) {
		gw_upload_reserve(
			u); /* the record knows why: the job is over, the round closed .. */
		return;
	}
	write_record(u, record);
	if (!trib_slot_move(record, TRIB_SLOT_FILLING, u->gen, TRIB_SLOT_READY)) {
		gw_upload_refuse(u, TRIB_PROBLEM_UNAVAILABLE, "the slot was lost; send it again");
		return;
	}
	u->slot_state = TRIB_SLOT_READY;
	u->state = GW_UPLOAD_COMMITTING;
	send_commit(u);
}
