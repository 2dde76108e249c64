/* SPDX-License-Identifier: Apache-2.0 */
/* The 64-byte descriptor: what travels instead of the update. Little-endian, no pointers. Seen by
 * gateway, agent, functions and (compiled by clang for BPF) the SK_MSG program, so it includes
 * nothing but <linux/types.h>.
 *
 * A descriptor is a hint. The truth is the slot's word in the segment and the Redis record: copy
 * it, check it (trib_descriptor_valid in shm/descriptor_check.h), then use the copy.
 */
#ifndef TRIB_SHM_DESCRIPTOR_H
#define TRIB_SHM_DESCRIPTOR_H

#include <linux/types.h>

#define TRIB_DESCRIPTOR_MAGIC 0x31425254u /* "TRB1" */
#define TRIB_DESCRIPTOR_SIZE  64

enum trib_descriptor_kind {
	TRIB_DESC_UPDATE = 1,  /* agent -> function: fold slot (slot, gen) with `weight` */
	TRIB_DESC_PARTIAL = 2, /* function -> parent: my partial (slot = its index) is sealed */
	TRIB_DESC_MODEL = 3,   /* agent -> top: finalise into the out memfd */
	TRIB_DESC_FLUSH = 4,   /* agent -> leaf: seal, send PARTIAL to route `slot` */
	TRIB_DESC_ACK = 5,     /* function -> agent hub: done; flags = kind done, slot/gen echoed */
	TRIB_DESC_NACK = 6,    /* function -> agent hub: refused; flags = kind, tag = reason */
	TRIB_DESC_STOP = 7,    /* agent -> function: exit 0 */
	TRIB_DESC_RESET = 8,   /* agent -> function: empty your partial for `round` */
	TRIB_DESC_FOLLOW = 9,  /* gateway -> agent -> function: slot (slot, gen) is being filled; a
				* hint, not answered. tag 1: what is not committed will not be */
};

enum trib_nack_reason {
	TRIB_NACK_INVALID = 1, /* failed its check */
	TRIB_NACK_STALE = 2,   /* generation or slot state differ */
	TRIB_NACK_ROUND = 3,   /* partial belongs to another round or is sealed */
	TRIB_NACK_UNKNOWN = 4, /* no such child, base or out */
};

/* Weights are fixed point: value * 2^20, so that their sums are exact. */
#define TRIB_WEIGHT_BITS 20

struct trib_descriptor {
	__u32 magic;
	__u8 kind;
	__u8 dtype;    /* enum trib_dtype; 0 = F32 */
	__u8 encoding; /* 0 = dense */
	__u8 flags;
	__u32 route; /* destination: key in the route table */
	__u32 job;   /* node-local job index */
	__u32 round;
	__u32 base; /* model version the update was made from */
	__u32 slot;
	__u32 gen;
	__u64 weight;  /* TRIB_WEIGHT_BITS fixed point, sum for partials */
	__u64 bytes;   /* payload */
	__u32 updates; /* client updates folded in; 1 for an update */
	__u16 tag;     /* NACK: reason; UPDATE: more updates follow at once */
	__u16 source;  /* route index of the sender within its job */
	__u32 sent_us; /* CLOCK_MONOTONIC microseconds, low 32 bits, when it began to wait */
	__u32 check;   /* CRC32C of the first 60 bytes */
};

_Static_assert(sizeof(struct trib_descriptor) == TRIB_DESCRIPTOR_SIZE, "descriptor is 64 bytes");
_Static_assert(__builtin_offsetof(struct trib_descriptor, route) == 8, "route at 8");
_Static_assert(__builtin_offsetof(struct trib_descriptor, weight) == 32, "weight at 32");
_Static_assert(__builtin_offsetof(struct trib_descriptor, sent_us) == 56, "sent_us at 56");

/* Routes: a job owns 1024 keys; 0 is its hub (the agent's dispatcher), 1.. are functions. */
#define TRIB_ROUTES_PER_JOB    1024u
#define TRIB_ROUTE(job, index) ((job)*TRIB_ROUTES_PER_JOB + (index))

#endif
