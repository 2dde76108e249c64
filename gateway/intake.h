/* SPDX-License-Identifier: Apache-2.0
 * Receiving one safetensors body: 8 length bytes and header JSON into a heap buffer, then the
 * payload straight to where it belongs (pieces over `target`), checked as it lands. Or, draining,
 * everything into a scratch buffer with CRC only. Pure but for allocation; one worker thread.
 *
 *   LENGTH -> HEADER -> (owner sets the target) PAYLOAD -> FULL        DRAIN -> FULL
 */
#ifndef TRIB_GATEWAY_INTAKE_H
#define TRIB_GATEWAY_INTAKE_H

#include <sys/uio.h>

#include "common/crypto.h"
#include "common/safetensors.h"
#include "gateway/check.h"

enum gw_intake_phase {
	GW_INTAKE_LENGTH,
	GW_INTAKE_HEADER,
	GW_INTAKE_PARSED, /* header complete, target not set yet */
	GW_INTAKE_PAYLOAD,
	GW_INTAKE_DRAIN,
	GW_INTAKE_FULL, /* all announced bytes are here */
};

struct gw_intake {
	enum gw_intake_phase phase;
	uint64_t total; /* announced body size */
	uint64_t received;
	uint64_t header_max;
	uint8_t length[8];
	char *header; /* owned */
	uint64_t header_size;
	uint8_t *target;                 /* canonical data begins here */
	const struct trib_piece *pieces; /* borrowed */
	uint32_t piece_count;
	uint32_t piece;
	uint64_t piece_done;
	bool in_order; /* pieces lie one after the other: what has landed is one run from 0 */
	struct trib_hasher *hasher; /* borrowed, may be NULL: digest of the payload */
	uint8_t *scratch;           /* borrowed, DRAIN */
	size_t scratch_size;
	uint8_t spare; /* where a byte too many goes */
	struct gw_check check;
};

void gw_intake_init(struct gw_intake *intake, uint64_t total, uint64_t header_max);
void gw_intake_fini(struct gw_intake *intake); /* idempotent */
void gw_intake_drain(struct gw_intake *intake, uint8_t *scratch, size_t size);
/* Data bytes the body has room for; valid once the header is known. */
uint64_t gw_intake_payload(const struct gw_intake *intake);
void gw_intake_target(struct gw_intake *intake, uint8_t *target, const struct trib_piece *pieces,
		      uint32_t piece_count);
/* Payload bytes that have landed. */
uint64_t gw_intake_landed_payload(const struct gw_intake *intake);
/* Where the next bytes go (>= 1). -EPROTO before the target is set. */
TRIB_MUST_CHECK int gw_intake_next(struct gw_intake *intake, struct iovec *vectors, int max);
/* 0; -EBADMSG: the header length is not possible (*ret_detail says why); -EMSGSIZE: more bytes than
 * announced; -ENOMEM. The owner looks at ->phase for PARSED. */
TRIB_MUST_CHECK int gw_intake_landed(struct gw_intake *intake, size_t size,
				     const char **ret_detail);

#endif
