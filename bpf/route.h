/* SPDX-License-Identifier: Apache-2.0 */
/* The routing rule: may this descriptor travel from this sender along this route? Pure, without
 * state, compiled twice: by clang for the SK_MSG program and by gcc for the relay, the dead-letter
 * reader and the tests, so that both carriers decide alike. It is not a validity check of the
 * descriptor: kind and CRC are the receiver's business (shm/descriptor_check.h).
 */
#ifndef TRIB_BPF_ROUTE_H
#define TRIB_BPF_ROUTE_H

#include "shm/descriptor.h"

/* Why a descriptor did not travel. The kernel program uses the first part alone. */
enum trib_route_verdict {
	TRIB_ROUTE_OK = 0,
	TRIB_ROUTE_BAD_SIZE = 1, /* fewer than 64 bytes, or not readable in one piece */
	TRIB_ROUTE_BAD_MAGIC = 2,
	TRIB_ROUTE_NO_SENDER = 3,       /* the sending socket belongs to no job */
	TRIB_ROUTE_UNKNOWN = 4,         /* nothing is open under that route */
	TRIB_ROUTE_OTHER_TENANT = 5,    /* the route belongs to another job than the sender */
	TRIB_ROUTE_REDIRECT_FAILED = 6, /* open, but its socket has left the target map */
	/* user space only */
	TRIB_ROUTE_INVALID = 7, /* unknown kind or wrong CRC */
	TRIB_ROUTE_GONE = 8,    /* the receiver has closed its end */
	TRIB_ROUTE_FULL = 9,    /* the receiver's queue is at its bound */
	TRIB_ROUTE_VERDICTS = 10,
};

/* The transport's own forwarding socket: its letters were judged before. No endpoint may have it.
 */
#define TRIB_ROUTE_ANY_JOB 0xffffffffu
/* Never a destination of a job: where the transport proves to itself that redirecting works. */
#define TRIB_ROUTE_SELF 0xffffffffu

/* [data, end) is what can be read. OK leaves its route and start of waiting in *ret_x. */
static inline __attribute__((always_inline)) enum trib_route_verdict
trib_route_read(const void *data, const void *end, __u32 *ret_route, __u32 *ret_sent_us)
{
	const struct trib_descriptor *descriptor = data;

	if ((const char *)data + TRIB_DESCRIPTOR_SIZE > (const char *)end) {
		return TRIB_ROUTE_BAD_SIZE;
	}
	if (descriptor->magic != TRIB_DESCRIPTOR_MAGIC) {
		return TRIB_ROUTE_BAD_MAGIC;
	}
	*ret_route = descriptor->route;
	*ret_sent_us = descriptor->sent_us;
	return TRIB_ROUTE_OK;
}

/* Will the receiver answer it? All but hints and the end. */
static inline __attribute__((always_inline)) int trib_route_wants_answer(const void *data,
									 const void *end)
{
	const struct trib_descriptor *descriptor = data;

	return (const char *)data + TRIB_DESCRIPTOR_SIZE <= (const char *)end &&
	       descriptor->kind != TRIB_DESC_FOLLOW && descriptor->kind != TRIB_DESC_STOP;
}

/* Jobs of sender and route; NULL means there is none. */
static inline __attribute__((always_inline)) enum trib_route_verdict
trib_route_decide(const __u32 *sender_job, const __u32 *route_job)
{
	if (!sender_job) {
		return TRIB_ROUTE_NO_SENDER;
	}
	if (!route_job) {
		return TRIB_ROUTE_UNKNOWN;
	}
	if (*sender_job != *route_job && *sender_job != TRIB_ROUTE_ANY_JOB) {
		return TRIB_ROUTE_OTHER_TENANT;
	}
	return TRIB_ROUTE_OK;
}

/* Microseconds waited, both clocks modulo 2^32; 0 for a start in the future (sender's nonsense). */
static inline __attribute__((always_inline)) __u32 trib_route_waited_us(__u32 now_us, __u32 sent_us)
{
	__u32 waited_us = now_us - sent_us;

	return waited_us > 0x80000000u ? 0 : waited_us;
}

#endif
