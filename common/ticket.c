/* SPDX-License-Identifier: Apache-2.0 */
#include "common/ticket.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "common/crypto.h"

#define FACTS_SIZE 80
#define VERSION    1

/* The sealed bytes, little-endian, in the order of struct trib_ticket. */
struct sealed {
	uint32_t version;
	uint32_t round;
	uint8_t job[16];
	uint8_t update[16];
	uint64_t client;
	uint64_t expires_ms;
	uint64_t bytes_max;
	uint32_t base;
	uint32_t epoch;
	uint64_t reserved;
	uint8_t mac[TRIB_MAC_SIZE];
};
_Static_assert(offsetof(struct sealed, mac) == FACTS_SIZE, "80 bytes of facts");
_Static_assert(sizeof(struct sealed) == FACTS_SIZE + TRIB_MAC_SIZE, "no padding");
_Static_assert((sizeof(struct sealed) * 8 + 5) / 6 + 1 <= TRIB_TICKET_TEXT_SIZE, "text fits");

int trib_ticket_seal(const struct trib_ticket *ticket, const uint8_t key[TRIB_TICKET_KEY_SIZE],
		     char out[TRIB_TICKET_TEXT_SIZE])
{
	struct sealed sealed = {
		.version = htole32(ticket->version),
		.round = htole32(ticket->round),
		.client = htole64(ticket->client),
		.expires_ms = htole64(ticket->expires_ms),
		.bytes_max = htole64(ticket->bytes_max),
		.base = htole32(ticket->base),
		.epoch = htole32(ticket->epoch),
		.reserved = htole64(ticket->reserved),
	};
	int rc;

	if (ticket->version != VERSION) {
		return -EINVAL;
	}
	memcpy(sealed.job, ticket->job.bytes, sizeof(sealed.job));
	memcpy(sealed.update, ticket->update.bytes, sizeof(sealed.update));
	rc = trib_mac(key, TRIB_TICKET_KEY_SIZE, &sealed, FACTS_SIZE, sealed.mac);
	if (rc) {
		return rc;
	}
	rc = trib_base64url_encode(&sealed, sizeof(sealed), out, TRIB_TICKET_TEXT_SIZE);
	return rc < 0 ? rc : 0;
}

int trib_ticket_open(const char *text, const uint8_t key[TRIB_TICKET_KEY_SIZE], uint64_t now_ms,
		     struct trib_ticket *ret_ticket)
{
	uint8_t mac[TRIB_MAC_SIZE];
	struct sealed sealed;
	int rc;

	if (strnlen(text, TRIB_TICKET_TEXT_SIZE) >= TRIB_TICKET_TEXT_SIZE ||
	    trib_base64url_decode(text, &sealed, sizeof(sealed)) != (int)sizeof(sealed)) {
		return -EBADMSG;
	}
	rc = trib_mac(key, TRIB_TICKET_KEY_SIZE, &sealed, FACTS_SIZE, mac);
	if (rc) {
		return rc;
	}
	/* Nothing in the facts is looked at before the seal is known to be ours. */
	if (!trib_equal_secret(mac, sealed.mac, sizeof(mac)) ||
	    le32toh(sealed.version) != VERSION) {
		return -EBADMSG;
	}
	if (now_ms > le64toh(sealed.expires_ms)) {
		return -EKEYEXPIRED;
	}
	*ret_ticket = (struct trib_ticket){
		.version = le32toh(sealed.version),
		.round = le32toh(sealed.round),
		.client = le64toh(sealed.client),
		.expires_ms = le64toh(sealed.expires_ms),
		.bytes_max = le64toh(sealed.bytes_max),
		.base = le32toh(sealed.base),
		.epoch = le32toh(sealed.epoch),
		.reserved = le64toh(sealed.reserved),
	};
	memcpy(ret_ticket->job.bytes, sealed.job, sizeof(sealed.job));
	memcpy(ret_ticket->update.bytes, sealed.update, sizeof(sealed.update));
	return 0;
}
