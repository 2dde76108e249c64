/* SPDX-License-Identifier: Apache-2.0
 * What one node shows another: a request between nodes carries its facts sealed with HMAC-SHA-256
 * under the cluster's key (that of the upload tickets; the two kinds never pass for each other), in
 * the header field FL-Peer. Nothing else about the sender is believed.
 */
#ifndef TRIB_COMMON_PEER_H
#define TRIB_COMMON_PEER_H

#include "common/id.h"
#include "common/ticket.h"

#define TRIB_PEER_NODE_SIZE 64
#define TRIB_PEER_TEXT_SIZE 480
#define TRIB_PEER_VALID_MS  300000 /* from sealing; clocks of nodes may differ by less */

enum trib_peer_kind {
	TRIB_PEER_PARTIAL = 1, /* PUT of a sum */
	TRIB_PEER_MODEL = 2,   /* GET of a version's file */
};

struct trib_peer {
	uint32_t kind;  /* enum trib_peer_kind */
	uint32_t round; /* MODEL: the version */
	uint32_t part;  /* which of the sender's sums of this round */
	uint32_t accumulate;
	uint32_t scale_bits;
	uint32_t crc; /* CRC32C of the body */
	struct trib_id job;
	uint64_t updates;
	uint64_t weight; /* fixed point */
	uint64_t elements;
	uint64_t bytes;
	uint64_t expires_ms; /* wall */
	char from[TRIB_PEER_NODE_SIZE];
	char to[TRIB_PEER_NODE_SIZE]; /* MODEL: "" */
	char boot[TRIB_ID_TEXT_SIZE]; /* of the sender's memory */
};

TRIB_MUST_CHECK int trib_peer_seal(const struct trib_peer *peer,
				   const uint8_t key[TRIB_TICKET_KEY_SIZE],
				   char out[TRIB_PEER_TEXT_SIZE]);
/* 0, -EBADMSG (forged or malformed) or -EKEYEXPIRED (genuine but past `now_ms`). Texts of the
 * result are terminated; names are valid node names ("" allowed for `to`). */
TRIB_MUST_CHECK int trib_peer_open(const char *text, const uint8_t key[TRIB_TICKET_KEY_SIZE],
				   uint64_t now_ms, struct trib_peer *ret_peer);

#endif
