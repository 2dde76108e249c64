/* SPDX-License-Identifier: Apache-2.0
 * A job's segment on a node: `data` (N equal slots) and `ctl` (a header and one record per slot),
 * each a memfd sealed against resizing. The agent makes them, keeps and keeps-by-keeper every fd;
 * the gateway maps both writable; functions get read-only fds and can never map them writable.
 *
 *   data:  slot 0 | slot 1 | ...            each slot_size bytes (page multiple; 2 MiB multiple
 *                                           from 1 MiB up; huge pages when there are any)
 *   ctl:   trib_segment_header (4096) | trib_slot_record x slot_count (256 each)
 *
 * Slot life (only gateway and agent store it; one 64-bit word: state in the low byte, generation
 * above; compare-and-swap; release):
 *
 *   FREE --gateway--> FILLING --gateway--> READY --commit--> CLAIMED --agent--> FREE (gen + 1)
 *                        \--abort-----------\--refused----------------------------^
 *   FREE --agent--> WITHDRAWN --agent--> FREE (gen + 1)     (tenants share the arena)
 *
 * READY: payload complete and checked, record complete; the commit may or may not have reached
 * Redis. CLAIMED: known to be committed. Recovery of a dead gateway: FILLING -> FREE, READY ->
 * commit again under the record's update id.
 */
#ifndef TRIB_SHM_SEGMENT_H
#define TRIB_SHM_SEGMENT_H

#include "common/base.h"

#define TRIB_SEGMENT_MAGIC     0x47455354u
#define TRIB_SEGMENT_VERSION   1
#define TRIB_SEGMENT_SLOTS_MAX 65536
#define TRIB_JOB_ID_SIZE       32
#define TRIB_CLIENT_ID_SIZE    65
#define TRIB_UPDATE_ID_SIZE    32
#define TRIB_BOOT_SIZE         27 /* 26 id digits + NUL: identity of this incarnation of the segment */

enum trib_slot_state {
	TRIB_SLOT_FREE = 0,
	TRIB_SLOT_FILLING = 1,
	TRIB_SLOT_READY = 2,
	TRIB_SLOT_CLAIMED = 3,
	TRIB_SLOT_WITHDRAWN = 4, /* out of use, its memory given back */
};

struct trib_segment_header { /* ctl page 0, constant after creation */
	uint32_t magic;
	uint32_t version;
	uint32_t slot_count;
	uint32_t job_index; /* node-local */
	uint64_t slot_size;
	uint64_t payload_size; /* bytes of one dense update */
	char job[TRIB_JOB_ID_SIZE];
	char boot[TRIB_BOOT_SIZE + 5];
};

struct trib_slot_record { /* 256 bytes; fields but word are written while FILLING */
	uint64_t word;    /* atomic: state | generation << 8 */
	uint64_t weight;  /* as sent, TRIB_WEIGHT_BITS fixed point */
	uint64_t bytes;   /* payload bytes */
	uint32_t round;
	uint32_t base;
	uint32_t crc;        /* CRC32C of the whole body as sent */
	uint32_t ready_us;   /* when READY, as descriptor.sent_us */
	uint64_t body_bytes; /* whole body: header + payload */
	char client[TRIB_CLIENT_ID_SIZE + 3];
	char update[TRIB_UPDATE_ID_SIZE];
	uint32_t counted_round; /* the round it counts in (asynchronous: the buffer) */
	uint64_t counted;       /* the weight it counts with (asynchronous: staleness discounted) */
	double norm;            /* squared, of the payload; < 0: not taken */
	uint64_t filled;        /* atomic: how much of the payload is here (below); in any state */
	uint32_t folded_round;  /* the agent's: its sum has it; of a job with a memory */
	uint32_t poison;        /* the agent's: generation + 1 that is to be quarantined */
	uint8_t reserved[256 - 48 - 68 - 32 - 36];
};
_Static_assert(sizeof(struct trib_slot_record) == 256, "slot record is 256 bytes");
_Static_assert(sizeof(struct trib_segment_header) <= 4096, "header fits its page");

struct trib_segment {
	int data_fd; /* owned */
	int ctl_fd;  /* owned */
	uint8_t *data;
	uint8_t *ctl;
	uint64_t data_size;
	uint64_t ctl_size;
	bool writable;
	bool huge;
	struct trib_segment_header header; /* validated private copy */
};

#define TRIB_NORM_SIZE 32
/* Decimal that reads back as the same bits; "" when it was not taken. */
const char *trib_norm_text(double norm, char out[TRIB_NORM_SIZE]);

struct trib_slot_view { /* word taken apart */
	enum trib_slot_state state;
	uint32_t gen;
};

/* Slot size for a payload: page multiple below 1 MiB, else 2 MiB multiple. At least one page. */
uint64_t trib_segment_slot_size(uint64_t payload_size);

/* Makes both memfds (mode 0600, F_SEAL_SHRINK|GROW|SEAL), tries huge pages when slot_size is a
 * multiple of 2 MiB and enough are free. */
TRIB_MUST_CHECK int trib_segment_create(const char *job, const char *boot, uint32_t job_index,
					uint64_t payload_size, uint32_t slot_count,
					struct trib_segment *ret_segment);
/* Maps fds (taken, also on failure) received from elsewhere; every header value and both sizes
 * are validated. writable=false maps PROT_READ (functions). */
TRIB_MUST_CHECK int trib_segment_attach(int data_fd, int ctl_fd, bool writable,
					struct trib_segment *ret_segment);
void trib_segment_fini(struct trib_segment *segment); /* unmaps, closes; idempotent */
/* Read-only duplicate of a memfd (through /proc/self/fd), for functions. fd or -errno. */
int trib_fd_read_only(int fd);

struct trib_slot_record *trib_segment_record(const struct trib_segment *segment, uint32_t slot);
uint8_t *trib_segment_slot(const struct trib_segment *segment, uint32_t slot);

struct trib_slot_view trib_slot_load(const struct trib_slot_record *record); /* acquire */
/* CAS (from, gen) -> to, release; generation + 1 when `to` is FREE. False: it was otherwise. */
TRIB_MUST_CHECK bool trib_slot_move(struct trib_slot_record *record, enum trib_slot_state from,
				    uint32_t gen, enum trib_slot_state to);

/* ---- following a slot while it is being filled ----
 * filled = generation << 32 | TRIB_FILLED_UNIT pieces of the payload that are here and passed their
 * checks so far. It only grows within a generation, and what lies below it does not change within
 * that generation: whoever reads it, reads the bytes and then sees the slot CLAIMED in the same
 * generation has read the bytes of the update that was committed. */
#define TRIB_FILLED_UNIT 4096u

/* Gateway, slot FILLING and its own: `bytes` of `payload` are here (release). */
void trib_slot_fill(struct trib_slot_record *record, uint32_t gen, uint64_t bytes,
		    uint64_t payload);
/* Bytes of the payload that are here (acquire); 0 when the word speaks of another generation. */
uint64_t trib_slot_filled(const struct trib_slot_record *record, uint32_t gen, uint64_t payload);

#endif
