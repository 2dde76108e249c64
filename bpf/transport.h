/* SPDX-License-Identifier: Apache-2.0
 * Descriptors between the agent's hubs and functions: one semantic, two carriers.
 *
 *   skmsg  the SK_MSG program redirects each 64-byte descriptor from the sender's socket straight
 *          into the receiver's (kernel), counting per route. What it cannot deliver arrives at the
 *          sender's peer end, held here: the dead-letter queue, re-routed or dropped and counted.
 *   relay  the same sockets without BPF: every descriptor arrives at the peer end and is forwarded
 *          here by the same routing rule (bpf/route.h), with the same counters.
 *
 * An endpoint is a loopback TCP pair: `fd` for the owner (the agent's hub, or a function it is
 * passed to), the peer end stays here; its EOF means the owner died. No back-pressure: credits are
 * the caller's duty. Loop thread only.
 *
 * On an owner's socket, -EPIPE from trib_descriptor_send may (skmsg) mean that the receiver died
 * that very moment: that letter is lost, the socket is good; only EOF on reading tells the truth.
 * -EACCES means a verdict that this program never gives: free the endpoint and make a new one.
 * What was under way to an owner that died is lost: the caller re-sends by his own books.
 */
#ifndef TRIB_BPF_TRANSPORT_H
#define TRIB_BPF_TRANSPORT_H

#include "bpf/route.h"
#include "common/loop.h"
#include "shm/descriptor.h"

enum trib_transport_mode {
	TRIB_TRANSPORT_AUTO,
	TRIB_TRANSPORT_SKMSG,
	TRIB_TRANSPORT_RELAY
};

struct trib_transport;
struct trib_endpoint;

struct trib_route_stats {
	uint64_t messages;
	uint64_t bytes;    /* descriptor bytes */
	uint64_t queue_us; /* sum over messages of (delivery time - sent_us) */
	uint64_t exec_us;  /* a function's: time with something in hand, given and not answered */
};

struct trib_transport_stats {
	uint64_t redirected; /* in the kernel */
	uint64_t relayed; /* forwarded in user space, dead letters that found their way included */
	uint64_t dead_letters; /* arrived at a peer end although skmsg carries */
	uint64_t dropped;      /* invalid, unknown route, other tenant, receiver gone */
};

/* AUTO: skmsg if it loads, else relay. SKMSG: fails with -errno if it cannot. `explain` (borrowed,
 * valid for the transport's life) says in one line which and why. */
TRIB_MUST_CHECK int trib_transport_new(struct trib_loop *loop, enum trib_transport_mode wanted,
				       struct trib_transport **ret_transport);
/* Every endpoint is freed before. */
struct trib_transport *trib_transport_free(struct trib_transport *transport);
enum trib_transport_mode trib_transport_mode(const struct trib_transport *transport);
const char *trib_transport_explain(const struct trib_transport *transport);
/* Why this thread's last trib_transport_new failed, in one line. */
const char *trib_transport_failure(void);
void trib_transport_stats(const struct trib_transport *transport,
			  struct trib_transport_stats *ret_stats);
/* The part of `dropped` that fell for this reason (bpf/route.h). */
uint64_t trib_transport_refused(const struct trib_transport *transport,
				enum trib_route_verdict verdict);
/* -ENOENT when nothing was ever routed there. */
TRIB_MUST_CHECK int trib_transport_route_stats(const struct trib_transport *transport,
					       uint32_t route, struct trib_route_stats *ret_stats);

/* Opens `route` for `job`. *ret_fd: the owner's socket, non-blocking, CLOEXEC, owned by the caller
 * (who may pass it to a child and close it). closed(arg): the owner's end is gone; the endpoint
 * stays until trib_endpoint_free. -EEXIST if the route is open. */
TRIB_MUST_CHECK int trib_endpoint_new(struct trib_transport *transport, uint32_t route,
				      uint32_t job, void (*closed)(void *arg), void *arg,
				      int *ret_fd, struct trib_endpoint **ret_endpoint);
/* Removes route, counters and sockets. */
struct trib_endpoint *trib_endpoint_free(struct trib_endpoint *endpoint);

#endif
