/* SPDX-License-Identifier: Apache-2.0
 * What agent and functions say to each other besides descriptors: fds and facts over a
 * SOCK_SEQPACKET pair (SCM_RIGHTS). A function trusts its agent; the agent never reads anything
 * but descriptors (validated) from a function.
 *
 * Zygote: `tributary-aggregator --zygote-fd N`. The agent sends TRIB_FN_SPAWN with two fds (data
 * socket, control socket); the zygote forks with CLONE_PARENT (the function is the AGENT's child:
 * the agent reaps it) and answers TRIB_FN_SPAWNED with the pid. Zygote's EOF = agent gone: exit.
 * With one fd (control socket) it forks a spare: sandboxed, without a job, until TRIB_FN_BIND.
 *
 * A function's turn: drain the control socket, then the data socket, fold what is there (up to
 * TRIB_FOLD_MAX updates in one fused pass), acknowledge each (route of its job's hub), sleep.
 * Data socket EOF: exit 0. The function is sandboxed before it reads its first message.
 */
#ifndef TRIB_SHM_FUNCTION_H
#define TRIB_SHM_FUNCTION_H

#include "common/base.h"

#define TRIB_FN_MAGIC 0x314e4654u

enum trib_fn_kind {
	TRIB_FN_SPAWN = 1,   /* agent -> zygote; fds: data socket, control socket */
	TRIB_FN_SPAWNED = 2, /* zygote -> agent; pid */
	TRIB_FN_JOB = 3,     /* fds: segment data (ro), ctl (ro) */
	TRIB_FN_OWN =
		4, /* fd: own partial (rw); resume its active op, if any, then ACK its items */
	TRIB_FN_CHILD = 5, /* fd: a child's partial (ro); index */
	TRIB_FN_BASE = 6,  /* fd: base model file (ro); offset of its data, version */
	TRIB_FN_OUT = 7,   /* fd: out memfd (rw), elements * 4 bytes of float */
	TRIB_FN_BIND = 8,  /* agent -> spare, before all else; fd: data socket */
};

struct trib_fn_message {
	uint32_t magic;
	uint32_t kind;
	uint32_t job_index;
	uint32_t index; /* partial index / route index of the function (SPAWN, JOB) */
	int32_t pid;
	uint32_t accumulate;    /* enum trib_accumulate */
	uint32_t scale_bits;    /* exact: value = integer * 2^-scale_bits */
	uint32_t input;         /* 0 delta: out = base + lr * mean; 1 weights: out = mean */
	uint32_t version;       /* BASE */
	uint32_t test_delay_us; /* tests: pause after each chunk, 0 in production */
	uint32_t test_poison;   /* tests: a chunk of an update that begins with these bits kills */
	uint32_t unused;
	uint64_t elements;
	uint64_t offset; /* BASE: where the data begins in the file */
	double lr;
	uint64_t divisor; /* BASE: what the sum is divided by, 2^-20 fixed point; 0 = its own
			     weights */
};

#endif
