/* SPDX-License-Identifier: Apache-2.0
 * A partial: the accumulator of one function for one round, in a memfd made and kept by the agent,
 * with a small journal that makes every fold all-or-nothing across kill -9 of the function.
 *
 *   0      trib_partial_header (one page)
 *   4096   undo: the accumulator chunk being changed, as it was
 *   4096 + undo   accumulator: `elements` of int64 (exact) or float (f32)
 *
 * A fold (an "op") of up to 8 inputs (the first: TRIB_OP_MAX) goes: op described (begin) -> per
 * chunk: copy chunk to undo, mark, change, advance cursor -> totals and recent list written ->
 * done_seq = op.seq. A successor finds: no op active; or an op with cursor c: chunks < c are done,
 * chunk c is restored from undo if it was marked, and the op goes on from c. So no fold is ever
 * lost or doubled, and a slot can be given back as soon as its op is done, with memory of one
 * accumulator per function.
 *
 * The first op of an empty partial overwrites (reads nothing, needs no undo): no zeroing pass.
 *
 * Owner: exactly one live function writes; the agent reads headers (and resets nothing while a
 * function lives); the parent maps read-only after SEALED.
 */
#ifndef TRIB_SHM_PARTIAL_H
#define TRIB_SHM_PARTIAL_H

#include "common/base.h"

#define TRIB_PARTIAL_MAGIC       0x54524150u
#define TRIB_PARTIAL_VERSION     3
#define TRIB_PARTIAL_HEADER_SIZE 4096u
#define TRIB_PARTIAL_CHUNK       8192u /* elements per chunk: 64 KiB of int64, stays in L2 */
#define TRIB_PARTIAL_UNDO_SIZE   (TRIB_PARTIAL_CHUNK * 8u)
#define TRIB_FOLD_MAX            8u  /* inputs of one fused pass, and of an op on sums */
#define TRIB_OP_MAX              60u /* inputs of an op that overwrites; < TRIB_RECENT_MAX */
#define TRIB_RECENT_MAX          64u /* >= the largest credit */

enum trib_accumulate {
	TRIB_ACCUMULATE_EXACT = 0,
	TRIB_ACCUMULATE_F32 = 1
};

enum trib_partial_state {
	TRIB_PARTIAL_EMPTY = 0,
	TRIB_PARTIAL_OPEN = 1,
	TRIB_PARTIAL_SEALED = 2, /* immutable until reset */
};

#define TRIB_ITEM_PARTIAL 0x80000000u /* item.slot = this | partial index; gen = round */
#define TRIB_CHILDREN_MAX 256u        /* partials of smaller index are told apart for ever */

struct trib_partial_item {
	uint32_t slot;
	uint32_t gen;
	uint32_t updates; /* client updates in it */
	uint32_t reserved;
	uint64_t weight; /* fixed point */
};

struct trib_partial_totals {
	uint64_t updates;
	uint64_t weight; /* fixed point; exact */
};

/* What the owner measured, over all rounds and lives of the partial. Only told: nothing hangs on
 * it.
 */
struct trib_partial_stats {
	uint64_t updates;  /* folded */
	uint64_t passes;   /* fused passes that took */
	uint64_t fold_ns;  /* wall time of those */
	uint64_t partials; /* children merged */
	uint64_t merge_ns;
	uint64_t cpu_ns; /* of its owners' processes */
	/* updates folded while they arrived (docs/adr/0009-cut-through.md) */
	uint64_t followed;       /* begun to be followed */
	uint64_t follow_kept;    /* of those, counted as folded so */
	uint64_t follow_evicted; /* taken out again, the others went on */
	uint64_t follow_dropped; /* groups forgotten; theirs were folded from the slots */
	uint64_t follow_bytes;   /* read by it, wasted ones as well */
	uint64_t ahead;          /* models of which a part was made before they were asked for */
};

struct trib_partial_header {
	uint32_t magic;
	uint32_t version;
	uint32_t job_index;
	uint32_t index; /* partial number within the job */
	uint64_t elements;
	uint32_t accumulate;
	uint32_t chunk;
	char job[32];
	char boot[32]; /* of the segment it belongs to */
	/* journal */
	uint32_t round;
	uint32_t state;      /* atomic */
	uint64_t done_seq;   /* atomic: last finished op */
	uint64_t active_seq; /* atomic: done_seq + 1 while an op is under way, else <= done_seq */
	uint32_t cursor;     /* atomic: next chunk of the active op */
	uint32_t undo_chunk; /* atomic: chunk held by undo, UINT32_MAX = none */
	uint32_t op_count;
	uint32_t op_first; /* 1: the op overwrites */
	struct trib_partial_item op[TRIB_OP_MAX];
	struct trib_partial_totals totals[2]; /* valid one: [done_seq & 1] */
	uint64_t item_total;                  /* items ever entered into recent */
	struct {
		uint32_t slot;
		uint32_t gen;
		uint64_t seq; /* valid when 0 < seq <= done_seq */
	} recent[TRIB_RECENT_MAX];
	uint64_t owner_pid;
	uint64_t owner_start; /* field 22 of /proc/pid/stat */
	/* children merged in this round, a bit each; valid one: [done_seq & 1]. A list of recent
	 * ones would forget. */
	uint64_t merged[2][TRIB_CHILDREN_MAX / 64];
	struct trib_partial_stats stats;
	/* a sum on its way between nodes (the agent's; a function never looks) */
	char origin[64];      /* the node it came from, "" = this one */
	char origin_boot[32]; /* of that node's memory */
	uint32_t part;        /* which of that node's sums of the round */
	uint32_t scale_bits;
	/* which part of the vector it sums: elements [first, first + elements) */
	uint64_t first;
	uint32_t lane;  /* that part's number */
	uint32_t lanes; /* of so many; 0 = 1 */
	uint32_t back;  /* atomic: 1 = the active op is being taken out of the sums again */
};
_Static_assert(sizeof(struct trib_partial_header) <= TRIB_PARTIAL_HEADER_SIZE, "header page");

