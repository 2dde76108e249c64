/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: any bytes from a sender's socket through the routing rule, as a stream of descriptors
 * of any cut. Input: byte 0 = flags (sender known, route known), bytes 1..4 sender job, 5..8 the
 * route's job, the rest the stream.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "bpf/route.h"

#define HEAD 9u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int ok)
{
	if (!ok) {
		abort();
	}
}

static void judge(const struct trib_descriptor *letter, size_t size, uint8_t flags,
		  const uint32_t jobs[2])
{
	const uint32_t *sender = flags & 1 ? &jobs[0] : NULL;
	const uint32_t *to = flags & 2 ? &jobs[1] : NULL;
	uint32_t route = 0;
	uint32_t sent_us = 0;
	enum trib_route_verdict verdict =
		trib_route_read(letter, (const uint8_t *)letter + size, &route, &sent_us);

	check((verdict == TRIB_ROUTE_BAD_SIZE) == (size < TRIB_DESCRIPTOR_SIZE));
	if (verdict != TRIB_ROUTE_OK) {
		return;
	}
	check(letter->magic == TRIB_DESCRIPTOR_MAGIC && route == letter->route);
	check(trib_route_waited_us(0, sent_us) <= 0x80000000u);
	verdict = trib_route_decide(sender, to);
	/* the property that matters: no tenant's letter reaches another's route */
	check((verdict == TRIB_ROUTE_OK) ==
	      (sender && to && (*sender == *to || *sender == TRIB_ROUTE_ANY_JOB)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint32_t jobs[2];

	if (size < HEAD) {
		return 0;
	}
	memcpy(jobs, data + 1, sizeof(jobs));
	for (size_t at = HEAD; at < size; at += TRIB_DESCRIPTOR_SIZE) {
		size_t left = size - at < TRIB_DESCRIPTOR_SIZE ? size - at : TRIB_DESCRIPTOR_SIZE;
		struct trib_descriptor copy = { 0 };

		memcpy(&copy, data + at, left);
		judge(&copy, left, data[0], jobs);
	}
	return 0;
}
