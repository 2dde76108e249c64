/* SPDX-License-Identifier: Apache-2.0
 * Upload tickets: what a check-in promises, sealed with HMAC-SHA-256 so that the gateway can judge
 * an upload before it reads a byte of it or asks Redis. 80 bytes of facts + 32 of MAC, base64url.
 */
#ifndef TRIB_COMMON_TICKET_H
#define TRIB_COMMON_TICKET_H

#include "common/id.h"
#include "common/problem.h"

#define TRIB_TICKET_TEXT_SIZE 152 /* 112 bytes -> 150 characters + NUL */
#define TRIB_TICKET_KEY_SIZE  32

struct trib_ticket {
	uint32_t version; /* 1 */
	uint32_t round;
	struct trib_id job;
	struct trib_id update;
	uint64_t client;     /* XXH3-64 style: high half of trib_digest(client id) */
	uint64_t expires_ms; /* wall */
	uint64_t bytes_max;  /* of the whole body */
	uint32_t base;
	uint32_t epoch;
	uint64_t reserved;
};

TRIB_MUST_CHECK int trib_ticket_seal(const struct trib_ticket *ticket,
				     const uint8_t key[TRIB_TICKET_KEY_SIZE],
				     char out[TRIB_TICKET_TEXT_SIZE]);
/* 0, -EBADMSG (forged or malformed) or -EKEYEXPIRED (genuine but past `now_ms`). */
TRIB_MUST_CHECK int trib_ticket_open(const char *text, const uint8_t key[TRIB_TICKET_KEY_SIZE],
				     uint64_t now_ms, struct trib_ticket *ret_ticket);

#endif
