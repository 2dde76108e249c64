/* SPDX-License-Identifier: Apache-2.0
 * PUT updates/{u}: from the head to the receipt. Worker thread.
 *
 *   LOADING -> RESERVING -> (ATTACHING) -> RECEIVING -> COMMITTING -> done
 *                  \-> DRAINING (a replay: only its CRC is wanted) -> done
 *
 * An upload outlives its exchange once it commits: the slot's fate does not depend on the client.
 */
#ifndef TRIB_GATEWAY_UPLOAD_H
#define TRIB_GATEWAY_UPLOAD_H

#include "gateway/intake.h"
#include "gateway/receipt.h"
#include "gateway/upload_head.h"
#include "gateway/worker.h"

enum gw_upload_state {
	GW_UPLOAD_LOADING,
	GW_UPLOAD_RESERVING,
	GW_UPLOAD_ATTACHING,
	GW_UPLOAD_RECEIVING,
	GW_UPLOAD_DRAINING,
	GW_UPLOAD_COMMITTING,
	GW_UPLOAD_PARKED, /* resume.h: nobody's, until a request goes on with it */
};

struct gw_upload {
	TAILQ_ENTRY(gw_upload) entry; /* ATTACHING, or (listed) in the table of resume.c */
	struct gw_worker *worker;
	struct trib_exchange *x; /* NULL: the client is gone */
	enum gw_upload_state state;
	struct gw_upload_head head;
	char *metrics;      /* normalised FL-Metrics, NULL = none */
	struct gw_job *job; /* pinned */
	char job_id[TRIB_JOB_ID_SIZE];
	struct gw_live live;
	bool entered;           /* live is in the job's list */
	bool reserved;          /* trib_release is owed if it does not commit */
	bool norms;             /* the job's policy wants its squared norm */
	struct gw_slots *slots; /* pinned */
	bool holds;             /* slot, gen: ours, in state slot_state */
	enum trib_slot_state slot_state;
	uint32_t slot;
	uint32_t gen;
	struct gw_intake intake;
	struct gw_header *header; /* pinned */
	uint64_t until_ms;        /* ATTACHING */
	uint64_t wait_ms;         /* what a refusal tells, before jitter; 0: as usual */
	bool follows;             /* follow.h: the record says how far it is */
	bool hinted;
	uint64_t began_ns;        /* its payload */
	struct trib_timer *retry; /* COMMITTING: Redis answered an error */
	uint32_t tries;
	uint64_t renew_ms;       /* RECEIVING: when the record is to hear that it moves */
	uint64_t counted_weight; /* what Redis said: discounted weight, and round; 0 = not said */
	uint32_t counted_round;
	/* resume.c: in its table; guarded by its lock */
	bool listed;
	bool parked;
	bool yield;        /* its client has another connection */
	uint64_t yield_at; /* received when that was last looked at */
	bool resuming;     /* by PATCH */
	uint64_t parked_ms;
	/* of a replay: what was committed */
	char dup_digest[GW_BODY_DIGEST_SIZE];
	uint64_t dup_ms;
};

void gw_upload_begin(struct gw_worker *worker, struct trib_exchange *x, const char *job,
		     const char *update);
/* The agent answered for `job`, or the job is gone ("": any). */
void gw_uploads_attached(struct gw_worker *worker, const char *job);
void gw_uploads_tick(struct gw_worker *worker);

/* ---- shared by upload.c, upload_receive.c and upload_commit.c only ---- */
/* Asks the record for the place (or, with a slot filled already, what has become of it). */
void gw_upload_reserve(struct gw_upload *u);
/* What a record's CLOSED means, by the state (of the round or the job) it names. */
enum trib_problem gw_upload_closed(const char *state);
/* "counted, round" of an answer, from element `at`; false: it has none. */
bool gw_upload_decision(struct gw_upload *u, const struct trib_value *answer, size_t at);
/* Ends it with a problem: slot back, reservation released, answer sent, freed. */
void gw_upload_refuse(struct gw_upload *u, enum trib_problem problem, const char *detail);
/* Lets go of everything (slot back, release owed) and frees. Returns the exchange to answer, with
 * nothing of ours attached, or NULL. */
struct trib_exchange *gw_upload_leave(struct gw_upload *u);
/* The slot is ours: asks for the body. */
void gw_upload_receive(struct gw_upload *u);
/* A parked one, ours again, goes on with this request's body. */
void gw_upload_resume(struct gw_upload *u, struct trib_exchange *x);
/* The same once the record has said that the place is still the client's. */
void gw_upload_go_on(struct gw_upload *u);
/* A replay: asks for the body to throw it away. */
void gw_upload_drain(struct gw_upload *u);
/* Bytes came: says so to the record, now and then. */
void gw_upload_moves(struct gw_upload *u);
/* All checks passed. */
void gw_upload_commit(struct gw_upload *u);

#endif
