/* SPDX-License-Identifier: Apache-2.0
 * Gateway <-> agent: a SOCK_SEQPACKET connection on the agent's unix socket (0600), messages of
 * one struct, fds by SCM_RIGHTS. The gateway connects (again whenever it breaks). Both are of one
 * trust level, yet every message is size- and range-checked.
 *
 *   gateway: HELLO{workers}      agent: RINGS{fds: channels memfd, agent doorbell, gateway
 * doorbell} channel w (0..workers-1): worker w -> agent, kind UPDATE, slot CLAIMED channel
 * `workers`:        agent -> gateway, kind ACK = slot became FREE (hint) gateway: ATTACH{job}
 * agent: SEGMENT{result, ..; fds: data, ctl} (idempotent; pins the job's segment while the gateway
 * lives) agent:   DETACH{job}         the job is gone: unmap, forget (uploads under way are
 * refused)
 *
 * A sum from another node: gateway IMPORT, agent TARGET, the body, gateway IMPORTED, agent MOVED;
 * then the gateway answers the sender. A broken link ends all of them: the sender comes again.
 *
 * A version's memory: agent MODEL (fd, read-only), later agent RELEASE, gateway RELEASED. Between
 * MODEL and RELEASED 0 the agent leaves the bytes alone; a memory whose RELEASED never came it
 * never fills again.
 */
#ifndef TRIB_SHM_LINK_H
#define TRIB_SHM_LINK_H

#include "shm/segment.h"

#define TRIB_LINK_MAGIC 0x4b4e4c55u

enum trib_link_kind {
	TRIB_LINK_HELLO = 1,
	TRIB_LINK_RINGS = 2,
	TRIB_LINK_ATTACH = 3,
	TRIB_LINK_SEGMENT = 4,
	TRIB_LINK_DETACH = 5,
	TRIB_LINK_IMPORT = 6,    /* gateway: another node sends a sum: where to? */
	TRIB_LINK_TARGET = 7,    /* agent: there (fd: a partial, writable), or result */
	TRIB_LINK_IMPORTED = 8,  /* gateway: it is there, checked (or result: it never came) */
	TRIB_LINK_MOVED = 9,     /* agent: 0: this node answers for it from now on */
	TRIB_LINK_FETCH = 10,    /* gateway: somebody wants version `round` of the model */
	TRIB_LINK_MODEL = 11,    /* agent: a version, made (fd: its file's bytes, read-only) */
	TRIB_LINK_RELEASE = 12,  /* agent: wants it back; result 0: its file is there instead */
	TRIB_LINK_RELEASED = 13, /* gateway: 0: nothing here sees that memory any more */
};

/* Facts of a sum that comes from another node. */
struct trib_link_sum {
	uint64_t transfer; /* the gateway's number of it, in all four messages */
	uint64_t updates;
	uint64_t weight; /* fixed point */
	uint64_t elements;
	uint32_t round; /* FETCH: the version */
	uint32_t part;
	uint32_t accumulate;
	uint32_t scale_bits;
	char from[64]; /* node */
	char boot[32]; /* of the sender's memory */
};

struct trib_link_model {
	uint64_t memory; /* the agent's name for it, in all three messages */
	uint64_t size;   /* of the file: its bytes are the first of the memfd */
	uint32_t version;
	char digest[40]; /* of the data */
};

struct trib_link_message {
	uint32_t magic;
	uint32_t kind;
	int32_t result; /* 0 or -errno: -ENOSPC arena full, -ENOENT no such job or no model yet */
	uint32_t workers;
	uint32_t job_index;
	uint32_t reserved; /* HELLO: 1 when this process was linked before and may own slots */
	char job[TRIB_JOB_ID_SIZE];
	char node[64]; /* RINGS: the node's name, part of `place` and of per-node counts */
	struct trib_link_sum sum;     /* IMPORT .. FETCH */
	struct trib_link_model model; /* MODEL .. RELEASED */
};

/* Send / receive one message with up to 4 fds over SEQPACKET (also used for trib_fn_message and
 * the keeper). Non-blocking fds answer -EAGAIN. recv: *ret_count fds are owned by the caller,
 * CLOEXEC; returns bytes, 0 at EOF. A truncated message is -EBADMSG (fds closed). */
TRIB_MUST_CHECK int trib_fd_send(int socket_fd, const void *message, size_t size, const int *fds,
				 uint32_t count);
TRIB_MUST_CHECK int trib_fd_receive(int socket_fd, void *message, size_t size, int *fds,
				    uint32_t fds_max, uint32_t *ret_count);
/* Listening / connected SEQPACKET unix sockets (CLOEXEC, listening one non-blocking, 0600). */
TRIB_MUST_CHECK int trib_unix_listen(const char *path, int *ret_fd);
TRIB_MUST_CHECK int trib_unix_connect(const char *path, int *ret_fd);

#endif