struct trib_partial {
	int fd; /* owned */
	uint8_t *memory;
	uint64_t size;
	bool writable;
	uint64_t elements; /* validated copies */
	enum trib_accumulate accumulate;
	uint32_t index;
	uint64_t first; /* of the vector */
	uint32_t lane;
	uint32_t lanes; /* >= 1 */
};

/* Elements [*ret_first, + result) of lane `lane` of `lanes`: whole chunks. 0: more lanes than
 * chunks.
 */
uint64_t trib_partial_range(uint64_t elements, uint32_t lane, uint32_t lanes, uint64_t *ret_first);
uint64_t trib_partial_size(uint64_t elements, enum trib_accumulate accumulate);
TRIB_MUST_CHECK int trib_partial_create(const char *job, const char *boot, uint32_t job_index,
					uint32_t index, uint64_t elements,
					enum trib_accumulate accumulate,
					struct trib_partial *ret_partial);
/* It sums a part of a vector only. Before anybody else knows of it. */
void trib_partial_place(struct trib_partial *partial, uint64_t first, uint32_t lane,
			uint32_t lanes);
/* fd is taken, also on failure. Header and size validated. */
TRIB_MUST_CHECK int trib_partial_attach(int fd, bool writable, struct trib_partial *ret_partial);
void trib_partial_fini(struct trib_partial *partial);

struct trib_partial_header *trib_partial_header(const struct trib_partial *partial);
void *trib_partial_accumulator(const struct trib_partial *partial);
void *trib_partial_undo(const struct trib_partial *partial);

/* Reader's side, also after a crash. */
enum trib_partial_state trib_partial_state(const struct trib_partial *partial);
struct trib_partial_totals trib_partial_totals(const struct trib_partial *partial);
bool trib_partial_folded(const struct trib_partial *partial, uint32_t slot, uint32_t gen);
bool trib_partial_op_active(const struct trib_partial *partial);
/* A copy; what a hostile owner wrote is only as wrong as a number can be. */
struct trib_partial_stats trib_partial_stats(const struct trib_partial *partial);

/* Writer's side (one live owner). */
void trib_partial_reset(struct trib_partial *partial, uint32_t round); /* -> EMPTY */
void trib_partial_seal(struct trib_partial *partial); /* -> SEALED; OPEN or EMPTY before */
/* SEALED -> OPEN: the round goes on after all. Only while nobody else writes or reads it. */
void trib_partial_unseal(struct trib_partial *partial);
/* Makes a partial whose accumulator was filled from outside SEALED, with these totals. */
void trib_partial_fill(struct trib_partial *partial, uint32_t round,
		       struct trib_partial_totals totals);
/* Copies a lane's sums into a whole one of the same job and round that nobody else knows of; lane
 * 0's journal comes along, but for the children merged: they must be gone with the lanes. Nobody
 * writes either. */
void trib_partial_join(struct trib_partial *whole, const struct trib_partial *lane);
/* Another number within the job. */
void trib_partial_renumber(struct trib_partial *partial, uint32_t index);
/* Describes an op of count items (more than TRIB_FOLD_MAX: only the first of an empty partial,
 * which overwrites); -EBUSY if one is active, -EPERM when sealed. */
TRIB_MUST_CHECK int trib_partial_begin(struct trib_partial *partial,
				       const struct trib_partial_item *items, uint32_t count);
/* Chunk loop: before_chunk keeps the old content in undo (no-op for the first op), after_chunk
 * advances. Chunk c covers elements [c*CHUNK, min((c+1)*CHUNK, elements)). */
void trib_partial_before_chunk(struct trib_partial *partial, uint32_t chunk);
void trib_partial_after_chunk(struct trib_partial *partial, uint32_t chunk);
/* Instead of the loop, for an op that overwrites: its owner put the whole result there before it
 * began the op. */
void trib_partial_whole(struct trib_partial *partial);
/* All chunks done: totals, recent, done_seq. */
void trib_partial_end(struct trib_partial *partial);
/* After attach by a successor: restores a torn chunk; returns the chunk to go on from. The op's
 * items are in the header (copy and validate them). Only if an op is active. */
uint32_t trib_partial_resume(struct trib_partial *partial);
uint32_t trib_partial_chunks(const struct trib_partial *partial);

/* ---- an op that cannot be finished: it is as if it had never begun ----
 * Its chunks below the cursor are taken out from the last to the first, each with its undo; a
 * successor goes on wherever its predecessor died. */

/* Agent's, while nobody else writes: of an op on updates that has not done all its chunks. 0: it is
 * gone; -EAGAIN: a function must take out what is in the sums; -EINVAL: no such op. Repeatable. */
TRIB_MUST_CHECK int trib_partial_abandon(struct trib_partial *partial);
/* The active op is being taken out. */
bool trib_partial_back(const struct trib_partial *partial);
/* Writer's side: the next chunk to take the op out of, with its undo taken (or the chunk restored).
 * False: it is out of all, and gone. */
bool trib_partial_back_chunk(struct trib_partial *partial, uint32_t *ret_chunk);
void trib_partial_back_done(struct trib_partial *partial, uint32_t chunk);

#endif
