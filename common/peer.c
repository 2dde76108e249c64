/* SPDX-License-Identifier: Apache-2.0 */
#include "common/peer.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "common/crypto.h"

#define MAGIC "tributary-peer1" /* where an upload ticket has its version */

/* Little-endian, no padding. */
struct sealed {
	char magic[16];
	uint32_t kind;
	uint32_t round;
	uint32_t part;
	uint32_t accumulate;
	uint32_t scale_bits;
	uint32_t crc;
	uint8_t job[16];
	uint64_t updates;
	uint64_t weight;
	uint64_t elements;
	uint64_t bytes;
	uint64_t expires_ms;
	char from[TRIB_PEER_NODE_SIZE];
	char to[TRIB_PEER_NODE_SIZE];
	char boot[TRIB_ID_TEXT_SIZE];
	uint8_t mac[TRIB_MAC_SIZE];
};
#define FACTS_SIZE offsetof(struct sealed, mac)
_Static_assert(sizeof(struct sealed) == 16 + 24 + 16 + 40 + 128 + 32 + 32, "no padding");
_Static_assert((sizeof(struct sealed) * 8 + 5) / 6 + 1 <= TRIB_PEER_TEXT_SIZE, "text fits");

int trib_peer_seal(const struct trib_peer *peer, const uint8_t key[TRIB_TICKET_KEY_SIZE],
		   char out[TRIB_PEER_TEXT_SIZE])
{
	struct sealed sealed = {
		.magic = MAGIC,
		.kind = htole32(peer->kind),
		.round = htole32(peer->round),
		.part = htole32(peer->part),
		.accumulate = htole32(peer->accumulate),
		.scale_bits = htole32(peer->scale_bits),
		.crc = htole32(peer->crc),
		.updates = htole64(peer->updates),
		.weight = htole64(peer->weight),
		.elements = htole64(peer->elements),
		.bytes = htole64(peer->bytes),
		.expires_ms = htole64(peer->expires_ms),
	};
	int rc;

	memcpy(sealed.job, peer->job.bytes, sizeof(sealed.job));
	if (trib_copy(sealed.from, sizeof(sealed.from), peer->from) ||
	    trib_copy(sealed.to, sizeof(sealed.to), peer->to) ||
	    trib_copy(sealed.boot, sizeof(sealed.boot), peer->boot)) {
		return -EINVAL;
	}
	rc = trib_mac(key, TRIB_TICKET_KEY_SIZE, &sealed, FACTS_SIZE, sealed.mac);
	if (rc) {
		return rc;
	}
	rc = trib_base64url_encode(&sealed, sizeof(sealed), out, TRIB_PEER_TEXT_SIZE);
	return rc < 0 ? rc : 0;
}

static bool ended(const char *text, size_t size)
{
	return memchr(text, '\0', size) != NULL;
}

/* They go into names, records and logs. */
static bool texts_valid(const struct sealed *s)
{
	if (!ended(s->from, sizeof(s->from)) || !ended(s->to, sizeof(s->to)) ||
	    !ended(s->boot, sizeof(s->boot)) || !trib_name_valid(s->from) ||
	    (s->to[0] && !trib_name_valid(s->to))) {
		return false;
	}
	for (const char *c = s->boot; *c; c++) {
		if (!((*c >= '0' && *c <= '9') || (*c >= 'a' && *c <= 'z') ||
		      (*c >= 'A' && *c <= 'Z'))) {
			return false;
		}
	}
	return true;
}

int trib_peer_open(const char *text, const uint8_t key[TRIB_TICKET_KEY_SIZE], uint64_t now_ms,
		   struct trib_peer *ret_peer)
{
	uint8_t mac[TRIB_MAC_SIZE];
	struct sealed s;
	int rc;

	if (strnlen(text, TRIB_PEER_TEXT_SIZE) >= TRIB_PEER_TEXT_SIZE ||
	    trib_base64url_decode(text, &s, sizeof(s)) != (int)sizeof(s)) {
		return -EBADMSG;
	}
	rc = trib_mac(key, TRIB_TICKET_KEY_SIZE, &s, FACTS_SIZE, mac);
	if (rc) {
		return rc;
	}
	if (!trib_equal_secret(mac, s.mac, sizeof(mac)) ||
	    memcmp(s.magic, MAGIC, sizeof(s.magic)) != 0 || !texts_valid(&s)) {
		return -EBADMSG;
	}
	if (now_ms > le64toh(s.expires_ms)) {
		return -EKEYEXPIRED;
	}
	*ret_peer = (struct trib_peer){
		.kind = le32toh(s.kind),
		.round = le32toh(s.round),
		.part = le32toh(s.part),
		.accumulate = le32toh(s.accumulate),
		.scale_bits = le32toh(s.scale_bits),
		.crc = le32toh(s.crc),
		.updates = le64toh(s.updates),
		.weight = le64toh(s.weight),
		.elements = le64toh(s.elements),
		.bytes = le64toh(s.bytes),
		.expires_ms = le64toh(s.expires_ms),
	};
	memcpy(ret_peer->job.bytes, s.job, sizeof(s.job));
	memcpy(ret_peer->from, s.from, sizeof(s.from));
	memcpy(ret_peer->to, s.to, sizeof(s.to));
	memcpy(ret_peer->boot, s.boot, sizeof(s.boot));
	return 0;
}
